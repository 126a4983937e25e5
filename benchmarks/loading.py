"""The cost of a batch: etude's loader beside four others, on the same tokens of two sources.

    python -m benchmarks.loading FOLDER [ROUNDS]

Makes two sources of tokens in FOLDER, 7 : 3, and reads them in rows of 2048 tokens, 8 a batch:
etude's loader; torchtitan's text loader, which tokenizes as it reads; rows in an Arrow file,
interleaved by `datasets`; rows in mosaicml-streaming's files, if that is installed; and rows at
fixed places of flat files, in an order shuffled once an epoch, as OLMo-core reads them. The last is
written here in its simplest form. mosaicml-streaming asks for older packages than etude's; this
installs what it imports:

    pip install --no-deps mosaicml-streaming brotli python-snappy cramjam zstd xxhash \
        torchvision catalogue

All run in one process, in turns, without worker processes; each yields inputs and labels as int64
tensors. Etude's and torchtitan's also end every document's labels and number its positions anew.

Then each starts in a new process whose files no cache holds, and etude continues in the middle of
sources of a billion tokens. Writes the section "Loading" of benchmarks/RESULTS.md.
"""

import gc
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from etude.runtime.data.samples import samples
from etude.runtime.data.tokens import tokenizer
from etude.runtime.data.tokens.shards import Shards, kinds, tokenized, write_splits

from .data_order import held, make
from .results import write_section

LENGTH, ROWS = 2048, 8
WEIGHTS = {"code": 7, "web": 3}
CHARACTERS = 2000
"""Of a document, on average."""
TOKENS = 20_000_000
"""Of both sources."""
BILLION = 10**9
DOCUMENTS = (10**5, 10**6, 10**7)
"""Documents in the sources whose memory is measured."""
FEW = 4
"""Batches a turn of a loader that tokenizes."""
MANY = 400
"""Batches a turn of the others."""

Batches = Iterator[tuple[Any, Any]]


def corpus(folder: Path, tokens: int, texts: int | None = None) -> None:
    """Writes the tokens of both sources in every loader's form, of so many texts repeated."""
    documents = list(islice(_texts(), texts))
    made = tokenizer.train(documents[::4], vocab=4096)
    tokenizer.save(made, folder / "tokenizer")
    batches = list(tokenized(documents, made))
    size = sum(len(batch.tokens) for batch in batches)
    for name, weight in WEIGHTS.items():
        again = -(-tokens * weight // (10 * size))
        folder_of = folder / "etude" / name
        write_splits(
            batches * again,
            folder_of,
            "shards.json",
            holdout=Fraction(0),
            seed=0,
            name=name,
            **kinds(made),
        )
        files = sorted(folder_of.glob("train-*.bin"))
        flat = np.concatenate([np.fromfile(file, "<u2") for file in files])
        _flat(folder / "flat", name, flat)
        _arrow(folder / "datasets", name, flat, documents)
        if find_spec("streaming"):
            _mosaic(folder / "streaming" / name, flat)


def _texts() -> Iterator[str]:
    """Documents of various lengths."""
    random = np.random.default_rng(0)
    for text in samples.documents("python_code", count=None, seed=0):
        place = 0
        while place < len(text):
            end = place + int(random.integers(CHARACTERS // 10, 2 * CHARACTERS))
            if text[place:end].strip():
                yield text[place:end]
            place = end


def _rows(flat: np.ndarray) -> np.ndarray:
    """Rows with one more token for the last label: uint16, shape (rows, LENGTH + 1)."""
    count = (len(flat) - 1) // LENGTH
    return np.lib.stride_tricks.sliding_window_view(flat, LENGTH + 1)[: count * LENGTH : LENGTH]


def _flat(folder: Path, name: str, flat: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    flat.tofile(folder / f"{name}.bin")


def _arrow(folder: Path, name: str, flat: np.ndarray, texts: list[str]) -> None:
    import datasets

    rows = ({"tokens": row} for row in _rows(flat))
    features = datasets.Features({"tokens": datasets.List(datasets.Value("uint16"), LENGTH + 1)})
    made = datasets.Dataset.from_generator(
        lambda: rows, features=features, cache_dir=str(folder / "cache"), fingerprint=name
    )
    made.save_to_disk(str(folder / name))
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(str(folder / f"{name}-texts"))


def _mosaic(folder: Path, flat: np.ndarray) -> None:
    # Not a dependency of etude; see the head of this file.
    streaming: Any = import_module("streaming")
    with streaming.MDSWriter(
        out=str(folder), columns={"tokens": f"ndarray:uint16:{LENGTH + 1}"}
    ) as writer:
        for row in _rows(flat):
            writer.write({"tokens": row})


def etude(folder: Path, steps: int = 10**6, done: int = 0) -> Batches:
    """Etude's loader, continued after `done` steps."""
    from etude.compiler.plan.plan import MixturePiece, Schedule
    from etude.compiler.schedule.timeline import Timeline
    from etude.compiler.values import BatchPiece
    from etude.runtime.data.order.stream import Stream
    from etude.runtime.engine.device import prepare_any

    prepare_any()
    from etude.runtime.engine.loader import Loader

    schedule = Schedule(
        lr=[],
        batch=[BatchPiece(from_step=0, to_step=steps, sequences=ROWS)],
        mixture=[MixturePiece(from_step=0, to_step=steps, weights=WEIGHTS)],
    )
    shards = {name: Shards(folder / "etude" / name, "train", scattered=True) for name in WEIGHTS}
    config = Loader.Config(
        timeline=Timeline(schedule, 0, 0, LENGTH),
        streams={name: Stream(each, seed=1, name=name) for name, each in shards.items()},
        first_tokens=dict.fromkeys(WEIGHTS, 0),
        vocab=2**16,
    )
    loader = Loader(config, dp_world_size=1, dp_rank=0, local_batch_size=ROWS)
    loader.load_state_dict({"steps": done})
    return ((batch["input"], labels) for batch, labels in loader)


def torchtitan(folder: Path) -> Batches:
    """torchtitan's loader of interleaved texts."""
    import datasets
    from torchtitan.components.tokenizer import HuggingFaceTokenizer
    from torchtitan.hf_datasets import DatasetConfig
    from torchtitan.hf_datasets import text_datasets as theirs

    for name in WEIGHTS:
        theirs.DATASETS[name] = DatasetConfig(
            path=str(folder / "datasets" / f"{name}-texts"),
            loader=datasets.load_from_disk,
            sample_processor=lambda sample: sample["text"],
        )
    sources = [theirs.HFDataSource(dataset=n, weight=w) for n, w in WEIGHTS.items()]
    loader = theirs.InterleavedHuggingFaceTextDataLoader(
        theirs.InterleavedHuggingFaceTextDataLoader.Config(sources=sources),
        dp_world_size=1,
        dp_rank=0,
        tokenizer=HuggingFaceTokenizer(
            HuggingFaceTokenizer.Config(), tokenizer_path=str(folder / "tokenizer")
        ),
        seq_len=LENGTH,
        local_batch_size=ROWS,
    )
    return ((batch["input"], labels) for batch, labels in loader)


class _Tables:
    """Batches of a data set without a list of Python's for each row."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, numbers: list[int]) -> np.ndarray:
        column = self.rows[numbers]["tokens"].combine_chunks()
        return column.flatten().to_numpy().reshape(len(numbers), LENGTH + 1)


def interleaved(folder: Path) -> Batches:
    """Rows of Arrow files, shuffled and interleaved by `datasets`, as torch's loader takes them."""
    import datasets
    from torch.utils.data import DataLoader

    total = sum(WEIGHTS.values())
    parts: list[Any] = [
        datasets.load_from_disk(str(folder / "datasets" / name)).shuffle(seed=1) for name in WEIGHTS
    ]
    mixed = datasets.interleave_datasets(
        parts,
        probabilities=[weight / total for weight in WEIGHTS.values()],
        seed=1,
        stopping_strategy="all_exhausted",
    ).with_format("arrow")
    tables: Any = _Tables(mixed)
    while True:
        yield from DataLoader(tables, batch_size=ROWS, collate_fn=_cut, drop_last=True)


def mosaic(folder: Path) -> Batches:
    """Rows of mosaicml-streaming's files, which are all on this machine."""
    from torch.utils.data import DataLoader

    streaming: Any = import_module("streaming")
    import_module("streaming.base.util").clean_stale_shared_memory()
    parts = [
        streaming.Stream(local=str(folder / "streaming" / name), proportion=weight / 10)
        for name, weight in WEIGHTS.items()
    ]
    rows = streaming.StreamingDataset(
        streams=parts, shuffle=True, shuffle_seed=1, batch_size=ROWS, num_canonical_nodes=1
    )
    while True:
        yield from DataLoader(rows, batch_size=ROWS, collate_fn=_stacked, drop_last=True)


def _stacked(rows: list[Any]) -> tuple[Any, Any]:
    return _cut(np.stack([row["tokens"] for row in rows]))


def _cut(tokens: Any) -> tuple[Any, Any]:
    import torch

    found = torch.from_numpy(tokens.astype(np.int64))
    return found[:, :-1].contiguous(), found[:, 1:].contiguous()


class FixedPlaces:
    """Rows at fixed places of flat files, by a table of all rows in shuffled order."""

    def __init__(self, folder: Path) -> None:
        self.files = [folder / "flat" / f"{name}.bin" for name in WEIGHTS]
        counts = [(file.stat().st_size // 2 - 1) // LENGTH for file in self.files]
        total = sum(WEIGHTS.values())
        shares = [weight / total for weight in WEIGHTS.values()]
        size = min(count / share for count, share in zip(counts, shares, strict=True))
        random = np.random.default_rng(1)
        rows = [
            np.stack([np.full(n, file), random.permutation(count)[:n]], axis=1)
            for file, count in enumerate(counts)
            for n in [int(size * shares[file])]
        ]
        self.order = random.permutation(np.concatenate(rows).astype(np.uint32))

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        file, row = self.order[number].tolist()
        with self.files[file].open("rb") as stream:
            stream.seek(2 * LENGTH * row)
            return {"tokens": np.frombuffer(stream.read(2 * (LENGTH + 1)), "<u2")}


def fixed_places(folder: Path) -> Batches:
    """The rows of `FixedPlaces`."""
    from torch.utils.data import DataLoader

    rows: Any = FixedPlaces(folder)
    while True:
        yield from DataLoader(rows, batch_size=ROWS, collate_fn=_stacked, drop_last=True)


LOADERS: dict[str, Callable[[Path], Batches]] = {
    "etude": etude,
    "torchtitan": torchtitan,
    "datasets": interleaved,
    "mosaicml-streaming": mosaic,
    "OLMo-core's way": fixed_places,
}


def there() -> list[str]:
    """The loaders that are installed."""
    return [name for name in LOADERS if name != "mosaicml-streaming" or find_spec("streaming")]


def warm(folder: Path, rounds: int, many: int = MANY) -> dict[str, tuple[float, float]]:
    """Millions of tokens a second of processor time, and of wall time, at the median of turns."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.read_bytes()  # into the kernel's cache
    loaders = {name: LOADERS[name](folder) for name in there()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in loaders}
    for turn in range(rounds + 1):
        for name, batches in loaders.items():
            count = FEW if name == "torchtitan" else many
            cpu, wall = time.process_time(), time.perf_counter()
            for inputs, labels in islice(batches, count):
                assert inputs.shape == labels.shape == (ROWS, LENGTH)
            spent = time.process_time() - cpu, time.perf_counter() - wall
            if turn:  # the first one opens the files
                tokens = count * ROWS * LENGTH / 1e6
                found[name].append((tokens / spent[0], tokens / spent[1]))
    return {
        name: (median(cpu for cpu, _ in each), median(wall for _, wall in each))
        for name, each in found.items()
    }


def cold(name: str, folder: Path) -> dict[str, float]:
    """Seconds until the first batch, and until the hundredth, of files that no cache holds."""
    evict(folder)
    begin = time.perf_counter()
    batches = LOADERS[name](folder)
    next(batches)
    first = time.perf_counter() - begin
    for _ in islice(batches, FEW if name == "torchtitan" else 99):
        pass
    return {"first": first, "hundred": time.perf_counter() - begin}


def resumed(folder: Path) -> dict[str, float]:
    """Milliseconds until the first batch in the middle of a billion tokens, and those of processors
    until then where caches hold the files."""
    done = BILLION // 2 // (ROWS * LENGTH)
    times, processors = [], []
    for lies_in_cache in (False, True, True, True):
        if not lies_in_cache:
            evict(folder)
        begin, spent = time.perf_counter(), time.process_time()
        batches = etude(folder, BILLION // (ROWS * LENGTH), done)
        next(batches)
        times.append((time.perf_counter() - begin) * 1e3)
        processors.append((time.process_time() - spent) * 1e3)
        del batches
        gc.collect()
    return {"cold": times[0], "warm": median(times[1:]), "processors": median(processors[1:])}


def memory(folder: Path) -> dict[str, float]:
    """MiB that etude's loader holds after 200 batches: of its tables, beside what the first batches
    of any process take."""
    small, large = folder / "small", folder / "large"
    for _ in islice(etude(small), 200):
        pass
    before = held()
    batches = etude(large)
    for _ in islice(batches, 200):
        pass
    return {"mib": (held() - before) / 1024}


def evict(folder: Path) -> None:
    """Drops the files below a folder from the kernel's cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_new_process(*arguments: str) -> dict[str, float]:
    """What a function of this module measures in a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.loading", *arguments]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(made.stdout.splitlines()[-1])


def _one(what: str, folder: Path, name: str = "") -> dict[str, float]:
    # The imports are not part of what is measured.
    import datasets  # noqa: F401
    import torch  # noqa: F401

    if name in ("torchtitan", "etude", ""):
        from etude.runtime.engine.device import prepare_any

        prepare_any()
        from etude.runtime.engine import loader  # noqa: F401
    if find_spec("streaming"):
        import_module("streaming")
    if what == "cold":
        return cold(name, folder)
    return resumed(folder) if what == "resumed" else memory(folder)


def sources_of(folder: Path, documents: int) -> Path:
    """A folder with both of etude's sources, of so many documents of 1000 tokens together; the
    tokens are holes."""
    for name in WEIGHTS:
        make(folder / "etude" / name, documents // len(WEIGHTS))
    return folder


def held_for(folder: Path, documents: int) -> float:
    """See `memory`."""
    sources_of(folder / "small", 1000)
    sources_of(folder / "large", documents)
    found = in_new_process("memory", str(folder))["mib"]
    shutil.rmtree(folder)
    return found


def main() -> None:
    if sys.argv[1] in ("cold", "resumed", "memory"):
        print(json.dumps(_one(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])))
        return
    folder = Path(sys.argv[1])
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    corpus(folder, TOKENS)
    starts = {name: in_new_process("cold", str(folder), name) for name in there()}
    billion = sources_of(folder / "billion", BILLION // 1000)
    continued = in_new_process("resumed", str(billion))
    kept = {count: held_for(folder / "held", count) for count in DOCUMENTS}
    shutil.rmtree(billion)
    rates = warm(folder, rounds)
    shutil.rmtree(folder)
    write_section("Loading", report(rates, starts, continued, kept, rounds))


def report(
    rates: dict[str, tuple[float, float]],
    starts: dict[str, dict[str, float]],
    continued: dict[str, float],
    kept: dict[int, float],
    rounds: int,
) -> str:
    ours = rates["etude"]
    rows = "\n".join(
        f"| {name} | {cpu:.2f} | {wall:.2f} | {ours[0] / cpu:.2f} | {ours[1] / wall:.2f} "
        f"| {starts[name]['first'] * 1e3:.0f} | {starts[name]['hundred'] * 1e3:.0f} |"
        for name, (cpu, wall) in rates.items()
    )
    packages = ["torch", "torchtitan", "datasets", "numpy"]
    missing = "" if "mosaicml-streaming" in rates else " mosaicml-streaming was not installed."
    packages += [] if missing else ["mosaicml-streaming"]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    memory = ", ".join(f"{mib:.0f} MiB of {count:,}" for count, mib in kept.items())
    return f"""
`python -m benchmarks.loading FOLDER {rounds}` on {platform.machine()}, Python
{platform.python_version()}, {versions}; two sources 7 : 3, rows of {LENGTH} tokens, {ROWS} a batch,
medians of {rounds} turns in one process; load average {os.getloadavg()[0]:.1f} on
{os.cpu_count()} cores.{missing} The last two columns are of new processes whose files no cache
holds, without the imports; torchtitan's hundred is {FEW + 1} batches.

| loader | Mtok/CPU-s | Mtok/s | etude's, × | × | first batch, cold, ms | hundred, ms |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
{rows}

In the middle of {BILLION:,} tokens of {BILLION // 1000:,} documents, etude's first batch comes
after {continued["warm"]:.0f} ms, which takes {continued["processors"]:.0f} ms of processors, and
after {continued["cold"]:.0f} ms where no cache holds the files. After 200 batches its loader holds
{memory} documents more than of a thousand.
"""


if __name__ == "__main__":
    main()
