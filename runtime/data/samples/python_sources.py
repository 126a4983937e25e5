"""Source files of the running Python's standard library, parsed and never imported."""

import ast
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

from ...errors import DataError

# Tests and demos, data tables in the form of code, and the topics of `pydoc`, which `python_docs`
# reads separately.
_SKIPPED = {"test", "tests", "idlelib", "turtledemo", "encodings", "pydoc_data", "__pycache__"}


def sources() -> Iterator[tuple[Path, str]]:
    """The standard library's modules: path relative to the library, and source text."""
    library = Path(sysconfig.get_path("stdlib"))
    found = False
    for path in _source_files(library):
        module = path.relative_to(library)
        if not _SKIPPED.isdisjoint(module.parts):
            continue
        try:
            with tokenize.open(path) as file:
                text = file.read()
        except (OSError, SyntaxError, UnicodeDecodeError):
            continue
        if text.strip():
            found = True
            yield module, text
    if not found:
        raise DataError(
            f"this Python has no standard library sources in {library}",
            "use a Python that includes them, or another data set",
        )


def _source_files(library: Path) -> Iterator[Path]:
    """The library's own files in order; anything else installed below it is skipped."""
    for name in sorted(sys.stdlib_module_names):
        if (library / f"{name}.py").is_file():
            yield library / f"{name}.py"
        yield from sorted((library / name).rglob("*.py"))


def parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)
