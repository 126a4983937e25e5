"""The scope for looking up names and reporting errors."""

from collections.abc import Iterable, Mapping
from typing import Any

from ...spec.findings.diagnostics import Report, did_you_mean
from ...spec.reference import PAIRS, PREVIOUS, Names
from ...spec.schema import recipe as r
from ...spec.source import Span
from ..ids import DataId, StageId
from ..program import ModelStage, Program, Stage


class Scope:
    """The recipe, and the stages resolved so far.

    Attributes:
        specs: the recipe's stages, with rounds already unrolled.
        folders: model → what it has from the folder of its weights.
        above: stage → the default of `from`.
    """

    def __init__(self, program: Program, report: Report) -> None:
        self.recipe = program.recipe
        self.ranks = program.ranks
        self.folders = program.folders
        self.report = report
        self.stages: dict[str, Stage] = {}
        self.specs = {
            name: spec for name, spec in program.recipe.stages.items() if isinstance(spec, r.Stage)
        }
        self.above = above(self.specs)

    @property
    def tokenizers(self) -> list[str]:
        """The tokenizers that a stage may mean without naming one: all but those that only judges
        from published weights have."""
        judges, others = set[str | None](), set[str | None]()
        for name, folder in self.folders.items():
            (judges if self.recipe.models[name].judges else others).add(folder.tokenizer)
        return [name for name in self.recipe.tokenizers if name not in judges - others]

    def error(self, code: str, message: str, span: Span | None, help: str = "") -> None:
        self.report.add(code, message, span, help=help)

    def shown(self, name: str) -> str:
        """A stage or data as specs name them outside of rounds: `align.chat`, `align.chat.pairs`;
        for a part of a data set, the data set."""
        dataset = self.recipe.datasets.get(name)
        if dataset is None:
            return as_written(name)
        if not dataset.stages:
            return DataId.parse(name).name
        output = PAIRS if dataset.kind == "preferences" else ""
        return str(StageId.parse(dataset.stages[0]).reference._replace(output=output))

    def known(self, name: str, what: str, group: Mapping[str, Any], span: Span | None) -> bool:
        """Whether something with this name exists; reports it if not."""
        if name in group:
            return True
        self._unknown(name, what, {self.shown(other) for other in group}, span)
        return False

    def _unknown(self, name: str, what: str, known: Iterable[str], span: Span | None) -> None:
        """Reports a name that is not declared, or that is declared as something else, and where."""
        if Names().parse(name).rounds == PREVIOUS:
            return  # already reported when rounds became stages
        recipe = self.recipe
        help, notes = did_you_mean(name, known), []
        for other, names in (
            ("dataset", recipe.datasets),
            ("stage", recipe.stages),
            ("model", recipe.models),
            ("tokenizer", recipe.tokenizers),
            ("cluster", recipe.clusters),
            ("dialog", recipe.dialogs),
            ("verifier", recipe.verifiers),
        ):
            if other != what and name in names:
                help = f"`{name}` is a {other}; a {what} is meant here"
                if (other, what) == ("model", "stage"):
                    help = (
                        f"the model `{name}` has no weights to continue from: set its `weights` "
                        "or `hub`"
                    )
                place = names[name].at()
                notes = [(place, f"the {other} is declared here")] if place else []
        self.report.add(
            "E402",
            f"there is no {what} `{name}`",
            span,
            help=help or f"declare it: {what} {name} {{ … }}",
            notes=notes,
        )

    def data(self, name: str, kind: str, span: Span | None) -> bool:
        """Whether a dataset with this name and kind exists; reports it if not."""
        if not self.known(name, "dataset", self.recipe.datasets, span):
            return False
        if any("{round}" in file for file in self.recipe.datasets[name].files or []):
            self.error(
                "E505",
                f"`{name}` has a part for each round, and none is given",
                span,
                "use a separate dataset whose files have no {round}",
            )
            return False
        found = self.recipe.datasets[name].kind
        if found == kind:
            return True
        self.error(
            "E511",
            f"{kind} are needed here, but `{name}` has {found}",
            span,
            self._of_kind(kind, name)
            if not self.recipe.datasets[name].stages
            else "`drafts` are dialogs, `drafts.pairs` preferences",
        )
        return False

    def _of_kind(self, kind: str, name: str) -> str:
        """Advice to take data of a kind in place of those of a name: all that are declared."""
        found = dict.fromkeys(
            f"`{self.shown(each.name)}`"
            for each in self.recipe.datasets.values()
            if each.kind == kind and not each.stages
        )
        say = f"write `kind = {kind}` in the dataset `{self.shown(name)}`, if it contains {kind}"
        if not found:
            return say
        *others, last = found
        names = f"{', '.join(others)} and {last}" if others else last
        return f"{names} ha{'ve' if others else 's'} {kind}; or {say}"

    def with_weights(self, name: str, span: Span | None, *, text: bool = False) -> Stage | None:
        """The stage with this name, if its result is a model; reports it if not.

        Args:
            text: whether the model has to write text: what to write instead does.
        """
        stage = self.stages.get(name)
        if stage and not stage.spec.has_weights:
            kind = stage.spec.kind
            what = "is an ensemble" if stage.spec.judges else f"{kind}s"
            self.error("E406", f"`{name}` {what}: it has no weights", span, self._of(stage, text))
            return None
        return stage

    def _of(self, stage: Stage, text: bool) -> str:
        """What to write for a stage without weights: a model that it is made from."""
        sources = [self.stages[each] for each in stage.sources if each in self.stages]
        if not text or self.trained(sources[0]).spec.writes_text:
            some = "one of its reward models, such as " if stage.spec.judges else ""
            return f"write {some}`{self.shown(sources[0].name)}`"
        writers = [
            name
            for name, each in self.stages.items()
            if each.spec.has_weights and self.trained(each).spec.writes_text
        ]
        such = f", such as `{self.shown(writers[-1])}`" if writers else ""
        return f"its reward models write no text: name a language model{such}"

    def trained(self, stage: Stage) -> ModelStage:
        """The stage that trained the weights: itself, or the first that it is made from."""
        while not isinstance(stage, ModelStage):
            stage = self.stages[stage.sources[0]]
        return stage

    def language_model(self, name: str, span: Span | None) -> Stage | None:
        """The stage with this name, if its result generates text."""
        stage = self.with_weights(name, span, text=True)
        if stage and not self.trained(stage).spec.writes_text:
            self.error(
                "E512", f"`{name}` is a reward model: it scores text, but cannot generate any", span
            )
            return None
        return stage

    def reward_model(self, name: str, span: Span | None) -> Stage | None:
        """The stage with this name, if its result scores texts."""
        stage = self.stages.get(name)
        if stage and stage.spec.judges:
            return stage
        if stage and (not stage.spec.has_weights or self.trained(stage).spec.writes_text):
            self.error(
                "E513",
                f"`{name}` is not a reward model",
                span,
                "a judge is the result of a stage of kind `reward` or `prm`, an `ensemble` of such "
                "results, or a model whose weights are those of a sequence classifier with one "
                "label",
            )
            return None
        return stage

    def dialog(
        self, name: str | None, inherited: dict[str, Any] | None, span: Span | None
    ) -> dict[str, Any] | None:
        """The settings of a chat protocol; without a name the one in force, declared or llama3."""
        declared = self.recipe.dialogs
        if name is None and inherited:
            return inherited
        if name is None and len(declared) > 1:
            self.error(
                "E412",
                f"there are {len(declared)} dialogs to choose from",
                span,
                f"write `dialog = {next(iter(declared))}`",
            )
            return None
        silent = next((each for each in self.folders.values() if each.tokenizer), None)
        if name is None and not declared and silent:
            self.error(
                "E549",
                f"the folder `{silent.folder}` has no chat template, and its tokenizer has the "
                "special tokens of no built-in protocol",
                span,
                'name a template, `dialog chat { template = "chat.jinja" }`, or write your own '
                "protocol with special tokens that the tokenizer has: `dialog chat { header = "
                '"<|{role}|>", end_of_turn = "<|end|>" }`',
            )
            return None
        name = name or next(iter(declared), "llama3")
        if name not in declared:
            if name in r.PROTOCOLS:
                return {"protocol": name}
            self._unknown(name, "dialog", [*declared, *r.PROTOCOLS], span)
            return None
        return dialog_settings(declared[name])


def above(stages: Mapping[str, r.Stage]) -> dict[str, str | None]:
    """For each stage, the closest one above with weights: the default of `from`.

    A reward model writes no text, so only another reward model continues from it by default. A
    checkpoint is a point in a stage, from which stages continue only explicitly; so are published
    weights. A stage of a variant is above no stage of the recipe, and has above it what its
    original has above it in the variant.
    """
    found: dict[str, str | None] = {}
    any_model = language_model = None
    for name, stage in stages.items():
        if stage.variant:
            source = found[original(name)]
            twin = source and str(StageId.parse(source)._replace(variant=stage.variant))
            found[name] = twin if twin in stages else source
            continue
        found[name] = language_model if stage.writes_text else any_model
        if stage.continued:
            any_model = name
            if stage.writes_text:
                language_model = name
    return found


def original(name: str) -> str:
    """The recipe's counterpart of a variant's stage: `align.2.gentle.sft` → `align.2.sft`. For a
    stage of no variant, itself."""
    return str(StageId.parse(name).original)


def as_written(name: str) -> str:
    """A stage as specs name it, whatever its round: `gentle.align.sft`."""
    return str(StageId.parse(name).reference)


def dialog_settings(dialog: r.Dialog) -> dict[str, Any]:
    """A declared protocol, as in the plan."""
    names = ("protocol", "template", "header", "end_of_turn", "end_of_message", "roles", "system")
    settings = {name: getattr(dialog, name) for name in names}
    return {name: value for name, value in settings.items() if value is not None}
