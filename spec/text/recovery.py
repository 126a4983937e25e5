"""Reports what cannot be parsed, and removes it, so that the rest can be parsed."""

import re
from collections.abc import Collection

from ..findings.diagnostics import Report, did_you_mean
from ..quantity import UNITS
from ..source import Piece, Source, Span
from .brackets import is_balanced
from .keywords import (
    CONTINUATION,
    CONTINUES,
    MEANINGS,
    NAMED,
    RESERVED,
    SHAPES,
    VALUES,
    advice,
    any_of,
    why_no_name,
)
from .notation import answer
from .reader import BRACES, Unreadable
from .repair import MOST_CHARACTERS, Reach, Repair, repaired

_KEYWORDS = ("times", *(word for word in MEANINGS if len(word) > 3 and word not in VALUES))
_CONTINUES = re.compile(rf"\s*{CONTINUATION}")
_DECLARED = re.compile(
    rf"(?:^|(?<=[{{,]))[ \t]*({any_of(('let', *NAMED))})[ \t]+(\w+)", re.MULTILINE
)
_NEXT_STATEMENT = re.compile(r"\n[ \t\r]*[A-Za-z_][\w.]*[ \t]*$")
_COMMENTS = re.compile(r"(?:[ \t\r]*#[^\n]*\s*)+$")
_ATTRIBUTE = re.compile(r"\s*[A-Za-z_][\w.]*\s*=")
_FOLLOWS = re.compile(r"[ \t\r]*(?:[\n#},]|$|[A-Za-z_][\w.]*\s*=)")
"""The beginning of another attribute or the end of a block: what was left out was complete."""
_MARKS = re.compile(rf"{BRACES.pattern}|,|\n")
_NO_VALUES = {"LPAR", "RPAR", "RSQB", "COLON", "DOT", "COMPARE"}
_TERMINALS = {
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": 'a text in "…"',
    "_NL": "the end of the line",
    "COMMA": "`,`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "EQUAL": "`=`",
    "COLON": "`:`",
    "DOT": "`.`",
    "COMPARE": "`>=`, `<=`, `>` or `<`",
    "SHAPE": f"the shape of a ramp ({', '.join(f'`{shape}`' for shape in SHAPES)})",
    "__ANON_0": "`->`",
    "$END": "the end of the file",
}


def recover(
    problem: Unreadable, text: str, source: Source | Piece, report: Report, reach: Reach
) -> str:
    """Reports a problem; returns the text as it was meant, if that is known, or with spaces in
    place of the statement that has the problem.

    Places in the text stay. If nothing can be left out, the text is returned unchanged.
    """
    offset = _offset(problem, text)
    if _reports_name(text, offset, source, report):
        return _without_statement(text, offset, reach)
    noted = _noted(text, offset, source, report, reach) if is_balanced(text) else None
    if noted is not None:
        return noted
    repair = repaired(text, offset, reach)
    if repair:
        at, label = repair.note or (0, "")
        report.add(
            repair.code,
            repair.message,
            Span(source, repair.start, repair.end),
            help=repair.help,
            notes=[(Span(source, at, at + 1), label)] if repair.note else [],
        )
        return _kept(repair, text, reach)
    empty = _without_value(problem, text, offset)
    if empty is not None:
        _report_missing_value(empty, source, report)
        return _without_statement(text, empty, reach)
    _report(problem, offset, source, text, report)
    if problem.at_end:
        return _without_open_block(text)
    return _without_statement(text, offset, reach, character=not problem.kind)


def _line_end(text: str, at: int) -> int:
    """Where a line ends, the last one with or without a line end."""
    end = text.find("\n", at)
    return end if end >= 0 else len(text)


def _reports_name(text: str, offset: int, source: Source | Piece, report: Report) -> bool:
    """Whether the problem is a reserved word declared as a name; reports it."""
    start = text.rfind("\n", 0, offset) + 1
    for match in _DECLARED.finditer(text, start, _line_end(text, offset)):
        if match[2] in RESERVED and match.start(2) <= offset <= match.end() + 1:
            place = Span(source, match.start(2), match.end(2))
            report.add("E306", why_no_name(match[2]), place, help=advice(match[2], match[1]))
            return True
    return False


def _noted(
    text: str, offset: int, source: Source | Piece, report: Report, reach: Reach
) -> str | None:
    """Reports foreign notation; returns the text to continue with, or None if it is not known."""
    start = text.rfind("\n", 0, offset) + 1
    line = text[start : _line_end(text, start)]
    noted = answer(line, min(offset - start, len(line)))
    if noted is None:
        return None
    place = Span(source, start + noted.start, start + noted.end)
    report.add(noted.code, noted.message, place, help=noted.help)
    if len(noted.fixed) == noted.end - noted.start:
        fixed = text[: start + noted.start] + noted.fixed + text[start + noted.end :]
        if reach(fixed) > offset:
            return fixed
    return _without_statement(text, start + noted.start, reach)


def _kept(repair: Repair, text: str, reach: Reach) -> str:
    """The text to continue with after a repair: without what cannot be read."""
    if len(repair.text) != len(text):
        shorter = _without_list(repair, text)
        if shorter and reach(shorter) > repair.start:
            return shorter
        return _without_statement(text, repair.start, reach)
    if repair.whole:
        return repair.text
    end = repair.note[0] if repair.note else repair.start
    if text[repair.start] in "[(" and end > repair.start:
        start = text.rfind("\n", 0, repair.start) + 1
        inside = re.sub(r"[^\n]", " ", text[start : end + 1])
        return text[:start] + inside + repair.text[end + 1 :]
    offset = min(reach(repair.text), len(text) - 1)
    line = repair.text[: repair.start].rsplit("\n", 1)[-1]
    if line.rstrip().endswith(("=", "->")) and not repair.text[repair.start].strip():
        return _without_statement(repair.text, repair.start, reach)
    if text.count("\n", 0, offset) == text.count("\n", 0, repair.start):
        return _without_statement(repair.text, offset, reach)
    return repair.text


def _without_list(repair: Repair, text: str) -> str | None:
    """The text without the attribute whose list a repair closes; None if it closes none."""
    opening = _last_open(text[: repair.start])
    if text[repair.start] != "[" or not repair.note or opening < 0 or not repair.whole:
        return None
    start, _ = _around(text, opening, repair.start)
    end = repair.note[0] + (text[repair.note[0] : repair.note[0] + 1] == ",")
    return text[:start] + re.sub(r"[^\r\n]", " ", text[start:end]) + text[end:]


def _offset(problem: Unreadable, text: str) -> int:
    return len(text.rstrip()) if problem.at_end else problem.position


def _without_value(problem: Unreadable, text: str, offset: int) -> int | None:
    """The last character of a `=` or `->` without a value after it, if that is the problem.

    The value may seem to be on the next line: `lr =` above `batch = 4` is read as `lr = batch`,
    and only the second `=` is unexpected.
    """
    if not problem.kind or problem.at_end:
        return None
    if problem.kind == "EQUAL":
        match = _NEXT_STATEMENT.search(text, text.rfind("\n", 0, max(offset - 1, 0)), offset)
        before = text[: match.start()].rstrip() if match else ""
        before = _COMMENTS.sub("", before).rstrip()
        return len(before) - 1 if before.endswith(("=", "->")) else None
    before = text[:offset].rstrip()
    follows = problem.kind not in _NO_VALUES and before.endswith(("=", "->"))
    return len(before) - 1 if follows else None


def _report_missing_value(offset: int, source: Source | Piece, report: Report) -> None:
    report.add(
        "E101",
        "a value is missing here",
        Span(source, offset, offset + 1),
        help="write a value after it, or remove the attribute",
    )


def _report(
    problem: Unreadable, offset: int, source: Source | Piece, text: str, report: Report
) -> None:
    if problem.at_end:
        opening = _last_open(text)
        report.add(
            "E101",
            "the file ends inside a block",
            Span(source, max(offset - 1, 0), max(offset, 1)),
            help="close it with `}`",
            notes=[(Span(source, opening, opening + 1), "opened here")] if opening >= 0 else [],
        )
        return
    if problem.word == '"':
        report.add(
            "E102",
            "this text has no closing quote",
            Span(source, offset, _line_end(text, offset)),
            help='close it with `"` on the same line',
        )
        return
    end = offset + len(problem.word.rstrip() or " ")
    what = "the end of the line" if problem.kind == "_NL" else f"`{problem.word.strip()}`"
    words = sorted({_TERMINALS.get(name, f"`{name.lower()}`") for name in problem.expected})
    label = "expected " + " or ".join(words) if 0 < len(words) <= 4 else ""
    report.add(
        "E101",
        f"{what} is not expected here",
        Span(source, offset, end),
        label=label,
        help=_hint(text, offset, problem.expected),
    )


def _hint(text: str, offset: int, expected: Collection[str]) -> str:
    character = text[offset] if offset < len(text) else ""
    word = re.match(r"[A-Za-z_]\w*", text[offset:])
    previous = re.search(r"([A-Za-z_]+)[ \t]*$", text[:offset])
    if character == "'":
        return 'texts are written in double quotes: "…"'
    if character in ":=" and "EQUAL" in expected:
        return "an attribute is written `name = value`"
    if character in "$@!?&|;^`~":
        return f"`{character}` is not used in specs"
    if re.search(r"\ballow[ \t]+[A-Z]\w*[ \t]*$", text[:offset]):
        return 'give the reason: allow W601 "the reason"'
    if re.search(r"(?:=|then)[ \t]*(?:[^\n=]*[ \t])?repeat\b[^\n]*$", text[:offset]):
        return "what is repeated is written `repeat 4 times { 3e-4 -> 3e-5 cosine for 25% }`"
    if word and word[0] in CONTINUES:
        return _other_name(word[0])
    if character == "=" and text[:offset].rstrip().endswith("="):
        return "one `=` is enough"
    if word and word[0] in RESERVED and re.search(r"^[ \t]*[a-z]+[ \t]+$", text[:offset], re.M):
        return _other_name(word[0])
    if previous and previous[1] in RESERVED:
        return _other_name(previous[1])
    for near in (word and word[0], previous and previous[1]):
        suggestion = (
            did_you_mean(near, _KEYWORDS) if near and near not in (*UNITS, *_KEYWORDS) else ""
        )
        if suggestion.startswith("did"):
            return suggestion
    head = re.search(r"(?m)^[ \t]*stage[ \t]+(\w+)[ \t]*$", text[:offset])
    if character == "=" and head:
        kind = re.match(r"=[ \t]*(\w+)", text[offset:])
        return f"write `stage {head[1]}: {kind[1] if kind else 'train'} {{`"
    if character == "{" and "EQUAL" in expected:
        return "a block begins with its keyword and its name: `stage pretrain: train {`"
    return "items are separated by a new line or a comma"


def _other_name(word: str) -> str:
    return f"`{word}` {MEANINGS[word]}: if you mean a name, choose another"


def _last_open(text: str) -> int:
    stack: list[int] = []
    for match in BRACES.finditer(text):
        if match[0] in "{[(":
            stack.append(match.start())
        elif match[0] in "}])" and stack:
            stack.pop()
    return stack[-1] if stack else -1


def _without_open_block(text: str) -> str:
    """The text without the block that the file ends in: what follows its head may belong inside or
    outside, so none of it can be checked."""
    start = text.rfind("\n", 0, max(_last_open(text), 0)) + 1
    return text[:start] + re.sub(r"[^\r\n]", " ", text[start:])


def _without_statement(text: str, offset: int, reach: Reach, *, character: bool = False) -> str:
    """The text with the statement at `offset` replaced by spaces, so that places stay. If it is one
    of several on its lines and the rest of those can be parsed, only that one.

    Args:
        character: the unexpected character is not a token of the language.
    """
    own = _statement(text, offset) if len(text) <= MOST_CHARACTERS else None
    if own and (character or text[offset : offset + 1] != "}"):
        start, end = own
        blank = re.sub(r"[^\r\n]", " ", text[start:end])
        shorter = text[:start] + blank + text[end:]
        if _FOLLOWS.match(text, end) and reach(shorter) > end:
            return shorter
    return _without_lines(text, offset, character)


def _statement(text: str, offset: int) -> tuple[int, int] | None:
    """Where the attribute that contains a place begins and ends, one comma included; None if it is
    not a separate attribute of a block."""
    opening = _last_open(text[:offset])
    while opening >= 0:
        start, end = _around(text, opening, offset)
        if text[opening] == "{" and _ATTRIBUTE.match(text, start, end):
            if text[end : end + 1] == ",":
                return start, end + 1
            return start - (text[start - 1] == ","), end
        opening = _last_open(text[:opening])
    return None


def _around(text: str, opening: int, offset: int) -> tuple[int, int]:
    """What is between two commas, or ends of lines, in the block that opens at `opening`."""
    start, depth = opening + 1, 0
    for match in _MARKS.finditer(text, opening + 1):
        mark, at = match[0], match.start()
        if depth == 0 and mark in ("}", "]", ")"):
            return start, at
        depth += (mark in "{[(") - (mark in "}])") if len(mark) == 1 else 0
        if depth == 0 and mark in (",", "\n") and not _CONTINUES.match(text, at + 1):
            if at >= offset:
                return start, at
            start = at + 1
    return start, len(text)


def _without_lines(text: str, offset: int, character: bool) -> str:
    """The text with the lines of the statement at `offset` replaced by spaces."""
    if text[offset : offset + 1] == "}" and not character:
        before = text[:offset].rstrip()
        if not before.endswith(("=", "->", ",", *CONTINUES, "[")):
            return text[:offset] + " " + text[offset + 1 :]
        offset = len(before) - 1
    opening = _last_open(text[:offset])
    while opening >= 0 and text[opening] == "[":  # a list over several lines is removed as a whole
        offset = opening
        opening = _last_open(text[:offset])
    lines = text.split("\n")
    first = text.count("\n", 0, offset)
    while first > 0 and _CONTINUES.match(lines[first]):
        first -= 1
    last = first
    balance = _balance(lines[first])
    while last + 1 < len(lines) and (balance > 0 or _CONTINUES.match(lines[last + 1])):
        last += 1
        balance += _balance(lines[last])
    statement = "\n".join(lines[first : last + 1])
    blank = list(re.sub(r"[^\r\n]", " ", statement))
    for place in _closings_of_others(statement):
        blank[place] = "}"
    return "\n".join([*lines[:first], "".join(blank), *lines[last + 1 :]])


def _balance(line: str) -> int:
    braces = [match[0] for match in BRACES.finditer(line)]
    return sum(b in "{[" for b in braces) - sum(b in "}]" for b in braces)


def _closings_of_others(statement: str) -> list[int]:
    """Where a statement closes blocks that were opened before it."""
    places, depth = [], 0
    for match in BRACES.finditer(statement):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}" and depth:
            depth -= 1
        elif match[0] == "}":
            places.append(match.start())
    return places
