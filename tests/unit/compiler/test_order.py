"""Segments that end before they begin, and ramps that never arrive."""

import pytest
from specs import HEAD, after, analysed, check, only, rates, segments, stage

KNOBS = {
    "seq_len": ("16", "32", "16"),
    "batch": ("4 seqs", "8 seqs", "4 seqs"),
    "lr": ("0 -> 1e-3", "1e-3", "-> 1e-4 cosine"),
    "data": ("web", "math", "web"),
    "rope_theta": ("1e4", "1e5", "1e6"),
    "parallel": ("{ }", "{ micro_batch 2 }", "{ }"),
}
"""Knob → three values that may follow each other; the stage has 100 steps of 64 tokens."""


@pytest.mark.parametrize("knob", KNOBS)
@pytest.mark.parametrize("length", [{"steps": "100"}, {"tokens": "6400"}])
@pytest.mark.parametrize(
    ("first", "bound"),
    [
        ("for 20 steps", "until 10 steps"),
        ("for 20%", "until 10%"),
        ("until 1280 tokens", "until 640 tokens"),
        ("for 20%", "until 640 tokens"),
        ("for 20 steps", "until 10%"),
        ("until 1280 tokens", "until 10 steps"),
        ("for 10 steps", "until 10 steps"),
        ("for 20%", "until 20%"),
        ("for 640 tokens", "until 10 steps"),
    ],
)
def test_until_is_after_where_the_segment_begins(
    knob: str, length: dict[str, str], first: str, bound: str
) -> None:
    a, b, c = KNOBS[knob]
    text = HEAD + stage(**length, **{knob: f"{a} {first} then {b} {bound} then {c}"})
    found = only(check(text))
    assert found.code == "E455"
    assert found.span
    assert text[found.span.start : found.span.end] == bound
    assert f"`for {bound.removeprefix('until ')}` would end it after" in found.help


def test_the_message_has_the_numbers_of_the_spec() -> None:
    lr = "0 -> 4e-4 for 2000 steps then 4e-4 until 1000 steps then -> 4e-5 cosine"
    found = only([d for d in check(HEAD + stage(steps="10000", lr=lr)) if d.code[0] == "E"])
    assert found.message == (
        "this segment of lr ends before it begins: it begins after 2,000 steps, and "
        "`until 1000 steps` is after 1,000 steps"
    )
    assert found.help == (
        "`until` counts from the beginning of the stage, `for` from the beginning of the segment: "
        "`for 1000 steps` would end it after 3,000 steps; `until` takes more than 2,000 steps here"
    )
    seq_len = "16 until 60% then 32 until 50% then 64"
    found = only(check(HEAD + stage(steps="10000", seq_len=seq_len)))
    assert "`until 50%` is after 5,000 steps" in found.message
    assert "after 11,000 steps, where the stage is over after 10,000 steps" in found.help
    assert "`until` takes more than 60% here" in found.help
    seq_len = "16 for 10 steps then 32 until 10 steps then 64"
    found = only(check(HEAD + stage(seq_len=seq_len)))
    assert found.message == "this segment of seq_len is empty: it begins and ends after 10 steps"


def test_every_knob_that_ends_before_it_begins_is_found_in_one_run() -> None:
    backwards = {k: f"{a} for 20% then {b} until 10% then {c}" for k, (a, b, c) in KNOBS.items()}
    assert [d.code for d in check(HEAD + stage(**backwards))] == ["E455"] * 6


def test_what_was_fine_is_fine() -> None:
    for lr in (
        "1e-3 for 20 steps then 1e-4 until 21 steps then 1e-5",
        "1e-3 until 10% then 1e-4 until 640.1 steps then 1e-5".replace("640.1 steps", "11 steps"),
        "1e-3 for 1279 tokens then 1e-4 until 1280 tokens then 1e-5",
        "1e-3 until 20 steps then 1e-4 for 1 step then 1e-5",
    ):
        assert check(HEAD + stage(lr=lr)) == []
    # Both bounds fall on step 20, and every segment has at least one step.
    found = rates(segments(stage(lr="1e-3 for 1279 tokens then 1e-4 until 1280 tokens then 1e-5")))
    assert found[19:22] == [1e-3, 1e-4, 1e-5]


@pytest.mark.parametrize(
    ("knob", "ramp"),
    [
        ("lr", "0 -> 1e-3"),
        ("batch", "4 seqs -> 8 seqs"),
        ("data", "web -> math"),
        ("lr", "1e-3 for 50% then -> 0 cosine"),
    ],
)
@pytest.mark.parametrize("bound", ["for 101 steps", "for 20k tokens", "until 101%"])
def test_a_last_ramp_arrives_within_the_stage(knob: str, ramp: str, bound: str) -> None:
    text = HEAD + stage(**{knob: f"{ramp} {bound}"})
    found = only([d for d in check(text) if d.code[0] == "E"])
    assert found.code == "E456"
    assert found.span
    assert text[found.span.start : found.span.end] == bound
    assert ("over" in found.help) == bound.startswith("for")
    for fine in ("for 100 steps", "until 100%", "over 200 steps", "over 200 steps for 200 steps"):
        fine = fine if "50%" not in ramp else fine.replace("for 100 steps", "for 50 steps")
        assert not [d for d in check(HEAD + stage(**{knob: f"{ramp} {fine}"})) if d.code[0] == "E"]


def test_where_for_leaves_no_room_for_the_next_segment_until_is_proposed() -> None:
    for knob in ("lr", "seq_len"):
        a, b, c = ("1e-3", "2e-3", "0") if knob == "lr" else ("16", "32", "16")
        found = only(check(HEAD + stage(**{knob: f"{a} for 20% then {b} for 80 steps then {c}"})))
        assert found.code == "E441"
        assert found.help.endswith(
            "the one before begins after 20 steps, and `for 80 steps` counts from there, to 100 "
            "steps: `until 80 steps` would end it after 80 steps"
        )
        found = only(check(HEAD + stage(**{knob: f"{a} for 20% then {b} until 100% then {c}"})))
        assert found.help == "make the stage longer, or the segments before it shorter"


@pytest.mark.parametrize("over", ["101 steps", "200%", "1M tokens"])
def test_an_average_is_over_a_part_of_the_stage(over: str) -> None:
    found = only(check(HEAD + stage(average=f"polyak every 1 step over {over}")))
    assert (found.code, found.message.split(" the stage has ")[1][:3]) == (
        "E457",
        "100" if "tok" not in over else "6,4",
    )
    assert check(HEAD + stage(average="polyak every 1 step over 100 steps")) == []


def test_checkpoints_and_claims_beyond_the_end_say_how_long_the_stage_is() -> None:
    text = HEAD + stage() + "stage early: checkpoint { from = first, after = 200% }\n"
    assert only([d for d in check(text + after(from_="early")) if d.code == "E453"]).message == (
        "the checkpoint `early` is not inside `first`, which has 100 steps and 6,400 tokens"
    )
    claimed = analysed(HEAD + stage() + "expect { first.lr at 101 steps = 1e-3 }")
    found = only(claimed.report.errors)
    assert (found.code, found.help) == ("E463", "it has 100 steps and 6,400 tokens")
