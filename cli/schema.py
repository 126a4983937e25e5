"""`etude schema`: the JSON Schema of a format."""

import json
from argparse import Namespace


def run(arguments: Namespace) -> int:
    if arguments.format == "plan":
        from ..compiler.schema import plan_schema as schema
    else:
        from ..schema import spec_schema as schema
    print(json.dumps(schema(), indent=2, sort_keys=True, ensure_ascii=False))
    return 0
