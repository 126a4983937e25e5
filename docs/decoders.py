"""Writes into docs/decoders.md which models of transformers etude reads:
`python docs/decoders.py`."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

# By name: pyright mistakes the folder `etude` of the tree for the whole package.
families: Any = import_module("etude.compiler.families")
published: Any = import_module("etude.compiler.files.published_config")
keys: Any = import_module("etude.compiler.files.published_keys")
unread: Any = import_module("etude.compiler.files.unread_kinds")

LENGTH = 4096
"""Of sequences, which no model_type depends on."""
PAGE = Path(__file__).with_name("decoders.md")


def page(text: str) -> str:
    """The page with its current tables."""
    for name, lines in (("read", _read()), ("dense", _dense()), ("others", _others())):
        table = "\n".join(lines)
        pattern = rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)"
        text = re.sub(pattern, lambda of, table=table: of[1] + table + of[2], text, flags=re.DOTALL)
    return text


def _read() -> Iterator[str]:
    yield "| model_type | for example | family | exported as |"
    yield "| --- | --- | --- | --- |"
    for kind, family in sorted(keys.KINDS.items()):
        of = families.FAMILIES[family].kinds[kind]
        # What its configuration describes where it says nothing is one of its usual models.
        found = published.describe({"model_type": kind, "norm_topk_prob": True}, family).model
        written = kind
        if found is not None:
            config = families.FAMILIES[family].config_json(found.knowing(LENGTH))
            written = config["model_type"]
        yield f"| `{kind}` | {of.example or '—'} | `{family}` | `{written}` |"


def _dense() -> Iterator[str]:
    yield "| model_type | why not |"
    yield "| --- | --- |"
    for kind, why in sorted(unread.DENSE.items()):
        yield f"| `{kind}` | {why} |"


def _others() -> Iterator[str]:
    yield "| why | number | model_types |"
    yield "| --- | ---: | --- |"
    for why, kinds in unread.OTHERS.items():
        yield f"| {why} | {len(kinds)} | {', '.join(f'`{kind}`' for kind in sorted(kinds))} |"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
