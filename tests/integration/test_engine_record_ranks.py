"""SFT, reward models, DPO and what they need: on two ranks as on one, killed or not."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_jobs import run, same, tensors, train_job
from record_jobs import (
    ACCURACY,
    LOSSES,
    forward_job,
    held_out_job,
    make_records,
    record_job,
)
from test_engine_ranks import Run, Workplace
from test_engine_records import unpacked

from etude.compiler.plan.plan import (
    Distill,
    Dpo,
    Kto,
    Prm,
    ReferenceJob,
    Reward,
    ScoreJob,
    Sft,
    TeacherJob,
)
from etude.runtime.engine.measures.forward import held_out, reference, score
from etude.runtime.engine.measures.teaching import teach
from etude.runtime.engine.records import loader as record_loader

DPO = Dpo(beta=0.3, nll=0.2, label_smoothing=0.1, normalize=True, mask="formatting")
ORPO = Dpo(
    objective="orpo", beta=0.3, nll=1.0, label_smoothing=0.0, normalize=True, mask="formatting"
)
KTO = Kto(beta=0.3, desirable_weight=1, undesirable_weight=1.5, mask="formatting")
KILLED: dict[str, Any] = {"sft": Sft(), "reward": Reward(), "dpo": DPO}
DISTILL = Distill(divergence="jsd", temperature=1.0, top_k=16)
OBJECTIVES = {
    **KILLED,
    "dialogs": Sft(counts="dialogs"),
    "ranking": Reward(objective="plackett_luce"),
    "orpo": ORPO,
    "kto": KTO,
    "prm": Prm(),
    "distill": DISTILL,
}
HELD = [
    each.model_copy(update={"data": ["held chat"]}) if each.data == ["chat"] else each
    for each in LOSSES
]
RANKED = ACCURACY.model_copy(update={"data": ["held prefer"]})
LAYOUTS = {"sharded": {}, "tensor": {"tensor_parallel_degree": 2}}
PLACED = [
    (name, layout)
    for layout in LAYOUTS
    for name in OBJECTIVES
    if (name, layout) != ("distill", "tensor")
]
"""A student compares all tokens at a place: it has no tensor parallelism."""


def job(name: str, layout: str, world_size: int = 2, steps: int = 1) -> Any:
    parallelism = {"torchtitan": {"parallelism": LAYOUTS[layout]}}
    keywords: Any = {"steps": steps, "checkpoint_every": 2, "world_size": world_size, **parallelism}
    made = record_job(OBJECTIVES[name], **keywords)
    return _with_degree(made, layout)


def _with_degree(made: Any, layout: str) -> Any:
    """The plan's resources say what torchtitan's sections do."""
    if layout == "tensor":
        degrees = {**vars(made.resources), "shard": 1, "tensor": 2}
        return made.model_copy(update={"resources": type(made.resources)(**degrees)})
    return made


def forward_on_two(kind: Any, source: str, layout: str, **changes: Any) -> Any:
    return on_two(forward_job(kind, source, world_size=2, **changes), layout)


def on_two(made: Any, layout: str) -> Any:
    sections = {**made.torchtitan, "parallelism": LAYOUTS[layout]}
    return _with_degree(made.model_copy(update={"torchtitan": sections}), layout)


@pytest.fixture(scope="module")
def place(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """One rank has made the model and its reference; two have run everything else."""
    root = tmp_path_factory.mktemp("record_ranks")
    held = make_records(root / "held", Fraction(1, 2))
    named = {f"data:held {role.removeprefix('data:')}": path for role, path in held.items()}
    roles = {**inputs, **make_records(root), **named}
    # Not the same model, so that no margin is 0.
    for name, seed in (("lm", 1), ("other", 2)):
        first = train_job(steps=2).model_copy(update={"seed": seed})
        run(first, roles, root / name)
        roles["model"] = root / name / "result"
    begun = {**roles, "model": root / "lm" / "result"}
    reference(
        forward_job(ReferenceJob, "prefer", mask="formatting"),
        roles,
        root / "reference",
        root=root,
        on_event=lambda _: None,
    )
    reference(
        forward_job(ReferenceJob, "rated", mask="formatting", form="ratings"),
        roles,
        root / "rated",
        root=root,
        on_event=lambda _: None,
    )
    teacher = forward_job(TeacherJob, "chat")
    teach(teacher, roles, root / "teacher", root=root, on_event=lambda _: None)
    begun |= {
        "teacher:chat": root / "teacher" / "result",
        "reference:prefer": root / "reference" / "result",
        "reference:rated": root / "rated" / "result",
    }
    made = Workplace(begun, root)
    runs = []
    for name in KILLED:
        killed = Run(job(name, "sharded", steps=5), f"killed {name}", kill_at=3)
        assert made.run(killed) != 0
        killed.kill_at = None
        runs += [killed, Run(job(name, "sharded", steps=5), f"whole {name}")]
    runs.append(Run(forward_on_two(TeacherJob, "chat", "sharded"), "teacher sharded"))
    for layout in LAYOUTS:
        runs += [Run(job(name, of), f"{name} {of}") for name, of in PLACED if of == layout]
        runs += [
            Run(
                forward_on_two(ReferenceJob, "prefer", layout, mask="formatting"),
                f"reference {layout}",
            ),
            Run(forward_on_two(ScoreJob, "web", layout), f"score {layout}"),
            Run(on_two(held_out_job(*HELD, world_size=2), layout), f"losses {layout}"),
            Run(
                on_two(held_out_job(RANKED, world_size=2), layout),
                f"accuracy {layout}",
                model="whole reward",
            ),
        ]
    assert made.run(*runs) == 0
    return made


@pytest.mark.parametrize(("name", "layout"), PLACED)
def test_two_ranks_compute_the_loss_and_gradients_of_one(
    place: Workplace, tmp_path: Path, name: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one step, AdamW's first moments are a tenth of the clipped gradients.

    The one rank has a row for each preference, where the two pack them.
    """
    monkeypatch.setattr(record_loader, "balanced_rows", unpacked)
    (one,) = run(job(name, "sharded", world_size=1), place.inputs, tmp_path / "job")
    (two,) = place.events(f"{name} {layout}")
    measured = {
        "loss",
        "grad_norm",
        "accuracy",
        "margin",
        "nll",
        "chosen_reward",
        "rejected_reward",
        "preference_loss",
        "divergence",
        "right_accuracy",
        "wrong_accuracy",
        "desirable_reward",
        "undesirable_reward",
        "kept",
        "agreement",
    }
    assert one.keys() == two.keys() - {"max_loss"}  # of the ranks with data of their own
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    for key in one.keys() - {"tokens_per_second", "seconds", "data_seconds"}:
        value = one[key]
        near = pytest.approx(value, rel=1e-4, abs=1e-6) if key in measured else value
        assert two[key] == near, key
    ours = tensors(tmp_path / "job" / "result" / "state")
    theirs = tensors(place.result(f"{name} {layout}") / "state")
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        if key.endswith(".exp_avg"):
            assert tensor.any(), key
            torch.testing.assert_close(tensor, theirs[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", KILLED)
def test_two_ranks_killed_and_resumed_end_bit_for_bit_alike(place: Workplace, name: str) -> None:
    assert [event["step"] for event in place.events(f"killed {name}")] == [2, 3, 4]
    assert same(place.result(f"whole {name}") / "state", place.result(f"killed {name}") / "state")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_two_ranks_say_is_what_one_says(place: Workplace, tmp_path: Path, layout: str) -> None:
    reference(
        forward_job(ReferenceJob, "prefer", mask="formatting"),
        place.inputs,
        tmp_path / "one",
        root=tmp_path,
        on_event=lambda _: None,
    )
    one = np.load(tmp_path / "one" / "result" / "reference.npy")
    two = np.load(place.result(f"reference {layout}") / "reference.npy")
    np.testing.assert_allclose(one, two, rtol=1e-5)
    score(
        forward_job(ScoreJob, "web"),
        place.inputs,
        tmp_path / "score",
        root=tmp_path,
        on_event=lambda _: None,
    )
    for split in ("train", "heldout"):
        ours = np.load(tmp_path / "score" / "result" / f"{split}.npy")
        theirs = np.load(place.result(f"score {layout}") / f"{split}.npy")
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_teacher_says_on_two_ranks_what_it_says_on_one(place: Workplace, tmp_path: Path) -> None:
    job = forward_job(TeacherJob, "chat")
    teach(job, place.inputs, tmp_path / "one", root=tmp_path, on_event=lambda _: None)
    one, two = (
        np.load(folder / "top.npy")
        for folder in (tmp_path / "one" / "result", place.result("teacher sharded"))
    )
    np.testing.assert_allclose(one[:, :16], two[:, :16], rtol=1e-5)
    assert (one[:, 16:] == two[:, 16:]).mean() > 0.99  # two tokens may be equally likely


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_ranks_measure_what_one_measures(place: Workplace, tmp_path: Path, layout: str) -> None:
    """Losses of documents and of chats, and the accuracy of a reward model."""
    rewards = {**place.inputs, "model": place.result("whole reward")}
    for name, given, measures in (
        ("losses", place.inputs, HELD),
        ("accuracy", rewards, [RANKED]),
    ):
        job = held_out_job(*measures)
        held_out(job, given, tmp_path / name, root=tmp_path, on_event=lambda _: None)
        one = json.loads((tmp_path / name / "result" / "scores.json").read_text())
        two = json.loads((place.result(f"{name} {layout}") / "scores.json").read_text())
        assert one.keys() == two.keys() == {each.name for each in measures}
        for measure, figures in one.items():
            for figure, value in figures.items():
                assert value == pytest.approx(two[measure][figure], rel=1e-5, abs=1e-6), figure
