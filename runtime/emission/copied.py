"""Copies definitions from the engine's modules as text, with the imports that they need.

The modules are parsed but never imported, since they import torch.
"""

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypeGuard

FAMILIES = Path(__file__).parents[1] / "engine" / "families"
"""The folder of the family modules and their `parts`."""
FRAME = Path(__file__).with_name("frame.py")
WIDTH = 100
"""Of a line, in characters."""


class Import(NamedTuple):
    """An imported name: its module, its name there, and its name here."""

    module: str
    name: str
    here: str


class Source(NamedTuple):
    """A module's text: its imports by the names that they bind, and its definitions.

    Attributes:
        imports: those from other packages; the package's own are left out.
        texts: name → the text that defines it, with the docstring below it.
        nodes: name → the same, parsed.
    """

    imports: Mapping[str, Import]
    texts: Mapping[str, str]
    nodes: Mapping[str, ast.stmt]


class Builder(NamedTuple):
    """How torchtitan's models of a family are built: names in the family's module.

    Attributes:
        build: the function that makes a model's configuration.
        takes: the names of its arguments.
        parallelize, adapter: torchtitan's function and class.
    """

    build: str
    takes: tuple[str, ...]
    parallelize: str
    adapter: str


@cache
def source(path: Path) -> Source:
    """Reads a module."""
    text = path.read_text(encoding="utf-8")
    imports, texts, nodes = {}, {}, {}
    body = ast.parse(text).body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.Import):
            for each in statement.names:
                imports[each.asname or each.name] = Import("", each.name, each.asname or each.name)
        elif isinstance(statement, ast.ImportFrom) and not statement.level:
            for each in statement.names:
                here = each.asname or each.name
                imports[here] = Import(statement.module or "", each.name, here)
        elif name := _defined(statement):
            nodes[name] = statement
            texts[name] = ast.get_source_segment(text, statement) or ""
            if isinstance(statement, ast.Assign) and _is_text(following):
                texts[name] += "\n" + (ast.get_source_segment(text, following) or "")
    return Source(imports, texts, nodes)


def builder(family: str) -> Builder:
    """The `FAMILY` of a family's module."""
    found = source(FAMILIES / f"{family}.py")
    said = found.nodes["FAMILY"]
    assert isinstance(said, ast.Assign)
    assert isinstance(said.value, ast.Call)
    names = {of.arg: of.value.id for of in said.value.keywords if isinstance(of.value, ast.Name)}
    build = found.nodes[names["build"]]
    assert isinstance(build, ast.FunctionDef)
    takes = tuple(argument.arg for argument in build.args.kwonlyargs)
    return Builder(names["build"], takes, names["parallelize"], names["adapter"])


def rooms(family: str) -> list[Path]:
    """The modules of a family: those beside its own, whose names begin with its name, then that."""
    return [*sorted(FAMILIES.glob(f"{family}_*.py")), FAMILIES / f"{family}.py"]


def needed(text: str, families: Iterable[str], others: Iterable[Import]) -> str:
    """The code that a Python text needs before it: imports, and definitions from the modules of
    families, their parts and the frame.

    Args:
        others: imports for names that these modules do not define.
    """
    shared = [FRAME, FAMILIES / "parts.py", FAMILIES / "latent.py"]
    paths = [*shared, *(path for name in families for path in rooms(name))]
    sources = [source(path) for path in paths]
    known = {each.here: each for each in others}
    wanted, imports, defined = [*_names(ast.parse(text))], set(), set()
    while wanted:
        name = wanted.pop()
        of = next((of for of in sources if name in of.texts), None)
        if of and name not in defined:
            defined.add(name)
            wanted += _names(of.nodes[name])
            imports |= {of.imports[n] for n in _names(of.nodes[name]) if n in of.imports}
        elif of is None:
            imports |= {
                found[name]
                for found in (known, *(each.imports for each in sources))
                if name in found
            }
    return "\n".join([*_imports(imports), "", *_definitions(sources, defined)])


def _definitions(sources: list[Source], names: set[str]) -> Iterator[str]:
    for of in sources:
        for name, text in of.texts.items():
            if name in names:
                long = isinstance(of.nodes[name], ast.FunctionDef | ast.ClassDef)
                yield ("\n\n" if long else "") + text


def _imports(imports: Iterable[Import]) -> Iterator[str]:
    """Import statements, the standard library's first."""
    found = sorted(imports, key=_order)
    for _, section in groupby(found, key=lambda each: _order(each)[0]):
        yield ""
        for (module, aliased), group in groupby(section, key=_group):
            names = list(group)
            if not module:
                yield from (
                    f"import {e.name}" + f" as {e.here}" * (e.here != e.name) for e in names
                )
            elif aliased:
                yield from (f"from {module} import {e.name} as {e.here}" for e in names)
            else:
                yield from _statement(module, [each.name for each in names])


def _group(each: Import) -> tuple[str, bool]:
    return each.module, each.here != each.name


def _statement(module: str, names: list[str]) -> Iterator[str]:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= WIDTH:
        yield line
        return
    yield f"from {module} import ("
    yield from (f"    {name}," for name in names)
    yield ")"


def _order(each: Import) -> tuple[bool, bool, str, bool, int, str]:
    """Ruff's order: the standard library, whole modules, modules; then constants and classes."""
    package = (each.module or each.name).partition(".")[0]
    kind = 0 if each.name.isupper() else 1 if each.name[0].isupper() else 2
    return (
        package not in sys.stdlib_module_names,
        bool(each.module),
        each.module,
        each.here == each.name,
        kind,
        each.name,
    )


def _defined(statement: ast.stmt) -> str | None:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return statement.name
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id
    return None


def _is_text(statement: ast.stmt | None) -> TypeGuard[ast.Expr]:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _names(node: ast.AST) -> set[str]:
    """Names that a piece of code reads, except those that it binds itself."""
    found = [each for each in ast.walk(node) if isinstance(each, ast.Name)]
    bound = {each.id for each in found if isinstance(each.ctx, ast.Store)}
    bound |= {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}
    bound |= {each.name for each in ast.walk(node) if isinstance(each, ast.FunctionDef)}
    return {each.id for each in found if isinstance(each.ctx, ast.Load)} - bound
