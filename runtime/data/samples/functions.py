"""The sample `python_functions`: requests for functions of the standard library, and answers.

The rejected answer of a preference is the function with faults that any reader can see.
"""

import ast
import itertools
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from . import python_sources

LONGEST = 400
"""Characters of the longest function, without its docstring."""

EDITED = 3
"""One in this many preferences has a third, edited response."""

GOOD = 0.5
"""The share of rated answers that are good, and of those in steps that have no wrong one."""

_OPERATORS = {
    "==": "!=",
    "!=": "==",
    "<=": ">",
    ">=": "<",
    "<": ">=",
    ">": "<=",
    "+": "-",
    "-": "+",
    " and ": " or ",
    " or ": " and ",
    " is not ": " is ",
    " not in ": " in ",
    " is ": " is not ",
}
_OPERATOR = re.compile("|".join(re.escape(each) for each in sorted(_OPERATORS, key=len)[::-1]))


@dataclass(frozen=True)
class Function:
    """A function: the request for it and its source.

    Attributes:
        question: asks for it by signature and the first line of its docstring.
        answer: its source, without the docstring.
    """

    question: str
    answer: str


def documents(*, count: int | None, seed: int) -> Iterator[str]:
    """Question and answer of each function, as one text."""
    for function in itertools.islice(functions(seed), count):
        yield f"{function.question}\n\n{function.answer}\n"


def records(form: str, *, count: int | None, seed: int) -> Iterator[dict[str, Any]]:
    """Records with the default field names.

    Args:
        form: "dialogs", "preferences", "ratings", "solutions" or "prompts".
        count: how many at most; None for all.
        seed: decides the order and the faults.
    """
    for number, function in enumerate(itertools.islice(functions(seed), count)):
        prompt = [{"role": "user", "content": function.question}]
        answer = {"role": "assistant", "content": function.answer}
        if form == "prompts":
            yield {"prompt": prompt}
        elif form == "dialogs":
            yield {"messages": [*prompt, answer]}
        elif form == "ratings":
            rng = random.Random(f"python_functions {seed} {number}")
            good = rng.random() < GOOD
            text = function.answer if good else spoiled(function.answer, rng, faults=3)
            rated = {"completion": [{"role": "assistant", "content": text}], "label": good}
            yield {"prompt": prompt, **rated}
        elif form == "solutions":
            rng = random.Random(f"python_functions {seed} {number}")
            yield {"prompt": prompt, **_in_steps(function.answer, rng)}
        else:
            rng = random.Random(f"python_functions {seed} {number}")
            yield {"prompt": prompt, **_ranked(function.answer, rng)}


def _in_steps(answer: str, rng: random.Random) -> dict[str, Any]:
    """A function line by line; from the first line with a fault on, they are wrong."""
    said = answer if rng.random() < GOOD else spoiled(answer, rng, faults=1)
    steps = said.splitlines()
    right = [*itertools.accumulate(map(str.__eq__, steps, answer.splitlines()), min)]
    return {"completions": steps, "labels": [*right, *[False] * (len(steps) - len(right))]}


def _ranked(answer: str, rng: random.Random) -> dict[str, Any]:
    bad = spoiled(answer, rng, faults=3)
    light = spoiled(answer, rng, faults=1)
    texts = {"chosen": answer, "rejected": bad}
    if rng.randrange(EDITED) == 0 and light != bad:
        texts = {"chosen": light, "rejected": bad, "edited": answer}
    return {key: [{"role": "assistant", "content": text}] for key, text in texts.items()}


def functions(seed: int) -> list[Function]:
    """Short functions and methods with a docstring, each answer once; the seed sets the order."""
    order = list(_all())
    random.Random(f"python_functions {seed}").shuffle(order)
    return order


@lru_cache(maxsize=1)
def _all() -> tuple[Function, ...]:
    found: dict[str, Function] = {}
    for module, text in python_sources.sources():
        if not any(re.match(r"_[^_]", part) for part in module.parts):
            found |= {function.answer: function for function in _in_module(text)}
    return tuple(found.values())


def _in_module(text: str) -> Iterator[Function]:
    tree = python_sources.parse(text)
    lines = text.splitlines()
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in itertools.chain(tree.body, *(each.body for each in classes)):
        if isinstance(node, ast.FunctionDef) and (function := _function(node, lines)):
            yield function


def _function(node: ast.FunctionDef, lines: list[str]) -> Function | None:
    doc = ast.get_docstring(node)
    if not doc or not doc.strip() or len(node.body) < 2:
        return None
    first, after = node.body[0], node.body[1]
    begin, end = first.lineno, first.end_lineno or first.lineno
    # The docstring must be alone on its lines.
    if begin == node.lineno or after.lineno == end:
        return None
    source = [*lines[node.lineno - 1 : begin - 1], *lines[end : node.end_lineno]]
    if any(line[: node.col_offset].strip() for line in source):
        return None
    kept = [line[node.col_offset :].rstrip() for line in source]
    answer = "\n".join(line for line in kept if line)
    if len(answer) > LONGEST or "\t" in answer or not _is_python(answer):
        return None
    signature = f"{node.name}({ast.unparse(node.args)})"
    asked = doc.strip().splitlines()[0].strip()
    if asked.startswith(">>>"):
        return None
    return Function(f"Write the Python function {signature}.\n{asked}", answer)


def _is_python(source: str) -> bool:
    try:
        python_sources.parse(source)
    except SyntaxError:
        return False
    return True


def spoiled(source: str, rng: random.Random, *, faults: int) -> str:
    """A function with faults; never the function itself.

    Args:
        faults: 1 for one that is easily overlooked, more for gross ones.
    """
    ways: list[Callable[[str, random.Random], str]]
    ways = [_renamed, _inverted] if faults == 1 else [_swapped, _dedented, _cut, _repeated]
    text = source
    for way in rng.sample(ways, min(faults, len(ways))):
        text = way(text, rng)
    return text if text != source else source + "\n    return source"


def _renamed(source: str, rng: random.Random) -> str:
    """One use of a variable reads another one, or an undefined one."""
    names = [node for node in ast.walk(python_sources.parse(source)) if isinstance(node, ast.Name)]
    if not names:
        return _inverted(source, rng)
    node = rng.choice(names)
    others = sorted({each.id for each in names} - {node.id}) or [node.id + "_"]
    lines = source.split("\n")
    # AST columns count bytes.
    line = lines[node.lineno - 1].encode()
    end = node.col_offset + len(node.id.encode())
    new = line[: node.col_offset] + rng.choice(others).encode() + line[end:]
    lines[node.lineno - 1] = new.decode()
    return "\n".join(lines)


def _inverted(source: str, rng: random.Random) -> str:
    """One operator is inverted, or the result is lost."""
    found = list(_OPERATOR.finditer(source))
    if not found:
        return source.replace("return ", "", 1)
    match = rng.choice(found)
    return source[: match.start()] + _OPERATORS[match[0]] + source[match.end() :]


def _swapped(source: str, rng: random.Random) -> str:
    """Two lines are swapped."""
    lines = source.split("\n")
    if len(lines) > 2:
        i, j = rng.sample(range(1, len(lines)), 2)
        lines[i], lines[j] = lines[j], lines[i]
    return "\n".join(lines)


def _dedented(source: str, rng: random.Random) -> str:
    """A line of the body has an invalid indentation."""
    lines = source.split("\n")
    row = rng.randrange(1, len(lines)) if len(lines) > 1 else 0
    lines[row] = lines[row].lstrip() if lines[row].startswith(" ") else "  " + lines[row]
    return "\n".join(lines)


def _cut(source: str, rng: random.Random) -> str:
    """The end is missing."""
    return source[: max(1, int(len(source) * rng.uniform(0.3, 0.7)))].rstrip()


def _repeated(source: str, rng: random.Random) -> str:
    """A line is repeated several times."""
    lines = source.split("\n")
    row = rng.randrange(len(lines))
    return "\n".join(lines[: row + 1] + [lines[row]] * rng.randint(2, 4) + lines[row + 1 :])
