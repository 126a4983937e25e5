"""`etude diff A B` and `etude plan SPEC --against A`: what would change."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..compiler.as_written import at_most, counted, measured
from . import options
from .common import compile_file, is_plan, open_run, problem, show
from .screen import Ink, clean, say

if TYPE_CHECKING:
    from ..compiler.plan.difference import Changed, Difference, JobDifference, WentBack, What
    from ..compiler.plan.plan import Plan

SIGNS: "dict[What, str]" = {"kept": "=", "again": "~", "new": "+", "gone": "-"}
STYLES = {"kept": "dim", "again": "yellow", "new": "green", "gone": "red"}
ORDER: "tuple[What, ...]" = ("again", "new", "gone", "kept")
WORDS = {"kept": "kept", "again": "rerun", "new": "new", "gone": "gone"}


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude diff` to its parser."""
    parser.add_argument("old", metavar="OLD", help="a spec, a plan or a run folder")
    parser.add_argument("new", metavar="NEW", help="the same")
    parser.add_argument("--json", action="store_true", help="as JSON")
    options.detailed_exitcode(parser)


def run(args: Namespace) -> int:
    old = opened(args.old)
    new = opened(args.new) if old else None
    if old is None or new is None:
        return 1
    return compare(old, new, args)


def compare(old: "tuple[Plan, Any]", new: "tuple[Plan, Any]", args: Namespace) -> int:
    """Shows how the new plan differs; returns the exit code.

    Args:
        old, new: plans, each with the store of its run folder if it comes from one.
    """
    from ..compiler.plan.difference import difference

    done = None
    for _, store in (new, old):
        if store is not None and done is None:
            finished = _finished(store)
            done = {job.id: job.key in finished for job in new[0].jobs}
    found = difference(old[0], new[0], done)
    found = found.model_copy(update={"went_back": list(_went_back(old, new))})
    if args.json:
        print(found.model_dump_json(indent=2))
    else:
        stages = {**old[0].stages, **new[0].stages}
        _print(found, {name: stage.rows for name, stage in stages.items()})
    return 2 if args.detailed_exitcode and found else 0


def opened(name: str) -> "tuple[Plan, Any] | None":
    """The plan of a spec, plan or run folder, with the folder's store; None after reporting."""
    from ..compiler.plan.plan_schema import PlanError, read_plan

    path = Path(name)
    if path.is_dir() or "://" in name:
        return open_run(name)
    if is_plan(path):
        try:
            return read_plan(path), None
        except PlanError as reason:
            problem(reason.message, reason.help)
            return None
    plan, report = compile_file(name, None)
    if plan is None:
        show(report)
        return None
    return plan, None


def _finished(store: Any) -> set[str]:
    """Keys of the plans' jobs with results in a run folder."""
    return {
        (event["detail"] or {}).get("plan", "")
        for event in store.events()
        if event["event"] in ("finished", "kept")
        and (store.folder / "artifacts" / event["key"]).is_dir()
    }


def _went_back(*of: "tuple[Plan, Any]") -> "Iterator[WentBack]":
    """The rollbacks of the jobs of run folders, each once."""
    from ..compiler.plan.difference import WentBack

    for plan, store in of:
        jobs = {job.id for job in plan.jobs}
        told = {}
        for event in store.events() if store else ():
            if event["event"] == "rollback" and event["job"] in jobs:
                told[event["job"], event["detail"]["number"]] = event["detail"]
        for (job, _), detail in sorted(told.items()):
            yield WentBack(run=str(store.folder), job=job, step=detail["step"], to=detail["to"])


class Paragraph(NamedTuple):
    """A paragraph, and the prefixes of its first line and of the others."""

    text: str
    first: str = ""
    rest: str = "  "


def _print(found: "Difference", rows: "Mapping[str, str]") -> None:
    for each in paragraphs(found, rows, Ink()):
        say(each.text, first=each.first, rest=each.rest, painted=True)


def paragraphs(
    found: "Difference",
    rows: "Mapping[str, str]",
    ink: Callable[[str, str], str] = lambda text, style: text,
) -> Iterator[Paragraph]:
    """The difference in words: a paragraph for each stage, each change, and the whole.

    Args:
        rows: stage → what its batches count, for both plans.
        ink: paints a text in a style.
    """
    for name, jobs in _stages(found).items():
        what: What = next(each for each in ORDER if any(job.what == each for job in jobs))
        head = ink(f"{SIGNS[what]} {clean(name)}", STYLES[what])
        yield Paragraph(f"{head}: {_line(what, jobs, _bound(rows, name))}", rest=" " * 4)
        for change in _changes(jobs):
            place = "  " + ink(f"({clean(change.place)})", "dim") if change.place else ""
            old, new = clean(change.old or "nothing"), clean(change.new or "nothing")
            yield Paragraph(f"{clean(change.name)}: {old} → {new}{place}", " " * 4, " " * 6)
        because = _because(found, name, jobs)
        if because:
            yield Paragraph(f"because of {', '.join(because)}", " " * 4, " " * 6)
    for back in found.went_back:
        yield Paragraph(
            f"{ink('↶ ' + clean(back.job), 'yellow')}: went back from step {back.step:,} to step "
            f"{back.to:,} at a spike, past the data between, in {clean(back.run)}",
            rest=" " * 4,
        )
    counts = [f"{found.count(what)} {WORDS[what]}" for what in SIGNS]
    done = sum(bool(job.done) for job in found.jobs)
    known = any(job.done is not None for job in found.jobs)
    yield Paragraph(
        ("" if found else "No difference. ")
        + ", ".join(counts)
        + (f"; {done} of {len(found.jobs) - found.count('gone')} done" if known else "")
        + (f": {_cost(found, rows)}" if found.steps else "")
    )


def _stages(found: "Difference") -> "dict[str, list[JobDifference]]":
    """The jobs that differ or were renamed, by stage; jobs without a stage separately."""
    stages: dict[str, list[JobDifference]] = {}
    for job in found.jobs:
        if not job.conditional:
            stages.setdefault(job.stage or job.job, []).append(job)
    return {
        name: jobs
        for name, jobs in stages.items()
        if any(job.what != "kept" or job.was or job.changed for job in jobs)
    }


def _changes(jobs: "list[JobDifference]") -> "list[Changed]":
    """The changed values of a stage, each once; inherited ones are shown at the stage before."""
    changed = {(each.name, each.new): each for job in jobs for each in job.changed}
    if all(job.what == "kept" for job in jobs):
        return list(changed.values())
    placed = [each for each in changed.values() if each.place]
    inherited = any(job.because for job in jobs)
    return placed or (
        [] if inherited and all(_of_stage(c) for c in changed.values()) else list(changed.values())
    )


def _of_stage(change: "Changed") -> bool:
    return (
        "." not in change.name
        and "[" not in change.name
        and not (change.old or "").replace(",", "").isdigit()
    )


def _because(found: "Difference", name: str, jobs: "list[JobDifference]") -> list[str]:
    """The other stages, or jobs without one, that cause the stage to be rerun."""
    stage_of = {job.job: job.stage or job.job for job in found.jobs}
    names = [stage_of.get(each, each) for job in jobs for each in job.because]
    return [each for each in dict.fromkeys(names) if each != name]


def _line(what: str, jobs: "list[JobDifference]", bound: str) -> str:
    """A stage's outcome in one line.

    Args:
        bound: the prefix of its tokens.
    """
    changed = [job for job in jobs if job.what != "kept"]
    kinds = dict.fromkeys(job.kind for job in (changed or jobs))
    parts = [f"{', '.join(kinds)} {WORDS[what]}"]
    kept = len(jobs) - len(changed)
    if changed and kept:
        parts.append(f"{kept} of {len(jobs)} jobs kept")
    if not changed and any(job.was for job in jobs):
        parts.append("was " + ", ".join(job.was for job in jobs if job.was))
    if not changed and any(job.changed for job in jobs):
        parts.append("the same result up to rounding")
    if changed and all(job.done for job in changed):
        parts.append("done")
    steps = sum(job.steps for job in changed)
    if steps:
        parts.append(
            f"{counted(steps, 'steps')}, {bound}{counted(sum(j.tokens for j in changed), 'tokens')}"
        )
    hours = [job.gpu_hours for job in changed if job.gpu_hours is not None]
    if hours:
        parts.append(f"{measured(sum(hours))} GPU-hours")
    return ", ".join(parts)


def _bound(rows: "Mapping[str, str]", *stages: str) -> str:
    """The prefix of the tokens of these stages; what does not train has none."""
    return at_most(*(rows[stage] for stage in stages if stage in rows))


def _cost(found: "Difference", rows: "Mapping[str, str]") -> str:
    made = [j.stage or "" for j in found.jobs if j.steps and j.what in ("again", "new")]
    bound = _bound(rows, *made)
    parts = [f"{bound}{counted(found.tokens, 'tokens')}, {counted(found.steps, 'steps')}"]
    if found.gpu_hours is not None:
        parts.append(f"{measured(found.gpu_hours)} GPU-hours")
    if found.price is not None:
        parts.append(f"price {found.price:,.0f}")
    return ", ".join(parts) + " to train"
