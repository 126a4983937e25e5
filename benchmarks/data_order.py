"""The cost of ordering an epoch, for few and for very many documents.

    python -m benchmarks.data_order FOLDER

Makes token shards of 10 and 100 million documents in FOLDER: an index on disk, and tokens that are
a hole in a file. For 10 billion documents, the index of 80 GB is computed instead. For each, a new
process opens a stream, reads sequences at its beginning and far into it, and measures time and
memory. Then it reads scattered documents of a file that is not in the page cache, with and without
MADV_RANDOM. Writes the section "Order of data" of benchmarks/RESULTS.md.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from etude.runtime.data.order.stream import Stream
from etude.runtime.data.tokens.maps import Map
from etude.runtime.data.tokens.shards import Shards

from .results import write_section

COMPUTED = 10**10
COUNTS = (10**7, 10**8, COMPUTED)
LENGTH = 1000
"""Tokens per document."""
SEQUENCE = 8192
FILE = 2**31
"""Bytes of the file for scattered reads."""
READS = 2000


class Computed(Shards):
    """Documents of the same length, without files on disk."""

    def __init__(self) -> None:
        self.split, self.documents, self.tokens = "train", COMPUTED, COMPUTED * LENGTH

    def cut(self, begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = [
            np.arange(begin // LENGTH, -(-end // LENGTH) + 1).clip(begin / LENGTH, end / LENGTH)
            for begin, end in zip(begins, ends, strict=True)
        ]
        cuts = [np.rint(part * LENGTH).astype(np.int64) for part in parts]
        return np.concatenate([cut[:-1] for cut in cuts]), np.concatenate(list(map(np.diff, cuts)))

    def read(self, begin: int, count: int) -> np.ndarray:
        return np.zeros(count, np.uint16)


def make(folder: Path, count: int) -> None:
    """Writes token shards of `count` documents."""
    folder.mkdir(parents=True)
    with (folder / "train-00000.bin").open("wb") as file:
        file.truncate(2 * count * LENGTH)
    with (folder / "train-index.npy").open("wb") as file:
        header = {"descr": "<i8", "fortran_order": False, "shape": (count + 1,)}
        np.lib.format.write_array_header_1_0(file, header)
        for begin in range(0, count + 1, 2**20):
            offsets = np.arange(begin, min(begin + 2**20, count + 1), dtype="<i8") * LENGTH
            file.write(offsets.data)
    files = [{"file": "train-00000.bin", "tokens": count * LENGTH}]
    part = {"documents": count, "tokens": count * LENGTH, "index": "train-index.npy"}
    summary = {"dtype": "uint16", "splits": {"train": part | {"files": files}}}
    (folder / "shards.json").write_text(json.dumps(summary))


def held() -> int:
    """KiB of private memory of this process; pages of files do not count."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0])


def measure(count: int, folder: Path) -> dict[str, float]:
    """Seconds and MiB of opening and reading; the process must do nothing else."""
    before, begin = held(), time.perf_counter()
    shards = Computed() if count == COMPUTED else Shards(folder, "train", scattered=True)
    stream = Stream(shards, seed=1, name="web")
    found = {"set_up": time.perf_counter() - begin, "set_up_mib": (held() - before) / 1024}
    for name, position in (("first", 0), ("far", 5 * stream.epoch_tokens // 3)):
        begin = time.perf_counter()
        stream.read(position, SEQUENCE)
        found[name] = time.perf_counter() - begin
    begin = time.perf_counter()
    for number in range(1000):
        stream.read(position + number * SEQUENCE, SEQUENCE)
    found["next"] = (time.perf_counter() - begin) / 1000
    return found | {"mib": (held() - before) / 1024}


def scattered_reads(path: Path) -> dict[bool, float]:
    """Bytes read from disk per requested byte: whether scattered → ratio."""
    if not path.exists():
        with path.open("wb") as file:
            for _ in range(FILE // 2**24):
                file.write(os.urandom(2**24))
            os.fsync(file.fileno())
    ratios = {}
    for scattered in (False, True):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        numbers = Map(path, np.dtype("<u2"), FILE // 2, scattered=scattered)
        places = np.random.default_rng(scattered).integers(0, FILE // 2 - LENGTH, READS)
        before = _from_disk()
        for place in places.tolist():
            numbers.read(place, LENGTH).sum()
        ratios[scattered] = (_from_disk() - before) / (2 * LENGTH * READS)
    return ratios


def _from_disk() -> int:
    return int(Path("/proc/self/io").read_text().split("\nread_bytes: ")[1].split()[0])


def main() -> None:
    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        print(json.dumps(measure(int(sys.argv[2]), folder / sys.argv[2])))
        return
    rows = []
    for count in COUNTS:
        if count != COMPUTED and not (folder / str(count)).exists():
            make(folder / str(count), count)
        command = [sys.executable, "-m", "benchmarks.data_order", str(folder), str(count)]
        made = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(made.stdout)
        if count != COMPUTED:
            shutil.rmtree(folder / str(count))
        rows.append(
            f"| {count:,} | {found['set_up'] * 1e3:.1f} | {found['set_up_mib']:.1f} "
            f"| {found['first']:.2f} | {found['far']:.2f} | {found['next'] * 1e6:.0f} "
            f"| {found['mib']:.0f} |"
        )
    plain, random = scattered_reads(folder / "random.bin").values()
    (folder / "random.bin").unlink()
    text = (
        f"`python -m benchmarks.data_order FOLDER` on {platform.machine()}, Python "
        f"{platform.python_version()}, numpy {np.__version__}; documents of {LENGTH:,} tokens, "
        f"sequences of {SEQUENCE:,}. The index of {COMPUTED:,} documents is computed, not read. "
        f"Load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.\n\n"
        "| documents | set-up, ms | set-up, MiB | first sequence, s | one in epoch 1, s "
        "| each further one, µs | MiB in the end |\n| --- | --- | --- | --- | --- | --- | --- |\n"
        + "\n".join(rows)
        + f"\n\n{READS:,} documents read here and there of a file of {FILE >> 30} GiB that no "
        f"cache holds: the disk reads {plain:.1f} bytes for each that is asked for, and "
        f"{random:.1f} with MADV_RANDOM."
    )
    write_section("Order of data", text)


if __name__ == "__main__":
    main()
