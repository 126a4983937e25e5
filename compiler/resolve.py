"""Names to what they stand for: the graph of stages, their models, hardware and settings."""

from fractions import Fraction
from typing import Any

from ..spec import recipe as r
from ..spec.diagnostics import Report, did_you_mean
from ..spec.record import replace
from ..spec.schedule import Last
from ..spec.source import Span
from .architectures import PUBLISHED
from .program import AnyStage, AverageStage, EvaluateStage, Hardware, Program, TrainStage
from .values import Architecture

DEFAULTS: dict[str, Any] = {"clip": 1.0, "recompute": "none"}


def resolve(program: Program, report: Report) -> Program:
    """Fills `stages`, in an order in which they can run."""
    return replace(program, stages=_Resolver(program, report).run())


class _Resolver:
    def __init__(self, program: Program, report: Report) -> None:
        self.recipe = program.recipe
        self.ranks = program.ranks
        self.report = report
        self.stages: dict[str, AnyStage] = {}

    def run(self) -> dict[str, AnyStage]:
        for dataset in self.recipe.datasets.values():
            self._dataset(dataset)
        for tokenizer in self.recipe.tokenizers.values():
            self._tokenizer(tokenizer)
        if not self.recipe.stages:
            self.report.add(
                "E401", "this recipe has no stages", self.recipe.header.at(),
                help="add one: stage pretrain: train { … }",
            )  # fmt: skip
        for name in self._order():
            stage = self.recipe.stages[name]
            resolved: AnyStage | None = None
            if isinstance(stage, r.Train):
                resolved = self._train(stage)
            elif isinstance(stage, r.Average):
                resolved = self._average(stage)
            elif isinstance(stage, r.Evaluate):
                resolved = self._evaluate(stage)
            if resolved:
                self.stages[name] = resolved
        return self.stages

    def _known(self, name: str, what: str, group: dict[str, Any], span: Span | None) -> bool:
        if name in group:
            return True
        help = did_you_mean(name, group)
        for other, names in (
            ("dataset", self.recipe.datasets), ("stage", self.recipe.stages),
            ("model", self.recipe.models), ("tokenizer", self.recipe.tokenizers),
        ):  # fmt: skip
            if other != what and name in names:
                help = f"`{name}` is a {other}; a {what} is meant here"
        self.report.add(
            "E402", f"there is no {what} `{name}`", span,
            help=help or f"declare it: {what} {name} {{ … }}",
        )  # fmt: skip
        return False

    def _sources(self, stage: r.Stage) -> list[str]:
        """The stages that a stage needs, by name."""
        if isinstance(stage, r.Average):
            return stage.of
        if isinstance(stage, r.Train | r.Evaluate):
            if stage.from_:
                return [stage.from_]
            if isinstance(stage, r.Train) and stage.model:
                return []
            above = self._above(stage.name)
            return [above] if above else []
        return []

    def _above(self, name: str) -> str | None:
        """The stage above that provides weights: what `from` defaults to."""
        above = None
        for other, stage in self.recipe.stages.items():
            if other == name:
                return above
            if not isinstance(stage, r.Evaluate):
                above = other
        return above

    def _order(self) -> list[str]:
        """The stages, each after those that it needs, else as written."""
        done: dict[str, None] = {}
        for first in self.recipe.stages:
            path = {} if first in done else {first: iter(self._needed(first))}
            while path:
                name, needed = next(reversed(path.items()))
                source = next(needed, None)
                if source is None:
                    del path[name]
                    done[name] = None
                elif source in path:
                    names = list(path)
                    circle = " → ".join([*names[names.index(source) :], source])
                    place = self.recipe.stages[source].at("from")
                    self.report.add("E403", f"these stages need each other: {circle}", place)
                elif source not in done:
                    path[source] = iter(self._needed(source))
        return list(done)

    def _needed(self, name: str) -> list[str]:
        """The declared stages that a stage needs; others are reported."""
        stage = self.recipe.stages[name]
        place = stage.at("of" if isinstance(stage, r.Average) else "from")
        sources = self._sources(stage)
        return [n for n in sources if self._known(n, "stage", self.recipe.stages, place)]

    def _train(self, spec: r.Train) -> TrainStage | None:
        if spec.model and spec.from_:
            self.report.add(
                "E404", "a stage has either a `model` (new weights) or a `from`", spec.at("from"),
                help="leave one of them out",
            )  # fmt: skip
            return None
        source = next(iter(self._sources(spec)), None)
        if source is None and not spec.model:
            self.report.add(
                "E405", f"the stage `{spec.name}` has neither a `model` nor a stage to go on from",
                spec.at(), help="write `model = …`",
            )  # fmt: skip
            return None
        if source is not None and source not in self.stages:
            return None
        before = self.stages[source] if source else None
        if isinstance(before, EvaluateStage):
            self.report.add(
                "E406", f"`{source}` evaluates: it has no weights to go on from", spec.at("from"),
                help=f"write `from = {before.of}`",
            )  # fmt: skip
            return None
        parent = self._trained(before) if before else None
        origins: dict[str, str] = {}

        def setting(name: str, inherited: Any, default: Any) -> Any:
            given = getattr(spec, name)
            if given is not None:
                origins[name] = "spec"
                return given
            origins[name] = f"from {source}" if parent else "etude"
            return inherited if parent else default

        self._length(spec)
        self._needs(spec, parent)
        tokenizer = self._stage_tokenizer(spec, parent)
        model = parent.model if parent else self._model(spec, tokenizer)
        hardware = self._hardware(spec, parent)
        if model is None or hardware is None:
            return None
        optimizer, carries = self._stage_optimizer(spec, before, parent)
        on_cpu = hardware.device == "cpu"
        return TrainStage(
            name=spec.name,
            spec=spec,
            parent=source,
            model=model,
            tokenizer=tokenizer,
            hardware=hardware,
            optimizer=optimizer,
            carries=carries,
            clip=setting("clip", parent and parent.clip, DEFAULTS["clip"]),
            precision=setting(
                "precision", parent and parent.precision, "fp32" if on_cpu else "bf16"
            ),
            recompute=setting(
                "recompute", parent and parent.recompute, DEFAULTS["recompute"]
            ),
            origins=origins | {
                "model": f"from {source}" if source else "spec",
                "optimizer": "spec" if isinstance(spec.optimizer, r.Optimizer)
                else f"from {source}" if parent else "etude",
            },
        )  # fmt: skip

    def _trained(self, stage: AnyStage) -> TrainStage:
        while not isinstance(stage, TrainStage):
            stage = self.stages[stage.of[0] if isinstance(stage, AverageStage) else stage.of]
        return stage

    def _length(self, spec: r.Train) -> None:
        given = [n for n in ("tokens", "steps", "epochs") if getattr(spec, n) is not None]
        if len(given) != 1:
            self.report.add(
                "E407",
                f"the stage `{spec.name}` needs exactly one length"
                + (f", not {' and '.join(given)}" if given else ""),
                spec.at(given[-1]) if given else spec.at(),
                help="write `tokens = …`, `steps = …` or `epochs = …`",
            )

    def _needs(self, spec: r.Train, parent: TrainStage | None) -> None:
        if parent is None:
            for name in ("seq_len", "batch", "lr", "data"):
                if getattr(spec, name) is None:
                    self.report.add(
                        "E408", f"the stage `{spec.name}` needs `{name}`", spec.at(),
                        help=f"a stage that starts from new weights has no {name} to go on with",
                    )  # fmt: skip
        if spec.data:
            for segment in spec.data.segments:
                for mix in (segment.start, segment.end):
                    names = list(mix) if isinstance(mix, dict) else []
                    if isinstance(mix, Last):
                        names = [name for name, _ in mix.factors]
                    for name in names:
                        self._known(name, "dataset", self.recipe.datasets, segment.span)
        for requirement in spec.gate.requirements if spec.gate else ():
            if requirement.argument not in (None, "short"):
                self._known(requirement.argument, "dataset", self.recipe.datasets, requirement.at())
        if parent is None:
            for name in ("seq_len", "batch", "lr", "data", "rope_theta", "parallel"):
                schedule = getattr(spec, name)
                for segment in schedule.segments if schedule else ():
                    if isinstance(segment.start, Last) or isinstance(segment.end, Last):
                        self.report.add(
                            "E409", "there is no stage before this one: `last` has no value",
                            segment.span, help="write the value",
                        )  # fmt: skip
            for requirement in spec.gate.requirements if spec.gate else ():
                if requirement.of_start:
                    self.report.add(
                        "E409", "there is no stage before this one: `of start` has no value",
                        requirement.at(), help="write the value: `loss(short) <= 3.5`",
                    )  # fmt: skip
            if spec.optimizer == "last":
                self.report.add(
                    "E409", "there is no stage before this one: `last` has no value",
                    spec.at("optimizer"), help="write `adamw { … }`",
                )  # fmt: skip

    def _stage_optimizer(
        self, spec: r.Train, before: AnyStage | None, parent: TrainStage | None
    ) -> tuple[r.Optimizer, bool]:
        """The optimizer's settings, and whether its state is carried over from the stage before.

        Moments belong to the weights that they were gathered on: they are carried over where a
        stage goes on from a train stage's own last weights, and not from any average.
        """
        if isinstance(spec.optimizer, r.Optimizer):
            return spec.optimizer, False
        if parent is None:
            return r.Optimizer(name="adamw"), False
        averaged = isinstance(before, AverageStage) or parent.spec.average is not None
        if spec.optimizer == "last" and averaged:
            self.report.add(
                "E410", "averaged weights have no optimizer state to go on with",
                spec.at("optimizer"), help="leave `optimizer` out to start it afresh",
            )  # fmt: skip
        return parent.optimizer, not averaged

    def _stage_tokenizer(self, spec: r.Train, parent: TrainStage | None) -> str | None:
        if spec.tokenizer:
            self._known(spec.tokenizer, "tokenizer", self.recipe.tokenizers, spec.at("tokenizer"))
            if parent and parent.tokenizer != spec.tokenizer:
                self.report.add(
                    "E411", "a stage keeps the tokenizer of the stage that it goes on from",
                    spec.at("tokenizer"), help="leave `tokenizer` out",
                )  # fmt: skip
            return spec.tokenizer
        if parent:
            return parent.tokenizer
        names = list(self.recipe.tokenizers)
        if len(names) > 1:
            self.report.add(
                "E412", f"the stage `{spec.name}` has {len(names)} tokenizers to choose from",
                spec.at(), help=f"write `tokenizer = {names[0]}`",
            )  # fmt: skip
        return names[0] if names else None

    def _hardware(self, spec: r.Train, parent: TrainStage | None) -> Hardware | None:
        clusters = self.recipe.clusters
        name = spec.cluster
        if name and not self._known(name, "cluster", clusters, spec.at("cluster")):
            return None
        if self.ranks is not None:
            return Hardware(self.ranks, "cpu")
        if name is None and parent:
            return parent.hardware
        if name is None and len(clusters) > 1:
            self.report.add(
                "E412", f"the stage `{spec.name}` has {len(clusters)} clusters to choose from",
                spec.at(), help=f"write `cluster = {next(iter(clusters))}`",
            )  # fmt: skip
            return None
        if name is None and not clusters:
            return Hardware(1, "cpu")
        cluster = clusters[name or next(iter(clusters))]
        if (cluster.gpus is None) == (cluster.cpus is None):
            self.report.add(
                "E413", f"the cluster `{cluster.name}` needs either `gpus` or `cpus`", cluster.at(),
                help='write `gpus = 8 of "H100 80GB"`, or `cpus = 2` for two processes',
            )  # fmt: skip
            return None
        if cluster.gpus:
            return Hardware(cluster.nodes * cluster.gpus[0], cluster.gpus[1])
        return Hardware(cluster.nodes * (cluster.cpus or 1), "cpu")

    def _model(self, spec: r.Train, tokenizer: str | None) -> Architecture | None:
        assert spec.model
        if not self._known(spec.model, "model", self.recipe.models, spec.at("model")):
            return None
        model = self.recipe.models[spec.model]
        if model.family not in PUBLISHED:
            self.report.add(
                "E414", f"the engine has no model family `{model.family}`", model.at("family"),
                help=did_you_mean(model.family, PUBLISHED),
            )  # fmt: skip
            return None
        shape: dict[str, Any] = {"rope_theta": 10_000.0, "rope_scaling": "none", "tied": False,
                                 "norm_eps": 1e-5}  # fmt: skip
        if model.size:
            sizes = PUBLISHED[model.family]
            if model.size not in sizes:
                self.report.add(
                    "E415", f"{model.family} has no published size {model.size}", model.at("size"),
                    help=f"there is {', '.join(sizes)}; or give layers, dim, heads, …",
                )  # fmt: skip
                return None
            shape |= sizes[model.size]
        for name in ("layers", "dim", "heads", "kv_heads", "ffn", "vocab", "rope_theta",
                     "rope_scaling", "tied", "norm_eps"):  # fmt: skip
            if getattr(model, name) is not None:
                shape[name] = getattr(model, name)
        training = (
            self.recipe.tokenizers[tokenizer].train if tokenizer in self.recipe.tokenizers else None
        )
        if training:
            shape.setdefault("vocab", training.vocab)
            if shape["vocab"] < training.vocab:
                self.report.add(
                    "E416",
                    f"the model has {shape['vocab']} tokens, its tokenizer {training.vocab}",
                    model.at("vocab"), help=f"write `vocab = {training.vocab}`",
                )  # fmt: skip
        shape.setdefault("kv_heads", shape.get("heads"))
        missing = [n for n in ("layers", "dim", "heads", "ffn", "vocab") if n not in shape]
        if missing:
            self.report.add(
                "E417", f"the model `{model.name}` needs {', '.join(f'`{m}`' for m in missing)}",
                model.at(), help="or name a published size: size = \"8B\"",
            )  # fmt: skip
            return None
        return self._shape(model, shape)

    def _shape(self, model: r.Model, shape: dict[str, Any]) -> Architecture | None:
        if shape["dim"] % shape["heads"] or (shape["dim"] // shape["heads"]) % 2:
            self.report.add(
                "E418", f"`dim` {shape['dim']} is not an even multiple of `heads` {shape['heads']}",
                model.at("heads"), help="rotary embeddings need an even width a head",
            )  # fmt: skip
            return None
        if shape["heads"] % shape["kv_heads"]:
            self.report.add(
                "E418",
                f"`heads` {shape['heads']} is not a multiple of `kv_heads` {shape['kv_heads']}",
                model.at("kv_heads"),
            )  # fmt: skip
            return None
        return Architecture(
            family=model.family, size=model.size, head_dim=shape["dim"] // shape["heads"],
            context=0, **shape,
        )  # fmt: skip

    def _average(self, spec: r.Average) -> AverageStage | None:
        of = [self.stages[name] for name in spec.of if name in self.stages]
        if len(of) < len(spec.of):
            return None
        for stage in of:
            if isinstance(stage, EvaluateStage):
                self.report.add(
                    "E406", f"`{stage.name}` evaluates: it has no weights", spec.at("of")
                )
                return None
        models = [self._trained(stage).model for stage in of]
        if any(model != models[0] for model in models):
            self.report.add(
                "E420", "these stages have models of different shapes", spec.at("of"),
                help="only weights of the same shape have a mean",
            )  # fmt: skip
        weights = [Fraction(str(w)) for w in spec.weights or [1.0] * len(of)]
        if len(weights) != len(of) or sum(weights) <= 0 or min(weights) < 0:
            self.report.add(
                "E421", f"this average needs {len(of)} weights, none below 0", spec.at("weights")
            )
            return None
        total = sum(weights)
        return AverageStage(
            name=spec.name, spec=spec, of=spec.of, weights=[w / total for w in weights],
            model=models[0],
        )  # fmt: skip

    def _evaluate(self, spec: r.Evaluate) -> EvaluateStage | None:
        source = next(iter(self._sources(spec)), None)
        if source is None:
            self.report.add("E405", f"the stage `{spec.name}` has nothing to evaluate", spec.at(),
                            help="write `from = …`")  # fmt: skip
            return None
        if source not in self.stages:
            return None
        before = self.stages[source]
        if isinstance(before, EvaluateStage):
            self.report.add("E406", f"`{source}` evaluates: it has no weights", spec.at("from"),
                            help=f"write `from = {before.of}`")  # fmt: skip
            return None
        if spec.loss is None and spec.needle is None:
            self.report.add(
                "E422", f"the stage `{spec.name}` evaluates nothing", spec.at(),
                help="write `loss = [DATASET]` or `needle = { lengths = [128], depths = 5 }`",
            )  # fmt: skip
        for name in spec.loss or []:
            self._known(name, "dataset", self.recipe.datasets, spec.at("loss"))
        model = self._trained(before).model
        return EvaluateStage(name=spec.name, spec=spec, of=source, model=model)

    def _dataset(self, dataset: r.Dataset) -> None:
        given = [n for n in ("files", "hub", "sample") if getattr(dataset, n) is not None]
        if len(given) != 1:
            self.report.add(
                "E423",
                f"the dataset `{dataset.name}` needs exactly one of `files`, `hub` and `sample`",
                dataset.at(given[-1]) if given else dataset.at(),
                help='write `files = "corpus/**/*.jsonl.zst"` or `sample = python_docs`',
            )

    def _tokenizer(self, tokenizer: r.Tokenizer) -> None:
        given = [n for n in ("file", "hub", "train") if getattr(tokenizer, n) is not None]
        if len(given) + tokenizer.bytes != 1:
            self.report.add(
                "E424",
                f"the tokenizer `{tokenizer.name}` needs exactly one of "
                "`file`, `hub`, `bytes`, `train`",
                tokenizer.at(), help="write `train = { on [DATASET], vocab 4096 }` or `bytes`",
            )  # fmt: skip
        if tokenizer.train:
            for name in tokenizer.train.on:
                self._known(name, "dataset", self.recipe.datasets, tokenizer.train.at("on"))
            if tokenizer.train.vocab < 258:
                self.report.add(
                    "E425", "a trained vocabulary has at least 258 tokens",
                    tokenizer.train.at("vocab"),
                    help="256 bytes, the beginning and the end of a text",
                )  # fmt: skip
