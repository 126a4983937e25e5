"""Diagnostics of a spec: collected, ordered, and shown with their places."""

from collections.abc import Iterable
from typing import Any, Literal

from ..record import Record
from ..reference import without_rounds
from ..source import Source, Span

Severity = Literal["error", "warning", "note"]
_SEVERITIES: dict[str, Severity] = {"E": "error", "W": "warning", "N": "note"}
FAILED_CLAIM = "E462"
"""A published figure that the plan does not meet. The plan is still made, because it shows why;
`check`, `verify` and `run` fail."""


class Diagnostic(Record, kw_only=False):
    """One finding.

    Attributes:
        code: `E…`, `W…` or `N…`, one of `codes.known()`.
        message: what is wrong, in the user's words, one line.
        span: where; None for the spec as a whole.
        label: a few words shown beside the carets.
        help: how to fix it.
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
        """`error`, `warning` or `note`, from the first letter of the code."""
        return _SEVERITIES[self.code[0]]

    @property
    def stops(self) -> bool:
        """Whether this prevents a plan: any error but a claim that does not hold."""
        return self.severity == "error" and self.code != FAILED_CLAIM

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON; lines and columns count from 1."""
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
    """A finding that an `allow` silences, with the reason and the place of the `allow`."""

    finding: Diagnostic
    reason: str
    span: Span

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON, with the reason and the line of the `allow`."""
        place = {"file": self.span.source.name, "line": self.span.line, "column": self.span.column}
        return self.finding.to_dict() | {"reason": self.reason, "allowed_at": place}


class SpecError(Exception):
    """Carries the diagnostics of a spec that cannot be used."""

    def __init__(self, diagnostics: list[Diagnostic]) -> None:
        super().__init__("; ".join(d.message for d in diagnostics))
        self.diagnostics = diagnostics


_OF_VALUES = ("E201", "E202", "E212")
"""Errors of values that are not of the kind that is wanted."""


class Report:
    """Collects diagnostics, each once; if the same is wrong in every round, only the first.

    Attributes:
        silenced: findings that an `allow` silences.
        failures: how many findings prevent a plan, repeats included.
        taken: how many findings there were, repeats included.
    """

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.silenced: list[Silenced] = []
        self.failures = 0
        self.taken = 0
        self._seen: set[tuple[Any, ...]] = set()
        self._written: dict[Span, tuple[Span, str]] = {}

    def point(self, place: Span, written: Span, message: str) -> None:
        """Adds a note to findings at `place` that says where the value there was written."""
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
        """Adds a finding, unless the same message is already reported at the same place."""
        notes = tuple(notes)
        if span and span in self._written:
            notes += (self._written[span],)
        self.take(Diagnostic(code, message, span, label, help, notes))

    def take(self, finding: Diagnostic) -> None:
        """Adds an existing finding, unless it repeats one, or follows from one."""
        if finding.code in _OF_VALUES and self._has_open(finding.span):
            return
        self.failures += finding.stops
        self.taken += 1
        place = finding.span and (finding.span.source.name, finding.span.start, finding.span.end)
        texts = map(without_rounds, (finding.message, finding.help))
        same = (finding.code, place, finding.label, *texts)
        if same not in self._seen:
            self._seen.add(same)
            self.diagnostics.append(finding)

    def _has_open(self, span: Span | None) -> bool:
        """Whether a bracket in a value is known not to be closed, so that nobody knows what the
        value was meant to be."""
        open_ = (d.span for d in self.diagnostics if d.code == "E106" and d.span)
        return span is not None and any(
            each.source == span.source and span.start <= each.start < span.end for each in open_
        )

    @property
    def errors(self) -> list[Diagnostic]:
        """The findings that are errors."""
        return [d for d in self.diagnostics if d.severity == "error"]

    def ordered(self) -> list[Diagnostic]:
        """The findings by file and place; those without a place come last."""
        files: dict[Source, int] = {}
        for diagnostic in self.diagnostics:
            if diagnostic.span:
                files.setdefault(diagnostic.span.source, len(files))
        return sorted(
            self.diagnostics,
            key=lambda d: (files[d.span.source], d.span.start) if d.span else (len(files), 0),
        )

    def stop_on_errors(self) -> None:
        """Raises: SpecError: an error prevents a plan."""
        if self.failures:
            raise SpecError(self.ordered())


def did_you_mean(name: str, known: Iterable[str], *, of: str = "") -> str:
    """A suggestion for a mistyped name, or the list of known names.

    Args:
        of: the attribute's name in `answers.value`: if other programs use the name, the answer for
            it comes first.
    """
    import difflib  # only after an error: checking a spec may take only 0.1 s

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
