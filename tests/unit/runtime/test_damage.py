"""Results of which a byte, or more, is not what was written: found before anything reads them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.runtime.errors import RunError
from etude.runtime.run_folder.store import MANIFEST, Store

KEY = "0f" * 32
FILES = ("state/__0_0.distcp", "train-00000.bin", "model.safetensors", "scores.json", "draws.jsonl")
"""A file of each kind: of weights, tokens, an export, scores, answers."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "run")
    store.create()
    result = store.work(KEY) / "result"
    for number, name in enumerate(FILES):
        path = result / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes((7 * place + number) % 251 for place in range(10_000)))
    store.publish(KEY, result, "job")
    return Store(store.folder)


def flipped(place: int) -> Callable[[Path], None]:
    """Turns over one bit of a byte."""

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)

    return flip


def swapped(path: Path) -> None:
    """Gives a file the content of another one, of the same size."""
    other = path.parent.parent / FILES[1] if path.parent.name == "state" else path
    names = [name for name in FILES if not path.match(name)]
    path.write_bytes((other.parent / names[-1]).read_bytes())


DAMAGE = {
    "first byte": flipped(0),
    "header": flipped(9),
    "middle": flipped(5_000),
    "last byte": flipped(-1),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]) and None,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x") and None,
    "empty": lambda path: path.write_bytes(b"") and None,
    "zeros": lambda path: path.write_bytes(bytes(10_000)) and None,
    "swapped": swapped,
    "removed": Path.unlink,
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_of_every_kind_of_file_is_found_before_it_is_read(
    kind: str, name: str, store: Store
) -> None:
    store.verify(KEY, shards=True)
    DAMAGE[kind](store.folder / "artifacts" / KEY / name)
    again = Store(store.folder)
    with pytest.raises(RunError) as damaged:
        again.verify(KEY, shards=True)
    assert name in damaged.value.message
    assert str(store.folder / "artifacts" / KEY) in damaged.value.message
    assert damaged.value.help == "remove the folder; the next run rebuilds it"


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", "null", '{"key": "x"}'),
        json.dumps({"key": KEY, "files": []}),
        json.dumps({"key": KEY, "files": {"a": {}}}),
        json.dumps({"key": KEY, "files": {"a": 1}}),
        json.dumps({"key": "00" * 32, "files": {}}),
        "\x00" * 100,
    ],
)
def test_a_manifest_that_is_damaged_is_one_message(text: str, store: Store) -> None:
    (store.folder / "artifacts" / KEY / MANIFEST).write_text(text)
    with pytest.raises(RunError, match="its manifest cannot be read"):
        store.artifact(KEY)


def test_a_result_is_read_once_to_be_verified(store: Store) -> None:
    store.verify(KEY, shards=True)
    flipped(5)(store.folder / "artifacts" / KEY / "scores.json")
    store.verify(KEY, shards=True)
    with pytest.raises(RunError):
        Store(store.folder).verify(KEY, shards=True)


def test_ranks_that_train_on_a_checkpoint_compare_its_shards_themselves(store: Store) -> None:
    flipped(5)(store.folder / "artifacts" / KEY / FILES[0])
    store.verify(KEY, shards=False)
    with pytest.raises(RunError, match=r"__0_0\.distcp"):
        store.verify(KEY, shards=True)


def test_of_what_is_too_large_the_size_is_compared(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etude.runtime.run_folder.store.CHECKED", 25_000)
    flipped(5)(store.folder / "artifacts" / KEY / "model.safetensors")
    flipped(5)(store.folder / "artifacts" / KEY / "train-00000.bin")
    with pytest.raises(RunError):
        store.verify(KEY, shards=True)
    monkeypatch.setattr("etude.runtime.run_folder.store.CHECKED", 9_999)
    store.verify(KEY, shards=True)
