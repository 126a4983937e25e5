"""Writes docs/errors.md from the table of codes in spec/codes.py: `python docs/generate.py`."""

from importlib import import_module
from pathlib import Path

# By name: pyright takes the folder `etude` of the tree for the whole package.
CODES: dict[str, tuple[str, str]] = import_module("etude.spec.codes").CODES

PAGE = Path(__file__).with_name("errors.md")

SECTIONS = {
    "E10": "Text",
    "E11": "Numbers",
    "E12": "Files",
    "E20": "Values",
    "E21": "Mixtures, placements and schedules",
    "E30": "Blocks",
    "E31": "Attributes, gates and expectations",
    "E32": "Stages in rounds, and filters",
    "E40": "Stages",
    "E41": "Optimizers, tokenizers, clusters and models",
    "E42": "Averages, evaluations, data sets and tokenizers",
    "E43": "Placements",
    "E44": "Schedules in steps",
    "E45": "Batches and sequences on ranks",
    "E46": "Expectations",
    "E50": "Rounds",
    "E51": "Dialogs, preferences and judges",
    "E52": "Choices, draws and measures",
}
"""The first characters of codes → the heading of their section."""


def errors_page() -> str:
    """The page with all codes, in order.

    Raises: ValueError: a code belongs to no section.
    """
    lines = [
        "# Errors",
        "",
        "Every finding of `etude check` and `etude plan` has a code. `etude explain CODE` shows "
        "the same text as this page.",
        "",
        "This page is written by `docs/generate.py` from `spec/codes.py`.",
    ]
    shown = None
    for code, (title, text) in sorted(CODES.items()):
        section = next((name for start, name in SECTIONS.items() if code.startswith(start)), None)
        if section is None:
            raise ValueError(f"{code} belongs to no section: add one in docs/generate.py")
        if section != shown:
            lines += ["", f"## {section}"]
            shown = section
        lines += ["", f"### {code}: {title}", "", text]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(errors_page(), encoding="utf-8")
