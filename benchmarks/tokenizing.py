"""The cost of `etude prepare`, beside the `encode_batch` of tokenizers itself.

    python -m benchmarks.tokenizing FOLDER [ROUNDS]

Writes JSON lines with 36 million characters of the standard library's sources into FOLDER, in four
files, and trains a tokenizer of 4096 tokens. `etude prepare` reads and checks them, tokenizes them
and writes shards; it is a process of its own, whose start counts. tokenizers encodes the same
texts, which are in memory already, a thousand at a time on all cores, into lists of ids, and writes
nothing. Both run in turns. Writes the section "Tokenizing" of benchmarks/RESULTS.md.
"""

import importlib.metadata
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median

from tokenizers import Tokenizer

from etude.runtime.data.samples import samples
from etude.runtime.data.tokens import tokenizer

from .results import write_section

CHARACTERS = 36_000_000
FILES = 4
AT_ONCE = 1000
"""Texts in one call of `encode_batch`."""
SPEC = """recipe tokenizing { seed = 3 }
tokenizer words { file = "tokenizer/tokenizer.json" }
dataset web { files = "web/*.jsonl", holdout = 1% }
model tiny { layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 4096 }
stage pretrain: train {
  model = tiny, steps = 10, seq_len = 16, batch = 4 seqs, lr = 1e-3, data = web
}
"""


@dataclass
class Found:
    """What was measured.

    Attributes:
        tokens: of all documents.
        ours, theirs: Mtok a second of processor time, and of wall time.
        mib: memory of the largest process of `etude prepare`.
    """

    tokens: int
    ours: list[float]
    theirs: list[float]
    mib: float


def corpus(folder: Path, characters: int) -> tuple[list[str], Tokenizer]:
    """Writes the files, the tokenizer and the spec; returns the texts and the tokenizer."""
    texts, size = [], 0
    for number, text in enumerate(
        cycle(samples.documents("python_code", count=characters // 10_000, seed=0))
    ):
        texts.append(f"# document {number}\n{text}")
        size += len(text)
        if size >= characters:
            break
    made = tokenizer.train(texts[:300], vocab=4096)
    tokenizer.save(made, folder / "tokenizer")
    (folder / "web").mkdir()
    for number in range(FILES):
        with (folder / "web" / f"{number}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts[number::FILES])
    (folder / "spec.etude").write_text(SPEC)
    return texts, tokenizer.load(folder / "tokenizer" / "tokenizer.json")


def ours(folder: Path) -> tuple[float, float, int]:
    """Processor and wall seconds of `etude prepare`, and the tokens that it wrote."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("etude")), "prepare", str(folder / "spec.etude")]
    cpu, wall = _of_children(), time.perf_counter()
    subprocess.run([*command, "--folder", str(run)], check=True, stdout=subprocess.DEVNULL)
    spent = _of_children() - cpu, time.perf_counter() - wall
    (summary,) = run.glob("artifacts/*/shards.json")
    return *spent, json.loads(summary.read_text())["tokens"]


def theirs(made: Tokenizer, texts: list[str]) -> tuple[float, float, int]:
    """Processor and wall seconds of `encode_batch`, and the tokens that it made."""
    cpu, wall = time.process_time(), time.perf_counter()
    tokens = 0
    for begin in range(0, len(texts), AT_ONCE):
        encoded = made.encode_batch(texts[begin : begin + AT_ONCE], add_special_tokens=False)
        tokens += sum(len(each.ids) for each in encoded)
    return time.process_time() - cpu, time.perf_counter() - wall, tokens


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(folder: Path, rounds: int, characters: int = CHARACTERS) -> Found:
    """Medians of alternating runs."""
    texts, made = corpus(folder, characters)
    spent: tuple[list[tuple[float, float]], ...] = ([], [])
    tokens = 0
    for _ in range(rounds):
        for number, (cpu, wall, count) in enumerate((ours(folder), theirs(made, texts))):
            spent[number].append((cpu, wall))
            tokens = tokens if number else count
            # Etude's documents have a token at their beginning, and one at their end.
            if number and count + 2 * len(texts) != tokens:
                sys.exit(f"{tokens} tokens of etude, {count} of tokenizers")
    rates = [[tokens / 1e6 / median(each) for each in zip(*side, strict=True)] for side in spent]
    mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return Found(tokens, rates[0], rates[1], mib)


def main() -> None:
    folder = Path(sys.argv[1])
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = measure(folder, rounds)
    rows = "\n".join(
        f"| {what} | {one:.3f} | {other:.3f} | {one / other:.2f} |"
        for what, one, other in zip(
            ("Mtok a second of processor time", "Mtok/s"), found.ours, found.theirs, strict=True
        )
    )
    write_section(
        "Tokenizing",
        f"""
`python -m benchmarks.tokenizing FOLDER {rounds}` on {platform.machine()}, Python
{platform.python_version()}, tokenizers {importlib.metadata.version("tokenizers")};
{CHARACTERS:,} characters of Python, {found.tokens:,} tokens, medians of {rounds} alternating runs;
load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores. The largest process of
`etude prepare` takes {found.mib:.0f} MiB.

| | `etude prepare` | `encode_batch` | ratio |
| --- | ---: | ---: | ---: |
{rows}
""",
    )
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
