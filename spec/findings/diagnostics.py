"""Diagnostics of a spec: collected, ordered, and shown with their places."""

from collections.abc import Iterable
from typing import Any, Literal

from ..record import Record
from ..reference import without_rounds
from ..source import Source, Span

Severity = Literal["error", "warning", "note"]
_SEVERITIES: dict[str, Severity] = {"E": "error", "W": "warning", "N": "note"}
FAILED_CLAIM = "E462"
"""A published figure that the plan does not meet. The plan is there all the same, and it is what
shows why; `check`, `verify` and `run` fail."""


class Diagnostic(Record, kw_only=False):
    """One finding.

    Attributes:
        code: `E…`, `W…` or `N…`, one of `codes.known()`.
        message: what is wrong, in the user's words, one line.
        span: where; None where the spec as a whole is meant.
        label: a few words shown beside the carets.
        help: a way out.
        notes: other places that matter, each with its message.
    """

    code: str
    message: str
    span: Span | None
    label: str = ""
    help: str = ""
    notes: tuple[tuple[Span, str], ...] = ()

    @property
    def severity(self) -> Severity:
        """`error`, `warning` or `note`, by the first letter of the code."""
        return _SEVERITIES[self.code[0]]

    @property
    def stops(self) -> bool:
        """Whether nothing can be made of the spec: any error but a claim that does not hold."""
        return self.severity == "error" and self.code != FAILED_CLAIM

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON; lines and columns count from one."""
        place = None
        if self.span:
            end_line, end_column = self.span.source.position(self.span.end)
            place = {
                "file": self.span.source.name,
                "line": self.span.line,
                "column": self.span.column,
                "end_line": end_line,
                "end_column": end_column,
            }
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "place": place,
            "label": self.label,
            "help": self.help,
            "notes": [
                {"file": s.source.name, "line": s.line, "column": s.column, "message": m}
                for s, m in self.notes
            ],
        }


class Silenced(Record, kw_only=False):
    """A finding that an `allow` silences: why, and where the `allow` is."""

    finding: Diagnostic
    reason: str
    span: Span

    def to_dict(self) -> dict[str, Any]:
        """As the finding's, with the reason and the line of the `allow`."""
        place = {"file": self.span.source.name, "line": self.span.line, "column": self.span.column}
        return self.finding.to_dict() | {"reason": self.reason, "allowed_at": place}


class SpecError(Exception):
    """Carries the diagnostics of a spec that cannot be used."""

    def __init__(self, diagnostics: list[Diagnostic]) -> None:
        super().__init__("; ".join(d.message for d in diagnostics))
        self.diagnostics = diagnostics


class Report:
    """Collects diagnostics, each at most once; of what is wrong in every round, the first.

    Attributes:
        silenced: what an `allow` silences.
        failures: how often something was found after which there can be no plan.
    """

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.silenced: list[Silenced] = []
        self.failures = 0
        self._seen: set[tuple[Any, ...]] = set()
        self._written: dict[Span, tuple[Span, str]] = {}

    def point(self, place: Span, written: Span, message: str) -> None:
        """Lets findings at `place` have a note on where the value there was written."""
        self._written[place] = written, message

    def add(
        self,
        code: str,
        message: str,
        span: Span | None,
        *,
        label: str = "",
        help: str = "",
        notes: Iterable[tuple[Span, str]] = (),
    ) -> None:
        """Adds a finding; one that says the same of the same place is added once."""
        notes = tuple(notes)
        if span and span in self._written:
            notes += (self._written[span],)
        self.take(Diagnostic(code, message, span, label, help, notes))

    def take(self, finding: Diagnostic) -> None:
        """Adds a finding as it is."""
        self.failures += finding.stops
        place = finding.span and (finding.span.source.name, finding.span.start, finding.span.end)
        texts = map(without_rounds, (finding.message, finding.help))
        same = (finding.code, place, finding.label, *texts)
        if same not in self._seen:
            self._seen.add(same)
            self.diagnostics.append(finding)

    @property
    def errors(self) -> list[Diagnostic]:
        """The findings that are errors."""
        return [d for d in self.diagnostics if d.severity == "error"]

    def ordered(self) -> list[Diagnostic]:
        """In the order of the files and of the places in them; what has no place comes last."""
        files: dict[Source, int] = {}
        for diagnostic in self.diagnostics:
            if diagnostic.span:
                files.setdefault(diagnostic.span.source, len(files))
        return sorted(
            self.diagnostics,
            key=lambda d: (files[d.span.source], d.span.start) if d.span else (len(files), 0),
        )

    def stop_on_errors(self) -> None:
        """Raises: SpecError: where an error was found that leaves no plan."""
        if self.failures:
            raise SpecError(self.ordered())


def did_you_mean(name: str, known: Iterable[str], *, of: str = "") -> str:
    """A suggestion for a mistyped name, or the names there are.

    Args:
        of: what `answers.value` calls the attribute: where other programs have the name, what is
            true of it here comes first.
    """
    import difflib  # only where something is wrong: checking a spec has 0.1 s

    names = sorted(known)
    if of:
        from ..foreign import answers  # likewise

        said = answers.value(of, name)
        if said:
            return said
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    if not names:
        return ""
    return "there is " + ", ".join(f"`{n}`" for n in names[:12]) + (", …" if names[12:] else "")
