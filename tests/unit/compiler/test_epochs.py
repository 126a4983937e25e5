"""Lengths in epochs of data that nobody has counted: estimated, then counted."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from specs import HEAD, jobs, plan, stage
from weights_folders import write_folder

from etude.compiler.driver import analyse, compile
from etude.compiler.files.counts_file import counts_path, read_counts, write_counts
from etude.compiler.files.estimates import estimate
from etude.compiler.plan.plan import Plan
from etude.compiler.plan.summary import Count
from etude.compiler.schedule.counts import passes
from etude.runtime.errors import RunError
from etude.runtime.preparation.counting import require_exact
from etude.spec.load import read
from etude.spec.schema import recipe as r

TALK = 'dataset talk { files = "talk.jsonl", kind = dialogs }\n'
LIKES = 'dataset likes { files = "likes.jsonl", kind = preferences }\n'
SFT = "lr = 0 -> 1e-4 for 10% then -> 1e-5, seq_len = 16, batch = 4 seqs"
FIRST = stage(steps="10")


def planned(folder: Path, text: str) -> Plan:
    file = folder / "spec.etude"
    file.write_text(HEAD + text)
    found = analyse(read(file), root=folder)
    made = compile(found)
    assert made, [f"{d.code} {d.message}" for d in found.report.ordered()]
    return made.plan


def counting(plan: Plan, *numbers: int) -> dict[str, dict[str, Any]]:
    return {each.identity: {"numbers": list(numbers)} for each in plan.counts}


def test_files_are_estimated_until_they_are_counted(tmp_path: Path) -> None:
    line = json.dumps({"text": "x" * 388}) + "\n"
    (tmp_path / "books.jsonl").write_text(line * 100)
    text = 'dataset books { files = "books.jsonl" }\n' + stage(
        data="books", epochs="2", lr="0 -> 1e-3 for 10% then -> 1e-4"
    )
    about = planned(tmp_path, text)
    (count,) = about.counts
    assert (count.unit, count.exact, count.stage) == ("tokens", False, "first")
    assert "estimated from 40.1 kB of files" in count.said
    assert count.numbers == [round(0.995 * len(line) * 100 / 4)]
    with pytest.raises(RunError) as refused:
        require_exact(about)
    assert "the length of `first` is an estimate" in refused.value.message
    write_counts(counts_path(tmp_path / "spec.etude"), counting(about, 3200))
    exact = planned(tmp_path, text)
    require_exact(exact)
    (job,) = jobs(exact)
    assert job.steps == 2 * 3200 // 64
    assert job.data["books"].epochs == 2
    # A tenth of the steps warms up.
    assert [piece.to_step for piece in job.schedule.lr] == [10, 100]
    assert exact.counts[0].exact
    assert planned(tmp_path, text).to_json() == exact.to_json()


def test_the_data_are_the_same_job_whatever_the_count(tmp_path: Path) -> None:
    text = TALK + FIRST + f"stage sft: sft {{ data = talk, epochs = 2, {SFT} }}\n"
    about = planned(tmp_path, text)
    count: Count = about.counts[0]
    write_counts(counts_path(tmp_path / "spec.etude"), counting(about, 30, 31))
    exact = planned(tmp_path, text)
    assert exact.counts[0].job == count.job
    assert exact.counts[0].identity == count.identity


def test_dialogs_are_counted_in_rows_of_each_epoch(tmp_path: Path) -> None:
    text = TALK + FIRST + f"stage sft: sft {{ data = talk, epochs = EPOCHS, {SFT}, MORE }}\n"
    for epochs, numbers, more, steps in (
        ("2", (30, 31), "loss = all", 15),
        ("2.5", (30, 31, 40), "loss = all", 20),
        ("2", (30, 31), "drop_last = true", 14),
        ("2.5", (30, 31, 40), "drop_last = true", 19),
    ):
        own = text.replace("EPOCHS", epochs).replace("MORE", more)
        write_counts(
            counts_path(tmp_path / "spec.etude"), counting(planned(tmp_path, own), *numbers)
        )
        (job,) = jobs(planned(tmp_path, own), "sft")
        assert job.steps == steps


def test_a_batch_of_dialogs_counts_them_once(tmp_path: Path) -> None:
    text = TALK + FIRST + f"stage sft: sft {{ data = talk, epochs = 2, {SFT} }}\n"
    rows = planned(tmp_path, text).counts[0]
    text = text.replace(SFT, SFT.replace("4 seqs", "4 dialogs"))
    about = planned(tmp_path, text)
    assert about.counts[0].unit == "dialogs"
    assert about.counts[0].identity != rows.identity
    write_counts(counts_path(tmp_path / "spec.etude"), counting(about, 30))
    (job,) = jobs(planned(tmp_path, text), "sft")
    assert (job.steps, job.data["talk"].epochs) == (15, 2)


def test_a_count_of_fewer_epochs_is_not_enough(tmp_path: Path) -> None:
    text = TALK + FIRST + f"stage sft: sft {{ data = talk, epochs = 2, {SFT} }}\n"
    write_counts(counts_path(tmp_path / "spec.etude"), counting(planned(tmp_path, text), 30, 31))
    assert planned(tmp_path, text).counts[0].exact
    assert not planned(tmp_path, text.replace("epochs = 2", "epochs = 3")).counts[0].exact


def test_preferences_are_counted_in_pairs(tmp_path: Path) -> None:
    dpo = "stage dpo: dpo { data = likes, epochs = 2, batch = 4 pairs, seq_len = 16, lr = 1e-5 }\n"
    text = LIKES + FIRST + dpo
    (tmp_path / "likes.jsonl").write_text('{"a": 1}\n' * 200)
    about = planned(tmp_path, text)
    assert about.counts[0].numbers == [199]
    write_counts(counts_path(tmp_path / "spec.etude"), counting(about, 20))
    (job,) = jobs(planned(tmp_path, text), "dpo")
    assert (job.steps, job.data["likes"].epochs) == (10, 2)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("seq_len = 16", "seq_len = 32"),
        ("kind = dialogs", "kind = dialogs, holdout = 10%"),
        ("kind = dialogs", "kind = dialogs, bad_lines = 3"),
        ("stage sft:", "stage tune:"),
        ("seed = 1", "seed = 2"),
    ],
)
def test_what_changes_the_rows_needs_another_count(before: str, after: str, tmp_path: Path) -> None:
    text = TALK + FIRST + f"stage sft: sft {{ data = talk, epochs = 2, {SFT} }}\n"
    one = planned(tmp_path, text).counts[0]
    file = tmp_path / "spec.etude"
    file.write_text(file.read_text().replace(before, after))
    made = compile(analyse(read(file)))
    assert made
    assert made.plan.counts[0].identity != one.identity


def test_a_declared_size_is_taken_and_nothing_is_counted(tmp_path: Path) -> None:
    text = TALK.replace("kind", "tokens = 640, kind") + FIRST
    found = planned(tmp_path, text + f"stage sft: sft {{ data = talk, epochs = 2, {SFT} }}\n")
    assert found.counts == []
    assert jobs(found, "sft")[0].steps == 20


def test_a_source_without_files_is_a_guess_that_says_so() -> None:
    found = plan(HEAD + stage(epochs="1"))
    assert found.counts[0].said.startswith("a guess")


def test_a_note_says_what_is_not_known_yet(tmp_path: Path) -> None:
    file = tmp_path / "spec.etude"
    file.write_text(HEAD + stage(epochs="1"))
    report = analyse(read(file)).report
    (note,) = [d for d in report.ordered() if d.code == "N664"]
    assert note.message.startswith("the stage `first` has about")
    assert "etude prepare" in note.help
    made = compile(analyse(read(file)))
    assert made
    write_counts(counts_path(file), counting(made.plan, 640))
    assert "N664" not in [d.code for d in analyse(read(file)).report.ordered()]


def test_a_tuned_model_s_recipe_counts_by_the_tokenizer_of_its_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "base")
    file = tmp_path / "spec.etude"
    file.write_text(
        f'recipe s {{ seed = 1 }}\nmodel base {{ weights = "base" }}\n{TALK}'
        f"stage sft: sft {{ from = base, data = talk, epochs = 1, {SFT} }}\n"
    )
    made = compile(analyse(read(file)))
    assert made
    assert made.plan.counts[0].unit == "rows"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        '{"etude_counts": 2, "counts": {"x": {"numbers": [1]}}}',
        '{"etude_counts": 1, "counts": []}',
        '{"etude_counts": 1, "counts": {"x": 3, "y": {"numbers": []}, "z": {"numbers": [0]}}}',
        '{"etude_counts": 1, "counts": {"x": {"numbers": [true]}, "y": {"numbers": ["1"]}}}',
    ],
)
def test_a_file_that_holds_no_counts_is_as_none(text: str, tmp_path: Path) -> None:
    file = tmp_path / "s.counts.json"
    file.write_text(text)
    assert read_counts(file) == {}
    write_counts(file, {"a": {"numbers": [1]}})
    write_counts(file, {"b": {"numbers": [2, 3]}})
    assert read_counts(file) == {"a": (1,), "b": (2, 3)}


def test_passes_over_epochs_that_differ() -> None:
    assert passes((10,), Fraction(5, 2)) == 25
    assert passes((10, 20, 40), Fraction(5, 2)) == 50
    assert passes((10, 20), Fraction(1, 2)) == 5


def test_estimates_know_compression_parts_and_limits(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("x" * 99 + "\n" + "x" * 99 + "\n")
    (tmp_path / "a.jsonl.gz").write_bytes(b"x" * 200)

    def about(by_bytes: bool = False, **given: Any) -> tuple[float, float]:
        dataset = r.Dataset(name="d", files=["a.jsonl"], holdout=Fraction(0))
        values = {name: getattr(dataset, name) for name in ("name", "files", "holdout")} | given
        found = estimate(r.Dataset(**values), tmp_path, by_bytes=by_bytes)
        return float(found.tokens), float(found.records)

    assert about() == (50, 2)
    assert about(by_bytes=True)[0] == pytest.approx(4 * about()[0])
    assert about(documents=1)[1] == 1
    assert about(holdout=Fraction(1, 2))[0] == pytest.approx(about()[0] / 2)
    assert about(deal=(2, 1, 1)) == (25, 1)
    assert about(files=["a.jsonl.gz"], documents=None)[0] == pytest.approx(500)
