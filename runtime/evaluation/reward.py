"""The mean reward of a model's answers, from a judge."""

from pathlib import Path
from typing import Any

from ...compiler.plan.measures import RewardMeasure
from ..errors import RunError
from ..sampling.answers import Sampler

PROMPTS = 64
"""Prompts that are answered together."""


def reward(
    measure: RewardMeasure, model: Path, *, prompts: Path, judge: Path, root: Path
) -> dict[str, Any]:
    """{"score", "prompts", "unjudged", "finished"}: the mean reward, how many answers are too long
    for the judge, and the share that the model ended itself.

    One answer is drawn for each of the first prompts, with seeds as in a sample job.

    Args:
        model: folder of the exported model.
        prompts: folder with prompts.jsonl.
        judge: folder of the exported reward model.
        root: the folder of the spec.

    Raises:
        RunError: a model cannot be loaded, the judge is not a reward model or can read no answer.
        DataError: a prompt is damaged, empty or too long.
    """
    sampler = Sampler(
        model,
        judge,
        dialog=measure.dialog,
        root=root,
        max_tokens=measure.max_tokens,
        temperature=measure.temperature,
    )
    asked = sampler.prompts(prompts / "prompts.jsonl", limit=measure.limit)
    answers = []
    for first in range(0, len(asked), PROMPTS):
        chunk = asked[first : first + PROMPTS]
        drawn = sampler.answer(chunk, first=first, draws=1, seed=measure.seed)
        answers += [answer for (answer,) in drawn]
    rewards = [answer.score for answer in answers if answer.score is not None]
    if not rewards:
        raise RunError(
            f"all answers for {measure.name} are longer than the judge's context",
            "lower max_tokens, or train the judge with a longer seq_len",
        )
    return {
        "score": sum(rewards) / len(rewards),
        "prompts": len(asked),
        "unjudged": len(asked) - len(rewards),
        "finished": sum(answer.finished for answer in answers) / len(answers),
    }
