"""Advice on declarations that nothing uses."""

from collections.abc import Iterator

from ...spec.schema import recipe as r
from ..ids import DataId
from ..program import Scheduled
from ..resolve.graph import data_of
from ..resolve.references import referring
from ..stages.sample import SampleStage
from ..stages.score import ScoreStage
from . import ALL, Found, rule


@rule("N652", stages=None, needs=ALL)
def unused_dataset(program: Scheduled) -> Iterator[Found]:
    recipe = program.recipe
    used = {name for stage in recipe.stages.values() for name in data_of(stage)}
    for tokenizer in recipe.tokenizers.values():
        used.update(tokenizer.train.on if tokenizer.train else ())
    for stage in recipe.stages.values():
        for each in getattr(getattr(stage, "gate", None), "requirements", ()):
            used.add(each.argument or "")
        if isinstance(stage, r.Training) and stage.data:
            used.update(n for s in stage.data.segments for n, _ in getattr(s.end, "factors", ()))
    used |= {DataId.parse(name).name for name in used}
    for name, dataset in recipe.datasets.items():
        if name not in used and not dataset.stages and DataId.parse(name).among is None:
            yield Found(
                f"no stage reads the dataset `{name}`",
                dataset.at(),
                "add it to a mixture, or remove it",
            )


@rule("N653", stages=None, needs=ALL)
def unused_result(program: Scheduled) -> Iterator[Found]:
    """Weights that no stage continues from or measures, except the last ones."""
    used = _used(program)
    models = [n for n, s in program.stages.items() if s.spec.has_weights and s.spec.continued]
    for name in models[:-1]:
        if name not in used:
            stage = program.stages[name]
            yield Found(
                f"no stage continues from `{name}` or measures it",
                stage.spec.at(),
                f"evaluate it, or continue from it: `from = {name}`",
            )


@rule("N654", stages=None, needs=ALL)
def unused_samples(program: Scheduled) -> Iterator[Found]:
    recipe = program.recipe
    used = _used(program)
    for dataset in recipe.datasets.values():
        used.update(f.what for f in dataset.filters if not f.file)
    for name, stage in program.stages.items():
        if isinstance(stage, SampleStage | ScoreStage) and name not in used:
            what = "samples" if isinstance(stage, SampleStage) else "scores"
            yield Found(
                f"nothing uses the {what} of `{name}`",
                stage.spec.at(),
                f"train on them: `data = {name}`"
                if what == "samples"
                else f"filter by them: `keep 50% where {name}.loss > 3.5`",
            )


def _used(program: Scheduled) -> set[str]:
    """The stages that other stages continue from, measure, sample, judge with or read."""
    used: set[str] = set()
    for stage in program.stages.values():
        used.update(stage.sources)
        for each in referring(stage.spec):
            used.update(each.names if "stage" in each.to else ())
    for dataset in program.recipe.datasets.values():
        used.update(dataset.stages)
        used.add(dataset.candidates or "")
    return used


@rule("N655", stages=None, needs=ALL)
def unused_declaration(program: Scheduled) -> Iterator[Found]:
    recipe = program.recipe
    refers = [each for stage in program.stages.values() for each in referring(stage.spec)]
    read = {folder.tokenizer for folder in program.folders.values()}  # nobody has declared them
    tokenizers = {name: each for name, each in recipe.tokenizers.items() if name not in read}
    for what, declared in (
        ("model", recipe.models),
        ("tokenizer", tokenizers),
        ("cluster", recipe.clusters),
        ("dialog", recipe.dialogs),
        ("verifier", recipe.verifiers),
    ):
        named = {name for each in refers if what in each.to for name in each.names}
        alone = len(declared) == 1 and what not in ("model", "verifier")
        for name, declaration in declared.items():
            if name not in named and not alone:
                yield Found(
                    f"no stage names the {what} `{name}`",
                    declaration.at(),
                    f"write `{what} = {name}` in a stage, or remove it",
                )
