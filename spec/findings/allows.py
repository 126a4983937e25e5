"""Findings silenced in place: `allow W601 "the ablation needs it"` in a block.

This silences warnings and notes that point into the block; in the `recipe` block, those of the
whole spec. Errors cannot be silenced.
"""

from collections.abc import Iterable, Sequence

from .. import syntax as s
from ..record import Record
from ..source import Span
from .diagnostics import Diagnostic, Report, Silenced, did_you_mean

OUTSIDE = frozenset(("N657", "N664", "W678", "W679"))
"""Codes that are found on some machines only: an `allow` of theirs may silence nothing."""


class Allowance(Record):
    """One `allow`: its code, reason and statement, and its block; None for the whole spec."""

    code: str
    reason: str
    span: Span
    within: Span | None

    def covers(self, finding: Diagnostic) -> bool:
        """Whether a finding has this code and is in the block."""
        if finding.code != self.code:
            return False
        if self.within is None:
            return True
        return (
            finding.span is not None
            and finding.span.source is self.within.source
            and self.within.start <= finding.span.start < self.within.end
        )


def taken(items: Iterable[s.Item], report: Report) -> tuple[list[s.Item], list[Allowance]]:
    """The statements without the `allow`s in their blocks, and the `allow`s; reports wrong ones."""
    kept: list[s.Item] = []
    allowances: list[Allowance] = []
    for item in items:
        kept.append(_taken(item, report, allowances) if isinstance(item, s.Block) else item)
    return kept, allowances


def _taken(block: s.Block, report: Report, allowances: list[Allowance]) -> s.Block:
    if not any(isinstance(item, s.Allow | s.Block) for item in block.items):
        return block
    within = None if block.keyword.name == "recipe" else block.span
    kept: list[s.Item] = []
    for item in block.items:
        if isinstance(item, s.Allow):
            if _valid(item, report):
                allowances.append(
                    Allowance(
                        code=item.code.name,
                        reason=item.reason.value.strip(),
                        span=item.span,
                        within=within,
                    )
                )
        elif isinstance(item, s.Block):
            kept.append(_taken(item, report, allowances))
        else:
            kept.append(item)
    return block._replace(items=tuple(kept))


def _valid(item: s.Allow, report: Report) -> bool:
    from .codes import known, rule  # reads a folder, which specs without `allow` do not need

    code = item.code.name
    if code not in known():
        report.add(
            "E331",
            f"there is no code `{code}`",
            item.code.span,
            help=did_you_mean(code, [c for c in known() if c[0] != "E"]),
        )
    elif code.startswith("E"):
        report.add(
            "E332",
            f"{code} is an error, and errors cannot be silenced",
            item.code.span,
            help=f"fix it: {rule(code).title}",
        )
    elif not item.reason.value.strip():
        report.add(
            "E333",
            f"the reason for silencing {code} is missing",
            item.reason.span,
            help="write a reason for later readers of the spec",
        )
    else:
        return True
    return False


def silence(report: Report, allowances: Sequence[Allowance], *, whole: bool = True) -> None:
    """Moves allowed findings to the silenced ones. Reports each `allow` that silences nothing if
    the whole spec was checked.

    If several cover a finding, the innermost one silences it.
    """
    if not allowances:
        return
    inner = sorted(allowances, key=_extent)
    used: set[int] = set()
    _apply(report, inner, used)
    for place, allowance in enumerate(inner):
        if whole and place not in used and allowance.code not in ("W651", *OUTSIDE):
            report.add(
                "W651",
                f"this silences nothing: there is no {allowance.code} "
                + ("in this block" if allowance.within else "in this spec"),
                allowance.span,
                help="leave it out",
            )
    _apply(report, inner, used)


def _apply(report: Report, inner: Sequence[Allowance], used: set[int]) -> None:
    left: list[Diagnostic] = []
    for finding in report.diagnostics:
        place = next((i for i, a in enumerate(inner) if a.covers(finding)), None)
        if place is None:
            left.append(finding)
        else:
            used.add(place)
            report.silenced.append(Silenced(finding, inner[place].reason, inner[place].span))
    report.diagnostics[:] = left


def _extent(allowance: Allowance) -> float:
    within = allowance.within
    return within.end - within.start if within else float("inf")
