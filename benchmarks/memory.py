"""The memory of a step as plans have it, compared with what PyTorch's allocator gives.

    python -m benchmarks.memory             # all rows; writes its section of RESULTS.md
    python -m benchmarks.memory NAME…       # these rows
    python -m benchmarks.memory --planned   # plans anew, against what was measured last
    python -m benchmarks.memory --of NAME   # what the memory of a row is, by where it is allocated

No GPU is needed: etude's engine takes two steps on one that computes nothing
(`gpu_without_work.c`, `memory_worker.py`), as each rank of the plan that may be the fullest.
`measured` is what is allocated at the peak of the second step; a plan's `margin`, for what the
allocator cannot use, is left out of `planned`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from etude.compiler.costs.hardware import GIB
from etude.compiler.driver import analyse, compile
from etude.compiler.plan.plan import TrainJob
from etude.spec.load import reads

from .results import PATH, write_section

SOURCE = Path(__file__).with_name("gpu_without_work.c")
SECTION = "Memory of a step"
SPEC = """recipe row {{ title = "a row" }}
tokenizer bytes {{ bytes }}
dataset any {{ sample = python_docs }}
dataset chats {{ files = "chats.jsonl", kind = dialogs, dialogs = 1000 }}
dataset pairs {{ files = "pairs.jsonl", kind = preferences, pairs = 1000 }}
dataset steps {{ files = "steps.jsonl", kind = solutions, solutions = 1000 }}
dataset sums {{ sample = arithmetic, kind = prompts }}
verifier right {{ kind = math }}
dialog chat {{ protocol = llama3 }}
model measured {{ {model} }}
cluster here {{ nodes = {nodes}, gpus = 8 of "H100 80GB" }}
stage step: {stage}
  steps = 10, lr = 1e-4, export = none, recompute = {recompute}
  seq_len = {seq_len}, parallel = {{ {parallel} }}
  {also}
}}
"""
FRESH = "train {{ model = measured, data = any, batch = {batch} seqs"
LATER = """train {{
  model = measured, data = any, batch = {batch} seqs, seq_len = {seq_len}, steps = 10, lr = 1e-4
  export = none, recompute = {recompute}, parallel = {{ {parallel} }}
}}
stage after: """
TUNED = LATER + "train {{ from = step, data = any, batch = {batch} seqs"
SFT = LATER + "sft {{ from = step, data = chats, dialog = chat, batch = {batch} seqs"
DPO = LATER + "dpo {{ from = step, data = pairs, dialog = chat, batch = {batch} pairs"
REWARD = LATER + "reward {{ from = step, data = pairs, dialog = chat, batch = {batch} pairs"
PRM = LATER + "prm {{ from = step, data = steps, dialog = chat, batch = {batch} solutions"
DISTILL = LATER + (
    "distill {{ from = step, teacher = step, data = chats, dialog = chat, batch = {batch} seqs"
)
GRPO = LATER + (
    "grpo {{ from = step, data = sums, dialog = chat, batch = {batch} prompts, group = 2, "
    "reward = right, max_tokens = 64, kl = 0.1"
)


class Row(NamedTuple):
    """A job whose memory is measured."""

    name: str
    model: str
    parallel: str
    nodes: int = 1
    seq_len: int = 8192
    batch: int = 8
    recompute: str = "none"
    also: str = ""
    stage: str = FRESH


def llama(size: str, layers: int | None = None) -> str:
    return f'family = llama3, size = "{size}"' + (f", layers = {layers}" if layers else "")


LORA = "adapter = lora { rank = 16 }"
MUON = "optimizer = muon { }"
ADAFACTOR = "optimizer = adafactor { }"
LION = "optimizer = lion { }"
OFFLOAD = "torchtitan { training { enable_cpu_offload = true } }"
EAGER = "torchtitan { compile { enable = false } }"
ROWS = (
    Row("8B, FSDP 8", llama("8B"), "shard 8", recompute="selective"),
    Row("8B, FSDP 8, full", llama("8B"), "shard 8", recompute="full"),
    Row("8B, FSDP 64, none", llama("8B"), "shard 64", 8, batch=64),
    Row("8B, FSDP 64, budget", llama("8B"), "shard 64", 8, batch=64, recompute="budget 50%"),
    Row("8B, HSDP 8 × 8", llama("8B"), "replicate 8, shard 8", 8, batch=64, recompute="full"),
    Row("8B, FSDP 8, accumulated", llama("8B"), "shard 8", batch=32, recompute="full"),
    Row(
        "8B, FSDP 64, micro-batch 4",
        llama("8B"),
        "shard 64, micro_batch 4",
        8,
        batch=256,
        recompute="full",
    ),
    Row("8B, FSDP 64, eager", llama("8B"), "shard 64", 8, batch=64, recompute="full", also=EAGER),
    Row("8B, TP 8, FSDP 8", llama("8B"), "shard 8, tensor 8", 8),
    Row("8B, FSDP 8, TP 8, selective", llama("8B"), "shard 8, tensor 8", 8, recompute="selective"),
    Row("8B, FSDP 64, 128Ki", llama("8B"), "shard 64", 8, 131072, 64, "full"),
    Row("8B, FSDP 64, eager, none", llama("8B"), "shard 64", 8, batch=64, also=EAGER),
    Row("8B, CP 8, 128Ki", llama("8B"), "context 8", 1, 131072, 1, "full"),
    Row("8B, CP 4, FSDP 16, 512Ki", llama("8B"), "shard 16, context 4", 8, 524288, 16, "full"),
    Row("8B, FSDP 8, 32Ki", llama("8B"), "shard 8", 1, 32768, 8, "full"),
    Row(
        "8B, FSDP 64, offload", llama("8B"), "shard 64", 8, batch=64, recompute="full", also=OFFLOAD
    ),
    Row("8B, FSDP 8, Muon", llama("8B"), "shard 8", recompute="full", also=MUON),
    Row("8B, FSDP 8, Adafactor", llama("8B"), "shard 8", recompute="full", also=ADAFACTOR),
    Row("8B, FSDP 8, LoRA", llama("8B"), "shard 8", also=LORA, stage=TUNED),
    Row("8B, FSDP 8, LoRA, full", llama("8B"), "shard 8", recompute="full", also=LORA, stage=TUNED),
    Row("8B, FSDP 8, sft", llama("8B"), "shard 8", recompute="selective", stage=SFT),
    Row("8B, FSDP 8, dpo", llama("8B"), "shard 8", recompute="selective", stage=DPO),
    Row("8B, FSDP 8, reward", llama("8B"), "shard 8", recompute="selective", stage=REWARD),
    Row("8B, FSDP 8, reward, full", llama("8B"), "shard 8", recompute="full", stage=REWARD),
    Row("8B, FSDP 8, prm", llama("8B"), "shard 8", recompute="full", stage=PRM),
    Row("8B, FSDP 8, distill", llama("8B"), "shard 8", recompute="full", stage=DISTILL),
    Row("8B, FSDP 8, grpo", llama("8B"), "shard 8", recompute="selective", stage=GRPO),
    Row(
        "8B, TP 2, FSDP 8, grpo",
        llama("8B"),
        "shard 8, tensor 2",
        2,
        recompute="full",
        stage=GRPO,
    ),
    Row("8B, FSDP 8, Lion", llama("8B"), "shard 8", recompute="full", also=LION),
    Row("2B, tied, FSDP 8", 'family = qwen3, size = "1.7B"', "shard 8", recompute="full"),
    Row("70B, FSDP 8, TP 8", llama("70B"), "shard 8, tensor 8", 8, recompute="full"),
    Row("70B, FSDP 128", llama("70B"), "shard 128", 16, batch=128, recompute="full"),
    Row(
        "70B, PP 4, TP 8, FSDP 4",
        llama("70B"),
        "shard 4, tensor 8, pipeline 4, micro_batch 8",
        16,
        batch=32,
        recompute="full",
    ),
    Row(
        "8B, PP 8 V, FSDP 8",
        llama("8B"),
        "shard 8, pipeline 8, schedule zero_bubble_v, micro_batch 16",
        8,
        batch=128,
        recompute="full",
    ),
    Row(
        "405B, PP 16, TP 8, FSDP 8",
        llama("405B"),
        "shard 8, tensor 8, pipeline 16, micro_batch 16",
        128,
        batch=128,
        recompute="full",
    ),
    Row("405B, FSDP 64, TP 8", llama("405B"), "shard 64, tensor 8", 64, batch=64, recompute="full"),
    Row(
        "30B of experts, FSDP 16",
        'family = qwen3, size = "30B-A3B"',
        "shard 16",
        2,
        4096,
        16,
        "full",
    ),
    Row(
        "30B of experts, EP 8, FSDP 16",
        'family = qwen3, size = "30B-A3B"',
        "shard 16, expert 8",
        2,
        4096,
        16,
        "full",
    ),
    Row(
        "30B of experts, EP 8, FSDP 64, none",
        'family = qwen3, size = "30B-A3B"',
        "shard 64, expert 8",
        8,
        4096,
        64,
    ),
    Row(
        "30B of experts, EP 8, FSDP 64, selective",
        'family = qwen3, size = "30B-A3B"',
        "shard 64, expert 8",
        8,
        4096,
        64,
        "selective",
    ),
    Row(
        "30B of experts, EP 8, FSDP 64, 64Ki",
        'family = qwen3, size = "30B-A3B"',
        "shard 64, expert 8",
        8,
        65536,
        64,
        "full",
    ),
    Row(
        "16B with latents, EP 8, FSDP 16",
        'family = deepseek_v3, size = "16B-A3B"',
        "shard 16, expert 8",
        2,
        4096,
        16,
        "selective",
    ),
    Row(
        "16B with latents, EP 8, FSDP 16, 16Ki, a further token",
        'family = deepseek_v3, size = "16B-A3B", mtp = 1',
        "shard 16, expert 8",
        2,
        16384,
        16,
        "full",
    ),
    Row(
        "16B with latents, EP 8, FSDP 64, 32Ki",
        'family = deepseek_v3, size = "16B-A3B"',
        "shard 64, expert 8",
        8,
        32768,
        64,
        "full",
    ),
    Row(
        "16B with latents, CP 8, EP 8, FSDP 8, 256Ki",
        'family = deepseek_v3, size = "16B-A3B"',
        "shard 8, context 8, expert 8",
        8,
        262144,
        8,
        "full",
    ),
    Row(
        "16B with latents, PP 8 V, EP 8, FSDP 8",
        'family = deepseek_v3, size = "16B-A3B"',
        "shard 8, pipeline 8, schedule zero_bubble_v, expert 8, micro_batch 16",
        8,
        4096,
        128,
        "full",
    ),
    Row(
        "30B of experts, TP 2, EP 8, FSDP 32, 64Ki",
        'family = qwen3, size = "30B-A3B"',
        "shard 32, tensor 2, expert 8",
        8,
        65536,
        32,
        "full",
    ),
    Row(
        "20B of gpt_oss, EP 8, FSDP 32",
        'family = gpt_oss, size = "20B"',
        "shard 32, expert 8",
        4,
        4096,
        32,
        "selective",
    ),
    Row(
        "8B of qwen3, TP 2, FSDP 8",
        'family = qwen3, size = "8B"',
        "shard 8, tensor 2",
        2,
        4096,
    ),
    Row(
        "7B of olmo2, FSDP 64", 'family = decoder, size = "olmo2-7B"', "shard 64", 8, 4096, batch=64
    ),
    Row(
        "2B of gemma2, FSDP 8",
        'family = decoder, size = "gemma2-2B"',
        "shard 8",
        recompute="selective",
    ),
    Row(
        "8B, PP 4 × 2, TP 2, FSDP 4",
        llama("8B", 30),
        "shard 4, tensor 2, pipeline 4, interleave 2, micro_batch 8",
        4,
        4096,
        32,
        "selective",
    ),
    Row(
        "70B, TP 8, CP 4, FSDP 4",
        llama("70B"),
        "shard 4, tensor 8, context 4",
        16,
        65536,
        4,
        "selective",
    ),
    Row(
        "405B, PP 16 × 8, TP 8, none",
        llama("405B"),
        "shard 8, tensor 8, pipeline 16, interleave 8, micro_batch 16",
        128,
        batch=128,
    ),
)


def job_of(row: Row) -> TrainJob:
    values = row._asdict()
    analysis = analyse(reads(SPEC.format(**{**values, "stage": row.stage.format(**values)})))
    compiled = compile(analysis)
    assert compiled, analysis.report.errors
    return [job for job in compiled.plan.jobs if isinstance(job, TrainJob)][-1]


def ranks(job: TrainJob) -> list[int]:
    """The first rank of the stages that may be the fullest."""
    r = job.resources
    stages = sorted({0, min(1, r.pipeline - 1), r.pipeline - 1})
    return [stage * (r.world_size // r.pipeline) for stage in stages]


def stand_in(folder: Path) -> Path:
    """The library that PyTorch takes for a GPU's."""
    made = folder / "libcuda.so.1"
    name = f"-Wl,-soname,{made.name}"
    subprocess.run(["cc", "-shared", "-fPIC", name, "-o", made, SOURCE], check=True)
    return made


def measured(jobs: Sequence[TrainJob], library: Path) -> Iterator[list[dict[str, Any]]]:
    """What each of a job's ranks takes."""
    environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    for job in jobs:
        said = {"job": job.model_dump(mode="json")}
        worker = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory_worker"],
            input="".join(json.dumps({**said, "rank": rank}) + "\n" for rank in ranks(job)),
            env=environment,
            cwd=SOURCE.parents[1],
            capture_output=True,
            text=True,
        )
        lines = [line for line in worker.stdout.splitlines() if line.startswith("{")]
        found = [json.loads(line) for line in lines]
        if len(found) < len(ranks(job)):
            found.append({"wrong": worker.stderr[-2000:]})
        yield found


def planned(job: TrainJob) -> dict[str, int]:
    memory = job.cost.memory
    assert memory
    return {part: of for part, of in memory.items() if part != "margin"}


class Found(NamedTuple):
    """What was measured of a row, in GiB: all that is allocated at the peak, and the weights and
    moments that were there before the step."""

    allocated: float
    state: float


def recorded() -> dict[str, Found]:
    """What `RESULTS.md` has of each row, by its name."""
    text = PATH.read_text(encoding="utf-8")
    section = text.partition(f"## {SECTION}\n")[2].partition("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:1] == "|"]
    return {cell[0]: Found(float(cell[2]), float(cell[5])) for cell in cells[2:]}


def found(rows: Sequence[Row], library: Path) -> Iterator[tuple[Row, Found]]:
    """What is measured of each row that can be, on its fullest rank."""
    for row, of in zip(rows, measured([job_of(row) for row in rows], library), strict=True):
        if wrong := [each["wrong"] for each in of if "wrong" in each]:
            print(row.name, wrong[0][-2500:], file=sys.stderr, flush=True)
            continue
        most = max(of, key=lambda each: each["allocated"])
        yield row, Found(most["allocated"] / GIB, most["state"] / GIB)


def table(rows: Iterable[tuple[Row, Found]]) -> Iterator[str]:
    yield "| | planned, GiB | measured | off | state, planned | measured | rest | measured |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    errors = []
    for row, of in rows:
        parts = planned(job_of(row))
        total = sum(parts.values()) / GIB
        state = (parts["parameters"] + parts["optimizer"]) / GIB
        off = total / of.allocated - 1
        errors.append(abs(off))
        figures = (state, of.state, total - state, of.allocated - of.state)
        yield (
            f"| {row.name} | {total:.2f} | {of.allocated:.2f} | {off:+.1%} | "
            + " | ".join(f"{each:.2f}" for each in figures)
            + " |"
        )
    yield ""
    if errors:
        within = sum(each <= 0.1 for each in errors)
        yield (
            f"Median error of {len(errors)} rows: {median(errors):.1%}; the largest: "
            f"{max(errors):.1%}; within 10%: {within}."
        )


def named(names: Sequence[str]) -> list[Row]:
    return [row for row in ROWS if not names or any(name in row.name for name in names)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--of", action="store_true")
    parser.add_argument("--planned", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library = stand_in(Path(folder))
        if arguments.of:
            for row in named(arguments.names):
                job = job_of(row)
                print(row.name, {k: round(v / GIB, 2) for k, v in planned(job).items()})
                for each in next(measured([job], library)):
                    print(each.get("wrong") or f"{each['allocated'] / GIB:.2f}")
                    parts = sorted(each.get("of", {}).items(), key=lambda pair: -pair[1])
                    for name, size in parts[:16]:
                        print(f"  {size / GIB:8.3f}  {name[:200]}", flush=True)
            return
        rows = named(arguments.names)
        last = recorded() if arguments.planned else {}
        known = ((row, last[row.name]) for row in rows if row.name in last)
        lines = []
        for line in table(known if arguments.planned else found(rows, library)):
            print(line, flush=True)
            lines.append(line)
    if not arguments.names:
        versions = ", ".join(f"{of} {version(of)}" for of in ("torch", "torchtitan"))
        about = (
            f"`python -m benchmarks.memory` on {platform.machine()}, Python "
            f"{platform.python_version()}, {versions}; memory of the "
            "fullest rank in a step, on a GPU that computes nothing, without the plan's `margin`. "
            "`state` is weights and moments."
        )
        write_section(SECTION, about + "\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
