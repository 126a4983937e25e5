"""Pipelines as torch and torchtitan make them: stages, layers, orders, and what they compute."""

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import run, tensors, train_job
from specs import HEAD, jobs, only, plan, stage
from test_engine_ranks import Run, Workplace
from torch.distributed.pipelining import schedules
from torchtitan.distributed import pipeline_parallel as titan

from etude.compiler.costs.estimate import evaluate
from etude.compiler.costs.formulas import TIME, compiled
from etude.compiler.pipelines import (
    DEFAULT,
    PIPELINES,
    between,
    bubble_kind,
    in_flight,
    layers_of_stages,
    stages_of_rank,
)
from etude.compiler.values import Resources
from etude.runtime.engine.device import twice_backward
from etude.runtime.rehearsal import build, configurations
from etude.spec.schema.convert_schedule import SCHEDULES

CLUSTER = 'cluster big { gpus = 8 of "H100 80GB" }\n'
HEAD14 = HEAD.replace("layers = 2", "layers = 14")
PLACED = [
    "schedule gpipe",
    "first_less 0, last_less 0",
    "interleave 2, last_less 0",
    "schedule looped_bfs",
    "schedule zero_bubble",
    "schedule zero_bubble, interleave 4",
    "schedule zero_bubble_v",
    "schedule zero_bubble_v, first_less 0",
    "schedule dualpipe_v, first_less 0, last_less 0",
]
C = schedules._ComputationType


def mesh(schedule: str, pipeline: int, interleave: int = 2) -> Resources:
    return Resources(
        world_size=pipeline,
        device="H100 80GB",
        replicate=1,
        shard=1,
        tensor=1,
        context=1,
        pipeline=pipeline,
        interleave=interleave,
        expert=1,
        schedule=schedule,
    )


def test_the_schedules_are_those_of_torch() -> None:
    assert {*PIPELINES} == {DEFAULT, *SCHEDULES}
    for of in PIPELINES.values():
        for name, kind in (
            (of.titan, schedules.PipelineScheduleSingle),
            (of.several, schedules.PipelineScheduleMulti),
        ):
            assert not name or issubclass(schedules.get_schedule_class(name), kind)


@pytest.mark.parametrize("placed", PLACED)
def test_torchtitan_puts_the_layers_where_the_plan_says(placed: str) -> None:
    spec = stage(batch="64 seqs", parallel=f"{{ pipeline 2, {placed} }}")
    job = only(jobs(plan(HEAD14 + CLUSTER + spec)))
    told, stages = job.torchtitan["parallelism"], job.resources.interleave * 2
    name = told.get("pipeline_parallel_schedule", "1F1B")
    first = told.get("pipeline_parallel_first_stage_less_layers", 1)
    last = told.get("pipeline_parallel_last_stage_less_layers", 1)
    each = told.get("pipeline_parallel_layers_per_stage")
    single = issubclass(schedules.get_schedule_class(name), schedules.PipelineScheduleSingle)
    made = -(-(14 + first + last) // each) if each else 2 * (1 if single else 2)
    assert made == stages
    theirs = titan._generate_llm_fqn_per_model_part(stages, 14, first, last)
    counts = [sum("layers." in module for module in part) for part in theirs]
    assert counts == layers_of_stages(14, job.resources)
    for rank in range(2):
        of_rank = titan._get_pp_rank_to_stage_indices_mapping(rank, 2, name, stages)
        assert list(of_rank) == stages_of_rank(job.resources, rank)


@pytest.mark.parametrize(
    "chosen", [PLACED[-1:], pytest.param(PLACED[:-1], marks=pytest.mark.exhaustive)]
)
def test_torchtitan_builds_every_schedule_and_split_as_planned(chosen: list[str]) -> None:
    specs = [stage(batch="64 seqs", parallel=f"{{ pipeline 2, {placed} }}") for placed in chosen]
    made = [configurations(plan(HEAD14 + CLUSTER + spec))[0] for spec in specs]
    for placed, built in zip(chosen, build(made), strict=True):
        assert (built.rejected, built.differences) == (None, []), placed
        assert len(built.ranks) == 2


class Stage:
    """What a schedule asks of a stage to make its order."""

    def __init__(self, index: int, ranks: int, stages: int) -> None:
        self.group_rank, self.group_size = 0, ranks
        self.stage_index, self.num_stages = index, stages
        self.is_first, self.is_last = index == 0, index == stages - 1
        self.has_backward, self.submod, self.group = True, None, None
        self.device = torch.device("cpu")


def order(of: Resources, micro_batches: int) -> dict[int, list[Any]]:
    """The actions of every rank in torch's order, without those that only communicate."""
    ranks, stages = of.pipeline, of.pipeline * of.interleave
    kind: Any = schedules.get_schedule_class(PIPELINES[of.schedule].several)
    own = [Stage(index, ranks, stages) for index in stages_of_rank(of, 0)]
    made = kind(own, n_microbatches=micro_batches, loss_fn=lambda *_: 0)
    return {rank: list(_flat(actions)) for rank, actions in made.pipeline_order.items()}


def _flat(actions: list[Any]) -> Any:
    for action in actions:
        if action is not None:
            yield from action.sub_actions or [action]


@pytest.mark.parametrize("micro_batches", [8, 16, 32])
@pytest.mark.parametrize("schedule", ["zero_bubble", "zero_bubble_v", "dualpipe_v"])
def test_as_many_micro_batches_wait_for_their_weights_as_torch_lets_wait(
    schedule: str, micro_batches: int
) -> None:
    for ranks in (2, 4, 8):
        of = mesh(schedule, ranks)
        if schedule == "dualpipe_v" and micro_batches < 2 * ranks:
            continue
        for rank, actions in order(of, micro_batches).items():
            kinds = [action.computation_type for action in actions]
            waiting = [
                (kinds[:now].count(C.BACKWARD_INPUT) - kinds[:now].count(C.BACKWARD_WEIGHT))
                for now in range(len(kinds) + 1)
            ]
            most = max(*waiting, 1)  # one whole backward pass has both, one after the other
            assert between(of, rank, micro_batches) == most / 2, (ranks, rank)


def run_through(
    actions: dict[int, list[Any]], last: int, forward: float, inputs: float, weights: float
) -> tuple[float, list[int]]:
    """The time of a step without communication, and the most activations that each rank holds.

    Args:
        last: the last stage.
        forward, inputs, weights: times of the parts of a micro-batch, in one stage.
    """
    done: dict[tuple[str, int, int], float] = {}
    at, clock = dict.fromkeys(actions, 0), dict.fromkeys(actions, 0.0)
    held, most = dict.fromkeys(actions, 0), dict.fromkeys(actions, 0)

    def step(rank: int, action: Any) -> bool:
        stage, micro, kind = action.stage_index, action.microbatch_index, action.computation_type
        if kind == C.FORWARD:
            needs, takes = [("F", stage - 1, micro)] if stage else [], forward
        elif kind == C.BACKWARD_WEIGHT:
            needs, takes = [("B", stage, micro)], weights
        else:
            needs = [("F", stage, micro), *([("B", stage + 1, micro)] if stage < last else [])]
            takes = inputs + (weights if kind == C.FULL_BACKWARD else 0)
        if any(need not in done for need in needs):
            return False
        clock[rank] = max([clock[rank], *(done[need] for need in needs)]) + takes
        if kind == C.FORWARD:
            done["F", stage, micro] = clock[rank]
            held[rank] += 1
            most[rank] = max(most[rank], held[rank])
        elif kind != C.BACKWARD_WEIGHT:
            done["B", stage, micro] = clock[rank]
        held[rank] -= kind in (C.BACKWARD_WEIGHT, C.FULL_BACKWARD)
        return True

    while any(at[rank] < len(actions[rank]) for rank in actions):
        moved = False
        for rank, own in actions.items():
            while at[rank] < len(own) and step(rank, own[at[rank]]):
                at[rank], moved = at[rank] + 1, True
        assert moved, "the ranks wait for each other"
    return max(clock.values()), [most[rank] for rank in sorted(most)]


def bubble(of: Resources, micro_batches: int, f: float, b: float, w: float) -> float:
    """What the cost model says, with these times of a micro-batch on a rank."""
    symbols: dict[str, float] = {name: name == bubble_kind(of) for name in ("split", "vee", "dual")}
    symbols |= {"p": of.pipeline, "v": of.interleave, "fills": 1, "micro_batch": f + b + w}
    symbols |= {"forward": f, "inputs": b, "weights": w}
    return evaluate(symbols, compiled({"bubble": TIME["bubble"]}))["bubble"]


TIMES = [(1, 1, 1), (1, 1.3, 1), (1, 1.3, 0.6), (1, 2, 1), (1, 2, 0.6), (1, 3, 1), (0.8, 1, 0.5)]


@pytest.mark.parametrize("pipeline", [2, 3, 4, 8])
@pytest.mark.parametrize(
    ("schedule", "interleave"),
    [
        (DEFAULT, 2),
        (DEFAULT, 3),
        ("looped_bfs", 2),
        ("zero_bubble", 2),
        ("zero_bubble", 3),
        ("zero_bubble_v", 2),
        ("dualpipe_v", 2),
    ],
)
def test_the_cost_model_waits_and_holds_as_torchs_order_does(
    schedule: str, interleave: int, pipeline: int
) -> None:
    of, count = mesh(schedule, pipeline, interleave), 4 * pipeline
    actions, stages = order(of, count), pipeline * interleave
    held: list[int] = []
    for f, b, w in TIMES:
        parts = (f / interleave, b / interleave, w / interleave)
        seconds, held = run_through(actions, stages - 1, *parts)
        waited = seconds - count * (f + b + w)
        assert bubble(of, count, f, b, w) == pytest.approx(waited), (f, b, w)
    planned = [in_flight(of, rank, count) * interleave for rank in range(pipeline)]
    assert planned == held


class Mixed(torch.nn.Module):
    """Two layers that are not compiled, with a function between them that is, like attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.mixed = torch.compile(lambda x: x.softmax(-1) * x.exp(), backend="aot_eager")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.mixed(self.first(x)))


def test_gradients_of_weights_can_be_computed_apart_beside_compiled_attention() -> None:
    from torch.distributed.pipelining._backward import stage_backward_input, stage_backward_weight

    torch.manual_seed(1)
    model, x = Mixed(), torch.randn(2, 4, requires_grad=True)

    twice_backward(True)
    try:
        loss = model(x).square().sum()
        _, groups = stage_backward_input([loss], None, [x], model.parameters())
        stage_backward_weight(model.parameters(), groups)
    finally:
        twice_backward(False)
    found = [of.grad for of in model.parameters()]
    model.zero_grad()
    model(x).square().sum().backward()
    torch.testing.assert_close(found, [of.grad for of in model.parameters()])


def layout(schedule: str, **told: Any) -> dict[str, Any]:
    name = PIPELINES[schedule].several or PIPELINES[schedule].titan
    return {"pipeline_parallel_degree": 2, "pipeline_parallel_schedule": name, **told}


LAYOUTS = {
    "even": {
        "pipeline_parallel_degree": 2,
        "pipeline_parallel_first_stage_less_layers": 0,
        "pipeline_parallel_last_stage_less_layers": 0,
    },
    **{name: layout(name) for name in SCHEDULES if name != "gpipe"},
}


@pytest.mark.exhaustive
def test_two_ranks_compute_under_every_schedule_what_one_does(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(train_job(steps=1), inputs, tmp_path / "begun")
    place = Workplace(inputs, tmp_path)
    begun = {**inputs, "model": place.result("begun")}

    def job(world_size: int, **parallelism: Any) -> Any:
        made = train_job(
            steps=2,
            batch=8,
            world_size=world_size,
            torchtitan={"parallelism": parallelism},
        )
        training = {**made.torchtitan["training"], "local_batch_size": 8}
        return made.model_copy(update={"torchtitan": {**made.torchtitan, "training": training}})

    assert place.run(*(Run(job(2, **LAYOUTS[name]), name, model="begun") for name in LAYOUTS)) == 0
    one = run(job(1), begun, tmp_path / "one")
    ours = tensors(tmp_path / "one" / "result" / "state")
    for name in LAYOUTS:
        for mine, theirs in zip(one, place.events(name), strict=True):
            for figure in ("loss", "grad_norm"):
                assert mine[figure] == pytest.approx(theirs[figure], rel=1e-5), (name, figure)
        state = tensors(place.result(name) / "state")
        for key, tensor in ours.items():
            if key.endswith(".exp_avg"):
                torch.testing.assert_close(tensor, state[key], rtol=1e-4, atol=1e-7, msg=key)
