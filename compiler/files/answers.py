"""Whether prompts have the answers that verifiers compare with, as far as a look at the first
record of their files tells."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...spec.findings.diagnostics import Report
from ...spec.schema import recipe as r
from ..ids import DataId
from ..program import Scheduled
from .data_files import URL, Matched, ending

INSTRUCTIONS = "instruction_id_list"
"""The field of a record that a verifier of kind `ifeval` needs in place of an answer."""
LINE = 1 << 20
"""Characters of a record that are looked at."""
LINES = (".jsonl", ".ndjson")
"""Formats whose first record is the first line."""


def check_answers(program: Scheduled, root: Path, report: Report, matched: Matched) -> None:
    """Reports data sets of prompts without the answers that a verifier needs, once each."""
    told: set[str] = set()
    for verifier, dataset in _needing(program):
        where = dataset.at("files")
        place = repr(where)
        if place in told:
            continue
        name = dataset.fields.answer
        for file, record in _records(dataset, root, matched):
            if record.get(name) not in (None, "", []) or INSTRUCTIONS in record:
                continue
            told.add(place)
            fields = ", ".join(map(str, list(record)[:8]))
            report.add(
                "E525",
                f"the first record of `{file}` has no `{name}`, and the verifier `{verifier}` "
                "must know the right answer",
                where,
                help=f"write `fields = {{ answer = … }}` in the dataset, with one of: {fields}",
            )
            break


def _needing(program: Scheduled) -> Iterator[tuple[str, r.Dataset]]:
    """Verifiers that compare with the answer of a record, and the data sets with the prompts."""
    recipe = program.recipe
    for stage in program.stages.values():
        spec: Any = stage.spec
        named = [*(getattr(spec, "verify", None) or ()), *(getattr(spec, "reward", None) or ())]
        names = [name for name in named if name in recipe.verifiers]
        mixed = [data for part in getattr(stage, "mixture", ()) for data in part.weights]
        read = dict.fromkeys([getattr(spec, "prompts", None) or "", *mixed]) if names else {}
        asked = [dataset for data in read if (dataset := recipe.datasets.get(data))]
        for name in names:
            for dataset in asked:
                verifier = recipe.verifiers[name]
                scored = verifier.data is None or DataId.parse(dataset.name).name in verifier.data
                if dataset.kind == "prompts" and scored and r.VERIFIERS[verifier.kind].compares:
                    yield name, dataset


def _records(
    dataset: r.Dataset, root: Path, matched: Matched
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The first record of each file of JSON lines on this machine, where it can be read."""
    for pattern in dataset.files or ():
        if URL in pattern or "{round}" in pattern:
            continue
        for file in sorted(matched(pattern, root)):
            if ending(file) not in LINES:
                continue
            try:
                with (root / file).open(encoding="utf-8") as lines:
                    record = json.loads(lines.readline(LINE))
            except (OSError, ValueError, RecursionError):
                continue  # the run says what is wrong with it
            if isinstance(record, dict):
                yield file, record
