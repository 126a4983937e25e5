"""Notation from other languages in a spec, and how to write it here."""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from operator import add, mul, sub, truediv
from typing import NamedTuple

from .keywords import NAMED, SHAPES, SNIPPETS, STAGE_KINDS, any_of, as_name, example

_NUMBER = r"[0-9][0-9_.]*(?:[eE][+-]?[0-9]+)?[A-Za-z%]*"
_TEXT = re.compile(r'"(?:[^"\\\n]|\\.)*"|#[^\n]*')
_KIND = re.compile(rf":[ \t]*{any_of(STAGE_KINDS)}[ \t]*\{{")
_BLOCKS = any_of(NAMED)
_SIGNS = {
    "→": "->",
    "⇒": "->",
    "≥": ">=",
    "≤": "<=",
    "“": '"',
    "”": '"',
    "„": '"',
    "«": '"',
    "»": '"',
    "’": '"',
    "‘": '"',
    "，": ",",
    "：": "=",
    "＝": "=",
}

_OPERATIONS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "*": mul,
    "/": truediv,
    "+": add,
    "-": sub,
}


class Answer(NamedTuple):
    """What is wrong in a line, and how to write it.

    Attributes:
        start, end: the place in the line.
        fixed: a replacement of the same length; "" if it is unknown.
    """

    code: str
    message: str
    help: str
    start: int
    end: int
    fixed: str = ""


def answer(line: str, at: int) -> Answer | None:
    """The answer for the notation in a line that can be parsed up to `at`, or None."""
    if _TEXT.sub("", line).count('"'):  # a quote is missing or superfluous
        return None
    for ask in _ASKED:
        found = ask(line, at)
        if found:
            return found
    return None


def _matches(pattern: str, line: str, at: int) -> Iterator[re.Match[str]]:
    """Matches of a pattern, outside of quoted texts, that contain the place of the error or end
    right before it."""
    texts = [match.span() for match in _TEXT.finditer(line)]
    for match in re.finditer(pattern, line):
        inside = any(start < match.start() < end for start, end in texts)
        if match.start() <= at <= match.end() + 1 and not inside:
            yield match


def statement(name: str, value: str) -> str:
    """How to write a statement that was written as an attribute; "" if it is not a statement.

    Args:
        name: what is before the `=`.
        value: what is after it.
    """
    if name in ("drop similar", "similar"):
        share = re.search(rf"{_NUMBER}", value)
        return f"drop similar > {share[0] if share else '90%'}"
    word = name.split()[0]
    if word == "evaluate":
        every = re.fullmatch(r"every[ \t]+(.+)", value)
        return f"evaluate = {{ every = {every[1]}, loss = [DATASET] }}" if every else ""
    if word == "average":
        length = _length(value)
        return f"average = polyak every {length}" if length and "every" in value else ""
    if word not in SNIPPETS or name not in (word, "checkpoint every"):
        return ""
    if word == "checkpoint":
        return f"checkpoint every {_length(value) or '1000 steps'}"
    if word == "gate" and (knob := re.match(r"[a-z_]+(?=[ \t]*(?:\{|$))", value)):
        return example("gate").replace("seq_len", knob[0])
    if word == "keep" and (number := re.fullmatch(r"(?:last[ \t]+)?([0-9]+)", value)):
        return f"keep last {number[1]}"
    if word == "keep" and re.fullmatch(r"all|every[ \t]+\S+([ \t]+\w+)?", value):
        return f"keep {value}"
    if word in ("keep", "drop") and re.match(rf"(?:{_NUMBER}[ \t]+)?where[ \t]+\S", value):
        return f"{word} {value}"
    if word == "allow" and (code := re.search(r"\b[WN][0-9]{3}\b", value)):
        reason = re.search(r'"([^"]*[ ][^"]*)"', value)
        return f'allow {code[0]} "{reason[1] if reason else "the reason"}"'
    written = {"use": r'"', "require": r".*>=?[ \t]*[0-9]", "otherwise": "extend "}.get(word)
    if written and re.match(written, value):
        return f"{word} {value}"
    return example(word)


def _length(value: str) -> str:
    """The first number of a text with its unit, and the length that an average covers."""
    match = re.search(
        rf"({_NUMBER})[ \t]*([a-z]*)(?:[ \t]+over[ \t]+{_NUMBER}(?:[ \t]+[a-z]+)?)?", value
    )
    if not match:
        return ""
    return match[0].strip() if match[2] else f"{match[0].strip()} steps"


def _statement(line: str, at: int) -> Answer | None:
    """`checkpoint = every …` and other statements written as attributes."""
    pattern = r"(?:^|(?<=[{,]))[ \t]*(\w+(?:[ \t]+(?:similar|every))?)[ \t]*[=:][ \t]*([^,{}#\n]*)"
    for match in _matches(pattern, line, at):
        name, value = " ".join(match[1].split()), match[2].strip()
        block = "{" if line[match.end() :].startswith("{") else ""
        how = statement(name, (value + block).strip())
        if how:
            start, end = match.start(1), match.start(2) + len(value)
            fixed = how.ljust(end - start) if name.startswith("checkpoint") else ""
            message = f"`{name.split(' every')[0]}` is a statement and has no `=`"
            if name == "average":
                message = "this is not how an average is written"
            return Answer("E323", message, f"write `{how}`", start, end, fixed)
    return None


def _evaluation(line: str, at: int) -> Answer | None:
    """`evaluate every 100 steps { … }`, and what follows from a loss, as a sentence."""
    for match in _matches(r"\b(?:evaluate[ \t]+every|stop[ \t]+when)\b[^{}#\n]*\{?", line, at):
        number = re.search(rf"[ \t]({_NUMBER}(?:[ \t]+steps?)?)[ \t]*\{{?$", match[0])
        start, end = match.span()
        if match[0].startswith("stop"):
            help = f"write `patience = {number[1] if number else 3}` in `evaluate = {{ … }}`"
            return Answer("E323", "this is not how a stage ends early", help, start, end)
        every = number[1] if number else "100 steps"
        help = f"write `evaluate = {{ every = {every}, loss = [DATASET] }}`"
        return Answer("E323", "`evaluate` is a group of attributes", help, start, end)
    return None


def _comment(line: str, at: int) -> Answer | None:
    for match in _matches(r"//.*|/\*.*|--[ \t].*", line, at):
        blank = "#".ljust(len(match[0]))
        return Answer(
            "E107",
            f"`{match[0][:2]}` does not begin a comment",
            "comments begin with `#`",
            match.start(),
            match.start() + 2,
            blank,
        )
    return None


def _semicolon(line: str, at: int) -> Answer | None:
    if line[at : at + 1] != ";":
        return None
    item = re.match(r"[ \t]*[A-Za-z_]\w*[ \t]*[={]", line[at + 1 :])
    help = (
        "write `,` instead: commas separate statements of one line"
        if item
        else "remove it: a statement ends with its line"
    )
    return Answer("E107", "`;` is not a separator", help, at, at + 1, "," if item else " ")


def _quotes(line: str, at: int) -> Answer | None:
    for match in _matches(r"'([^'\n]*)'", line, at):
        if '"' in match[1]:
            continue
        name = re.fullmatch(r"[a-z_]\w*", match[1])
        return Answer(
            "E107",
            "texts are written in double quotes, names without quotes"
            if name
            else "texts are written in double quotes",
            f'write `"{match[1]}"`' + (f", or for a name `{name[0]}`" if name else ""),
            match.start(),
            match.end(),
            "" if name else f'"{match[1]}"',
        )
    if line[at : at + 1] == "'":
        return Answer("E107", "texts are written in double quotes", 'write `"…"`', at, at + 1)
    return None


def _sign(line: str, at: int) -> Answer | None:
    right = _SIGNS.get(line[at : at + 1])
    if right is None:
        return None
    pairs = re.match(r"[“„«’‘”]([^“”«»’‘\"]*)[”»’‘“]", line[at:])
    if pairs:
        return Answer(
            "E107",
            f'`{line[at]}` is not the same character as `"`',
            f'write `"{pairs[1]}"`',
            at,
            at + pairs.end(),
            f'"{pairs[1]}"',
        )
    return Answer(
        "E107",
        f"`{line[at]}` is not used in specs",
        f"write `{right}`",
        at,
        at + 1,
        right if len(right) == 1 else "",
    )


def _call(line: str, at: int) -> Answer | None:
    for match in _matches(r"\b([A-Za-z_]\w*)[ \t]*\(([^()\n]*)\)?", line, at):
        name, given = match[1], match[2].strip()
        if name == "loss":
            continue
        value = re.search(_NUMBER, given)
        peak = value[0] if value else "3e-4"
        help = "write the value itself"
        if name.lower() in ("adamw", "adam", "yarn"):
            typical = "factor = 4" if name.lower() == "yarn" else "betas = [0.9, 0.95]"
            help = f"write `{name.lower()} {{ {typical} }}`"
        if name in SHAPES:
            help = f"a shape follows its ramp: `{peak} -> 0 {name}`"
        elif re.search("warm|sched|wsd|decay|cycle|ramp|linear|cosine", name.lower()):
            help = f"write its parts: `0 -> {peak} for 5% then -> 0 cosine`"
        return Answer("E107", "specs have no functions", help, match.start(), match.end())
    return None


def _arithmetic(line: str, at: int) -> Answer | None:
    pattern = rf"(?<![\w.])((?>{_NUMBER}))[ \t]*(\*\*|[*/+^-])[ \t]*({_NUMBER})(?!\w)"
    for match in _matches(pattern, line, at):
        result = _computed(match[1], match[2], match[3])
        help = f"write the result: `{result}`" if result else "write the result"
        return Answer("E107", "specs have no arithmetic", help, match.start(), match.end())
    for match in _matches(r"(?<==)[ \t]*([a-z]\w*(?:[ \t]*\+[ \t]*[a-z]\w*)+)", line, at):
        names = " 1, ".join(re.findall(r"\w+", match[1]))
        help = f"write each name with its weight: `{{ {names} 1 }}`"
        return Answer("E107", "specs have no arithmetic", help, match.start(1), match.end())
    return None


def _computed(one: str, operator: str, other: str) -> str:
    """The result; "" if a number has a suffix or the result is not a number of a spec."""
    try:
        first, second = Fraction(one), Fraction(other)
        if operator in ("**", "^"):
            if second.denominator != 1 or second >= 64:
                return ""
            value = first ** int(second)
        else:
            value = _OPERATIONS[operator](first, second)
    except (ValueError, ZeroDivisionError):
        return ""
    if value < 0:
        return ""
    return str(value) if value.denominator == 1 else f"{float(value):.10g}"


def _negative(line: str, at: int) -> Answer | None:
    match = re.match(rf"-[ \t]*({_NUMBER}|inf\b)", line[at:])
    if not match or not re.search(r"(?:[=\[,{]|->|\w[ \t])[ \t]*$", line[:at]):
        return None
    name = re.search(r"(\w+)[ \t]*[=:][^=:]*$", line[:at])
    help = "remove it for the default"
    if re.search(r"\brepeat[ \t]*$", line[:at]):
        help = "write how often the segments come, 1 or more: `repeat 4 times { … }`"
    elif name and name[1] == "clip":
        help = "remove `clip` for a norm of 1; a large one, 1e9, clips nothing"
    elif name and name[1] == "lr":
        help = "rates cannot fall below 0: `-> 0`"
    elif name:
        help = f"remove `{name[1]}` for its default"
    return Answer(
        "E108",
        f"`{match[0].replace(' ', '')}` is negative, but numbers in a spec cannot be",
        help,
        at,
        at + match.end(),
        " " + match[0][1:],
    )


def _thousands(line: str, at: int) -> Answer | None:
    for match in _matches(r"(?<![\w.])([0-9]{1,3}(?:,[0-9]{3})+)(?![\w.])", line, at):
        plain = match[0].replace(",", "")
        return Answer(
            "E107",
            "commas separate items, not thousands",
            f"write `{plain}` or `{match[0].replace(',', '_')}`",
            match.start(),
            match.end(),
            match[0].replace(",", "_"),
        )
    return None


def _colon(line: str, at: int) -> Answer | None:
    if line[at : at + 1] not in (":", '"'):
        return None
    match = re.search(r"(?:^|[{,])[ \t]*((?:let[ \t]+)?)([A-Za-z_]\w*)[ \t]*$", line[:at])
    quoted = re.match(r'"([A-Za-z_]\w*)"[ \t]*[:=]', line[at:])
    if quoted:
        name, end = quoted[1], at + quoted.end()
    elif match and line[at] == ":" and not _KIND.match(line, at):
        name, end = match[2], at + 1
    else:
        return None
    value = re.match(r"[ \t]*=?[ \t]*(\"[^\"]*\"|[^,#{}\[\]]+)?", line[end:])
    said = (value[1] or "…").strip() if value else "…"
    start = match.start(2) if match else at
    if re.search(r"\b(?:data|parallel|with)\b[^{}]*(?:\{[^{}]*\}[^{}]*)*\{[^{}]*$", line[:start]):
        fixed = "" if quoted else f"{line[start:at]} "
        message = "a share or a degree follows its name"
        return Answer("E107", message, f"write `{name} {said}`", start, end, fixed)
    message = "attributes are not in quotes" if quoted else "an attribute has `=` before its value"
    between = " " if line[end : end + 1] == "=" else "="
    fixed = "" if quoted else f"{line[start:at]}{between}"
    return Answer("E107", message, f"write `{name} = {said or '…'}`", start, end, fixed)


def _path(line: str, at: int) -> Answer | None:
    pattern = (
        r"(?<=[=\[,])[ \t]*((?:[a-z][a-z0-9]*://|~?/|\.{1,2}/|[A-Za-z]:\\|\*|\w)[\w./*~:@\\{}-]*)"
    )
    for match in _matches(pattern, line, at):
        text = match[1].rstrip("}") if match[1].count("{") < match[1].count("}") else match[1]
        if re.search(r"[/\\]|\.\w+$|[A-Za-z]-\w", text) and not re.fullmatch(_NUMBER, text):
            name, start = as_name(text), match.start(1)
            message, help = "paths and addresses are texts, in double quotes", f'write `"{text}"`'
            if name:
                message = "names have `_` in place of `-` and `.`, and texts are in double quotes"
                help = f'write `{name}`, or `"{text}"`'
            return Answer("E107", message, help, start, start + len(text))
    return None


def _dashed(line: str, at: int) -> Answer | None:
    for match in _matches(rf'^[ \t]*{_BLOCKS}[ \t]+("?)([\w.-]+)"?', line, at):
        right = re.sub(r"\W", "_", match[2]).lower()
        if right != match[2] or match[1]:
            message = (
                "names are not in quotes"
                if match[1]
                else ("a name has lower-case letters, digits and _")
            )
            return Answer("E107", message, f"write `{right}`", match.start(1), match.end())
    return None


def _listed(line: str, at: int) -> Answer | None:
    match = re.match(r"[ \t]*-[ \t]+(\S+)", line)
    if match and line[at : at + 1] == "-":
        return Answer(
            "E107", "lists are written in brackets", f"write `[{match[1]}, …]`", at, at + 1
        )
    for match in _matches(r"(?<=[=,\[])[ \t]*(\(([^()\n]*)\))", line, at):
        right = f"[{match[2]}]"
        return Answer(
            "E107",
            "lists are written in brackets",
            f"write `{right}`",
            match.start(1),
            match.end(1),
            right,
        )
    return None


def _braced(line: str, at: int) -> Answer | None:
    """`parallel = tensor 2`, and a mixture whose names are in quotes."""
    pattern = r"\b(data|parallel)[ \t]*=[ \t]*([a-z_][\w.]*[ \t]+[0-9][\w.]*%?[^#{}]*)"
    for match in _matches(pattern, line, at):
        if line.count("{") < line.count("}"):
            continue
        said = match[2].strip()
        return Answer(
            "E107",
            f"shares and degrees are written in braces: `{match[1]} = {{ … }}`",
            f"write `{match[1]} = {{ {said} }}`",
            match.start(2),
            match.start(2) + len(said),
        )
    for match in _matches(rf'(?<=[{{,])[ \t]*("(\w+)")[ \t]+({_NUMBER})', line, at):
        return Answer(
            "E107",
            "names are not in quotes",
            f"write `{match[2]} {match[3]}`",
            match.start(1),
            match.end(1),
            f" {match[2]} ",
        )
    return None


def _headed(line: str, at: int) -> Answer | None:
    """`dataset web: {` and `stage: train {`."""
    for match in _matches(
        rf"^[ \t]*({_BLOCKS})[ \t]*([\w]*)[ \t]*(:)[ \t]*(\w*)[ \t]*(?=\{{|$)", line, at
    ):
        keyword, name, kind = match[1], match[2], match[4]
        if name and kind and keyword == "stage":
            continue
        kind = f": {kind or 'train'}" if keyword == "stage" else ""
        message = f"this `{keyword}` block has no name"
        if name:
            message = "this stage has no kind" if kind else "only stages have a kind"
        return Answer(
            "E305",
            message,
            f"write `{keyword} {name or 'NAME'}{kind} {{`",
            match.start(1),
            match.end(4),
        )
    for match in _matches(r"^[ \t]*use[ \t]+([^\"'\s]+)", line, at):
        return Answer(
            "E107",
            "a file name is a text, in double quotes",
            f'write `use "{match[1]}"`',
            match.start(1),
            match.end(1),
        )
    return None


def _spaced(line: str, at: int) -> Answer | None:
    for match in _matches(r"(?<![\w.])([0-9][0-9_.]*)[ \t]+(%|(?:k|M|B|T|Ki|Mi|Gi|x)\b)", line, at):
        return Answer(
            "E107",
            f"`{match[2]}` follows its number without a space",
            f"write `{match[1]}{match[2]}`",
            match.start(),
            match.end(),
        )
    return None


def _ramp(line: str, at: int) -> Answer | None:
    for match in _matches(rf"({_NUMBER})[ \t]*(\bto\b|\.\.|=>|~>|>)[ \t]*({_NUMBER})", line, at):
        return Answer(
            "E107",
            f"`{match[2]}` is not how a ramp is written",
            f"write `{match[1]} -> {match[3]}`",
            match.start(2),
            match.end(2),
        )
    return None


def _variable(line: str, at: int) -> Answer | None:
    match = re.match(r"\$\{?(\w*)\}?|%\((\w+)\)s|@(\w+)", line[at:])
    if not match:
        return None
    name = (match[1] or match[2] or match[3] or "name").lower()
    return Answer(
        "E107",
        f"`{match[0]}` is not used in specs",
        f"for a value that may change, write `let {name} = …`; `--set {name}=…` and variants can "
        "change it",
        at,
        at + match.end(),
    )


_ASKED: tuple[Callable[[str, int], Answer | None], ...] = (
    _quotes,
    _sign,
    _statement,
    _evaluation,
    _headed,
    _semicolon,
    _listed,
    _dashed,
    _comment,
    _thousands,
    _ramp,
    _arithmetic,
    _negative,
    _braced,
    _call,
    _path,
    _colon,
    _spaced,
    _variable,
)
