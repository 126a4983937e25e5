"""Corpora that need no download: read from the running Python's sources, or generated.

For a given version of Python and seed, the documents and their order are always the same.
"""

import ast
import io
import itertools
import random
from collections.abc import Iterator
from functools import cache
from typing import Any

from ...errors import DataError
from .python_sources import parse, sources

SAMPLES = ("python_docs", "python_code", "python_functions", "arithmetic", "needles")
GENERATED_DOCUMENTS = 2000
MOST_KEPT = 10_000
"""Generated documents that are kept in memory once they are made: a few MiB."""

_LONGEST_CODE = 64 * 1024

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def documents(sample: str, *, count: int | None, seed: int) -> Iterator[str]:
    """Yields the documents of a sample corpus.

    Args:
        sample: one of SAMPLES.
        count: how many documents at most; None for all documents from Python's sources, and for
            GENERATED_DOCUMENTS of the generated ones.
        seed: for the generated ones and `python_functions`.

    Raises:
        DataError: no such sample, or this Python has no sources.
    """
    if sample == "python_docs" or (sample == "needles" and (count or 0) <= MOST_KEPT):
        return iter(_kept(sample, count, seed))
    return _made(sample, count=count, seed=seed)


@cache
def _kept(sample: str, count: int | None, seed: int) -> tuple[str, ...]:
    """The documents of a small sample, which a tokenizer learns from and a data set then holds."""
    return tuple(_made(sample, count=count, seed=seed))


def _made(sample: str, *, count: int | None, seed: int) -> Iterator[str]:
    match sample:
        case "python_docs":
            return itertools.islice(_docs(), count)
        case "python_code":
            return itertools.islice(_code(), count)
        case "python_functions":
            from . import functions

            return functions.documents(count=count, seed=seed)
        case "arithmetic":
            return _arithmetic(seed, GENERATED_DOCUMENTS if count is None else count)
        case "needles":
            from . import needles

            return needles.documents(seed, GENERATED_DOCUMENTS if count is None else count)
    raise DataError(
        f"there is no sample corpus `{sample}`", f"write one of {', '.join(SAMPLES)} as `sample`"
    )


def records(sample: str, form: str, *, count: int | None, seed: int) -> Iterator[dict[str, Any]]:
    """Yields the records of a sample of dialogs, preferences, ratings, solutions or prompts.

    Args:
        form: "dialogs", "preferences", "ratings", "solutions" or "prompts".
        count, seed: as for `documents`.

    Raises:
        DataError: the sample has no such records.
    """
    if sample == "python_functions":
        from . import functions

        return functions.records(form, count=count, seed=seed)
    if sample == "arithmetic" and form in ("dialogs", "prompts"):
        return _questions(form, seed, GENERATED_DOCUMENTS if count is None else count)
    raise DataError(
        f"the sample corpus `{sample}` has no {form}",
        "write `python_functions` as `sample`, or name `files`",
    )


def _docs() -> Iterator[str]:
    """The topics of `help()`, then the docstrings of public modules, classes and functions."""
    from pydoc_data.topics import topics

    for _, topic in sorted(topics.items()):
        yield topic.strip() + "\n"
    for module, text in sources():
        parts = module.with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if any(part.startswith("_") for part in parts):
            continue
        name = ".".join(parts)
        tree = parse(text)
        if doc := ast.get_docstring(tree):
            yield f"module {name}\n\n{doc}\n"
        for node in tree.body:
            if isinstance(node, _Definition) and (doc := _help(node, f"{name}.", "")):
                yield doc


def _help(node: _Definition, prefix: str, indent: str) -> str:
    """Signature and docstring of a public definition, including its public methods; or ""."""
    doc = ast.get_docstring(node)
    if node.name.startswith("_") or not doc:
        return ""
    inner = indent + "    "
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, node.bases))
        head = f"class {prefix}{node.name}" + (f"({bases})" if bases else "")
    else:
        head = f"{prefix}{node.name}({ast.unparse(node.args)})"
    body = "\n".join((inner + line).rstrip() for line in doc.splitlines())
    methods = [
        _help(child, "", inner)
        for child in (node.body if isinstance(node, ast.ClassDef) else [])
        if isinstance(child, _Definition)
    ]
    return "\n".join([f"{indent}{head}\n{body}\n", *filter(None, methods)])


def _code(longest: int = _LONGEST_CODE) -> Iterator[str]:
    """The source files, long ones in parts that begin at a top-level definition."""
    for _, text in sources():
        yield from split_source(text, longest)


def split_source(text: str, longest: int) -> list[str]:
    """Cuts a source text before top-level definitions into parts of at most `longest` characters.

    A part is longer if a single definition, or the code between two, is. Joined, the parts give
    the text again.
    """
    if len(text) <= longest:
        return [text]
    lines = list(io.StringIO(text, newline="\n"))
    cuts = [0]
    for node in parse(text).body:
        if isinstance(node, _Definition):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1
            while first > cuts[-1] and lines[first - 1].startswith("#"):
                first -= 1
            cuts.append(first)
    pieces = ["".join(lines[a:b]) for a, b in itertools.pairwise([*cuts, len(lines)])]
    parts = [""]
    for piece in pieces:
        if parts[-1] and len(parts[-1]) + len(piece) > longest:
            parts.append("")
        parts[-1] += piece
    return parts


def _arithmetic(seed: int, count: int) -> Iterator[str]:
    """Sums and differences of numbers with one to four digits, 8 to 24 per document."""
    random_numbers = random.Random(f"arithmetic {seed}")
    for _ in range(count):
        problems = [_problem(random_numbers) for _ in range(random_numbers.randint(8, 24))]
        yield "".join(problems)


def _problem(random_numbers: random.Random) -> str:
    a, b = (random_numbers.randrange(10 ** random_numbers.randint(1, 4)) for _ in range(2))
    if random_numbers.random() < 0.5:
        return f"{a} + {b} = {a + b}\n"
    return f"{max(a, b)} - {min(a, b)} = {abs(a - b)}\n"


def _questions(form: str, seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Questions for sums and differences of numbers below 100, with their answers; the same ones in
    the same order as dialogs and as prompts."""
    random_numbers = random.Random(f"arithmetic questions {seed}")
    for _ in range(count):
        a, b = (random_numbers.randrange(100) for _ in range(2))
        plus = random_numbers.random() < 0.5
        more, less = max(a, b), min(a, b)
        asked = f"What is {a} + {b}?" if plus else f"What is {more} - {less}?"
        answer = str(a + b if plus else more - less)
        prompt = [{"role": "user", "content": asked}]
        if form == "prompts":
            yield {"prompt": prompt, "answer": answer}
        else:
            yield {"messages": [*prompt, {"role": "assistant", "content": answer}]}
