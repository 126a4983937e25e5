"""Writes lsp/reference.json, what editors show of attributes, from the tables of docs/language.md:
`python docs/reference.py`."""

import json
import re
from pathlib import Path

PAGE = Path(__file__).with_name("language.md")
TARGET = PAGE.parents[1] / "lsp" / "reference.json"
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


def reference() -> dict[str, dict[str, list[str]]]:
    """Heading → attribute → what it takes, its default, its meaning."""
    parts = re.split(r"^#+ (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: dict[str, dict[str, list[str]]] = {}
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        head, *rows = [line for line in text.splitlines() if line.startswith("| ")] or [""]
        if not head.startswith("| attribute | value | default | meaning |"):
            continue
        entries = {}
        for row in rows:
            name, *cells = [cell.strip() for cell in row.strip("|").split(" | ")]
            name = name.strip("` ")
            if len(cells) == 3 and re.fullmatch("[a-z_]+", name):
                entries[name] = [_LINK.sub(r"\1", cell) for cell in cells]
        found[heading.replace("`", "")] = entries
    return found


def text() -> str:
    return json.dumps(reference(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
