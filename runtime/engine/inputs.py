"""What a job reads: the folders of its inputs, and the records in them."""

from collections.abc import Mapping
from pathlib import Path

from ..data.records.shards import Records
from ..errors import DataError, RunError


def input_of(inputs: Mapping[str, Path], role: str) -> Path:
    """
    Raises:
        RunError: the plan gives the job no such input.
    """
    if role not in inputs:
        raise RunError(f"the job has no input `{role}`", "plan again with this version of etude")
    return inputs[role]


def read_records(folder: Path, form: str, source: str, split: str = "train") -> Records:
    """The records of a split.

    Raises:
        DataError: they are damaged, or of another form.
    """
    records = Records(folder, split, scattered=True)
    if records.form != form:
        raise DataError(
            f"the data set `{source}` has {records.form}, but the stage learns from {form}",
            f"use a data set of {form} in the stage",
        )
    return records
