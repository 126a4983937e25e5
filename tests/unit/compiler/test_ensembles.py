"""Ensembles of reward models: who may be in one, and the jobs of their uses."""

from pathlib import Path

import pytest
from test_published_judges import DRAFTS, HEAD, SCORER, planned, write
from weights_folders import write_folder

from etude.compiler.driver import analyse, compile_miniature
from etude.compiler.plan.plan import (
    EnsembleJob,
    Grpo,
    JudgeJob,
    Reward,
    RolloutJob,
    TrainJob,
)
from etude.spec.load import read

MORE = 'model other { weights = "other" }\n'
BOTH = MORE + "stage both: ensemble { of = [rm, other], combine = minus_std, penalty = 0.5 }\n"
RL = (
    "stage rl: grpo { from = base, data = asks, steps = 2, batch = 4 prompts, seq_len = 64\n"
    "  lr = 1e-5, max_tokens = 8, reward = both }"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, config in (("base", {}), ("rm", SCORER), ("other", SCORER)):
        write_folder(tmp_path / name, config)
    return tmp_path


def test_every_model_judges_and_one_job_makes_their_scores_one(folder: Path) -> None:
    plan = planned(folder, BOTH + f"{DRAFTS}, judge = both }}")
    jobs = {job.id: job for job in plan.jobs}
    made = jobs["drafts.judge"]
    assert isinstance(made, EnsembleJob)
    assert (made.combine, made.penalty, made.judge) == ("minus_std", 0.5, "both")
    judged = [jobs[f"drafts.judge.{name}"] for name in ("rm", "other")]
    assert all(isinstance(job, JudgeJob) for job in judged)
    assert list(made.inputs.values()) == [job.key for job in judged]
    assert jobs["drafts"].inputs["judged"] == made.key


def test_it_is_a_reward_and_a_measure(folder: Path) -> None:
    plan = planned(
        folder,
        BOTH
        + "stage exam: evaluate { from = base, prompts = asks, max_tokens = 8, judge = both }\n"
        + RL,
    )
    jobs = {job.id: job for job in plan.jobs}
    assert isinstance(jobs["exam.judge"], EnsembleJob)
    rollouts = [job for job in plan.jobs if isinstance(job, RolloutJob)]
    made = {job.key for job in plan.jobs if isinstance(job, EnsembleJob)}
    assert {job.inputs["judged.asks.both"] for job in rollouts} < made


def test_a_miniature_has_stand_ins_for_all_judges(folder: Path) -> None:
    file = folder / "spec.etude"
    file.write_text(HEAD + BOTH + RL)
    found = compile_miniature(analyse(read(file), root=folder))
    assert found
    trains = [job for job in found.plan.jobs if isinstance(job, TrainJob)]
    kinds = {job.stage: type(job.objective) for job in trains}
    assert {name: kinds[name] for name in ("rm", "other", "rl")} == {
        "rm": Reward,
        "other": Reward,
        "rl": Grpo,
    }


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("of = [rm]", "E596", "has only one reward model"),
        ("of = [rm, rm]", "E596", "names a reward model twice"),
        ("of = [rm, base]", "E513", "`base` is not a reward model"),
        ("of = [rm, other], penalty = 2", "E522", "`penalty` has no effect"),
        ("of = [rm, other], combine = median", "E202", ""),
    ],
)
def test_what_is_no_ensemble(folder: Path, text: str, code: str, message: str) -> None:
    stages = f"stage both: ensemble {{ {text} }}\n{DRAFTS}, judge = both }}"
    errors = write(folder, MORE + stages).report.errors
    assert errors[0].code == code
    assert message in errors[0].message


def test_an_ensemble_of_ensembles_is_refused(folder: Path) -> None:
    nested = BOTH + f"stage all: ensemble {{ of = [rm, both] }}\n{DRAFTS}, judge = all }}"
    assert [error.code for error in write(folder, nested).report.errors] == ["E596"]


@pytest.mark.parametrize(
    ("stages", "help"),
    [
        (DRAFTS.replace("from = base", "from = both") + " }", "write no text: name a language mod"),
        ("stage mean: average { of = [both, rm] }", "write one of its reward models, such as `rm`"),
    ],
)
def test_an_ensemble_has_no_weights(folder: Path, stages: str, help: str) -> None:
    (found,) = (e for e in write(folder, BOTH + stages).report.errors if e.code == "E406")
    assert found.message == "`both` is an ensemble: it has no weights"
    assert help in found.help
