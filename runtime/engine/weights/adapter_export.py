"""Writes the adapters of a train job as PEFT reads them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ....compiler.plan.plan import TrainJob
from ....compiler.torchtitan.adapters import CONVERTER, SECTION
from ...disk import write
from ...errors import RunError
from ..adapters import DOWN, UP
from ..checkpoints.storage import model_tensors, read_tensor, reading

_FEED_FORWARD = {"w1", "w2", "w3"}
_THEIRS = {DOWN: ".lora_A.weight", UP: ".lora_B.weight"}


def export_adapter(job: TrainJob, model: Path, folder: Path) -> None:
    """Writes `adapter_model.safetensors` and `adapter_config.json`.

    Args:
        job: one with adapters.
        model: its result.
        folder: exists and is empty.

    Raises:
        RunError: the result is damaged; transformers arranges a matrix in a way that adapters
            cannot follow; or PEFT (0.21) would read them otherwise.
        OSError: a file cannot be written.
    """
    settings = job.torchtitan[SECTION][CONVERTER]
    if job.model.experts and not _FEED_FORWARD.isdisjoint(settings["target_modules"]):
        raise RunError(
            f"PEFT would put the adapters of `{job.stage}` beside its experts: it takes the names "
            "of feed-forward layers for theirs",
            "export the stage without --adapter: its weights have the adapters merged into them",
        )
    tensors: dict[str, torch.Tensor] = {}
    modules: set[str] = set()
    path = model / "state"
    to_hf = _to_hf(job)
    with reading(path, "remove it; the next run trains the stage again"):
        known = model_tensors(path)
        for name, entry in known.items():
            if not name.endswith(UP):
                continue
            base = name.removesuffix(UP)
            shape = tuple(known[f"{base}.weight"].size)
            theirs, rows = _rows(to_hf, f"{base}.weight", shape)
            module = theirs.removesuffix(".weight")
            modules.add(module.rpartition(".")[2])
            of = {end: read_tensor(path, base + end, known[base + end]) for end in (DOWN, UP)}
            assert entry.size[0] == len(rows)
            of[UP] = of[UP][rows]
            tensors |= {
                f"base_model.model.{module}{_THEIRS[end]}": each.contiguous()
                for end, each in of.items()
            }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": settings["rank"],
        "lora_alpha": settings["alpha"],
        "lora_dropout": 0.0,
        "target_modules": sorted(modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    write(folder / "adapter_config.json", json.dumps(config, indent=2) + "\n")


def _to_hf(job: TrainJob) -> Any:
    from ..families import model_spec

    spec = model_spec(job.model, "cpu", job.model.context)
    assert spec.state_dict_adapter is not None
    return spec.state_dict_adapter(spec.model, None).to_hf


def _rows(to_hf: Any, name: str, shape: tuple[int, ...]) -> tuple[str, torch.Tensor]:
    """transformers' name of a matrix, and our row in each of its rows: B has the same rows.

    Raises: RunError: it arranges columns, too.
    """
    numbers = torch.arange(shape[0])[:, None].expand(shape).contiguous()
    found = to_hf({name: numbers})
    rows = next(iter(found.values()), None)  # none yet: it is a part of a larger matrix there
    alike = rows is not None and len(found) == 1 and tuple(rows.shape) == shape
    if rows is None or not alike or not (rows == rows[:, :1]).all():
        raise RunError(
            f"transformers arranges {name} otherwise, which an adapter beside it cannot follow",
            "export the stage without --adapter: its weights have the adapters merged into them",
        )
    return next(iter(found)), rows[:, 0]
