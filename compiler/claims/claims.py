"""Published figures against the plan: the `expect` block."""

from math import fsum

from ...spec.findings.diagnostics import FAILED_CLAIM, Report, did_you_mean
from ...spec.quantity import amount, counted
from ...spec.schema import recipe as r
from ..families.architectures import (
    active_parameters,
    flops_per_token,
    further_parameters,
    parameters,
)
from ..ids import FigureId
from ..program import Claimed, Scheduled, ScheduledStage
from ..resolve.scope import as_written
from ..values import Claim
from .in_force import MOMENTS, step_at

COUNTED = ("parameters", "active_parameters", "mtp_parameters", "tokens", "steps", "flops")
"""Figures that the plan counts, for the whole recipe or a stage."""
SUMS = ("hours", "gpu_hours", "energy_kwh", "price")
ESTIMATES = (*SUMS, "memory", "step_seconds", "mfu", "tflops", "tokens_per_second")
"""Figures of the cost model, which runs only if a claim names one."""


def claims(program: Scheduled, report: Report) -> Claimed:
    """The program with its claims, compared with the computed figures. A claim that does not hold
    is an error, unless it says what contradicts it in its source.

    Estimates are about the recipe's own clusters: for `ranks` CPU processes they are skipped.
    """
    figures, stages = _exact(program)
    found = []
    for claimed in program.recipe.expectations:
        figure = FigureId.parse(claimed.name).figure
        if program.ranks is not None and claimed.moment is None and figure in ESTIMATES:
            continue
        computed = _computed(program, claimed, figures, stages, report)
        if computed is None:
            continue
        off = abs(computed - claimed.value) / claimed.value if claimed.value else abs(computed)
        holds = off <= claimed.tolerance
        found.append(
            Claim(
                what=shown(claimed),
                claimed=float(claimed.value),
                computed=float(computed),
                tolerance=float(claimed.tolerance),
                cite=claimed.cite,
                because=claimed.because,
                contradicted=claimed.contradicted,
                holds=holds,
            )
        )
        if not holds and claimed.contradicted is None:
            report.add(
                FAILED_CLAIM,
                f"`{shown(claimed)}` is {amount(float(computed))} in this plan, "
                f"not {amount(float(claimed.value))}",
                claimed.at("value"),
                label=f"off by {float(off):.2%}",
                help=f"the claim allows {float(claimed.tolerance):.2%}: correct the recipe, the "
                "figure or its tolerance; where the source contradicts itself, add "
                '`contradicted "by what"`',
            )
    return Claimed(**vars(program), claims=found)


def shown(claimed: r.Expectation) -> str:
    """The claimed figure, such as `pretrain.lr at 2,000 steps`."""
    return claimed.name if claimed.moment is None else f"{claimed.name} at {claimed.moment}"


def _exact(program: Scheduled) -> tuple[dict[str, float], dict[str, ScheduledStage]]:
    """The counted figures by name, and the stages that claims may name."""
    figures: dict[str, float] = {}
    stages: dict[str, ScheduledStage] = {}
    for name, stage in program.stages.items():
        if isinstance(stage, ScheduledStage):
            per_token = flops_per_token(stage.model)
            sizes = {
                "parameters": parameters(stage.model),
                "active_parameters": active_parameters(stage.model),
                "mtp_parameters": further_parameters(stage.model),
            }
            figures = sizes | figures
            of = {"tokens": stage.tokens, "steps": stage.steps, "flops": per_token * stage.tokens}
            for figure, value in of.items():
                figures[figure] = figures.get(figure, 0) + value
            # For a repeated stage, the figures of the last round count.
            written = as_written(name)
            figures |= {str(FigureId(written, figure)): value for figure, value in of.items()}
            figures |= {str(FigureId(written, figure)): size for figure, size in sizes.items()}
            stages[written] = stage
    for total in ("tokens", "steps", "flops"):
        figures.setdefault(total, 0)
    return figures, stages


def _computed(
    program: Scheduled,
    claimed: r.Expectation,
    figures: dict[str, float],
    stages: dict[str, ScheduledStage],
    report: Report,
) -> float | None:
    """The plan's figure; None, with a report, if the plan has none."""
    of, figure = FigureId.parse(claimed.name)
    stage = stages.get(of)
    if claimed.moment is not None and stage and figure in MOMENTS:
        step = step_at(stage, claimed.moment)
        if step is not None:
            return MOMENTS[figure](stage, step)
        report.add(
            "E463",
            f"`{of}` ends before this point",
            claimed.at("moment"),
            help=f"it has {counted(stage.steps, 'steps')} and {counted(stage.tokens, 'tokens')}",
        )
        return None
    if claimed.moment is None and figure in ESTIMATES and (stage or (not of and figure in SUMS)):
        value = _estimated(program, stage, figure)
        if value is None:
            missing = "the price of a GPU-hour" if figure == "price" else "a known kind of GPU"
            report.add(
                "E461",
                f"`{claimed.name}` is not estimated in this plan",
                claimed.at(),
                help=f"its cluster needs {missing}",
            )
        return value
    if claimed.moment is None and claimed.name in figures:
        return figures[claimed.name]
    at_moments = [str(FigureId(name, figure)) for name in stages for figure in MOMENTS]
    if claimed.moment is not None:
        what, known = "a figure of a stage at a point in training", at_moments
    elif claimed.name in at_moments:
        report.add(
            "E463",
            f"`{claimed.name}` changes during the stage",
            claimed.at(),
            help=f"give the point in time: `{claimed.name} at 1000 steps`, `at 2B tokens` or `at "
            "50%`",
        )
        return None
    else:
        estimates = [str(FigureId(name, figure)) for name in stages for figure in ESTIMATES]
        what, known = "a figure of this plan", [*figures, *SUMS, *estimates, *at_moments]
    report.add(
        "E461",
        f"`{claimed.name}` is not {what}",
        claimed.at(),
        help=did_you_mean(claimed.name, known),
    )
    return None


def _estimated(program: Scheduled, stage: ScheduledStage | None, figure: str) -> float | None:
    """A figure of the cost model for a stage, or a sum over all stages that train.

    Memory is in GiB, of the fullest GPU; `mfu`, `tflops` (of the model, per GPU) and
    `tokens_per_second` (per GPU) are means over the stage's time, and `step_seconds` over its
    steps. None if an input is unknown.
    """
    from ..costs.hardware import GIB, gpu
    from ..costs.jobs import job_costs, segment_batch

    trained = [s for s in program.stages.values() if isinstance(s, ScheduledStage)]
    costs = [
        job_costs(each, segment, segment_batch(each, segment))
        for each in ([stage] if stage else trained)
        for segment in each.segments
    ]
    if not costs or not all(costs):
        return None
    if figure == "memory":
        return max(fsum(cost["memory"].values()) for cost in costs) / GIB
    seconds = fsum(cost["seconds"] for cost in costs)
    if figure == "hours":
        return seconds / 3600
    if figure == "step_seconds" and stage:
        return seconds / stage.steps
    if figure == "tflops" and stage:
        device = gpu(stage.hardware.device)
        assert device
        peak = device.fp32 if stage.precision.kind == "fp32" else device.bf16
        return fsum(cost["mfu"] * cost["seconds"] for cost in costs) / seconds * peak / 1e12
    if figure in ("mfu", "tokens_per_second"):
        return fsum(cost[figure] * cost["seconds"] for cost in costs) / seconds
    values = [cost[figure] for cost in costs]
    return None if None in values else fsum(values)
