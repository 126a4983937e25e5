"""Writes the table of claims into docs/reproducing.md: `python docs/published.py`."""

import contextlib
import io
import re
import sys
from pathlib import Path

from etude.cli.main import main  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reproducing.md"


def page(text: str) -> str:
    """The page with the table that the recipes make now."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(["verify", str(ROOT / "examples" / "published"), "--markdown"])
    table = out.getvalue().strip()
    return re.sub(
        r"(?<=<!-- table -->\n).*(?=<!-- end -->)",
        lambda _: table + "\n",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    after = page(before)
    PAGE.write_text(after, encoding="utf-8")
    sys.exit(0)
