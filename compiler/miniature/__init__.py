"""Miniatures: the same recipe, scaled down so that a laptop runs it in minutes.

A miniature is a recipe like any other, a pure function of the original recipe. The rules are in
docs/miniature.md.
"""

from collections.abc import Iterator
from typing import Any

from ...spec.findings.diagnostics import Report
from ...spec.quantity import counted
from ...spec.record import Record, fields, replace
from ...spec.schema import recipe as r
from ..as_written import NOTHING, in_full, written, written_batch
from ..passes import SCHEDULED, through
from ..plan.provenance import shapes
from ..program import Program, Scheduled, ScheduledStage
from ..values import Scaled
from . import blocks
from .scale import Scale, Unscalable, scale
from .stages import Stages
from .structure import difference, structure
from .weights import published, rows, stand_ins, with_texts, without_judges

TARGETS = (128, 96, 64, 48, 32, 24, 16, 12, 8)
"""Steps of a training stage, tried in this order."""
TOKENS = 2_700_000
"""The first target with at most this many tokens is used: two or three minutes on two cores."""
MOST_TOKENS = 4_000_000
"""More would take longer than ten minutes: the recipe has too many stages or changes."""
SUFFIX = "_miniature"


class Miniature(Record):
    """A small recipe, with both programs.

    Attributes:
        full: the program of the original recipe, scheduled.
        program: that of the miniature.
    """

    recipe: r.Recipe
    mapping: list[Scaled]
    full: Scheduled
    program: Scheduled


def miniature(recipe: r.Recipe, full: Scheduled, report: Report) -> Miniature | None:
    """The miniature of a recipe; None if it has none, with the reason in the report.

    Args:
        recipe: with the stages of variants that it names, which are scaled like all others.
        full: its program, scheduled.
    """
    try:
        found = _miniature(recipe, full)
    except Unscalable as problem:
        report.add("E481", problem.message, problem.span, help=problem.help)
        return None
    known = structure(full)
    # What already exists for the recipe, its miniature creates under the same name.
    made = structure(found.program) | {each.name: known[each.name] for each in published(full)}
    differs = difference(known, made)
    if differs:
        stage, what = differs
        spec = full.stages[stage].spec if stage in full.stages else recipe.header
        report.add(
            "E482",
            f"the miniature of `{stage}` would differ from it in {what}",
            spec.at(),
            help="please report this with the spec: the rules of miniatures do not cover this case",
        )
        return None
    return found


def _miniature(recipe: r.Recipe, full: Scheduled) -> Miniature:
    """Raises: Unscalable."""
    maps = scale(full)
    datasets = blocks.datasets(with_texts(recipe, full), full)
    small = replace(
        recipe,
        header=replace(
            recipe.header,
            name=recipe.header.name + SUFFIX,
            title=f"{recipe.header.title or recipe.header.name}, in miniature",
            tracking=None,
        ),
        models=_models(recipe, full, maps),
        tokenizers=blocks.tokenizers(without_judges(recipe, full), datasets),
        datasets=datasets,
        clusters={},
        dialogs=blocks.dialogs(recipe),
        verifiers=blocks.verifiers(recipe),
        expectations=[],
        allowances=[],
    )
    for target in TARGETS:
        stages = stand_ins(full, maps, target) | Stages(recipe, full, maps, target).all()
        staged = _unsourced(replace(small, stages=stages))
        program = _scheduled(staged)
        tokens = sum(map(_tokens, program.stages.values()))
        if tokens <= (TOKENS if target != TARGETS[-1] else MOST_TOKENS):
            return Miniature(
                recipe=staged,
                full=full,
                program=program,
                mapping=list(_mapping(recipe, staged, full, program)),
            )
    raise Unscalable(
        f"a miniature that keeps every change would train more than {MOST_TOKENS:,} tokens, which "
        "takes longer than ten minutes",
        recipe.header.at(),
        "use fewer rounds, such as --set align.rounds=2",
    )


def _unsourced(recipe: r.Recipe) -> r.Recipe:
    """The recipe without the sources of its values, which the miniature changes."""

    def plain(blocks: dict[str, Any]) -> dict[str, Any]:
        return {
            name: replace(of, stages=plain(of.stages))
            if isinstance(of, r.Rounds)
            else replace(of, sources={})
            for name, of in blocks.items()
        }

    groups = ("models", "tokenizers", "datasets", "dialogs", "stages")
    return replace(
        recipe,
        header=replace(recipe.header, sources={}),
        **{group: plain(getattr(recipe, group)) for group in groups},
    )


def _tokens(stage: Any) -> int:
    """Tokens that a stage trains on, weighted by time: a token in a sequence of 512 takes twice as
    long as one in a short sequence, and so on, and rows of preferences are half full.
    """
    if not isinstance(stage, ScheduledStage):
        return 0
    longest = max(length for _, _, length in stage.lengths)
    tokens = stage.tokens * (512 + longest) // 512
    return tokens // (2 if stage.spec.padded else 1)


def _scheduled(small: r.Recipe) -> Scheduled:
    """Raises: Unscalable: the maps have created an invalid recipe."""
    report = Report()
    program = through(SCHEDULED, Program(small, None), report)
    if isinstance(program, Scheduled):
        return program
    first = report.errors[0]
    raise Unscalable(f"in the miniature, {first.message}", first.span, first.help)


def _models(recipe: r.Recipe, full: Scheduled, maps: Scale) -> dict[str, r.Model]:
    """The models that stages begin with; no stage trains the others."""
    return {
        name: blocks.model(recipe.models[name], shape, maps.lengths)
        for name, shape in shapes(full).items()
    }


def _mapping(
    recipe: r.Recipe, small: r.Recipe, full: Scheduled, program: Scheduled
) -> Iterator[Scaled]:
    """Every attribute that differs in the miniature, in the order of the spec."""
    there = shapes(program)
    for name, before in shapes(full).items():
        after = there.get(name, before)  # a judge's stand-in has the shape of what it starts from
        for attribute in fields(before):
            if attribute not in ("family", "size", "context"):
                yield from _row(
                    f"model {name}",
                    attribute,
                    getattr(before, attribute),
                    getattr(after, attribute),
                )
    yield from rows(full, small)
    for name, tokenizer in small.tokenizers.items():
        yield from _whole(f"tokenizer {name}", recipe.tokenizers.get(name), tokenizer)
    for name, dataset in recipe.datasets.items():
        yield from _whole(f"dataset {name}", dataset, small.datasets[name])
    for name, cluster in recipe.clusters.items():
        yield Scaled(
            block=f"cluster {name}",
            attribute="",
            full=in_full(cluster),
            miniature="one process on the CPU of this machine",
        )
    for name, dialog in recipe.dialogs.items():
        yield from _whole(f"dialog {name}", dialog, small.dialogs[name])
    for name, verifier in recipe.verifiers.items():
        yield from _whole(f"verifier {name}", verifier, small.verifiers[name])
    for name, stage in recipe.stages.items():
        other = small.stages[name]
        if isinstance(stage, r.Rounds) and isinstance(other, r.Rounds):
            for inner, each in stage.stages.items():
                where = f"{name}.{inner}", f"{name}.1.{inner}"
                yield from _stage(*where, each, other.stages[inner], full, program)
        elif not isinstance(stage, r.Rounds) and not isinstance(other, r.Rounds):
            yield from _stage(name, name, stage, other, full, program)
    if recipe.expectations:
        yield Scaled(
            block="expect",
            attribute="",
            full=counted(len(recipe.expectations), "claims"),
            miniature="not asked",
        )


def _stage(
    block: str, name: str, before: r.Stage, after: r.Stage, full: Scheduled, program: Scheduled
) -> Iterator[Scaled]:
    stage, small = full.stages[name], program.stages[name]
    if isinstance(stage, ScheduledStage) and isinstance(small, ScheduledStage):
        yield from _row(
            block,
            "length",
            f"{written(stage.tokens)} tokens, {counted(stage.steps, 'steps')}",
            f"{written(small.tokens)} tokens, {counted(small.steps, 'steps')}",
        )
    for attribute, of in r.attributes(type(before)).items():
        values = getattr(before, of.field), getattr(after, of.field)
        if attribute == "batch" and isinstance(before, r.Training):
            values = written_batch(values[0], before), written_batch(values[1], before)
        if attribute not in ("tokens", "steps", "epochs"):
            yield from _row(block, attribute, *values)


def _row(block: str, attribute: str, full: Any, small: Any) -> Iterator[Scaled]:
    shown = written(full), written(small)
    if shown[0] != shown[1] and not (full is None and shown[1] == NOTHING):
        yield Scaled(block=block, attribute=attribute, full=shown[0], miniature=shown[1])


def _whole(block: str, before: r.Declaration | None, after: r.Declaration) -> Iterator[Scaled]:
    full = in_full(before) if before else "—"
    if full != in_full(after):
        yield Scaled(block=block, attribute="", full=full, miniature=in_full(after))
