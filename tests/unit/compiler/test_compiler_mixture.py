"""Mixtures: the plan's weights and windows, and the order of sequences that they make."""

import time
from collections import Counter
from fractions import Fraction

import pytest
from specs import HEAD, after, check, jobs, only, plan, segments, stage

from etude.compiler.plan.plan import Plan, TrainJob
from etude.compiler.schedule.mixture import Mixture, integer_weights
from etude.compiler.schedule.timeline import Timeline

MORE = HEAD + "dataset code { sample = python_code }\n"


def order(job: TrainJob) -> list[tuple[str, int]]:
    """Source and ordinal of every sequence of a job."""
    timeline = Timeline.of(job)
    return [
        timeline.sequence(step, index)
        for step in range(job.first_step, job.first_step + job.steps)
        for index in range(timeline.batch(step))
    ]


def weights(job: TrainJob) -> list[tuple[int, dict[str, int]]]:
    return [(piece.from_step, piece.weights) for piece in job.schedule.mixture]


# The plan


def test_percentages_and_weights_are_the_smallest_integers_in_proportion() -> None:
    for mix in ("{ web 60%, math 40% }", "{ web 3, math 2 }", "{ web 0.3, math 0.2 }"):
        assert weights(only(segments(stage(data=mix)))) == [(0, {"web": 3, "math": 2})]


def test_a_source_alone_needs_no_weight() -> None:
    assert weights(only(segments(stage(data="math")))) == [(0, {"math": 1})]


def test_a_ramp_moves_in_levels_and_reaches_its_end() -> None:
    made = only(segments(stage(data="{ web 1 } -> { math 1 } for 50 steps then math")))
    shares = [Fraction(w.get("math", 0), sum(w.values())) for _, w in weights(made)]
    assert shares == sorted(shares)
    assert len(shares) == 51
    assert shares[0] == Fraction(1, 100)
    assert (weights(made)[-1], shares[-1]) == ((50, {"math": 1}), 1)


@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt"])
def test_a_ramp_is_on_its_curve_in_the_middle_of_every_level(shape: str) -> None:
    from etude.compiler.curves import CURVES

    curve = CURVES[shape]  # type: ignore[index]
    made = only(segments(stage(data=f"{{ web 1 }} -> {{ math 1 }} {shape}")))
    for piece in made.schedule.mixture:
        share = piece.weights.get("math", 0) / sum(piece.weights.values())
        assert share == pytest.approx(
            curve.progress((piece.from_step + piece.to_step) / 200), abs=1e-3
        )


def test_a_ramp_that_is_cut_hands_on_what_it_had_come_to() -> None:
    text = stage(data="{ web 1 } -> { math 1 } over 100 steps for 50 steps then -> { web 1 }")
    made = only(segments(text))
    shares = [w.get("math", 0) / sum(w.values()) for _, w in weights(made)]
    assert max(shares) == pytest.approx(0.5, abs=0.02)
    assert shares[-1] == pytest.approx(0, abs=0.02)
    assert shares[49:51] == [0.495, 0.485]  # up to 0.5, and down from there
    again = plan(HEAD + stage(data="{ web 1 } -> { math 1 } over 200 steps") + after())
    assert weights(only(jobs(again, "second")))[0][1] == {"web": 1, "math": 1}


def test_last_with_scales_and_normalises() -> None:
    text = MORE + stage(data="{ web 50%, math 25%, code 25% }")
    made = plan(text + after(data="last with { web 0.5x, math 3x }"))
    assert weights(only(jobs(made, "second"))) == [(0, {"web": 1, "math": 3, "code": 1})]


def test_last_with_scales_what_is_in_force() -> None:
    text = HEAD + stage(data="{ web 1, math 1 }")
    data = "{ web 1, math 3 } for 5 steps then last with { web 3x }"
    made = plan(text + after(data=data))
    assert weights(only(jobs(made, "second"))) == [
        (0, {"web": 1, "math": 3}),
        (5, {"web": 1, "math": 1}),
    ]


def test_a_source_with_a_factor_of_0_is_gone() -> None:
    made = plan(HEAD + stage(data="{ web 1, math 1 }") + after(data="last with { web 0x }"))
    job = only(jobs(made, "second"))
    assert {name for name, _ in order(job)} == {"math"}
    assert job.data["math"].sequences == 40


# Windows


def windows(made: Plan) -> None:
    """Every source's windows follow one another along `from` and have the tokens drawn."""
    of = {job.key: job for job in made.jobs if isinstance(job, TrainJob)}
    ends: dict[str, dict[str, int]] = {}
    for job in of.values():
        before = ends.get(job.inputs.get("model", ""), {})
        drawn = Counter(name for name, _ in order(job))
        ends[job.key] = dict(before)
        for name, window in job.data.items():
            assert window.first_token == before.get(name, 0)
            assert window.sequences == drawn[name]
            assert window.last_token == window.first_token + drawn[name] * job.seq_len
            ends[job.key][name] = window.last_token
        assert sum(w.last_token - w.first_token for w in job.data.values()) == job.tokens


def test_windows_follow_one_another_over_jobs_and_stages() -> None:
    text = MORE + stage(
        seq_len="16 for 30 steps then 32 for 777 tokens then 8",
        batch="4 seqs -> 9 seqs for 50 steps then 5 seqs",
        data="{ web 60%, math 40% } -> { math 1, code 2 } for 40 steps then { code 1, web 1 }",
    )
    text += after(data="last with { web 2x }") + after("third", from_="first", data="code")
    windows(plan(text))


def test_every_source_is_read_in_order_and_without_gaps() -> None:
    data = "{ web 3, math 2 } for 33 steps then { math 1, web 5 }"
    (job,) = segments(stage(data=data, batch="7 seqs"))
    for name in job.data:
        ordinals = [ordinal for source, ordinal in order(job) if source == name]
        assert ordinals == list(range(job.data[name].sequences))


def test_epochs_are_told_where_the_tokens_are_declared() -> None:
    head = HEAD.replace("python_docs", "python_docs, tokens = 3200")
    job = only(jobs(plan(head + stage(data="{ web 1, math 1 }"))))
    assert (job.data["web"].epochs, job.data["math"].epochs) == (1.0, None)


# The order


def naive(stretches: list[tuple[dict[str, int], int]]) -> list[str]:
    """Earliest deadline first, by the definition: one pass over all slots with exact fractions."""
    sources = list(dict.fromkeys(name for weights, _ in stretches for name in weights))
    rates = [
        {n: Fraction(weights.get(n, 0), sum(weights.values())) for n in sources}
        for weights, count in stretches
        for _ in range(count)
    ]
    ideal = {n: [Fraction(0)] for n in sources}
    for rate in rates:
        for name in sources:
            ideal[name].append(ideal[name][-1] + rate[name])
    drawn = dict.fromkeys(sources, 0)
    order = []
    for slot in range(len(rates)):
        best = None
        for place, name in enumerate(sources):
            k = drawn[name]
            if ideal[name][slot + 1] <= k:
                continue
            due = next((t for t, u in enumerate(ideal[name]) if u >= k + 1), len(rates) * 2)
            best = min(best or (due, place, name), (due, place, name))
        assert best
        order.append(best[2])
        drawn[best[2]] += 1
    return order


@pytest.mark.parametrize(
    "stretches",
    [
        [({"a": 1}, 5)],
        [({"a": 1, "b": 1}, 9)],
        [({"a": 50, "b": 25, "c": 17, "d": 8}, 350)],
        [({"a": 3, "b": 2}, 7), ({"b": 2, "c": 5}, 11), ({"c": 1}, 3), ({"a": 1, "c": 1}, 8)],
        [({"a": 97, "b": 3}, 40), ({"a": 3, "b": 97}, 260), ({"a": 1, "b": 1}, 1)],
        [({"a": 1, "b": 0}, 4), ({"b": 1}, 4)],
        [({"a": 7, "b": 11, "c": 13}, 31 * 6 + 5)],
    ],
)
def test_the_order_is_that_of_the_definition(stretches: list[tuple[dict[str, int], int]]) -> None:
    mixture = Mixture(stretches)
    found = [mixture.locate(index)[0] for index in range(mixture.sequences)]
    assert found == naive(stretches)


def test_trillions_of_sequences_are_located_at_once() -> None:
    begin = time.monotonic()
    half = 10**12
    mixture = Mixture([({"a": 50, "b": 25, "c": 17, "d": 8}, half), ({"a": 1, "d": 2}, 3 * half)])
    middle = {"a": half // 2, "b": half // 4, "c": half * 17 // 100, "d": half * 8 // 100}
    assert mixture.counts(half) == middle
    assert mixture.counts(4 * half) == middle | {"a": half * 3 // 2, "d": half * 208 // 100}
    source, ordinal = mixture.locate(4 * half - 1)
    assert ordinal == mixture.counts(4 * half)[source] - 1
    assert time.monotonic() - begin < 0.5


def test_large_weights_take_no_long_time() -> None:
    begin = time.monotonic()
    mixture = Mixture([({"a": 99_991, "b": 9}, 10**9)])
    assert mixture.counts(10**6) == {"a": 999_910, "b": 90}
    assert time.monotonic() - begin < 5


def test_a_long_ramp_of_mixtures_is_planned_soon() -> None:
    begin = time.monotonic()
    sources = "".join(f"dataset s{n} {{ sample = arithmetic }}\n" for n in range(12))
    start = "{ " + ", ".join(f"s{n} {n + 1}" for n in range(12)) + " }"
    end = "{ " + ", ".join(f"s{n} {(7 * n) % 13 + 1}" for n in range(12)) + " }"
    made = plan(
        HEAD + sources + stage(steps="1M", batch="1024 seqs", data=f"{start} -> {end} cosine")
    )
    assert sum(w.sequences for w in only(jobs(made)).data.values()) == 1024 * 10**6
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    ("shares", "weights"),
    [
        ({"a": "1/3", "b": "2/3"}, {"a": 1, "b": 2}),
        ({"a": "0.5", "b": "0.5"}, {"a": 1, "b": 1}),
        ({"a": "1", "b": "0"}, {"a": 1, "b": 0}),
        ({"a": "1/300007", "b": "300006/300007"}, {"a": 0, "b": 1}),
        ({"a": "1/200003", "b": "1/2", "c": "200001/400006"}, {"a": 1, "b": 50000, "c": 49999}),
    ],
)
def test_shares_as_integers(shares: dict[str, str], weights: dict[str, int]) -> None:
    exact = {name: Fraction(share) for name, share in shares.items()}
    found = integer_weights(exact)
    assert {n: Fraction(w, sum(found.values())) for n, w in found.items()} == pytest.approx(
        {n: Fraction(w, sum(weights.values())) for n, w in weights.items()}, abs=1e-5
    )


@pytest.mark.parametrize("data", ["{ web 1, math 1M }", "{ web 1, math 9k } -> { web 1, math 1M }"])
def test_a_share_that_would_be_rounded_to_nothing_is_an_error(data: str) -> None:
    found = only(check(HEAD + stage(data=data)))
    assert found.code == "E208"
    assert "`web`" in found.message
