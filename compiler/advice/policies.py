"""Advice on stages that learn from their own answers."""

from collections.abc import Iterator

from ...spec.quantity import counted
from ...spec.schema import recipe as r
from ..costs.generation import Draws, generation
from ..costs.hardware import gpu
from ..costs.jobs import segment_batch
from ..program import Scheduled, ScheduledStage
from . import Found, rule

WAITING = 0.5
"""The share of GPUs that may wait while the others write."""


@rule("N665")
def few_answers(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    known, hardware = gpu(stage.hardware.device), stage.hardware
    if known is None or not isinstance(stage.spec, r.Grpo):
        return
    turn = stage.segments[0]
    batches = segment_batch(stage, turn)
    answers = sum((each.to_step - each.from_step) * each.sequences for each in batches)
    answer = min(stage.spec.max_tokens, turn.seq_len - 1)
    per_node = min(hardware.per_node, hardware.world_size)
    found = generation(
        stage.model.knowing(turn.seq_len, turn.rope_theta),
        known,
        per_node=per_node,
        nodes=hardware.world_size // per_node,
        context=turn.seq_len,
        draws=[Draws(answers, min(answer, turn.seq_len - answer), answer)],
        spread=True,
    )
    used = found.replicas * found.tensor * found.pipeline
    if found.fits and used <= (1 - WAITING) * hardware.world_size:
        yield Found(
            f"{counted(answers, 'answers')} a turn keep {used} of {hardware.world_size:,} GPUs "
            "busy: more would write them hardly faster, so the others wait until they are written",
            stage.spec.at("refresh") or stage.spec.at("batch") or stage.spec.at(),
            "let a turn have more answers, with `refresh` or `batch`, or choose a smaller cluster",
        )
