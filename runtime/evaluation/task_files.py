"""Task files of lm-evaluation-harness in a folder beside a spec: read, and kept from running code.

The harness trusts task files: a tag `!function` runs Python, templates can call anything, and some
formats of data are pickles. Files beside a spec may come from anywhere, so none of that is allowed
there. The harness's own tasks are part of its installation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from jinja2 import BaseLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..errors import DataError

UNPICKLED = ("pandas", "webdataset")
"""Readers of the library `datasets` that load pickles."""


class _Loader(yaml.SafeLoader):
    """Refuses all tags that could run something."""


def _refuse(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    raise yaml.constructor.ConstructorError(
        None, None, f"`!{suffix}` would run a program", node.start_mark
    )


_Loader.add_multi_constructor("!", _refuse)


def check(folder: Path) -> None:
    """Reads every task file, because the harness skips those that it cannot read.

    Raises: DataError: a file is no task, or would run a program or read one.
    """
    for path in sorted(folder.rglob("*.yaml")):
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as problem:
            mark = getattr(problem, "problem_mark", None)
            place = f"{path}:{mark.line + 1}" if mark else str(path)
            reason = getattr(problem, "problem", None) or problem
            raise DataError(f"{place}: the task file cannot be read: {reason}", "fix it") from None
        if not isinstance(content, dict):
            raise DataError(
                f"{path}: the task file has no task", "write `task: NAME`, or remove the file"
            )
        if content.get("dataset_path") in UNPICKLED:
            raise DataError(
                f"{path}: `dataset_path: {content['dataset_path']}` reads pickles, which can hold "
                "programs",
                "convert the data to JSON lines, and write `dataset_path: json`",
            )
        for name in _included(content):
            target = (path.parent / name).resolve()
            if target.suffix != ".yaml" or not target.is_relative_to(folder):
                raise DataError(
                    f"{path}: it includes {name}, which is not a .yaml file in {folder}",
                    "copy the file into the folder",
                )


def _included(content: dict[Any, Any]) -> list[str]:
    found = content.get("include")
    return [str(each) for each in (found if isinstance(found, list) else [found]) if each]


@contextmanager
def sandboxed() -> Iterator[None]:
    """Has the harness render templates in Jinja's sandbox meanwhile; it has none of its own."""
    utils: Any = import_module("lm_eval.utils")
    before = utils.env
    safe = ImmutableSandboxedEnvironment(
        loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True
    )
    safe.filters["regex_replace"] = before.filters["regex_replace"]
    utils.env = safe
    try:
        yield
    finally:
        utils.env = before
