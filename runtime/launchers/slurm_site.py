"""The table `[slurm]` of a site file: what jobs request, and what ranks need before they start."""

import re
from collections.abc import Mapping
from textwrap import wrap
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<a>\d+)(?::(?P<b>\d+))?(?::(?P<c>\d+))?")


class Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Batch(Table):
    """What a batch job requests."""

    partition: str | None = Field(None, description="the queue in which jobs wait")
    account: str | None = Field(None, description="who pays")
    qos: str | None = Field(None, description="quality of service")
    time: str | None = Field(
        None,
        description="time limit of a job, such as 12:00:00; five minutes before it the run saves "
        "its state, and its job is requeued",
    )
    gres: str | None = Field(
        None,
        description="how to request GPUs, {devices} per node; the default is gpu:{devices}",
    )
    cpus: int | None = Field(None, ge=1, description="CPU cores per rank")
    memory: str | None = Field(None, description="memory per node, such as 900G; 0 is all of it")
    exclusive: bool = Field(False, description="exclusive nodes")
    options: tuple[str, ...] = Field((), description="more sbatch options")

    @field_validator("time")
    @classmethod
    def _time(cls, text: str | None) -> str | None:
        if text is not None and minutes(text) is None:
            raise ValueError("is not a Slurm time; write hours:minutes:seconds, such as 12:00:00")
        return text

    @field_validator("gres")
    @classmethod
    def _gres(cls, text: str | None) -> str | None:
        if text is not None and "{devices}" not in text:
            raise ValueError("lacks {devices}, the number of GPUs; write gpu:{devices}")
        return text


class Container(Table):
    """The image that ranks run in."""

    image: str = Field(description="the file or name of the image")
    runs_with: Literal["pyxis", "apptainer"] = Field(
        "pyxis", description="pyxis (options of srun), or apptainer (a command before Python)"
    )
    mounts: tuple[str, ...] = Field((), description="more folders to mount")


class Kinds(Table):
    """What one kind of phase requests instead."""

    cpu: Batch | None = Field(None, description="data preparation")
    gang: Batch | None = Field(None, description="training")
    generate: Batch | None = Field(None, description="sampling and evaluation")
    small: Batch | None = Field(None, description="exports, averages, verdicts")


class SlurmSite(Batch):
    """The table `[slurm]`."""

    python: str | None = Field(
        None, description="the Python with etude, on every node; default: that of this command"
    )
    modules: tuple[str, ...] = Field((), description="environment modules, loaded first")
    setup: tuple[str, ...] = Field((), description="lines of bash before the ranks start")
    environment: Mapping[str, str] = Field({}, description="environment variables of every rank")
    container: Container | None = Field(None, description="the image that ranks run in")
    scratch: str | None = Field(None, description="a folder for run folders that all nodes share")
    gpus_per_node: int | None = Field(
        None, ge=1, description="GPUs of a node, if different from the spec's cluster"
    )
    parts: int = Field(
        1, ge=1, description="jobs (an array) that tokenize documents side by side, before the rest"
    )
    attempts: int = Field(
        5, ge=1, description="how often in a row a phase may start without progress"
    )
    phase: Kinds | None = Field(None, description="settings for one kind of phase")

    def batch(self, kind: str) -> Batch:
        """What a kind of phase requests."""
        own: Batch | None = getattr(self.phase, kind, None)
        given = own.model_dump(exclude_unset=True) if own else {}
        return Batch(**{name: getattr(self, name) for name in Batch.model_fields} | given)


def minutes(text: str) -> float | None:
    """A time in Slurm's format, in minutes: `90`, `1:30:00`, `1-12`; None if it is not one.

    `UNLIMITED` and `infinite` are infinite.
    """
    if text.lower() in ("unlimited", "infinite"):
        return float("inf")
    found = _TIME.fullmatch(text)
    if not found:
        return None
    a, b, c = (int(found[name]) if found[name] else 0 for name in ("a", "b", "c"))
    if found["days"]:
        return int(found["days"]) * 1440 + a * 60 + b + c / 60
    if found["c"]:
        return a * 60 + b + c / 60
    return a + b / 60


TEMPLATE = """\
# A site file: what your account on a cluster is like. It belongs to no spec, and all of it is
# optional. As {folder}/NAME.toml it has a name:
#
#   etude launch SPEC --on slurm --site NAME

[slurm]
{keys}
# Variables of every rank.
#[slurm.environment]
#NCCL_DEBUG = "WARN"

# The image that ranks run in.
#[slurm.container]
{container}
# What one kind of phase asks for instead: cpu, gang, generate or small.
#[slurm.phase.cpu]
#partition = "cpu"
"""
_EXAMPLES = {
    "partition": '"gpu"',
    "account": '"project"',
    "qos": '"normal"',
    "time": '"24:00:00"',
    "gres": '"gpu:h100:{devices}"',
    "cpus": "8",
    "memory": '"0"',
    "exclusive": "true",
    "options": '["--constraint=ib"]',
    "python": '"/shared/venv/bin/python"',
    "modules": '["cuda/12.8"]',
    "setup": '["ulimit -n 65536"]',
    "scratch": '"/scratch/me"',
    "gpus_per_node": "8",
    "parts": "16",
    "attempts": "5",
    "image": '"/shared/images/etude.sqsh"',
    "runs_with": '"pyxis"',
    "mounts": '["/shared", "/scratch"]',
}
"""An example value for each key, in TOML."""


def template(folder: str) -> str:
    """A site file with all keys, commented out, and their meanings.

    Args:
        folder: where site files are kept.
    """

    def keys(model: type[Table]) -> str:
        shown = [
            "\n".join(wrap(of.description or "", 96, initial_indent="# ", subsequent_indent="# "))
            + f"\n#{name} = {_EXAMPLES[name]}\n"
            for name, of in model.model_fields.items()
            if name in _EXAMPLES
        ]
        return "\n".join(shown)

    own = {"keys": keys(SlurmSite), "container": keys(Container), "folder": folder}
    return TEMPLATE.format(**own)
