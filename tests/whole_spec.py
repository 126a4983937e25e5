"""A spec with a block of every kind, into whose blocks tests write statements."""

from etude.compiler.driver import analyse
from etude.spec import syntax as s
from etude.spec.findings.diagnostics import Diagnostic, Report
from etude.spec.load import reads
from etude.spec.schema import recipe as r
from etude.spec.source import Source
from etude.spec.text.parse import parse

SPEC: dict[str, dict[str, str]] = {
    "recipe test": {"title": '"Test"'},
    "model tiny": {"layers": "6", "dim": "64", "heads": "8", "ffn": "128", "vocab": "32000"},
    "tokenizer plain": {"bytes": ""},
    "cluster box": {"nodes": "2", "gpus": '8 of "H100 80GB"'},
    "dialog plain": {"protocol": "chatml"},
    "verifier right": {"kind": "math"},
    "dataset web": {"files": '"web.jsonl"', "tokens": "1B"},
    "dataset code": {"files": '"code.jsonl"', "tokens": "1B"},
    "dataset chats": {
        "files": '"chats.jsonl"',
        "kind": "dialogs",
        "tokens": "100M",
        "dialogs": "100k",
    },
    "dataset ranked": {"files": '"ranked.jsonl"', "kind": "preferences", "pairs": "10k"},
    "dataset rated": {"files": '"rated.jsonl"', "kind": "ratings", "ratings": "10k"},
    "dataset checked": {"files": '"checked.jsonl"', "kind": "solutions", "solutions": "10k"},
    "dataset asked": {"files": '"asked.jsonl"', "kind": "prompts"},
    "dataset other": {"files": '"other.jsonl"'},
    "stage pretrain: train": {
        "model": "tiny",
        "steps": "2000",
        "seq_len": "4Ki",
        "batch": "64 seqs",
        "lr": "1e-3",
        "data": "web",
    },
    "stage more: train": {"from": "pretrain", "steps": "1000", "lr": "1e-4"},
    "stage sft: sft": {
        "from": "more",
        "steps": "1000",
        "lr": "1e-5",
        "data": "chats",
        "parallel": "{ tensor 1 }",
    },
    "stage student: distill": {
        "from": "more",
        "teacher": "sft",
        "steps": "1000",
        "lr": "1e-5",
        "data": "chats",
        "parallel": "{ tensor 1 }",
    },
    "stage counted: sft": {
        "from": "more",
        "epochs": "1",
        "batch": "64 dialogs",
        "lr": "1e-5",
        "data": "chats",
        "parallel": "{ tensor 1 }",
    },
    "stage rm: reward": {
        "from": "sft",
        "steps": "1000",
        "batch": "64 pairs",
        "lr": "1e-5",
        "data": "ranked",
    },
    "stage judged: reward": {
        "from": "sft",
        "steps": "2000",
        "batch": "64 pairs",
        "lr": "1e-5",
        "data": "ranked",
    },
    "stage dpo: dpo": {
        "from": "sft",
        "steps": "1000",
        "batch": "64 pairs",
        "lr": "1e-5",
        "data": "ranked",
    },
    "stage kto: kto": {
        "from": "sft",
        "steps": "1000",
        "batch": "64 ratings",
        "lr": "1e-5",
        "data": "rated",
    },
    "stage steps: prm": {
        "from": "sft",
        "steps": "1000",
        "batch": "64 solutions",
        "lr": "1e-5",
        "data": "checked",
    },
    "stage rl: grpo": {
        "from": "sft",
        "steps": "1000",
        "batch": "64 prompts",
        "lr": "1e-6",
        "data": "asked",
        "refresh": "100 steps",
        "max_tokens": "512",
        "reward": "right",
    },
    "stage quality: score": {"from": "pretrain", "data": "[web]"},
    "stage drafts: sample": {"from": "sft", "prompts": "asked", "max_tokens": "64"},
    "stage late: checkpoint": {"from": "more", "after": "75%"},
    "stage soup: average": {"of": "[more, late]"},
    "stage best_of: best": {"of": "[more, late]", "loss": "[web]"},
    "stage judges: ensemble": {"of": "[rm, judged]"},
    "stage measured: evaluate": {"from": "sft", "loss": "[web]"},
}
HEADS = {
    block: next(head for head in SPEC if head.startswith(f"{block} "))
    for block in ("recipe", "model", "tokenizer", "cluster", "dialog", "verifier")
}
HEADS |= {"dataset": "dataset other"}
HEADS |= {kind: next(h for h in SPEC if h.endswith(f": {kind}")) for kind in r.STAGES}
RIVALS = (
    {"steps", "tokens", "epochs"},
    {"files", "hub", "sample", "tokenized"},
    {"protocol", "template", "header"},
    {"bytes", "file", "hub", "train"},
    {"size", "layers"},
    {"size", "dim"},
    {"size", "heads"},
    {"size", "ffn"},
    {"size", "vocab"},
    {"loss", "suites"},
)
"""Attributes of which a block has one."""


def spec(block: str = "", statements: str = "") -> str:
    """The spec with statements in one of its blocks, in place of what they replace there; or with
    whole blocks at its end."""
    names = {_name(item) for item in parse(Source("example", statements), Report())}
    gone = names | {rival for rivals in RIVALS if rivals & names for rival in rivals}
    text = ""
    for head, attributes in SPEC.items():
        if not block and statements.startswith("dialog ") and head.startswith("dialog "):
            continue
        own = HEADS.get(block) == head
        lines = [
            f"{name} = {value}" if value else name
            for name, value in attributes.items()
            if not (own and name in gone)
        ]
        text += "\n  ".join([f"{head} {{", *lines, *([statements] if own else [])]) + "\n}\n"
    return text if block else text + statements.replace("}, stage", "}\nstage") + "\n"


def _name(item: s.Item) -> str:
    """What a statement gives; "" where that is not an attribute."""
    match item:
        case s.Assign():
            return item.path.name
        case s.Block():
            return item.keyword.name
        case s.Open():
            return item.attribute.name
        case s.Every() | s.Keep() | s.Flag():
            return item.word.name
    return ""


def findings(text: str) -> list[Diagnostic]:
    return analyse(reads(text), each_variant="always").report.ordered()


def problems(text: str) -> list[Diagnostic]:
    return [of for of in findings(text) if of.severity == "error"]
