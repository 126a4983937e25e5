"""Findings beside errors: an error hides what it may have to do with, and makes up nothing."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from specs import HEAD, POST_TRAINING, after, compiled, stage

from etude.spec.text.pieces import pieces

WITH_WARNINGS = (
    HEAD.replace(" { seed = 1 }", ' { allow N652 "kept for later" }')
    + "dataset idle { sample = python_docs, tokens = 100 }\n"
    + "tokenizer bytes { bytes }\n"
    + 'cluster box { nodes = 2, gpus = 8 of "H100" }\n'
    + "cluster other { cpus = 2 }\n"
    + "let rate = 1e-2\n"
    + stage(
        lr="0 -> rate for 50% then rate",
        batch="64 seqs",
        clip="50",
        cluster="box",
        data="{ web 50%, idle 50% }",
        parallel="{ tensor 2 }",
    )
    + after("second", lr="1", batch="1024 seqs", checkpoint="every 100 steps").replace(
        "checkpoint =", "checkpoint"
    )
    + after("third", from_="first", lr="last -> 0 over 90%", seq_len="64")
    + after(
        "fourth",
        cluster="other",
        lr="last",
        model="tiny",
        seq_len="16",
        batch="4 seqs",
        data="math",
    ).replace("lr = last", "lr = 1")
    + after("fifth", average="polyak every 10 steps")
    + "stage mean: average { of = [fifth] }\n"
    + "stage exam: evaluate { loss = [web], needle = { lengths = [4Ki] } }\n"
    + "expect { parameters = 100k within 99%, third.steps = 10 }\n"
    + "variant hot { third.lr = 10 }\n"
)
FAULTS = [
    "nonsense = 1",
    "lr = ",
    "lr = 1e-3 1",
    "steps = 0",
    "from = nowhere",
    "}",
    "{",
    "= 3",
    "tokens = 3K",
    "allow W601",
    "kind = 7",
    "data = { web 97% }",
    '"',
    "clip = 1, clip = 2",
    "stage",
    "seq_len = 1 for 200 steps then 2",
    "parallel = { tensor 3 }",
    ":",
]


def fault(text: str, block: int, place: float, remove: int, what: str) -> tuple[int, int, str]:
    """Where a fault of one block begins and ends, and what stands there instead.

    What removes nothing becomes a statement of its own.
    """
    cuts = pieces(text)
    assert cuts
    start, end = cuts[block % len(cuts)]
    at = start + int(place * (end - start - 1))
    if remove:
        return at, min(at + remove, end - 1), what
    at = max(text.rfind("\n", start, at), text.find("{", start, end) + 1)
    return at, at, f"\n{what}\n"


def damaged(text: str, *faults: tuple[int, int, str]) -> str:
    for start, end, what in sorted(faults, reverse=True):
        text = text[:start] + what + text[end:]
    return text


def found(text: str) -> set[tuple[str, str]]:
    return {(each.code, each.message) for each in compiled(text)[1].diagnostics}


FAULT = st.tuples(
    st.integers(0, 30),
    st.floats(0, 1),
    st.sampled_from([0, 0, 0, 1, 3, 20]),
    st.sampled_from(FAULTS),
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([WITH_WARNINGS, POST_TRAINING]), FAULT, FAULT)
def test_an_error_makes_up_no_findings_elsewhere(text: str, first: tuple, second: tuple) -> None:
    one, other = fault(text, *first), fault(text, *second)
    texts = [damaged(text, one), damaged(text, other), damaged(text, one, other)]
    # Where a brace is missing in one block and left over in another, no block is what it was.
    assume(all(pieces(each) for each in texts))
    blocks = len(pieces(text) or ())
    assume(first[0] % blocks != second[0] % blocks)
    alone, beside, both = (found(each) for each in texts)
    assert both <= alone | beside | found(text)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([WITH_WARNINGS, POST_TRAINING]), FAULT, FAULT)
def test_an_error_makes_up_no_findings_in_its_own_block(
    text: str, first: tuple, second: tuple
) -> None:
    """Those of the binder aside, which reads both faults together."""
    one, other = fault(text, *first), fault(text, first[0], *second[1:])
    assume(one[1] < other[0] or other[1] < one[0])
    texts = [damaged(text, one), damaged(text, other), damaged(text, one, other)]
    assume(all(pieces(each) for each in texts))
    alone, beside, both = (found(each) for each in texts)
    new = both - (alone | beside | found(text))
    assert {code for code, _ in new if code[:2] in ("E4", "E5", "W6")} <= {
        "E493"
    }  # which quotes a file name, of both


def test_the_spec_that_is_damaged_has_findings_and_no_errors() -> None:
    codes = [code for code, _ in found(WITH_WARNINGS)]
    assert len(codes) > 15
    assert not any(code.startswith("E") for code in codes)
