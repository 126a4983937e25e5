"""Stand-ins for published weights: a short training on documents, from random weights; of reward
models, on preferences, from another model."""

from collections.abc import Iterator
from fractions import Fraction

from ...spec import schedule as sc
from ...spec.quantity import Quantity, counted
from ...spec.record import replace
from ...spec.schema import recipe as r
from ..program import ModelStage, Scheduled, WeightsStage
from ..values import Scaled
from .scale import FRESH, PEAKS, SHORTEST, STEP_TOKENS, Scale

WARM_UP = 8
JUDGED = 8
"""Pairs of a step of a stand-in that judges."""
END = Fraction(1, 10)
"""Warm-up as a share of the steps, and the final learning rate as a share of its peak."""


def published(program: Scheduled) -> list[WeightsStage]:
    """The weights that a recipe starts from."""
    return [stage for stage in program.stages.values() if isinstance(stage, WeightsStage)]


def with_texts(recipe: r.Recipe, program: Scheduled) -> r.Recipe:
    """The recipe with a data set for each of the weights that it starts from: documents, or the
    preferences of a reward model."""
    texts: dict[str, r.Dataset] = {}
    for stage in published(program):
        name = _text(stage.name)
        plain = r.Dataset(name=name, files=[], places=stage.spec.places)
        judged = replace(plain, kind="preferences", long="drop")
        texts[name] = plain if stage.spec.writes_text else judged
    return replace(recipe, datasets={**recipe.datasets, **texts})


def _text(model: str) -> str:
    # Declared names contain no dots.
    return f"{model}.text"


def stand_ins(program: Scheduled, maps: Scale, target: int) -> dict[str, r.Stage | r.Rounds]:
    """Stages that produce, under the same names, the weights that already exist for the recipe."""
    seq_len = min(maps.lengths.values(), default=2 * SHORTEST)
    batch = Quantity(Fraction(max(2 * STEP_TOKENS[0] // seq_len, 1)), "seqs")
    peak = PEAKS["train"]
    warm = sc.Bound(relative=False, quantity=Quantity(Fraction(WARM_UP), "steps"))
    rates = (
        sc.Segment("linear", Fraction(0), peak, None, warm),
        sc.Segment("cosine", None, peak * END, None, None),
    )
    writers = [stage for stage in published(program) if stage.spec.writes_text]
    judges = [stage for stage in published(program) if not stage.spec.writes_text]
    made: dict[str, r.Stage | r.Rounds] = {
        stage.name: r.Train(
            name=stage.name,
            model=stage.name,
            places=stage.spec.places,
            steps=max(target, FRESH),
            seq_len=sc.constant(seq_len),
            batch=sc.constant(batch),
            # The mean of one step's weights: like published weights, it comes without moments.
            average=r.Polyak(every=1, over=Quantity(Fraction(1), "steps")),
            lr=sc.Schedule(rates),
            data=sc.constant({_text(stage.name): Fraction(1)}),
        )
        for stage in writers
    }
    for stage in judges:
        made[stage.name] = r.Reward(
            name=stage.name,
            from_=_first_writer(program),
            places=stage.spec.places,
            steps=FRESH,
            seq_len=sc.constant(max(maps.lengths.values(), default=2 * SHORTEST)),
            batch=sc.constant(Quantity(Fraction(JUDGED), "pairs")),
            average=r.Polyak(every=1, over=Quantity(Fraction(1), "steps")),
            lr=sc.constant(PEAKS["reward"]),
            data=sc.constant({_text(stage.name): Fraction(1)}),
        )
    return made


def _first_writer(program: Scheduled) -> str:
    """The first model that generates text: a reward model starts from its weights."""
    return next(
        name
        for name, stage in program.stages.items()
        if isinstance(stage, ModelStage) and stage.spec.writes_text
    )


def without_judges(recipe: r.Recipe, program: Scheduled) -> r.Recipe:
    """The recipe without the tokenizers that only judges from published weights have: their
    stand-ins read the tokens of the model that they start from."""
    of: dict[bool, set[str | None]] = {True: set(), False: set()}
    for name, folder in program.folders.items():
        of[recipe.models[name].judges].add(folder.tokenizer)
    kept = {n: each for n, each in recipe.tokenizers.items() if n not in of[True] - of[False]}
    return replace(recipe, tokenizers=kept)


def rows(program: Scheduled, small: r.Recipe) -> Iterator[Scaled]:
    """What replaces published weights, for the table of changes."""
    for stage in published(program):
        standing = small.stages[stage.name]
        assert isinstance(standing, r.Training)
        assert standing.steps
        source = stage.source
        yield Scaled(
            block=f"model {stage.name}",
            attribute="weights" if "folder" in source else "hub",
            full=source.get("folder") or source["hub"],
            miniature=f"random, then trained for {counted(standing.steps, 'steps')} on "
            f"{small.datasets[_text(stage.name)].sample}",
        )
