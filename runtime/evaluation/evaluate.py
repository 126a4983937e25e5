"""Evaluates exported models: dispatches each measure to its module in `evaluation`."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from ...compiler.plan.measures import (
    AccuracyMeasure,
    LossMeasure,
    Measure,
    NeedleMeasure,
    RewardMeasure,
)
from ..data.whole_files import write_whole
from ..errors import RunError
from ..stopping import check
from .verdict import verdict

__all__ = ["measure", "verdict"]


def measure(
    measures: list[Measure],
    model: Path,
    data: Mapping[str, Path],
    *,
    prompts: Mapping[str, Path] | None = None,
    judge: Path | None = None,
    root: Path = Path(),
    kept: Path | None = None,
) -> dict[str, Any]:
    """Scores of an exported model, by the measures' names.

    Every score is an object with "score" and what the measure's module in `evaluation` adds.

    Args:
        model: folder of a Hugging Face model and its tokenizer.
        data: source → folder of its shards.
        prompts: source → folder with prompts.jsonl.
        judge: folder of an exported reward model.
        root: the folder of the spec, where relative paths of task files and templates start.
        kept: the file that keeps the scores of finished measures, for when the rest is interrupted.

    Raises: RunError, DataError, Interrupted.
    """
    logging.disable_progress_bar()
    exported = _Exported(model)
    scores: dict[str, Any] = read_whole(kept) if kept else {}
    for each in measures:
        if each.name in scores:
            continue
        scores[each.name] = _measure(each, exported, data, prompts or {}, judge, root)
        if kept:
            write_whole(kept, lambda file: file.write(json.dumps(scores).encode()))
    return {each.name: scores[each.name] for each in measures}


def read_whole(path: Path) -> dict[str, Any]:
    """The scores that a file keeps; none where it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}


class _Exported:
    """An exported model, loaded in the forms that measures ask for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def network(self) -> Any:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network: Any = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
        network.register_forward_pre_hook(lambda *_: check("the measure starts over"))
        return network.to(device).eval()

    @property
    def tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self.folder)


@torch.inference_mode()
def _measure(
    measure: Measure,
    model: _Exported,
    data: Mapping[str, Path],
    prompts: Mapping[str, Path],
    judge: Path | None,
    root: Path,
) -> dict[str, Any]:
    if isinstance(measure, LossMeasure):
        from .loss import loss

        return loss(measure, model.network, data)
    if isinstance(measure, NeedleMeasure):
        from .needle import needle

        return needle(measure, model.network, model.tokenizer)
    if isinstance(measure, AccuracyMeasure):
        from ..sampling.judge import Judge
        from .accuracy import accuracy

        return accuracy(measure, Judge(model.folder), data)
    if isinstance(measure, RewardMeasure):
        from .reward import reward

        if judge is None or measure.prompts not in prompts:
            raise RunError(f"{measure.name} needs prompts and a judge, but has neither")
        source = prompts[measure.prompts]
        return reward(measure, model.folder, prompts=source, judge=judge, root=root)
    from .suites import suite

    return suite(measure, model.network, model.tokenizer, root)
