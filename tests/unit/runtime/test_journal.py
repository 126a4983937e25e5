"""The journal of a run folder, and that of an earlier version."""

import fcntl
import json
import sqlite3
from pathlib import Path

import pytest

from etude.runtime.errors import RunError
from etude.runtime.run_folder.store import Store

ROWS = [
    (1.5, "data.sums", "k1", "started", '{"plan": "p1"}'),
    (2.5, "data.sums", "k1", "finished", '{"plan": "p1"}'),
    (3.5, "pre.1", "k2", "started", "null"),
]
NAMES = ("time", "job", "key", "event", "detail")


def earlier(folder: Path) -> None:
    """A run folder as an earlier version left it."""
    folder.mkdir()
    with sqlite3.connect(folder / "journal.sqlite") as journal:
        journal.execute("pragma journal_mode = wal")
        journal.execute(
            "create table events (time real, job text, key text, event text, detail text)"
        )
        journal.executemany("insert into events values (?, ?, ?, ?, ?)", ROWS)
    journal.close()
    (folder / "lock").touch()


def events(store: Store) -> list[tuple[object, ...]]:
    return [tuple(event[name] for name in NAMES) for event in store.events()]


EXPECTED = [(*row[:4], json.loads(row[4])) for row in ROWS]


def test_what_is_recorded_is_there_for_whoever_looks(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    assert not store.exists()
    assert store.create() is None
    assert store.exists()
    store.record("pre.1", "k", "started", {"plan": "p"})
    (event,) = Store(tmp_path / "run").events()
    assert {name: event[name] for name in NAMES[1:]} == {
        "job": "pre.1",
        "key": "k",
        "event": "started",
        "detail": {"plan": "p"},
    }


def test_that_of_an_earlier_version_is_read_as_it_is(tmp_path: Path) -> None:
    earlier(tmp_path / "run")
    store = Store(tmp_path / "run")
    assert store.exists()
    assert events(store) == EXPECTED
    assert (tmp_path / "run" / "journal.sqlite").exists()


def test_that_of_an_earlier_version_is_converted_once_with_a_word(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    earlier(folder)
    store = Store(folder)
    words = store.create()
    assert words
    assert "3 lines" in words
    assert "journal.sqlite.converted" in words
    store.record("pre.1", "k2", "finished")
    assert events(store)[:3] == EXPECTED
    assert store.create() is None
    assert len(store.events()) == 4
    assert not (folder / "journal.sqlite").exists()
    assert (folder / "journal.sqlite.converted").exists()


def test_an_earlier_version_at_work_in_the_folder_keeps_this_one_out(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    earlier(folder)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="a run of an earlier version of etude is using"):
            Store(folder).create()
    assert events(Store(folder)) == EXPECTED


def test_a_damaged_journal_of_an_earlier_version_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "journal.sqlite").write_text("not a database, and long enough to be none" * 30)
    with pytest.raises(RunError, match=r"journal\.sqlite cannot be read"):
        Store(folder).create()


def test_a_line_of_something_else_in_the_middle_is_one_message(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    store.create()
    store.record("a", "k", "started")
    path = tmp_path / "run" / "journal.jsonl"
    path.write_text(path.read_text() + '{"step": 3}\n')
    store.record("a", "k", "finished")
    with pytest.raises(RunError) as problem:
        Store(tmp_path / "run").events()
    assert problem.value.message == f"{path}:2 is not a line of a journal"
