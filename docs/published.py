"""Writes the claims of published recipes into docs/reproducing.md and the README:
`python docs/published.py`."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

from etude.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reproducing.md"
README = ROOT / "README.md"


def verified(option: str) -> str:
    """The output of `etude verify` for the recipes."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(["verify", str(ROOT / "examples" / "published"), option])
    return out.getvalue().strip()


def page(text: str) -> str:
    """The page with the table of the recipes' current claims."""
    return _filled(text, verified("--markdown"))


def readme(text: str) -> str:
    """The README with one line per recipe."""
    return _filled(text, "\n".join(_summary(json.loads(verified("--json")))))


def _summary(found: dict) -> Iterator[str]:
    yield "| recipe | claims that hold | largest deviation | values cited | assumed |"
    yield "| --- | ---: | --- | ---: | ---: |"
    for of in found["sources"]:
        claims = [claim for claim in found["claims"] if claim["recipe"] == of["recipe"]]
        disputed = sum(bool(claim["contradicted"]) for claim in claims)
        claims = [claim for claim in claims if not claim["contradicted"]]
        held = sum(claim["holds"] for claim in claims)
        most = max(claims, key=lambda claim: abs(claim["off"]))
        name = Path(of["file"]).stem
        yield (
            f"| [{name}](examples/published/{name}.etude) | {held} of {len(claims)}"
            f"{f', {disputed} contradicted by the source' if disputed else ''} "
            f"| {most['off']:+.1%}, {most['claim']} | {of['cited']} | {len(of['assumed'])} |"
        )


def _filled(text: str, table: str) -> str:
    return re.sub(
        r"(?<=<!-- table -->\n).*(?=<!-- end -->)",
        lambda _: table + "\n",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for file, made in ((PAGE, page), (README, readme)):
        file.write_text(made(file.read_text(encoding="utf-8")), encoding="utf-8")
