"""`etude schema`: the JSON Schema of a format."""

import json
from argparse import ArgumentParser, Namespace
from importlib import import_module


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude schema` to its parser."""
    parser.add_argument("format", choices=["plan", "spec"])


def run(args: Namespace) -> int:
    if args.format == "plan":
        schema = import_module("..compiler.plan.plan_schema", __package__).plan_schema()
    else:
        schema = import_module("..schema", __package__).spec_schema()
    print(json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False))
    return 0
