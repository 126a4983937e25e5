"""Exports of every way to start and to end: what they say of themselves, and that they end their
turn under transformers."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from etude_cli import etude
from exported_models import ANSWER, CONTEXT, DIALOG, ENDS, STARTS, TEXT, write
from transformers import AutoModelForCausalLM, AutoTokenizer

from etude.runtime.data.dialogs.dialog import renderer
from etude.runtime.data.tokens.tokenizer import load, special

ALL = [
    pytest.param(
        start, end, marks=[] if STARTS.index(start) == ENDS.index(end) else pytest.mark.exhaustive
    )
    for start in STARTS
    for end in ENDS
]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the exports."""
    place = tmp_path_factory.mktemp("exports")
    write(place)
    done = etude("run", "recipe.etude", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "runs" / "exports" / "models"


def loaded(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer, without a weight that is missing or left over."""
    found: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    model, info = found
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys"))
    return model, AutoTokenizer.from_pretrained(folder)


def generated(model: Any, tokenizer: Any, prompt: list[int]) -> tuple[str, int]:
    """What the model says after a prompt, and the token with which it ends."""
    with torch.no_grad():
        tokens = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=40,
            pad_token_id=0,
        )[0].tolist()
    *said, last = tokens[len(prompt) :]
    return tokenizer.decode(said), last


@pytest.mark.parametrize(("start", "end"), ALL)
def test_an_export_is_what_training_made(start: str, end: str, exports: Path) -> None:
    folder = exports / f"{start}_{end}"
    model, tokenizer = loaded(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["max_position_embeddings"] == tokenizer.model_max_length == CONTEXT[start]
    # Weights are trained in fp32, whatever they were before, and exported as they are.
    assert config["dtype"] == "float32"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {
        stat.S_IMODE((exports.parent / "plan.json").stat().st_mode)
    }

    own = load(folder / "tokenizer.json")
    ids = special(own)
    assert ids.bos == 256
    assert tokenizer("x y")["input_ids"] == [
        ids.bos,
        *own.encode("x y", add_special_tokens=False).ids,
    ]
    assert tokenizer.eos_token_id == ids.eos == 257
    assert (config["bos_token_id"], model.generation_config.bos_token_id) == (ids.bos, ids.bos)
    stops = model.generation_config.eos_token_id
    assert config["eos_token_id"] == stops
    if end == "train":
        assert stops == ids.eos
        prompt = tokenizer(TEXT[:5])["input_ids"]
        assert generated(model, tokenizer, prompt) == (TEXT[5:], ids.eos)
        return
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert stops == [end_of_turn, ids.eos]
    shown = tokenizer.apply_chat_template(DIALOG, tokenize=True, return_dict=False)
    assert shown == renderer({"protocol": "chatml"}, own, folder).render(DIALOG).ids
    prompt = tokenizer.apply_chat_template(
        DIALOG[:1], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert generated(model, tokenizer, prompt) == (ANSWER, end_of_turn)


def test_weights_that_nothing_trains_are_exported_as_they_were(exports: Path) -> None:
    from safetensors.torch import load_file

    (folder,) = [
        path
        for path in (exports.parent / "artifacts").iterdir()
        if (path / "config.json").is_file() and _dtype(path) == "bfloat16"
    ]
    before = load_file(exports.parents[2] / "weights" / "model.safetensors")
    after = load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
    assert json.loads((folder / "config.json").read_text())["max_position_embeddings"] == 128


def _dtype(folder: Path) -> str:
    return json.loads((folder / "config.json").read_text())["dtype"]
