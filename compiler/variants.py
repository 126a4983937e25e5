"""Every variant of a recipe checked as a whole recipe."""

from pathlib import Path

from ..spec import recipe as r
from ..spec import syntax as s
from ..spec.allows import silence
from ..spec.bind import bind
from ..spec.diagnostics import Diagnostic, Report
from ..spec.source import Span


def check_variants(
    recipe: r.Recipe, report: Report, *, ranks: int | None = None, root: Path | None = None
) -> None:
    """Adds what is wrong with the variants of a recipe, and not with the recipe itself.

    Findings are placed in the variant's block, with a note on the place in the recipe.
    """
    from .check import check_recipe

    known = {_same(found) for found in report.diagnostics}
    warned = {(d.code, d.span) for d in report.diagnostics if d.severity != "error"}
    where = Span(recipe.main, 0, 0) if recipe.main else None
    blocks = {
        item.labels[0].name: item
        for item in recipe.statements
        if isinstance(item, s.Block)
        and item.keyword.name == "variant"
        and item.labels
        and isinstance(item.labels[0], s.Word)
    }
    for name in recipe.variants:
        own = Report()
        changed = bind(recipe.statements, own, where=where, variant=name, sets=recipe.sets)
        if changed:
            check_recipe(changed, own, ranks=ranks, root=root)
        used = {silenced.span for silenced in own.silenced}
        for found in own.ordered():
            # What the recipe silences need not be there in every variant.
            stale = found.code == "W651"
            if stale or _same(found) in known or (found.code, found.span) in warned:
                continue
            span, notes = _placed(found, blocks[name], recipe)
            report.add(
                found.code,
                f"variant `{name}`: {found.message}",
                span,
                label=found.label if span == found.span else "",
                help=found.help,
                notes=notes,
            )
        if changed:
            block = recipe.variants[name]
            allowed = [each for each in changed.allowances if each.within == block]
            report.silenced += [each for each in own.silenced if _within(each.span, block)]
            silence(report, [each for each in allowed if each.span not in used])


def _same(found: Diagnostic) -> tuple[str, str, Span | None]:
    return found.code, found.message, found.span


def _placed(
    found: Diagnostic, variant: s.Block, recipe: r.Recipe
) -> tuple[Span, tuple[tuple[Span, str], ...]]:
    """Where to show a finding: in the variant, with a note where it is not found there."""
    span = found.span
    if span is None:
        return variant.head, found.notes
    if _within(span, variant.span):
        return span, found.notes
    changes = [item for item in variant.items if isinstance(item, s.Assign)]
    touching = [
        item
        for item in changes
        for block in recipe.statements
        if isinstance(block, s.Block)
        and _within(span, block.span)
        and {block.keyword.name, *(w.name for w in block.labels if isinstance(w, s.Word))}
        & {word.name for word in item.path.words[:2]}
    ]
    # One change alone is to blame; of several that touch the same block any may be.
    at = touching[0].span if len(touching) == 1 else changes[0].span if len(changes) == 1 else None
    return at or variant.head, ((span, "found here"), *found.notes)


def _within(span: Span, outer: Span) -> bool:
    return span.source == outer.source and outer.start <= span.start and span.end <= outer.end
