"""`etude lsp`: the language server on standard input and output, for editors."""

import gc
import logging
import sys
from argparse import Namespace

from .common import problem


def run(arguments: Namespace) -> int:
    try:
        import pygls.lsp.server  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        problem("the language server needs pygls", "pip install 'etude[lsp]'")
        return 2
    from ..lsp.server import server

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    gc.enable()
    # An edit makes many short-lived records, and none of them in a cycle.
    gc.set_threshold(100_000, 20, 50)
    server().start_io()
    return 0
