"""What the files beside a tokenizer.json say of it: which tokens begin and end a text."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, processors

from etude.compiler.plan.plan import TokenizerJob
from etude.runtime.data.tokens import tokenizer
from etude.runtime.errors import DataError
from etude.runtime.preparation.prepare import job_fingerprint

LETTERS = {letter: number for number, letter in enumerate("abcx")}
BEGIN, END, TURN = 4, 5, 6
"""Ids of the three special tokens."""


def made(folder: Path, *, begins: bool = False, **beside: Any) -> Path:
    """A tokenizer.json, with a processor that begins texts or none, and files beside it."""
    each = Tokenizer(models.BPE(vocab=LETTERS, merges=[]))
    each.add_special_tokens(["<|bos|>", "<|eos|>", "<|turn|>"])
    if begins:
        each.post_processor = processors.TemplateProcessing(
            single="<|bos|> $A", special_tokens=[("<|bos|>", BEGIN)]
        )
    path = folder / "tokenizer.json"
    each.save(str(path))
    for name, content in beside.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return path


NAMED: dict[str, Any] = {"bos_token": "<|bos|>", "eos_token": "<|eos|>"}


@pytest.mark.parametrize(
    ("begins", "beside", "expected"),
    [
        (True, {"tokenizer_config": NAMED}, (BEGIN, END)),
        (False, {"tokenizer_config": NAMED}, (None, END)),
        (False, {"tokenizer_config": NAMED | {"add_bos_token": True}}, (BEGIN, END)),
        (False, {"tokenizer_config": NAMED | {"add_bos_token": False}}, (None, END)),
        (False, {"tokenizer_config": {"bos_token": None, "eos_token": "<|turn|>"}}, (None, TURN)),
        (True, {"tokenizer_config": {"eos_token": {"content": "<|eos|>"}}}, (BEGIN, END)),
        (True, {"special_tokens_map": {"eos_token": {"content": "<|turn|>"}}}, (BEGIN, TURN)),
        (
            True,
            {
                "tokenizer_config": {"eos_token": "<|eos|>"},
                "special_tokens_map": {"eos_token": "<|turn|>"},
            },
            (BEGIN, END),
        ),
        (
            True,
            {"tokenizer_config": NAMED, "generation_config": {"eos_token_id": [TURN, END]}},
            (BEGIN, END),
        ),
        (False, {"generation_config": {"eos_token_id": [TURN, END]}}, (None, TURN)),
        (False, {"generation_config": {"eos_token_id": [9999, 2, TURN]}}, (None, TURN)),
        (False, {"config": {"eos_token_id": END}}, (None, END)),
        (
            False,
            {"config": {"eos_token_id": END}, "generation_config": {"eos_token_id": TURN}},
            (None, TURN),
        ),
    ],
)
def test_the_files_beside_it_name_the_ends_of_texts(
    begins: bool, beside: dict[str, Any], expected: tuple[int | None, int], tmp_path: Path
) -> None:
    loaded = tokenizer.load(made(tmp_path, begins=begins, **beside))
    assert tokenizer.special(loaded) == tokenizer.Special(*expected)


@pytest.mark.parametrize("asked", [True, False])
def test_what_is_saved_begins_and_ends_texts_alike(asked: bool, tmp_path: Path) -> None:
    settings = NAMED | {"add_bos_token": asked}
    generation = {"eos_token_id": [2, TURN, END]}
    path = made(tmp_path, tokenizer_config=settings, generation_config=generation)
    loaded = tokenizer.load(path)
    tokenizer.save(loaded, tmp_path / "saved")
    again = tokenizer.load(tmp_path / "saved" / "tokenizer.json")
    assert tokenizer.special(again) == tokenizer.special(loaded)
    assert tokenizer.stops(again) == tokenizer.stops(loaded) == (TURN, END)
    assert again.encode("ab").ids == ([BEGIN] if asked else []) + [0, 1]
    assert tokenizer.named(again) == NAMED


def test_templates_find_a_beginning_that_no_text_has(tmp_path: Path) -> None:
    loaded = tokenizer.load(made(tmp_path, tokenizer_config=NAMED))
    assert tokenizer.special(loaded).bos is None
    assert tokenizer.named(loaded) == NAMED


def test_templates_find_what_pads(tmp_path: Path) -> None:
    settings = NAMED | {"pad_token": {"content": "<|turn|>"}, "unk_token": None}
    loaded = tokenizer.load(made(tmp_path, tokenizer_config=settings))
    assert tokenizer.named(loaded) == NAMED | {"pad_token": "<|turn|>"}


def test_what_others_read_of_the_settings_is_kept(tmp_path: Path) -> None:
    kept = {"pad_token": "<|turn|>", "chat_template": "{{ messages }}"}
    path = made(tmp_path, tokenizer_config=NAMED | kept | {"auto_map": {"x": "y"}})
    tokenizer.save(tokenizer.load(path), tmp_path / "saved")
    found = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert found.items() >= (NAMED | kept).items()
    assert "auto_map" not in found
    (tmp_path / "chat_template.jinja").write_text("{{ of_its_own }}")
    tokenizer.save(tokenizer.load(path), tmp_path / "saved")
    found = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert found["chat_template"] == "{{ of_its_own }}"


def test_a_named_token_that_is_none_yet_becomes_a_special_one(tmp_path: Path) -> None:
    each = Tokenizer(models.BPE(vocab=LETTERS | {"</s>": 4}, merges=[]))
    each.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    loaded = tokenizer.load(tmp_path / "tokenizer.json")
    assert tokenizer.special(loaded) == tokenizer.Special(None, 4)
    assert loaded.get_added_tokens_decoder()[4].special
    assert loaded.get_vocab_size() == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"eos_token": "<|gone|>"}', r"names <\|gone\|> as the end of a text"),
        ('{"bos_token": "<|gone|>"}', r"names <\|gone\|> as the beginning of a text"),
    ],
)
def test_settings_that_are_broken_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = made(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(DataError, match=message):
        tokenizer.load(path)


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"tokenizer_config": {"bos_token": "<|bos|>"}},
        {"generation_config": {"eos_token_id": 2}},
    ],
)
def test_an_unknown_end_says_what_to_write(beside: dict[str, Any], tmp_path: Path) -> None:
    loaded = tokenizer.load(made(tmp_path, **beside))
    with pytest.raises(DataError, match="no end-of-text token") as problem:
        tokenizer.special(loaded)
    assert '{"eos_token": "' in problem.value.help
    # The advice is enough.
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|eos|>"}')
    assert tokenizer.special(tokenizer.load(tmp_path / "tokenizer.json")).eos == END


def test_other_settings_are_another_tokenizer(tmp_path: Path) -> None:
    made(tmp_path, tokenizer_config=NAMED)
    job = TokenizerJob(
        key="x",
        id="x",
        stage=None,
        inputs={},
        datasets={},
        tokenizer={"kind": "file", "file": "tokenizer.json"},
    )
    before = job_fingerprint(job, tmp_path)
    assert job_fingerprint(job, tmp_path) == before
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(NAMED | {"add_bos_token": True}))
    assert job_fingerprint(job, tmp_path) != before


def test_the_hub_gives_what_stands_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    made(tmp_path, tokenizer_config=NAMED)
    asked: list[str] = []

    def download(repo: str, name: str) -> str:
        asked.append(name)
        if not (tmp_path / name).is_file():
            raise missing(name)
        return str(tmp_path / name)

    missing: type[Exception] = errors.EntryNotFoundError
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    assert tokenizer.special(tokenizer.from_hub("org/name")) == tokenizer.Special(None, END)
    assert asked == ["tokenizer.json", *tokenizer.BESIDE]
    # Where the settings may be there and cannot be had, texts would end otherwise.
    (tmp_path / "tokenizer_config.json").unlink()
    missing = errors.LocalEntryNotFoundError
    with pytest.raises(DataError, match="cannot be reached") as problem:
        tokenizer.from_hub("org/name")
    assert "--include" in problem.value.help


def test_half_a_character_is_no_token(tmp_path: Path) -> None:
    path = made(tmp_path, tokenizer_config={"bos_token": "\ud800"})
    with pytest.raises(DataError, match="as the beginning of a text, which"):
        tokenizer.load(path)
