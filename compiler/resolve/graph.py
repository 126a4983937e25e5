"""The graph of stages: which stage needs which, and an order in which they can run."""

from collections.abc import Iterator

from ...spec.schema import recipe as r
from ...spec.source import Span
from ..program import Weights
from .references import MADE_OF, Referring, referring
from .scope import Scope


def order(scope: Scope) -> list[str]:
    """The stages, each after those that it needs, otherwise as written. Reports cycles."""
    stages = scope.specs
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


def parents(stage: r.Stage, scope: Scope) -> list[str]:
    """The stages whose weights a stage continues from, samples or measures."""
    named = named_parents(stage)
    if named:
        return named
    if named is not None:
        # In the graph, published weights have their model's name.
        models = (name for each in referring(stage) if each.to == ("model",) for name in each.names)
        return [name for name in models if isinstance(scope.specs.get(name), Weights)]
    above = scope.above.get(stage.name)
    return [above] if above else []


def named_parents(stage: r.Stage) -> list[str] | None:
    """The same, as far as the stage itself names them; None: it is the stage above."""
    if isinstance(stage, Weights):
        return []
    found = list(referring(stage))
    for each in found:
        if each.attribute in MADE_OF and (each.value or isinstance(each.value, list)):
            return list(each.names)
    return [] if any(each.to == ("model",) and each.value for each in found) else None


def _needed(name: str, scope: Scope) -> list[str]:
    """The declared stages that a stage needs; reports undeclared ones."""
    stage = scope.specs[name]
    place = stage.at("of" if "of" in r.attributes(type(stage)) else "from")
    named = [(source, place) for source in parents(stage, scope)]
    for each in referring(stage):
        if "stage" in each.to and not each.reads_data and each.attribute not in MADE_OF:
            at = stage.at(each.attribute)
            named += [(source, at) for source in each.names if _is_stage(source, each, scope, at)]
    found = [n for n, at in named if scope.known(n, "stage", scope.specs, at)]
    for data in data_of(stage):
        dataset = scope.recipe.datasets.get(data)
        if dataset:
            found += [n for n in dataset.stages if n in scope.specs]
            if dataset.candidates in scope.specs:
                found.append(dataset.candidates)
            if not stage.scores:
                scores = [f.what for f in dataset.filters if not f.file]
                found += [n for n in scores if n in scope.specs]
    return found


def _is_stage(name: str, of: Referring, scope: Scope, at: Span | None) -> bool:
    """Whether a name in an attribute is that of a stage; where it may also be that of a verifier,
    reports one that is neither."""
    if "verifier" not in of.to or name in scope.specs:
        return True
    judges = {n: each for n, each in scope.specs.items() if not each.writes_text}
    scope.known(name, "verifier", {**scope.recipe.verifiers, **judges}, at)
    return False


def data_of(stage: r.Stage | r.Rounds) -> Iterator[str]:
    """The datasets that a stage reads."""
    for each in referring(stage) if isinstance(stage, r.Stage) else ():
        if each.reads_data:
            yield from each.names
