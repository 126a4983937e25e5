"""`etude preview`: what stages see of their data, shown before anything is trained."""

import gc
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import etude
from etude.cli.main import main
from etude.compiler.plan.plan import TokenizerJob
from etude.runtime import preview as previews
from etude.runtime.preparation.prepare import job_fingerprint, make_tokenizer
from etude.runtime.preview import Preview, Shown
from etude.runtime.run_folder.store import Store
from etude.runtime.scheduler import artifact_key

ROOT = Path(__file__).resolve().parents[3]
SPEC = """
recipe talks { title = "Talks", seed = 3 }
model tiny { layers = 1, dim = 32, heads = 2, ffn = 64, vocab = 300 }
tokenizer b { TOKENIZER }
dialog chat { protocol = llama3 }
dataset docs { sample = arithmetic, documents = 40 docs, holdout = 0% }
dataset talk { files = "talk.jsonl", kind = dialogs, holdout = 0% }
dataset pairs { files = "pairs.jsonl", kind = preferences, holdout = 0% }
dataset asks { files = "asks.jsonl", kind = prompts }
stage pre: train { model = tiny, steps = 2, seq_len = 128, batch = 4 seqs, lr = 1e-3, data = docs }
stage sft: sft { from = pre, dialog = chat, steps = 2, seq_len = 512, batch = 2 seqs, lr = 1e-5, data = talk }
stage whole: sft { from = pre, dialog = chat, steps = 2, seq_len = 512, batch = 2 seqs, lr = 1e-5, data = talk, loss = all }
stage rm: reward { from = pre, dialog = chat, steps = 2, seq_len = 512, batch = 2 pairs, lr = 1e-5, data = pairs }
stage drafts: sample { from = sft, dialog = chat, prompts = asks, draws = 2, max_tokens = 8, judge = rm }
stage tuned: dpo { from = sft, dialog = chat, steps = 2, seq_len = 512, batch = 2 pairs, lr = 1e-6, data = pairs, mask = formatting }
stage more: sft { from = sft, dialog = chat, steps = 2, seq_len = 512, batch = 2 seqs, lr = 1e-5, data = drafts }
stage mean: average { of = [sft, whole] }
"""  # noqa: E501
TALK = [
    {"messages": [{"role": "user", "content": "Hi é"}, {"role": "assistant", "content": "Yes é."}]},
    {"messages": [{"role": "user", "content": "q"}]},
    {"messages": [{"role": "user", "content": "2?"}, {"role": "assistant", "content": "No."}]},
]
PAIRS = [
    {"prompt": "q", "chosen": "good", "rejected": "bad", "edited": "best"},
    {"prompt": "q", "chosen": "same", "rejected": "same"},
]
RATED = [("yes", True), ("no", False)]
HEAD = "<|start_header_id|>assistant<|end_header_id|>\n\n"


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """The command line turns the garbage collector off; the tests continue."""
    yield
    gc.enable()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    return tmp_path


def write(folder: Path, tokenizer: str = "bytes", talk: list[Any] | None = None) -> None:
    (folder / "r.etude").write_text(SPEC.replace("TOKENIZER", tokenizer))
    asks = [{"prompt": [{"role": "user", "content": "Why?"}]}]
    for name, records in [
        ("talk", TALK if talk is None else talk),
        ("pairs", PAIRS),
        ("asks", asks),
    ]:
        lines = (each if isinstance(each, str) else json.dumps(each) for each in records)
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def previewed(folder: Path, target: str | None = None, records: int = 2) -> list[Preview]:
    plan = etude.compile(etude.load(folder / "r.etude"))
    return list(previews.preview(plan, folder / "run", folder, target, records=records))


def shown(folder: Path, target: str, number: int = 0) -> Shown:
    (found,) = previewed(folder, target)
    return [item for item in found.items if isinstance(item, Shown)][number]


def learned(record: Shown) -> str:
    return "".join(part.text for part in record.parts if part.learned)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["preview", "r.etude", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_assistants_text_and_its_end_are_learned_and_every_part_has_its_name(
    folder: Path,
) -> None:
    parts = previews.joined(shown(folder, "sft").parts)
    assert [(part.kind, part.text, part.learned) for part in parts] == [
        ("begin", "<|begin_of_text|>", False),
        ("user header", "<|start_header_id|>user<|end_header_id|>\n\n", False),
        ("user", "Hi é", False),
        ("user end", "<|eot_id|>", False),
        ("assistant header", HEAD, False),
        ("assistant", "Yes é.", True),
        ("assistant end", "<|eot_id|>", True),
    ]


def test_with_loss_on_everything_all_but_the_first_token_is_learned(folder: Path) -> None:
    record = shown(folder, "whole")
    assert record.learned == record.tokens - 1
    assert not record.parts[0].learned


def test_a_message_of_weight_0_is_context(folder: Path) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "unlearned", "weight": 0},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "taught"},
    ]
    write(folder, talk=[{"messages": messages}])
    assert learned(shown(folder, "sft")) == "taught<|eot_id|>"


def test_thoughts_and_tool_calls_have_names_of_their_own(folder: Path) -> None:
    template = (
        "{% for m in messages %}<|turn|>{{ m.role }}\n"
        "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n{% endif %}"
        "{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}"
        "{{ c.function.arguments | tojson }}</call>{% endfor %}<|over|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    (folder / "t.jinja").write_text(template)
    call = {"type": "function", "function": {"name": "look", "arguments": {"x": 1}}}
    answer = {
        "role": "assistant",
        "content": "So:",
        "reasoning_content": "Hm.",
        "tool_calls": [call],
    }
    write(folder, talk=[{"messages": [{"role": "user", "content": "q"}, answer]}])
    spec = (folder / "r.etude").read_text().replace("protocol = llama3", 'template = "t.jinja"')
    (folder / "r.etude").write_text(spec)
    parts = previews.joined(shown(folder, "sft").parts)
    named = {part.kind: part.text for part in parts if part.learned}
    assert named == {
        "thought": "<think>\nHm.\n</think>\n",
        "assistant": "So:",
        "tool call": '<call>look{"x": 1}</call>',
        "assistant end": "<|over|>",
    }


def test_preferences_say_which_response_is_which_and_dpo_compares_the_best_and_the_worst(
    folder: Path,
) -> None:
    record = shown(folder, "tuned")
    counted = {part.branch: "" for part in record.parts}
    for part in record.parts:
        counted[part.branch] += part.text if part.learned else ""
    assert counted == {"prompt": "", "edited": "best", "chosen": "", "rejected": "bad"}


def test_a_rated_answer_is_learned_and_its_label_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = """
dataset rated { files = "rated.jsonl", kind = ratings, holdout = 0% }
stage kto: kto {
  from = sft, dialog = chat, steps = 2, seq_len = 512, batch = 2 ratings, lr = 1e-6, data = rated
}
"""
    (folder / "r.etude").write_text((folder / "r.etude").read_text() + more)
    records = [{"prompt": "q", "completion": text, "label": good} for text, good in RATED]
    (folder / "rated.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    for number, (text, good) in enumerate(RATED):
        record = shown(folder, "kto", number)
        assert learned(record) == f"{text}<|end_of_text|>"
        branches = dict.fromkeys(part.branch for part in record.parts)
        assert list(branches) == ["prompt", "good" if good else "bad"]
    _, out, _ = run(capsys, "kto")
    assert "every token of the answer counts" in out


@pytest.mark.parametrize(
    ("loss", "read"),
    [("all", [("1", "\n"), ("2", "\n"), ("3", "<|end_of_text|>")]), ("last", ["3"])],
)
def test_steps_are_shown_with_their_labels_and_where_their_scores_are_read(
    folder: Path, capsys: pytest.CaptureFixture[str], loss: str, read: list[Any]
) -> None:
    more = f"""
dataset checked {{ files = "checked.jsonl", kind = solutions, holdout = 0% }}
stage steps: prm {{
  from = sft, dialog = chat, steps = 2, seq_len = 512, batch = 2 solutions, lr = 1e-6
  data = checked, loss = {loss}
}}
"""
    (folder / "r.etude").write_text((folder / "r.etude").read_text() + more)
    record = {"prompt": "q", "completions": ["a", "b", "c"], "labels": [True, True, False]}
    (folder / "checked.jsonl").write_text(json.dumps(record) + "\n")
    found = shown(folder, "steps")
    assert list(dict.fromkeys(part.branch for part in found.parts)) == [
        *("prompt", "step 1, right", "step 2, right", "step 3, wrong")
    ]
    taught = [(part.branch[5], part.text) for part in found.parts if part.learned]
    assert taught == read if loss == "all" else [branch for branch, _ in taught] == read
    _, out, _ = run(capsys, "steps")
    where = "the end of every step" if loss == "all" else "the end of the last step"
    assert where in " ".join(out.split())


def test_a_reward_model_reads_its_scores_at_the_ends(folder: Path) -> None:
    taught = [(part.branch, part.text) for part in shown(folder, "rm").parts if part.learned]
    assert taught == [(branch, "<|end_of_text|>") for branch in ("edited", "chosen", "rejected")]


def test_prompts_end_with_the_assistants_header(folder: Path) -> None:
    record = shown(folder, "drafts")
    assert "".join(part.text for part in record.parts).endswith(HEAD)
    assert record.learned == 0


def test_refused_records_are_named_and_those_after_them_shown(folder: Path) -> None:
    write(folder, talk=["{no json", *TALK])
    (found,) = previewed(folder, "sft")
    assert [(each.record, each.place) for each in found.refused] == [
        (1, "talk.jsonl:1"),
        (3, "talk.jsonl:3"),
    ]
    assert "JSON" in found.refused[0].reason
    assert "of `user`" in found.refused[1].reason
    assert [item.record for item in found.items if isinstance(item, Shown)] == [2, 4]
    assert found.stops
    assert (found.looked.records, found.looked.kept, found.looked.whole) == (4, 2, True)


def test_refusals_that_the_data_set_allows_stop_no_run(folder: Path) -> None:
    spec = (folder / "r.etude").read_text()
    spec = spec.replace('"talk.jsonl",', '"talk.jsonl", bad_lines = 1,')
    (folder / "r.etude").write_text(spec)
    (found,) = previewed(folder, "sft")
    assert len(found.refused) == 1
    assert not found.stops


def test_records_far_behind_are_not_looked_at(folder: Path) -> None:
    write(folder, talk=[TALK[0]] * 400 + ["{no json"])
    (found,) = previewed(folder, "sft")
    assert not found.refused
    assert not found.looked.whole
    assert found.looked.records == 200


def test_without_a_target_every_source_of_a_stage_that_trains_is_shown_once(folder: Path) -> None:
    seen = [(each.use.stage, each.use.source) for each in previewed(folder, records=1)]
    assert seen == [
        ("pre", "docs"),
        ("sft", "talk"),
        ("whole", "talk"),
        ("rm", "pairs"),
        ("tuned", "pairs"),
        ("more", "drafts"),
    ]


def test_a_data_set_is_shown_as_its_first_user_sees_it(folder: Path) -> None:
    (found,) = previewed(folder, "talk")
    assert found.use.stage == "sft"


def test_what_no_stage_has_drawn_yet_is_said_with_the_stage(folder: Path) -> None:
    (found,) = previewed(folder, "more")
    assert not found.items
    assert not found.stops
    assert "the stage `drafts` makes these records" in found.notes[0]


def test_a_row_shows_its_documents_and_learns_all_but_the_first_token_of_each(
    folder: Path,
) -> None:
    record = shown(folder, "pre", 1)
    assert record.tokens == 129
    assert {part.document.partition(":")[0] for part in record.parts} == {"arithmetic"}
    for part in record.parts[1:]:
        assert part.learned == (part.kind != "begin")


def test_documents_of_a_large_source_are_shown_in_its_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etude.runtime.preview.rows.SMALL", 2000)
    (found,) = previewed(folder, "pre")
    first = found.items[0]
    assert isinstance(first, Shown)
    assert first.parts[0].document == "arithmetic:1"
    assert not found.looked.whole
    assert "in its order" in found.notes[0]


TRAINED = "train = { on [docs], vocab 290 }"


def test_a_small_tokenizer_is_trained_as_the_run_will_do_it(folder: Path) -> None:
    write(folder, TRAINED)
    (found,) = previewed(folder, "sft")
    assert found.counted
    assert "has been trained here" in found.notes[0]
    assert found.items[0] == shown_with(folder, made_by_a_run(folder))


def test_a_tokenizer_of_the_run_is_taken_without_a_word(folder: Path) -> None:
    write(folder, TRAINED)
    made_by_a_run(folder)
    (found,) = previewed(folder, "sft")
    assert not found.notes


def made_by_a_run(folder: Path) -> Path:
    """Makes the tokenizer as a run does."""
    plan = etude.compile(etude.load(folder / "r.etude"))
    job = next(job for job in plan.jobs if isinstance(job, TokenizerJob))
    store = Store(folder / "run")
    store.create()
    key = artifact_key(job, {}, [job_fingerprint(job, folder)])
    make_tokenizer(job, store.work(key), folder, lambda event: None)
    return store.publish(key, store.work(key) / "result", job.id)


def shown_with(folder: Path, tokenizer: Path) -> Shown:
    write(folder, f'file = "{tokenizer}/tokenizer.json"')
    return shown(folder, "sft")


def test_where_a_tokenizer_is_far_from_trained_characters_are_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("etude.runtime.preview.shop.SMALL", 100)
    write(folder, TRAINED)
    _, out, _ = run(capsys, "sft")
    assert "is not trained yet" in out
    assert f"characters, {len('Yes é.<|eot_id|>')} learned" in out
    _, out, err = run(capsys, "sft", "--json")
    assert json.loads(out)[0]["tokens"] is None
    assert "is not trained yet" in err


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("sfft", "there is no stage or data set `sfft`; did you mean `sft`?"),
        ("mean", "the stage `mean` (average) reads no data"),
    ],
)
def test_a_target_that_is_none_is_one_message(
    folder: Path, capsys: pytest.CaptureFixture[str], target: str, message: str
) -> None:
    code, out, err = run(capsys, target)
    assert code == 2
    assert not out
    assert message in err
    assert "stages with data: pre, sft" in err


def test_a_missing_file_is_a_message_and_the_other_sources_are_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "talk.jsonl").unlink()
    code, out, err = run(capsys, "-n", "1")
    assert code == 1
    assert err.count("there is no file `talk.jsonl`") == 1 + err.count("note")
    assert "rm trains on pairs" in out


def test_a_spec_with_errors_shows_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "r.etude").write_text(SPEC.replace("TOKENIZER", "bytes").replace("steps = 2", ""))
    code, out, err = run(capsys)
    assert code == 1
    assert not out
    assert "error[" in err


def test_json_lists_records_whose_parts_are_their_whole_text(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "sft", "--json")
    assert code == 1  # one is refused
    first, refused, third = json.loads(out)
    assert set(first) == {"stage", "source", "record", "place", "tokens", "learned", "parts"}
    assert (first["source"], first["record"], first["place"]) == ("talk", 1, "talk.jsonl:1")
    assert first["tokens"] == sum(part["tokens"] for part in first["parts"])
    assert first["learned"] == sum(part["tokens"] for part in first["parts"] if part["learned"])
    text = "".join(part["text"] for part in first["parts"])
    begin = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi é<|eot_id|>"
    assert text == f"{begin}{HEAD}Yes é.<|eot_id|>"
    assert third["record"] == 3
    assert set(refused) == {"stage", "source", "record", "place", "refused", "help"}


def test_in_pipes_what_is_learned_stands_in_brackets(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, "sft")
    assert "⟦Yes é.<|eot_id|>⟧" in out
    assert "\033" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_long_texts_are_shown_by_their_ends(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"role": "user", "content": "b" + "u" * 2000 + "e"}
    messages = [asked, {"role": "assistant", "content": "a"}]
    spec = (folder / "r.etude").read_text().replace("seq_len = 512", "seq_len = 4096")
    write(folder, talk=[{"messages": messages}])
    (folder / "r.etude").write_text(spec)
    _, out, _ = run(capsys, "sft")
    assert "… 802 characters left out …\n" in out
    assert out.count("u" * 20) < 100
    _, full, _ = run(capsys, "sft", "--full")
    assert "left out" not in full
    assert full.count("u") > 2000


def test_an_awaited_file_that_is_not_there_is_a_note(folder: Path) -> None:
    spec = (folder / "r.etude").read_text()
    spec = spec.replace('"talk.jsonl", kind', '"later.jsonl", awaited, kind')
    (folder / "r.etude").write_text(spec)
    (found,) = previewed(folder, "sft")
    assert "a run waits for `later.jsonl`" in found.notes[0]
    assert not found.stops


def test_nothing_is_imported_that_needs_torch(folder: Path) -> None:
    code = (
        "import sys; from etude.cli.main import main; main(['preview', 'r.etude']); "
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, timeout=120
    )
    assert ended.stderr.endswith("False\n")


def test_the_output_in_the_docs_is_real(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    command, text = re.findall(
        r"\$ etude (preview .*?)\n```\n\n```text\n(.*?)\n```", page, flags=re.DOTALL
    )[0]
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 0
    assert capsys.readouterr().out.rstrip("\n") == text


def test_the_python_api_gives_what_json_gives(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, "sft", "--json")
    plan = etude.compile(etude.load("r.etude"))
    assert etude.preview(plan, "sft") == json.loads(out)


def test_a_layout_that_is_recognized_is_said(folder: Path) -> None:
    write(folder, talk=[{"instruction": "Add.", "input": "1 1", "output": "2"}] * 2)
    (found,) = previewed(folder, "sft")
    assert "2 records read in the layout of Alpaca" in found.notes
