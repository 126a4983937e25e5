"""Values that are groups of attributes themselves: of `fields`, optimizers, averages and others."""

from collections.abc import Set
from typing import Any

from .. import syntax as s
from ..source import Span
from . import recipe as r
from .convert import Invalid
from .group_kinds import Nested
from .statements import Statements


class Groups(Statements):
    """Reads the values of attributes, and reports what is wrong."""

    def _read(
        self,
        values: dict[str, Any],
        model: type[r.Declaration],
        head: Span,
        what: str,
        opened: Set[str] = frozenset(),
    ) -> dict[str, Any]:
        """Fields by name, read from the values of attributes; what is wrong is reported.

        Args:
            opened: attributes that are left open, and reported already.
        """
        found: dict[str, Any] = {}
        for name, attribute in r.attributes(model).items():
            if name not in values:
                if attribute.required and name not in opened:
                    self._missing("E318", f"{what} needs `{name}`", head)
                continue
            value = values[name]
            if isinstance(attribute.kind, Nested) or not isinstance(value, s.Value):
                found[attribute.field] = value  # built already
                continue
            try:
                found[attribute.field] = attribute.kind.read(value)
            except Invalid as problem:
                self._invalid(problem)
        return found

    def _nested(self, name: str, value: s.Value, model: type[r.Declaration]) -> Any:
        """The value of an attribute, where it is a group of attributes as it is meant."""
        attribute = r.attributes(model).get(name)
        if attribute is None or not isinstance(attribute.kind, Nested):
            return value
        try:
            return attribute.kind.build(name, value, self._build)
        except Invalid as problem:
            self._invalid(problem)
            return None
