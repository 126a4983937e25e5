"""`parallel = auto` compared with the placements of the Llama 3 report:
python -m benchmarks.placement.

The three rows of Table 4 (arXiv:2407.21783): 405B with batches of 16 Mi tokens. Its pipelines have
stages of one layer, 8 per GPU (§3.3.2). The cost model estimates both placements.
"""

import time
from collections.abc import Iterator
from statistics import median

from etude.compiler.costs.hardware import GIB
from etude.compiler.costs.jobs import Work, segment_estimate
from etude.compiler.driver import analyse
from etude.compiler.program import ScheduledStage
from etude.compiler.schedule.auto import RECOMPUTE, Candidate, Stretch, choose, search
from etude.spec.load import reads

ROWS = (
    (8192, 8192, 2048, "tensor 8, pipeline 16, interleave 8"),
    (16384, 8192, 2048, "tensor 8, pipeline 16, interleave 8"),
    (16384, 131_072, 128, "tensor 8, context 16, pipeline 16, interleave 8"),
)
"""GPUs, tokens per sequence, sequences per batch, the published placement."""
REPEATS = 5
SPEC = """
recipe table4 {{ }}
model large {{ family = llama3, size = "405B" }}
cluster h100 {{ nodes = {nodes}, gpus = 8 of "H100 80GB" }}
dataset web {{ sample = python_docs }}
stage pretrain: train {{
  model = large, steps = 10, seq_len = {seq_len}, batch = {batch} seqs, lr = 8e-5, data = web
  parallel = {{ {degrees} }}
}}
"""


def stage(gpus: int, seq_len: int, batch: int, degrees: str) -> ScheduledStage:
    text = SPEC.format(nodes=gpus // 8, seq_len=seq_len, batch=batch, degrees=degrees)
    analysis = analyse(reads(text))
    assert analysis.program, analysis.report.errors
    found = analysis.program.stages["pretrain"]
    assert isinstance(found, ScheduledStage)
    return found


def table() -> Iterator[str]:
    yield "| GPUs | length | published | step, GiB | auto | step, GiB | candidates | search |"
    yield "| ---: | ---: | --- | ---: | --- | ---: | ---: | ---: |"
    for gpus, seq_len, batch, published in ROWS:
        of = stage(gpus, seq_len, batch, published)
        times: list[float] = []
        found: list[Candidate] = []
        for _ in range(REPEATS):
            search.cache_clear()
            start = time.perf_counter()
            work, stretch = Work.of(of), Stretch(seq_len=seq_len, sequences=(batch,))
            found = search(work, stretch, RECOMPUTE, without=of.spec.unplaceable)
            times.append(time.perf_counter() - start)
        best = choose([found])
        assert best
        (ours,) = best[1]
        theirs = segment_estimate(of, of.segments[0], batch)
        assert theirs
        yield (
            f"| {gpus:,} | {seq_len:,} | {published} | {theirs.seconds:.3g} s, "
            f"{theirs.memory_total / GIB:.0f} | {ours.shown()[2:-2]} | {ours.seconds:.3g} s, "
            f"{ours.memory / GIB:.0f} | {len(found)} | {median(times):.2f} s |"
        )


if __name__ == "__main__":
    print("\n".join(table()))
