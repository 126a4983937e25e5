"""The graph of a plan's stages: what continues from what, and where the run waits for people."""

from typing import Any

from ..compiler.as_written import at_most
from ..compiler.ids import StageId
from ..compiler.plan.plan import AnyJob, DatasetJob, GateJob, Plan, TrainJob
from ..spec.schema.recipe import STAGES


def graph(plan: Plan) -> dict[str, Any]:
    """Nodes (stages, and pauses for awaited files) and edges, in running order.

    Returns:
        nodes: id, kind, lines of text, tokens, `at_most` before them, and the
            group (a round, as in `align.2`) or "".
        edges: from, to, and the roles; `model` is the weights that a stage begins with.
    """
    jobs = {job.key: job for job in plan.jobs}
    nodes: dict[str, dict[str, Any]] = {}
    edges: dict[tuple[str, str], list[str]] = {}

    def providers(job: AnyJob, role: str) -> list[tuple[str, str]]:
        """The stages and pauses behind a job, skipping jobs that only prepare."""
        if isinstance(job, DatasetJob) and job.awaited:
            pause = f"pause {job.name}"
            if pause not in nodes:
                nodes[pause] = {
                    "id": pause,
                    "kind": "pause",
                    "group": "",
                    "tokens": 0,
                    "at_most": "",
                    "lines": ["waits for people", job.name],
                }
                for inner, key in job.inputs.items():
                    link(pause, jobs[key], inner)
            return [(pause, role)]
        if job.stage:
            return [(job.stage, role)]
        return [pair for key in job.inputs.values() for pair in providers(jobs[key], "data")]

    def link(to: str, job: AnyJob, role: str) -> None:
        for source, what in providers(job, role.split(":")[0].split(".")[0]):
            if source != to:
                roles = edges.setdefault((source, to), [])
                if what not in roles:
                    roles.append(what)

    for job in plan.jobs:
        if job.stage is None or job.extends or job.kind == "export":
            continue
        if job.stage not in nodes:
            nodes[job.stage] = _node(plan, job.stage)
        for role, key in job.inputs.items():
            link(job.stage, jobs[key], role)
    return {
        "nodes": list(nodes.values()),
        "edges": [
            {"from": a, "to": b, "roles": roles}
            for (a, b), roles in edges.items()
            if a in nodes and b in nodes
        ],
    }


def gates(plan: Plan, stage: str) -> list[GateJob]:
    return [j for j in plan.jobs if isinstance(j, GateJob) and j.stage == stage and not j.attempt]


def _node(plan: Plan, stage: str) -> dict[str, Any]:
    from ..spec.quantity import short

    summary = plan.stages[stage]
    of = StageId.parse(stage)
    tokens = f"{at_most(summary.rows)}{short(summary.tokens)} tokens"
    second = summary.kind + (f" · {tokens}" if summary.tokens else "")
    lines = [of.name, second]
    guarded = gates(plan, stage)
    if guarded:
        lines.append(f"◆ {len(guarded)} gate{'s' if len(guarded) > 1 else ''}")
    means = [j.average for j in plan.jobs if isinstance(j, TrainJob) and j.stage == stage]
    if means and means[0]:
        decay = means[0].decay
        lines.append("x̄ Polyak average" if decay is None else f"x̄ moving average, decay {decay:g}")
    kind = STAGES.get(summary.kind)
    if stage in plan.outputs and (kind is None or kind.has_weights):
        lines.append("⇥ exported")
    return {
        "id": stage,
        "kind": summary.kind,
        "group": of.group,
        "tokens": summary.tokens,
        "at_most": at_most(summary.rows),
        "lines": lines,
    }
