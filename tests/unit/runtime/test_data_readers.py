"""Documents come out of every kind of file in a fixed order; errors name their line."""

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from etude.runtime.data.reading import readers, streams
from etude.runtime.errors import DataError

TEXTS = ["one", "zwei\nlines", "三 🙂", "four\u2028separated\x85here"]


def json_lines(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def parquet(path: Path, values: list, column: str = "text") -> None:
    pq.write_table(pa.table({column: values}), path, row_group_size=2)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def read(root: Path, *patterns: str, text: str = "text", **limits) -> list[str]:
    source = {"kind": "files", "files": list(patterns), "text": text}
    return list(readers.read(source, root=root, **limits))


def failure(root: Path, *patterns: str, **limits) -> DataError:
    with pytest.raises(DataError) as caught:
        read(root, *patterns, **limits)
    assert caught.value.help
    return caught.value


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.JSONL"])
def test_json_lines(tmp_path, name):
    (tmp_path / name).write_bytes(json_lines(*TEXTS))
    assert read(tmp_path, name) == TEXTS


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zst", zstd)])
def test_compressed_files_of_several_members(tmp_path, suffix, pack):
    data = pack(json_lines(*TEXTS[:2])) + pack(json_lines(*TEXTS[2:]))
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(data)
    (tmp_path / f"b.txt.{suffix}").write_bytes(pack(b"plain"))
    assert read(tmp_path, f"*.{suffix}") == [*TEXTS, "plain"]


def test_parquet(tmp_path):
    parquet(tmp_path / "a.parquet", TEXTS)
    assert read(tmp_path, "a.parquet") == TEXTS


def test_a_text_file_is_one_document(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\r\ntwo\n".encode("utf-8-sig"))
    assert read(tmp_path, "a.txt") == ["one\r\ntwo\n"]


def test_the_last_line_needs_no_line_feed_and_white_lines_are_no_documents(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\n  \n{"text": "b"}')
    assert read(tmp_path, "a.jsonl") == ["a", "b"]


def test_another_field(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "no", "body": "yes"}\n')
    parquet(tmp_path / "b.parquet", ["also"], column="body")
    assert read(tmp_path, "*", text="body") == ["yes", "also"]


def test_files_come_once_each_ordered_by_name_whatever_the_patterns(tmp_path):
    for name in ["b/2.txt", "a/3.txt", "a/1.txt", "c.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    everything = ["a/1.txt", "a/3.txt", "b/2.txt", "c.txt"]
    assert read(tmp_path, "**/*.txt") == everything
    assert read(tmp_path, "c.txt", "./b/*.txt", str(tmp_path / "a" / "*"), "**/*") == everything


def test_a_file_name_may_look_like_a_pattern(tmp_path):
    (tmp_path / "data[1].txt").write_text("found")
    assert read(tmp_path, "data[1].txt") == ["found"]


def test_fsspec_urls(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(json_lines("a"))
    (tmp_path / "b.jsonl").write_bytes(json_lines("b"))
    parquet(tmp_path / "c.parquet", ["c"])
    (tmp_path / "local.txt").write_text("local")
    urls = [f"file://{tmp_path}/*.jsonl", f"file://{tmp_path}/c.parquet"]
    assert read(tmp_path, *urls, "local.txt") == ["local", "a", "b", "c"]


BAD_LINES = {
    b'{"text": ': "not valid JSON",
    b'{"text": "begun': "not valid JSON: Unterminated string starting at character 10",
    b'{"text": "a\xff"}': "not valid UTF-8",
    b'["a"]': "not a JSON object",
    b'{"body": "a"}': "no field `text`; the fields are body",
    b'{"text": 3}': "a number, not a text",
    b'{"text": null}': "null, not a text",
    b'{"text": ["a"]}': "a list, not a text",
    b'{"text": ""}': "is empty",
    b'{"text": " \\n"}': "is empty",
    b'{"text": "\\ud800"}': "lone surrogate",
    b"[" * 100_000: "not usable JSON",
    b'{"text": ' + b"9" * 10_000 + b"}": "not usable JSON",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=list(BAD_LINES.values()))
def test_a_bad_line_is_named_and_may_be_skipped(tmp_path, line):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jsonl").write_bytes(
        json_lines("one") + b"\n" + line + b"\n" + json_lines("two")
    )
    error = failure(tmp_path, "sub/*.jsonl")
    assert error.message.startswith("sub/a.jsonl:3: ")
    assert BAD_LINES[line] in error.message
    assert "bad_lines = 1" in error.help

    skipped: list[str] = []
    assert read(tmp_path, "sub/*", bad_lines=1, on_bad=skipped.append) == ["one", "two"]
    assert skipped == [error.message]


def test_one_bad_line_too_many(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"bad\n" + json_lines("one") + b"bad\n")
    (tmp_path / "b.jsonl").write_bytes(json_lines("two") + b"bad\n")
    skipped: list[str] = []
    assert read(tmp_path, "*", bad_lines=3, on_bad=skipped.append) == ["one", "two"]
    assert [message.split(": ")[0] for message in skipped] == [
        "a.jsonl:1",
        "a.jsonl:3",
        "b.jsonl:2",
    ]

    skipped.clear()
    error = failure(tmp_path, "*", bad_lines=2, on_bad=skipped.append)
    assert len(skipped) == 2
    assert error.message.startswith("b.jsonl:2: not valid JSON")
    assert "bad line 3; the dataset allows 2 bad lines" in error.message


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zst", zstd)])
def test_a_damaged_stream_is_one_bad_line_and_what_comes_before_is_used(tmp_path, suffix, pack):
    whole = pack(json_lines("one", "two"))
    cut = whole + pack(json_lines(*map(str, range(1000))))[:-20]
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(cut)
    (tmp_path / f"b.jsonl.{suffix}").write_bytes(pack(json_lines("after")))
    error = failure(tmp_path, "*")
    place, reason = error.message.split(": ", 1)
    assert int(place.removeprefix(f"a.jsonl.{suffix}:")) >= 3
    assert reason.startswith("damaged")

    texts = read(tmp_path, "*", bad_lines=1)
    assert (texts[:2], texts[-1]) == (["one", "two"], "after")
    assert texts[2:-1] == list(map(str, range(len(texts) - 3)))


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zst", zstd)])
@pytest.mark.parametrize("kind", ["jsonl", "json", "txt", "csv"])
def test_a_file_that_unpacks_to_fill_the_memory_is_one_bad_line(
    suffix, pack, kind, tmp_path, monkeypatch
):
    monkeypatch.setattr(streams, "LONGEST", 1 << 20)
    begin = b"[" if kind == "json" else b""
    (tmp_path / f"a.{kind}.{suffix}").write_bytes(pack(begin + b" " * (8 << 20)))
    said = failure(tmp_path, "*").message
    assert "it unpacks to more than 500 times its size" in said or "a line has more than" in said


def test_a_line_without_an_end_is_one_bad_line(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "LONGEST", 1000)
    (tmp_path / "a.jsonl").write_bytes(json_lines("one") + b'{"text": "' + b"x" * (4 << 20))
    assert "a line has more than" in failure(tmp_path, "*").message
    assert read(tmp_path, "*", bad_lines=1) == ["one"]


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, '{"text": ' + "1" * 5000 + "}"])
def test_json_that_is_nested_or_long_beyond_reason_is_one_bad_line(text, tmp_path):
    (tmp_path / "a.jsonl").write_text(text + "\n" + '{"text": "one"}\n')
    assert failure(tmp_path, "*").message.startswith("a.jsonl:1: not")
    assert read(tmp_path, "*", bad_lines=1) == ["one"]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.txt.gz", "a.parquet"])
def test_a_file_that_is_not_what_its_name_says(tmp_path, name):
    (tmp_path / name).write_bytes(json_lines("one"))
    assert failure(tmp_path, name).message.startswith(f"{name}:1: damaged")
    assert read(tmp_path, name, bad_lines=1) == []


def test_bad_text_files(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\nthr\xffee\n")
    (tmp_path / "b.txt").write_bytes(b"")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"one\n" * 1000)[:-9])
    (tmp_path / "d.txt").write_bytes(b"good")
    skipped: list[str] = []
    assert read(tmp_path, "*", bad_lines=3, on_bad=skipped.append) == ["good"]
    assert skipped[0].startswith("a.txt:3: not valid UTF-8")
    assert skipped[1] == "b.txt:1: the file is empty"
    assert skipped[2].startswith("c.txt.gz:")


def test_bad_parquet_rows(tmp_path):
    parquet(tmp_path / "a.parquet", ["one", None, "", "two"])
    skipped: list[str] = []
    assert read(tmp_path, "*", bad_lines=2, on_bad=skipped.append) == ["one", "two"]
    assert skipped == [
        "a.parquet:2: the field `text` has null, not a text",
        "a.parquet:3: the text in `text` is empty",
    ]


def test_a_parquet_page_that_is_damaged(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"document {i}" for i in range(3000)]})
    pq.write_table(table, path, row_group_size=1000, use_dictionary=False, compression="gzip")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    path.write_bytes(data)
    assert "damaged Parquet file" in failure(tmp_path, "*").message
    texts = read(tmp_path, "*", bad_lines=1)
    assert texts == [f"document {i}" for i in range(len(texts))]
    assert 700 < len(texts) < 3000


def test_a_missing_column_is_an_error_whatever_is_allowed(tmp_path):
    parquet(tmp_path / "a.parquet", ["one"], column="body")
    error = failure(tmp_path, "*", bad_lines=100)
    assert error.message == "a.parquet has no column `text`; its columns: body"


def test_patterns_that_name_no_documents(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.xls").write_text("x")
    (tmp_path / "link.txt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.txt")
    assert "no file matches `corpus/*.jsonl`" in failure(tmp_path, "corpus/*.jsonl").message
    assert "no file matches `f*`" in failure(tmp_path, "f*").message
    assert "folder is a folder" in failure(tmp_path, "folder").message
    assert (
        "a.xls, which `*.xls` matches, has an unknown format" in failure(tmp_path, "*.xls").message
    )
    assert "link.txt cannot be read: No such file" in failure(tmp_path, "link.txt").message
    assert "is not a regular file" in failure(tmp_path, "pipe.txt").message
    assert "there is no file" in failure(tmp_path, "a\0b").message
    assert "no file matches" in failure(tmp_path, "a\0*/**/b").message
    assert "cannot be read" in failure(tmp_path, "nosuch://bucket/a.jsonl").message
    assert "no file matches" in failure(tmp_path, f"file://{tmp_path}/*.jsonl").message
    assert "cannot be read" in failure(tmp_path, f"file://{tmp_path}/gone.jsonl").message


def test_a_file_that_vanishes_or_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_bytes(json_lines("one"))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    error = failure(tmp_path, "a.jsonl", bad_lines=9)
    assert error.message == "a.jsonl cannot be read: Permission denied"


def test_a_hub_data_set_in_a_local_folder(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "train.jsonl").write_bytes(json_lines("a", "", "b"))
    saved = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"body": ["c", "d"]})})
    saved.save_to_disk(str(tmp_path / "saved"))

    skipped: list[str] = []
    raw = {"kind": "hub", "repo": "raw", "config": None, "split": "train"}
    assert list(readers.read(raw, root=tmp_path, bad_lines=1, on_bad=skipped.append)) == ["a", "b"]
    assert skipped == ["raw[train]:2: the text in `text` is empty"]
    saved_source = {"kind": "hub", "repo": "saved", "split": "train", "text": "body"}
    assert list(readers.read(saved_source, root=tmp_path)) == ["c", "d"]
    for wrong, reason in [
        (saved_source | {"text": "text"}, "no column `text`; its columns: body"),
        (saved_source | {"split": "dev"}, "no split `dev`; its splits are train"),
        (raw | {"split": "dev"}, "cannot be loaded"),
    ]:
        with pytest.raises(DataError, match=reason):
            list(readers.read(wrong, root=tmp_path))


def test_a_hub_data_set_without_a_network(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")

    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError, match="org/name is not on this machine") as caught:
        list(readers.read({"kind": "hub", "repo": "org/name"}, root=tmp_path))
    assert "org/name" in caught.value.help


def test_a_sample(tmp_path):
    source = {"kind": "sample", "sample": "arithmetic", "documents": 3, "seed": 1}
    assert len(list(readers.read(source, root=tmp_path))) == 3


@pytest.mark.parametrize(
    ("row", "proposed"),
    [
        ({"id": "7", "body": "one two"}, 'fields = { text = "body" }'),
        ({"messages": [{"role": "user", "content": "a"}]}, "kind = dialogs"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "kind = preferences"),
        ({"id": 7}, "fix or remove it"),
    ],
)
def test_the_message_for_a_missing_field_says_what_to_write(row, proposed, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    assert proposed in failure(tmp_path, "*").help
