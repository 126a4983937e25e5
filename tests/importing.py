"""Configurations of other programs as specs, for the tests of what imports make of them."""

import re
from pathlib import Path
from typing import Any

from specs import jobs, plan

from etude.authoring.config import Finding
from etude.authoring.draft import Options
from etude.authoring.imports import Imported, import_config
from etude.compiler.plan.plan import Plan, TrainJob
from etude.spec.findings.diagnostics import Report
from etude.spec.load import loads

CONFIGS = Path(__file__).resolve().parent / "configs"
FILES = sorted(path.name for path in CONFIGS.iterdir())
COMPLETE = [name for name in FILES if not name.startswith(("axolotl", "trl"))]
BASE = """recipe base { seed = 1 }
model tiny { layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300 }
dataset web { sample = python_docs }
stage base: train { model = tiny, steps = 10, seq_len = 16, batch = 4 seqs, lr = 1e-3, data = web }
"""


def config(name: str) -> str:
    return (CONFIGS / name).read_text(encoding="utf-8")


def imported(name: str, text: str | None = None, **options: Any) -> Imported:
    return import_config(text or config(name), name, options=Options(**options))


GIVEN = {
    "family": 'size = "8B", context = 8Ki',
    "template": "protocol = llama3",
    "files": 'files = "texts.jsonl"',
    "hub": 'hub = "some/texts"',
    "tokens": "tokens = 1M",
    "pairs": "pairs = 1k",
    "gpus": 'gpus = 8 of "H100 80GB"',
    "batch": "batch = 64 seqs",
}


def filled(text: str) -> str:
    """An imported spec with something in place of every open line: of rates the comment."""
    pairs = ": dpo {" in text or ": reward {" in text
    given = GIVEN | ({"batch": "batch = 64 pairs"} if pairs else {})
    text = re.sub(r"# (lr = [^\n]*)\n\s*open lr [^\n]*", r"\1", text)
    return re.sub(r'open (\w+)\s+"(?:[^"\\]|\\.)*"', lambda m: given.get(m[1], ""), text)


def opened(of: Imported) -> list[str]:
    """The attributes that `check` reports as open, and nothing else."""
    report = Report()
    loads(of.text, report)
    assert {found.code for found in report.errors} <= {"E335"}
    return [found.message.split("`")[1] for found in report.errors]


def changed(name: str, *changes: tuple[str, str]) -> str:
    """A configuration with some of its lines written otherwise."""
    text = config(name)
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def of_pretrain(text: str) -> list[TrainJob]:
    return jobs(plan(filled(text)), "pretrain")


def after_base(text: str) -> Plan:
    """The plan of stages that continue from a stage `base`."""
    head = text.replace("recipe ", "recipe_").partition("\n\n")  # the header goes, the rest stays
    body = "\n\n".join(p for p in head[2].split("\n\n") if not p.startswith("recipe_"))
    return plan(BASE + body)


def found(of: Imported, fate: str) -> dict[str, Finding]:
    return {finding.key: finding for finding in of.of(fate)}


def data_of(name: str) -> list[str]:
    needed = [f.key for f in imported(name).of("needed")]
    return [key.removeprefix("dataset ") for key in needed if key.startswith("dataset ")]
