"""The budget of bad lines of one data set: this many are skipped; the next one stops the run."""

from collections.abc import Callable

from ...errors import DataError


class BadLines:
    """Counts bad lines and raises an error when there are too many.

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
            help: an alternative to fixing, removing or skipping the line.
            rest_is_lost: the file is damaged: skipping this line skips the rest of the file.

        Raises:
            DataError: more lines are bad than allowed.
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
        """The error for a data set that has no lines, or only skipped ones.

        Args:
            what: what the data set should hold: "documents", "records", "prompts".
        """
        if not self.count:
            return DataError(f"there are no {what} in `{name}`", "add at least one")
        every = "its only line is bad" if self.count == 1 else f"all {self.count:,} lines are bad"
        return DataError(
            f"there are no {what} in `{name}`: {every}; the first is {self._first}",
            "fix them: `bad_lines` is for skipping a few of many",
        )

    def checked(self, value: object, field: str, place: str) -> str | None:
        """The text in `value` of the field `field`; None for a bad one, which is counted."""
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
