"""What stages will see of their data, before any training; without torch."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ...compiler.plan.plan import Plan
from ..data.reading.readers import NoFile
from ..errors import RunError
from .records import show_records
from .rows import show_rows
from .shop import Made, Shop
from .shown import Part, Preview, Refused, Shown, as_json, joined
from .uses import NoTarget, Use, uses

__all__ = ["NoTarget", "Part", "Preview", "Refused", "Shown", "Use", "as_json", "joined", "preview"]


def preview(
    plan: Plan, folder: Path, root: Path, target: str | None = None, *, records: int = 2
) -> Iterator[Preview]:
    """Yields a preview of each source in turn.

    Writes only temporary files. Uses what the run has already made; makes the rest here if it is
    small.

    Args:
        folder: the run folder, which need not exist.
        root: the spec's folder, which relative data paths start from.
        target: a stage or data set; None for the sources of all stages that train.
        records: how many records or rows of each source to show.

    Raises: NoTarget: there is no such stage or data set, or it has no data. If something is wrong
        with a source, its preview has a `problem`.
    """
    found = uses(plan, target)
    with TemporaryDirectory(prefix="etude-preview-") as scratch:
        shop = Shop(plan, root, folder, Path(scratch))
        for use in found:
            yield _one(use, shop, records)


def _one(use: Use, shop: Shop, records: int) -> Preview:
    made: Made | None = None
    try:
        if use.tokenizer is not None:
            made = shop.tokenizer(use.tokenizer)
        elif use.data.form != "prompts":
            raise RunError(
                "the recipe declares no tokenizer, so its data cannot be tokenized",
                "add one: tokenizer words { train = { on [DATASET], vocab 32000 } }",
            )
        if use.data.form != "documents":
            shown = show_records(use, made, shop, records)
        else:
            assert made
            shown = show_rows(use, made, shop, records)
    except NoFile as problem:
        if not use.data.awaited:
            return Preview(use, problem=problem)
        note = f"there are no data yet: a run waits for `{problem.pattern}`"
        shown = Preview(use, notes=[note])
    except RunError as problem:
        shown = Preview(use, problem=problem)
    if made is not None and made.note and not shown.problem:
        shown.notes.insert(0, made.note)
    return shown
