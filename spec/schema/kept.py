"""What need not be computed again, as it comes from the same objects as before."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from ..findings.diagnostics import Report

Of = TypeVar("Of")


class Kept:
    """Results of earlier readings, for an editor, whose texts differ little from one to the next.

    Only results without findings are kept: where there are some, they have to be reported again.
    """

    def __init__(self) -> None:
        self._before: dict[Hashable, tuple[object, object, Any]] = {}
        self._now: dict[Hashable, tuple[object, object, Any]] = {}

    def once(
        self, what: Hashable, of: object, given: object, make: Callable[[], Of], report: Report
    ) -> Of:
        """What `make` returns; the earlier result if it came from the same object.

        Args:
            what: names the result.
            of: the object, the same one if nothing in it has changed: places in it may have moved.
            given: what else `make` reads; equal if nothing has changed.
            report: takes the findings of `make`.
        """
        known = self._now.get(what) or self._before.get(what)
        if known is None or known[0] is not of or known[1] != given:
            taken = report.taken
            known = of, given, make()
            if report.taken > taken:
                return known[2]
        self._now[what] = known
        return known[2]

    def forget(self) -> None:
        """Drops what was not asked for since the last call."""
        self._before, self._now = self._now, {}
