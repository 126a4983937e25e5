"""The budget of bad lines of one data set: that many are skipped, the next one stops the run."""

from collections.abc import Callable

from ..errors import DataError


class BadLines:
    """Counts bad lines and says when there are too many.

    Args:
        allowed: how many may be skipped (the data set's `bad_lines`); None for any number.
        on_bad: called with the message of each skipped line.
    """

    def __init__(
        self, allowed: int | None = 0, on_bad: Callable[[str], None] | None = None
    ) -> None:
        self.allowed = allowed
        self.count = 0
        self._first = ""
        self._on_bad = on_bad

    def report(
        self, place: str, reason: str, help: str = "", *, rest_is_lost: bool = False
    ) -> None:
        """Counts the bad line at `place` ("corpus/a.jsonl:17").

        Args:
            help: what else could be done than to fix, remove or skip it.
            rest_is_lost: the file is damaged: who skips the line, skips all that is behind it.

        Raises:
            DataError: where more lines are bad than are allowed.
        """
        self.count += 1
        message = f"{place}: {reason}"
        self._first = self._first or message
        if self.allowed is None or self.count <= self.allowed:
            if self._on_bad is not None:
                self._on_bad(message)
            return
        if self.allowed:
            limit = "line" if self.allowed == 1 else "lines"
            message += f" (bad line {self.count}; the dataset allows {self.allowed} bad {limit})"
        skip = (
            f"write `bad_lines = {self.count}` or more in the dataset to skip that many bad lines"
        )
        if rest_is_lost:
            skip = (
                "if the other files of the data set have enough data, skip the rest of this one "
                f"with `bad_lines = {self.count}`"
            )
            help = help or "write or download the file again"
        raise DataError(message, f"{help or 'fix or remove it'}, or {skip}")

    def nothing_left(self, name: str, what: str) -> DataError:
        """What is wrong with a data set of which all lines, if there were any, have been skipped.

        Args:
            what: what it should hold: "documents", "records", "prompts".
        """
        if not self.count:
            return DataError(f"there are no {what} in `{name}`", "add at least one")
        every = "its only line is bad" if self.count == 1 else f"all {self.count:,} lines are bad"
        return DataError(
            f"there are no {what} in `{name}`: {every}; the first is {self._first}",
            "fix them: `bad_lines` is for skipping a few of many",
        )

    def checked(self, value: object, field: str, place: str) -> str | None:
        """The document text `value` of the field `field`, or None for a bad one, then counted."""
        if not isinstance(value, str):
            self.report(place, f"the field `{field}` has {_kind(value)}, not a text")
        elif not value.strip():
            self.report(place, f"the text in `{field}` is empty")
        elif not _encodable(value):
            self.report(place, f"the text in `{field}` is not valid Unicode: a lone surrogate")
        else:
            return value
        return None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object" if isinstance(value, dict) else f"a {type(value).__name__}"
