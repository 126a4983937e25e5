"""Fits the cost model's constants to published measurements, and compares it with each of them.

    python -m benchmarks.cost_model           # the table, with the constants of the code
    python -m benchmarks.cost_model --fit     # newly fitted constants, to be put into the code
    python -m benchmarks.cost_model --docs    # writes the table into docs/cost.md

The rule, fixed before any fit: of the published rows in order, those with odd numbers (the first,
third, …) are fitted and the others held out, separately for memory and time.
"""

import argparse
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from etude.compiler.costs.estimate import Setting, estimate
from etude.compiler.costs.formulas import ACCOUNT, FITTED, MEMORY, SYMBOLS, TIME, TOTALS
from etude.compiler.costs.generation import DRAWING, GENERATION
from etude.compiler.costs.generation import SYMBOLS as WRITING
from etude.compiler.costs.hardware import GIB, GPUS, gpu
from etude.compiler.families.architectures import published
from etude.compiler.values import Resources

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "cost.md"


ENGINE = ("eager", "pipeline_batch", "plain_loss", "merged")
"""Fields of a row about how its engine worked, if different from etude's."""


class Row(NamedTuple):
    """A published measurement, and whether the constants are fitted to it."""

    name: str
    source: str
    setting: Setting
    what: str
    published: float
    fitted: bool

    def predicted(self, constants: dict[str, float] | None = None) -> float:
        found = estimate(self.setting, constants)
        if self.what == "GiB":
            return found.memory_total / GIB
        if self.what == "TFLOP/s":
            return found.mfu * self.setting.gpu.bf16 / 1e12
        return found.tokens_per_second

    def off(self, constants: dict[str, float] | None = None) -> float:
        return self.predicted(constants) / self.published - 1


def rows() -> list[Row]:
    """Memory first, then time."""
    found: dict[str, list[tuple[str, str, Setting, str, float]]] = {"memory": [], "time": []}
    for group in json.loads((HERE / "published.json").read_text(encoding="utf-8"))["groups"]:
        for row in group["rows"]:
            setting = _setting(row, group["gpu"])
            for key, what in (("gib", "GiB"), ("tps", "tokens/s"), ("tflops", "TFLOP/s")):
                if key in row:
                    kind = "memory" if key == "gib" else "time"
                    one = (row["name"], group["source"], setting, what, float(row[key]))
                    found[kind].append(one)
    return [
        Row(*one, fitted=number % 2 == 0)
        for kind in found.values()
        for number, one in enumerate(kind)
    ]


def _setting(row: dict[str, Any], name: str) -> Setting:
    model = published("llama3", row["size"]).knowing(row["seq_len"])
    degrees = {n: row.get(n, 1) for n in ("shard", "tensor", "context", "pipeline")}
    device = gpu(name)
    assert device
    return Setting(
        model=model,
        resources=Resources(
            world_size=math.prod(degrees.values()),
            device=name,
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
        **{name: row[name] for name in ENGINE if name in row},
    )


BOUNDS = {
    "a_work": (0.3, 4),
    "a_gather": (0, 12),
    "a_logits": (6, 16),
    "a_pipeline": (0.3, 3),
    "a_margin": (0.02, 0.15),
    "e_matmul": (0.4, 0.95),
    "e_fp8": (0.2, 0.95),
    "e_rowwise": (0.1, 0.95),
    "e_attention": (0.2, 0.9),
    "e_merged": (0.1, 0.9),
    "e_power": (0, 1.5),
    "e_memory": (0.2, 4),
    "e_eager": (0, 4),
    "e_link": (0.3, 1),
    "e_network": (0.2, 1),
    "e_hidden": (0, 1),
}


def fit() -> dict[str, float]:
    """The constants that minimize the mean absolute logarithm of the fitted rows' ratios."""
    from scipy.optimize import least_squares

    fitted = [row for row in rows() if row.fitted]
    names = list(BOUNDS)

    def residuals(values: list[float]) -> list[float]:
        constants = dict(zip(names, values, strict=True))
        return [math.log1p(row.off(constants)) for row in fitted]

    low, high = zip(*BOUNDS.values(), strict=True)
    start = [(a + b) / 2 for a, b in BOUNDS.values()]
    found = least_squares(
        residuals,
        start,
        bounds=(low, high),
        loss="soft_l1",
        f_scale=0.05,
        x_scale=[max(abs(s), 0.05) for s in start],
    )
    return {name: float(f"{value:.3g}") for name, value in zip(names, found.x, strict=True)}


def table(constants: dict[str, float] | None = None) -> Iterator[str]:
    """A Markdown table of all rows, and the medians of their errors."""
    yield "| published | | measured | predicted | off | |"
    yield "| --- | --- | ---: | ---: | ---: | --- |"
    for row in rows():
        yield (
            f"| {row.name} | {row.what} | {row.published:g} | {row.predicted(constants):.4g} | "
            f"{row.off(constants):+.1%} | {'fitted' if row.fitted else 'held out'} |"
        )
    yield ""
    for title, memory in (("memory", True), ("time", False)):
        of = [row for row in rows() if (row.what == "GiB") == memory]
        errors = {
            part: median(abs(row.off(constants)) for row in of if row.fitted == is_fitted)
            for part, is_fitted in (("fitted", True), ("held out", False))
        }
        yield (
            f"Median error of {title}: {errors['fitted']:.1%} over the fitted rows, "
            f"{errors['held out']:.1%} over those held out."
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
    for name, of in {**GENERATION, **DRAWING}.items():
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
        kind = "memory" if row.what == "GiB" else "time"
        found.setdefault((kind, row.fitted), []).append(abs(row.off()))
    return {key: median(errors) for key, errors in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--docs", action="store_true")
    arguments = parser.parse_args()
    constants = fit() if arguments.fit else None
    if constants:
        print("\n".join(f'    "{name}": {value:g},' for name, value in constants.items()))
    text = "\n".join(table(constants))
    if arguments.docs:
        DOCS.write_text(page(DOCS.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
