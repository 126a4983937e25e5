"""`repeat N times { … }` in schedules: the same as its segments written N times."""

import math
from itertools import pairwise

import pytest
from specs import HEAD, after, analysed, check, jobs, miniature, only, plan, rates, segments, stage

from etude.cli.plan_table import _rates
from etude.compiler.as_written import written
from etude.compiler.driver import Analysis
from etude.spec.findings.diagnostics import Report
from etude.spec.schema.recipe import Train
from etude.spec.source import Source
from etude.spec.text.format import format_text

DECAY = "1e-3 -> 1e-4 cosine"


def cosine(u: float) -> float:
    return 1e-3 + (1e-4 - 1e-3) * (1 - math.cos(math.pi * u)) / 2


def lr(schedule: str, **attributes: str) -> list[float]:
    return rates(segments(stage(lr=schedule, **attributes)))


@pytest.mark.parametrize(
    ("repeated", "knob", "long"),
    [
        (f"repeat 2 times {{ {DECAY} for 50% }}", "lr", f"{DECAY} for 50% then {DECAY} for 50%"),
        (
            "0 -> 1e-3 for 10 steps then repeat 2 times { 1e-3 for 20 steps then -> 1e-4 for 25% }",
            "lr",
            "0 -> 1e-3 for 10 steps then 1e-3 for 20 steps then -> 1e-4 for 25% "
            "then 1e-3 for 20 steps then -> 1e-4 for 25%",
        ),
        (
            "repeat 2 times { 4 seqs for 20% then 8 seqs for 30% }",
            "batch",
            "4 seqs for 20% then 8 seqs for 30% then 4 seqs for 20% then 8 seqs for 30%",
        ),
        (
            "repeat 2 times { 16 for 20% then 32 for 30% }",
            "seq_len",
            "16 for 20% then 32 for 30% then 16 for 20% then 32 for 30%",
        ),
        (
            "repeat 2 times { web for 20% then { web 50%, math 50% } for 30% }",
            "data",
            "web for 20% then { web 50%, math 50% } for 30% "
            "then web for 20% then { web 50%, math 50% } for 30%",
        ),
    ],
)
def test_it_is_its_segments_written_as_often(repeated: str, knob: str, long: str) -> None:
    ends = {"tokens": "12800", "batch": "8 seqs"} | {knob: repeated}
    found, expected = segments(stage(**ends)), segments(stage(**(ends | {knob: long})))
    assert [job.key for job in found] == [job.key for job in expected]


def test_turns_without_a_length_share_what_is_left() -> None:
    ramp = [1e-3 * step / 20 for step in range(20)]
    found = lr(f"0 -> 1e-3 for 20 steps then repeat 4 times {{ {DECAY} }}")
    assert found == pytest.approx(ramp + [cosine(s / 20) for s in range(20)] * 4)
    # The warm-up in steps and the stage in tokens, whose steps grow after half of them.
    found = lr(
        f"0 -> 1e-3 for 20 steps then repeat 3 times {{ 1e-3 for 10% then {DECAY} }}",
        tokens="12800",
        batch="4 seqs for 6400 tokens then 8 seqs",
    )
    begins = [s for s in range(1, len(found)) if found[s - 1] < found[s] == 1e-3]
    before = [min(s, 100) * 64 + max(s - 100, 0) * 128 for s in (*begins, len(found))]
    # 11,520 tokens are left, 3840 for each; the second turn ends between two steps.
    assert begins[0] == 20
    assert before == [1280, 5120, 9088 - 128, 12800]


def test_steps_that_are_all_alike_are_as_many_tokens() -> None:
    """Warm-ups in steps, in a stage whose length is in tokens, and the other way round."""
    cycles = "repeat 4 times {{ 0 -> 1e-3 for {} then -> 1e-4 cosine }}"
    expected = segments(stage(lr=cycles.format("10 steps"), steps="200"))
    for length in ({"tokens": "12800", "steps": None}, {"steps": "200"}):
        for warm in ("10 steps", "640 tokens", "5%"):
            found = segments(stage(lr=cycles.format(warm), **length))  # type: ignore[arg-type]
            assert rates(found) == pytest.approx(rates(expected))


@pytest.mark.parametrize(
    ("length", "warm", "near"),
    [("tokens", "20 steps", "`1280 tokens`"), ("steps", "100 tokens", "`2 steps`")],
)
def test_steps_that_differ_are_told_what_is_near(length: str, warm: str, near: str) -> None:
    schedule = f"repeat 2 times {{ 0 -> 1e-3 for {warm} then -> 1e-4 }}"
    ends: dict[str, str | None] = {"steps": None, length: {"tokens": "12800"}.get(length, "100")}
    text = stage(lr=schedule, batch="4 seqs for 50% then 8 seqs", **ends)  # type: ignore[arg-type]
    found = only(check(HEAD + text))
    assert (found.code, f"write {near}" in found.help) == ("E466", True)


def test_mixtures_are_scaled_again_in_each_turn() -> None:
    text = HEAD + stage(data="{ web 50%, math 50% }")
    text += after(steps="60", data="repeat 3 times { last with { math 2x } for 20 steps }")
    pieces = only(jobs(plan(text), "second")).schedule.mixture
    assert [p.weights["math"] / sum(p.weights.values()) for p in pieces] == pytest.approx(
        [2 / 3, 4 / 5, 8 / 9]
    )


def test_a_let_may_name_the_times_the_ends_and_the_bounds() -> None:
    lets = "let n = 2 times\nlet high = 1e-3\nlet long = 50%\n"
    found = plan(HEAD + lets + stage(lr="repeat n { high -> 1e-4 cosine for long }"))
    assert rates(jobs(found)) == lr(f"repeat 2 times {{ {DECAY} for 50% }}")


def lr_of(found: Analysis) -> str:
    assert found.recipe
    of = found.recipe.stages["first"]
    assert isinstance(of, Train)
    return written(of.lr)


def test_tables_show_it_in_one_place() -> None:
    schedule = f"0 -> 0.001 for 10 steps then repeat 3 times {{ 0.001 for 10 steps then {DECAY} }}"
    found = analysed(HEAD + stage(lr=schedule))
    assert lr_of(found) == schedule.replace("1e-3", "0.001").replace("1e-4", "0.0001")
    table = _rates(segments(stage(lr=schedule))[0].schedule.lr)
    assert table == "0 → 0.001 linear, 3 × (0.001, 0.001 → 0.0001 cosine)"


def test_two_repeats_in_a_row_stay_apart() -> None:
    schedule = "repeat 2 times { 0.1 -> 0 for 10% } then repeat 4 times { 0.2 -> 0 }"
    found = analysed(HEAD + stage(lr=schedule))
    assert lr_of(found) == schedule


def test_a_miniature_has_as_many_turns() -> None:
    text = HEAD + stage(steps="10000", lr=f"repeat 4 times {{ {DECAY} }}")
    found = rates(jobs(miniature(text)))
    assert sum(before < rate for before, rate in pairwise(found)) == 3


def test_it_is_laid_out_over_lines() -> None:
    text = "stage a: train {\n lr = repeat 2 times {\n 1e-3 for 5%\n then -> 1e-4 for 45%\n}\n}\n"
    found = format_text(Source("a", text), Report())
    lines = ["  lr = repeat 2 times {", "    1e-3 for 5%", "        then -> 1e-4 for 45%", "  }"]
    assert found == "\n".join(["stage a: train {", *lines, "}", ""])


@pytest.mark.parametrize(
    ("schedule", "code", "part"),
    [
        ("repeat ¦0 times { 1e-3 -> 1e-4 }", "E208", ""),
        ("repeat ¦1001 times { 1e-3 -> 1e-4 }", "E208", ""),
        ("repeat ¦2 steps { 1e-3 -> 1e-4 }", "E206", "`times`"),
        ("repeat ¦4 { 1e-3 -> 1e-4 }", "E205", "write `4 times`"),
        ("repeat ¦-1 times { 1e-3 -> 1e-4 }", "E108", "`repeat 4 times { … }`"),
        ("¦repeat 2 times { }", "E218", "write `repeat 4 times"),
        ("¦repeat 2 times { 1e-3 for 50% }", "E218", "remove the `repeat`"),
        ("repeat 2 times { ¦repeat 2 times { 1e-3 -> 1e-4 } }", "E218", "as often as they come"),
        ("repeat 2 times { 1e-3 -> 1e-4 ¦until 50% }", "E218", "`for …`"),
        ("repeat 2 times { ¦1e-3 then -> 1e-4 for 50% }", "E216", "add `for …`"),
        ("repeat 2 times { ¦1e-3 -> 1e-4 } then 1e-5", "E216", "add `for …`"),
        ("repeat 9 times { ¦1e-3 -> 1e-4 for 10% }", "E447", "remove the bound"),
        ("repeat 11 times { ¦1e-3 -> 1e-4 for 10% }", "E441", "make the stage longer"),
        ("repeat ¦{ 1e-3 -> 1e-4 }", "E101", "`repeat 4 times {"),
        ("repeat 3 times { 1e-3 -> 1e-4¦, 1e-3 }", "E101", "`repeat 4 times {"),
    ],
)
def test_what_cannot_be_repeated(schedule: str, code: str, part: str) -> None:
    marked = HEAD + stage(lr=schedule)
    found = only(check(marked.replace("¦", "")))
    assert found.code == code
    assert found.span
    assert found.span.start == marked.index("¦")
    assert part in found.help


def test_the_turn_that_is_never_reached_is_named() -> None:
    found = only(check(HEAD + stage(lr="repeat 30 times { 1e-3 -> 1e-4 for 10 steps }")))
    assert "in turn 11 of 30 can never be reached" in found.message
