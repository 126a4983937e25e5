"""Settings of a spec under torchtitan's own names, and those that torchtitan would reject."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ...spec.schema.torchtitan_fields import Torchtitan
from ...spec.source import Span
from ..costs.hardware import gpu
from .quantization import SECTION

Sections = dict[str, Any]

GPUS_ONLY = {
    "training": ("enable_cpu_offload",),
    "parallelism": ("enable_fsdp_symm_mem",),
    "compile": ("enable_async_tensor_parallel",),
}
"""Fields that do not apply to CPUs: they move weights to the host, or memory between GPUs."""

ATTENTION, DISPATCHER = "attention", "dispatcher"
"""Sections of etude's own: the backend of attention, and how tokens reach experts, which torchtitan
has in its models."""
WITHOUT_GRAPHS: Sections = {"training": {"disable_cuda_graphs": True}}

SYMMETRIC = 9.0
"""The CUDA compute capability from which torchtitan supports `enable_fsdp_symm_mem`
(torchtitan 0.3, `config/configs.py`)."""


class Refused(NamedTuple):
    """A field that torchtitan does not support on a device."""

    message: str
    span: Span | None
    help: str


def told(*groups: Torchtitan | None) -> Sections:
    """The fields of all groups, by section; later groups take precedence."""
    found: Sections = {}
    for group in groups:
        found = merged(found, group.given() if group else {})
    return found


def merged(sections: Sections, more: Sections) -> Sections:
    """Sections with the fields of both; those of `more` take precedence."""
    return sections | {name: sections.get(name, {}) | fields for name, fields in more.items()}


def on_cpus(sections: Sections) -> Sections:
    """The same without GPU-only fields: `--ranks` runs any stage on CPUs.

    A section may be null, as `activation_checkpoint` is without recomputation, and stays so.
    """
    left = {
        section: {name: fields[name] for name in fields if name not in GPUS_ONLY.get(section, ())}
        if fields
        else fields
        for section, fields in sections.items()
        if section not in (SECTION, ATTENTION, DISPATCHER)
    }
    return merged(left, WITHOUT_GRAPHS) if wants_graphs(left) else left


def wants_graphs(sections: Sections) -> bool:
    """Whether the fields ask for CUDA graphs."""
    return (sections.get("training") or {}).get("disable_cuda_graphs") is False


def is_compiled(*groups: Torchtitan | None) -> bool:
    """Whether the model is compiled on GPUs with these settings."""
    fields = told(*groups).get("compile", {})
    return fields.get("enable", True) and "model" in fields.get("components", ["model"])


def refused(device: str, cluster: Torchtitan | None, stage: Torchtitan | None) -> Iterator[Refused]:
    """The fields that torchtitan would reject when the first job begins.

    Args:
        device: "cpu", or a GPU's name.
        cluster, stage: the settings of each for torchtitan.
    """
    sections = told(cluster, stage)

    def place(section: str, name: str) -> Span | None:
        for group in (stage, cluster):
            fields = getattr(group, section, None)
            if fields is not None and getattr(fields, name) is not None:
                return fields.at(name)
        return None

    for section, names in GPUS_ONLY.items() if device == "cpu" else ():
        for name in names:
            if sections.get(section, {}).get(name):
                yield Refused(
                    f"`{section}.{name}` needs GPUs, but this stage runs on CPUs",
                    place(section, name),
                    f"remove `{name}`, or give the stage a cluster with `gpus`",
                )
    found = gpu(device)
    if wants_graphs(sections) and (device == "cpu" or (found and not found.capability)):
        yield Refused(
            "CUDA graphs need GPUs of NVIDIA, but this stage runs on "
            + (found.name if found else "CPUs"),
            place("training", "disable_cuda_graphs"),
            "remove `disable_cuda_graphs`",
        )
    old = found is not None and 0 < found.capability < SYMMETRIC
    if found and old and sections.get("parallelism", {}).get("enable_fsdp_symm_mem"):
        yield Refused(
            f"`parallelism.enable_fsdp_symm_mem` needs a GPU of compute capability "
            f"{SYMMETRIC:.1f}, but {found.name} has {found.capability:.1f}",
            place("parallelism", "enable_fsdp_symm_mem"),
            "remove `enable_fsdp_symm_mem`",
        )
    asynchronous = sections.get("compile", {}).get("enable_async_tensor_parallel")
    if asynchronous and device != "cpu" and not is_compiled(cluster, stage):
        yield Refused(
            "`compile.enable_async_tensor_parallel` needs a compiled model",
            place("compile", "enable_async_tensor_parallel"),
            "remove it, or write `enable = true` and a list of `components` with `model`",
        )
