"""`etude verify PATH…`: compares the figures that specs claim with their plans."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from ..spec.json.json_form import MARK
from ..spec.quantity import amount, counted
from . import common
from .common import analyse_file, problem
from .screen import clean, say, width
from .tables import Column, Row, show


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude verify` to its parser."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="specs, and folders of specs")
    parser.add_argument(
        "--sources", action="store_true", help="list the assumed values, with their reasons"
    )
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: Namespace) -> int:
    files = list(_specs(args.paths))
    if not files:
        problem(f"there are no specs in {', '.join(args.paths)}", "name files or folders")
        return 1
    rows: list[dict[str, Any]] = []
    sources: list[dict[str, Any]] = []
    broken: list[str] = []
    for file in files:
        found = _verified(file)
        if found is None:
            broken.append(str(file))
        else:
            rows += found[0]
            sources.append(found[1])
    failed = [row for row in rows if not row["holds"] and not row["contradicted"]]
    if args.json:
        shown = {"claims": rows, "failed": len(failed), "broken": broken, "sources": sources}
        print(json.dumps(shown, indent=2, ensure_ascii=False))
    elif args.markdown:
        print("\n".join(_markdown(rows)))
    else:
        if rows:
            _table(rows)
        for line in _sources(sources, listed=args.sources):
            say(line, rest="    ")
        say(_summary(rows, failed, len(files), broken), rest="  ")
    return 1 if failed or broken else 0


def _specs(paths: list[str]) -> Iterator[Path]:
    """The given files, and in folders the specs that have their own recipe."""
    for name in paths:
        path = Path(name)
        if path.is_dir():
            files = sorted([*path.rglob("*.etude"), *path.rglob("*.json")])
            yield from (file for file in files if _has_recipe(file))
        else:
            yield path


def _has_recipe(file: Path) -> bool:
    """Whether a file is a complete spec, as far as can be told without parsing."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if file.suffix == ".json":
        return f'"{MARK}"' in text and '"name"' in text
    return "recipe " in text


def _verified(file: Path) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """The claims of a spec, including those that do not hold, and the sources of its values; None
    after reporting an error."""
    from ..compiler.passes import CLAIMED
    from ..compiler.plan.sources import count, sourced_values

    found = analyse_file(str(file), passes=CLAIMED, files=False)
    recipe = found.recipe
    if recipe is None or found.program is None:
        common.show(found.report)
        return None
    name = recipe.header.name
    values = sourced_values(recipe)
    return [
        {
            "recipe": name,
            "file": str(file),
            "claim": claim.what,
            "claimed": claim.claimed,
            "computed": claim.computed,
            "off": claim.off,
            "tolerance": claim.tolerance,
            "cite": claim.cite,
            "because": claim.because,
            "contradicted": claim.contradicted,
            "holds": claim.holds,
        }
        for claim in found.claims
    ], {
        "recipe": name,
        "file": str(file),
        "values": len(values),
        "cited": count(recipe).cited,
        "assumed": [
            {
                "value": of.name,
                "why": of.source.text,
                "file": str(of.place.source.name),
                "line": of.place.line,
            }
            for of in values
            if of.source is not None and of.source.assumed
        ],
    }


def _sources(sources: list[dict[str, Any]], *, listed: bool) -> Iterator[str]:
    """How many values of each recipe are cited and assumed; if `listed`, also which are assumed."""
    from ..compiler.plan.plan import Sources
    from ..compiler.plan.sources import in_words

    for of in sources:
        counts = Sources(values=of["values"], cited=of["cited"], assumed=len(of["assumed"]))
        yield f"{of['recipe']}: {in_words(counts)}"
        if listed:
            for each in of["assumed"]:
                yield f"  {each['file']}:{each['line']}: {each['value']}: {clean(each['why'])}"


def _summary(rows: list[dict], failed: list[dict], files: int, broken: list[str]) -> str:
    holding = sum(row["holds"] for row in rows)
    text = f"{counted(len(rows), 'claims')} in {counted(files, 'specs')}, {holding} hold"
    if failed:
        text += f", {len(failed)} do not"
    if contradicted := len(rows) - holding - len(failed):
        text += f", {contradicted} contradicted by their own source"
    return text + (f"; {counted(len(broken), 'specs')} cannot be planned" if broken else "")


COLUMNS = ("recipe", "claim", "claimed", "computed", "off by", "within", "source", "")
NUMBERS = ("claimed", "computed", "off by", "within")


def _cells(row: dict[str, Any]) -> list[str]:
    verdict, why = _verdict(row)
    off = round(row["off"], 4) or 0  # never -0.00%
    return [
        row["recipe"],
        row["claim"],
        amount(row["claimed"]),
        amount(row["computed"]),
        f"{off:+.2%}",
        f"{row['tolerance']:.2%}",
        row["cite"] or "",
        f"{verdict}{'; ' if row['holds'] else ': '}{why}" if why else verdict,
    ]


def _verdict(row: dict[str, Any]) -> tuple[str, str]:
    """The verdict on a claim, and its author's comment."""
    if row["contradicted"]:
        return "contradicted", row["contradicted"]
    if not row["holds"]:
        return "does not hold", ""
    return "holds", f"wide tolerance: {row['because']}" if row["because"] else ""


def _markdown(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | --- | --- |"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(row)) + " |"


def _table(rows: list[dict[str, Any]]) -> None:
    columns = [Column(name, right=name in NUMBERS, head=name == "recipe") for name in COLUMNS]
    shown = [(row, _cells(row)) for row in rows]
    sections = [shown]
    if width() is not None:  # the verdict next to the numbers, the rest below
        columns[-2:] = [Column(""), Column("source", below=True), Column("note", below=True)]
        shown = [(r, [*texts[:6], _verdict(r)[0], texts[6], _verdict(r)[1]]) for r, texts in shown]
        sections = [list(own) for _, own in groupby(shown, key=lambda each: each[0]["file"])]
    styles = {"contradicted": "yellow", "does not hold": "red"}
    show(
        columns,
        [
            [Row(texts, styles.get(_verdict(row)[0], "")) for row, texts in section]
            for section in sections
        ],
    )
