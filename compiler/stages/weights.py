"""Published weights: models that stages continue from and that no stage of the recipe makes."""

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ...spec.quantity import counted, plain
from ...spec.schema import recipe as r
from ..placement import mesh
from ..program import Form, FromFolder, Weights, WeightsStage
from ..resolve.scope import Scope
from ..resolve.shape import architecture
from ..values import ModelShape
from .kind import Kind
from .training import DEFAULTS, cluster_hardware, default_precision, only_tokenizer

if TYPE_CHECKING:
    from ..lowering.lowering import Lowering

REVISION = "main"
"""The default revision of a repository."""


def resolve(spec: Weights, scope: Scope) -> WeightsStage | None:
    """The published weights of a model, as a result without settings in force."""
    model = spec.model
    folder = scope.folders.get(spec.name)
    tokenizer = folder.tokenizer if folder else None
    tokenizer = tokenizer or _tokenizer(spec, model, scope)
    shape = architecture(model, tokenizer, scope)
    if model.context is None:
        scope.error(
            "E417",
            f"the model `{model.name}` has weights, so it needs `context`",
            model.at(),
            "write the longest sequence that they were trained on: `context = 4Ki` (config.json "
            "has it as max_position_embeddings)",
        )
        return None
    # If there are several clusters, only a score stage runs on that of the weights.
    where = cluster_hardware(scope, next(iter(scope.recipe.clusters), None))
    if shape is None or where is None:
        return None
    resources = mesh(where, {}, shape, spec.at(), scope.report)
    if resources is None:
        return None
    form = Form(
        seq_len=model.context,
        rope_theta=shape.rope_theta,
        resources=resources,
        micro_batch=1,
    )
    dialog = folder.dialog if folder else None
    if model.judges and dialog is None:
        dialog = _protocol(model, folder, scope)
    source = (
        {"folder": model.weights}
        if model.weights
        else {"hub": model.hub or "", "revision": model.revision or REVISION}
    )
    return WeightsStage(
        name=spec.name,
        spec=spec,
        model=shape,
        tokenizer=tokenizer,
        hardware=where,
        optimizer=r.Optimizer(name="adamw"),
        settings=r.INHERITED,
        precision=default_precision(where),
        recompute=DEFAULTS["recompute"],
        dialog=dialog,
        source=source,
        also=_also(folder, shape) if folder else {},
        last=form,
    )


def _protocol(model: r.Model, folder: FromFolder | None, scope: Scope) -> dict[str, Any] | None:
    """The protocol in which a reward model reads dialogs, if its folder has none."""
    if folder and folder.tokenizer and not scope.recipe.dialogs:
        scope.error(
            "E549",
            f"the folder `{folder.folder}` of the judge `{model.name}` has no chat template, and "
            "its tokenizer has the special tokens of no built-in protocol",
            model.at("weights"),
            "put the template with which it was trained into the folder, as chat_template.jinja, "
            'or declare it: `dialog chat { template = "chat.jinja" }`',
        )
        return None
    return scope.dialog(None, None, model.at())


def _also(folder: FromFolder, shape: ModelShape) -> dict[str, str]:
    """What the folder of the weights says, for people."""
    heads = f"{shape.heads} heads" + (
        f" ({shape.kv_heads} of keys and values)" if shape.kv_heads != shape.heads else ""
    )
    model = [shape.family, counted(shape.layers, "layers"), f"dim {plain(shape.dim)}", heads]
    model += [f"ffn {plain(shape.ffn)}"] * bool(shape.ffn)
    model += [f"{counted(shape.experts.count, 'experts')}"] if shape.experts else []
    model += [f"vocab {plain(shape.vocab)}"]
    return {"model": ", ".join(model)} | {name: value for name, (value, _) in folder.shown.items()}


def _tokenizer(spec: Weights, model: r.Model, scope: Scope) -> str | None:
    """The tokenizer of the weights; of several, the only one from the same folder or repository."""
    known = {name: scope.recipe.tokenizers[name] for name in scope.tokenizers}
    if len(known) < 2:
        return only_tokenizer(scope, spec)
    folder = model.weights and PurePath(model.weights)
    own = [
        name
        for name, each in known.items()
        if (each.hub and each.hub == model.hub)
        or (each.file and folder and PurePath(each.file).is_relative_to(folder))
    ]
    if len(own) == 1:
        return own[0]
    where = f'file = "{folder}/tokenizer.json"' if folder else f'hub = "{model.hub}"'
    scope.error(
        "E412",
        f"the model `{model.name}` has {len(known)} tokenizers to choose from",
        model.at(),
        f"declare the one that belongs to its weights: `tokenizer {model.name} {{ {where} }}`",
    )
    return None


def lower(stage: WeightsStage, to: "Lowering") -> None:
    """Adds the job that reads published weights."""
    from ..plan.plan import WeightsJob

    content: dict[str, Any] = {"model": to.models.shape(stage), "source": stage.source}
    if stage.spec.model.judges:
        content["head"] = "score"
    key = to.jobs.add(WeightsJob, content, {}, id=stage.name, stage=stage.name)
    to.jobs.result[stage.name] = key


SHOWN = ("weights", "hub", "revision", "context", "head")
ALSO = ("model", "dtype", "tokenizer", "chat", "end_of_text", "end_of_answer")
"""What is shown of the folder, where the spec leaves anything to it."""


def _said(stage: WeightsStage) -> dict[str, str]:
    model = stage.spec.model
    return {n: str(value) for n in SHOWN if (value := getattr(model, n))} | stage.also


WEIGHTS = Kind(
    resolve=resolve,
    lower=lower,
    shown=(*SHOWN, *ALSO),
    said=_said,
)
