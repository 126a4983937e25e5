"""The learning rate of every step, against formulas written down here once more."""

import math
from collections.abc import Callable

import pytest
from specs import HEAD, after, check, jobs, only, plan, rates, segments, stage

SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda u: u,
    "cosine": lambda u: 0.5 - 0.5 * math.cos(math.pi * u),
    "half_cosine": lambda u: 2 * ((1 - math.cos(math.pi * (1 + u) / 2)) / 2 - 0.5),
    "sqrt": lambda u: u**0.5,
}

ALL = [*SHAPES, "exponential", "inverse", "inverse_sqrt"]


def curve(shape: str, start: float, end: float, u: float) -> float:
    """A ramp's value after the share u of its length, held from its end on."""
    u = min(u, 1)
    if shape == "exponential":
        return math.exp(math.log(start) + u * (math.log(end) - math.log(start)))
    if shape == "inverse":
        return 1 / (1 / start + u * (1 / end - 1 / start))
    if shape == "inverse_sqrt":
        return 1 / math.sqrt(1 / start**2 + u * (1 / end**2 - 1 / start**2))
    return start + (end - start) * SHAPES[shape](u)


def lr(schedule: str, **attributes: str) -> list[float]:
    return rates(segments(stage(lr=schedule, **attributes)))


def close(*values: float) -> object:
    return pytest.approx(list(values), rel=1e-12, abs=1e-18)


def test_a_constant() -> None:
    assert lr("3e-4") == [3e-4] * 100


@pytest.mark.parametrize("shape", ALL)
@pytest.mark.parametrize(("start", "end"), [(1e-5, 1e-3), (1e-3, 1e-5)])
def test_a_ramp_over_the_whole_stage(shape: str, start: float, end: float) -> None:
    expected = [curve(shape, start, end, step / 100) for step in range(100)]
    assert lr(f"{start} -> {end} {shape}") == close(*expected)


def test_a_ramp_is_linear_unless_said_otherwise() -> None:
    assert lr("0 -> 1e-3") == lr("0 -> 1e-3 linear")


@pytest.mark.parametrize("shape", ALL)
def test_warmup_and_decay(shape: str) -> None:
    expected = [curve("linear", 0, 1e-3, s / 10) for s in range(10)]
    expected += [curve(shape, 1e-3, 1e-5, s / 90) for s in range(90)]
    assert lr(f"0 -> 1e-3 for 10 steps then -> 1e-5 {shape}") == close(*expected)


def test_a_rate_falls_with_the_square_root_of_the_step_as_palms_does() -> None:
    """arXiv:2204.02311 §5: 1e-2 for the first 10,000 steps, then 1/√k of the step k."""
    end = 1e-2 * math.sqrt(10 / 100)
    expected = [1e-2] * 10 + [1e-2 * math.sqrt(10 / k) for k in range(10, 100)]
    assert lr(f"1e-2 for 10 steps then -> {end!r} inverse_sqrt") == close(*expected)


def test_warmup_stable_decay() -> None:
    expected = [s / 10 * 1e-3 for s in range(10)] + [1e-3] * 70
    expected += [1e-3 * (1 - math.sqrt(s / 20)) for s in range(20)]
    schedule = "0 -> 1e-3 for 10% then 1e-3 until 80% then -> 0 sqrt"
    assert lr(schedule) == close(*expected)


@pytest.mark.parametrize("shape", ALL)
def test_over_says_how_long_the_curve_is_wherever_it_is_cut(shape: str) -> None:
    cut = lr(f"1e-3 -> 1e-5 {shape} over 400 steps")
    assert cut == close(*[curve(shape, 1e-3, 1e-5, s / 400) for s in range(100)])
    done = lr(f"1e-3 -> 1e-5 {shape} over 40 steps")
    assert done == close(*[curve(shape, 1e-3, 1e-5, s / 40) for s in range(100)])


def test_after_a_cut_a_ramp_goes_on_from_where_the_curve_was() -> None:
    middle = curve("cosine", 1e-3, 0, 30 / 60)
    expected = [curve("cosine", 1e-3, 0, s / 60) for s in range(30)]
    expected += [curve("linear", middle, 1e-3, s / 70) for s in range(70)]
    assert lr("1e-3 -> 0 cosine over 60 steps for 30 steps then -> 1e-3") == close(*expected)


def test_a_curve_in_tokens_follows_the_tokens_while_the_batch_grows() -> None:
    batch = [4] * 50 + [8] * 50
    before = [16 * sum(batch[:step]) for step in range(100)]
    total = 16 * sum(batch)
    grown = {"batch": "4 seqs for 3200 tokens then 8 seqs", "tokens": str(total)}
    assert lr("1e-3 -> 0", **grown) == close(*[1e-3 * (1 - t / total) for t in before])
    over = lr("1e-3 -> 0 cosine over 6.4k tokens", **grown)
    assert over == close(*[curve("cosine", 1e-3, 0, t / 6400) for t in before])
    steps = lr("1e-3 -> 0 over 100 steps", **grown)
    assert steps == close(*[1e-3 * (1 - s / 100) for s in range(100)])


def test_a_curve_does_not_notice_that_the_length_changes() -> None:
    whole = lr("0 -> 1e-3 for 33 steps then -> 1e-5 cosine")
    parts = lr(
        "0 -> 1e-3 for 33 steps then -> 1e-5 cosine",
        seq_len="16 for 20 steps then 32 for 31 steps then 8",
    )
    assert parts == whole


def test_last_is_where_the_stage_before_ended() -> None:
    text = HEAD + stage(lr="1e-3 -> 1e-5 cosine over 200 steps")
    text += after(lr="last -> 0") + after("third", lr="1e-4 for 5 steps then last", from_="first")
    text += after("fourth", from_="first")
    made = plan(text)
    end = curve("cosine", 1e-3, 1e-5, 0.5)
    assert rates(jobs(made, "second")) == close(*[end * (1 - s / 10) for s in range(10)])
    assert rates(jobs(made, "third")) == close(*[1e-4] * 5, *[end] * 5)
    assert rates(jobs(made, "fourth")) == close(*[end] * 10)


def test_a_ramp_without_a_left_side_begins_where_the_stage_before_ended() -> None:
    made = plan(HEAD + stage(lr="1e-3 -> 5e-4") + after(lr="-> 0"))
    same = plan(HEAD + stage(lr="1e-3 -> 5e-4") + after(lr="last -> 0"))
    assert rates(jobs(made, "second")) == rates(jobs(same, "second"))
    assert rates(jobs(made, "second"))[0] == pytest.approx(5e-4)


def test_a_stage_after_a_decay_to_0_needs_a_rate_of_its_own() -> None:
    for rate in (None, "last", "last -> 0", "last for 3 steps then 0"):
        found = only(check(HEAD + stage(lr="1e-3 -> 0") + after(lr=rate)))
        assert found.code == "E449"
        assert "the previous stage ended at 0" in found.help
    first = only(check(HEAD + stage(lr="0")))
    assert (first.code, "stage before" in first.help) == ("E449", False)
    later = only(check(HEAD + stage(lr="1e-3") + after(lr="0")))
    assert (later.code, "stage before" in later.help) == ("E449", False)


def test_the_engine_is_given_the_highest_rate_of_its_job() -> None:
    made = segments(stage(lr="0 -> 1e-3 for 10 steps then -> 0", seq_len="16 for 55 steps then 32"))
    given = [
        job.torchtitan["optimizer"]["param_groups"][0]["optimizer_kwargs"]["lr"] for job in made
    ]
    assert given[0] == 1e-3
    assert given[1] >= max(rates(made[1:]))


@pytest.mark.parametrize(("scaling", "power"), [("linear", 1), ("sqrt", 0.5)])
@pytest.mark.parametrize("shape", ALL)
def test_a_rate_that_follows_the_batch(scaling: str, power: float, shape: str) -> None:
    batch = "4 seqs until 30 steps then 8 seqs -> 12 seqs for 30 steps then 16 seqs"
    schedule = f"1e-5 -> 1e-3 for 50 steps then -> 1e-5 {shape}"
    made = plan(HEAD + stage(lr=schedule, batch=batch, lr_scaling=scaling))
    plain = plan(HEAD + stage(lr=schedule, batch=batch))
    sizes = [
        piece.sequences
        for job in plain.trained()
        for piece in job.schedule.batch
        for _ in range(piece.from_step, piece.to_step)
    ]
    expected = [
        rate * (size / 4) ** power for rate, size in zip(rates(jobs(plain)), sizes, strict=True)
    ]
    assert rates(jobs(made)) == close(*expected)


def test_a_rate_follows_tokens_and_not_sequences() -> None:
    longer = {"seq_len": "16 for 50 steps then 32", "lr_scaling": "linear"}
    assert lr("1e-3", batch="64 tokens", **longer) == [1e-3] * 100
    assert lr("1e-3", **longer) == close(*[1e-3] * 50, *[2e-3] * 50)


def test_the_last_rate_of_a_stage_has_its_factor() -> None:
    text = HEAD + stage(lr="1e-3", batch="4 seqs until 50% then 16 seqs", lr_scaling="sqrt")
    assert rates(jobs(plan(text + after(lr="last -> 0")), "second"))[0] == pytest.approx(2e-3)
    assert [each.code for each in check(HEAD + stage(lr_scaling="sqrt"))] == ["W612"]
