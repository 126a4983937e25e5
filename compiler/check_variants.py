"""Checks every variant of a recipe as a whole recipe."""

from collections.abc import Callable
from typing import Protocol

from ..spec import syntax as s
from ..spec.findings.allows import silence
from ..spec.findings.diagnostics import Diagnostic, Report
from ..spec.load import Sources
from ..spec.schema import recipe as r
from ..spec.source import Span


class Checked(Protocol):
    """The findings in a variant."""

    @property
    def recipe(self) -> r.Recipe | None: ...

    @property
    def report(self) -> Report: ...


def blocks(sources: Sources) -> dict[str, s.Block]:
    """The variant blocks of a spec by name; the first if a name is repeated."""
    found: dict[str, s.Block] = {}
    for item in sources.items:
        if isinstance(item, s.Block) and item.keyword.name == "variant" and item.labels:
            label = item.labels[0]
            if isinstance(label, s.Word):
                found.setdefault(label.name, item)
    return found


def check_variants(sources: Sources, report: Report, analyse: Callable[[str], Checked]) -> None:
    """Adds the findings that a variant of a recipe has and the recipe itself does not.

    Findings are placed in the variant's block, with a note on the place in the recipe.

    Args:
        report: the findings of the recipe itself.
        analyse: checks the recipe with a variant applied.
    """
    known = {_same(found) for found in report.diagnostics}
    warned = {(d.code, d.span) for d in report.diagnostics if d.severity != "error"}
    for name, block in blocks(sources).items():
        variant = analyse(name)
        changed, own = variant.recipe, variant.report
        used = {silenced.span for silenced in own.silenced}
        for found in own.ordered():
            # A warning that the recipe silences need not occur in every variant.
            stale = found.code == "W651"
            if stale or _same(found) in known or (found.code, found.span) in warned:
                continue
            span, notes = _placed(found, block, sources)
            report.add(
                found.code,
                f"variant `{name}`: {found.message}",
                span,
                label=found.label if span == found.span else "",
                help=found.help,
                notes=notes,
            )
        if changed:
            allowed = [each for each in changed.allowances if each.within == block.span]
            report.silenced += [each for each in own.silenced if _within(each.span, block.span)]
            silence(report, [each for each in allowed if each.span not in used])


def _same(found: Diagnostic) -> tuple[str, str, Span | None]:
    return found.code, found.message, found.span


def _placed(
    found: Diagnostic, variant: s.Block, sources: Sources
) -> tuple[Span, tuple[tuple[Span, str], ...]]:
    """Where to show a finding: in the variant, with a note if it was found elsewhere."""
    span = found.span
    if span is None:
        return variant.head, found.notes
    if _within(span, variant.span):
        return span, found.notes
    changes = [item for item in variant.items if isinstance(item, s.Assign)]
    touching = [
        item
        for item in changes
        for block in sources.items
        if isinstance(block, s.Block)
        and _within(span, block.span)
        and {block.keyword.name, *(w.name for w in block.labels if isinstance(w, s.Word))}
        & {word.name for word in item.path.words[:2]}
    ]
    # A single change is to blame; of several that touch the same block, any may be.
    at = touching[0].span if len(touching) == 1 else changes[0].span if len(changes) == 1 else None
    return at or variant.head, ((span, "found here"), *found.notes)


def _within(span: Span, outer: Span) -> bool:
    return span.source == outer.source and outer.start <= span.start and span.end <= outer.end
