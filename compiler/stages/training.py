"""Training stages: what they start from, their settings and hardware."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ...spec.record import Record, replace
from ...spec.schedule import Last
from ...spec.schema import recipe as r
from ...spec.schema.convert_schedule import DIALOGS
from ...spec.schema.stage_groups import BACK, ROLLBACKS
from ...spec.source import Span
from ..program import CheckpointStage, Hardware, ModelStage, ScheduledStage, Stage, TrainStage
from ..resolve.graph import parents
from ..resolve.parts import still
from ..resolve.references import mixed
from ..resolve.scope import Scope
from ..resolve.shape import another_base, architecture, scaled
from ..values import ModelShape
from .adapter import check_adapter
from .evaluating import check_evaluation
from .further import further
from .optimizer import check_clipped, check_settings
from .precision import Chosen
from .ways import possible

if TYPE_CHECKING:
    from ..lowering.lowering import Lowering

DEFAULTS: dict[str, Any] = {"recompute": "none"}


_LENGTHS = {
    "sequences": ("tokens", "steps", "epochs"),
    "dialogs": ("steps", "epochs"),
    "pairs": ("steps", "epochs"),
    "ratings": ("steps", "epochs"),
    "solutions": ("steps", "epochs"),
    "answers": ("steps",),
}
"""What batches count → the ways to say how long a stage is."""


class _Start(Record):
    """What a stage starts from: a model, or the weights of another stage.

    Attributes:
        name: the other stage; None: a model.
        before: the stage that has these weights as its result.
        parent: the stage that trained or read them.
    """

    name: str | None = None
    before: Stage | None = None
    parent: ModelStage | None = None

    @property
    def force(self) -> TrainStage | None:
        """The stage whose settings the new one continues; None if it starts from a model, or from
        published weights, which have no settings in force."""
        return self.parent if isinstance(self.parent, TrainStage) else None

    def origin(self) -> str:
        """The origin of a setting that the stage does not give."""
        return f"from {self.name}" if self.force else "etude"


def resolve_training(
    spec: r.Training, scope: Scope, needs: tuple[str, ...] = ()
) -> TrainStage | None:
    """The stage with its names resolved; None after reporting.

    Args:
        needs: attributes that the stage has to give even if it could inherit them.
    """
    start = _start(spec, scope)
    if start is None:
        return None
    force, origins, spec = start.force, dict[str, str](), _counting(spec, start.force)

    def setting(name: str, default: Any) -> Any:
        given = getattr(spec, name, None)
        if name in r.attributes(type(spec)):
            origins[name] = start.origin() if given is None else "spec"
        if given is not None:
            return given
        if force is None:
            return default
        return force.settings[name] if name in r.INHERITED else getattr(force, name)

    _length(scope, spec)
    _needs(scope, spec, force, needs)
    _named(scope, spec)
    if force is None:
        _no_last(scope, spec, start.parent)
    tokenizer = _stage_tokenizer(scope, spec, start.parent)
    model = start.parent.model if start.parent else _architecture(scope, spec, tokenizer)
    if model:
        model = _positioned(scope, model, spec)
    where = _hardware(scope, spec, force)
    if model is None or where is None:
        return None
    precision = setting("precision", default_precision(where))
    recompute = setting("recompute", DEFAULTS["recompute"])
    asked = Chosen(precision, recompute, _settings(scope, spec, setting))
    chosen = possible(scope, spec, asked, where, model)
    check_adapter(scope, spec, model, random=start.parent is None)
    learned = further(scope, spec, model, chosen.settings["mtp_loss"])
    dialog = _dialog(scope, spec, start, origins)
    optimizer, carries = _learning(scope, spec, model, start.before, force)
    origins["model"] = f"from {start.name}" if start.name else "spec"
    origins["optimizer"] = "spec" if isinstance(spec.optimizer, r.Optimizer) else start.origin()
    return TrainStage(
        name=spec.name,
        spec=spec,
        parent=start.name,
        model=learned.model,
        tokenizer=tokenizer,
        hardware=where,
        optimizer=optimizer,
        carries=carries,
        settings=chosen.settings | {"mtp_loss": learned.weight},
        precision=chosen.precision,
        recompute=chosen.recompute,
        dialog=dialog,
        origins=origins,
    )


def _settings(scope: Scope, spec: r.Training, setting: Callable[[str, Any], Any]) -> dict[str, Any]:
    """The values in force of the attributes that stages inherit."""
    found = {name: setting(name, default) for name, default in r.INHERITED.items()}
    return found | {"spikes": _spikes(scope, spec, found["spikes"])}


def _spikes(scope: Scope, spec: r.Training, policy: r.Spikes | None) -> r.Spikes | None:
    """The policy in force, with the defaults of a rollback; reports what does not go together."""
    if policy is None:
        return None
    if policy.do != "rollback":
        for name in ("back", "at_most"):
            if getattr(policy, name) is not None and policy is spec.spikes:
                scope.error(
                    "E522",
                    f"`{name}` has no effect here: it belongs to `do = rollback`",
                    policy.at(name),
                    f"write `do = rollback`, or remove `{name}`",
                )
        return policy
    if spec.each_cut:
        scope.error(
            "E584",
            f"a stage of kind {spec.kind} cannot go back at a spike: its model has written the "
            "answers that it learns from",
            spec.at("spikes"),
            "write `spikes = { do = skip }`, or `do = stop`",
        )
    back = BACK if policy.back is None else policy.back
    at_most = ROLLBACKS if policy.at_most is None else policy.at_most
    return replace(policy, back=back, at_most=at_most)


def same_shape(stage: TrainStage | None, scope: Scope) -> TrainStage | None:
    """The stage; reports a `reference` whose model has another shape."""
    spec: Any = stage and stage.spec
    if stage and spec.reference:
        other = scope.language_model(spec.reference, spec.at("reference"))
        if other and scope.trained(other).model.main != stage.model:
            scope.error(
                "E420",
                f"`{spec.reference}` has another shape",
                spec.at("reference"),
                f"the reference of {spec.kind} must have the same shape as the trained model",
            )
    return stage


def _dialog(
    scope: Scope, spec: Any, start: _Start, origins: dict[str, str]
) -> dict[str, Any] | None:
    """The protocol of a stage; notes its origin if the stage may give it."""
    inherited = start.parent.dialog if start.parent else None
    if not _speaks(spec):
        return inherited
    origins["dialog"] = "spec" if spec.dialog else f"from {start.name}" if inherited else "etude"
    _post(scope, spec)
    return scope.dialog(spec.dialog, inherited, spec.at("dialog"))


def _speaks(spec: r.Training) -> bool:
    """Whether a stage trains on dialogs rather than documents."""
    return "dialog" in r.attributes(type(spec))


def lower_training(stage: ScheduledStage, to: "Lowering") -> None:
    """Adds the jobs of a training stage."""
    to.trained(stage)


def _counting(spec: r.Training, force: TrainStage | None) -> r.Training:
    """The stage, knowing whether the batch that it continues counts dialogs."""
    if force is None or force.spec.counts != DIALOGS or not isinstance(spec, r.DialogTraining):
        return spec
    return replace(spec, inherits_dialogs=True)


def _start(spec: r.Training, scope: Scope) -> _Start | None:
    """What a stage starts from; None after reporting."""
    if spec.model and spec.from_:
        scope.error(
            "E404",
            "a stage has either a `model` or a `from`",
            spec.at("from"),
            "remove one of them",
        )
        return None
    source = next(iter(parents(spec, scope)), None)
    if source is None and not spec.model:
        train = "model" in r.attributes(type(spec))
        scope.error(
            "E405",
            f"the stage `{spec.name}` has "
            + ("neither a `model` nor a" if train else "no")
            + " stage to continue from",
            spec.at(),
            "write `model = …`" if train else f"write `from = {next(_with_weights(scope), '…')}`",
        )
        return None
    if source is None:
        return _Start()
    find = scope.language_model if spec.writes_text else scope.with_weights
    before = find(source, spec.at("from"))
    if before is None:
        return None
    return _Start(name=source, before=before, parent=scope.trained(before))


def _architecture(scope: Scope, spec: r.Training, tokenizer: str | None) -> ModelShape | None:
    """The architecture of the model that a stage starts with; None after reporting."""
    models = scope.recipe.models
    if spec.model is None or not scope.known(spec.model, "model", models, spec.at("model")):
        return None
    return architecture(models[spec.model], tokenizer, scope)


def default_precision(hardware: Hardware) -> r.Precision:
    """The default precision."""
    return r.Precision(kind="fp32" if hardware.device == "cpu" else "bf16")


def _with_weights(scope: Scope) -> Iterator[str]:
    return (name for name, model in scope.recipe.models.items() if model.weights or model.hub)


def _length(scope: Scope, spec: r.Training) -> None:
    ways = _LENGTHS[spec.counts]
    given = [n for n in ("tokens", "steps", "epochs") if getattr(spec, n) is not None]
    if len(given) != 1 or given[0] not in ways:
        scope.error(
            "E407",
            f"the stage `{spec.name}` needs exactly one length"
            + (f", not {' and '.join(given)}" if len(given) > 1 else "")
            + (f", in {' or '.join(ways)}" if given and given[0] not in ways else ""),
            spec.at(given[-1]) if given else spec.at(),
            "write " + " or ".join(f"`{way} = …`" for way in ways),
        )


def _post(scope: Scope, spec: r.Training) -> None:
    """Reports what does not work with dialogs and preferences."""
    for segment in spec.seq_len.segments[1:] if spec.seq_len else ():
        scope.error(
            "E518",
            f"a stage of kind {spec.kind} has only one sequence length",
            segment.span,
            "write two stages, one after the other",
        )


def _needs(
    scope: Scope, spec: r.Training, force: TrainStage | None, needs: tuple[str, ...]
) -> None:
    """Reports attributes that a stage has to give itself.

    Args:
        force: the stage whose settings it continues; None if it starts from a model or weights.
    """
    if force and force.spec.counts == DIALOGS != spec.counts:
        needs = (*dict.fromkeys((*needs, "batch")),)
    for name in ("seq_len", "batch", "lr", "data") if force is None else needs:
        if getattr(spec, name) is None:
            scope.error(
                "E408",
                f"the stage `{spec.name}` needs `{name}`",
                spec.at(),
                f"a stage that starts from a model has no {name} to continue with"
                if force is None
                else f"a stage of kind {spec.kind} does not inherit it",
            )


def _named(scope: Scope, spec: r.Training) -> None:
    """Checks the data that a stage, its evaluations and its gate name."""
    check_evaluation(scope, spec)
    for segment in spec.data.segments if spec.data else ():
        for mix in (segment.start, segment.end):
            for name in mixed(mix):
                if scope.data(name, spec.data_kind, segment.span):
                    _is_left(scope, name, segment.span)
    for requirement in spec.gate.requirements if spec.gate else ():
        if requirement.argument not in (None, "short"):
            scope.data(requirement.argument, "documents", requirement.at())


def _is_left(scope: Scope, name: str, span: Span | None) -> None:
    """Reports a data set of which nothing is left to train on."""
    if scope.recipe.datasets[name].holdout >= 1:
        scope.error(
            "E588",
            f"`{scope.shown(name)}` holds everything out: nothing is left to train on",
            span,
            "lower its `holdout`: by default, half a percent is held out",
        )


def _no_last(scope: Scope, spec: r.Training, parent: ModelStage | None) -> None:
    """Reports references to previous values if the stage has none to continue."""

    def report(of: str, span: Span | None, help: str) -> None:
        message = f"there is no previous stage: `{of}` has no value"
        scope.report.add("E409", message, span, help=help)

    for name in ("seq_len", "batch", "lr", "data", "rope_theta", "parallel"):
        schedule = getattr(spec, name)
        for segment in schedule.segments if schedule else ():
            if isinstance(segment.start, Last) or isinstance(segment.end, Last):
                report("last", segment.span, "write the value")
    for requirement in spec.gate.requirements if spec.gate and parent is None else ():
        if requirement.of_start:
            report("of start", requirement.at(), "write the value: `loss(short) <= 3.5`")
    if spec.optimizer == "last":
        report("last", spec.at("optimizer"), "write `adamw { … }`")


def _learning(
    scope: Scope,
    spec: r.Training,
    model: ModelShape,
    before: Stage | None,
    parent: TrainStage | None,
) -> tuple[r.Optimizer, bool]:
    """What `_stage_optimizer` finds, checked against the model."""
    optimizer, carries = _stage_optimizer(scope, spec, before, parent)
    check_clipped(scope, spec, optimizer, model)
    return optimizer, carries


def _stage_optimizer(
    scope: Scope, spec: r.Training, before: Stage | None, parent: TrainStage | None
) -> tuple[r.Optimizer, bool]:
    """The optimizer's settings, and whether its state is carried over from the stage before.

    Moments belong to the weights for which they were collected: they are carried over if a stage
    continues from a train stage's own weights, and not from any average or merged adapters.
    """
    if isinstance(spec.optimizer, r.Optimizer):
        check_settings(scope, spec.optimizer)
        return spec.optimizer, False
    if parent and _speaks(spec):
        if spec.optimizer == "last":
            scope.error(
                "E410",
                "the moments belong to a different loss",
                spec.at("optimizer"),
                "remove `optimizer` to start with a fresh one",
            )
        return parent.optimizer, False
    if parent is None:
        return r.Optimizer(name="adamw"), False
    averaged = not isinstance(before, TrainStage | CheckpointStage) or parent.spec.averages
    averaged = averaged or _speaks(parent.spec)
    averaged = averaged or spec.adapter is not None or parent.spec.adapter is not None
    if spec.optimizer == "last" and averaged:
        scope.report.add(
            "E410",
            "these weights have no optimizer state to continue from",
            spec.at("optimizer"),
            help="remove `optimizer` to start with a fresh one",
        )
    return parent.optimizer, not averaged


def _positioned(scope: Scope, model: ModelShape, spec: r.Training) -> ModelShape | None:
    """The model with the stage's rotary positions; None, with a report, if it has none."""
    if spec.rope_theta and (why := still(model)):
        place = spec.at("rope_theta")
        scope.error("E592", f"no RoPE base can be set: {why}", place, "remove `rope_theta`")
        return None
    return scaled(scope, another_base(model) if spec.rope_theta else model, spec.rope_scaling)


def _stage_tokenizer(scope: Scope, spec: r.Training, parent: ModelStage | None) -> str | None:
    """The name of a stage's tokenizer; None if there is none, or after reporting."""
    if spec.tokenizer:
        known = scope.recipe.tokenizers
        there = scope.known(spec.tokenizer, "tokenizer", known, spec.at("tokenizer"))
        if there and parent and parent.tokenizer != spec.tokenizer:
            scope.report.add(
                "E411",
                "a stage keeps the tokenizer of the stage that it continues from",
                spec.at("tokenizer"),
                help="remove `tokenizer`",
            )
        return spec.tokenizer
    return parent.tokenizer if parent else only_tokenizer(scope, spec)


def only_tokenizer(scope: Scope, spec: r.Stage) -> str | None:
    """The tokenizer of a stage that names none: the only one; None if there is none, or after
    reporting."""
    names = scope.tokenizers
    if len(names) > 1:
        scope.report.add(
            "E412",
            f"the stage `{spec.name}` has {len(names)} tokenizers to choose from",
            spec.at(),
            help=f"write `tokenizer = {names[0]}`",
        )
    return names[0] if names else None


def _hardware(scope: Scope, spec: r.Training, parent: TrainStage | None) -> Hardware | None:
    """The hardware of a stage; None after reporting."""
    clusters, name = scope.recipe.clusters, spec.cluster
    if name and not scope.known(name, "cluster", clusters, spec.at("cluster")):
        return None
    if scope.ranks is None and name is None and parent:
        return parent.hardware
    if scope.ranks is None and name is None and len(clusters) > 1:
        scope.report.add(
            "E412",
            f"the stage `{spec.name}` has {len(clusters)} clusters to choose from",
            spec.at(),
            help=f"write `cluster = {next(iter(clusters))}`",
        )
        return None
    return cluster_hardware(scope, name or next(iter(clusters), None))


def cluster_hardware(scope: Scope, name: str | None) -> Hardware | None:
    """The hardware of a cluster, or without one a CPU process; None after reporting."""
    if scope.ranks is not None:
        return Hardware(scope.ranks, "cpu", scope.ranks)
    if name is None:
        return Hardware(1, "cpu")
    cluster = scope.recipe.clusters[name]
    if (cluster.gpus is None) == (cluster.cpus is None):
        scope.report.add(
            "E413",
            f"the cluster `{cluster.name}` needs either `gpus` or `cpus`",
            cluster.at(),
            help='write `gpus = 8 of "H100 80GB"`, or `cpus = 2` for two processes',
        )
        return None
    for name in ("restart", "save"):
        if getattr(cluster, name) is not None and cluster.mtbf is None:
            scope.report.add(
                "E428",
                f"`{name}` has no effect here: it belongs to `mtbf`",
                cluster.at(name),
                help=f"write `mtbf = 3 h` too, or leave `{name}` out",
            )
            return None
    each, device = cluster.gpus or (cluster.cpus or 1, "cpu")
    return Hardware(
        world_size=cluster.nodes * each,
        device=device,
        per_node=each,
        price=cluster.price if cluster.gpus else None,
        mtbf=cluster.mtbf,
        restart=cluster.restart,
        save=cluster.save,
        torchtitan=cluster.torchtitan,
    )
