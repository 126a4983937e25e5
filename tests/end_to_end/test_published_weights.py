"""Recipes that start from published weights, from end to end."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from etude_cli import etude, kill_when, lines, metrics
from safetensors.torch import load_file, save_file

TOKENIZER = "tokenizer words { train = { on [docs, tasks], vocab 400 } }"
SHAPE = "layers = 2, dim = 32, heads = 4, kv_heads = 2, ffn = 64"

MAKE = f"""
recipe make {{ seed = 3 }}
model small {{ {SHAPE} }}
{TOKENIZER}
dataset docs  {{ sample = python_docs, documents = 40 docs }}
dataset tasks {{ sample = python_functions, documents = 60 docs }}
dataset chats {{ sample = python_functions, kind = dialogs, documents = 60 docs, bad_lines = 60 }}
stage pretrain: train {{
  model = small, steps = 6, seq_len = 64, batch = 8 seqs, lr = 3e-3, data = docs
}}
stage chat: sft {{ steps = 1, batch = 2 seqs, seq_len = 512, lr = 1e-4, data = chats }}
stage report: evaluate {{ loss = [docs], seq_len = 64 }}
"""

USE = f"""
recipe used {{ seed = 3 }}
model small {{ {SHAPE}, vocab = 400, weights = "published", context = 512 }}
tokenizer words {{ file = "published/tokenizer.json" }}
dataset docs  {{ sample = python_docs, documents = 40 docs }}
dataset tasks {{ sample = python_functions, documents = 60 docs }}
dataset chats {{ sample = python_functions, kind = dialogs, skip = 60 docs, documents = 60 docs
                bad_lines = 60 }}
dataset likes {{ sample = python_functions, kind = preferences, skip = 120 docs, documents = 60
                holdout = 20%, pairs = 48 pairs, bad_lines = 60 }}
dataset asks  {{ sample = python_functions, kind = prompts, documents = 4 docs, skip = 180 docs }}

stage before: evaluate {{ from = small, loss = [docs], seq_len = 64 }}
stage more: train {{ model = small, steps = 4, seq_len = 64, batch = 4 seqs, lr = 1e-3, data = docs
                    checkpoint every 2 steps }}
stage sft: sft {{ from = small, steps = 2, batch = 2 seqs, seq_len = 512, lr = 1e-4, data = chats }}
stage rm: reward {{ from = small, steps = 2, seq_len = 512, batch = 4 pairs, lr = 1e-4
                   data = likes }}
stage dpo: dpo {{ from = sft, reference = small, epochs = 1, seq_len = 512, batch = 16 pairs
                 lr = 1e-5, data = likes }}
stage judged: evaluate {{ from = small, prompts = asks, max_tokens = 8, judge = rm }}
stage soup: average {{ of = [small, more] }}
stage after: evaluate {{ from = soup, loss = [docs] }}
"""


def scores(folder: Path, stage: str) -> dict[str, dict[str, float]]:
    return json.loads((folder / "models" / stage / "scores.json").read_text())


def weights_of(folder: Path, stage: str) -> dict[str, Any]:
    return load_file(folder / "models" / stage / "model.safetensors")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the spec, the weights that it starts from, and a run of it."""
    place = tmp_path_factory.mktemp("weights")
    (place / "make.etude").write_text(MAKE)
    (place / "use.etude").write_text(USE)
    run(place, "make.etude")
    shutil.copytree(place / "runs" / "make" / "models" / "chat", place / "published")
    run(place, "use.etude")
    return place


def run(place: Path, *arguments: str) -> str:
    done = etude("run", *arguments, cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_published_weights_have_the_loss_that_they_had(place: Path) -> None:
    made = scores(place / "runs" / "make", "report")["loss(docs)"]["score"]
    used = scores(place / "runs" / "used", "before")["loss(docs)"]["score"]
    assert used == pytest.approx(made, rel=1e-6)


def test_every_kind_of_stage_starts_from_them(place: Path) -> None:
    there = {path.name for path in (place / "runs" / "used" / "models").iterdir()}
    assert {"before", "dpo", "judged", "after"} <= there
    first = metrics(place / "runs" / "used", "more.1")[0]
    assert first["lr"] == 1e-3
    start, dpo = (
        load_file(place / "published" / "model.safetensors"),
        weights_of(place / "runs" / "used", "dpo"),
    )
    assert start.keys() == dpo.keys()
    # Two short stages away, and not another model.
    assert all(0 <= (dpo[name] - start[name]).abs().max() < 1e-2 for name in start)


@pytest.mark.exhaustive
def test_it_goes_on_where_it_was_killed_with_the_same_bits(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "published", tmp_path / "published")
    (tmp_path / "use.etude").write_text(USE)
    folder = tmp_path / "runs" / "used"
    kill_when(lambda: lines(folder, "more.1") >= 3, "run", "use.etude", cwd=tmp_path)
    assert "small: already done" in run(tmp_path, "use.etude")
    whole, resumed = (weights_of(at / "runs" / "used", "dpo") for at in (place, tmp_path))
    assert all(whole[name].equal(resumed[name]) for name in whole)


@pytest.mark.exhaustive
def test_two_ranks_start_from_the_same_weights(place: Path) -> None:
    run(place, "use.etude", "--ranks", "2", "--folder", "two")
    one, two = (metrics(place / folder, "more.1")[0] for folder in ("runs/used", "two"))
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)


def test_changed_weights_are_noticed(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True, symlinks=True)
    path = tmp_path / "published" / "model.safetensors"
    state = load_file(path)
    state["model.norm.weight"] *= 1.5
    save_file(state, path, metadata={"format": "pt"})
    said = run(tmp_path, "use.etude")
    assert "small: the weights have changed; what depends on them is rerun" in said
    before, after = (
        scores(at / "runs" / "used", "before")["loss(docs)"]["score"] for at in (place, tmp_path)
    )
    assert before != pytest.approx(after, rel=1e-4)


def test_weights_that_are_not_there_stop_the_run_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "use.etude").write_text(USE)
    done = etude("run", "use.etude", cwd=tmp_path)
    assert done.returncode == 1
    assert "there is no folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_folder_alone_is_the_same_recipe(place: Path) -> None:
    """Every job is known already: typed or read, it is the same model, tokenizer and protocol."""
    (start,) = (line for line in USE.splitlines() if line.startswith("model small"))
    (words,) = (line for line in USE.splitlines() if line.startswith("tokenizer words"))
    short = USE.replace(start, 'model small { weights = "published" }').replace(
        words, "dialog chat { protocol = llama3 }"
    )
    (place / "short.etude").write_text(short)
    said = run(place, "short.etude", "--json")
    assert "already done" in run(place, "short.etude")
    assert not [event for event in events_of(said) if event["event"] == "step"]


def events_of(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def test_a_model_is_tuned_from_its_folder_in_its_own_protocol(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "published", tmp_path / "published")
    (tmp_path / "talk.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "messages": [
                        {"role": "user", "content": f"{n} + 1"},
                        {"role": "assistant", "content": str(n + 1)},
                    ]
                }
            )
            + "\n"
            for n in range(40)
        )
    )
    (tmp_path / "tune.etude").write_text(
        'recipe tune { seed = 1 }\nmodel base { weights = "published" }\n'
        'dataset talk { files = "talk.jsonl", kind = dialogs }\n'
        "stage sft: sft { from = base, data = talk, steps = 2, seq_len = 128, batch = 4 seqs\n"
        "  lr = 1e-4 }\n"
    )
    assert etude("plan", "tune.etude", "-o", "plan.json", cwd=tmp_path).returncode == 0
    run(tmp_path, "plan.json")
    made = tmp_path / "runs" / "tune" / "models" / "sft"
    own, theirs = (at / "tokenizer_config.json" for at in (tmp_path / "published", made))
    settings = json.loads(own.read_text())
    assert json.loads(theirs.read_text())["chat_template"] == settings["chat_template"]
    own.write_text(json.dumps(settings | {"chat_template": "{# another #}"}))
    done = etude("run", "plan.json", "--folder", "again", cwd=tmp_path)
    assert done.returncode == 1
    assert "the plan was made of other files: published/tokenizer_config.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_new_spec_for_weights_and_data_runs_as_it_stands(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "published", tmp_path / "published")
    asked = [f"What is {n} + {m}?" for n in range(12) for m in range(5)]
    said = [
        [{"from": "human", "value": text}, {"from": "gpt", "value": f"It is {number}."}]
        for number, text in enumerate(asked)
    ]
    likes = [
        {"prompt": text, "chosen": f"It is {number}.", "rejected": "No idea at all."}
        for number, text in enumerate(asked)
    ]
    for name, records in (("said", [{"conversations": one} for one in said]), ("likes", likes)):
        text = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / f"{name}.jsonl").write_text(text)
    options = ("--weights", "published", "--dialogs", "said.jsonl", "--preferences", "likes.jsonl")
    made = etude("new", "tune", "--template", "align", *options, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    text = (tmp_path / "tune.etude").read_text()
    assert "fields" not in text  # ShareGPT's layout is recognized
    checked = etude("check", "tune.etude", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "warning" not in checked.stderr
    run(tmp_path, "tune.etude")
    before, after = (
        scores(tmp_path / "runs" / "tune", name)["loss(people)"]["score"]
        for name in ("before", "after")
    )
    assert after < before
