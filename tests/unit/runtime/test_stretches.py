"""Stretches of a file of lines: every line is in exactly one of them, whatever their size."""

from functools import partial
from pathlib import Path

import pytest

from etude.runtime.data.reading import stretches
from etude.runtime.data.reading.streams import File
from etude.runtime.data.reading.stretches import Stretch, content, lines_before, together

CONTENT = b"\xef\xbb\xbffirst\n\n\nabc\n" + b"x" * 300 + b"\nnext\r\n\n\nlast without an end"


def file(path: Path, name: str = "a.jsonl", data: bytes = CONTENT) -> File:
    (path / name).write_bytes(data)
    return File(name, partial((path / name).open, "rb"), size=len(data))


@pytest.mark.parametrize("large", [1, 2, 3, 7, 50, 311, 1000])
@pytest.mark.parametrize("read", [1, 5, 1 << 20])
@pytest.mark.parametrize("data", [CONTENT, CONTENT + b"\n", b"\n", b"one line"])
def test_every_line_is_in_one_stretch(tmp_path, monkeypatch, large, read, data):
    monkeypatch.setattr(stretches, "LARGE", large)
    monkeypatch.setattr(stretches, "_READ", read)
    (cut,) = zip(*together([file(tmp_path, data=data)]), strict=True)
    found = [b"".join(content(each)) for each in cut]
    assert b"".join(found) == data
    assert all(each.endswith(b"\n") for each in list(filter(None, found))[:-1])
    lines = 0
    for each, got in zip(cut, found, strict=True):
        if got:
            assert lines_before(each) == lines
        lines += got.count(b"\n")


def test_what_cannot_be_cut_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(stretches, "LARGE", 10)
    for name in ("a.jsonl.gz", "a.jsonl.zst", "a.json", "a.csv", "a.txt", "a.arrow"):
        assert together([whole := file(tmp_path, name)]) == [(Stretch(whole),)]
    # A damaged table is reported by whoever reads it.
    assert together([whole := file(tmp_path, "a.parquet")]) == [(Stretch(whole),)]


def test_small_files_are_read_together_and_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(stretches, "SMALL", 100)
    sizes = [40, 40, 40, 10, 200, 10, 100, 10, 89, 2]
    files = [file(tmp_path, f"{n}.txt", b"x" * size) for n, size in enumerate(sizes)]
    found = [[each.file.size for each in unit] for unit in together(files)]
    assert found == [[40, 40], [40, 10], [200], [10], [100], [10, 89], [2]]
