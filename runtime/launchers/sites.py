"""Site files: TOML files about a user's account on a cluster, separate from any spec.

    [slurm]
    partition = "gpu"
    time      = "24:00:00"

Each engine has its own table. The files are in the user's configuration folder
(`~/.config/etude/sites/NAME.toml` on Linux), or wherever `--site FILE` points.
"""

import difflib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from platformdirs import user_config_path
from pydantic import BaseModel, ValidationError

from ...compiler.files.urls import has_secret
from ..errors import RunError

ENGINES = ("slurm", "kubernetes", "skypilot")
"""The tables that a site file may have."""
STORED = "stored"
"""In the context of validation: whether the run folder is in a store."""
_SECRET = re.compile(
    r"(^|_)(TOKEN|PASSWORD|PASSWD|SECRET|CONNECTION_STRING|(API|ACCESS|ACCOUNT|SECRET|PRIVATE)_KEY)$",
    re.IGNORECASE,
)
"""The ends of names of variables that must not be written to a script or a manifest."""
_SAFE = {
    "slurm": "remove it there; jobs get it from the shell that launches, or from ~/.aws",
    "kubernetes": 'put it into a Secret of the namespace, and name that: secrets = ["NAME"]',
    "skypilot": 'remove it there, and name it below [skypilot]: secrets = ["NAME"]',
}
Table = TypeVar("Table", bound=BaseModel)


def folder() -> Path:
    """The folder of named site files."""
    return user_config_path("etude") / "sites"


def find(name: str | None) -> Path | None:
    """The file of a site: by name, by path, or the only one there is.

    Raises: RunError: none has that name, or there are several and no name is given.
    """
    named = {path.stem: path for path in sorted(folder().glob("*.toml"))}
    if name is None:
        if len(named) > 1:
            raise RunError(
                f"there are several sites: {', '.join(named)}",
                f"choose one: --site {next(iter(named))}",
            )
        return next(iter(named.values()), None)
    path = named.get(name) or Path(name)
    if not path.is_file():
        near = difflib.get_close_matches(name, list(named), 1)
        raise RunError(
            f"there is no site `{name}`, as a file or in {folder()}",
            f"did you mean `{near[0]}`?" if near else "`etude new --on ENGINE` writes a template",
        )
    return path


def read(path: Path | None, engine: str, table: type[Table], *, stored: bool = False) -> Table:
    """The table of an engine in a site file; the defaults if the file or table does not exist.

    Args:
        table: the model of the engine's table.
        stored: whether the run folder is in a store, so that the table need not say where it is.

    Raises: RunError: the file cannot be read, or has an invalid key or value, with its line.
    """
    try:
        text = path.read_text(encoding="utf-8") if path else ""
        said = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as problem:
        raise RunError(
            f"the site file {path} cannot be read: {problem}", "choose another one with --site"
        ) from None
    except tomllib.TOMLDecodeError as problem:
        raise RunError(
            f"the site file {path} is not TOML: {problem}", 'write a line as: partition = "gpu"'
        ) from None
    for name in said:
        if name not in ENGINES:
            raise RunError(
                f"{path}:{_line(text, [name])}: a site file has no key `{name}` at its top",
                _near(name, ENGINES, f"write it below [{engine}]"),
            )
    try:
        found = table.model_validate(said.get(engine, {}), context={STORED: stored})
    except ValidationError as problem:
        raise _wrong(path, text, engine, table, problem) from None
    for name, value in dict(getattr(found, "environment", ())).items():
        if _SECRET.search(name) or has_secret(str(value)):
            line = _line(text, [engine, "environment", name])
            raise RunError(
                f"{path}:{line}: `{name}` is a secret, or has one in it, and what `environment` "
                "has is written to files",
                _SAFE[engine],
            )
    return found


def _wrong(
    path: Path | None, text: str, engine: str, table: type[BaseModel], problem: ValidationError
) -> RunError:
    """The first problem, and the number of others."""
    # An unknown key is often a misspelling of a missing one.
    first, *more = sorted(problem.errors(), key=lambda each: each["type"] != "extra_forbidden")
    where = [str(part) for part in first["loc"] if part != "[key]"]
    key = ".".join(where)
    others = f" (and {len(more)} more)" if more else ""
    said = first["msg"].removeprefix("Value error, ")
    if path is None:
        needs = f"[{engine}] must set `{key}`" if key else f"[{engine}]: {said}"
        return RunError(
            f"a site file is needed, and there is none: {needs}",
            f"`etude new --on {engine}` writes a template",
        )
    place = f"{path}:{_line(text, [engine, *where])}"
    if not where:  # a problem between keys
        return RunError(f"{place}: [{engine}]: {said}", "correct the table, and launch again")
    of = _model(table, where)
    if first["type"] in ("extra_forbidden", "literal_error") and where[-1] not in of.model_fields:
        known = list(of.model_fields)
        message = f"[{'.'.join([engine, *where[:-1]])}] has no key `{where[-1]}`"
        return RunError(
            f"{place}: {message}{others}",
            _near(where[-1], known, f"possible keys: {', '.join(known)}"),
        )
    if first["type"] == "missing":
        said = "is missing"
    elif first["type"] != "value_error":
        said = f"is wrong: {said[:1].lower()}{said[1:]}"
    message, _, help = said.partition("; ")
    about = of.model_fields.get(where[-1])
    meant = f"`{where[-1]}`: {about.description}" if about and about.description else ""
    return RunError(f"{place}: `{key}` {message}{others}", help or meant)


def _near(name: str, known: Sequence[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean `{near[0]}`?" if near else otherwise


def _model(table: type[BaseModel], where: Sequence[str]) -> type[BaseModel]:
    """The model of the innermost table that contains a key."""
    model = table
    for name in where[:-1]:
        field = model.model_fields.get(name)
        inner = [field.annotation] if field else []
        while inner:
            each = inner.pop()
            if isinstance(each, type) and issubclass(each, BaseModel):
                model = each
                break
            inner += getattr(each, "__args__", ())
    return model


def _line(text: str, where: Sequence[str]) -> int:
    """The line of a key; if the key is missing, the line of its table."""
    table: list[str] = []
    best, deepest = 1, 0
    for number, line in enumerate(text.splitlines(), 1):
        head = re.match(r"\s*\[\[?([^\]]+)\]", line)
        key = re.match(r"\s*([\w.-]+)\s*=", line)
        if not head and not key:
            continue
        if head:
            table = [part.strip(" \"'") for part in head[1].split(".")]
        full = table + (key[1].split(".") if key else [])
        shared = 0
        while shared < min(len(full), len(where)) and full[shared] == where[shared]:
            shared += 1
        if shared > deepest and shared >= min(len(full), len(where)):
            best, deepest = number, shared
    return best
