"""The graph of stages: which stage needs which, and an order in which they can run."""

from collections.abc import Iterator

from ...spec.schedule import Last
from ...spec.schema import recipe as r
from ..program import Weights
from .scope import Scope


def order(scope: Scope) -> list[str]:
    """The stages, each after those that it needs, else as written. Circles are reported."""
    stages = scope.recipe.stages
    done: dict[str, None] = {}
    for first in stages:
        path = {} if first in done else {first: iter(_needed(first, scope))}
        while path:
            name, needed = next(reversed(path.items()))
            source = next(needed, None)
            if source is None:
                del path[name]
                done[name] = None
            elif source in path:
                names = list(path)
                circle = " → ".join([*names[names.index(source) :], source])
                place = stages[source].at("from") or stages[source].at()
                scope.error("E403", f"these stages need each other: {circle}", place)
            elif source not in done:
                path[source] = iter(_needed(source, scope))
    return list(done)


def parents(stage: r.Stage | r.Rounds, scope: Scope) -> list[str]:
    """The stages whose weights a stage continues from, samples or measures."""
    named = named_parents(stage)
    if named == [] and isinstance(stage, r.Train):
        # Published weights stand in the graph under their model's name.
        model = stage.model or ""
        return [model] if isinstance(scope.recipe.stages.get(model), Weights) else []
    if named is not None:
        return named
    above = scope.above.get(stage.name)
    return [above] if above else []


def named_parents(stage: r.Stage | r.Rounds) -> list[str] | None:
    """The same as far as the stage itself says it; None: it is the stage above."""
    if isinstance(stage, r.Average | r.Best):
        return stage.of
    written = getattr(stage, "from_", None)
    if written:
        return [written]
    return [] if isinstance(stage, r.Training) and stage.model else None


def _needed(name: str, scope: Scope) -> list[str]:
    """The declared stages that a stage needs; others are reported."""
    stage = scope.recipe.stages[name]
    place = stage.at("of" if isinstance(stage, r.Average | r.Best) else "from")
    named = [(source, place) for source in parents(stage, scope)]
    for attribute in ("judge", "reference"):
        written = getattr(stage, attribute, None)
        if written:
            named.append((written, stage.at(attribute)))
    found = [n for n, at in named if scope.known(n, "stage", scope.recipe.stages, at)]
    for data in data_of(stage):
        dataset = scope.recipe.datasets.get(data)
        if dataset:
            found += [n for n in dataset.stages if n in scope.recipe.stages]
            if dataset.candidates in scope.recipe.stages:
                found.append(dataset.candidates)
            if not isinstance(stage, r.Score):
                scores = [f.what for f in dataset.filters if not f.file]
                found += [n for n in scores if n in scope.recipe.stages]
    return found


def data_of(stage: r.Stage | r.Rounds) -> Iterator[str]:
    """The datasets that a stage reads."""
    for attribute in ("loss", "accuracy", "data"):
        written = getattr(stage, attribute, None)
        if isinstance(written, list):
            yield from written
    if isinstance(stage, r.Training) and stage.data:
        for segment in stage.data.segments:
            for mix in (segment.start, segment.end):
                yield from mix if isinstance(mix, dict) else ()
    prompts = getattr(stage, "prompts", None)
    if prompts:
        yield prompts


def mixed(mix: object) -> list[str]:
    """The data sets of a mixture, also of one that scales another."""
    if isinstance(mix, Last):
        return [name for name, _ in mix.factors]
    return list(mix) if isinstance(mix, dict) else []
