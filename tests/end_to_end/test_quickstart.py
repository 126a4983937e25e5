"""The quickstart, as `make demo` runs it: training, and only training, passes its gates."""

import json
from pathlib import Path
from typing import Any

import pytest
from etude_cli import metrics, started

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.etude"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    done = started("run", QUICKSTART, "--folder", "run", cwd=folder, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return folder / "run"


def scores(run: Path, stage: str) -> dict[str, Any]:
    return json.loads((run / "models" / stage / "scores.json").read_text())


def longest(found: dict[str, Any]) -> float:
    """The score at 256 tokens, over all depths."""
    depths = found["needle"]["grid"]["256"]
    return sum(depths.values()) / len(depths)


def test_the_loss_visibly_falls(run: Path) -> None:
    first = metrics(run, "pretrain.1")[0]["loss"]
    last = [entry["loss"] for entry in metrics(run, "anneal.1")[-10:]]
    assert first > 6
    assert sum(last) / len(last) < 2.5


def test_the_model_learns_to_find_needles(run: Path) -> None:
    before, after = scores(run, "before"), scores(run, "after")
    assert longest(before) < 0.6
    assert longest(after) > longest(before) + 0.2
    assert after["needle"]["score"] >= 0.8
    assert after["loss(docs)"]["score"] < before["loss(docs)"]["score"]


def test_the_result_loads_into_transformers(run: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = run / "models" / "anneal"
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "The password is red tiger iron. What password? The password is"
    tokens = tokenizer(tokenizer.bos_token + text, return_tensors="pt", add_special_tokens=False)
    made = model.generate(**tokens, max_new_tokens=8, do_sample=False)
    answer = tokenizer.decode(made[0, tokens["input_ids"].shape[1] :])
    assert answer.startswith(" red tiger iron.")
