"""Writes etude/blocks.py and etude/stage_blocks.py, the models of blocks for Python, from the
schema: `python docs/python_models.py`."""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from etude.spec.schema import group_kinds as g
from etude.spec.schema import kinds as k
from etude.spec.schema import number_kinds as nk
from etude.spec.schema import recipe as r
from etude.spec.schema.convert_schedule import ScheduleOf
from etude.spec.schema.precision import Recompute

FOLDER = Path(__file__).resolve().parents[1] / "etude"
HEAD = '''"""The models of {what}: those of `etude.build`.

Written by `python docs/python_models.py` from the schema of the language; not to be edited.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from .attributes import {attributes}
{more}
'''
SHARED = (
    "EXCEPT",
    "FIELDS",
    "FROM",
    "SCHEMA",
    "Attributes",
    "Block",
    "Budget",
    "Flag",
    "Let",
    "Name",
    "Names",
    "Number",
    "Numbers",
    "Schedule",
    "Text",
    "Texts",
)
"""What the models may need of `etude/attributes.py`."""
ALIASES = {
    "from": ("from_", "FROM"),
    "fields": ("fields_", "FIELDS"),
    "schema": ("schema_", "SCHEMA"),
    "except": ("except_", "EXCEPT"),
}
"""Attribute → its name in Python, and the field that has both."""
MORE: dict[type[r.Declaration], tuple[tuple[str, str, str], ...]] = {
    r.Gate: (
        ("require", "list[str]", "conditions such as `loss(short) <= 105% of start`"),
        ("otherwise", "str | None = None", "as in `extend 100k tokens at most 2 times`"),
    )
}
"""Statements of a block that are not attributes: name, type, description."""


def texts() -> dict[str, str]:
    """The modules: file name → text."""
    models = list(dict.fromkeys(_models([*r.BLOCKS.values(), *r.STAGES.values()])))
    stages = [model for model in models if issubclass(model, r.Stage)]
    others = [model for model in models if model not in stages]
    kinds = " | ".join(model.__name__ for model in r.STAGES.values())
    every = f"AnyStage: TypeAlias = Annotated[{kinds}, {_BY_KIND}]"
    names = [model.__name__ for model in others]
    return {
        "blocks.py": _module("blocks and groups", map(_class, others)),
        "stage_blocks.py": _module("stages", [*map(_class, stages), every], names),
    }


def _module(what: str, parts: Iterable[str], blocks: Iterable[str] = ()) -> str:
    """
    Args:
        blocks: the models that it may need of `blocks.py`.
    """
    body = "\n\n".join(parts)
    used = set(re.findall(r"\w+", body))
    shared, groups = (", ".join(n for n in of if n in used) for of in (SHARED, blocks))
    more = f"from .blocks import {groups}" if groups else ""
    made = HEAD.format(what=what, attributes=shared, more=more) + f"\n\n{body}\n"
    ruff = Path(sys.executable).with_name("ruff")
    name = ["--stdin-filename", FOLDER / "blocks.py", "-"]
    # The imports that it does not need go, and long lines of names are wrapped.
    for command in (["check", "--fix-only", "--quiet"], ["format", "--quiet"]):
        done = subprocess.run(
            [ruff, *command, *name], input=made, capture_output=True, text=True, check=True
        )
        made = done.stdout
    return made


_BY_KIND = 'Field(discriminator="kind")'


def _models(models: Iterable[type[r.Declaration]]) -> Iterator[type[r.Declaration]]:
    """The models, each after its base and the groups that it contains."""
    for model in models:
        base = model.__mro__[1]
        if base is not r.Declaration:
            yield from _models([base])
        groups = (of.kind.model for of in r.attributes(model).values())
        yield from _models(group for group in groups if group and group is not r.Polyak)
        yield model


def _class(model: type[r.Declaration]) -> str:
    base = model.__mro__[1]
    tags = _tags(model)
    parent = base.__name__ if base is not r.Declaration else "Attributes" if tags else "Block"
    above = {} if base is r.Declaration else {**r.attributes(base), **r.statements(base)}
    own = {**r.attributes(model), **r.statements(model)}
    lines = [_docstring(model)]
    if tags:
        lines.append(f'kind: Literal[{", ".join(map(repr, tags))}] = "{tags[0]}"')
    elif model in r.STAGES.values():
        lines.append(f'kind: Literal["{model.kind}"] = "{model.kind}"')  # type: ignore[attr-defined]
    lines += [f"{name}: {annotation}" for name, annotation, _ in MORE.get(model, ())]
    for name, attribute in own.items():
        line = _field(name, attribute)
        if name not in above or line != _field(name, above[name]):
            lines.append(line)
    return f"class {model.__name__}({parent}):\n    " + "\n    ".join(lines) + "\n"


def _docstring(model: type[r.Declaration]) -> str:
    about = (model.__doc__ or "").partition("\n\n")[0].strip()
    said = [f"{n}: statements such as `{of.kind.example}`." for n, of in _sentences(model)]
    said += [f"{name}: {what}." for name, _, what in MORE.get(model, ())]
    if not said:
        return f'"""{about}"""\n'
    return "\n    ".join([f'"""{about}\n\n    Attributes:', *(f"    {s}" for s in said), '"""\n'])


def _sentences(model: type[r.Declaration]) -> Iterator[tuple[str, r.Attribute]]:
    return ((n, of) for n, of in r.statements(model).items() if isinstance(of.kind, g.Filters))


def _tags(model: type[r.Declaration]) -> tuple[str, ...]:
    """The kinds of a group that has one, `adamw { … }`."""
    owners = (*r.BLOCKS.values(), *r.STAGES.values())
    kinds = (of.kind for owner in owners for of in r.attributes(owner).values())
    found = (kind.tags for kind in kinds if isinstance(kind, g.Tagged) and kind.holds is model)
    return next(found, ())


def _field(name: str, attribute: r.Attribute) -> str:
    if isinstance(attribute.kind, g.Mark):
        return f"{name}: Flag = False"
    if isinstance(attribute.kind, g.Filters):
        return f"{name}: list[str] = []"
    annotation, default = _annotation(attribute.kind), "None"
    if attribute.required:
        return f"{name}: {annotation}"
    if name in ALIASES:
        name, default = ALIASES[name]
    optional = "" if annotation in ("Text", "Texts") else " | None"
    return f"{name}: {annotation}{optional} = {default}"


def _annotation(kind: k.Kind) -> str:
    """The type of an attribute in Python."""
    match kind:
        case k.Text(many=many):
            return "Texts" if many else "Text"
        case k.Name(many=many) | k.Ref(many=many):
            return "Names" if many else "Name"
        case k.Flag():
            return "bool | Let"
        case Recompute(names=names):
            return f"Literal[{', '.join(map(repr, names))}] | Budget | Let"
        case k.OneOf(names=names):
            return f"Literal[{', '.join(map(repr, names))}] | Let"
        case nk.Whole() | nk.Every() | nk.Duration() | nk.Real() | nk.Share() | nk.Amount():
            return "Number"
        case nk.Wholes() | nk.Reals():
            return "Numbers"
        case nk.Keep():
            return "str | int"
        case nk.Devices() | g.Periodic():
            return "str"
        case g.Weighted():
            return "dict[str, Number] | Name"
        case k.Suites():
            return "dict[str, str | Let | list[str | Let]] | Let"
        case g.Group(holds=model):
            return f"{model.__name__} | Let"
        case g.Tagged(names=names, holds=model, many=many):
            one = f"Literal[{', '.join(map(repr, names))}] | {model.__name__} | Let"
            return f"{one} | list[{one}]" if many else one
        case g.Block(holds=model):
            return model.__name__
        case ScheduleOf():
            return "Schedule"
    raise TypeError(f"no type is known for {kind!r}")


if __name__ == "__main__":
    for name, made in texts().items():
        (FOLDER / name).write_text(made, encoding="utf-8")
