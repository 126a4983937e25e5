"""Checks the settings of optimizers, and that QK-clip can make scores smaller."""

from ...spec.schema import recipe as r
from ..resolve.scope import Scope
from ..values import ModelShape


def check_settings(scope: Scope, optimizer: r.Optimizer) -> None:
    """Reports settings that another optimizer has and this one lacks."""
    for other, settings in r.OWN.items():
        for name in settings if optimizer.kind != other else ():
            if getattr(optimizer, name) is not None:
                _lacks(scope, optimizer, name, f"`optimizer = {other} {{ {name} = … }}`")
    for name in r.LACKING.get(optimizer.kind, ()):
        if name in optimizer.places:
            _lacks(scope, optimizer, name, f"`optimizer = adamw {{ {name} = … }}`")


_INSTEAD = {
    "adafactor": {
        "betas": "; `beta2_decay` says how fast its decay rate rises",
        "eps": "; `eps1` bounds what gradients are divided by",
    },
    "adam": {"momentum": "; `betas` has the decay rates of both moments"},
    "lion": {"momentum": "; `betas` has its share in an update and its decay rate"},
}
"""What else may have been meant, by optimizer and setting."""
_INSTEAD["adamw"] = _INSTEAD["adam"]


def _lacks(scope: Scope, optimizer: r.Optimizer, name: str, other: str) -> None:
    instead = _INSTEAD.get(optimizer.kind, {}).get(name, "")
    scope.error(
        "E325",
        f"`{optimizer.kind}` has no `{name}`",
        optimizer.at(name),
        f"remove it, or write {other}{instead}",
    )


def check_clipped(
    scope: Scope, spec: r.Training, optimizer: r.Optimizer, model: ModelShape
) -> None:
    """Reports `qk_clip` where scores are not products that shrink with the weights of queries and
    keys."""
    if optimizer.qk_clip is None:
        return
    own = isinstance(spec.optimizer, r.Optimizer)
    if spec.adapter is not None:
        scope.error(
            "E597",
            "QK-clip makes weights smaller, and an adapter leaves them as they are",
            optimizer.at("qk_clip") if own else spec.at("adapter"),
            "write an `optimizer` without `qk_clip`, or remove `adapter`",
        )
    elif why := _apart(model):
        scope.error(
            "E597",
            f"QK-clip cannot bound the attention scores of this model: {why}",
            optimizer.at("qk_clip") if own else spec.at(),
            "remove `qk_clip`"
            + ("; the norm bounds them already" if "normed" in why else ", or change the model"),
        )


def _apart(model: ModelShape) -> str:
    """Why smaller weights do not make scores smaller by as much; "" if they do."""
    of = model.parts
    if model.qk_norm or (of and of.qk_norm != "none"):
        return "its queries and keys are normed, whatever their weights"
    if of and of.attention_cap:
        return "they are capped (`attention_cap`)"
    if of and of.alibi:
        return "ALiBi adds to them"
    if model.sinks:
        return "its heads have sinks beside the scores"
    return ""
