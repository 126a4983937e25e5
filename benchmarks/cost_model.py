"""Fits the cost model's constants to published measurements, and compares it with each of them.

    python -m benchmarks.cost_model           # the tables, with the constants of the code
    python -m benchmarks.cost_model --fit     # fits anew: constants, to be put into the code, and
                                              # benchmarks/left_out.json
    python -m benchmarks.cost_model --docs    # writes the tables into docs/cost.md

Memory: of the published rows in order, those with odd numbers (the first, third, …) are fitted and
the others held out. Time: the constants of the code are fitted to all rows; what is shown of a row
is predicted with constants that are fitted to the rows of all other sources.
"""

import argparse
import json
import math
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from etude.compiler.costs.estimate import Setting, estimate
from etude.compiler.costs.formulas import ACCOUNT, FITTED, SYMBOLS, TIME, TOTALS
from etude.compiler.costs.generation import DRAWING, GENERATION, STARTING
from etude.compiler.costs.generation import SYMBOLS as WRITING
from etude.compiler.costs.hardware import GIB, GPUS, gpu
from etude.compiler.costs.jobs import Work, step_setting
from etude.compiler.costs.memory import MEMORY
from etude.compiler.driver import analyse
from etude.compiler.families.architectures import published
from etude.compiler.program import ScheduledStage
from etude.compiler.values import Resources
from etude.spec.load import reads
from etude.spec.record import replace

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "cost.md"
LEFT_OUT = HERE / "left_out.json"

ENGINE = ("eager", "pipeline_batch", "plain_loss", "flash2", "once", "dispatcher", "reached")
"""Fields of a row, or of its source, about how its engine worked, if different from etude's."""

Constants = dict[str, float]


class Row(NamedTuple):
    """A published measurement.

    Attributes:
        fitted: of memory: whether the constants are fitted to it.
    """

    name: str
    source: str
    setting: Setting
    what: str
    published: float
    fitted: bool = True

    @property
    def is_memory(self) -> bool:
        return self.what == "GiB"

    def predicted(self, constants: Constants | None = None) -> float:
        found = estimate(self.setting, constants)
        if self.is_memory:
            return found.memory_total / GIB
        if self.what == "TFLOP/s":
            return found.mfu * self.setting.gpu.bf16 / 1e12
        return found.tokens_per_second

    def off(self, constants: Constants | None = None) -> float:
        return self.predicted(constants) / self.published - 1


@cache
def rows() -> tuple[Row, ...]:
    """Memory first, then time."""
    found: dict[bool, list[Row]] = {True: [], False: []}
    for group in _groups("published.json"):
        for row in group["rows"]:
            setting = _setting(row, group)
            for key, what in (("gib", "GiB"), ("tps", "tokens/s"), ("tflops", "TFLOP/s")):
                if key in row:
                    one = Row(row["name"], group["source"], setting, what, float(row[key]))
                    found[one.is_memory].append(one)
    for group in _groups("throughput.json"):
        for row in group["rows"]:
            tokens = row["tokens_per_second_per_gpu"]
            setting = _written(row, group)
            found[False].append(Row(row["name"], group["source"], setting, "tokens/s", tokens))
    memory = [row._replace(fitted=number % 2 == 0) for number, row in enumerate(found[True])]
    return (*memory, *found[False])


def _groups(file: str) -> list[dict[str, Any]]:
    return json.loads((HERE / file).read_text(encoding="utf-8"))["groups"]


def _engine(row: dict[str, Any], group: dict[str, Any]) -> dict[str, Any]:
    return {name: of[name] for name in ENGINE for of in (group, row) if name in of}


def _setting(row: dict[str, Any], group: dict[str, Any]) -> Setting:
    model = published("llama3", row["size"]).knowing(row["seq_len"])
    degrees = {n: row.get(n, 1) for n in ("shard", "tensor", "context", "pipeline")}
    device = gpu(group["gpu"])
    assert device
    return Setting(
        model=model,
        resources=Resources(
            world_size=math.prod(degrees.values()),
            device=group["gpu"],
            replicate=1,
            expert=1,
            interleave=row.get("interleave", 1),
            **degrees,
        ),
        seq_len=row["seq_len"],
        micro_batch=row["micro_batch"],
        sequences=row["micro_batch"] * row.get("shard", 1),
        recompute=row["recompute"],
        gpus_per_node=8,
        gpu=device,
        precision=row["precision"],
        chunks=1,
        **_engine(row, group),
    )


SPEC = """recipe row {{ title = "a published row" }}
tokenizer bytes {{ bytes }}
dataset any {{ sample = python_docs }}
model published {{ {model} }}
cluster here {{ nodes = {nodes}, gpus = {gpus_a_node} of "{gpu}" }}
stage measured: train {{
  model = published, steps = 10, lr = 1e-4, data = any, recompute = {recompute}
  seq_len = {seq_len}, batch = {batch_sequences} seqs, parallel = {parallel}
}}
"""


def _written(row: dict[str, Any], group: dict[str, Any]) -> Setting:
    """The setting of a row whose model and placement are those of a spec."""
    program = analyse(reads(SPEC.format(**row))).program
    assert program
    stage = program.stages["measured"]
    assert isinstance(stage, ScheduledStage)
    batch = stage.batches[0].sequences
    found = step_setting(Work.of(stage), stage.segments[0], stage.recompute, batch)
    assert found
    return replace(found, **_engine(row, group))


BOUNDS = {
    "a_logits": (6, 16),
    "a_margin": (0.02, 0.15),
    "e_matmul": (0.4, 0.95),
    "e_fp8": (0.2, 0.95),
    "e_rowwise": (0.1, 0.95),
    "e_attention": (0.2, 0.9),
    "e_flash2": (0.1, 0.9),
    "e_power": (0, 0.8),
    "e_memory": (0.2, 6),
    "e_eager": (0, 6),
    "e_weights": (0, 6),
    "e_link": (0.2, 1),
    "e_network": (0.2, 1),
    "e_shared": (0, 0.5),
}


def fit() -> Constants:
    """The constants of the code: those of memory, and those of time for all sources."""
    return fit_to([row for row in rows() if row.is_memory and row.fitted]) | fit_to(
        [row for row in rows() if not row.is_memory]
    )


def left_out() -> dict[str, Constants]:
    """The constants of time for each source, fitted to the rows of all others."""
    timed = [row for row in rows() if not row.is_memory]
    return {
        source: fit_to([row for row in timed if row.source != source])
        for source in dict.fromkeys(row.source for row in timed)
    }


def fit_to(fitted: Sequence[Row]) -> Constants:
    """The constants of memory or of time that minimize the mean absolute logarithm of the ratios
    of predicted to measured; of time, each source has the same weight."""
    from scipy.optimize import least_squares

    of = "a_" if fitted[0].is_memory else "e_"
    bounds = {name: bound for name, bound in BOUNDS.items() if name.startswith(of)}
    number = {
        row.source: 1 if row.is_memory else sum(each.source == row.source for each in fitted)
        for row in fitted
    }

    def residuals(values: list[float]) -> list[float]:
        constants = FITTED | dict(zip(bounds, values, strict=True))
        return [math.log1p(row.off(constants)) / number[row.source] ** 0.5 for row in fitted]

    low, high = zip(*bounds.values(), strict=True)
    start = [(a + b) / 2 for a, b in bounds.values()]
    found = least_squares(
        residuals,
        start,
        bounds=(low, high),
        loss="soft_l1",
        f_scale=0.05,
        diff_step=1e-3,
        x_scale=[max(abs(s), 0.05) for s in start],
    )
    return {name: float(f"{value:.3g}") for name, value in zip(bounds, found.x, strict=True)}


@cache
def unseen() -> dict[str, Constants]:
    """Of each source: the constants that were fitted without it."""
    return json.loads(LEFT_OUT.read_text(encoding="utf-8"))


def error(row: Row) -> float:
    """How far off a row is that the constants have not seen; of memory, perhaps seen."""
    return row.off(None if row.is_memory else FITTED | unseen()[row.source])


def table() -> Iterator[str]:
    """Markdown tables of all rows, and of their errors."""
    memory = [row for row in rows() if row.is_memory]
    yield "| memory, published | measured, GiB | predicted | off | |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for row in memory:
        yield (
            f"| {row.name} | {row.published:g} | {row.predicted():.4g} | {row.off():+.1%} | "
            f"{'fitted' if row.fitted else 'held out'} |"
        )
    yield ""
    for kind, is_fitted in (("over the fitted rows", True), ("over those held out", False)):
        errors = [abs(row.off()) for row in memory if row.fitted == is_fitted]
        yield f"Median error of memory {kind}: {median(errors):.1%}."
    yield ""
    yield "| time, published | | measured | predicted | off |"
    yield "| --- | --- | ---: | ---: | ---: |"
    for source, of in by_source().items():
        yield f"| **{source}**: {spread(list(map(error, of)))} | | | | |"
        for row in of:
            predicted = row.published * (1 + error(row))
            yield (
                f"| {row.name} | {row.what} | {row.published:g} | {predicted:.4g} | "
                f"{error(row):+.1%} |"
            )
    yield ""
    everything = [error(row) for of in by_source().values() for row in of]
    yield f"All {len(everything)} rows of time, each without its source: {spread(everything)}."


def by_source() -> dict[str, list[Row]]:
    """The rows of time."""
    found: dict[str, list[Row]] = {}
    for row in rows():
        if not row.is_memory:
            found.setdefault(row.source, []).append(row)
    return found


def spread(errors: list[float]) -> str:
    """The median of errors, and the shares within 10% and 15%."""
    within = [sum(abs(each) <= most for each in errors) / len(errors) for most in (0.1, 0.15)]
    return (
        f"median {median(map(abs, errors)):.1%}, {within[0]:.0%} within 10%, "
        f"{within[1]:.0%} within 15%"
    )


def _rate(peak: float) -> str:
    return f"{peak / 1e12:g} TFLOP/s" if peak else "—"


def gpus() -> Iterator[str]:
    """A Markdown table of all GPUs."""
    yield (
        "| name | memory | bandwidth | bf16, dense | fp8 | fp4 | a GPU of its node | of another | "
        "limit | source |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    for of in GPUS.values():
        yield (
            f"| {of.name} | {of.memory // GIB} GiB | {of.bandwidth / 1e12:g} TB/s | "
            f"{of.bf16 / 1e12:g} TFLOP/s | {_rate(of.fp8)} | {_rate(of.fp4)} | "
            f"{of.link / 1e9:g} GB/s | {of.network / 1e9:g} GB/s | "
            f"{of.watts:g} W | {of.source} |"
        )


def formulas() -> Iterator[str]:
    """A Markdown table of all formulas."""
    yield "| | formula | unit | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, of in {**MEMORY, **TIME, **ACCOUNT}.items():
        yield f"| `{name}` | `{of.text}` | {of.unit} | {of.what} |"


def generation() -> Iterator[str]:
    """A Markdown table of the formulas for generation."""
    yield "| | formula | unit | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, of in {**GENERATION, **STARTING, **DRAWING}.items():
        yield f"| `{name}` | `{of.text}` | {of.unit} | {of.what} |"


def symbols() -> Iterator[str]:
    """A Markdown table of all symbols."""
    yield "| symbol | meaning |"
    yield "| --- | --- |"
    for name, what in {**SYMBOLS, **TOTALS, **WRITING}.items():
        yield f"| `{name}` | {what} |"
    for name, value in FITTED.items():
        yield f"| `{name}` | {value:g}, fitted |"


def page(text: str) -> str:
    """docs/cost.md with rebuilt tables."""
    for mark, lines in (
        ("table", table()),
        ("gpus", gpus()),
        ("formulas", formulas()),
        ("generation", generation()),
        ("symbols", symbols()),
    ):
        made = "\n".join(lines)
        text = re.sub(
            rf"(<!-- {mark} -->\n).*?(<!-- end -->)",
            lambda found, made=made: f"{found[1]}{made}\n{found[2]}",
            text,
            flags=re.S,
        )
    return text


def medians() -> dict[tuple[str, bool], float]:
    """Median errors: ("memory" or "time", whether fitted) → share."""
    found: dict[tuple[str, bool], list[float]] = {}
    for row in rows():
        kind = ("memory", row.fitted) if row.is_memory else ("time", False)
        found.setdefault(kind, []).append(abs(error(row)))
    return {key: median(errors) for key, errors in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--docs", action="store_true")
    arguments = parser.parse_args()
    if arguments.fit:
        LEFT_OUT.write_text(json.dumps(left_out(), indent=2) + "\n", encoding="utf-8")
        print("\n".join(f'    "{name}": {value:g},' for name, value in fit().items()))
    elif arguments.docs:
        DOCS.write_text(page(DOCS.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print("\n".join(table()))


if __name__ == "__main__":
    main()
