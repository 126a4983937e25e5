"""Texts of all kinds through `etude check`'s functions: `make fuzz`.

    python tests/fuzz.py [inputs] [processes]

A third are damaged specs, a third words of the language in any order, a third characters and bytes.
Every thousandth is up to 100 kB long. An input fails where it raises, takes longer than `LIMIT`,
grows the process beyond `MEMORY`, or has a finding without a place. Failures are printed with the
seed that makes them again; the exit code is 1 where there are any.
"""

import random
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))

from specs import HEAD, POST_TRAINING, after, analysed, stage  # noqa: E402

from etude.spec.findings.render import render_all  # noqa: E402

LIMIT = 1.0
"""Seconds of processor time for one input."""
MEMORY = 1_500_000_000
"""Bytes that a process may come to hold."""
LONG = 1000
EXAMPLES = [file.read_text() for file in sorted((ROOT.parent / "examples").glob("*.etude"))]
SPECS = [HEAD + stage() + after(), POST_TRAINING, *EXAMPLES]
MARKS = ["{", "}", "[", "]", "(", ")", "=", ":", ",", ".", "..", "->", ">=", "<", "\n", '"', "#"]
NUMBERS = ["0", "1", "1e40", "1e9999", "9" * 50, "8Ki", "8K", "50%", "1.5x", "4Mi", "1e-40", "\\"]
WORDS = sorted({word for text in SPECS for word in text.split()} | {*MARKS, *NUMBERS, "allow"})


def made(seed: int) -> str:
    """The input of a seed."""
    chance = random.Random(seed)
    size = 100_000 if seed % LONG == 0 else chance.choice([20, 100, 400])
    kind = seed % 3
    if kind == 0:
        text = chance.choice(SPECS)
        while len(text) < size and seed % LONG == 0:
            text += chance.choice(SPECS)
        for _ in range(chance.randint(1, 5)):
            start = chance.randrange(len(text))
            text = (
                text[:start]
                + chance.choice(["", *WORDS]) * chance.choice([1, 1, 1, 70])
                + text[start + chance.choice([0, 1, 5, 30]) :]
            )
        return text[:100_000]
    if kind == 1:
        words = chance.choices(WORDS, k=size // 5)
        return chance.choice(["", HEAD]) + chance.choice([" ", "", "\n"]).join(words)[:99_000]
    if chance.random() < 0.5:
        return chance.randbytes(size).decode("utf-8", "replace")
    return "".join(chance.choices([chr(c) for c in range(32, 127)] + ["\n", "\t", "é"], k=size))


def tried(seed: int) -> str:
    """What is wrong with how the input of a seed is answered; "" where nothing is."""
    text = made(seed)
    begin = time.process_time()
    try:
        report = analysed(text, each_variant="always").report
        lines = text.count("\n") + 1
        for found in report.diagnostics:
            if not found.span or not 1 <= found.span.line <= lines + 1:
                return f"{found.code} has no place"
        render_all(report.ordered())
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"
    taken = time.process_time() - begin
    return f"took {taken:.1f} s for {len(text)} characters" if taken > LIMIT else ""


def batch(first: int, count: int) -> tuple[list[str], float, int]:
    """Failures of so many seeds, the longest time of one, and the most memory in bytes."""
    failures, longest = [], 0.0
    for seed in range(first, first + count):
        begin = time.process_time()
        problem = tried(seed)
        longest = max(longest, time.process_time() - begin)
        if problem:
            failures.append(f"seed {seed}: {problem}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if memory > MEMORY:
        failures.append(f"seeds {first}–{first + count}: {memory / 1e6:.0f} MB")
    return failures, longest, memory


def main(inputs: int, processes: int, each: int = 500) -> int:
    begin = time.monotonic()
    done, failures, longest, memory = 0, [], 0.0, 0
    with ProcessPoolExecutor(processes) as pool:
        for found, time_of_one, most in pool.map(batch, range(0, inputs, each), repeat(each)):
            done += each
            failures += found
            longest, memory = max(longest, time_of_one), max(memory, most)
            for failure in found:
                print(failure, flush=True)
    print(
        f"{done:,} inputs in {time.monotonic() - begin:.0f} s, {len(failures)} failures; the "
        f"slowest took {longest:.2f} s of processor time, the largest process {memory / 1e6:.0f} MB"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    sys.exit(main(*numbers, *(200_000, 2)[len(numbers) :]))
