"""`etude report`: shows the results of runs, as tables, as Markdown or as a page."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .common import open_run, problem, remark
from .report_tables import Table, compared, tables
from .screen import clean
from .tables import Column, Row, show

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan
    from ..runtime.run_folder.store import Store

MOST_RUNS = 12
"""The most runs that are compared: no more columns, and no more curves, can be told apart."""


class Run(NamedTuple):
    """A run to report on, under a name that no other has."""

    name: str
    plan: "Plan"
    store: "Store"


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude report` to its parser."""
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="FOLDER",
        help="run folders; several are compared with the first",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="as JSON")
    how.add_argument("--markdown", action="store_true", help="as Markdown")
    how.add_argument("--html", metavar="FILE", help="write one HTML page, with curves and samples")


def run(args: Namespace) -> int:
    from ..runtime.errors import RunError

    runs = _opened(args.folders)
    if runs is None:
        return 1
    try:
        if args.html:
            return 2 if refused(Path(args.html)) else write_page(runs, Path(args.html))
        found = {each.name: gathered(each) for each in runs}
        if args.json:
            print(json.dumps(_as_json(runs, found), indent=2))
        elif args.markdown:
            print(_markdown(runs, found), end="")
        else:
            _show(runs, found)
    except RunError as reason:
        problem(reason.message, reason.help)
        return 1
    except (OSError, ValueError, KeyError) as reason:
        problem(
            f"the results in {', '.join(args.folders)} cannot be read: {reason}",
            "remove the folder of the result in artifacts/ and run the recipe again",
        )
        return 1
    return 0


def _opened(folders: Sequence[str]) -> list[Run] | None:
    """The runs in folders; None after a message, if there is one that cannot be read."""
    if len(folders) > MOST_RUNS:
        problem(f"{len(folders)} runs are too many to compare", f"name at most {MOST_RUNS}")
        return None
    found = []
    for folder in folders:
        opened = open_run(folder)
        if opened is None:
            return None
        found.append((folder, *opened))
    names = _names([(folder, plan) for folder, plan, _ in found])
    return [Run(name, plan, store) for name, (_, plan, store) in zip(names, found, strict=True)]


def _names(runs: "Sequence[tuple[str, Plan]]") -> list[str]:
    """A name for each run: the shortest kind of name that tells them apart."""
    kinds = [
        [plan.variant or plan.recipe for _, plan in runs],
        [f"{plan.recipe} {plan.variant or ''}".strip() for _, plan in runs],
        [folder.rstrip("/").rpartition("/")[2] for folder, _ in runs],
        [folder for folder, _ in runs],
        [f"{number}: {folder}" for number, (folder, _) in enumerate(runs, 1)],
    ]
    return next(names for names in kinds if len(set(names)) == len(names))


def gathered(run: Run) -> dict[str, Any]:
    """The results of a run, and what they cost."""
    from ..runtime.reporting.costs import at_work, costs
    from ..runtime.reporting.results import gather
    from ..runtime.run_folder.outcomes import outcomes, results

    begun = outcomes(run.plan, run.store)
    found = gather(run.plan, run.store, begun, results(run.plan, run.store))
    return found | {"costs": costs(run.plan, run.store, begun, at_work(run.plan, run.store))}


def _differences(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """How each further run's plan differs from the first's, as `etude diff` says it."""
    from ..compiler.plan.difference import difference
    from .diff import paragraphs

    first, *others = runs
    for other in others:
        stages = {**first.plan.stages, **other.plan.stages}
        rows = {name: stage.rows for name, stage in stages.items()}
        told = paragraphs(difference(first.plan, other.plan), rows)
        yield other.name, "\n".join(each.first + each.text for each in told)


def _as_json(runs: Sequence[Run], found: Mapping[str, Any]) -> Any:
    """One run by itself; several by their names, with the differences of their plans."""
    if len(runs) == 1:
        return found[runs[0].name]
    from ..compiler.plan.difference import difference

    first, *others = runs
    differences = {
        other.name: difference(first.plan, other.plan).model_dump(mode="json") for other in others
    }
    return {"runs": found, "differences": differences}


def _show(runs: Sequence[Run], found: Mapping[str, Any]) -> None:
    """Prints the tables of one run, or those that compare several."""
    if len(runs) > 1:
        for name, told in _differences(runs):
            print(f"{name}, compared with {runs[0].name}:\n{told}\n")
        for table in compared(found):
            _table(*table)
        return
    (one,) = found.values()
    shown = tables(one)
    for table in shown:
        _table(*table)
        if table.title.startswith("Speed"):
            _profiles(one["stages"])
    if not shown:
        print("nothing to report yet")


def show_runs(runs: Sequence[Run]) -> None:
    """Prints what came of several runs, side by side."""
    _show(runs, {each.name: gathered(each) for each in runs})


def show_table(table: Table) -> None:
    """Prints a table."""
    _table(*table)


def _profiles(stages: Sequence[Mapping[str, Any]]) -> None:
    for row in stages:
        for path in row.get("profiles", ()):
            print(f"profile of {row['stage']}: {path}")


def _table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    best: Sequence[frozenset[str]] = (),
) -> None:
    """Prints a table; the best values have a star."""
    table = Table(title, columns, rows, best)
    print(title + ("; * is the best" if any(best) else ""))
    show(
        [Column(name, right=table.right(name)) for name in columns],
        [[Row([text + " *" * mark for text, mark in row]) for row in table.cells()]],
    )


def _markdown(runs: Sequence[Run], found: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    from .status_watch import Look, headline

    parts = []
    for each in runs:
        look = Look(each.plan, each.store)
        state = headline(look.now(), look.launch)
        title = each.plan.title if len(runs) == 1 else f"{each.name}: {each.plan.title}"
        parts.append(f"# {_plain(title)}\n\n{_plain(each.store.name)}: {_plain(state)}\n")
    if len(runs) > 1:
        parts += [
            f"## {_plain(name)}, compared with {_plain(runs[0].name)}\n\n```text\n{told}\n```\n"
            for name, told in _differences(runs)
        ]
    shown = compared(found) if len(runs) > 1 else tables(found[runs[0].name])
    for table in shown:
        rows = [[f"**{_plain(t)}**" if b else _plain(t) for t, b in row] for row in table.cells()]
        line = ["---:" if table.right(name) else "---" for name in table.columns]
        grid = [[_plain(name) for name in table.columns], line, *rows]
        text = "\n".join(f"| {' | '.join(row)} |" for row in grid)
        parts.append(f"## {_plain(table.title)}\n\n{text}\n")
    return "\n".join(parts)


def _plain(text: str) -> str:
    """The text, so that Markdown shows it as it stands."""
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, "\\" + sign)
    return clean(text.replace("\n", " "))


def refused(page: Path) -> bool:
    """Whether a page cannot be a file of this name; reports it."""
    if page.is_dir():
        problem(f"{page} is a folder", f"name a file, such as {page / 'report.html'}")
    return page.is_dir()


def write_page(runs: Sequence[Run], to: Path, more: Sequence[Table] = ()) -> int:
    """Writes the page; returns the exit code.

    Args:
        more: tables about all runs, besides those that compare them.
    """
    from ..pages.report import Told, report
    from ..runtime.reporting.story import story
    from .status_watch import Look, headline

    told, found = [], {}
    for each in runs:
        look = Look(each.plan, each.store)
        state = headline(look.now(), look.launch)
        found[each.name] = story(each.plan, each.store, len(runs))
        told.append(
            Told(each.name, each.plan, state, found[each.name], _of_page(tables(found[each.name])))
        )
    side_by_side = _of_page([*more, *(compared(found) if len(runs) > 1 else ())])
    text = report(told, side_by_side, dict(_differences(runs)))
    try:
        to.write_text(text, encoding="utf-8")
    except OSError as reason:
        problem(f"{to} cannot be written: {(reason.strerror or '').lower()}")
        return 1
    remark(f"wrote {to}")
    return 0


def _of_page(found: Sequence[Table]) -> list[dict[str, Any]]:
    """Tables as the page takes them: `title`, `columns` (name, whether of numbers), and `rows` of
    (text, whether it is the best)."""
    return [
        {
            "title": table.title,
            "columns": [(name, table.right(name)) for name in table.columns],
            "rows": list(table.cells()),
        }
        for table in found
    ]
