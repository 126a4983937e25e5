"""Process reward models, from answers whose steps are labelled."""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ...spec.schema import recipe as r
from ..lowering.way import Way
from ..program import TrainStage
from ..resolve.scope import Scope
from .kind import TrainingKind
from .training import lower_training, resolve_training

TOKENS = {
    "llama3": (
        *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
        *("<|eot_id|>", "<|eom_id|>", "<|python_tag|>"),
    ),
    "chatml": ("<|im_start|>", "<|im_end|>"),
}
"""Built-in protocol → the tokens that it puts around what is said."""


def resolve(spec: r.Prm, scope: Scope) -> TrainStage | None:
    """The stage with its names resolved; None after reporting."""
    stage = resolve_training(spec, scope, needs=("lr", "data", "batch"))
    if stage is not None:
        _between(spec, stage.dialog or {}, scope)
    return stage


def _between(spec: r.Prm, dialog: Mapping[str, Any], scope: Scope) -> None:
    """Reports a separator with a token of the protocol in it, which no answer says."""
    own = " ".join(dialog.get(each) or "" for each in ("header", "end_of_turn", "end_of_message"))
    tokens = (*TOKENS.get(dialog.get("protocol") or "", ()), *re.findall(r"<[^<>\s]+>", own))
    taken = next((token for token in tokens if token in (spec.separator or "")), None)
    if taken is not None:
        scope.error(
            "E536",
            f"no answer has this separator in it: the protocol puts `{taken}` around what is said, "
            "so a judge would see one step",
            spec.at("separator"),
            'write a text that stands between steps, such as the default, `separator = "\\n"`',
        )


def objective() -> Any:
    """The objective of a stage, as in the plan."""
    from ..plan.plan import Prm

    return Prm


PRM = TrainingKind(
    resolve=resolve,
    lower=lower_training,
    way=Way(objective=objective),
    peak=Fraction(1, 1000),
)
