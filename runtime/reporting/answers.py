"""Some of the answers that a run's models gave, with their rewards."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...compiler.plan.plan import Plan, RolloutJob, SampleJob
from ..data.drawn import DRAWS, ROLLOUTS

OF_A_JOB = 24
"""The most answers shown of a job."""
MOST = 360
"""The most answers shown in a report, with two texts of up to `LONGEST` characters each: about a
megabyte and a half if all are as long, and of a script with three bytes a character."""
LONGEST = 700
"""Characters of a prompt or an answer; the rest is left out, which `…` says."""
_LINE = 1 << 20
"""The most bytes of a line that is looked for."""


def answers(plan: Plan, made: Mapping[str, Path], most: int) -> list[dict[str, Any]]:
    """Answers spread evenly over those of each sampling job, in the plan's order: `job`, `stage`,
    `prompt` and `text` (both cut), `finished`, `reward` (None: there is no judge), and `scores` (of
    verifiers and judges, by name).

    Args:
        made: job → folder of its result.
        most: how many in all.
    """
    jobs = [job for job in plan.jobs if isinstance(job, SampleJob | RolloutJob) and job.id in made]
    names = {job.key: job.id for job in plan.jobs}
    found: list[dict[str, Any]] = []
    each = min(OF_A_JOB, most // len(jobs)) if jobs else 0
    for job in jobs:
        lines = list(_spread(made[job.id] / (DRAWS if job.kind == "sample" else ROLLOUTS), each))
        asked: dict[str, dict[int, str]] = {}
        for source in {str(line.get("source", "")) for line in lines}:
            role = f"prompts.{source}" if source else "prompts"
            folder = made.get(names.get(job.inputs.get(role, ""), ""))
            numbers = {line["prompt"] for line in lines if str(line.get("source", "")) == source}
            asked[source] = _prompts(folder, numbers)
        for line in lines:
            found.append(
                {
                    "job": job.id,
                    "stage": job.stage,
                    "prompt": asked[str(line.get("source", ""))].get(line["prompt"], ""),
                    "text": _cut(line["text"]),
                    "finished": line["finished"],
                    "reward": line.get("reward", line.get("score")),
                    "scores": line.get("rewards", line.get("scores", {})),
                }
            )
    return found


def _spread(path: Path, most: int) -> Iterator[dict[str, Any]]:
    """Up to so many lines of a file of JSON lines, at even distances; none if it is not here, as
    large files of a run in a store are not."""
    try:
        size, seen = path.stat().st_size, set()
        with path.open("rb") as file:
            for number in range(most):
                file.seek(max(size * number // most - 1, 0))
                if number:
                    file.readline(_LINE)  # the rest of the line before
                place = file.tell()
                line = file.readline(_LINE)
                if line and place not in seen:
                    seen.add(place)
                    yield json.loads(line)
    except (OSError, ValueError, RecursionError):
        return


def _prompts(folder: Path | None, numbers: set[int]) -> dict[int, str]:
    """The texts of prompts, by their numbers."""
    found: dict[int, str] = {}
    if folder is None:
        return found
    try:
        with (folder / "prompts.jsonl").open("rb") as file:
            for number, line in enumerate(file):
                if number in numbers:
                    found[number] = _cut(_said(json.loads(line)))
                    if len(found) == len(numbers):
                        break
    except (OSError, ValueError, RecursionError):  # not here, as in `_spread`
        return found
    return found


def _said(record: Mapping[str, Any]) -> str:
    messages = record.get("messages")
    if messages is None:
        return str(record.get("prompt", ""))
    return "\n".join(f"{each.get('role')}: {each.get('content')}" for each in messages)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
