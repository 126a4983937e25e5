"""`etude explain`: what a code means."""

from argparse import Namespace

from ..spec.codes import CODES
from ..spec.diagnostics import did_you_mean
from .common import problem


def run(arguments: Namespace) -> int:
    code = arguments.code.upper()
    if code not in CODES:
        problem(f"there is no code `{arguments.code}`", did_you_mean(code, CODES))
        return 1
    title, text = CODES[code]
    print(f"{code}: {title}\n\n{text}")
    return 0
