"""What a run lacks is found before its first job, all at once, and nothing is written."""

import importlib.util
import json
import os
import shutil
import signal
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from specs import plan
from tokenizers import Tokenizer
from weights_folders import write_folder

from etude.compiler.driver import analyse, compile
from etude.runtime import stopping
from etude.runtime.data.tokens import tokenizer
from etude.runtime.errors import DataError, Interrupted
from etude.runtime.gang import execute
from etude.runtime.preflight import preflight
from etude.runtime.preflight.disk_space import in_bytes, needed
from etude.runtime.preflight.preflight import Unready, require_all
from etude.runtime.run_folder.store import Store
from etude.runtime.weight_files import require_whole
from etude.spec.load import read

HEAD = """recipe late { seed = 1 }
model tiny { layers = 1, dim = 32, heads = 2, ffn = 64, vocab = 300 }
tokenizer letters { bytes }
dataset sums { sample = arithmetic, documents = 20 docs }
stage pre: train {
  model = tiny, steps = 1, seq_len = 64, batch = 1 seqs, lr = 1e-3, data = sums
}
"""
TALK = 'dataset talk { files = "talk.jsonl", kind = dialogs }\n'
SFT = "stage chat: sft { steps = 1, seq_len = 64, batch = 1 seqs, lr = 1e-3, data = talk }\n"
DIALOG = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


def lacking(text: str, root: Path, **options: Any) -> list[tuple[str, str]]:
    """Message and way out of each thing that a run of a spec lacks."""
    folder = root / "run"
    try:
        require_all(plan(text), Store(folder), root, lambda _: None, **options)
    except Unready as found:
        assert not folder.exists()
        return [(problem.message, problem.help) for problem in found.problems]
    return []


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        preflight.importlib.util, "find_spec", lambda name: None if name in packages else real(name)
    )


def write(path: Path, *records: Any) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_what_is_complete_lacks_nothing(tmp_path: Path) -> None:
    write(tmp_path / "talk.jsonl", DIALOG)
    assert lacking(HEAD + TALK + SFT, tmp_path) == []


def test_a_run_stops_before_its_first_job(tmp_path: Path) -> None:
    events: list[Any] = []
    with pytest.raises(Unready, match=r"the stage `chat`.*there is no file `talk\.jsonl`"):
        execute(plan(HEAD + TALK + SFT), tmp_path / "run", tmp_path, events.append)
    assert events == []
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_asked_to_stop_meanwhile_lacks_nothing(tmp_path: Path) -> None:
    """It reads the first records of its data, and stops there as everywhere."""
    write(tmp_path / "talk.jsonl", DIALOG)
    with stopping.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="stopped by SIGTERM") as stopped:
            require_all(plan(HEAD + TALK + SFT), Store(tmp_path / "run"), tmp_path, print)
    assert stopped.value.exit_code == 75
    assert not (tmp_path / "run").exists()


PREFERENCES = 'dataset likes { files = "likes.jsonl", kind = preferences }\n'
DPO = (
    "stage tune: dpo {\n  steps = 1, seq_len = 64, batch = 1 pairs, lr = 1e-3, data = likes\n"
    "  drop similar > 90%\n}\n"
)
LIKE = {"prompt": "one", "chosen": "two", "rejected": "three"}


@pytest.mark.parametrize(
    ("spec", "packages", "said", "way_out"),
    [
        (
            PREFERENCES + DPO,
            ["rapidfuzz"],
            "`drop similar` needs the package rapidfuzz",
            "pip install 'etude[post]'",
        ),
        (
            "stage more: train { from = pre, steps = 1, optimizer = lion }\n",
            ["pytorch_optimizer"],
            "`optimizer = lion` needs the package pytorch-optimizer",
            "pip install 'etude[lion]'",
        ),
        (
            'stage exam: evaluate { suites = { math ["gsm8k"] } }\n',
            ["lm_eval"],
            "the suite `math` needs the package lm-eval",
            "pip install 'etude[eval]'",
        ),
    ],
)
def test_packages_of_later_stages(
    spec: str,
    packages: list[str],
    said: str,
    way_out: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(tmp_path / "likes.jsonl", LIKE)
    assert lacking(HEAD + spec, tmp_path) == []
    without(monkeypatch, *packages)
    ((message, help),) = lacking(HEAD + spec, tmp_path)
    assert said in message
    assert "stage `" in message
    assert way_out in help


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([{"text": "no dialog"}], None),
        ([{"words": "no dialog"}], "no `messages`"),
        ([{"messages": [{"role": "user", "content": "q"}]}], "ends with a message of `user`"),
        ([{"messages": [{"role": "oracle", "content": "q"}, DIALOG["messages"][1]]}], "`oracle`"),
        ([], "there are no dialogs in `talk`"),
    ],
)
def test_the_first_record_of_later_stages(
    records: list[Any], said: str | None, tmp_path: Path
) -> None:
    write(tmp_path / "talk.jsonl", *records)
    found = lacking(HEAD + TALK + SFT, tmp_path)
    if said is None:
        assert found == []
        return
    ((message, _),) = found
    assert said in message
    assert "data set `talk`, for the stage `chat`" in message


def test_labels_that_are_all_one(tmp_path: Path) -> None:
    """Found before the first job, however far behind the other label would be."""
    rated = {"prompt": "q", "completion": "a", "label": True}
    spec = HEAD + 'dataset likes { files = "likes.jsonl", kind = ratings }\n'
    spec += "stage liked: kto { steps = 1, batch = 1 ratings, lr = 1e-4, data = likes }\n"
    write(tmp_path / "likes.jsonl", *[rated] * 9)
    ((message, help),) = lacking(spec, tmp_path)
    assert "all answers of the data set `likes` have the label true" in message
    assert "`sft` learns" in help
    write(tmp_path / "likes.jsonl", *[rated] * 9, {**rated, "label": False})
    assert lacking(spec, tmp_path) == []


def test_bad_lines_that_may_be_skipped_are(tmp_path: Path) -> None:
    write(tmp_path / "talk.jsonl", {"words": "?"}, DIALOG)
    talk = TALK.replace(" }", ", bad_lines = 1 }")
    assert lacking(HEAD + talk + SFT, tmp_path) == []
    assert "no `messages`" in lacking(HEAD + TALK + SFT, tmp_path)[0][0]


def test_where_all_lines_are_skipped_the_first_reason_is_said(tmp_path: Path) -> None:
    write(tmp_path / "talk.jsonl", {"words": "?"}, {"speech": "?"})
    talk = TALK.replace(" }", ", bad_lines = 9 }")
    ((message, _),) = lacking(HEAD + talk + SFT, tmp_path)
    assert (
        "there are no dialogs in `talk`: all 2 lines are bad; the first is talk.jsonl:1: no `me"
        in message
    )
    spec = HEAD.replace(
        "sample = arithmetic, documents = 20 docs", 'files = "w.jsonl", bad_lines = 9'
    )
    write(tmp_path / "w.jsonl", {"words": "?"})
    ((message, _),) = lacking(spec, tmp_path)
    assert "its only line is bad; the first is w.jsonl:1: no field `text`" in message


@pytest.mark.parametrize("spec", [HEAD.replace("sample = arithmetic", 'files = "sums.txt"')])
def test_documents(spec: str, tmp_path: Path) -> None:
    spec = spec.replace(", documents = 20 docs", "")
    assert "there is no file `sums.txt`" in lacking(spec, tmp_path)[0][0]
    (tmp_path / "sums.txt").write_text("")
    assert "the file is empty" in lacking(spec, tmp_path)[0][0]
    (tmp_path / "sums.txt").write_text("1 + 1 = 2")
    assert lacking(spec, tmp_path) == []


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "chat.jinja cannot be read"),
        ("{% for m in messages %}", "template"),
        ("{{ messages | nothing }}", "template"),
    ],
)
def test_templates_of_later_stages(template: str | None, said: str, tmp_path: Path) -> None:
    write(tmp_path / "talk.jsonl", DIALOG)
    if template is not None:
        (tmp_path / "chat.jinja").write_text(template)
    found = lacking(HEAD + 'dialog chat { template = "chat.jinja" }\n' + TALK + SFT, tmp_path)
    assert found
    assert all(said in message for message, _ in found)


@pytest.mark.parametrize("content", [None, "no tokenizer"])
def test_tokenizers(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "t.json").write_text(content)
    found = lacking(HEAD.replace("{ bytes }", '{ file = "t.json" }'), tmp_path)
    assert len(found) == 1
    assert "t.json" in found[0][0]


def test_a_recipe_without_a_tokenizer(tmp_path: Path) -> None:
    ((message, help),) = lacking(HEAD.replace("tokenizer letters { bytes }\n", ""), tmp_path)
    assert "declares no tokenizer" in message
    assert "tokenizer words" in help


def test_published_weights(tmp_path: Path) -> None:
    spec = HEAD.replace("vocab = 300 }", 'vocab = 300, weights = "base", context = 64 }')
    spec = spec.replace("model = tiny", "from = tiny")
    assert "there is no folder" in lacking(spec, tmp_path)[0][0]
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    assert "has no model.safetensors" in lacking(spec, tmp_path)[0][0]


def test_everything_comes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "rapidfuzz")
    write(tmp_path / "likes.jsonl", LIKE)
    found = lacking(HEAD + TALK + SFT + PREFERENCES + DPO, tmp_path)
    assert len(found) == 2
    assert "talk.jsonl" in found[0][0]
    assert "rapidfuzz" in found[1][0]


def test_what_people_are_yet_to_label_is_no_lack(tmp_path: Path) -> None:
    talk = TALK.replace(" }", ", awaited }")
    assert lacking(HEAD + talk + SFT, tmp_path) == []


def test_a_login_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    tracked = HEAD.replace("seed = 1 }", "seed = 1, tracking = wandb }")
    assert "nobody is logged in to W&B" in lacking(tracked, tmp_path)[0][0]
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert lacking(tracked, tmp_path) == []


def test_preparing_needs_data_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "lm_eval")
    spec = HEAD + 'stage exam: evaluate { suites = { math ["gsm8k"] } }\n'
    assert lacking(spec, tmp_path)
    assert lacking(spec, tmp_path, prepare=True) == []


Usage = namedtuple("Usage", "total used free")


def test_room_for_results_and_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(HEAD)
    (trained,) = [job for job in made.jobs if job.kind == "train"]
    results, checkpoints = needed(made, Store(tmp_path / "run"))
    parameters = trained.cost.parameters
    # Weights and two moments in float32, and an export of the weights; three checkpoints.
    assert results == parameters * (12 + 4)
    assert checkpoints == 3 * parameters * 12
    total = results + checkpoints

    def free(number: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, number))

    free(total - 1)
    ((message, help),) = lacking(HEAD, tmp_path)
    assert in_bytes(total) in message
    assert "--folder" in help
    events: list[Any] = []
    free(total + 1)
    require_all(made, Store(tmp_path / "run"), tmp_path, events.append)
    assert [event["event"] for event in events] == ["warning"]
    free(2 * total)
    require_all(made, Store(tmp_path / "run"), tmp_path, events.append)
    assert len(events) == 1


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1024, "1 KiB"),
        (999.7 * 1024, "1,000 KiB"),
        (3 * 2**30, "3 GiB"),
        (97.2 * 2**40, "97.2 TiB"),
        (5e3 * 2**40, "5,000 TiB"),
    ],
)
def test_bytes_are_shown_in_their_unit(number: float, shown: str) -> None:
    assert in_bytes(number) == shown


def test_files_of_weights_that_are_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"a": "b"}}
    ).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    require_whole(tmp_path)
    whole = file.read_bytes()
    for cut, said in ((-1, "but its header says"), (20, "ends inside its header")):
        file.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=said):
            require_whole(tmp_path)
    for junk in (b"", b"<!doctype html>" * 9):
        file.write_bytes(junk)
        with pytest.raises(DataError, match="is not a safetensors file"):
            require_whole(tmp_path)


def test_what_reads_urls_of_later_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "s3fs")
    ((said, way_out),) = lacking(HEAD + TALK.replace("talk.j", "s3://b/talk.j") + SFT, tmp_path)
    assert "`s3://b/talk.jsonl` needs the package s3fs" in said
    assert way_out == "install it: pip install 'etude[s3]'"
    ((said, _),) = lacking(HEAD + TALK.replace("talk.j", "nope://b/talk.j") + SFT, tmp_path)
    assert "no package can read `nope://`" in said


def test_task_files_that_cannot_be_read(tmp_path: Path) -> None:
    exam = 'stage exam: evaluate { suites = { math ["sums"] }, tasks = "tasks" }\n'
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "a.yaml").write_text("a: [")
    ((said, _),) = lacking(HEAD + exam, tmp_path)
    assert "a.yaml:1: the task file cannot be read" in said


BYTES = tokenizer.byte_level([])
TOO_SMALL = (
    "the stage `pre`: the model has a vocabulary of 200 tokens, its tokenizer 258",
    "write `vocab = 258` or more in the model; weights that exist need the tokenizer that they "
    "were trained with",
)


@pytest.mark.parametrize(("vocab", "found"), [(200, [TOO_SMALL]), (258, []), (300, [])])
def test_a_vocabulary_below_that_of_a_file(
    vocab: int, found: list[tuple[str, str]], tmp_path: Path
) -> None:
    BYTES.save(str(tmp_path / "t.json"))
    text = HEAD.replace("{ bytes }", '{ file = "t.json" }').replace("300", str(vocab))
    assert lacking(text, tmp_path) == found
    assert lacking(text, tmp_path, prepare=True) == []


def test_a_vocabulary_below_that_of_a_tokenizer_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(repo: str) -> Tokenizer:
        asked.append(repo)
        return BYTES

    monkeypatch.setattr(tokenizer, "from_hub", download)
    text = HEAD.replace("{ bytes }", '{ hub = "some/model" }').replace("300", "200")
    assert lacking(text, tmp_path) == [TOO_SMALL]
    assert asked == ["some/model"]


def test_a_tokenizer_that_a_run_has_is_not_downloaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "from_hub", lambda repo: BYTES)
    text = HEAD.replace("{ bytes }", '{ hub = "some/model" }')
    made = plan(text)
    job = next(job for job in made.jobs if job.kind == "tokenizer")
    store = Store(tmp_path / "run")
    store.create()
    result = tmp_path / "run" / "work" / job.key / "result"
    result.mkdir(parents=True)
    BYTES.save(str(result / "tokenizer.json"))
    store.publish(job.key, result, job.id)
    store.record(job.id, job.key, "finished", {"plan": job.key})
    monkeypatch.setattr(tokenizer, "from_hub", lambda repo: pytest.fail("it was downloaded again"))
    assert lacking(text, tmp_path) == []


def test_added_tokens_that_may_never_occur_need_no_row(tmp_path: Path) -> None:
    tokenizer.byte_level(["<|image|>"]).save(str(tmp_path / "t.json"))
    text = HEAD.replace("{ bytes }", '{ file = "t.json" }').replace("300", "258")
    assert lacking(text, tmp_path) == []


def test_a_plan_is_not_run_with_other_files_than_it_was_made_of(tmp_path: Path) -> None:
    spec = tmp_path / "spec.etude"
    spec.write_text(
        'recipe s { seed = 1 }\nmodel base { weights = "base" }\n'
        f"{TALK}{SFT.replace('{ steps', '{ from = base, steps')}"
    )
    write(tmp_path / "talk.jsonl", DIALOG)
    base = write_folder(tmp_path / "base")
    made = compile(analyse(read(spec), root=tmp_path))
    assert made
    store = Store(tmp_path / "run")

    def problems() -> list[str]:
        try:
            require_all(made.plan, store, tmp_path, lambda _: None)
        except Unready as found:
            return [problem.message for problem in found.problems]
        return []

    assert problems() == []
    for name, what in (("chat_template.jinja", "has changed since"), ("config.json", "any more")):
        whole = (base / name).read_bytes()
        if "changed" in what:
            (base / name).write_bytes(whole.replace(b"assistant", b"helper"))
        else:
            (base / name).unlink()
        assert problems()[0].startswith("the plan was made of other files: base/" + name)
        assert what in problems()[0]
        (base / name).write_bytes(whole)
