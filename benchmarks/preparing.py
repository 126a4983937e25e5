"""The cost of preparing 190 million tokens of one file, in one part and in two.

    python -m benchmarks.preparing FOLDER

Makes a file of JSON lines in FOLDER, from the standard library's sources repeated, and a tokenizer
of 4096 tokens. Prepares the file as a whole; then in two parts, the first of which is killed with
SIGKILL as soon as it has finished a unit, and started again; then joins them. Then it uses the
resulting tokens as an existing file of ids. Compares all files of the results byte for byte. Writes
the section "Preparing" of benchmarks/RESULTS.md.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import Any

from etude.runtime.data.samples import samples

from .results import write_section

SIZE = 720_000_000
"""Bytes of the file: about 190 million tokens."""
SPEC = """recipe preparing {{ seed = 3 }}
tokenizer words {{ {tokenizer} }}
dataset library {{ sample = python_code }}
dataset web {{ {source}, holdout = 1% }}
model tiny {{ layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 4096 }}
stage pretrain: train {{
  model = tiny, steps = 10, seq_len = 16, batch = 4 seqs, lr = 1e-3, data = web
}}
"""
TRAINED = "train = { on [library], vocab 4096 }"


def main() -> None:
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    corpus(folder / "web.jsonl")
    spec = folder / "spec.etude"
    spec.write_text(SPEC.format(tokenizer=TRAINED, source='files = "web.jsonl"'))
    rows = [("as a whole", prepare(spec, folder / "whole"))]
    killed = kill(spec, folder / "parts", "1", "2")
    rows += [
        ("part 1 of 2, killed after its first unit", killed),
        ("part 1 of 2, started again", prepare(spec, folder / "parts", "1", "2")),
        ("part 2 of 2", prepare(spec, folder / "parts", "2", "2")),
        ("the parts, joined", prepare(spec, folder / "parts")),
    ]
    whole, parts = shards(folder / "whole"), shards(folder / "parts")
    same = sums(whole) == sums(parts)
    rows.append(("tokens that exist, checked", existing(folder, whole)))
    summary = json.loads((whole / "shards.json").read_text())
    files = len([path for path in whole.iterdir() if path.name.startswith("tokens-")])
    table = "\n".join(f"| {what} | {seconds:.0f} |" for what, seconds in rows)
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("tokenizers", "numpy")
    )
    write_section(
        "Preparing",
        f"""
`python -m benchmarks.preparing FOLDER` on {platform.platform()} with {os.cpu_count()} cores that
other work shared, Python {platform.python_version()}, {versions}: one file of JSON lines of
{SIZE:,} bytes, {summary["documents"]:,} documents, {summary["tokens"]:,} tokens, {files} units.
The first row trains the tokenizer, too, and so does the second.

| prepared | seconds |
| --- | --- |
{table}

The results of one and of two parts are {"the same" if same else "NOT the same"} files, byte for
byte. The largest process took {peak() / 2**20:.0f} MiB.
""",
    )
    if not same:
        sys.exit(1)


def corpus(path: Path) -> None:
    """One file of JSON lines with `SIZE` bytes or slightly more."""
    texts = [json.dumps(text)[1:] for text in samples.documents("python_code", count=None, seed=0)]
    written = number = 0
    with path.open("w", encoding="utf-8") as file:
        for text in cycle(texts):
            written += file.write(f'{{"text": "# document {number}\\n{text}}}\n')
            number += 1
            if written >= SIZE:
                return


def prepare(spec: Path, run: Path, *part: str) -> float:
    """Runs `etude prepare`; returns the elapsed seconds."""
    begun = time.monotonic()
    subprocess.run(_command(spec, run, *part), check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun


def kill(spec: Path, run: Path, *part: str) -> float:
    """Starts a part and kills it after its first unit; returns the elapsed seconds."""
    begun = time.monotonic()
    process = subprocess.Popen(_command(spec, run, *part), stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(run.glob("work/*/units/*/unit.json")):
        time.sleep(0.1)
    if process.poll() is not None:
        sys.exit("the part has ended before it could be killed")
    process.kill()
    process.wait()
    return time.monotonic() - begun


def _command(spec: Path, run: Path, *part: str) -> list[str]:
    given = ["--part", part[0], "of", part[1]] if part else []
    etude = str(Path(sys.executable).with_name("etude"))
    return [etude, "prepare", str(spec), "--folder", str(run), *given]


def existing(folder: Path, whole: Path) -> float:
    """Uses the tokens of a run as an existing file of ids; returns the elapsed seconds."""
    made = folder / "whole" / "artifacts"
    (tokenizer,) = (path for path in made.glob("*/tokenizer.json"))
    shutil.copytree(tokenizer.parent, folder / "tokenizer")
    with (folder / "web.ids").open("wb") as out:
        for path in sorted(whole.glob("tokens-*.bin")):
            with path.open("rb") as file:
                shutil.copyfileobj(file, out)
    spec = folder / "existing.etude"
    source = 'tokenized = "web.ids", layout = uint16'
    spec.write_text(SPEC.format(tokenizer='file = "tokenizer/tokenizer.json"', source=source))
    seconds = prepare(spec, folder / "existing")
    there, theirs = (
        json.loads((each / "shards.json").read_text())
        for each in (shards(folder / "existing"), whole)
    )
    same: Any = [(each["documents"], each["tokens"]) for each in (there, theirs)]
    if same[0] != same[1]:
        sys.exit(f"the documents of the file of ids are others: {same}")
    return seconds


def shards(run: Path) -> Path:
    """The folder of the data set that a run has made."""
    found = (path.parent for path in run.glob("artifacts/*/shards.json"))
    return next(path for path in found if "web" in (path / "shards.json").read_text())


def sums(folder: Path) -> dict[str, str]:
    """Checksums of all files of a result except its manifest, which contains the time."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name != "manifest.json":
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def peak() -> int:
    """Peak memory in bytes of the largest child process so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


if __name__ == "__main__":
    main()
