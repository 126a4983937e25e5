"""Published figures against the plan: the `expect` block."""

from ..spec.diagnostics import Report, did_you_mean
from ..spec.record import replace
from .architectures import active_parameters, flops_per_token, parameters
from .program import Program, TrainStage
from .values import Claim

ESTIMATES = ("hours", "gpu_hours", "energy_kwh", "price", "memory", "mfu", "tokens_per_second")
"""Figures of the cost model, which is asked only where a claim names one."""
SUMS = ESTIMATES[:4]


def claims(program: Program, report: Report) -> Program:
    """Fills `claims`; a claim that does not hold is an error at its place."""
    figures: dict[str, float] = {}
    stages: dict[str, TrainStage] = {}
    for name, stage in program.stages.items():
        if isinstance(stage, TrainStage):
            per_token = flops_per_token(stage.model)
            figures.setdefault("parameters", parameters(stage.model))
            figures.setdefault("active_parameters", active_parameters(stage.model))
            of = {"tokens": stage.tokens, "steps": stage.steps, "flops": per_token * stage.tokens}
            for figure, value in of.items():
                figures[figure] = figures.get(figure, 0) + value
            # Of a stage that is repeated, the last round's figures are those that count.
            block, _, inner = name.rpartition(".")
            written = f"{block.partition('.')[0]}.{inner}" if block else name
            figures |= {f"{written}.{figure}": value for figure, value in of.items()}
            figures[f"{written}.parameters"] = parameters(stage.model)
            figures[f"{written}.active_parameters"] = active_parameters(stage.model)
            stages[written] = stage
    for total in ("tokens", "steps", "flops"):
        figures.setdefault(total, 0)
    found = []
    for expectation in program.recipe.expectations:
        of, _, figure = expectation.name.rpartition(".")
        if figure in ESTIMATES and (of in stages or (not of and figure in SUMS)):
            value = _estimated(program, stages.get(of), figure)
            if value is None:
                missing = "the price of a GPU-hour" if figure == "price" else "a known kind of GPU"
                report.add(
                    "E461", f"`{expectation.name}` is not estimated in this plan", expectation.at(),
                    help=f"its cluster needs {missing}",
                )  # fmt: skip
                continue
            figures[expectation.name] = value
        if expectation.name not in figures:
            report.add(
                "E461", f"`{expectation.name}` is not a figure of this plan", expectation.at(),
                help=did_you_mean(expectation.name, _names(figures, stages)),
            )  # fmt: skip
            continue
        computed, claimed = figures[expectation.name], expectation.value
        off = abs(computed - claimed) / claimed if claimed else abs(computed)
        holds = off <= expectation.tolerance
        found.append(
            Claim(
                what=expectation.name, claimed=float(claimed), computed=float(computed),
                tolerance=float(expectation.tolerance), cite=expectation.cite, holds=holds,
            )
        )  # fmt: skip
        if not holds:
            report.add(
                "E462",
                f"`{expectation.name}` is {float(computed):.6g} in this plan, not "
                f"{float(claimed):.6g}",
                expectation.at("value"), label=f"off by {float(off):.2%}",
                help=f"the claim allows {float(expectation.tolerance):.2%}: mend the recipe, the "
                "figure or its tolerance",
            )  # fmt: skip
    return replace(program, claims=found)


def _names(figures: dict[str, float], stages: dict[str, TrainStage]) -> list[str]:
    """All figures that a claim may name."""
    estimates = [f"{name}.{figure}" for name in stages for figure in ESTIMATES]
    return [*figures, *SUMS, *estimates]


def _estimated(program: Program, stage: TrainStage | None, figure: str) -> float | None:
    """A figure of the cost model for a stage, or a sum over all stages that train.

    Memory is in GiB, of the fullest GPU; `mfu` and `tokens_per_second` (of one GPU) are means over
    the stage's time. None where something of it is not known.
    """
    from .costs.hardware import GIB
    from .costs.jobs import job_costs, segment_batch

    trained = [s for s in program.stages.values() if isinstance(s, TrainStage)]
    costs = [
        job_costs(each, segment, segment_batch(each, segment))
        for each in ([stage] if stage else trained)
        for segment in each.segments
    ]
    if not costs or not all(costs):
        return None
    if figure == "memory":
        return max(sum(cost["memory"].values()) for cost in costs) / GIB
    seconds = sum(cost["seconds"] for cost in costs)
    if figure == "hours":
        return seconds / 3600
    if figure in ("mfu", "tokens_per_second"):
        return sum(cost[figure] * cost["seconds"] for cost in costs) / seconds
    values = [cost[figure] for cost in costs]
    return None if None in values else sum(values)
