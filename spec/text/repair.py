"""Guesses what was meant if one bracket or comma is missing, superfluous or of another kind.

A repair is a text of the same length, so that all places stay: insertions replace blanks. It is
used if the text can be parsed with it; everything else is then checked as if there had been no
error.
"""

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from .brackets import Attempts, brackets
from .keywords import MEANINGS, NAMED, VALUES, any_of
from .reader import BRACES

Reach = Callable[[str], int]
"""How far a text can be parsed."""

_CLOSES = {"{": "}", "[": "]", "(": ")"}
_OPENS = {close: open for open, close in _CLOSES.items()}
_HEAD = re.compile(
    rf"^(?:{any_of(NAMED)}[ \t]+[a-z]\w*"
    r"[ \t]*(?::[ \t]*\w+[ \t]*|[0-9]\w*[ \t]*)?(?:\{|[ \t]*$)|expect[ \t]*(?:\{|$)"
    r'|use[ \t]+"|let[ \t]+\w+[ \t]*=)',
    re.MULTILINE,
)
_HEAD_WITHOUT_BRACE = re.compile(
    r"^[ \t]*(?:[a-z]+[ \t]+[a-z]\w*(?:[ \t]*:[ \t]*\w+|[ \t]+\d+)?|expect|[a-z_]\w*[ \t]*=[ \t]*"
    r"(?:[a-z_]\w*)?)$"
)
_WORD = re.compile(r'"[^"\n]*"?|[\w.%]+|\S')
_LEFT = re.compile(r"[^\n,{}]*$")
_RIGHT = re.compile(
    r'\s*(?:(?P<word>[A-Za-z_][\w.]*(?:\[[^\]\n]*\])?)?[ \t]*(?P<op>=?)|")'
    r"[ \t]*(?P<number>[0-9]\S*)?"
)
_ENTRY = re.compile(r"[A-Za-z_][\w.]*(?:\[[^\]\n]*\])?[ \t]+[0-9][\w.%]*$")
_NO_EQUALS = re.compile(r'[ \t]*(?P<name>(?:let[ \t]+)?[a-z_][\w.]*)[ \t]+(?=[0-9"{\[a-z])')
_NO_ITEMS = {*MEANINGS, "keep", "drop", "stage", "gate"} - set(VALUES)
"""Words that are neither attributes nor elements of a list."""
_BEFORE_OPEN = re.compile(
    r"(?:=|->|\bwith|\byarn|\badamw?|^[a-z]+[ \t]+\w+|:[ \t]*\w+)(?=[ \t]+\S)", re.MULTILINE
)
_ENDS_LIST = re.compile(r"(?<=\S)[ \t]*(?=[,}\])]|->|(?:then|for|until|cite|assumed)\b)")
MOST_CHARACTERS = 20_000
"""Longer texts are not repaired: each attempt parses them again."""
MOST_TRIES = 60


class Repair(NamedTuple):
    """A text that can be parsed further, and what was wrong with the original.

    Attributes:
        start, end: the place.
        note: another relevant place, and what it is.
        whole: the text can be parsed to its end.
    """

    text: str
    code: str
    message: str
    start: int
    end: int
    help: str
    note: tuple[int, str] | None = None
    whole: bool = True


class _Brace(NamedTuple):
    """A bracket; `partner` is the place of its match, -1 if there is none."""

    at: int
    kind: str
    partner: int


def stretches(text: str) -> list[tuple[int, int]]:
    """The text cut before each line without indentation that begins a block, a `let` or a `use`."""
    starts = [match.start() for match in _HEAD.finditer(text)]
    starts = [0, *(start for start in starts if start)]
    return list(zip(starts, [*starts[1:], len(text)], strict=True))


def repaired(text: str, offset: int, reach: Reach) -> Repair | None:
    """The repair of a text that can be parsed up to `offset`; None if none is likely."""
    if len(text) > MOST_CHARACTERS:
        return None
    braces = _braces(text)
    if any(brace.partner < 0 for brace in braces):
        return _balanced(text, braces, reach)
    return _separated(text, offset, reach)


def _separated(text: str, offset: int, reach: Reach) -> Repair | None:
    """Inserts a comma, or as many as are missing, before the unexpected word."""
    line_end = text.find("\n", offset)
    least = max(line_end, offset)
    start = text.rfind("\n", 0, offset) + 1
    gaps = [start + gap.start() for gap in re.finditer(r"(?<=\S)[ \t]+(?=\S)", text[start:offset])]
    blank = len(text[:offset].rstrip())
    gaps = [at for at in {*gaps, *([blank] if blank < offset else [])} if _between_items(text, at)]
    for places in [*([at] for at in sorted(gaps, reverse=True)), sorted(gaps)]:
        changed = "".join("," if i in places else c for i, c in enumerate(text)) if places else text
        if places and reach(changed) > least:
            first, last = (_WORD.search(text, _after(text, at)) for at in (places[0], places[-1]))
            assert first
            assert last
            many = len(places) > 1
            return Repair(
                changed,
                "E105",
                "commas are missing here" if many else f"a comma is missing before `{first[0]}`",
                first.start(),
                last.end(),
                f"write `{_around(text, places[0])}`",
            )
    return _given(text, offset, reach)


def _after(text: str, at: int) -> int:
    return at + len(text[at:]) - len(text[at:].lstrip())


def _between_items(text: str, at: int) -> bool:
    """Whether two items meet here: of a list, two names with numbers, or two attributes."""
    left = _LEFT.search(text[:at])
    right = _RIGHT.match(text, at)
    inside = _innermost(text[:at])
    if not left or not right or not inside or right["word"] in _NO_ITEMS:
        return False
    if inside == "[":
        return text[at - 1] not in ",[" and right["op"] != "="
    if right["op"] == "=":
        return "=" in left[0] or bool(_ENTRY.search(left[0]))
    return bool(_ENTRY.search(left[0])) and "=" not in left[0] and bool(right["number"])


def _innermost(text: str) -> str:
    """The bracket that is open at the end of a text."""
    opened = [b.kind for b in _braces(text) if b.kind in _CLOSES and b.partner < 0]
    return opened[-1] if opened else ""


def _given(text: str, offset: int, reach: Reach) -> Repair | None:
    """Inserts an `=` between an attribute and its value."""
    start = max(text.rfind(mark, 0, offset) for mark in "\n,{") + 1
    match = _NO_EQUALS.match(text, start)
    line_end = text.find("\n", offset)
    if not match or match.end() > offset + 1 or match["name"].split()[-1] in _NO_ITEMS:
        return None
    if not match["name"].startswith("let ") and not _innermost(text[:start]):
        return None
    at = match.end("name")
    changed = f"{text[:at]}={text[at + 1 :]}"
    if reach(changed) <= max(line_end, offset):
        return None
    value = _WORD.match(text, match.end())
    return Repair(
        changed,
        "E105",
        f"an `=` is missing after `{match['name'].split()[-1]}`",
        match.start("name"),
        at,
        f"write `{match['name']} = {value[0] if value else '…'}`",
    )


def _around(text: str, at: int) -> str:
    """The items on both sides of a missing comma."""
    left = re.search(r"[^\n,{}\[\]()]*$", text[:at])
    right = re.match(r"[^\n,{}\[\]()]*", text[at:])
    one, other = (left[0] if left else "").strip(), (right[0] if right else "").strip()
    return f"{one}, {other}" if len(one) + len(other) < 50 else ","


def _braces(text: str) -> list[_Brace]:
    """Every bracket with its partner."""
    places = brackets(text)
    partner = dict.fromkeys([at for at, _ in places], -1)
    opened: list[tuple[int, str]] = []
    for at, kind in places:
        if kind in _CLOSES:
            opened.append((at, kind))
        elif opened and _CLOSES[opened[-1][1]] == kind:
            partner[at] = opened[-1][0]
            partner[opened.pop()[0]] = at
    return [_Brace(at, kind, partner[at]) for at, kind in places]


def _balanced(text: str, braces: list[_Brace], reach: Reach) -> Repair | None:
    """Inserts, removes or changes one bracket: the first repair with which the text can be parsed,
    or else with which brackets match."""
    second: Repair | None = None
    attempts = Attempts(text)
    for repair in islice(_candidates(text, braces), MOST_TRIES):
        if not attempts.match(repair.text):
            continue
        if reach(repair.text) >= len(repair.text):
            return repair
        second = second or repair._replace(whole=False)
    return second


def _candidates(text: str, braces: list[_Brace]) -> Iterator[Repair]:
    # With two brackets too many or too few, no change of one makes all of them match.
    more = sum(1 if brace.kind in _CLOSES else -1 for brace in braces)
    if more == 1:
        yield from _closed(text, braces)
        yield from _never_opened(text, braces)
    elif more == -1:
        yield from _headed(text, braces)
        yield from _taken_out(text, braces)
        yield from _opened(text, braces)
    elif more == 0:
        yield from _changed(text, braces)
    elif -MOST_TRIES < more < 0:
        yield from _all_taken_out(text, braces)


def _changed(text: str, braces: list[_Brace]) -> Iterator[Repair]:
    """Changes a closing bracket to another kind."""
    opened: list[_Brace] = []
    for brace in braces:
        if brace.kind in _CLOSES:
            opened.append(brace)
            continue
        last = opened.pop() if opened else None
        if last and _CLOSES[last.kind] != brace.kind:
            right = _CLOSES[last.kind]
            changed = text[: brace.at] + right + text[brace.at + 1 :]
            yield Repair(
                changed,
                "E106",
                f"`{last.kind}` is closed by `{brace.kind}`",
                brace.at,
                brace.at + 1,
                f"write `{right}`",
                (last.at, "opened here"),
            )


def _closed(text: str, braces: list[_Brace]) -> Iterator[Repair]:
    """Inserts a closing bracket: at the end of the line that it closes, or of the block by its
    indentation.

    Brackets that a line opens and does not close come first, then those of blocks.
    """
    for brace in sorted(braces, key=lambda b: (_over_lines(text, b.at), b.at)):
        line_end = _line_end(text, brace.at)
        if brace.kind not in _CLOSES or 0 <= brace.partner < line_end:
            continue
        close = _CLOSES[brace.kind]
        if _over_lines(text, brace.at):
            places = _dedents(text, line_end, _indent(text, brace.at))
        else:
            marks = [m.start() for m in _ENDS_LIST.finditer(text, brace.at + 1, line_end)]
            words = [at for at in marks if text[at:].lstrip()[0] not in ",}])"]
            places = [*words, line_end, *marks]
        for at in places:
            yield Repair(
                _put(text, at, close),
                "E106",
                f"this `{brace.kind}` is not closed",
                brace.at,
                brace.at + 1,
                f"write `{close}` {_where(text, at, brace.at)}",
                (at, f"`{close}` belongs here"),
            )


def _never_opened(text: str, braces: list[_Brace]) -> Iterator[Repair]:
    """Removes an opening bracket."""
    for brace in sorted(braces, key=lambda b: b.partner >= 0):
        if brace.kind in _CLOSES:
            yield Repair(
                text[: brace.at] + " " + text[brace.at + 1 :],
                "E106",
                f"this `{brace.kind}` is not closed",
                brace.at,
                brace.at + 1,
                f"remove it, or close it with `{_CLOSES[brace.kind]}`",
            )


def _where(text: str, at: int, opened: int) -> str:
    """Where a closing bracket belongs, in words."""
    word = text[:at].rsplit(maxsplit=1)[-1:]
    line, last = text.count("\n", 0, opened), text.count("\n", 0, at)
    place = f"after `{word[0]}`" if word and len(word[0]) < 30 else "at its end"
    if line == last:
        return place
    return f"after line {last - line + 1} of this block" if last - line > 1 else place


def _headed(text: str, braces: list[_Brace]) -> Iterator[Repair]:
    """Inserts an opening bracket after the head of a block, if a line begins with its closing
    bracket."""
    for brace in braces:
        start = text.rfind("\n", 0, brace.at) + 1
        if brace.kind in _CLOSES or text[start : brace.at].strip():
            continue
        open = _OPENS[brace.kind]
        for at in _heads(text, start, brace.at - start):
            yield Repair(
                text[:at] + open + text[at + 1 :],
                "E106",
                f"a `{open}` is missing here",
                at - 1,
                at,
                f"write `{open}` at the end of the line",
                (brace.at, "closed here"),
            )


def _opened(text: str, braces: list[_Brace]) -> Iterator[Repair]:
    """Inserts an opening bracket after the head, or the `=`, of its closing bracket's line."""
    for brace in braces:
        start = text.rfind("\n", 0, brace.at) + 1
        if brace.kind in _CLOSES:
            continue
        open = _OPENS[brace.kind]
        for match in _BEFORE_OPEN.finditer(text, start, brace.at):
            at = match.end()
            yield Repair(
                text[:at] + open + text[at + 1 :],
                "E106",
                f"there is no open bracket for this `{brace.kind}`",
                brace.at,
                brace.at + 1,
                f"write `{open}` before `{text[at:].split()[0]}`, or remove it",
            )


def _heads(text: str, end: int, indent: int) -> Iterator[int]:
    """The ends of the lines before `end` that are heads of blocks without a bracket."""
    while end > 0:
        start = text.rfind("\n", 0, end - 1) + 1
        line = text[start : end - 1].split("#")[0].rstrip()
        if _HEAD_WITHOUT_BRACE.match(line) and len(line) - len(line.lstrip()) == indent:
            yield start + len(line)
        end = start


def _taken_out(text: str, braces: list[_Brace]) -> Iterator[Repair]:
    """Removes a closing bracket, first in lines whose indentation shows that it is odd."""

    def odd(brace: _Brace) -> bool:
        """Whether a bracket closes a block that seems to continue, or the wrong block."""
        if brace.partner < 0:
            return True
        if text.count("\n", brace.partner, brace.at) == 0:
            return False
        after = _next_line(text, _line_end(text, brace.at))
        leads = not text[text.rfind("\n", 0, brace.at) + 1 : brace.at].strip()
        shifted = leads and _indent(text, brace.at) != _indent(text, brace.partner)
        return shifted or (after is not None and after > _indent(text, brace.partner))

    closing = [brace for brace in braces if brace.kind not in _CLOSES]
    lines = {text.count("\n", 0, brace.at) for brace in closing if odd(brace)}
    ordered = sorted(closing, key=lambda b: (text.count("\n", 0, b.at) not in lines, b.at))
    for brace in ordered:
        yield Repair(
            text[: brace.at] + " " + text[brace.at + 1 :],
            "E106",
            f"there is no open bracket for this `{brace.kind}`",
            brace.at,
            brace.at + 1,
            "leave it out",
        )


def _all_taken_out(text: str, braces: list[_Brace]) -> Iterator[Repair]:
    """Removes all closing brackets without a partner."""
    extra = [brace for brace in braces if brace.kind not in _CLOSES and brace.partner < 0]
    places = [brace.at for brace in extra]
    kinds = "".join(brace.kind for brace in extra)
    starts = [0, *(at + 1 for at in places)]
    yield Repair(
        " ".join(text[a:b] for a, b in zip(starts, [*places, len(text)], strict=True)),
        "E106",
        f"there are no open brackets for `{kinds}`",
        extra[0].at,
        extra[-1].at + 1,
        "leave them out",
    )


def _put(text: str, at: int, bracket: str) -> str:
    """The text with a bracket inserted at a place; it replaces a blank there."""
    rest = text[at:]
    if rest[:1] in (" ", "\t"):
        return text[:at] + bracket + rest[1:]
    if rest[:2] in ("\n ", "\n\t", "\n\n"):
        return text[:at] + bracket + "\n" + rest[2:]
    if rest[:2] in ("\n}", "\n)", "\n]") or rest in ("\n", ""):
        return text[:at] + bracket + rest[1:]
    if at and text[at - 1] == " ":
        return text[: at - 1] + bracket + rest
    return text[:at] + bracket + rest


def _indent(text: str, at: int) -> int:
    line = text[text.rfind("\n", 0, at) + 1 :]
    return len(line) - len(line.lstrip(" \t"))


def _line_end(text: str, at: int) -> int:
    """The end of a line's content, before blanks and a comment."""
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    comment = next((m.start() for m in BRACES.finditer(text, start, end) if m[0][0] == "#"), end)
    return len(text[:comment].rstrip(" \t\r"))


def _over_lines(text: str, at: int) -> bool:
    """Whether a bracket's contents seem to span lines: it ends its line, or the next line is
    indented deeper."""
    end = _line_end(text, at)
    return end == at + 1 or (_next_line(text, end) or 0) > _indent(text, at)


def _next_line(text: str, at: int) -> int | None:
    """The indentation of the next line that is neither empty nor a comment."""
    match = re.compile(r"\n(?:[ \t\r]*(?:#[^\n]*)?\n)*([ \t]*)(?=\S)").search(text, at)
    return len(match[1]) if match else None


def _dedents(text: str, at: int, indent: int) -> list[int]:
    """The ends of lines after which the indentation is back at that of a block."""
    ends = []
    while True:
        end = text.find("\n", at)
        if end < 0:
            return [*ends, len(text.rstrip())]
        at = end + 1
        if not text[at:].strip():
            return [*ends, len(text.rstrip())]
        line_end = _line_end(text, at)
        if line_end > at and (following := _next_line(text, line_end)) is not None:
            closing = re.match(r"\s*[}\])]", text[line_end:])
            if following < indent or (following == indent and not closing):
                ends.append(line_end)
