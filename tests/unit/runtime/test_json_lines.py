"""Files of JSON lines: whole lines, torn ones at the end, damaged ones before it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from etude.runtime.errors import RunError
from etude.runtime.run_folder import json_lines
from etude.runtime.run_folder.json_lines import Follower, Lines, read, whole_size


def append(path: Path, *records: dict[str, Any]) -> None:
    lines = Lines(path)
    for record in records:
        lines.append(record, durable=True)
    lines.close()


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    assert list(read(path)) == []
    append(path, {"a": 1}, {"b": "two\nlines"})
    append(path, {"c": [None]})
    assert list(read(path)) == [{"a": 1}, {"b": "two\nlines"}, {"c": [None]}]


@pytest.mark.parametrize("cut", [1, 3, 10])
def test_a_torn_last_line_is_left_out_and_the_next_one_takes_its_place(
    cut: int, tmp_path: Path
) -> None:
    path = tmp_path / "lines"
    append(path, {"a": 1}, {"b": "x" * 200_000})
    text = path.read_bytes()
    whole = cut == 1  # only the line feed is missing
    path.write_bytes(text[:-cut])
    before: list[dict[str, Any]] = [{"a": 1}, {"b": "x" * 200_000}] if whole else [{"a": 1}]
    assert list(read(path)) == before
    append(path, {"c": 3})
    assert list(read(path)) == [*before, {"c": 3}]


@pytest.mark.parametrize("rest", [b"\0" * 5000, b"\xff\xfe", b'{"job": "pre', b"{"])
def test_whatever_a_power_failure_leaves_at_the_end_is_no_line(rest: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append(path, {"a": 1})
    path.write_bytes(path.read_bytes() + rest)
    assert list(read(path)) == [{"a": 1}]
    append(path, {"b": 2})
    assert list(read(path)) == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize("line", [b'{"a": 1', b"hello", b"7", b"\xff", b"", b"\0\0"])
def test_a_torn_or_foreign_line_in_the_middle_is_one_message(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"b": 2}\n')
    with pytest.raises(RunError) as problem:
        list(read(path))
    assert problem.value.message == f"{path}:2 is not a line of JSON that etude wrote"
    assert f"sed -i.old 2d {path}" in problem.value.help


def test_the_advice_about_a_damaged_line_works(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'{"a": 1}\nhello\n{"b": 2}\n')
    with pytest.raises(RunError) as problem:
        list(read(path))
    command = problem.value.help.partition(": ")[2]
    assert os.system(command) == 0
    assert list(read(path)) == [{"a": 1}, {"b": 2}]
    assert path.with_name("lines.old").exists()


def test_a_disk_that_takes_half_a_line_has_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines"
    lines = Lines(path)
    lines.append({"a": 1}, durable=True)
    write = os.write
    monkeypatch.setattr(json_lines.os, "write", lambda file, text: write(file, text[:5]))
    with pytest.raises(OSError, match="No space left"):
        lines.append({"b": 2}, durable=True)
    monkeypatch.undo()
    assert path.read_bytes() == b'{"a": 1}\n'
    lines.append({"c": 3}, durable=True)
    assert list(read(path)) == [{"a": 1}, {"c": 3}]


def test_a_follower_gets_each_line_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    follower = Follower(path)
    assert list(follower.new()) == []
    append(path, {"a": 1})
    assert list(follower.new()) == [{"a": 1}]
    line = json.dumps({"b": 2}).encode() + b"\n"
    with path.open("ab", buffering=0) as file:
        file.write(line[:4])
        assert list(follower.new()) == []
        file.write(line[4:] + line)
    assert list(follower.new()) == [{"b": 2}, {"b": 2}]
    assert list(follower.new()) == []


def test_a_follower_from_the_end_sees_nothing_of_before(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append(path, {"a": 1})
    path.write_bytes(path.read_bytes() + b'{"torn')
    follower = Follower(path, whole_size(path))
    append(path, {"b": 2})
    assert list(follower.new()) == [{"b": 2}]
