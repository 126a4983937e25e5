"""The registry of findings: each code has one page in `rules/`, in Markdown.

A page has a title, what a user should know, a wrong example and the example fixed. Pages are read
one by one on demand: checking a spec without findings reads none.

    # E214: percentages that do not add up to 100 %
    …
    ## Wrong
    ```etude first
    …
    ```
    ## Right
    ```etude first
    …
    ```

`etude` is followed by the example's frame: a file beside the pages with the rest of the spec. In an
example about files, the file's name follows; the block is `json` if the file is JSON. A block of
`sh` makes `spec.etude` if that is not a text. There is no example if only `etude plan --deep` or
`--miniature` finds the code, or if that takes folders of weights or large files: checking a spec
alone does not find it.
"""

import re
from functools import cache
from pathlib import Path

from ..record import Record

FOLDER = Path(__file__).with_name("rules")
MAIN = "spec.etude"
_PAGE = re.compile(
    r"# (?P<code>[EWN]\d{3}): (?P<title>[^\n]+)\n\n(?P<text>.+?)\n+"
    r"(?:## Wrong\n(?P<wrong>.+?)\n## Right\n(?P<right>.+))?",
    re.DOTALL,
)
_BLOCK = re.compile(
    r"^```(?P<kind>etude|json|sh)(?: (?P<frame>\w+))?(?: (?P<file>\w+\.\w+))?\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


class Example(Record):
    """A spec in a page; empty if the page does not have it.

    Attributes:
        frame: the name of the file with the rest of the spec; "" for a complete spec.
        texts: file name → text, `MAIN` among them; the name is "" if the example is not about
            files.
        shell: commands that make the main file, if that is not a text.
    """

    frame: str = ""
    texts: dict[str, str]
    shell: str = ""


class Rule(Record):
    """What a code means."""

    code: str
    title: str
    text: str
    wrong: Example
    right: Example


@cache
def known() -> tuple[str, ...]:
    """All codes, in order."""
    return tuple(sorted(page.stem for page in FOLDER.glob("[EWN][0-9][0-9][0-9].md")))


@cache
def rule(code: str) -> Rule:
    """What a code means.

    Raises: KeyError: the code is unknown. ValueError: its page does not have the form above.
    """
    if code not in known():
        raise KeyError(code)
    match = _PAGE.fullmatch((FOLDER / f"{code}.md").read_text(encoding="utf-8"))
    if not match or match["code"] != code:
        raise ValueError(f"the page of {code} has another form than spec/findings/codes.py says")
    return Rule(
        code=code,
        title=match["title"],
        text=match["text"].strip(),
        wrong=_example(match["wrong"]),
        right=_example(match["right"]),
    )


def _example(text: str | None) -> Example:
    if text is None:
        return Example(texts={})
    blocks = list(_BLOCK.finditer(text))
    if not blocks:
        raise ValueError("a page needs an example here")
    first = blocks[0]
    if first["kind"] == "sh":
        return Example(frame=first["frame"], texts={}, shell=first["text"])
    texts = {block["file"] or "": block["text"] for block in blocks}
    return Example(frame=first["frame"] or "", texts=texts)


def severity(code: str) -> str:
    """`error`, `warning` or `note`, from the first letter of the code."""
    return {"E": "error", "W": "warning", "N": "note"}[code[0]]
