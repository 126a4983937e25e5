"""The time of `etude check` for specs with many stages: reading, binding and all checks.

    python -m benchmarks.scale

One process checks specs of 1,250 to 10,000 stages, each continuing from the previous one, three
times each; the minimum is shown. Writes the section "Scale" of benchmarks/RESULTS.md.
"""

import gc
import os
import platform
import time

from etude.compiler.driver import analyse
from etude.spec.load import reads

from .results import write_section

STAGES = (1_250, 2_500, 5_000, 10_000)
RUNS = 3
HEAD = """recipe many { seed = 1 }
model tiny { layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 320 }
dataset web { sample = python_docs }
stage s0: train {
  model = tiny, steps = 10, seq_len = 16, batch = 4 seqs, lr = 1e-3, data = web
}
"""


def spec(stages: int) -> str:
    """A spec with a chain of stages."""
    more = (f"stage s{n}: train {{ steps = 10, lr = last -> 1e-3 }}\n" for n in range(1, stages))
    return HEAD + "".join(more)


def seconds(text: str) -> float:
    """The minimum processor time of several checks of a text.

    Raises: RuntimeError: the text has an error.
    """
    times = []
    for _ in range(RUNS):
        begin = time.process_time()
        found = analyse(reads(text), each_variant="always")
        times.append(time.process_time() - begin)
        if found.program is None:
            raise RuntimeError(found.report.ordered()[0].message)
    return min(times)


def main() -> None:
    gc.disable()  # as the command does
    reads(HEAD)  # loads the grammar
    rows = []
    for stages in STAGES:
        taken = seconds(spec(stages))
        rows.append(f"| {stages:,} | {taken:.2f} | {taken / stages * 1e6:.0f} |")
        gc.collect()
    text = (
        f"`python -m benchmarks.scale` on {platform.machine()}, Python {platform.python_version()};"
        f" stages in a chain, least of {RUNS} checks in one process, seconds of processor time. "
        f"Load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.\n\n"
        "| stages | seconds | microseconds a stage |\n| --- | --- | --- |\n" + "\n".join(rows)
    )
    write_section("Scale", text)


if __name__ == "__main__":
    main()
