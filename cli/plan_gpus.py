"""`etude plan --gpus A..B --deadline T`: what a recipe takes and costs on how many GPUs."""

import json
import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from math import fsum, lcm
from typing import TYPE_CHECKING

from ..compiler.placement import written
from ..spec.findings.diagnostics import Report
from ..spec.quantity import measured
from ..spec.record import Record, field, replace
from ..spec.schema import recipe as r
from .common import analyse_file, compile_file, findings, problem, show
from .screen import say
from .tables import Column, Row
from .tables import show as show_table

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan, TrainJob

UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}
BEYOND = 4
"""How often the GPUs are doubled in search of a number that meets a deadline."""
EXCLUDED = {
    **{name: name for name in ("ranks", "miniature", "output", "html", "provenance", "against")},
    **{name: name for name in ("until", "only", "why", "deep", "emit")},
    "since": "from",
}
"""Options that are about one plan, by their names in the arguments."""


class Point(Record):
    """The recipe on a number of GPUs.

    Attributes:
        sets: the changes that make it so, as `--set` takes them.
        seconds: of all phases with an estimate; with failures, if the clusters say how often.
        gpu_hours, price: of training; the price is None where a cluster has none.
        placements: stage → its placements, in order.
        longest: the stage that takes the most GPU-hours.
        refused: why there is no plan; "": there is one.
    """

    gpus: int
    sets: tuple[str, ...]
    seconds: float = 0.0
    gpu_hours: float = 0.0
    price: float | None = None
    placements: dict[str, tuple[str, ...]] = field(default_factory=dict)
    longest: str = ""
    refused: str = ""

    @property
    def cost(self) -> float:
        return self.gpu_hours if self.price is None else self.price


def refused(args: Namespace) -> bool:
    """Whether options exclude each other or cannot be read; reports it."""
    if args.deadline and not args.gpus:
        problem("--deadline needs numbers of GPUs to choose from", "add --gpus 64..512")
        return True
    if not args.gpus:
        return False
    for name, option in EXCLUDED.items():
        if getattr(args, name):
            problem(f"--gpus compares plans and takes no --{option}", f"remove --{option}")
            return True
    if _range(args.gpus) is None:
        problem(
            f"`--gpus {args.gpus}` is not a range", "write the fewest and the most: --gpus 64..512"
        )
        return True
    if args.deadline and _seconds(args.deadline) is None:
        problem(
            f"`--deadline {args.deadline}` is not a time",
            "write hours, days or weeks: 36h, 30d, 6w",
        )
        return True
    return False


def run(args: Namespace) -> int:
    analysis = analyse_file(args.file, variant=args.variant, sets=args.set)
    recipe = analysis.recipe
    if recipe is None or analysis.program is None:
        print(findings([analysis.report])) if args.json else show(analysis.report)
        return 1
    clusters = [of for of in recipe.clusters.values() if of.gpus]
    if not clusters:
        problem(
            "the recipe has no cluster of GPUs, of which --gpus changes the size",
            'declare one: cluster pod { gpus = 8 of "H100 80GB" }',
        )
        return 1
    each = lcm(*(of.gpus[0] for of in clusters if of.gpus))
    least, most = _range(args.gpus) or (0, 0)
    sizes = list(_sizes(least, most, each))
    if not sizes:
        near = -(-least // each) * each
        message = f"no number from {least} to {most} is a whole number of nodes of {each} GPUs"
        problem(message, f"the next is {near}: write --gpus {least}..{near}")
        return 1
    points = [_point(args, recipe, gpus) for gpus in sizes]
    deadline = _seconds(args.deadline) if args.deadline else None
    chosen = _cheapest(points, deadline)
    if args.json:
        _print_json(points, chosen, deadline)
    else:
        _table(points, chosen)
    if chosen is None:
        _none_meets(args, recipe, points, deadline)
        return 1
    if not args.json:
        _advice(chosen)
    return 0


def _range(text: str) -> tuple[int, int] | None:
    """The fewest and the most GPUs; None if the text names none."""
    found = re.fullmatch(r"(\d{1,7})(?:\.\.(\d{1,7}))?", text.strip())
    if found is None:
        return None
    least, most = int(found[1]), int(found[2] or found[1])
    return (least, most) if 0 < least <= most else None


def _seconds(text: str) -> float | None:
    """A time in seconds; None if the text is none."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?) *([hdw])", text.strip())
    return (float(found[1]) * UNITS[found[2]] or None) if found else None


def _sizes(least: int, most: int, each: int) -> Iterator[int]:
    """The numbers of GPUs to plan for: 1, 2, 3, 4, 6, 8, 12, … nodes, among which most batches can
    be divided, and the ends of the range, rounded to whole nodes within it."""
    found = {nodes * each for power in range(24) for nodes in (1 << power, 3 << power)}
    found |= {-(-least // each) * each, most // each * each}
    return (gpus for gpus in sorted(found) if least <= gpus <= most)


def _point(args: Namespace, recipe: r.Recipe, gpus: int) -> Point:
    """The recipe with every cluster of GPUs of that size, and the fastest placements there."""
    sets: list[str] = []
    for name, of in recipe.clusters.items():
        if of.gpus is None:
            continue
        sets.append(f"cluster.{name}.nodes={gpus // of.gpus[0]}")
        if of.mtbf:  # the more nodes, the more of them fail
            seconds = of.mtbf * of.nodes * of.gpus[0] / gpus
            sets.append(f"cluster.{name}.mtbf={max(seconds, 1):.0f} s")
    without = {name for name, of in recipe.clusters.items() if of.gpus is None}
    sets += [f"{at}.parallel=auto" for at, of in _trains(recipe) if of.cluster not in without]
    plan, report = compile_file(args.file, variant=args.variant, sets=[*args.set, *sets])
    point = Point(gpus=gpus, sets=tuple(sets))
    if plan is None:
        return replace(point, refused=_why(report))
    total = plan.totals
    if total is None or total.seconds is None:
        return replace(point, refused="there is no estimate for these GPUs")
    phases = [phase.seconds for phase in plan.phases if not phase.conditional and phase.seconds]
    failures = (total.expected_seconds or total.seconds) - total.seconds
    return replace(
        point,
        seconds=fsum(phases) + failures,
        gpu_hours=total.gpu_hours or 0.0,
        price=total.price,
        placements=_placements(plan),
        longest=_longest(plan),
    )


def _trains(recipe: r.Recipe) -> Iterator[tuple[str, r.Training]]:
    """The stages that train, by their paths in `--set`."""
    for name, stage in recipe.stages.items():
        if isinstance(stage, r.Training):
            yield f"stage.{name}", stage
        elif isinstance(stage, r.Rounds):
            inside = stage.stages.items()
            yield from ((f"rounds.{name}.{n}", s) for n, s in inside if isinstance(s, r.Training))


def _why(report: Report) -> str:
    """The first error, with its help."""
    first = next(each for each in report.ordered() if each.severity == "error")
    return f"{first.message} ({first.help})" if first.help else first.message


def _placements(plan: "Plan") -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for job in plan.trained():
        if job.stage and job.resources.device != "cpu":
            of, shown = found.setdefault(job.stage, []), _placement(job)
            of += [] if shown in of else [shown]
    return {stage: tuple(of) for stage, of in found.items()}


def _longest(plan: "Plan") -> str:
    hours: dict[str, float] = {}
    for job in plan.trained():
        hours[job.stage or job.id] = hours.get(job.stage or job.id, 0.0) + (job.cost.gpu_hours or 0)
    return max(hours, key=lambda stage: hours[stage])


def _placement(job: "TrainJob") -> str:
    """A placement as a spec writes it, with its recomputation."""
    mesh = job.resources
    names = ("replicate", "tensor", "context", "pipeline", "interleave", "expert")
    degrees = {name: getattr(mesh, name) for name in names if getattr(mesh, name) > 1}
    if mesh.pipeline > 1:
        split = ("first_less", "last_less")
        degrees |= {name: getattr(mesh, name) for name in split if getattr(mesh, name) != 1}
    elif (micro := job.torchtitan["training"]["local_batch_size"]) > 1:
        degrees["micro_batch"] = micro
    mode = (job.torchtitan["activation_checkpoint"] or {}).get("mode", "none")
    shown = written(degrees)
    return shown if mode == "none" else f"{shown} recompute {mode}"


def _cheapest(points: Sequence[Point], deadline: float | None) -> Point | None:
    """The cheapest point that meets the deadline, of equal ones the fastest."""
    meet = [p for p in points if not p.refused and (deadline is None or p.seconds <= deadline)]
    return min(meet, key=lambda point: (point.cost, point.seconds), default=None)


def _table(points: Sequence[Point], chosen: Point | None) -> None:
    priced = any(point.price is not None for point in points)
    names = ("GPUs", "days", "GPU-hours", *(["price"] if priced else []))
    rows: list[Row] = []
    for point in points:
        texts = [f"{point.gpus:,}"]
        if point.refused:
            texts += ["" for _ in names[1:]]
        else:
            texts += [_days(point.seconds), f"{point.gpu_hours:,.0f}"]
            if priced:
                texts.append("" if point.price is None else f"{point.price:,.0f}")
        placed = point.refused or ", then ".join(point.placements[point.longest])
        rows.append(Row((*texts, placed), "bold" if point is chosen else ""))
    longest = {point.longest for point in points if not point.refused}
    columns = [*(Column(name, right=True) for name in names)]
    show_table(
        [*columns, Column(" ".join(["placement", *(["of"] if longest else []), *longest]))], [rows]
    )


def _days(seconds: float) -> str:
    return measured(seconds / UNITS["d"])


def _print_json(points: Sequence[Point], chosen: Point | None, deadline: float | None) -> None:
    shown = {
        "deadline_seconds": deadline,
        "chosen": None if chosen is None else chosen.gpus,
        "points": [
            {"gpus": of.gpus, "sets": list(of.sets), "refused": of.refused}
            if of.refused
            else {
                "gpus": of.gpus,
                "seconds": of.seconds,
                "gpu_hours": of.gpu_hours,
                "price": of.price,
                "placements": {stage: list(each) for stage, each in of.placements.items()},
                "sets": list(of.sets),
            }
            for of in points
        ],
    }
    print(json.dumps(shown, indent=2, ensure_ascii=False))


def _none_meets(
    args: Namespace, recipe: r.Recipe, points: Sequence[Point], deadline: float | None
) -> None:
    """Says that no point meets the deadline, and the nearest number of GPUs or time that does."""
    fastest = min((p for p in points if not p.refused), key=lambda p: p.seconds, default=None)
    if fastest is None or deadline is None:
        problem(f"the recipe cannot be placed on any of these: {points[-1].refused}")
        return
    hours = -(-fastest.seconds // 3600)
    later = f"allow {f'{-(-hours // 24):.0f}d' if hours > 72 else f'{hours:.0f}h'}"
    gpus = points[-1].gpus
    for power in range(1, BEYOND + 1):
        more = _point(args, recipe, gpus << power)
        if not more.refused and more.seconds <= deadline:
            later += f", or take {more.gpus:,} GPUs, which need {_days(more.seconds)} days"
            break
    problem(
        f"no number of GPUs from {args.gpus} meets the deadline of {args.deadline}: the fastest is "
        f"{fastest.gpus:,}, with {_days(fastest.seconds)} days",
        later,
    )


def _advice(chosen: Point) -> None:
    """What to write into the spec for the chosen number of GPUs."""
    words = [each.partition("=") for each in chosen.sets]
    said = [f"{path.partition('.')[2]} = {value}" for path, _, value in words]
    nodes = [each for each in said if ".nodes" in each]
    auto = [each for each in said if each.endswith("= auto")]
    cost = f"{chosen.gpu_hours:,.0f} GPU-hours" if chosen.price is None else f"{chosen.price:,.0f}"
    say(
        f"cheapest: {chosen.gpus:,} GPUs, {_days(chosen.seconds)} days, {cost}: "
        f"write {', '.join([*nodes, *auto])}",
        rest="  ",
    )
