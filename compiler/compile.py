"""The compiler: a recipe goes through the passes from left to right and comes out as a plan."""

from typing import Any

from ..spec.diagnostics import Report
from ..spec.quantity import short
from ..spec.recipe import Recipe
from .check import CHECKS, Pass, through
from .lower import lower
from .plan import Plan, Provenance, StageSummary
from .program import Program, TrainStage

PASSES: tuple[Pass, ...] = (*CHECKS, lower)


def compile_recipe(recipe: Recipe, report: Report, *, ranks: int | None = None) -> Plan | None:
    """The plan of a recipe, or None where the report says why there is none.

    Args:
        ranks: run every stage on so many CPU processes of this machine instead of its cluster.
    """
    program = through(PASSES, Program(recipe, ranks), report)
    if program is None:
        return None
    header = recipe.header
    return Plan(
        etude_plan=1,
        recipe=header.name,
        title=header.title or header.name,
        cite=header.cite,
        seed=header.seed,
        tracking=header.tracking,
        outputs=program.outputs,
        stages={name: _summary(stage) for name, stage in program.stages.items()},
        claims=program.claims,
        jobs=program.jobs,
    )


def _summary(stage: Any) -> StageSummary:
    if not isinstance(stage, TrainStage):
        of = getattr(stage, "of", None)
        return StageSummary(
            kind=stage.spec.kind, goes_on_from=of if isinstance(of, str) else None,
            tokens=0, steps=0,
            values={"of": Provenance(value=", ".join(of), origin="spec")}
            if isinstance(of, list) else {},
        )  # fmt: skip
    end = stage.end
    assert end
    optimizer = stage.optimizer
    shown = {
        "model": f"{stage.model.family} {stage.model.size or ''}".strip(),
        "seq_len": " → ".join(str(v) for _, _, v in stage.lengths),
        "batch": " → ".join(dict.fromkeys(f"{b.sequences} seqs" for b in stage.batches)),
        "lr": f"ends at {float(end.lr):.4g}",
        "data": ", ".join(f"{n} {short(s * 100)}%" for n, s in end.data.items()),
        "rope_theta": f"{end.rope_theta:g}",
        "parallel": ", ".join(f"{k} {v}" for k, v in end.parallel.items()) or "data parallel",
        "clip": f"{stage.clip:g}",
        "precision": stage.precision,
        "recompute": stage.recompute,
        "optimizer": f"{optimizer.kind}, betas {list(optimizer.betas)}, "
        f"weight_decay {optimizer.weight_decay:g}, eps {optimizer.eps:g}, state "
        + ("carried over" if stage.carries else "fresh"),
    }
    return StageSummary(
        kind="train", goes_on_from=stage.parent, tokens=stage.tokens, steps=stage.steps,
        values={n: Provenance(value=v, origin=stage.origins[n]) for n, v in shown.items()},
    )  # fmt: skip
