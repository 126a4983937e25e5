"""Data sets that tests make from files of records."""

import json
from pathlib import Path

from etude.compiler.plan.plan import DatasetJob
from etude.runtime.data.dialogs.dialog import special_tokens
from etude.runtime.data.tokens import tokenizer
from etude.runtime.preparation import prepare

LLAMA3 = {"protocol": "llama3"}
CHATML = {"protocol": "chatml"}


def job(form: str = "dialogs", **settings) -> DatasetJob:
    source = settings.pop("source", None) or {"kind": "files", "files": ["d.jsonl"]}
    return DatasetJob(
        **{
            "key": "k",
            "id": "dataset.d",
            "stage": None,
            "inputs": {},
            "name": "d",
            "source": source,
            "form": form,
            "dialog": LLAMA3,
            "holdout": "0",
            "bad_lines": 0,
            "seed": 1,
            **settings,
        }
    )


def tokenized(folder: Path) -> dict[str, Path]:
    """The inputs of a data set's job: a tokenizer of bytes, with all that dialogs need."""
    special = special_tokens(LLAMA3) + special_tokens(CHATML)
    tokenizer.save(tokenizer.byte_level(special), folder / "tokenizer")
    return {"tokenizer": folder / "tokenizer"}


def lines(path: Path, *records) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def make(job: DatasetJob, inputs, root: Path, **settings):
    """The folder of a data set's result, and the events of making it."""
    events: list = []
    prepare.make_dataset(job, inputs, root / "work", root, events.append, **settings)
    return root / "work" / "result", events
