"""`--set a=b` and a variant that says so are the same as editing the text, for right values and
wrong ones."""

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from specs import HEAD, compiled

SLOTS = {
    "recipe.seed": "1",
    "tiny.dim": "64",
    "web.documents": "100 docs",
    "first.steps": "100",
    "first.seq_len": "16",
    "first.batch": "4 seqs",
    "first.lr": "0 -> peak for 10 steps then -> 1e-5 cosine",
    "first.data": "{ web half, math 50% }",
    "first.optimizer": "adamw { weight_decay = 0.1 }",
    "first.clip": "1",
    "second.lr": "last -> 0",
    "second.average": "polyak every 2 steps over half",
    "align.chat.loss": "assistant",
    "align.chat.steps": "5",
    "peak": "1e-3",
    "half": "50%",
}
"""A spec as its values by their paths."""
VALUES = [
    "0",
    "1",
    "2",
    "3",
    "8",
    "1.5",
    "64",
    "128",
    "1e-4",
    "50%",
    "20 steps",
    "4 seqs",
    "96 tokens",
    "64 tokens",
    "peak",
    "half",
    "last",
    "web",
    "all",
    "default_",
    "[web, math]",
    '"text"',
    "{ web 30%, math 70% }",
    "{ web 1 }",
    "{ web peak, math half }",
    "last with { web 2x }",
    "1e-3 until half then 1e-4",
    "1e-3 -> 0 linear",
    "16 for 50 steps then 32",
    "adam { eps = 1e-6 }",
    "polyak every 1 step",
    "2 -> 8",
    "1..3",
    "{ }",
    '4 of "H100"',
]


def spec(values: dict[str, str]) -> str:
    def block(name: str) -> str:
        items = [(path.rpartition("."), value) for path, value in values.items()]
        return "\n".join(f"  {key} = {value}" for (of, _, key), value in items if of == name)

    head = HEAD.replace("seed = 1", "\n" + block("recipe") + "\n")
    head = head.replace("dim = 64,", "\n" + block("tiny") + "\n")
    head = head.replace("sample = python_docs", "sample = python_docs\n" + block("web") + "\n")
    return (
        f"let peak = {values['peak']}\nlet half = {values['half']}\n{head}"
        "dataset talk { sample = python_functions, kind = dialogs }\n"
        f"stage first: train {{\n  model = tiny\n{block('first')}\n}}\n"
        f"stage second: train {{\n  steps = 10\n{block('second')}\n}}\n"
        "rounds align 2 { stage chat: sft {\n  from = first, data = talk, lr = 1e-4\n"
        f"{block('align.chat')}\n}} }}\n"
    )


def outcome(text: str, variant: str = "", sets: tuple[str, ...] = ()) -> Any:
    """What runs, or the codes of what is wrong."""
    plan, report = compiled(text, variant=variant, sets=sets)
    if plan is None:
        # Of a `let` that only a change leaves unused nothing is said: the text is not at fault.
        found = ((d.code, d.message) for d in report.diagnostics)
        return sorted(each for each in found if each[0] != "N656")
    return plan.jobs, plan.outputs, plan.stages, plan.seed


FITTING = {
    "recipe.seed": ["2", "77"],
    "tiny.dim": ["128", "32"],
    "web.documents": ["50 docs", "1k docs"],
    "first.steps": ["50", "64 steps"],
    "first.seq_len": ["32", "16 for 50 steps then 32"],
    "first.batch": ["64 tokens", "8 seqs", "4 seqs -> 8 seqs for 20 steps then 8 seqs"],
    "first.lr": ["peak", "1e-3 until half then 1e-4", "peak -> 0 linear"],
    "first.data": ["web", "{ web 30%, math 70% }", "{ web 2, math 1 }"],
    "first.optimizer": ["adam", "adamw { betas = [0.9, 0.99] }"],
    "first.clip": ["0.5", "2"],
    "second.lr": ["1e-4", "last", "peak"],
    "second.average": ["polyak every 1 step"],
    "align.chat.loss": ["all"],
    "align.chat.steps": ["6", "7 steps"],
    "peak": ["2e-3", "1e-4"],
}
"""Values that are right."""
ANY = st.tuples(st.sampled_from(sorted(SLOTS)), st.sampled_from(VALUES))
RIGHT = st.sampled_from([(path, value) for path, values in FITTING.items() for value in values])
CHANGES = st.one_of(st.lists(RIGHT, max_size=4), st.lists(ANY | RIGHT, max_size=3)).map(dict)


@settings(max_examples=60, deadline=None)
@given(CHANGES)
@example({"first.lr": "peak", "peak": "2e-3"})
@example({"first.lr": "0"})
@example({"align.chat.loss": "0", "first.lr": "0"})
@example({"half": "peak", "peak": "half"})
@example({"first.data": "{ web peak, math half }", "peak": "50%"})
def test_a_change_is_an_edit(changes: dict[str, str]) -> None:
    edited = outcome(spec(SLOTS | changes))
    given = tuple(f"{path}={value}" for path, value in changes.items())
    assert outcome(spec(SLOTS), sets=given) == edited
    block = "".join(f"  {path} = {value}\n" for path, value in changes.items())
    if changes:
        assert outcome(spec(SLOTS) + f"variant other {{\n{block}}}\n", "other") == edited
