"""Settings that change over time: the norm to clip at, weight decay, and the routing bias."""

from typing import Any

import pytest
from specs import HEAD, after, check, codes, jobs, miniature, only, plan, segments, stage

from etude.compiler.plan.plan import TrainJob
from etude.compiler.schedule.timeline import Timeline
from etude.runtime.emission.emit import emit

MODEL = (
    "model sparse { family = deepseek_v3, layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 300, "
    "latent = { queries = 0, keys = 32, rotary = 8, plain = 16, values = 16 }, "
    "experts = { count = 4, active = 2, ffn = 32, dense = 1, balance = 0.001 } }\n"
)


def settings(of: list[TrainJob], name: str) -> list[float]:
    """A setting at every step."""
    return [
        Timeline.of(job).settings(step)[name]
        for job in of
        for step in range(job.first_step, job.first_step + job.steps)
    ]


def decays(value: str) -> str:
    return f"adamw {{ weight_decay = {value} }}"


def told(job: TrainJob) -> tuple[float, list[float]]:
    """The norm and the decays of torchtitan's configuration."""
    groups = job.torchtitan["optimizer"]["param_groups"]
    return job.torchtitan["training"]["max_norm"], [
        group["optimizer_kwargs"]["weight_decay"] for group in groups
    ]


def test_a_setting_has_a_value_at_every_step() -> None:
    found = segments(stage(clip="1.0 for 20 steps then -> 0.5 for 50% then 0.25"))
    ramp = [1 - 0.5 * s / 50 for s in range(50)]
    assert settings(found, "clip") == pytest.approx([1.0] * 20 + ramp + [0.25] * 30)
    assert told(found[0]) == (1.0, [0.1])
    found = segments(stage(optimizer="adamw { weight_decay = 0 -> 0.2, decay = matrices }"))
    assert settings(found, "weight_decay") == pytest.approx([0.2 * s / 100 for s in range(100)])
    assert told(found[0])[1] == [0.0, 0.2]  # what never decays keeps 0
    found = segments(stage(clip="repeat 4 times { 1 -> 0.5 }"))
    assert settings(found, "clip") == pytest.approx([1 - 0.5 * s / 25 for s in range(25)] * 4)


def test_a_constant_is_as_it_was() -> None:
    job = only(segments(stage(clip="0.5")))
    assert job.schedule.settings == {}
    assert set(job.schedule.model_dump()) == {"lr", "batch", "mixture"}


def test_a_change_is_another_result() -> None:
    keys = {
        only(segments(stage(clip=clip))).key
        for clip in ("1.0", "1.0 for 50% then 0.5", "1.0 for 60% then 0.5")
    }
    assert len(keys) == 3


def test_stages_inherit_the_value_that_the_one_before_ended_with() -> None:
    first = stage(clip="1 -> 0.5", optimizer=decays("0.1 -> 0.3"))
    found = plan(HEAD + first + after() + after("third", clip="-> 1.0"))
    second = only(jobs(found, "second"))
    assert second.schedule.settings == {}
    assert told(second) == (0.5, [0.3])
    third = settings(jobs(found, "third"), "clip")
    assert third == pytest.approx([0.5 + 0.5 * s / 10 for s in range(10)])


def test_a_checkpoint_is_continued_with_the_value_there() -> None:
    text = HEAD + stage(clip="1 -> 0.5") + "stage half: checkpoint { from = first, after = 50% }\n"
    found = plan(text + after(from_="half"))
    assert told(only(jobs(found, "second")))[0] == pytest.approx(0.75)
    assert settings(jobs(found), "clip") == pytest.approx([1 - 0.5 * s / 100 for s in range(100)])


def test_an_extension_keeps_the_last_value() -> None:
    gate = (
        "gate seq_len {\n require loss(short) <= 3.5\n otherwise extend 10 steps at most 2 times }"
    )
    found = plan(HEAD + stage(seq_len="16 for 50% then 32", clip="1 -> 0.5", body=gate))
    extended = [job for job in found.jobs if isinstance(job, TrainJob) and job.extends]
    assert extended
    values = {value for job in extended for value in settings([job], "clip")}
    assert values <= {0.75, 0.5}


def test_the_routing_bias_of_a_stage() -> None:
    def of(balance: str | None, **more: Any) -> TrainJob:
        return only(segments(MODEL + stage(model="sparse", balance=balance, **more)))

    assert of(None).schedule.balance is None
    assert of("0.001").key == of(None).key
    assert set(settings([of("0")], "balance")) == {0.0}
    assert settings([of("0.001 until 60% then 0")], "balance") == [0.001] * 60 + [0.0] * 40
    text = HEAD + MODEL + stage(model="sparse", balance="0.001 for 50% then 0") + after()
    assert set(settings(jobs(plan(text), "second"), "balance")) == {0.0}


def test_losses_of_routers_have_coefficients_at_every_step() -> None:
    def of(**given: Any) -> TrainJob:
        return only(segments(MODEL + stage(model="sparse", **given)))

    plain = of()
    assert plain.schedule.settings == {}
    assert of(sequence_balance_loss="0", router_z_loss="0").key == plain.key
    given = of(sequence_balance_loss="1e-4", router_z_loss="0.001 -> 0")
    assert set(given.schedule.settings) == {"sequence_balance_loss", "router_z_loss"}
    assert set(settings([given], "sequence_balance_loss")) == {1e-4}
    assert settings([given], "router_z_loss")[50] == pytest.approx(0.0005)
    assert len({each.key for each in (plain, given, of(batch_balance_loss="1e-4"))}) == 3
    text = HEAD + MODEL + stage(model="sparse", batch_balance_loss="0.01 for 50% then 0.02")
    found = plan(text + after() + after("third", batch_balance_loss="0"))
    assert set(settings(jobs(found, "second"), "batch_balance_loss")) == {0.02}
    assert only(jobs(found, "third")).schedule.settings == {}
    said = emit(found)
    assert "no losses of routers" in said
    assert "batch_balance_loss, the largest" not in said


@pytest.mark.parametrize("loss", ["sequence_balance_loss", "batch_balance_loss"])
def test_a_loss_of_balance_is_a_balance(loss: str) -> None:
    mixed = MODEL.replace("balance = 0.001", "balance = 0")
    assert codes(HEAD + mixed + stage(model="sparse")) == ["W619"]
    assert codes(HEAD + mixed + stage(model="sparse", router_z_loss="1e-3")) == ["W619"]
    assert codes(HEAD + mixed + stage(model="sparse", **{loss: "1e-3"})) == []


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"clip": "0 -> 1"}, "E208"),
        ({"clip": "1 for 50%"}, "E447"),
        ({"clip": "1 for 200 steps then 2"}, "E441"),
        ({"clip": "-> 0.5"}, "E444"),
        ({"clip": "last -> 0.5"}, "E201"),
        ({"clip": "1 -> 2 steps"}, "E206"),
        ({"optimizer": decays("0.1 -> 0 exponential")}, "E448"),
        ({"optimizer": decays("0.1 for 10 steps then 0.2 until 5 steps then 0")}, "E455"),
        ({"balance": "0.001 for 50% then 0"}, "E467"),
        ({"balance": "0.001 -> 0"}, "E446"),
        ({"balance": "0"}, "E467"),
        ({"sequence_balance_loss": "1e-4"}, "E467"),
        ({"batch_balance_loss": "0.01 -> 0"}, "E467"),
        ({"router_z_loss": "0.001"}, "E467"),
    ],
)
def test_what_is_refused(given: dict[str, str], code: str) -> None:
    with_bias = {"model": "sparse"} if code == "E446" else {}
    found = only(check(HEAD + MODEL * bool(with_bias) + stage(**given, **with_bias)))
    assert found.code == code
    assert found.span
    assert found.help or code == "E208"


def test_a_ramp_from_last_is_told_how_settings_continue() -> None:
    found = only(check(HEAD + stage(clip="last -> 0.5")))
    assert "settings have no `last`" in found.message
    assert "write the number to begin with" in found.help


def test_the_plan_shows_the_schedule_and_torchtitan_alone_gets_the_largest() -> None:
    found = plan(HEAD + stage(clip="1 -> 0.5 for 50% then 0.5", optimizer=decays("0 -> 0.2")))
    values = found.stages["first"].values
    assert values["clip"].value == "1 -> 0.5 for 50% then 0.5"
    assert "weight_decay 0 -> 0.2" in values["optimizer"].value
    text = emit(found)
    assert "one clip and one weight_decay, the largest" in text
    assert "max_norm=1.0" in text


def test_a_miniature_changes_them_at_the_same_point() -> None:
    text = HEAD + stage(steps="10000", clip="1 for 50% then 0.5", optimizer=decays("0.1 -> 0"))
    found = jobs(miniature(text))
    values = settings(found, "clip")
    assert values.count(1.0) == pytest.approx(len(values) / 2, abs=1)
    assert settings(found, "weight_decay")[0] == 0.1


def test_a_large_norm_is_still_warned_of() -> None:
    assert codes(HEAD + stage(clip="100")) == ["W606"]
