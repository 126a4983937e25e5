"""Published figures against the plan: the `expect` block."""

from ..spec.diagnostics import Report, did_you_mean
from ..spec.record import replace
from .architectures import flops_per_token, parameters
from .program import Program, TrainStage
from .values import Claim


def claims(program: Program, report: Report) -> Program:
    """Fills `claims`; a claim that does not hold is an error at its place."""
    figures: dict[str, float] = {}
    for name, stage in program.stages.items():
        if isinstance(stage, TrainStage):
            per_token = flops_per_token(stage.model)
            figures.setdefault("parameters", parameters(stage.model))
            of = {"tokens": stage.tokens, "steps": stage.steps, "flops": per_token * stage.tokens}
            for figure, value in of.items():
                figures[figure] = figures.get(figure, 0) + value
            # Of a stage that is repeated, the last round's figures are those that count.
            block, _, inner = name.rpartition(".")
            written = f"{block.partition('.')[0]}.{inner}" if block else name
            figures |= {f"{written}.{figure}": value for figure, value in of.items()}
            figures[f"{written}.parameters"] = parameters(stage.model)
    for total in ("tokens", "steps", "flops"):
        figures.setdefault(total, 0)
    found = []
    for expectation in program.recipe.expectations:
        if expectation.name not in figures:
            report.add(
                "E461", f"`{expectation.name}` is not a figure of this plan", expectation.at(),
                help=did_you_mean(expectation.name, figures),
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
