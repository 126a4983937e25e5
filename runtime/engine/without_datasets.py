"""Imports torchtitan without the library `datasets`, which its own loaders of data use.

etude has loaders of its own. The library brings pandas, pyarrow and aiohttp along: most of a second
of processors, and 120 MiB in each rank.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_LIBRARY = "datasets"
_MODULES = (_LIBRARY, "datasets.distributed")


@contextmanager
def without_datasets() -> Iterator[None]:
    """Gives what is imported meanwhile names of `datasets` that import it once they are used.

    It is the library itself if it has been imported before. Other threads that import it meanwhile
    get the same names.
    """
    if _LIBRARY in sys.modules:
        yield
        return
    stand_ins = {name: _StandIn(name) for name in _MODULES}
    stand_ins[_LIBRARY].__spec__ = find_spec(_LIBRARY)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        _remove()


def _remove() -> None:
    """Lets the next import of the library import it."""
    for name in _MODULES:
        if isinstance(sys.modules.get(name), _StandIn):
            sys.modules.pop(name, None)


class _Later(type):
    """A name of the library, which is imported when it is called or asked for its objects."""

    def real(cls) -> Any:
        _remove()
        return getattr(import_module(cls.__module__), cls.__name__)

    def __call__(cls, *given: Any, **named: Any) -> Any:
        return cls.real()(*given, **named)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.real())


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Later(name, (), {"__module__": self.__name__})
