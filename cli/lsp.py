"""`etude lsp`: the language server on standard input and output, for editors."""

import gc
import logging
import sys
from argparse import ArgumentParser, Namespace
from importlib import import_module

from .common import problem


def arguments(parser: ArgumentParser) -> None:
    """Adds nothing: `etude lsp` has no arguments."""


def run(args: Namespace) -> int:
    try:
        import_module("pygls.lsp.server")
    except ImportError:
        problem(
            "the language server needs pygls, which is not installed", "pip install 'etude[lsp]'"
        )
        return 2
    from ..lsp.server import server

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    gc.enable()
    # An edit creates many short-lived records, none of them in a cycle.
    gc.set_threshold(100_000, 20, 50)
    server().start_io()
    return 0
