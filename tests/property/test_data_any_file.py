"""Texts come out of files as they went in; any other bytes are refused with a clear message."""

import gzip
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etude.runtime.data.reading import formats, readers, streams
from etude.runtime.errors import DataError

texts = st.lists(st.text(min_size=1).filter(str.strip), max_size=20)


def read(folder: Path, **limits) -> list[str]:
    source = {"kind": "files", "files": ["*"], "text": "text"}
    return list(readers.read(source, root=folder, **limits))


@settings(max_examples=50, deadline=None)
@given(texts, st.sampled_from([".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"]), st.booleans())
def test_round_trip(written, suffix, ascii_only):
    with TemporaryDirectory() as temporary:
        path = Path(temporary, "a" + suffix)
        if suffix == ".parquet":
            pq.write_table(pa.table({"text": pa.array(written, pa.string())}), path)
        else:
            lines = [json.dumps({"text": text}, ensure_ascii=ascii_only) for text in written]
            data = "\n".join(lines).encode()
            pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
            path.write_bytes(pack[path.suffix](data) if path.suffix in pack else data)
        assert read(Path(temporary)) == written


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(formats.SUFFIXES))
@example(gzip.compress(b"x")[:-4] + b"\0\0\0\0", ".txt.gz")
@example(zstandard.ZstdCompressor().compress(b"x")[:4], ".jsonl.zst")
@example(b'[1, {}, {"text": 0}]', ".json")
@example(b"[", ".json.gz")
@example(b'"', ".csv")
@example(b"a\rb\n\xff\nx,y", ".csv")
@example(b"ARROW1", ".arrow")
@example(b"PAR1\0\0\0\0PAR1", ".parquet")
def test_any_bytes_are_read_or_refused(data, suffix):
    with TemporaryDirectory() as temporary:
        path = Path(temporary, "a" + suffix)
        path.write_bytes(b"text\n" + data if suffix in (".csv", ".tsv") else data)
        refused: list[str] = []
        try:
            read(path.parent)
        except DataError as error:
            # A missing column stops a run whatever is allowed.
            if error.message == f"a{suffix} has no column `text`; its columns: none":
                return
            refused.append(error.message)
        skipped: list[str] = []
        read(path.parent, bad_lines=1000, on_bad=skipped.append)
        assert refused == skipped[:1]
        assert all(message.startswith(f"a{suffix}:") for message in skipped)


@given(st.binary(), st.integers(1, 7))
def test_lines_do_not_depend_on_how_the_file_is_read(data, size):
    chunks = (data[i : i + size] for i in range(0, len(data), size))
    expected = data.split(b"\n")
    assert list(streams.lines(chunks)) == (expected if expected[-1] else expected[:-1])
