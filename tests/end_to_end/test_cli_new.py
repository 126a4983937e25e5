"""`etude new` as users call it: by options, and by questions at a terminal."""

import json
import os
import pty
import select
import subprocess
import time
from pathlib import Path

from etude_cli import COMMAND, environment, etude
from weights_folders import write_folder


def test_a_new_spec_is_fine_and_is_never_overwritten(tmp_path: Path) -> None:
    made = etude("new", "mine", "--template", "quickstart", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert made.stdout == "wrote mine.etude; next: etude check mine.etude\n"
    assert etude("check", "mine.etude", cwd=tmp_path).returncode == 0
    text = (tmp_path / "mine.etude").read_text()
    again = etude("new", "mine", "--template", "pretrain", cwd=tmp_path)
    assert again.returncode == 1
    assert "mine.etude already exists" in again.stderr
    assert (tmp_path / "mine.etude").read_text() == text
    forced = etude("new", "mine", "--template", "pretrain", "--size", "1B", "--force", cwd=tmp_path)
    assert forced.returncode == 0
    assert 'size = "1B"' in (tmp_path / "mine.etude").read_text()


def test_one_goes_on_from_another(tmp_path: Path) -> None:
    assert etude("new", "one", "--template", "pretrain", cwd=tmp_path).returncode == 0
    two = etude("new", "two", "--template", "align", "--after", "one.etude", cwd=tmp_path)
    assert two.returncode == 0, two.stderr
    plan = json.loads(etude("plan", "two.etude", "--json", cwd=tmp_path).stdout)
    assert plan["stages"]["sft"]["goes_on_from"] == "anneal"


def test_the_templates_are_listed(tmp_path: Path) -> None:
    assert "--rounds" in etude("new", "--list", cwd=tmp_path).stdout
    found = json.loads(etude("new", "--list", "--json", cwd=tmp_path).stdout)
    assert "post_training" in {each["template"] for each in found}
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "bad.etude").write_text("recipe x { seed = many }")
    wrong = [
        ([], "which template?", 2),
        (["My Recipe", "--template", "quickstart"], "such as `my_recipe`", 2),
        (
            ["at", "--template", "quickstart"],
            "`at` cannot be a name: it gives the point in training",
            2,
        ),
        (["x", "--template", "quickstart", "--rounds", "3"], "--rounds is not an option here", 2),
        (["x", "--template", "quickstart", "--after", "y.etude"], "--after is not an option", 2),
        (["x", "--template", "pretrain", "--size", "9B"], "--size: `9B` is not one of", 2),
        (["x", "--template", "align", "--after", "bad.etude"], "error[E201]", 1),
        (["x", "--template", "quickstart", "-o", "no/x.etude"], "cannot be written", 1),
    ]
    for arguments, message, code in wrong:
        done = etude("new", *arguments, cwd=tmp_path, stdin=subprocess.DEVNULL)
        assert (done.returncode, done.stdout) == (code, ""), arguments
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.etude"]


def test_questions_are_asked_at_a_terminal(tmp_path: Path) -> None:
    screen, code = talk(tmp_path, "pretrain", "big", "1B", "lots", "3T", "8", "", "", "")
    assert code == 0, screen
    assert "`lots` is not a whole number" in screen
    assert "next: etude check big.etude" in screen
    text = (tmp_path / "big.etude").read_text()
    assert 'size = "1B"' in text
    assert "tokens    = 3T" in text
    assert '8 of "H100 80GB"' in text


def test_the_end_of_input_is_no_accident(tmp_path: Path) -> None:
    screen, code = talk(tmp_path, "pretrain", "\x04")
    assert code == 1
    assert "there was no answer" in screen
    assert list(tmp_path.iterdir()) == []


def talk(folder: Path, *answers: str) -> tuple[str, int]:
    """What `etude new` shows at a terminal where the answers are typed, and its exit code."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "new"],
        cwd=folder,
        env=environment() | {"TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    screen = ""
    waiting = list(answers)
    deadline = time.monotonic() + 60
    while process.poll() is None or select.select([ours], [], [], 0)[0]:
        assert time.monotonic() < deadline, screen
        if not select.select([ours], [], [], 0.05)[0]:
            continue
        try:
            screen += os.read(ours, 4096).decode("utf-8", "replace")
        except OSError:
            break
        if waiting and screen.endswith(": "):
            answer = waiting.pop(0)
            os.write(ours, (answer if answer == "\x04" else f"{answer}\n").encode())
    os.close(ours)
    return screen, process.wait()


def test_a_spec_that_tunes_weights_is_fine_and_what_is_wrong_is_one_message(tmp_path: Path) -> None:
    write_folder(tmp_path / "base", {"max_position_embeddings": 4096})
    talk = [
        {
            "turns": [
                {"role": "user", "text": f"{n} + 1?"},
                {"role": "assistant", "text": f"{n + 1}. " * (1 + n % 9)},
            ]
        }
        for n in range(300)
    ]
    likes = [{"prompt": "1?", "chosen": f"{n}", "rejected": "no"} for n in range(300)]
    for name, records in (("talk", talk), ("likes", likes)):
        text = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / f"{name}.jsonl").write_text(text)
    (tmp_path / "mixed.jsonl").write_text('{"picture": 1}\n' * 9)
    (tmp_path / "empty.jsonl").write_text("")
    base = ("--weights", "base")
    for template, data in (
        ("sft", ("--data", "talk.jsonl")),
        ("dpo", ("--data", "likes.jsonl")),
        ("align", ("--dialogs", "talk.jsonl", "--preferences", "likes.jsonl")),
    ):
        made = etude("new", f"my_{template}", "--template", template, *base, *data, cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        checked = etude("check", f"my_{template}.etude", cwd=tmp_path)
        assert checked.returncode == 0, checked.stderr
        assert "warning" not in checked.stderr
    text = (tmp_path / "my_sft.etude").read_text()
    assert '{ messages = "turns", content = "text" }' in text
    assert "epochs  = 3" in text
    write_folder(tmp_path / "odd", {"model_type": "llama4_text"})
    sft = ("new", "x", "--template", "sft")
    wrong = [
        ((*sft, "--data", "talk.jsonl"), "name their folder: --weights FOLDER", 2),
        ((*sft, *base), "sft needs a file of dialogs", 2),
        ((*sft, "--weights", "none", "--data", "talk.jsonl"), "hf download OWNER/NAME", 1),
        ((*sft, "--weights", "odd", "--data", "talk.jsonl"), "the nearest that works", 1),
        ((*sft, *base, "--data", "none.jsonl"), "none.jsonl", 1),
        ((*sft, *base, "--data", "empty.jsonl"), "has no records", 1),
        ((*sft, *base, "--data", "mixed.jsonl"), "9 of 9 records are no dialogs", 1),
        ((*sft, *base, "--data", "talk.jsonl", "--size", "8B"), "--size is not an option", 2),
        (("new", "x", "--template", "pretrain", *base), "--weights is not an option here", 2),
    ]
    for arguments, message, code in wrong:
        found = etude(*arguments, cwd=tmp_path)
        assert found.returncode == code, (arguments, found.stderr)
        assert message in " ".join(found.stderr.split())
        assert "Traceback" not in found.stderr
    assert not (tmp_path / "x.etude").exists()
