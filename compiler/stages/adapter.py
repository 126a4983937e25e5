"""What the adapters of a stage need of its weights and its model."""

from ...spec.schema import recipe as r
from ..families.adapters import adapted, has_feed_forward
from ..resolve.scope import Scope
from ..values import ModelShape


def check_adapter(scope: Scope, spec: r.Training, model: ModelShape, *, random: bool) -> None:
    """Reports adapters that the stage cannot have.

    Args:
        random: whether the stage starts from random weights.
    """
    adapter = spec.adapter
    if adapter is None:
        return
    place = spec.at("adapter")
    if random:
        scope.error(
            "E573",
            "adapters change weights that are there, and this stage starts from random ones",
            place,
            "remove `adapter`, or start from weights: `from = …`, or a model with `weights`",
        )
    if not adapter.on:
        scope.error(
            "E574",
            "this adapter is beside no part of the model",
            adapter.at("on") or place,
            "remove `on`, or write `on = [attention, feed_forward]`",
        )
        return
    if "feed_forward" in adapter.on and not has_feed_forward(model):
        others = [part for part in adapter.on if part != "feed_forward"]
        scope.error(
            "E574",
            "every feed-forward layer of this model is made of experts, which cannot have adapters",
            adapter.at("on") or place,
            f"write `on = [{', '.join(others or ['attention'])}]`",
        )
        return
    part, narrow, _ = min(adapted(adapter, model), key=lambda found: min(found[1].shape))
    rows, columns = narrow.shape
    most = min(rows, columns)
    if adapter.rank > most:
        scope.error(
            "E575",
            f"the rank of an adapter, {adapter.rank}, is above that of the matrix of {rows} × "
            f"{columns} beside it, in `{part}`",
            adapter.at("rank") or place,
            f"lower `rank` to {most} or less; 8 to 64 are usual",
        )
