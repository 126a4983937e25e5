"""Shared by several commands: loading specs, showing findings, deciding about colours."""

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spec.findings.diagnostics import Report

if TYPE_CHECKING:
    from ..compiler.driver import Analysis
    from ..compiler.passes import Pass
    from ..compiler.plan.plan import Plan
    from ..compiler.program import Scheduled
    from ..runtime.run_folder.store import Store


def analyse_file(
    file: str,
    *,
    ranks: int | None = None,
    variant: str | None = None,
    sets: Sequence[str] = (),
    cluster: str = "",
    added: str = "",
    files: bool = True,
    each_variant: bool = False,
    passes: "Sequence[Pass] | None" = None,
) -> "Analysis":
    """The analysis of a spec file, changed as requested.

    Args:
        cluster: a cluster block to declare in addition.
        added: other blocks to declare in addition, such as variants.
        files: check the files that the spec names.
        each_variant: check every variant as well.
        passes: the passes to run; None for all.
    """
    from ..compiler.driver import analyse
    from ..compiler.passes import CHECKS
    from ..spec.load import read

    path = Path(file)
    sources = read(path)
    for name, text in (("this machine", cluster), ("--over", added)):
        sources = sources.more(name, text) if text else sources
    found = analyse(
        sources,
        variant=variant or "",
        sets=sets,
        ranks=ranks,
        root=path.parent if files else None,
        each_variant="always" if each_variant else "never",
        passes=passes or CHECKS,
    )
    if files and found.program is not None and _in_stores(found.program):
        from ..compiler.files.remote_files import remote_files

        remote_files(found.program, found.report)
    return found


def _in_stores(program: "Scheduled") -> bool:
    """Whether a spec has data that only a URL can reach."""
    datasets = program.recipe.datasets.values()
    return any("://" in pattern for each in datasets for pattern in each.files or ())


def compile_file(
    file: str,
    ranks: int | None = None,
    *,
    variant: str | None = None,
    sets: Sequence[str] = (),
    miniature: bool = False,
    cluster: str = "",
    added: str = "",
) -> tuple["Plan | None", Report]:
    """The plan of a spec file, changed as requested, and the findings.

    Args:
        miniature: plan the recipe's miniature, which runs in one process on this machine, on other
            data than the recipe's: claims and files are not checked.
        cluster: a cluster block to declare in addition.
        added: other blocks to declare in addition, such as variants.
    """
    from ..compiler.driver import compile, compile_miniature
    from ..compiler.passes import SOUND

    changes: Any = {"variant": variant, "sets": sets, "cluster": cluster, "added": added}
    if miniature:
        found = analyse_file(file, passes=SOUND, files=False, **changes)
        compiled = compile_miniature(found)
    else:
        found = analyse_file(file, ranks=ranks, **changes)
        compiled = compile(found)
    return (compiled.plan if compiled else None), found.report


def part_of(plan: "Plan", args: Namespace) -> "Plan | None":
    """The part of a plan that `--until`, `--from` and `--only` select; None, after a message, if
    the plan has no such stage."""
    from ..compiler.plan import part

    if plan.part is not None and (args.until or args.only or args.since):
        problem(
            f"the plan is already a part of a plan:{part.options(plan)}",
            "give the spec, or plan again without these options",
        )
        return None
    if args.only and (args.until or args.since):
        other = "--until" if args.until else "--from"
        problem(
            f"--only is one stage, so {other} cannot say more",
            f"leave out {other}, or --only for all stages between --from and --until",
        )
        return None
    try:
        return part.part_of(plan, until=args.until, only=args.only, since=args.since)
    except part.NoSuchStage as reason:
        problem(reason.message, reason.help)
        return None


ALL = "all"
"""Stands for a recipe and all of its variants, as the name of one."""


def is_plan(path: Path) -> bool:
    """Whether a JSON file is a plan rather than a spec."""
    try:
        with path.open("rb") as file:
            return path.suffix == ".json" and b'"etude_plan"' in file.read()
    except OSError:
        return False


def open_run(name: str) -> "tuple[Plan, Store] | None":
    """The plan and the store of a run folder; None, after a message, if it is not one."""
    from ..compiler.plan.plan_schema import PlanError, read_plan
    from ..runtime.errors import RunError
    from ..runtime.run_folder.store import Store

    try:
        folder = seen(name)
    except RunError as reason:
        problem(reason.message, reason.help)
        return None
    if not Store(folder).exists():
        variants = sorted(folder.glob("variants/*"))
        others = [Store(each).name for each in variants if Store(each).exists()]
        if others:
            problem(f"only variants were run in {name}", f"name one of them: {', '.join(others)}")
        else:
            problem(f"{name} is not a run folder", run_folder_of(folder))
        return None
    try:
        return read_plan(folder / "plan.json"), Store(folder)
    except (PlanError, RunError) as reason:
        problem(reason.message, reason.help)
        return None


def run_folder_of(path: Path) -> str:
    """Advice to someone who named something other than a run folder: that of the spec, if it is
    one."""
    if path.suffix in (".etude", ".json") and path.is_file():
        from ..spec.load import load

        recipe = load(path, Report())
        if recipe is not None:
            home = Path("runs") / recipe.header.name
            if home.is_dir():
                return f"it is a spec; its run folder here is {home}"
            return f"it is a spec, of which there is no run here: `etude run {path}` starts one"
    return "name a folder made by `etude run`: runs/NAME"


def seen(name: str) -> Path:
    """The folder for viewing a run: for one in a store, a local folder that shows it.

    Raises: RunError: the store cannot be reached.
    """
    if "://" not in name:
        return Path(name)
    from ..runtime.stores import views

    return views.seen(name)


def too_long(counts: Mapping[str, int]) -> str:
    """What happened to records that are longer than their `limit`, in words.

    Args:
        counts: `limit`, `dropped` and `truncated`.
    """
    said = [
        f"{count:,} record{'' if count == 1 else 's'} {what}"
        for count, what in ((counts["dropped"], "dropped"), (counts["truncated"], "truncated"))
        if count
    ]
    limit = f"{counts['limit']:,} tokens"
    return f"{' and '.join(said) or 'no record dropped'}: more than {limit}"


def show(report: Report, *, notes: bool = False) -> None:
    """Prints findings to standard error; notes only if requested, as `etude check` does."""
    found = [d for d in report.ordered() if notes or d.severity != "note"]
    if found:
        from ..spec.findings.render import render_all
        from .screen import colors, width

        text = render_all(found, color=colors(sys.stderr), columns=width(sys.stderr))
        print(text, file=sys.stderr)


def findings(reports: list[Report]) -> str:
    """Findings as one JSON text."""
    from .formats import as_json  # imported only if needed: checking a spec may take 0.1 s

    return as_json(reports)


def remark(text: str) -> None:
    """Tells someone at a terminal that all went well, on standard error; a script is told by the
    exit code alone."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def problem(message: str, help: str = "") -> None:
    """Prints one message to standard error, formatted as a finding without a place."""
    from ..spec.findings.paragraphs import wrapped
    from .screen import clean, colors, width

    message, help = clean(message), clean(help)  # which may quote what others have written
    bold, red, off = ("\033[1m", "\033[1;31m", "\033[0m") if colors(sys.stderr) else ("", "", "")
    columns = width(sys.stderr)
    first, *more = wrapped(f"error: {message}", columns, rest="  ")
    print(f"{red}error{off}: {bold}{first.removeprefix('error: ')}{off}", file=sys.stderr)
    for line in more:
        print(f"{bold}{line}{off}", file=sys.stderr)
    if help:
        for line in wrapped(help, columns, first="  = help: ", rest=" " * 10):
            print(line, file=sys.stderr)
