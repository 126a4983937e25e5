"""Tokenized in parts, in any order, stopped or killed: the shards are the same bytes."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.cli.main import main
from etude.runtime import stopping
from etude.runtime.preparation import units

SPEC = """recipe parts { seed = 3 }
tokenizer bytes { bytes }
dataset web { files = "web/*.jsonl", holdout = 10%, bad_lines = 3 }
dataset one { files = "one.jsonl" }
model tiny { layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 320 }
stage pretrain: train {
  model = tiny, steps = 10, seq_len = 16, batch = 4 seqs, lr = 1e-3, data = { web 50%, one 50% }
}
"""


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


def test_the_shards_are_those_of_all_documents_in_one_stream(tmp_path, monkeypatch):
    spec = corpus(tmp_path)
    prepare(spec, "units")
    monkeypatch.setattr(units, "files_of", lambda source, root: [])
    prepare(spec, "stream")
    assert shards(spec, "units") == shards(spec, "stream")


def test_processes_give_the_same_bytes(tmp_path, monkeypatch):
    spec = corpus(tmp_path)
    prepare(spec, "whole")
    monkeypatch.setattr(units, "_MUCH", 0)
    monkeypatch.setattr(units, "_cores", lambda: 3)
    prepare(spec, "processes")
    assert shards(spec, "processes") == shards(spec, "whole")


def test_an_error_in_a_process_is_told_as_it_is(tmp_path, monkeypatch, capsys):
    spec = corpus(tmp_path)
    spec.write_text(SPEC.replace("bad_lines = 3", "bad_lines = 0"))
    monkeypatch.setattr(units, "_MUCH", 0)
    monkeypatch.setattr(units, "_cores", lambda: 2)
    assert main(["prepare", str(spec), "--folder", str(tmp_path / "run")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "web/1.jsonl:6: not valid JSON" in said or "web/4.jsonl:6: not valid JSON" in said
    assert "Traceback" not in said


def test_a_part_tokenizes_its_own_files_once(tmp_path, monkeypatch):
    spec = corpus(tmp_path)
    made: list[int] = []
    plain = units._make

    def make(task: Any, number: int, *more: Any) -> Any:
        made.append(number)
        return plain(task, number, *more)

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

    def make(task: Any, number: int, *more: Any) -> Any:
        if number == 3:
            signal.raise_signal(signal.SIGTERM)
            assert asked()
        return plain(task, number, *more)

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
    command = [str(Path(sys.executable).with_name("etude")), "prepare", str(spec)]
    command += ["--folder", str(tmp_path / "run"), "--part", "1", "of", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list(tmp_path.glob("run/work/*/units/*/unit.json")) and time.monotonic() < end:
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
