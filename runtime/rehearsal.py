"""Has torchtitan build the plan's configurations without weights, at their true world size.

torch is imported in a separate process (`engine/without_weights.py`), never in the calling one.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from math import gcd
from typing import NamedTuple, TextIO

from ..compiler.families.architectures import further_parameters, parameters
from ..compiler.plan.plan import Plan, TrainJob
from ..compiler.torchtitan.shards import local_parameters
from .errors import RunError


class Configuration(NamedTuple):
    """Train jobs that torchtitan builds alike: the first of them, and the names of all."""

    job: TrainJob
    jobs: tuple[str, ...]
    sequences: int  # divides the batches of all of them; torchtitan's global batch


class Built(NamedTuple):
    """The result of building a configuration.

    Attributes:
        rejected: torchtitan's reason for rejecting the configuration, if it does.
        differences: between what torchtitan's ranks hold and what the plan counts, in words.
        ranks: rank → (pipeline stage, number of parameters that it holds).
        seconds: how long building took.
    """

    configuration: Configuration
    rejected: str | None
    differences: list[str]
    ranks: dict[int, tuple[int, int]]
    seconds: float


def configurations(plan: Plan) -> list[Configuration]:
    """The distinct models, meshes, lengths, micro-batches and settings of the plan's train jobs."""
    found: dict[str, Configuration] = {}
    for job in plan.jobs:
        if not isinstance(job, TrainJob):
            continue
        sections = {name: value for name, value in job.torchtitan.items() if name != "optimizer"}
        sections["training"] = {**job.torchtitan["training"], "steps": 0}
        sections.pop("debug", None)
        same = json.dumps(
            [
                job.objective.name,
                job.model.as_dict(),
                job.resources.as_dict(),
                job.seq_len,
                sections,
            ],
            sort_keys=True,
        )
        batch = gcd(*(piece.sequences for piece in job.schedule.batch))
        if before := found.get(same):
            found[same] = Configuration(
                before.job, (*before.jobs, job.id), gcd(before.sequences, batch)
            )
        else:
            found[same] = Configuration(job, (job.id,), batch)
    return list(found.values())


def first_ranks(job: TrainJob) -> list[tuple[int, int]]:
    """(rank, pipeline stage) of the first rank of the first and of the last pipeline stage."""
    last = job.resources.pipeline - 1
    stages = [0, last] if last else [0]
    return [(stage * (job.resources.world_size // (last + 1)), stage) for stage in stages]


def build(
    wanted: Iterable[Configuration], on_built: Callable[[Built], None] = lambda _: None
) -> list[Built]:
    """Has torchtitan build each configuration in turn, in one process.

    Args:
        on_built: called after each.

    Raises:
        RunError: torch or torchtitan is missing, or the building process has died.
    """
    wanted = list(wanted)
    found = []
    for configuration, answer in zip(wanted, _answers(wanted), strict=True):
        ranks = {of["rank"]: (of["stage"], of["held"]) for of in answer["ranks"]}
        differences = [] if answer["rejected"] else _differences(configuration.job, answer)
        built = Built(configuration, answer["rejected"], differences, ranks, answer["seconds"])
        found.append(built)
        on_built(built)
    return found


def _differences(job: TrainJob, answer: dict) -> list[str]:
    differences = [f"torchtitan splits {words}" for words in answer["reshaped"][:1]]
    counted, score = parameters(job.model), job.objective.name == "reward"
    counted += further_parameters(job.model)
    if score:
        # One output instead of the vocabulary's, and never tied.
        tied = job.model.tied
        counted += job.model.dim * (1 if tied else 1 - job.model.vocab)
    if answer["parameters"] != counted:
        differences.append(
            f"the plan counts {counted:,} parameters, but torchtitan {answer['parameters']:,}"
        )
    for of in answer["ranks"]:
        planned = local_parameters(job.model, job.resources, of["stage"], score=score)
        if planned != of["held"]:
            differences.append(
                f"the plan has {planned:,} parameters on rank {of['rank']} (pipeline stage "
                f"{of['stage']}), but torchtitan {of['held']:,}"
            )
    return differences


def _answers(wanted: list[Configuration]) -> Iterator[dict]:
    """One answer per configuration, from the building process."""
    lines = [
        json.dumps(
            {
                "job": of.job.model_dump(mode="json"),
                "sequences": of.sequences,
                "ranks": first_ranks(of.job),
            }
        )
        for of in wanted
    ]
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        yield from _asked(lines, log)


def _asked(lines: list[str], log: TextIO) -> Iterator[dict]:
    """The answers of a process to `lines`; its other output goes to `log`.

    Raises: RunError: the process has died.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "etude.runtime.engine.without_weights"],
        # Its log goes to a file: a pipe that nobody reads fills up.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        # The process plays one rank after the other, whatever its environment says.
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for asked in lines:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(asked + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                code = process.wait()
                log.seek(0)
                raise _died(log.read(), code)
            answer = json.loads(line)
            if "died" in answer:
                raise _died("", answer["died"])
            yield answer
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _died(log: str, code: int) -> RunError:
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")
    if "ModuleNotFoundError" in last:
        return RunError(
            f"--deep builds models with torchtitan: {last.removeprefix('ModuleNotFoundError: ')}",
            "install what is missing: pip install 'torchtitan==0.3.*'",
        )
    if code == -9:
        return RunError(
            "the process in which torchtitan builds was killed, probably because it ran out of "
            "memory",
            "plan on a machine with more memory, or without --deep",
        )
    how = f"on signal {-code}" if code < 0 else f"with exit code {code}"
    return RunError(
        f"the process in which torchtitan builds has ended {how}: {last or 'there is no message'}",
        "plan without --deep, or try with the versions of torch and torchtitan that etude needs",
    )
