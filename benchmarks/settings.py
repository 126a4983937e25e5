"""What `parallel = auto` chooses on H100s for Llama 3 in three sizes, and what that is estimated to
do.

    python -m benchmarks.settings

Nothing is measured: the figures are those of `etude plan`. Writes the table into
docs/performance.md.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from etude.compiler.driver import analyse, compile
from etude.compiler.plan.plan import TrainJob
from etude.spec.load import reads

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
TABLE = re.compile(r"(<!-- settings -->\n).*?(<!-- end -->)", re.S)
SPEC = """recipe settings {{ seed = 1 }}
cluster h100 {{ nodes = {nodes}, gpus = 8 of "H100 80GB" }}
model llama {{ family = llama3, size = "{size}" }}
dataset text {{ files = "text/*.jsonl" }}
stage pretrain: train {{
  model = llama, cluster = h100, data = text, steps = 1000, lr = 1e-4
  batch = {batch} seqs, seq_len = {seq_len}, precision = {precision}, parallel = auto
}}
"""


class Case(NamedTuple):
    """A size, and what it trains on."""

    size: str
    nodes: int
    seq_len: int
    batch: int


CASES = (
    Case("8B", 1, 8192, 64),
    Case("8B", 16, 8192, 512),
    Case("8B", 16, 131072, 32),
    Case("70B", 32, 8192, 512),
    Case("70B", 128, 131072, 64),
    Case("405B", 512, 8192, 2048),
    Case("405B", 2048, 8192, 2048),
    Case("405B", 2048, 131072, 128),
)


def planned(case: Case, precision: str) -> TrainJob:
    """The job as etude plans it."""
    text = SPEC.format(**case._asdict(), precision=precision)
    made = compile(analyse(reads(text)))
    assert made
    (job,) = (job for job in made.plan.jobs if isinstance(job, TrainJob))
    return job


def placement(job: TrainJob) -> str:
    """The degrees above 1, in the language's words."""
    names = ("replicate", "shard", "tensor", "context", "pipeline", "interleave")
    given = {name: getattr(job.resources, name) for name in names}
    if job.resources.pipeline == 1:
        given["micro_batch"] = job.torchtitan["training"]["local_batch_size"]
    return ", ".join(f"{name} {degree}" for name, degree in given.items() if degree > 1)


HEAD = [
    "| model | GPUs | length | sequences | `parallel = auto` | `recompute` | GiB | tokens/s/GPU | "
    "MFU | with fp8 |",
    "| --- | ---: | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: |",
]


def row(case: Case) -> str:
    """A row of docs/performance.md."""
    job, low = planned(case, "bf16"), planned(case, "fp8")
    recompute: dict[str, Any] = job.torchtitan["activation_checkpoint"] or {"mode": "none"}
    assert job.cost.memory
    assert job.cost.tokens_per_second
    assert low.cost.tokens_per_second
    return (
        f"| {case.size} | {job.resources.world_size:,} | {case.seq_len:,} | {case.batch:,} | "
        f"{placement(job)} | {recompute['mode']} | "
        f"{sum(job.cost.memory.values()) / 2**30:.0f} | {job.cost.tokens_per_second:,.0f} | "
        f"{job.cost.mfu:.0%} | {low.cost.tokens_per_second:,.0f} |"
    )


def page(text: str) -> str:
    """docs/performance.md with the table made again."""
    made = "\n".join([*HEAD, *map(row, CASES)])
    return TABLE.sub(lambda found: f"{found[1]}{made}\n{found[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
