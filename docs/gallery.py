"""Writes the gallery of published recipes, docs/gallery.md: `python docs/gallery.py FOLDER`."""

import sys
from pathlib import Path

from etude.cli.common import compile_file, problem, show
from etude.cli.plan_page import texts, variants
from etude.pages.gallery import gallery
from etude.pages.page import page

PUBLISHED = Path(__file__).resolve().parents[1] / "examples" / "published"
HOME = "index.html"


def main(arguments: list[str]) -> int:
    """Writes the pages of the specs in a folder and the page that links to them; the exit code."""
    if not 1 <= len(arguments) <= 2 or arguments[0].startswith("-"):
        problem(
            "which folder shall the gallery go into?",
            "python docs/gallery.py FOLDER, and after it a folder of specs in place of "
            "examples/published",
        )
        return 2
    out, specs = Path(arguments[0]), Path(arguments[1] if arguments[1:] else PUBLISHED)
    files = sorted(specs.glob("*.etude"))
    if not files:
        problem(f"there are no specs in {specs}", "name a folder with *.etude")
        return 1
    pages, plans = {}, {}
    for file in files:
        plan, report = compile_file(str(file), None)
        others = None if plan is None else variants(plan, str(file))
        if plan is None or others is None:
            show(report)
            return 1
        name = f"{file.stem}.html"
        plans[name] = plan
        pages[name] = page(plan, texts(file, plan, *others.values()), others, home=HOME)
    pages[HOME] = gallery("Published recipes", plans)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as reason:
        problem(f"{out} cannot be written: {(reason.strerror or '').lower()}")
        return 1
    print(f"{out / HOME} leads to {len(plans)} recipes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
