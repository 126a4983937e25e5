"""Boundaries of stages with any schedules of batch and sequence length."""

from fractions import Fraction
from itertools import pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from specs import HEAD, batches, compiled, jobs, rates, stage

from etude.compiler.plan.plan import Plan, TrainJob
from etude.compiler.schedule.clock import nearest
from etude.compiler.schedule.timeline import Timeline

LENGTHS = [8, 16, 32, 64]


@st.composite
def bounds(draw: st.DrawFn, total: int) -> list[str]:
    """Ascending bounds in tokens, inside a stage of `total` tokens, as `for` or as `until`."""
    # Further apart than two of the largest steps, so that each can have a boundary of its own.
    places = draw(st.sets(st.integers(1, total // 600 - 1), min_size=1, max_size=5))
    wishes = [600 * place + draw(st.integers(0, 80)) for place in sorted(places)]
    written, before = [], 0
    for wish in wishes:
        relative = draw(st.booleans())
        written.append(f"for {wish - before} tokens" if relative else f"until {wish} tokens")
        before = wish
    return written


def schedule(values: list[str], bounds: list[str]) -> str:
    parts = [f"{value} {bound}" for value, bound in zip(values, bounds, strict=False)]
    return " then ".join([*parts, values[len(bounds)]])


@st.composite
def stages(draw: st.DrawFn) -> tuple[str, list[int]]:
    """A stage with changing length and batch, and the requested boundaries of its lengths."""
    total = draw(st.integers(5_000, 50_000))
    length_bounds, batch_bounds = draw(bounds(total)), draw(bounds(total))
    lengths = [str(draw(st.sampled_from(LENGTHS))) for _ in range(len(length_bounds) + 1)]
    sequences = [f"{64 * draw(st.integers(1, 4))} tokens" for _ in range(len(batch_bounds) + 1)]
    wishes, before = [], 0
    for bound in length_bounds:
        word, number, _ = bound.split()
        before = before + int(number) if word == "for" else int(number)
        wishes.append(before)
    text = stage(
        tokens=str(total),
        seq_len=schedule(lengths, length_bounds),
        batch=schedule(sequences, batch_bounds),
    )
    return text, [*wishes, total]


def made(text: str) -> Plan:
    result, report = compiled(HEAD + text)
    # Bounds less than a step from the end, or from each other, leave no room for a segment.
    assume(result is not None or {d.code for d in report.errors} != {"E441"})
    assert result, [d.message for d in report.errors]
    return result


def steps(found: list[TrainJob]) -> list[tuple[int, int]]:
    """Tokens before every step and in it."""
    result, tokens = [], 0
    for job in found:
        for count in batches([job]):
            result.append((tokens, count * job.seq_len))
            tokens += count * job.seq_len
    return result


@settings(max_examples=120, deadline=None)
@given(stages())
def test_every_boundary_is_within_half_a_step_of_its_own_wish(given: tuple[str, list[int]]) -> None:
    text, wishes = given
    found = jobs(made(text))
    all_steps = steps(found)
    sizes = [size for _, size in all_steps]
    far = [b - a for a, b in pairwise(wishes)]
    assume(min([wishes[0], *far]) > 2 * max(sizes))
    # Where the length changes from a value to itself, there is no boundary to be seen.
    borders = [job.first_token for job in found[1:]] + [found[-1].first_token + found[-1].tokens]
    for border in borders:
        place = next((n for n, (before, _) in enumerate(all_steps) if before == border), len(sizes))
        nearest_wish = min(abs(border - wish) for wish in wishes)
        assert nearest_wish * 2 <= max(sizes[place - 1 : place + 1])
    total = all_steps[-1][0] + all_steps[-1][1]
    assert abs(total - wishes[-1]) * 2 <= sizes[-1]


@settings(max_examples=60, deadline=None)
@given(stages())
def test_jobs_meet_and_add_up(given: tuple[str, list[int]]) -> None:
    plan = made(given[0])
    step = token = 0
    for job in jobs(plan):
        timeline = Timeline.of(job)
        assert (job.first_step, job.first_token) == (step, token)
        assert job.steps > 0
        assert sum(batches([job])) == job.sequences
        assert timeline.tokens_before(job.first_step) == token
        step, token = step + job.steps, token + job.tokens
        assert timeline.tokens_before(step) == token
        assert sum(w.sequences for w in job.data.values()) == job.sequences
    assert (plan.stages["first"].steps, plan.stages["first"].tokens) == (step, token)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["1e-3", "0 -> 1e-3", "1e-3 -> 1e-5 cosine over 300 steps"]),
    st.integers(4, 196),
    st.data(),
)
def test_splitting_a_segment_changes_no_token_no_step_and_no_rate(
    lr: str, bound: int, data: st.DataObject
) -> None:
    unit, pace = data.draw(st.sampled_from([("steps", 1), ("tokens", 64)]))
    knob = data.draw(st.sampled_from(["seq_len", "batch", "data", "rope_theta", "parallel", "lr"]))
    value = {
        "seq_len": "16",
        "batch": "4 seqs",
        "data": "{ web 2, math 1 }",
        "rope_theta": "1e4",
        "parallel": "{ micro_batch 2 }",
        "lr": "1e-3",
    }[knob]
    rate = {} if knob == "lr" else {"lr": lr}
    start = stage(steps="200", **(rate | {knob: value}))
    first = data.draw(st.integers(1, bound * pace - 1))
    split = f"{value} for {first} {unit} then {value} until {bound * pace} {unit} then {value}"
    before, after = jobs(made(start)), jobs(made(stage(steps="200", **(rate | {knob: split}))))
    assert [(j.first_step, j.first_token, j.tokens) for j in before] == [
        (j.first_step, j.first_token, j.tokens) for j in after
    ]
    assert rates(before) == rates(after)
    assert batches(before) == batches(after)
    assert [j.data for j in before] == [j.data for j in after]


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 4),
    st.sampled_from(["linear", "cosine", "half_cosine", "sqrt"]),
    st.integers(1, 120),
)
def test_a_ramp_of_the_batch_is_monotone_and_ends_exactly_when_it_should(
    start: int, end: int, micro: int, shape: str, length: int
) -> None:
    first, last = start * micro, end * micro
    text = stage(
        steps="200",
        parallel=f"{{ micro_batch {micro} }}",
        batch=f"{first} seqs -> {last} seqs {shape} for {length} steps then {last} seqs",
    )
    values = batches(jobs(made(text)))
    assert len(values) == 200
    assert {min(first, last), max(first, last)} == {min(*values, first), max(*values, first)}
    assert set(values[length:]) == {last}
    assert values == sorted(values, reverse=last < first)
    assert all(value % micro == 0 for value in values)


@given(st.fractions(0, 10**9))
def test_nearest(value: Fraction) -> None:
    assert abs(nearest(value) - value) <= Fraction(1, 2)
    assert nearest(value) - value > -Fraction(1, 2)
