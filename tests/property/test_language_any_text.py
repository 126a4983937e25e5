"""Whatever a spec file holds, the answer comes soon and is a plan or findings with their places."""

import random
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from specs import HEAD, POST_TRAINING, after, compiled, stage

from etude.spec.findings.codes import known
from etude.spec.findings.diagnostics import Report
from etude.spec.findings.render import render_all
from etude.spec.load import load

SPEC = (
    HEAD
    + "let rate = 1e-3\n"
    + "tokenizer bytes { bytes }\n"
    + 'cluster box { nodes = 2, gpus = 8 of "H100" }\n'
    + stage(
        lr="0 -> rate for 10 steps then -> 1e-5 cosine over 80 steps",
        batch="16 seqs -> 64 seqs sqrt until 50% then 64 seqs",
        data="{ web 60%, math 40% } -> { web 1, math 2 } for 300 tokens then { math 1 }",
        seq_len="16 for 50 steps then 32",
        optimizer="adamw { betas = [0.9, 0.95], eps = 1e-8 }",
        parallel="{ tensor 2 }",
    )
    + after(
        body="gate seq_len { require needle >= 90% require loss(web) <= 100% of start\n"
        "otherwise extend 10 steps at most 2 times }",
        data="last with { math 0.5x }",
        average="polyak every 1 step over 50%",
    )
    + 'expect { parameters = 100k within 99% cite "none" }\n'
).replace("90% require", "90%\nrequire")
WORDS = [
    *[
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "=",
        ":",
        ".",
        ",",
        "->",
        ">",
        ">=",
        "<",
        "<=",
        "#",
        "%",
        "\n",
        '"',
        "\\",
        "'",
        "-",
        "$",
        "\x00",
        "é",
    ],
    "\n",
    "\r\n",
    "\t",
    *[
        "recipe",
        "model",
        "dataset",
        "cluster",
        "stage",
        "expect",
        "let",
        "use",
        "tokenizer",
        "train",
        "average",
        "evaluate",
    ],
    *[
        "then",
        "for",
        "until",
        "over",
        "every",
        "within",
        "cite",
        "require",
        "otherwise",
        "extend",
        "at",
        "most",
        "of",
        "with",
        "last",
    ],
    *[
        "linear",
        "cosine",
        "half_cosine",
        "sqrt",
        "exponential",
        "inverse",
        "inverse_sqrt",
        "steps",
        "tokens",
        "%",
        "x",
        "seqs",
        "h",
        "min",
        "GiB",
        "epochs",
        "first",
        "tiny",
    ],
    *[
        "lr",
        "data",
        "batch",
        "seq_len",
        "parallel",
        "rope_theta",
        "optimizer",
        "adamw",
        "polyak",
        "gate",
        "needle",
        "loss",
    ],
    *[
        "0",
        "1",
        "1e-3",
        "8Ki",
        "8K",
        "50%",
        "1.5x",
        "1e40",
        "1e9999",
        "9_9",
        "0.0000001",
        "4Mi",
        "1.5T",
        "true",
        "null",
    ],
    *[
        "rounds",
        "dialog",
        "sft",
        "reward",
        "dpo",
        "score",
        "sample",
        "best",
        "previous",
        "or",
        "round",
        "..",
        "[1..round]",
        "[round]",
        "[2]",
    ],
    *[
        "drop",
        "keep",
        "where",
        "similar",
        "in",
        "awaited",
        "candidates",
        "judge",
        "prompts",
        "drafts",
        "drafts.pairs",
        "pairs",
    ],
    '"text"',
    '"\\ud800"',
    '"\\',
    "web",
    "math",
    "missing",
]


def judge(text: str, limit: float = 2) -> None:
    """Compiles a text and looks at what is said about it."""
    begin = time.monotonic()
    plan, report = compiled(text)
    assert (plan is None) == any(found.stops for found in report.ordered())
    lines = text.split("\n")
    for found in report.ordered():
        assert found.code in known()
        assert found.message
        assert found.span, found
        assert 1 <= found.span.line <= len(lines)
        assert 1 <= found.span.column <= len(lines[found.span.line - 1]) + 1
        found.to_dict()
    render_all(report.ordered(), color=True)
    if plan:
        plan.to_json()
    assert time.monotonic() - begin < limit


def test_the_spec_that_is_damaged_below_is_fine() -> None:
    plan, report = compiled(SPEC)
    assert plan, [f"{d.span!r} {d.message}" for d in report.ordered()]


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=400))
@example("\ufeff")
@example('"' * 400)
def test_any_text(text: str) -> None:
    judge(text)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=60), st.sampled_from(["", " "]))
def test_any_words_of_the_language(words: list[str], between: str) -> None:
    judge(between.join(words))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(SPEC)), st.integers(0, 12), st.sampled_from(["", *WORDS])),
        min_size=1,
        max_size=4,
    )
)
def test_a_damaged_spec(damages: list[tuple[int, int, str]]) -> None:
    text = SPEC
    for start, length, instead in damages:
        text = text[:start] + instead + text[start + length :]
    judge(text)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(POST_TRAINING)), st.integers(0, 12), st.sampled_from(["", *WORDS])
        ),
        min_size=1,
        max_size=4,
    )
)
@example([(740, 0, "}")])
def test_a_damaged_spec_of_post_training(damages: list[tuple[int, int, str]]) -> None:
    text = POST_TRAINING
    for start, length, instead in damages:
        text = text[:start] + instead + text[start + length :]
    judge(text, limit=60)  # it may have become one of hundreds of rounds


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["printable", "words", "lines", "spaces"])
def test_a_hundred_thousand_characters(kind: str, seed: int) -> None:
    chance = random.Random(seed)
    if kind == "printable":
        text = "".join(chance.choices([chr(c) for c in range(32, 127)] + ["\n"], k=100_000))
    elif kind == "words":
        text = " ".join(chance.choices(WORDS, k=25_000))[:100_000]
    elif kind == "spaces":
        text = "".join(chance.choices(" \t\r\n#", k=100_000))
    else:
        lines = SPEC.split("\n")
        text = "\n".join(chance.choices(lines, k=100_000 * len(lines) // len(SPEC)))
    judge(text, limit=4)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400))
def test_any_bytes_in_a_file(data: bytes, tmp_path_factory) -> None:
    file: Path = tmp_path_factory.getbasetemp() / "bytes.etude"
    file.write_bytes(data)
    report = Report()
    assert load(file, report) is None
    assert report.errors
