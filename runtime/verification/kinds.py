"""The kinds of verifiers: each is a function from an answer to a score.

They run in a process of their own (`child.py`) that imports nothing else of etude, because an
answer can make any of them run for ever or take all memory.
"""

import json
import logging
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from .instructions import follows

Settings = Mapping[str, Any]
"""A verifier of the plan, as JSON."""
Score = Callable[[Sequence[str], str], float]
"""(right answers of the record, answer) → 0 to 1."""

_ANCHORED = re.compile(r"\\boxed|\\\(|\\\[|\$|\\begin\{")
"""What tells that a text has an expression in LaTeX, and prose around it."""


_FENCED = re.compile(r"^```(?:python|py|python3)?[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


class Faulty(Exception):
    """A verifier that cannot be used, whatever the answer.

    Attributes:
        message, help: for people.
    """

    def __init__(self, message: str, help: str) -> None:
        super().__init__(message)
        self.message, self.help = message, help


def scorer(settings: Settings, root: Path) -> Score:
    """The function of a verifier.

    Args:
        root: the folder of the spec, which paths are relative to.

    Raises: Faulty: its schema cannot be read.
    """
    match settings["kind"]:
        case "math":
            return partial(_math, _part(settings))
        case "exact":
            return partial(_exact, _part(settings), _fold(settings))
        case "choice":
            fold = _fold(settings)
            options = {fold(option.strip()): option for option in settings["options"]}
            return partial(_choice, _part(settings), fold, options)
        case "regex":
            return partial(_matches, _expression(settings).search)
        case "format":
            return partial(_matches, _expression(settings).fullmatch)
        case "length":
            most, soft = settings.get("most"), settings.get("soft") or 0
            return partial(_length, settings.get("least") or 0, most, soft)
        case "json_schema":
            return partial(_json, _validator(settings["schema_file"], root))
        case "python_tests":
            return _python
        case "ifeval":
            return follows
        case kind:
            raise Faulty(f"there is no verifier of kind `{kind}`", "plan again")


def option(settings: Settings, answer: str) -> str | None:
    """The option of a verifier of kind `choice` that a record's answer means; None if it is none.

    A whole number that is no option is the place of one, counted from 0.
    """
    fold = _fold(settings)
    options: list[str] = settings["options"]
    answer = answer.strip()
    found = [each for each in options if fold(each.strip()) == fold(answer)]
    if not found and answer.isascii() and answer.isdigit() and int(answer) < len(options):
        return options[int(answer)]
    return found[0] if found else None


def _part(settings: Settings) -> Callable[[str], str | None]:
    """From an answer to the part that counts; None if the answer does not have it."""
    extract = settings.get("extract")
    if extract is None:
        return str.strip
    return partial(_last, re.compile(extract))


def _last(expression: re.Pattern[str], text: str) -> str | None:
    found = deque(expression.finditer(text), maxlen=1)
    return found[0][1].strip() if found and found[0][1] is not None else None


def _fold(settings: Settings) -> Callable[[str], str]:
    return str.casefold if settings.get("ignore_case") else str


def _expression(settings: Settings) -> re.Pattern[str]:
    """A pattern; `.` matches line ends, since answers have lines."""
    case = re.IGNORECASE if settings.get("ignore_case") else re.NOFLAG
    return re.compile(settings["pattern"], re.DOTALL | case)


def _exact(
    part: Callable[[str], str | None], fold: Callable[[str], str], right: Sequence[str], text: str
) -> float:
    given = part(text)
    if given is None:
        return 0.0
    return float(any(fold(given) == fold(_own(part, each)) for each in right))


def _own(part: Callable[[str], str | None], answer: str) -> str:
    """The part of a record's own answer that counts, by default all of it."""
    found = part(answer)
    return answer.strip() if found is None else found


def _choice(
    part: Callable[[str], str | None],
    fold: Callable[[str], str],
    options: Mapping[str, str],
    right: Sequence[str],
    text: str,
) -> float:
    given = part(text)
    if given is None:
        return 0.0
    said = fold(given)
    # "(B)." is B; "C++" stays what it is.
    chosen = options.get(said) or options.get(re.sub(r"^\W+|\W+$", "", said))
    settings = {"options": list(options.values()), "ignore_case": fold is str.casefold}
    return float(chosen is not None and any(option(settings, each) == chosen for each in right))


def _matches(match: Callable[[str], Any], right: Sequence[str], text: str) -> float:
    return float(match(text) is not None)


def _length(least: int, most: int | None, soft: int, right: Sequence[str], text: str) -> float:
    """The gradual end is that of DAPO (arXiv:2503.14476, eq. 13), in words and a score higher by 1,
    which no advantage within a group notices."""
    words = len(text.split())
    if words < least or (most is not None and words > most):
        return 0.0
    return min(1.0, (most - words) / soft) if most is not None and soft else 1.0


def _math(part: Callable[[str], str | None], right: Sequence[str], text: str) -> float:
    """Compares by math-verify, which this process interrupts itself."""
    from math_verify import verify

    given = part(text)
    if given is None:
        return 0.0
    own = [_own(part, each) for each in right]
    if given in own:
        return 1.0
    # A part that was extracted is an expression; a whole answer may be a solution in prose.
    written = _expressed(given) if given != text.strip() else _read(text)
    return float(any(verify(list(_gold(one)), written, timeout_seconds=None) for one in own))


@lru_cache(maxsize=4096)
def _gold(answer: str) -> tuple[Any, ...]:
    return tuple(_expressed(answer))


def _expressed(answer: str) -> list[Any]:
    """An expression, in LaTeX or plain."""
    return _read(answer if _ANCHORED.search(answer) else f"\\boxed{{{answer}}}")


def _read(text: str) -> list[Any]:
    from math_verify import parse

    return parse(text, parsing_timeout=None)  # pyright: ignore[reportArgumentType]


def code_in(text: str) -> str:
    """The program in an answer: its last fenced block of Python or of no language, or all of it."""
    found = _FENCED.findall(text)
    return found[-1] if found else text


def _python(right: Sequence[str], text: str) -> float:
    """Runs the answer's program and then all tests of the record, in a sandbox."""
    from .sandbox import passes

    return float(passes(code_in(text), "\n".join(right)))


def prepare(settings: Settings) -> None:
    """Imports what a verifier needs, so that no answer pays for it.

    Raises: Faulty: there is no sandbox for programs on this machine.
    """
    if settings["kind"] == "python_tests":
        from .sandbox import NoSandbox, require

        try:
            require()
        except NoSandbox as problem:
            raise Faulty(problem.message, problem.help) from None
    if settings["kind"] == "math":
        logging.disable(logging.CRITICAL)  # it logs what it cannot read
        _math(str.strip, ["1"], "1.0")


def _validator(file: str, root: Path) -> Any:
    """Raises: Faulty: the file cannot be read, or has no JSON Schema."""
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for
    from jsonschema_specifications import REGISTRY

    fix = f"correct {file}, as https://json-schema.org says"
    try:
        schema = json.loads((root / file).read_text(encoding="utf-8"))
        kind = validator_for(schema)
        kind.check_schema(schema)
    except OSError as problem:
        raise Faulty(f"the schema {file} cannot be read: {problem.strerror}", fix) from None
    except SchemaError as problem:
        raise Faulty(f"{file} is no JSON Schema: {problem.message}", fix) from None
    except (ValueError, RecursionError) as problem:
        raise Faulty(f"{file} is not JSON: {problem}", fix) from None
    outside = next((ref for ref in _references(schema) if not ref.startswith("#")), None)
    if outside:
        raise Faulty(
            f"{file} refers to `{outside}`, and only its own parts can be read",
            'copy what it refers to into `$defs` of the schema: `"$ref": "#/$defs/NAME"`',
        )
    # A registry of its own: by default the library would fetch references from the network.
    validator = kind(schema, registry=REGISTRY)
    try:
        for each in (None, True, 0, "", [], {}):
            validator.is_valid(each)
    except Exception as problem:
        reason = str(problem).partition("\n")[0]
        raise Faulty(f"{file} has a reference that leads nowhere: {reason}", fix) from None
    return validator


def _references(schema: Any) -> list[str]:
    if isinstance(schema, Mapping):
        own = [of for key, of in schema.items() if key == "$ref" and isinstance(of, str)]
        return own + [ref for of in schema.values() for ref in _references(of)]
    return [ref for of in schema for ref in _references(of)] if isinstance(schema, list) else []


def _json(validator: Any, right: Sequence[str], text: str) -> float:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return 0.0
    return float(validator.is_valid(value))


def _no_constant(name: str) -> None:
    """Raises: ValueError: NaN and Infinity are not JSON."""
    raise ValueError(name)
