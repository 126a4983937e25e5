"""Best jobs: pick the best of several models according to a measure."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...compiler.plan.plan import BestJob
from ..disk import disk, move, write
from ..errors import RunError
from ..run_folder.store import MANIFEST


def pick(
    job: BestJob, inputs: Mapping[str, Path], folder: Path, *, scores: Sequence[float]
) -> dict[str, Any]:
    """Makes the best of several models the job's result in `folder/result`.

    The result has the winner's checkpoint as hard links, which take no space, and `verdict.json`,
    the return value. Of equal scores the first wins.

    Args:
        inputs: "of.0", "of.1", …: results of train or average jobs.
        scores: the models' scores in the job's measure.

    Returns:
        {"measure", "winner": a stage, "index", "score", "scores": [{"stage", "score"}, …]}.

    Raises:
        RunError: a score is nan.
        Stopped: the disk cannot take the result.
    """
    name = job.measure.name
    for stage, score in zip(job.of, scores, strict=True):
        if score != score:
            raise RunError(
                f"{name} of `{stage}` is not a number, so {job.id} cannot compare it",
                "look at the stage's loss, and remove the stage if it diverged",
            )
    index = scores.index(max(scores) if job.higher else min(scores))
    verdict = {
        "measure": name,
        "winner": job.of[index],
        "index": index,
        "score": scores[index],
        "scores": [
            {"stage": stage, "score": score} for stage, score in zip(job.of, scores, strict=True)
        ],
    }
    ready = folder / "result.partial"
    with disk(ready):
        shutil.rmtree(ready, ignore_errors=True)
        _link(inputs[f"of.{index}"], ready)
        write(ready / "verdict.json", json.dumps(verdict, indent=1) + "\n")
        shutil.rmtree(folder / "result", ignore_errors=True)
        move(ready, folder / "result")
    return verdict


def _link(model: Path, ready: Path) -> None:
    """Hard-links the files of a result, except those about the result itself."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, target)

    aside = shutil.ignore_patterns(MANIFEST, "verdict.json")
    shutil.copytree(model, ready, copy_function=link, ignore=aside)
