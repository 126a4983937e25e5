"""Advice on data: what stages train on, how often, and what they are measured on."""

from collections.abc import Collection, Iterator
from fractions import Fraction
from itertools import combinations

from ...spec.quantity import measured, short
from ...spec.schema import recipe as r
from ...spec.source import Span
from ..ids import DataId, StageId
from ..program import Scheduled, ScheduledStage
from ..resolve.references import referring
from . import Found, rule

MOST_EPOCHS = 4
"""Up to this many passes, repeated data are nearly as good as new data (arXiv:2305.16264)."""
MOST_POST_EPOCHS = 5


@rule("W621", stages=None)
def repeated_sources(program: Scheduled) -> Iterator[Found]:
    """Epochs of each source along the lineage of each stage; reports the first above the limit."""
    drawn: dict[str, dict[str, Fraction]] = {}
    for name, stage in program.stages.items():
        if not isinstance(stage, ScheduledStage) or not isinstance(stage.spec, r.Train):
            continue
        before = program.trained(stage.parent).name if stage.parent else ""
        total = dict(drawn.get(before, {}))
        for part in stage.mixture:
            tokens = stage.tokens_before(part.to_step) - stage.tokens_before(part.from_step)
            weights = sum(part.weights.values())
            for source, weight in part.weights.items():
                total[source] = total.get(source, Fraction(0)) + Fraction(tokens * weight, weights)
        drawn[name] = total
        for source, tokens in total.items():
            epochs = _epochs(program, source, tokens)
            if epochs > MOST_EPOCHS >= _epochs(program, source, drawn.get(before, {}).get(source)):
                dataset = program.recipe.datasets[source]
                places = (
                    ((where, "the declared number of tokens"),)
                    if (where := dataset.places.get("tokens"))
                    else ()
                )
                yield Found(
                    f"`{source}` is read {measured(epochs)} times by the end of this stage",
                    stage.spec.at("data"),
                    f"lower its share, or train on fewer tokens: up to {MOST_EPOCHS} passes are "
                    "nearly as good as new data",
                    notes=places,
                )


def _epochs(program: Scheduled, source: str, tokens: Fraction | None) -> Fraction:
    dataset = program.recipe.datasets.get(source)
    if not tokens or dataset is None or not dataset.tokens:
        return Fraction(0)
    return tokens / (dataset.tokens * (1 - dataset.holdout))


@rule("W622", stages=None)
def measured_on_training_data(program: Scheduled) -> Iterator[Found]:
    """Other data sets with the same files, and prompts, which have no held-out part."""
    trained = _read(program, r.Training, but=EVALUATE)
    measured, datasets = _measured(program), program.recipe.datasets
    apart = "separate the records with `skip` and `documents`"
    drawn = {name for data in trained if (of := datasets.get(data)) for name in of.stages}
    sampled = _read(program, r.Sample, of=drawn)
    alike: dict[str, list[str]] = {}
    for other in [*trained, *sampled]:
        for key in _keys(datasets.get(other)):
            alike.setdefault(key, []).append(other)
    for name, (kind, place) in measured.items():
        if kind == "prompts" and (answered := trained.get(name) or sampled.get(name)):
            yield Found(
                f"`{name}` is used for measuring, but a model learns from answers to it",
                place,
                f"measure on prompts that no stage has seen, or {apart}",
                notes=_noted(answered[1], "answered here"),
            )
            continue
        near = dict.fromkeys(o for key in _keys(datasets.get(name)) for o in alike.get(key, ()))
        for other in near:
            if other != name and overlap(datasets[name], datasets[other]):
                yield Found(
                    f"`{name}` has records that are also in `{other}`, which is trained on",
                    place,
                    apart
                    if kind == "prompts"
                    else f"measure on `{other}`, whose held-out part is "
                    f"never trained on, or {apart}",
                    notes=_noted(datasets[other].at(), "these files are trained on"),
                )
                break


def _keys(dataset: r.Dataset | None) -> list[str]:
    """What two data sets share if they may hold the same records."""
    if dataset is None:
        return []
    files = [*(dataset.files or []), *(dataset.tokenized or [])]
    return [*files, *filter(None, (dataset.hub, dataset.sample))]


def overlap(one: r.Dataset, other: r.Dataset) -> bool:
    """Whether two data sets hold the same records, judging by their declarations."""
    first, second = one.deal, other.deal
    if (
        first
        and second
        and DataId.parse(one.name).name == DataId.parse(other.name).name
        and (first[2] < second[1] or second[2] < first[1])
    ):
        return False
    if one.files and other.files:
        same = bool(set(one.files) & set(other.files))
    elif one.tokenized and other.tokenized:
        same = bool(set(one.tokenized) & set(other.tokenized))
    elif one.hub and other.hub:
        same = (one.hub, one.config, one.split) == (other.hub, other.config, other.split)
    else:
        same = one.sample is not None and (one.sample, one.kind) == (other.sample, other.kind)
    ends = [
        each.skip + each.documents if each.documents is not None else float("inf")
        for each in (one, other)
    ]
    return same and max(one.skip, other.skip) < min(ends)


EVALUATE = "evaluate"
"""The attribute with which a stage that trains names what it only measures."""


def _measured(program: Scheduled) -> dict[str, tuple[str, Span | None]]:
    """Data sets on which stages are measured, during their training or afterwards."""
    return _read(program, r.Training, only=EVALUATE) | _read(program, r.Measuring)


def _read(
    program: Scheduled,
    kind: type[r.Stage],
    *,
    only: str = "",
    but: str = "",
    of: Collection[str] | None = None,
) -> dict[str, tuple[str, Span | None]]:
    """Data sets that stages of a kind read → the attribute and the place that first name them.

    Args:
        only, but: an attribute alone, or all but one.
        of: the names of stages; None: all.
    """
    found: dict[str, tuple[str, Span | None]] = {}
    for stage in program.stages.values():
        if not isinstance(stage.spec, kind) or (of is not None and stage.name not in of):
            continue
        for each in referring(stage.spec):
            asked = each.attribute == only if only else each.attribute != but
            for name in each.names if each.reads_data and asked else ():
                found.setdefault(name, (each.attribute, stage.spec.at(each.attribute)))
    return found


def _mixed(stage: ScheduledStage) -> list[str]:
    """The data sets that a stage trains on."""
    found = (each for each in referring(stage.spec) if each.reads_data)
    return list(
        dict.fromkeys(n for each in found if each.attribute != EVALUATE for n in each.names)
    )


def _noted(place: Span | None, what: str) -> tuple[tuple[Span, str], ...]:
    return ((place, what),) if place else ()


@rule("W623", stages=None)
def nothing_held_out(program: Scheduled) -> Iterator[Found]:
    """Losses and accuracies on data sets that hold nothing out."""
    for name, (attribute, place) in _measured(program).items():
        dataset = program.recipe.datasets.get(name)
        if dataset and dataset.holdout == 0 and attribute != "prompts":
            yield Found(
                f"`{name}` has no held-out part to measure on",
                place,
                "remove its `holdout`: by default, half a percent is held out",
                notes=_noted(dataset.places.get("holdout"), "nothing is held out here"),
            )


@rule("N622", stages=None)
def measured_in_part(program: Scheduled) -> Iterator[Found]:
    """Data sets that are there for measuring, of which the usual small share is measured."""
    trained = _read(program, r.Training, but=EVALUATE)
    for name, (attribute, place) in _measured(program).items():
        dataset = program.recipe.datasets.get(name)
        if dataset is None or dataset.stages or name in trained or attribute == "prompts":
            continue
        if "holdout" not in dataset.places and DataId.parse(name).among is None:
            yield Found(
                f"no stage trains on `{name}`, and losses are measured on only "
                f"{measured(dataset.holdout * 100)}% of it",
                place,
                "write `holdout = 100%` in the dataset to measure all of it",
            )


@rule("W624")
def preferences_of_a_later_round(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    """A stage of one round that reads data collected in a later round."""
    round = StageId.parse(stage.name).round
    if not round:
        return
    for name in _mixed(stage):
        of = DataId.parse(name)
        dataset = program.recipe.datasets.get(of.name)
        rounds = of.among and of.among.numbers()
        collected = dataset and any("{round}" in file for file in dataset.files or [])
        if collected and rounds and rounds[1] > round:
            yield Found(
                f"round {round} trains on `{name}`, which is only collected in round {rounds[1]}",
                stage.spec.at("data"),
                f"write `{of.name}[round]` or `{of.name}[1..round]`",
            )


@rule("W625")
def many_passes(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    epochs = stage.spec.epochs
    if isinstance(stage.spec, r.Train) or epochs is None or epochs.value <= MOST_POST_EPOCHS:
        return
    yield Found(
        f"{short(epochs.value)} passes over dialogs or preferences",
        stage.spec.at("epochs"),
        f"the model will memorize such data: {MOST_POST_EPOCHS} passes are already many",
    )


@rule("W626", stages=None)
def the_same_source_twice(program: Scheduled) -> Iterator[Found]:
    """Two data sets of one mixture that hold the same records."""
    datasets = program.recipe.datasets
    seen: set[tuple[str, ...]] = set()
    for stage in program.stages.values():
        if not isinstance(stage, ScheduledStage):
            continue
        names = tuple(name for name in _mixed(stage) if name in datasets)
        if names in seen or len(names) > 100:
            continue
        seen.add(names)
        for one, other in combinations(names, 2):
            if overlap(datasets[one], datasets[other]) and not datasets[one].stages:
                yield Found(
                    f"`{one}` and `{other}` have the same records",
                    stage.spec.at("data"),
                    "their shares add up for these records: use only one of them",
                )


@rule("N621", stages=None, needs="recipe")
def no_seed(program: Scheduled) -> Iterator[Found]:
    header = program.recipe.header
    if "seed" not in header.places:
        yield Found(
            "the recipe sets no seed",
            header.at(),
            "write `seed = 0`, the default",
        )
