"""`etude schema`: the JSON Schema of a format."""

import json
from argparse import Namespace

from ..compiler.schema import plan_schema


def run(arguments: Namespace) -> int:
    print(json.dumps(plan_schema(), indent=2, sort_keys=True))
    return 0
