"""What an edit leaves alone is not computed again, and what is wrong is said again."""

from pathlib import Path
from typing import Any

import pytest

from etude.compiler.program import ScheduledStage
from etude.compiler.schedule import schedule
from etude.lsp.project import Project
from etude.spec.schema.attributes import Attributes

TEXT = """\
recipe many { title = "Many" }
model base { family = llama3, layers = 2, dim = 96, heads = 4, ffn = 256 }
tokenizer words { train = { on [text], vocab 512 } }
dataset text { sample = python_docs, tokens = 100M }
stage one: train {
  model = base, data = text, tokens = 4M, seq_len = 512, batch = 8 seqs, lr = 1e-3 -> 1e-4
}
stage two: train { tokens = 2M, lr = last -> 0 }
stage three: train { tokens = 1M, lr = 1e-5 }
"""
PATH = Path("/nowhere/many.etude")
Counted = dict[str, list[str]]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """The blocks that were read, and the stages that were scheduled."""
    found: Counted = {"read": [], "scheduled": []}
    build, run = Attributes._build, schedule._Scheduler.run

    def building(self: Attributes, *args: Any, **given: Any) -> Any:
        if "name" in given:
            found["read"].append(given["name"])
        return build(self, *args, **given)

    def running(self: Any) -> Any:
        found["scheduled"].append(self.stage.name)
        return run(self)

    monkeypatch.setattr(Attributes, "_build", building)
    monkeypatch.setattr(schedule._Scheduler, "run", running)
    return found


def codes(project: Project, text: str) -> list[str]:
    project.open(PATH, text)
    analysis = project.analysis(PATH)
    assert analysis
    return [each.code for each in analysis.diagnostics]


def test_an_edit_reads_its_block_and_schedules_what_continues_from_it(counted: Counted) -> None:
    project = Project()
    codes(project, TEXT)
    assert {"base", "text", "one", "two", "three"} <= set(counted["read"])
    assert counted["scheduled"] == ["one", "two", "three"]
    for of in counted.values():
        of.clear()
    codes(project, TEXT.replace("tokens = 2M, lr = last -> 0", "tokens = 2M, lr = last -> 1e-6"))
    assert counted["read"] == ["two"]
    assert counted["scheduled"] == ["two", "three"]


def test_blocks_that_only_move_are_not_read_again(counted: Counted) -> None:
    project = Project()
    codes(project, TEXT)
    for of in counted.values():
        of.clear()
    codes(project, "\n# above\n" + TEXT)
    assert counted == {"read": ["many"], "scheduled": []}  # the comment is its own


def test_findings_come_with_every_reading(counted: Counted) -> None:
    project = Project()
    wrong = TEXT.replace("lr = 1e-5", "lr = 1e-5, colour = 3")
    first = codes(project, wrong)
    assert "E308" in first
    counted["read"].clear()
    assert codes(project, "\n" + wrong) == first
    assert "three" in counted["read"]
    assert "one" not in counted["read"]


def test_a_count_that_epochs_need_is_not_kept(counted: Counted) -> None:
    project = Project()
    text = TEXT.replace("tokens = 1M, lr = 1e-5", "epochs = 1, lr = 1e-5")
    codes(project, text)
    counted["scheduled"].clear()
    codes(project, text.replace("tokens = 100M", "tokens = 200M"))
    assert counted["scheduled"] == ["three"]
    analysis = project.analysis(PATH)
    three = analysis and analysis.program and analysis.program.stages["three"]
    assert isinstance(three, ScheduledStage)
    assert three.tokens == pytest.approx(200e6, rel=0.01)
