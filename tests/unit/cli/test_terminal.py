"""What others have written, in a run folder, reaches a terminal without what a terminal would act
upon: no escape sequence, no carriage return, no sign that turns the direction of text."""

import io
import json
from pathlib import Path

import pytest
from reported_runs import SPEC, Run, answered, fill

from etude.cli.common import problem
from etude.cli.main import main
from etude.cli.progress import display
from etude.compiler.plan.plan_schema import read_plan
from etude.runtime.launchers.record import Launch, save

HOSTILE = "\033]0;owned\a\033[2J\033[31mx\r\u202ey\x9b1m"
COMMANDS = (
    ("status",),
    ("watch",),
    ("logs",),
    ("report",),
    ("report", "--markdown"),
    ("diff", "plain"),
    ("diff",),
    ("clean",),
    ("cancel",),
    ("verify",),
)


def harmless(text: str) -> bool:
    return all(sign.isprintable() or sign == "\n" for sign in text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run in which every text that a run can get from elsewhere is hostile."""
    run = Run(tmp_path / "run")
    fill(run)
    answered(run, "align.2.drafts", 3, text=HOSTILE)
    plan = json.loads((run.folder / "plan.json").read_text())
    plan["title"] = HOSTILE
    for stage in plan["stages"].values():
        for each in stage["values"].values():
            each["value"] = HOSTILE
    (run.folder / "plan.json").write_text(json.dumps(plan))
    for event in ("warning", "note", "error"):
        run.store.tell({"event": event, "message": HOSTILE, "help": HOSTILE})
    save(
        run.folder, Launch("slurm", {"jobs": [], "stopped": {"message": HOSTILE, "help": HOSTILE}})
    )
    (run.folder / "logs").mkdir(exist_ok=True)
    (run.folder / "logs" / "rank-0.log").write_text(f"{HOSTILE}\nmore\n")
    return run.folder


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_command_passes_on_what_a_terminal_acts_upon(
    words: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Run(folder.with_name("plain"), SPEC.replace("1e-3", "2e-3"))
    named = [str(plain.folder) if word == "plain" else word for word in words]
    main([*named, *[str(folder)] * (2 if words == ("diff",) else 1)])
    said = capsys.readouterr()
    assert said.out + said.err
    assert harmless(said.out), repr(said.out)
    assert harmless(said.err), repr(said.err)


def test_what_a_run_says_while_it_works_is_harmless(folder: Path) -> None:
    terminal = io.StringIO()
    with display(read_plan(folder / "plan.json"), terminal, json_lines=False) as tell:
        tell({"event": "warning", "message": HOSTILE})
    assert "y" in terminal.getvalue()
    assert harmless(terminal.getvalue())


def test_a_message_and_its_help_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    problem(HOSTILE, HOSTILE)
    said = capsys.readouterr().err
    assert harmless(said)
    assert "�" in said
