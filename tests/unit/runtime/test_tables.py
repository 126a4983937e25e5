"""The same records are the same tokens, whatever they are kept in."""

import csv
import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preparing import job, make, tokenized
from test_dialog import say

from etude.runtime.data.reading import readers
from etude.runtime.data.reading.tables import records
from etude.runtime.data.records.shards import Records
from etude.runtime.errors import DataError


def tool(name: str, properties: dict) -> dict:
    function = {"name": name, "description": f"{name} of it"}
    return {
        "type": "function",
        "function": {**function, "parameters": {"type": "object", "properties": properties}},
    }


WEATHER = tool("weather", {"city": {"type": "string"}})
ADD = tool("add", {"a": {"type": "integer"}, "b": {"type": "integer"}})


def dialog(number: int) -> dict:
    """Every other one calls another tool, with other arguments, and has other tools."""
    odd = number % 2
    call = (
        {"name": "add", "arguments": {"a": number, "b": 1}}
        if odd
        else {"name": "weather", "arguments": {"city": "Oslo"}}
    )
    called = {"role": "assistant", "content": "", "tool_calls": [{"function": call}]}
    answered = [{"role": "tool", "content": "42"}, *say(f"assistant: Answer {number}")]
    return {
        "messages": [*say(f"user: Question {number}"), called, *answered],
        "tools": [ADD] if odd else [WEATHER, ADD],
    }


DIALOGS = [dialog(number) for number in range(8)]


def as_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_array(path, rows):
    path.write_text(json.dumps(rows, indent=1))


def as_gzip(path, rows):
    path.write_bytes(gzip.compress(json.dumps(rows).encode()))


def as_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


def as_arrow_file(path, rows):
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def as_arrow_stream(path, rows):
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


FORMATS = {
    "lines.jsonl": as_lines,
    "lines.json": as_lines,
    "array.json": as_array,
    "array.json.gz": as_gzip,
    "table.parquet": as_parquet,
    "file.arrow": as_arrow_file,
    "stream.arrow": as_arrow_stream,
}


@pytest.fixture
def inputs(tmp_path):
    return tokenized(tmp_path)


def tokens(inputs, root, source, form="dialogs", **settings) -> list[list[int]]:
    result, _ = make(job(form, source=source, **settings), inputs, root)
    made = Records(result, "train")
    return [made.record(number).tokens.tolist() for number in range(made.count)]


@pytest.fixture
def expected(inputs, tmp_path):
    as_lines(tmp_path / "expected.jsonl", DIALOGS)
    found = tokens(inputs, tmp_path, {"kind": "files", "files": ["expected.jsonl"]})
    text = bytes(token for token in found[0] if token < 256).decode()
    assert '"arguments"' not in text
    assert "null" not in text
    assert '{"name": "weather", "parameters": {"city": "Oslo"}}' in text
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_files_of_every_format_give_the_same_tokens(name, expected, inputs, tmp_path):
    FORMATS[name](tmp_path / name, DIALOGS)
    assert tokens(inputs, tmp_path, {"kind": "files", "files": [name]}) == expected


@pytest.mark.parametrize("way", ["saved", "parquet", "json", "dict"])
def test_data_sets_of_the_hub_give_the_same_tokens(way, expected, inputs, tmp_path):
    import datasets

    folder = tmp_path / "hub"
    folder.mkdir()
    if way == "saved":
        datasets.Dataset.from_list(DIALOGS).save_to_disk(str(folder))
    elif way == "dict":
        both = datasets.DatasetDict({"train": datasets.Dataset.from_list(DIALOGS)})
        both.save_to_disk(str(folder))
    elif way == "parquet":
        datasets.Dataset.from_list(DIALOGS).to_parquet(str(folder / "train.parquet"))
    else:
        as_lines(folder / "train.jsonl", DIALOGS)
    assert tokens(inputs, tmp_path, {"kind": "hub", "repo": "hub"}) == expected


def test_preferences_of_every_format_give_the_same_tokens(inputs, tmp_path):
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}
    ask = say("user: q")
    pairs = [
        {
            "prompt": ask,
            "chosen": [call],
            "rejected": say("assistant: no"),
            "edited": None,
            "tools": [WEATHER],
        },
        {
            "prompt": ask,
            "chosen": say("assistant: a"),
            "rejected": say("assistant: b"),
            "edited": say("assistant: c"),
            "tools": None,
        },
    ]
    found = []
    for name, write in FORMATS.items():
        write(tmp_path / name, pairs)
        source = {"kind": "files", "files": [name]}
        found.append(tokens(inputs, tmp_path, source, "preferences"))
    assert all(each == found[0] for each in found)
    assert len(found[0]) == 2


def test_values_of_separated_files_are_texts_and_lists_of_messages_in_json(inputs, tmp_path):
    rows = [{"prompt": 'a, "b"\nc', "completion": " d"}, {"prompt": "é", "completion": "f"}]
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with (tmp_path / name).open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, ["prompt", "completion"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    as_lines(tmp_path / "a.jsonl", rows)
    found = [
        tokens(inputs, tmp_path, {"kind": "files", "files": [name]})
        for name in ("a.csv", "a.tsv", "a.jsonl")
    ]
    assert found[0] == found[1] == found[2]


def test_bad_rows_of_separated_files_have_their_line(inputs, tmp_path):
    (tmp_path / "a.csv").write_bytes(b'prompt,completion\na,b\na,b,c\n\n"x\ny",z\nonly\n\xff,b\n')
    source = {"kind": "files", "files": ["a.csv"]}
    result, events = make(job(source=source, bad_lines=3), inputs, tmp_path)
    assert [event["message"] for event in events if event["event"] == "bad_line"] == [
        "a.csv:3: 3 values for 2 columns",
        "a.csv:7: 1 value for 2 columns",
        "a.csv:8: the text in `prompt` is not valid Unicode: a lone surrogate",
    ]
    assert Records(result, "train").count == 2


def test_an_array_of_json_is_read_whole_or_is_one_bad_line(tmp_path):
    source = {"kind": "files", "files": ["a.json"]}
    (tmp_path / "a.json").write_text(' \n [{"text": "a"},\n {"text": "b"}]')
    assert list(readers.read(source, root=tmp_path)) == ["a", "b"]
    (tmp_path / "a.json").write_text('[{"text": "a"},\n {"text": "b"')
    with pytest.raises(DataError, match=r"a.json:1: not valid JSON: .* at line 2, character 14"):
        list(readers.read(source, root=tmp_path))
    (tmp_path / "a.json").write_text('[{"text": "a"}, 7]')
    with pytest.raises(DataError, match=r"a.json:2: not a JSON object"):
        list(readers.read(source, root=tmp_path))
    (tmp_path / "a.json").write_text('{\n "data": [{"text": "a"}]\n}')
    with pytest.raises(
        DataError, match=r"a.json:1: .*has an array of objects, or one object per l"
    ):
        list(readers.read(source, root=tmp_path))


def test_a_null_that_the_record_has_itself_stays_where_it_can_be_told():
    """In lists, maps and columns of JSON; not in objects, where a table has nulls of its own."""
    struct = pa.struct({"a": pa.int64(), "b": pa.struct({"c": pa.string()})})
    mapped = pa.map_(pa.string(), pa.int64())
    columns = {
        "struct": pa.array([{"a": None, "b": {"c": None}}, {"a": 1, "b": None}], struct),
        "listed": pa.array([[{"a": 1}, None], None], pa.list_(struct)),
        "map": pa.array([[("x", None), ("y", 2)], []], mapped),
        "json": pa.array(['{"a": null}', None], pa.json_()),
        "plain": pa.array([None, "x"]),
        "fixed": pa.array([[1, None], [2, 3]], pa.list_(pa.int64(), 2)),
    }
    assert list(records(pa.table(columns))) == [
        {
            "struct": {"b": {}},
            "listed": [{"a": 1}, None],
            "map": {"x": None, "y": 2},
            "json": {"a": None},
            "plain": None,
            "fixed": [1, None],
        },
        {
            "struct": {"a": 1},
            "listed": None,
            "map": {},
            "json": None,
            "plain": "x",
            "fixed": [2, 3],
        },
    ]


def test_a_null_written_in_json_is_an_argument(inputs, tmp_path):
    call = {"name": "f", "arguments": {"a": None}}
    row = {"messages": [*say("user: q"), {"role": "assistant", "tool_calls": [call]}]}
    as_lines(tmp_path / "d.jsonl", [row])
    (found,) = tokens(inputs, tmp_path, {"kind": "files", "files": ["d.jsonl"]})
    text = bytes(token for token in found if token < 256).decode()
    assert '{"name": "f", "parameters": {"a": null}}' in text


@pytest.mark.parametrize("ends", [[0, 9, 3], [0, -5, 2]])
def test_texts_that_lie_elsewhere_in_memory_are_damage(ends, tmp_path):
    """pyarrow does not look: without a check, it reads what is there, or ends the process."""
    borders = pa.py_buffer(np.array(ends, np.int32).tobytes())
    texts = pa.StringArray.from_buffers(2, borders, pa.py_buffer(b"abc"))
    table = pa.RecordBatch.from_arrays([texts], ["text"])
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as file:
        file.write_batch(table)
    said: list[str] = []
    source = {"kind": "files", "files": ["a.arrow"], "text": "text"}
    found = list(readers.read(source, root=tmp_path, bad_lines=1, on_bad=said.append))
    assert found == []
    assert said[0].startswith("a.arrow:1: damaged Arrow file: ")
