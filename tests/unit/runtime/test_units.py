"""Tokenized in parts, in any order, stopped or killed: the shards are the same bytes."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etude.cli.main import main
from etude.runtime import stopping
from etude.runtime.data.reading import stretches
from etude.runtime.data.tokens.shards import SPLITS, Shards
from etude.runtime.preparation import text_units, units
from etude.runtime.run_folder import store

SPEC = """recipe parts { seed = 3 }
tokenizer bytes { bytes }
dataset web {
  files = "web/*.jsonl", holdout = 10%, bad_lines = 3, fim = { rate = 50%, order = both }
}
dataset one { files = "one.jsonl" }
model tiny { layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 320 }
stage pretrain: train {
  model = tiny, steps = 10, seq_len = 16, batch = 4 seqs, lr = 1e-3, data = { web 50%, one 50% }
}
"""


@pytest.fixture(autouse=True)
def _small_files_are_units(monkeypatch):
    monkeypatch.setattr(stretches, "SMALL", 0)


def corpus(folder: Path, *, files: int = 7, size: int = 40) -> Path:
    """A spec with a data set of files, two bad lines among them, and one of a single file."""
    (folder / "web").mkdir(parents=True)
    for number in range(files):
        lines = [json.dumps({"text": f"{number} {i} " + "word " * (i % 9)}) for i in range(size)]
        if number in (1, 4):
            lines[5] = "no JSON"
        (folder / "web" / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "one.jsonl").write_text('{"text": "a single file"}\n' * 20)
    (folder / "spec.etude").write_text(SPEC)
    return folder / "spec.etude"


def prepare(spec: Path, folder: str, *part: str) -> None:
    given = ["--part", *part] if part else []
    assert main(["prepare", str(spec), "--folder", str(spec.parent / folder), *given]) == 0


def shards(spec: Path, folder: str) -> dict[str, bytes]:
    """The files of all artifacts but what tells when and where they were made."""
    artifacts = spec.parent / folder / "artifacts"
    found = {
        str(path.relative_to(artifacts)): path.read_bytes()
        for path in sorted(artifacts.rglob("*"))
        if path.is_file()
    }
    assert sum(path.endswith("shards.json") for path in found) == 2
    return found


def test_parts_in_any_order_give_the_same_bytes(tmp_path):
    spec = corpus(tmp_path)
    prepare(spec, "whole")
    for parts in (["1 of 2", "2 of 2"], ["3 of 3", "1 of 3", "2 of 3"], ["2 of 2"], ["9 of 9"]):
        folder = "-".join(parts).replace(" ", "")
        for part in parts:
            prepare(spec, folder, *part.split())
        prepare(spec, folder)
        assert shards(spec, folder) == shards(spec, "whole")
        assert not list((tmp_path / folder / "work").iterdir())


def documents(spec: Path, folder: str) -> list[list[list[int]]]:
    """The documents of both splits of the data set of many files, as tokens."""
    (artifact,) = (
        path.parent
        for path in (spec.parent / folder / "artifacts").glob("*/shards.json")
        if json.loads(path.read_text())["name"] == "web"
    )
    splits = [Shards(artifact, split) for split in SPLITS]
    return [[each.document(i).tolist() for i in range(each.documents)] for each in splits]


def test_the_documents_are_those_of_all_files_in_one_stream(tmp_path, monkeypatch):
    spec = corpus(tmp_path)
    prepare(spec, "units")
    monkeypatch.setattr(text_units, "texts_of", lambda job, tokenizer, root: None)
    prepare(spec, "stream")
    assert len(documents(spec, "units")[1]) > 10
    assert documents(spec, "units") == documents(spec, "stream")


@pytest.mark.parametrize("large", [500, 37])
def test_stretches_of_large_files_are_units_too(tmp_path, monkeypatch, large):
    spec = corpus(tmp_path, files=2, size=40 if large > 100 else 6)
    prepare(spec, "whole")
    monkeypatch.setattr(stretches, "LARGE", large)
    for parts in (["1 of 1"], ["2 of 3", "3 of 3", "1 of 3"]):
        folder = f"{large}-{len(parts)}"
        for part in parts:
            prepare(spec, folder, *part.split())
        assert len(list(tmp_path.glob(f"{folder}/work/*/units/*"))) > 6
        prepare(spec, folder)
        assert documents(spec, folder) == documents(spec, "whole")
    assert shards(spec, f"{large}-1") == shards(spec, f"{large}-3")


def test_a_bad_line_of_a_stretch_has_its_number_in_the_file(tmp_path, monkeypatch, capsys):
    spec = corpus(tmp_path, files=2, size=10)
    monkeypatch.setattr(stretches, "LARGE", 40)
    prepare(spec, "run")
    assert "web/1.jsonl:6: not valid JSON" in " ".join(capsys.readouterr().out.split())
    spec.write_text(SPEC.replace("bad_lines = 3", "bad_lines = 0"))
    assert main(["prepare", str(spec), "--folder", str(tmp_path / "other")]) == 1
    assert "web/1.jsonl:6: not valid JSON" in " ".join(capsys.readouterr().err.split())


def test_groups_of_rows_of_a_large_table_are_units(tmp_path, monkeypatch):
    spec = corpus(tmp_path)
    for path in (tmp_path / "web").iterdir():
        path.unlink()
    texts = [f"row {number} " + "word " * (number % 7) for number in range(500)]
    texts[333] = ""
    pq.write_table(pa.table({"text": texts}), tmp_path / "web" / "a.parquet", row_group_size=40)
    spec.write_text(spec.read_text().replace("web/*.jsonl", "web/a.parquet"))
    prepare(spec, "whole")
    monkeypatch.setattr(stretches, "LARGE", 700)
    for part in ("2", "1"):
        prepare(spec, "run", part, "of", "2")
    found = [json.loads(path.read_text()) for path in tmp_path.glob("run/work/*/units/*/unit.json")]
    assert len(found) > 3
    assert [message for unit in found for message in unit["bad_lines"]] == [
        "web/a.parquet:334: the text in `text` is empty"
    ]
    prepare(spec, "run")
    assert documents(spec, "run") == documents(spec, "whole")


def test_small_files_are_one_unit_together(tmp_path, monkeypatch):
    spec = corpus(tmp_path)
    prepare(spec, "whole")
    monkeypatch.setattr(stretches, "SMALL", 5000)
    prepare(spec, "run", "1", "of", "2")
    (web,) = {path.parent for path in tmp_path.glob("run/work/*/units/*")}
    prepare(spec, "run", "2", "of", "2")
    assert 1 < len(list(web.iterdir())) < 7
    prepare(spec, "run")
    assert documents(spec, "run") == documents(spec, "whole")


def test_checksums_of_tokens_are_those_that_parts_have_made(tmp_path, monkeypatch):
    spec = corpus(tmp_path)
    prepare(spec, "run", "1", "of", "1")
    hashed: list[str] = []
    plain = store._sum
    monkeypatch.setattr(store, "_sum", lambda path: (hashed.append(path.name), plain(path))[1])
    prepare(spec, "run")
    assert not [name for name in hashed if name.startswith("tokens-")]
    for manifest in tmp_path.glob("run/artifacts/*/manifest.json"):
        for name, of in json.loads(manifest.read_text())["files"].items():
            assert of["sha256"] == sha256((manifest.parent / name).read_bytes()).hexdigest()


def test_without_links_tokens_are_copied(tmp_path, monkeypatch):
    spec = corpus(tmp_path)
    prepare(spec, "whole")

    def no_link(*names: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_link)
    prepare(spec, "run")
    assert shards(spec, "run") == shards(spec, "whole")


def test_processes_give_the_same_bytes(tmp_path, monkeypatch):
    spec = corpus(tmp_path)
    prepare(spec, "whole")
    monkeypatch.setattr(units, "_MUCH", 0)
    monkeypatch.setattr(units, "processors", lambda: 3)
    prepare(spec, "processes")
    assert shards(spec, "processes") == shards(spec, "whole")


def test_an_error_in_a_process_is_told_as_it_is(tmp_path, monkeypatch, capsys):
    spec = corpus(tmp_path)
    spec.write_text(SPEC.replace("bad_lines = 3", "bad_lines = 0"))
    monkeypatch.setattr(units, "_MUCH", 0)
    monkeypatch.setattr(units, "processors", lambda: 2)
    assert main(["prepare", str(spec), "--folder", str(tmp_path / "run")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "web/1.jsonl:6: not valid JSON" in said or "web/4.jsonl:6: not valid JSON" in said
    assert "Traceback" not in said


def test_a_part_tokenizes_its_own_files_once(tmp_path, monkeypatch):
    spec = corpus(tmp_path)
    made: list[int] = []
    plain = units._make

    def make(task: Any, folder: Path, number: int, *more: Any) -> Any:
        made.append(number)
        return plain(task, folder, number, *more)

    monkeypatch.setattr(units, "_make", make)
    prepare(spec, "run", "2", "of", "3")
    prepare(spec, "run", "2", "of", "3")
    assert made == [1, 4]
    prepare(spec, "run")
    assert made == [1, 4, 0, 2, 3, 5, 6]


def test_a_unit_that_was_cut_off_is_made_again(tmp_path):
    spec = corpus(tmp_path)
    prepare(spec, "whole")
    prepare(spec, "run", "1", "of", "1")
    (tokens,) = tmp_path.glob("run/work/*/units/000003/tokens")
    tokens.write_bytes(tokens.read_bytes()[:-1])
    prepare(spec, "run")
    assert shards(spec, "run") == shards(spec, "whole")


def test_a_stop_keeps_the_files_that_are_done(tmp_path, monkeypatch):
    spec = corpus(tmp_path)
    prepare(spec, "whole")
    plain = units._make
    asked: Callable[[], int] = stopping.asked

    def make(task: Any, folder: Path, number: int, *more: Any) -> Any:
        if number == 3:
            signal.raise_signal(signal.SIGTERM)
            assert asked()
        return plain(task, folder, number, *more)

    with monkeypatch.context() as patched:
        patched.setattr(units, "_make", make)
        folder = tmp_path / "run"
        assert main(["prepare", str(spec), "--folder", str(folder)]) == 75
    done = sorted(path.parent.name for path in folder.glob("work/*/units/*/unit.json"))
    assert done == ["000000", "000001", "000002"]
    prepare(spec, "run")
    assert shards(spec, "run") == shards(spec, "whole")


def test_killed_in_the_middle_it_continues(tmp_path):
    spec = corpus(tmp_path, files=60, size=300)
    given = ["prepare", str(spec), "--folder", str(tmp_path / "run"), "--part", "1", "of", "2"]
    small = (
        "from etude.cli.main import main; from etude.runtime.data.reading import stretches; "
        f"stretches.SMALL = 0; main({given!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", small], stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob("run/work/*/units/*/unit.json")):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert list(tmp_path.glob("run/work/*/units/*/unit.json"))
    for part in ("1", "2"):
        prepare(spec, "run", part, "of", "2")
    prepare(spec, "run")
    prepare(spec, "whole")
    assert shards(spec, "run") == shards(spec, "whole")


def test_bad_lines_are_counted_over_all_files(tmp_path, capsys):
    spec = corpus(tmp_path)
    spec.write_text(SPEC.replace("bad_lines = 3", "bad_lines = 1"))
    assert main(["prepare", str(spec), "--folder", str(tmp_path / "run")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "web/4.jsonl:6: not valid JSON" in said
    assert "bad line 2; the dataset allows 1 bad line" in said


@pytest.mark.parametrize("part", ["0 of 2", "3 of 2", "1 from 2", "1 of x", "-1 of 2"])
def test_parts_that_do_not_exist(tmp_path, capsys, part):
    spec = corpus(tmp_path)
    try:
        code = main(["prepare", str(spec), "--part", *part.split()])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert "--part" in capsys.readouterr().err


@pytest.mark.exhaustive
def test_two_hundred_million_tokens_by_one_and_by_two_parts(tmp_path):
    spec = corpus(tmp_path, files=20, size=130_000)
    for number in range(20):
        path = tmp_path / "web" / f"{number}.jsonl"
        path.write_text(path.read_text().replace("word ", "words and more "))
    prepare(spec, "whole")
    for part in ("2", "1"):
        prepare(spec, "run", part, "of", "2")
    prepare(spec, "run")
    made = shards(spec, "whole")
    assert sum(len(content) for content in made.values()) > 2 * 150_000_000
    assert shards(spec, "run") == made
