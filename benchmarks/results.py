"""The file with the results of the benchmarks."""

import re
from pathlib import Path

PATH = Path(__file__).parent / "RESULTS.md"


def write_section(title: str, text: str) -> None:
    """Replaces the section with this title, or adds it; prints it."""
    before = PATH.read_text() if PATH.exists() else "# Results\n"
    section = f"## {title}\n\n{text.strip()}\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.M | re.S)
    if pattern.search(before):
        after = pattern.sub(lambda _: section + "\n", before)
    else:
        after = f"{before.rstrip()}\n\n{section}"
    PATH.write_text(after.rstrip() + "\n")
    print(section)
