"""Specs that are wrong in one way: what they are made of, and how their finding is checked."""

from specs import HEAD, after, check, place, stage

from etude.spec.findings.diagnostics import Diagnostic

NODES = 'cluster big { nodes = 2, gpus = 8 of "H100 80GB" }\n'
CIRCLE = "stage a: train { ¦from = b, steps = 1 }\nstage b: train { from = a, steps = 1 }\n"
DEEP = "x = " + "[" * 64 + "¦[" + "]" * 65


def entry(text: str) -> str:
    """A spec with more statements."""
    return HEAD + text + "\n" + stage()


def train(body: str = "", **attributes: str | None) -> str:
    """A spec with one stage."""
    return HEAD + stage("first", body, **attributes)


def then(body: str = "", **attributes: str | None) -> str:
    """A spec with a stage that continues from another."""
    return HEAD + stage() + after("second", body, **attributes)


def gate(body: str) -> str:
    return then(f"gate seq_len {{ {body} }}")


def model(text: str) -> str:
    return (
        HEAD.replace("layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300", text)
        + stage()
    )


def placed(parallel: str, **attributes: str) -> str:
    """On 16 GPUs; the model has 2 layers, 4 heads and 2 key-value heads."""
    given = {"parallel": parallel, "batch": "16 seqs"} | attributes
    return HEAD + NODES + stage(**given)


POST = """dataset talk { sample = python_functions, kind = dialogs }
dataset ranked { sample = python_functions, kind = preferences }
dataset asks { sample = python_functions, kind = prompts }
dataset daily { files = "{round}.jsonl", kind = preferences }
"""
SFT = "stage chat: sft { from = first, data = talk, lr = 1e-4, steps = 5 }"
REWARD = "stage rm: reward { from = first, data = ranked, lr = 1e-4, steps = 5, batch = 4 pairs }"
DPO = "stage dpo: dpo { from = first, data = ranked, lr = 1e-4, steps = 5, batch = 4 pairs }"
SAMPLE = "stage drafts: sample { from = first, prompts = asks, max_tokens = 8, draws = 4 }"
EVALUATE = "stage exam: evaluate { from = first }"


def post_stage(text: str, body: str = "", **attributes: str | None) -> str:
    """One of the stages above with other attributes (None leaves one out), and more statements."""
    head, given = text.rstrip(" }").split("{ ")
    parts = (part.split(" = ") for part in given.split(", "))
    found: dict[str, str | None] = {**dict(parts)}
    found |= {name.rstrip("_"): value for name, value in attributes.items()}
    lines = [f"  {name} = {value}" for name, value in found.items() if value is not None]
    return head + "{\n" + "\n".join([*lines, body]) + "\n}\n"


def post(text: str = "", within: str = "", body: str = "", **attributes: str | None) -> str:
    """A spec with a stage after pre-training, and more blocks."""
    more = post_stage(text, within, **attributes) if text else ""
    return HEAD + POST + stage() + more + body


def rounds(more: str, count: int = 2, **attributes: str | None) -> str:
    """A spec with rounds of one sft stage and more statements."""
    inner = post_stage(SFT, "", **attributes)
    return HEAD + POST + stage() + f"rounds align {count} {{\n{more}\n{inner}}}\n"


def mark(text: str) -> tuple[str, tuple[int, int] | None]:
    """The text without its mark, and the line and column that the mark stood at."""
    if "¦" not in text:
        return text, None
    before = text[: text.index("¦")]
    return text.replace("¦", ""), (before.count("\n") + 1, len(before) - before.rfind("\n"))


def words(found: Diagnostic) -> str:
    return " | ".join((found.message, found.label, found.help))


def assert_found(code: str, text: str, phrase: str) -> None:
    """A spec has one finding: its code, where the mark stands, with a phrase in its words."""
    text, where = mark(text)
    found = check(text)
    assert [d.code for d in found] == [code], [words(d) for d in found]
    if where:
        assert place(found[0]) == where
    assert phrase in words(found[0])
