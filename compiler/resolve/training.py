"""Stages that train: what they start from, their settings and hardware."""

from collections.abc import Iterator
from typing import Any

from ...spec.schedule import Last
from ...spec.schema import recipe as r
from ..program import AnyStage, CheckpointStage, Hardware, TrainStage
from .graph import mixed, parents
from .scope import Scope
from .shape import architecture, scaled

DEFAULTS: dict[str, Any] = {"clip": 1.0, "recompute": "none"}
_POST = (r.Sft, r.PreferenceTraining)


def training(spec: r.Training, scope: Scope) -> TrainStage | None:
    """The stage with its names resolved, or None after reporting."""
    if spec.model and spec.from_:
        scope.error(
            "E404",
            "a stage has either a `model` or a `from`",
            spec.at("from"),
            "leave one of them out",
        )
        return None
    source = next(iter(parents(spec, scope)), None)
    if source is None and not spec.model:
        train = isinstance(spec, r.Train)
        scope.error(
            "E405",
            f"the stage `{spec.name}` has "
            + ("neither a `model` nor a" if train else "no")
            + " stage to continue from",
            spec.at(),
            "write `model = …`" if train else f"write `from = {next(_with_weights(scope), '…')}`",
        )
        return None
    before = None
    if source is not None:
        if isinstance(spec, r.Reward):
            before = scope.with_weights(source, spec.at("from"))
        else:
            before = scope.language_model(source, spec.at("from"))
        if before is None:
            return None
    parent = scope.trained(before) if before else None
    # With published weights nothing is in force that a stage could continue with.
    force = None if parent is None or parent.published else parent
    origins: dict[str, str] = {}

    def setting(name: str, inherited: Any, default: Any) -> Any:
        given = getattr(spec, name)
        if given is not None:
            origins[name] = "spec"
            return given
        origins[name] = f"from {source}" if force else "etude"
        return inherited if force else default

    _length(scope, spec)
    _needs(scope, spec, force, parent)
    tokenizer = stage_tokenizer(scope, spec, parent)
    model = parent.model if parent else architecture(spec, tokenizer, scope)
    if model:
        model = scaled(scope, model, spec.rope_scaling)
    where = hardware(scope, spec, force)
    if model is None or where is None:
        return None
    dialog = force.dialog if force else None
    if isinstance(spec, _POST):
        origins["dialog"] = "spec" if spec.dialog else f"from {source}" if dialog else "etude"
        dialog = scope.dialog(spec.dialog, dialog, spec.at("dialog"))
        _post(scope, spec)
        if isinstance(spec, r.Dpo) and spec.reference and parent:
            _reference(scope, spec, parent)
    optimizer, carries = _stage_optimizer(scope, spec, before, force)
    on_cpu = where.device == "cpu"
    return TrainStage(
        name=spec.name,
        spec=spec,
        parent=source,
        model=model,
        tokenizer=tokenizer,
        hardware=where,
        optimizer=optimizer,
        carries=carries,
        clip=setting("clip", force and force.clip, DEFAULTS["clip"]),
        precision=setting("precision", force and force.precision, "fp32" if on_cpu else "bf16"),
        recompute=setting("recompute", force and force.recompute, DEFAULTS["recompute"]),
        dialog=dialog,
        origins=origins
        | {
            "model": f"from {source}" if source else "spec",
            "optimizer": "spec"
            if isinstance(spec.optimizer, r.Optimizer)
            else f"from {source}"
            if force
            else "etude",
        },
    )


def _with_weights(scope: Scope) -> Iterator[str]:
    return (name for name, model in scope.recipe.models.items() if model.weights or model.hub)


def _length(scope: Scope, spec: r.Training) -> None:
    ways = (
        ("steps", "epochs")
        if isinstance(spec, r.PreferenceTraining)
        else ("tokens", "steps", "epochs")
    )
    given = [n for n in ("tokens", "steps", "epochs") if getattr(spec, n) is not None]
    if len(given) != 1 or given[0] not in ways:
        scope.error(
            "E407",
            f"the stage `{spec.name}` needs exactly one length"
            + (f", not {' and '.join(given)}" if len(given) > 1 else "")
            + (", in steps or epochs" if given and given[0] not in ways else ""),
            spec.at(given[-1]) if given else spec.at(),
            "write " + " or ".join(f"`{way} = …`" for way in ways),
        )


def _post(scope: Scope, spec: r.Training) -> None:
    """What dialogs and preferences do not admit."""
    for segment in spec.seq_len.segments[1:] if spec.seq_len else ():
        scope.error(
            "E518",
            f"a stage of the kind {spec.kind} has one sequence length",
            segment.span,
            "write two stages, one after the other",
        )


def _reference(scope: Scope, spec: r.Dpo, parent: TrainStage) -> None:
    assert spec.reference
    stage = scope.language_model(spec.reference, spec.at("reference"))
    if stage and scope.trained(stage).model != parent.model:
        scope.error(
            "E420",
            f"`{spec.reference}` is a model of another shape",
            spec.at("reference"),
            "the reference of dpo is a model like the one that is trained",
        )


def _needs(
    scope: Scope, spec: r.Training, force: TrainStage | None, parent: TrainStage | None
) -> None:
    """What a stage has to say itself.

    Args:
        force: the stage with what it continues; None where it starts from a model, or from weights.
    """
    if force is None:
        for name in ("seq_len", "batch", "lr", "data"):
            if getattr(spec, name) is None:
                scope.report.add(
                    "E408",
                    f"the stage `{spec.name}` needs `{name}`",
                    spec.at(),
                    help=f"a stage that starts from a model has no {name} to continue with",
                )
    elif isinstance(spec, _POST):
        wanted = ("lr", "data") if isinstance(spec, r.Sft) else ("lr", "data", "batch")
        for name in wanted:
            if getattr(spec, name) is None:
                scope.error(
                    "E408",
                    f"the stage `{spec.name}` needs `{name}`",
                    spec.at(),
                    f"what was in force before says nothing about a stage of the kind {spec.kind}",
                )
    if spec.data:
        for segment in spec.data.segments:
            for mix in (segment.start, segment.end):
                for name in mixed(mix):
                    scope.data(name, spec.data_kind, segment.span)
    for requirement in spec.gate.requirements if spec.gate else ():
        if requirement.argument not in (None, "short"):
            scope.data(requirement.argument, "documents", requirement.at())
    if force is None:
        for name in ("seq_len", "batch", "lr", "data", "rope_theta", "parallel"):
            schedule = getattr(spec, name)
            for segment in schedule.segments if schedule else ():
                if isinstance(segment.start, Last) or isinstance(segment.end, Last):
                    scope.report.add(
                        "E409",
                        "there is no stage before this one: `last` has no value",
                        segment.span,
                        help="write the value",
                    )
        for requirement in spec.gate.requirements if spec.gate and parent is None else ():
            if requirement.of_start:
                scope.report.add(
                    "E409",
                    "there is no stage before this one: `of start` has no value",
                    requirement.at(),
                    help="write the value: `loss(short) <= 3.5`",
                )
        if spec.optimizer == "last":
            scope.report.add(
                "E409",
                "there is no stage before this one: `last` has no value",
                spec.at("optimizer"),
                help="write `adamw { … }`",
            )


def _stage_optimizer(
    scope: Scope, spec: r.Training, before: AnyStage | None, parent: TrainStage | None
) -> tuple[r.Optimizer, bool]:
    """The optimizer's settings, and whether its state is carried over from the stage before.

    Moments belong to the weights that they were gathered on: they are carried over where a
    stage continues from a train stage's own weights, and not from any average.
    """
    if isinstance(spec.optimizer, r.Optimizer):
        return spec.optimizer, False
    if parent and isinstance(spec, _POST):
        if spec.optimizer == "last":
            scope.error(
                "E410",
                "moments gathered on another loss mean nothing here",
                spec.at("optimizer"),
                "leave `optimizer` out to start it afresh",
            )
        return parent.optimizer, False
    if parent is None:
        return r.Optimizer(name="adamw"), False
    averaged = (
        not isinstance(before, TrainStage | CheckpointStage) or parent.spec.average is not None
    )
    averaged = averaged or isinstance(parent.spec, _POST)
    if spec.optimizer == "last" and averaged:
        scope.report.add(
            "E410",
            "these weights have no optimizer state to continue from",
            spec.at("optimizer"),
            help="leave `optimizer` out to start it afresh",
        )
    return parent.optimizer, not averaged


def stage_tokenizer(scope: Scope, spec: r.Training, parent: TrainStage | None) -> str | None:
    """The name of a stage's tokenizer; None where there is none, or after reporting."""
    if spec.tokenizer:
        known = scope.recipe.tokenizers
        there = scope.known(spec.tokenizer, "tokenizer", known, spec.at("tokenizer"))
        if there and parent and parent.tokenizer != spec.tokenizer:
            scope.report.add(
                "E411",
                "a stage keeps the tokenizer of the stage that it continues from",
                spec.at("tokenizer"),
                help="leave `tokenizer` out",
            )
        return spec.tokenizer
    if parent:
        return parent.tokenizer
    names = list(scope.recipe.tokenizers)
    if len(names) > 1:
        scope.report.add(
            "E412",
            f"the stage `{spec.name}` has {len(names)} tokenizers to choose from",
            spec.at(),
            help=f"write `tokenizer = {names[0]}`",
        )
    return names[0] if names else None


def hardware(scope: Scope, spec: r.Training, parent: TrainStage | None) -> Hardware | None:
    """Where a stage runs; None after reporting."""
    clusters = scope.recipe.clusters
    name = spec.cluster
    if name and not scope.known(name, "cluster", clusters, spec.at("cluster")):
        return None
    if scope.ranks is not None:
        return Hardware(scope.ranks, "cpu")
    if name is None and parent:
        return parent.hardware
    if name is None and len(clusters) > 1:
        scope.report.add(
            "E412",
            f"the stage `{spec.name}` has {len(clusters)} clusters to choose from",
            spec.at(),
            help=f"write `cluster = {next(iter(clusters))}`",
        )
        return None
    if name is None and not clusters:
        return Hardware(1, "cpu")
    cluster = clusters[name or next(iter(clusters))]
    if (cluster.gpus is None) == (cluster.cpus is None):
        scope.report.add(
            "E413",
            f"the cluster `{cluster.name}` needs either `gpus` or `cpus`",
            cluster.at(),
            help='write `gpus = 8 of "H100 80GB"`, or `cpus = 2` for two processes',
        )
        return None
    if cluster.gpus:
        return Hardware(
            cluster.nodes * cluster.gpus[0], cluster.gpus[1], cluster.gpus[0], cluster.price
        )
    return Hardware(cluster.nodes * (cluster.cpus or 1), "cpu")
