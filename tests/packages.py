"""Packages that only tests need, and that a checkout may lack until `make test` has run."""

import importlib
import os
from types import ModuleType

import pytest

NEEDED = "ETUDE_NEEDS_CLUSTERS"
"""The variable by which `make test` says that nothing may be left out."""


def needed(name: str) -> ModuleType:
    """A module; without it the test is skipped, or fails where all have to run."""
    if os.environ.get(NEEDED):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"needs {name}, of the extra `dev`")
