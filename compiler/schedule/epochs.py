"""Lengths in epochs: passes over all sources of a stage, whose sizes are declared, counted or
estimated."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil

from ...spec.findings.diagnostics import Report
from ...spec.quantity import Quantity, counted, short
from ...spec.schema import recipe as r
from ..ids import DataId
from ..program import Program, SourceCount, TrainStage
from .counts import count, passes, single, uncountable
from .positions import Length

Found = tuple[Length, dict[str, SourceCount]]


def of_epochs(
    stage: TrainStage,
    epochs: Fraction,
    program: Program,
    report: Report,
    *,
    sources: Sequence[str],
    batch: Quantity,
    seq_len: int,
) -> Found | None:
    """The length of a stage in epochs, and the counts that it depends on; None after reporting.

    Args:
        sources: the data sets in the mixture.
        batch, seq_len: the first batch, and tokens of the longest row.
    """
    counts: dict[str, SourceCount] = {}
    sizes: list[tuple[int, ...]] = []
    records = single(stage.spec)
    for name in sources:
        dataset = program.recipe.datasets[name]
        declared = dataset.declared(stage.spec.counts)
        if declared is not None:
            sizes.append((declared,))
        elif why := uncountable(dataset):
            _unknown(stage.spec, dataset, why, report)
            return None
        else:
            found = counts[name] = count(stage, dataset, program, seq_len=seq_len, epochs=epochs)
            scale = seq_len if found.unit == "rows" else 1
            sizes.append(tuple(scale * number for number in found.numbers))
    if getattr(stage.spec, "drop_last", False):
        tokens = 1 if records or batch.unit == "tokens" else seq_len
        # There is one source, or another finding says so.
        batches = [Fraction(number) / (batch.value * tokens) for number in sizes[0]]
        length = _whole_batches(stage.spec, batches, epochs, report)
        return length and (length, counts)
    total = sum((passes(size, epochs) for size in sizes), Fraction(0))
    if records:
        return Length("steps", total / batch.value), counts
    return Length("tokens", total), counts


def _unknown(spec: r.Training, dataset: r.Dataset, why: str, report: Report) -> None:
    what = spec.counts if single(spec) else "tokens"
    name = DataId.parse(dataset.name).name
    declare = "" if dataset.stages else f"declare `{what} = …` in the dataset `{name}`, or "
    report.add(
        "E443",
        f"a length in epochs needs the number of {what} in `{name}`, but {why}",
        spec.at("epochs"),
        help=f"{declare}write the length in `steps`",
    )


def _whole_batches(
    spec: r.Training, batches: Sequence[Fraction], epochs: Fraction, report: Report
) -> Length | None:
    """The length of epochs of which only whole batches count; None after reporting.

    Args:
        batches: of each epoch if they differ; else of all.
    """
    whole, part = divmod(epochs, 1)
    each = [batches[min(k, len(batches) - 1)] for k in range(ceil(epochs))]
    steps = sum(n // 1 for n in each[: int(whole)]) + (part * each[-1] // 1 if part else 0)
    if steps:
        return Length("steps", Fraction(steps))
    has = "has" if epochs == 1 else "have"
    report.add(
        "E459",
        f"`drop_last` leaves no batch: {counted(epochs, 'epochs')} {has} "
        f"{short(passes(each, epochs))}",
        spec.at("drop_last"),
        help="lower `batch`, or remove `drop_last`",
    )
    return None


def note_estimates(
    spec: r.Training, counts: Mapping[str, SourceCount], tokens: int, report: Report
) -> None:
    """Notes a length that is known only after tokenizing.

    Args:
        tokens: of the stage, as estimated.
    """
    about = [each for each in counts.values() if not each.exact]
    if about and spec.epochs:
        sources = " and ".join(f"`{DataId.parse(each.dataset).name}`" for each in about)
        report.add(
            "N664",
            f"the stage `{spec.name}` has about {short(int(float(f'{tokens:.2g}')))} tokens: "
            f"{counted(spec.epochs.value, 'epochs')} of {sources}, {about[0].said}",
            spec.at("epochs"),
            help="known after tokenizing: `etude prepare` counts, and the plan becomes exact; "
            "`etude run` does both by itself",
        )
