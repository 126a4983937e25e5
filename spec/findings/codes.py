"""The registry of findings: each code has one page in `rules/`, in Markdown.

A page has a title, what a user should know, an example that is wrong and the example fixed. Pages
are read one by one where somebody asks: checking a spec that is fine reads none of them.

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

After `etude` stands the frame of the example, a file beside the pages with what the example stands
on; and where an example is about files, the name of this one, which is a block of `json` where it
is in JSON. A block of `sh` makes `spec.etude`
where that is not a text. What only `etude plan --deep` or `--miniature` finds, or what is found in
folders of weights or large files, has no examples: checking a spec alone finds nothing.
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
    """A spec in a page.

    Attributes:
        frame: the name of the file with what the example stands on; "" for a complete spec.
        texts: the texts of its files by their names, `MAIN` among them; one without a name where
            the example is not about files.
        shell: commands that make the main file, where that is not a text.

    An example that a page has not is empty.
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

    Raises: KeyError: there is no such code. ValueError: its page does not have the form above.
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
    """`error`, `warning` or `note`, by the first letter of a code."""
    return {"E": "error", "W": "warning", "N": "note"}[code[0]]
