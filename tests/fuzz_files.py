"""Damaged and hostile files through what reads them: `make fuzz`.

    python tests/fuzz_files.py [data files] [files of runs] [processes]

Every input is a good file that was changed: bits turned over, parts cut out, doubled, moved or put
in, numbers made huge, values of JSON replaced by others, or nothing but random bytes.

    data             texts and records in all formats, packed or not, and tokens of other programs
    tokenizers       a tokenizer.json and the files beside it
    weights          config.json and safetensors
    files of runs    plan, journal, events, figures, results, lease, manifests, checkpoints

An input fails where it raises anything but the runtime's own errors, has no message, takes longer
than `LIMIT`, or grows the process beyond `MEMORY`. Failures are printed with the seed that makes
them again; the exit code is 1 where there are any.
"""

import contextlib
import gzip
import io
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent
sys.path[:0] = [str(ROOT), str(ROOT.parent)]

import token_layouts as layouts  # noqa: E402
from spoiled_files import spoil  # noqa: E402

from etude.runtime.errors import RunError  # noqa: E402

LIMIT = 5.0
"""Seconds of processor time for one input."""
MEMORY = 2_500_000_000
"""Bytes that a process may come to hold."""
DOCUMENTS = [[256, 65, 66, 257], [256, 67, 257], [256, *[68] * 30, 257]]
SAID = [{"role": "user", "content": "Say ant"}, {"role": "assistant", "content": "ant"}]
RECORDS: dict[str, list[dict[str, Any]]] = {
    "documents": [{"text": f"the {n} text\u00e9", "more": [n, {"x": None}]} for n in range(8)],
    "dialogs": [
        {"messages": SAID, "tools": [{"name": "f", "parameters": {"type": "object"}}]},
        {"prompt": "Say bee", "completion": "bee"},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
        {"instruction": "Add", "input": "1 and 2", "output": "3"},
    ],
    "preferences": [
        {"prompt": "Say cat", "chosen": "cat", "rejected": "dog"},
        {"prompt": SAID[:1], "chosen": SAID[1:], "rejected": [{**SAID[1], "content": "no"}]},
    ],
    "ratings": [
        {"prompt": "Say eel", "completion": "eel", "label": True},
        {"messages": SAID, "label": False},
    ],
    "solutions": [
        {"prompt": "Add 1 and 2", "completions": ["1 + 2 = 3.", "So 3"], "labels": [True, False]},
        {"prompt": SAID[:1], "completions": ["ant"], "labels": [1]},
    ],
    "prompts": [{"prompt": "Say fox", "answer": "fox"}, {"prompt": SAID[:1]}],
}
OF_WEIGHTS = """
recipe of_weights { seed = 1 }
model base { weights = "input/published" }
dataset chats { files = "chats.jsonl", kind = dialogs }
stage sft: sft { from = base, data = chats, steps = 4, seq_len = 64, batch = 2 seqs, lr = 1e-5 }
"""


class Input(NamedTuple):
    """A kind of input.

    Attributes:
        make: writes a good one into an empty folder.
        read: reads what is in the folder, as runs do.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], None]


# Data


def _write_records(path: Path, records: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import zstandard

    name = path.name
    rows = [{"text": str(r.get("text", json.dumps(r))), "json": json.dumps(r)} for r in records]
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name.endswith(".arrow"):
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    elif ".csv" in name or ".tsv" in name:
        mark = "," if ".csv" in name else "\t"
        path.write_text(f"text{mark}more\n" + "".join(f"a b{mark}{n}\n" for n in range(9)))
    elif ".txt" in name:
        path.write_text("".join(f"{row['text']}\n" for row in rows))
    elif ".jsonl" in name:
        path.write_text("".join(json.dumps(r) + "\n" for r in records))
    else:
        path.write_text(json.dumps(records))
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes(), 1))
    if name.endswith(".zst"):
        path.write_bytes(zstandard.ZstdCompressor().compress(path.read_bytes()))


def _documents(folder: Path) -> None:
    from etude.runtime.data.reading import readers

    said: list[str] = []
    source = {"kind": "files", "files": ["*"], "text": "text"}
    for _ in readers.read(source, root=folder, bad_lines=10**6, on_bad=said.append):
        pass
    assert all(said)


@cache
def _tokens() -> Any:
    from etude.runtime.data.dialogs.dialog import renderer, special_tokens
    from etude.runtime.data.records.tokens import Tokens
    from etude.runtime.data.tokens import tokenizer

    settings = {"protocol": "chatml"}
    made = tokenizer.byte_level(special_tokens(settings))
    return Tokens(made, renderer(settings, made, ROOT))


def _reads(form: str) -> Callable[[Path], None]:
    from etude.runtime.data.reading import readers
    from etude.runtime.data.reading.formats import BadLines
    from etude.runtime.data.records import layouts as known
    from etude.runtime.data.records import records

    makers = {
        "dialogs": (records.dialog, lambda: _tokens().dialog),
        "preferences": (records.preference, lambda: _tokens().preference),
        "ratings": (records.rating, lambda: _tokens().rating),
        "solutions": (
            lambda record, fields: records.solution(record, fields, "\n"),
            lambda: lambda found: _tokens().solution(found, "\n"),
        ),
        "prompts": (records.prompt, lambda: _tokens().asked),
    }

    def read(folder: Path) -> None:
        make, render = makers[form]
        source = {"kind": "files", "files": ["*"]}
        for row in readers.read_rows(source, form, BadLines(10**6), root=folder):
            try:
                found = known.converted(row.fields, form)
                render()(make(found.record if found else row.fields, records.Fields()))
            except RunError:
                continue

    return read


def _token_files(folder: Path) -> None:
    from etude.runtime.data.tokens import token_files

    vocab = token_files.Vocabulary(300, 257)
    for file in token_files.sources({"tokens": ["a.*"], "layout": None}, folder, vocab):
        token_files.sample(file, vocab)
        if file.index:
            for _ in token_files.borders(file):
                pass
    token_files.digest({"tokens": ["a.*"], "layout": None}, folder)


def _data() -> dict[str, Input]:
    suffixes = (".jsonl", ".json", ".jsonl.gz", ".jsonl.zst", ".parquet", ".arrow")
    found = {
        f"documents{suffix}": Input(
            lambda folder, s=suffix: _write_records(folder / f"a{s}", RECORDS["documents"]),
            _documents,
        )
        for suffix in (*suffixes, ".txt", ".txt.gz", ".csv", ".tsv", ".csv.gz", ".txt.zst")
    }
    for form in ("dialogs", "preferences", "ratings", "solutions", "prompts"):
        for suffix in suffixes:
            found[form + suffix] = Input(
                lambda folder, f=form, s=suffix: _write_records(folder / f"a{s}", RECORDS[f]),
                _reads(form),
            )
    ways: dict[str, Callable[[Path], None]] = {
        "megatron": lambda folder: layouts.megatron(folder / "a.bin", DOCUMENTS),
        "datatrove": lambda folder: layouts.datatrove(folder / "a.ds", DOCUMENTS),
        "table": lambda folder: layouts.memmap(folder / "a.npy", DOCUMENTS, table=True),
        "npy": lambda folder: layouts.npy(folder / "a.npy", DOCUMENTS),
    }
    found |= {f"tokens {name}": Input(make, _token_files) for name, make in ways.items()}
    return found


# Tokenizers and weights


def _tokenizer(folder: Path) -> None:
    from etude.runtime.data.tokens import tokenizer

    tokenizer.save(tokenizer.byte_level(["<|im_end|>"]), folder)
    config = {"bos_token": "<|begin_of_text|>", "chat_template": "{{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _loads_tokenizer(folder: Path) -> None:
    from etude.runtime.data.tokens import tokenizer

    made = tokenizer.load(folder / "tokenizer.json")
    tokenizer.special(made)
    made.encode("some text")


def _weights(folder: Path) -> None:
    from weights_folders import write_folder

    write_folder(folder / "published")
    (folder.parent / "spec.etude").write_text(OF_WEIGHTS)


def _checks_weights(folder: Path) -> None:
    _command("plan", str(folder.parent / "spec.etude"))


# Files of runs


def _run(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        shutil.copytree(_made_run() / name, folder, dirs_exist_ok=True, symlinks=True)

    return make


FIGURES = {
    **{"event": "step", "stage": "pretrain", "lr": 1e-3, "grad_norm": 0.5, "sequences": 4},
    **{"seq_len": 64, "mixture": {"docs": 1}, "sources": {"docs": 256}, "time": 1.7e9},
    **{"tokens_per_second": 900.0, "seconds": 0.3, "data_seconds": 0.01},
}


@cache
def _made_run() -> Path:
    from reported_runs import Run, answered, fill
    from run_folders import Folder

    home = Path(tempfile.mkdtemp(prefix="fuzz-runs-"))
    run = Run(home / "reported")
    fill(run)
    answered(run, "align.1.drafts", 4)
    for path in run.folder.glob("metrics/*.jsonl"):  # as trainers write them
        lines = [FIGURES | json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    begun = Folder(home / "begun")
    begun.finish("tokenizer.letters", "dataset.sums")
    begun.begin("pre.1")
    begun.train("pre.1", 40, 0.5)
    begun.save("pre.1", 20)
    begun.save("pre.1", 40)
    begun.owned()
    return home


COMMANDS = (("status",), ("status", "--json"), ("report",), ("clean", "--json"), ("diff",))
"""Commands that read a run folder and change nothing in it; its path follows."""


def _shown(folder: Path) -> None:
    """Every command ends with an exit code, and without a traceback."""
    for words in COMMANDS:
        _command(*words, *[str(folder)] * (2 if words == ("diff",) else 1))
    page = folder.parent / "page.html"
    _command("report", "--html", str(page), str(folder))


def _read(folder: Path) -> None:
    """What commands gather to show a run: the same as `_shown` in a fraction of the time."""
    from etude.cli import report_tables, status_watch
    from etude.cli.report import Run, gathered
    from etude.compiler.plan.plan_schema import PlanError, read_plan
    from etude.runtime.launchers import record
    from etude.runtime.reporting.story import story
    from etude.runtime.run_folder.progress import progress
    from etude.runtime.run_folder.store import Store

    try:
        plan = read_plan(folder / "plan.json")
    except PlanError as problem:
        raise RunError(problem.message, problem.help) from None
    store = Store(folder)
    found = progress(plan, store)
    status_watch.line(found, record.load(folder))
    assert all(text for _, text in status_watch.rows(found))
    for table in report_tables.tables(gathered(Run("run", plan, store))):
        assert all(table.cells())
    story(plan, store)


def _command(*words: str) -> None:
    """A command of etude that ends with an exit code, and not with a bug."""
    from etude.cli.main import main

    said = io.StringIO()
    os.environ["ETUDE_DEBUG"] = "1"  # a bug raises
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code: Any = main([*words])
        except SystemExit as end:
            code = end.code
    assert code in (0, 1, 3, 75), f"{words}: {code}: {said.getvalue()}"
    if code == 1:
        assert "error" in said.getvalue(), f"{words}: {said.getvalue() or 'nothing is said'}"


def _prepared(folder: Path) -> None:
    shutil.copytree(_made_prepared(), folder, dirs_exist_ok=True, symlinks=True)


@cache
def _made_prepared() -> Path:
    home = Path(tempfile.mkdtemp(prefix="fuzz-prepared-")) / "run"
    _continues(home)
    return home


def _continues(folder: Path) -> None:
    """A run of what needs no model: it finds what is there, or makes it again."""
    from run_folders import SPEC
    from specs import plan

    from etude.runtime.gang import execute

    execute(plan(SPEC), folder, folder.parent, lambda event: None, prepare=True)


def _checkpoint(folder: Path) -> None:
    shutil.copytree(_made_checkpoint(), folder, dirs_exist_ok=True)


@cache
def _made_checkpoint() -> Path:
    import torch
    from torch.distributed.checkpoint.state_dict_saver import save

    from etude.runtime.engine.checkpoints.checksums import Writer

    home = Path(tempfile.mkdtemp(prefix="fuzz-checkpoints-")) / "c"
    state = {"w": torch.arange(64.0), "more": {"steps": 7, "name": "x", "list": [1, None, True]}}
    save(state, storage_writer=Writer(home), no_dist=True)
    return home


def _loads_checkpoint(folder: Path) -> None:
    """The damage is found by its checksum; whoever makes them fit runs nothing."""
    import torch
    from torch.distributed.checkpoint.state_dict_loader import load

    from etude.runtime.engine.checkpoints.checksums import damage
    from etude.runtime.engine.checkpoints.lazy_reader import CheckpointReader, PlainPlanner
    from etude.runtime.engine.checkpoints.storage import model_tensors, reading
    from etude.runtime.run_folder.saved import SUMS, steps_saved

    steps_saved(folder.parent)
    names = [f.name for f in folder.iterdir() if f.name != SUMS]
    made = _made_checkpoint()
    same = all((made / name).read_bytes() == (folder / name).read_bytes() for name in names)
    assert same or damage(folder), "the damage is not found"
    damage(folder)
    state = {"w": torch.zeros(64), "more": {"steps": 0, "name": "", "list": []}}
    with reading(folder, "remove it"):
        model_tensors(folder)
        load(state, storage_reader=CheckpointReader(folder), planner=PlainPlanner(), no_dist=True)


@cache
def data() -> dict[str, Input]:
    """Files that a spec names."""
    found = _data()
    found["tokenizer"] = Input(_tokenizer, _loads_tokenizer)
    found["weights"] = Input(_weights, _checks_weights)
    return found


@cache
def runs() -> dict[str, Input]:
    """Files of runs."""
    return {
        "a finished run": Input(_run("reported"), _shown),
        "a run at work": Input(_run("begun"), _shown),
        "a finished run, read": Input(_run("reported"), _read),
        "a run at work, read": Input(_run("begun"), _read),
        "a run that goes on": Input(_prepared, _continues),
        "a checkpoint": Input(_checkpoint, _loads_checkpoint),
    }


KINDS = {"data": data, "runs": runs}


# One input after the other


def tried(which: str, seed: int, folder: Path) -> str:
    """What is wrong with how the input of a seed is read; "" where nothing is."""
    kinds = KINDS[which]()
    name = sorted(kinds)[seed % len(kinds)]
    chance = random.Random(f"{which} {seed}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    kinds[name].make(folder)
    files = sorted(f for f in folder.rglob("*") if f.is_file() and not f.is_symlink())
    about = name
    for path in chance.sample(files, min(len(files), chance.choice([1, 1, 1, 2]))):
        spoil(path, chance)
        about = f"{name}, {path.relative_to(folder)}"
    begin = time.process_time()
    try:
        kinds[name].read(folder)
    except RunError as problem:
        if not problem.message:
            return f"{about}: no message"
    except BaseException as problem:
        where = traceback.extract_tb(problem.__traceback__)
        place = "; ".join(f"{Path(f.filename).name}:{f.lineno}" for f in where[-3:])
        return f"{about}: {type(problem).__name__}: {str(problem)[:300]} ({place})"
    taken = time.process_time() - begin
    return f"{about}: took {taken:.1f} s" if taken > LIMIT else ""


def batch(which: str, first: int, count: int) -> tuple[list[str], float, int]:
    """Failures of so many seeds, the longest time of one, and the most memory in bytes."""
    failures, longest = [], 0.0
    with tempfile.TemporaryDirectory() as home:
        for seed in range(first, first + count):
            begin = time.process_time()
            if problem := tried(which, seed, Path(home, "input")):
                failures.append(f"{which} {seed}: {problem}")
            longest = max(longest, time.process_time() - begin)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if memory > MEMORY:
        failures.append(f"{which} {first} to {first + count}: {memory / 1e6:.0f} MB")
    return failures, longest, memory


def main(of_data: int, of_runs: int, processes: int, each: int = 250) -> int:
    """Tries so many inputs of both kinds, and prints the rows of a table; returns the exit code."""
    failed = 0
    for which, inputs in (("data", of_data), ("runs", of_runs)):
        begin = time.monotonic()
        failures: list[str] = []
        longest, memory = 0.0, 0
        with ProcessPoolExecutor(processes) as pool:
            firsts = range(0, inputs, each)
            counts = [min(each, inputs - first) for first in firsts]
            for found, time_of_one, most in pool.map(batch, repeat(which), firsts, counts):
                failures += found
                longest, memory = max(longest, time_of_one), max(memory, most)
                for failure in found:
                    print(failure, flush=True)
        failed += len(failures)
        print(
            f"| {which} | {len(KINDS[which]())} | {inputs:,} | {len(failures)} | "
            f"{time.monotonic() - begin:,.0f} | {longest:.2f} | {memory / 1e6:,.0f} |",
            flush=True,
        )
    return int(failed > 0)


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    sys.exit(main(*numbers, *(20_000, 5_000, 2)[len(numbers) :]))
