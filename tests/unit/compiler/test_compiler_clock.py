"""Steps and tokens of a stage while batch and sequence length change."""

from itertools import pairwise
from pathlib import Path

import pytest
from specs import (
    HEAD,
    after,
    batches,
    check,
    compiled,
    jobs,
    only,
    place,
    plan,
    rates,
    segments,
    stage,
)

from etude.compiler.driver import analyse, compile
from etude.compiler.plan.plan import Plan, TrainJob
from etude.compiler.schedule.timeline import Timeline
from etude.spec.load import read

EXAMPLE = Path(__file__).parents[3] / "examples" / "llama3_405b.etude"


@pytest.fixture(scope="module")
def llama() -> Plan:
    made = compile(analyse(read(EXAMPLE)))
    assert made
    return made.plan


def starts(found: list[TrainJob]) -> list[int]:
    return [job.first_step for job in found] + [found[-1].first_step + found[-1].steps]


def levels(of: list[TrainJob]) -> list[tuple[int, int]]:
    """(step, sequences) wherever the batch changes."""
    values = batches(of)
    return [(s, v) for s, v in enumerate(values) if s == 0 or values[s - 1] != v]


def test_252m_tokens_in_batches_of_4mi_are_60_steps_as_in_the_llama_3_report(llama: Plan) -> None:
    first, second, third = jobs(llama, "pretrain")
    assert (first.steps, first.tokens, first.seq_len) == (60, 251_658_240, 4096)
    assert (second.first_step, second.first_token, second.seq_len) == (60, 251_658_240, 8192)
    assert first.steps + second.steps + third.steps == 1_100_928
    assert first.tokens + second.tokens + third.tokens == 15_600_000_696_320


def test_the_llama_3_batches_change_where_the_report_says(llama: Plan) -> None:
    first, *others = jobs(llama, "pretrain")
    assert [(p.from_step, p.sequences * 4096) for p in first.schedule.batch] == [(0, 2**22)]
    assert [[(p.from_step, p.sequences * 8192) for p in job.schedule.batch] for job in others] == [
        [(60, 2**23)],
        [(342_161, 2**24)],
    ]


def test_the_llama_3_anneal_is_2_steps(llama: Plan) -> None:
    job = only(jobs(llama, "anneal"))
    assert (job.steps, job.tokens) == (2, 2 * 16 * 2**20)


def test_the_plan_says_what_was_requested_and_what_it_became(llama: Plan) -> None:
    shown = [(r.wished_tokens, r.step, r.tokens) for r in jobs(llama, "pretrain")[0].roundings]
    assert shown[0] == ("252,000,000", 60, 251_658_240)
    assert shown[-1] == ("15,600,000,000,000", 1_100_928, 15_600_000_696_320)


@pytest.mark.parametrize(
    ("until", "step"),
    [
        ("1 token", 1),
        ("31 tokens", 1),
        ("64 tokens", 1),
        ("95 tokens", 1),
        ("96 tokens", 2),
        ("97 tokens", 2),
        ("160 tokens", 3),
        ("2 steps", 2),
        ("2%", 2),
        ("2.4%", 2),
        ("2.5%", 3),
        ("0.001 steps", 1),
    ],
)
def test_a_boundary_falls_on_the_nearest_step_a_tie_on_the_later(until: str, step: int) -> None:
    assert starts(segments(stage(seq_len=f"16 until {until} then 32"))) == [0, step, 100]


@pytest.mark.parametrize(
    "length", [{"steps": "10"}, {"tokens": "640"}, {"tokens": "671"}, {"tokens": "608"}]
)
def test_a_length_in_tokens_is_the_nearest_number_of_steps(length: dict[str, str]) -> None:
    job = only(segments(stage(**length)))
    assert (job.steps, job.tokens) == (10, 640)


def test_a_stage_has_at_least_one_step() -> None:
    assert only(segments(stage(tokens="1"))).steps == 1


def test_a_length_in_epochs_counts_the_declared_tokens_of_all_sources() -> None:
    head = HEAD.replace("python_docs", "python_docs, tokens = 1k").replace(
        "arithmetic", "arithmetic, tokens = 600"
    )
    text = stage(epochs="1.5", data="{ web 1 } for 10 tokens then { web 1, math 1 }")
    assert sum(job.tokens for job in jobs(plan(head + text))) == 2432  # 38 × 64, nearest to 2400


def test_for_counts_from_the_wish_so_that_no_error_accumulates() -> None:
    """Ten segments of 100 tokens in steps of 64: the wishes are 100, 200, …, 900."""
    lengths = " then ".join(f"{length} for 100 tokens" for length in [16, 8] * 4) + " then 16"
    found = segments(stage(tokens="900", seq_len=lengths, batch="64 tokens"))
    assert starts(found) == [0, 2, 3, 5, 6, 8, 9, 11, 13, 14]


def test_for_and_until_say_the_same_where_nothing_is_rounded() -> None:
    relative = "16 for 10 steps then 32 for 1280 tokens then 64 for 20% then 16"
    absolute = "16 until 10 steps then 32 until 20 steps then 64 until 40 steps then 16"
    assert starts(segments(stage(seq_len=relative))) == starts(segments(stage(seq_len=absolute)))


@pytest.mark.parametrize("wish", range(600, 700, 7))
def test_what_is_requested_at_the_same_tokens_happens_at_the_same_step(wish: int) -> None:
    bound = f"until {wish} tokens"
    found = segments(
        stage(
            tokens="3k",
            seq_len=f"64 {bound} then 8",
            batch="4 seqs",
            rope_theta=f"1e4 {bound} then 1e5",
            lr=f"1e-3 {bound} then 1e-4",
            data=f"web {bound} then math",
        )
    )
    assert len(found) == 2
    assert [job.torchtitan["training"]["seq_len"] for job in found] == [64, 8]
    assert [job.model.rope_theta for job in found] == [1e4, 1e5]
    assert [set(rates([job])) for job in found] == [{1e-3}, {1e-4}]
    assert [list(job.data) for job in found] == [["web"], ["math"]]


def test_a_batch_in_tokens_keeps_its_tokens_when_the_length_changes() -> None:
    lengths = "16 for 5 steps then 32 for 5 steps then 64"
    found = segments(stage(seq_len=lengths, batch="128 tokens"))
    assert [job.schedule.batch[0].sequences for job in found] == [8, 4, 2]
    assert {job.tokens // job.steps for job in found} == {128}


def test_a_batch_in_sequences_keeps_its_sequences_when_the_length_changes() -> None:
    found = segments(stage(seq_len="16 for 5 steps then 32"))
    assert set(batches(found)) == {4}
    assert [job.tokens // job.steps for job in found] == [64, 128]


def test_a_batch_that_is_no_whole_number_of_the_new_length_is_an_error() -> None:
    found = only(check(HEAD + stage(seq_len="16 for 5 steps then 32", batch="48 tokens")))
    assert (found.code, place(found)) == ("E442", (9, 11))


def test_segments_meet_without_gap_and_add_up() -> None:
    text = stage(
        tokens="50k",
        seq_len="16 for 3333 tokens then 32 for 7 steps then 8 until 77% then 64",
        batch="8 seqs for 1234 tokens then 128 tokens until 33% then 8 seqs -> 32 seqs",
    )
    found = segments(text)
    for job, following in pairwise(found):
        assert following.first_step == job.first_step + job.steps
        assert following.first_token == job.first_token + job.tokens
    for job in found:
        assert job.sequences * job.seq_len == job.tokens
        assert Timeline.of(job).tokens_before(job.first_step + job.steps) == (
            job.first_token + job.tokens
        )


# Ramps of the batch


def test_a_ramp_of_the_batch_moves_one_sequence_at_a_time_and_ends_exactly() -> None:
    found = segments(stage(batch="4 seqs -> 8 seqs for 40 steps then 8 seqs"))
    assert levels(found) == [(0, 4), (10, 5), (20, 6), (30, 7), (40, 8)]


def test_a_ramp_of_the_batch_moves_down_as_well() -> None:
    found = segments(stage(batch="8 seqs -> 4 seqs for 40 steps then 4 seqs"))
    assert levels(found) == [(0, 8), (10, 7), (20, 6), (30, 5), (40, 4)]


def test_a_ramp_of_the_batch_moves_by_what_the_placement_allows() -> None:
    batch = "24 seqs -> 72 seqs for 40 steps then 72 seqs"
    parallel = "{ micro_batch 6 } until 20 steps then { micro_batch 4 }"
    found = jobs(plan(HEAD + stage(batch=batch, parallel=parallel), ranks=2))
    assert levels(found) == [(0, 24), (20, 48), (40, 72)]


def test_a_ramp_in_tokens_moves_by_sequences_of_the_longest_length() -> None:
    found = segments(
        stage(
            seq_len="16 for 15 steps then 32",
            batch="64 tokens -> 192 tokens for 40 steps then 192 tokens",
        )
    )
    tokens = [job.seq_len * n for job in found for n in batches([job])]
    changes = [(s, n) for s, n in enumerate(tokens) if s == 0 or tokens[s - 1] != n]
    assert changes == [(0, 64), (10, 96), (20, 128), (30, 160), (40, 192)]


def test_the_shape_of_a_ramp_is_that_of_its_curve() -> None:
    """√(s/64) has come 1/4, 2/4, 3/4 of the way after 4, 16, 36 of 64 steps."""
    found = segments(stage(batch="4 seqs -> 8 seqs sqrt for 64 steps then 8 seqs"))
    assert levels(found) == [(0, 4), (4, 5), (16, 6), (36, 7), (64, 8)]


@pytest.mark.parametrize("way", ["1 seqs -> 1000 seqs", "1000 seqs -> 1 seqs", "1 seqs -> 1M seqs"])
def test_a_steep_ramp_takes_no_longer_than_it_says(way: str) -> None:
    found = segments(stage(batch=f"{way} for 5 steps then {way.split(' -> ')[1]}"))
    values = batches(found)
    end = int(way.split(" -> ")[1].split()[0].replace("M", "000000"))
    assert len(values) == 100
    assert values[:5] == sorted(values[:5], reverse=end == 1)
    assert end not in values[:5]
    assert set(values[5:]) == {end}


@pytest.mark.parametrize("bound", ["20 steps", "20%", "1440 tokens"])
def test_a_ramp_may_be_cut_before_its_end_in_any_unit(bound: str) -> None:
    found = segments(stage(batch=f"4 seqs -> 8 seqs over 40 steps for {bound} then 7 seqs"))
    assert levels(found) == [(0, 4), (10, 5), (20, 7)]


def test_a_ramp_without_a_left_side_begins_where_the_one_before_was_cut() -> None:
    text = stage(
        batch="4 seqs -> 8 seqs over 40 steps for 20 steps then -> 4 seqs for 10 steps then 4 seqs"
    )
    assert levels(segments(text)) == [(0, 4), (10, 5), (20, 6), (25, 5), (30, 4)]


def test_a_ramp_from_sequences_to_tokens_counts_the_same_things() -> None:
    text = stage(batch="4 seqs -> 128 tokens for 40 steps then 128 tokens")
    assert levels(segments(text)) == [(0, 4), (10, 5), (20, 6), (30, 7), (40, 8)]


def test_the_next_stage_goes_on_with_the_batch_that_the_ramp_had_come_to() -> None:
    for ramp, last in (("4 seqs -> 8 seqs", 8), ("4 seqs -> 8 seqs over 200 steps", 6)):
        text = HEAD + stage(batch=ramp) + after(seq_len="32")
        assert set(batches(jobs(plan(text), "second"))) == {last}


# What cannot be


@pytest.mark.parametrize(
    ("knob", "schedule"),
    [
        ("seq_len", "16 for 100 steps then 32"),
        ("seq_len", "16 for 50% then 32 until 120% then 64"),
        ("batch", "4 seqs until 6.4k tokens then 8 seqs"),
        ("batch", "4 seqs -> 8 seqs for 200 steps then 8 seqs"),
        ("lr", "0 -> 1e-3 for 100 steps then -> 0"),
        ("data", "web until 100% then math"),
        ("rope_theta", "1e4 for 1M tokens then 1e5"),
        ("parallel", "{} for 1000 steps then { micro_batch 2 }"),
    ],
)
def test_a_segment_that_is_never_reached_is_an_error_at_its_place(knob: str, schedule: str) -> None:
    text = HEAD + stage(**{knob: schedule})
    found = only(check(text))
    assert found.code == "E441"
    line, column = place(found) or (0, 0)
    assert text.split("\n")[line - 1][column - 1 :] == schedule[schedule.rindex("then ") + 5 :]


def test_a_bound_of_the_last_value_may_be_where_the_stage_ends_or_later_but_not_before() -> None:
    for bound in ("100 steps", "100%", "6400 tokens", "1M tokens"):
        assert only(segments(stage(batch=f"4 seqs for {bound}", lr=f"1e-3 for {bound}")))
    for knob, value in (("batch", "4 seqs"), ("lr", "1e-3"), ("data", "web"), ("seq_len", "16")):
        assert only(check(HEAD + stage(**{knob: f"{value} for 99 steps"}))).code == "E447"


def test_a_curve_keeps_its_length_where_the_stage_ends_before_it() -> None:
    """As long as the curve is cut, the first 100 steps are the same."""
    long = rates(segments(stage(steps="200", lr="0 -> 1e-3 over 200 steps")))
    assert rates(segments(stage(steps="100", lr="0 -> 1e-3 over 200 steps"))) == long[:100]


@pytest.mark.parametrize("tokens", ["1e40", "1e30 tokens"])
def test_absurd_lengths_are_planned_like_others(tokens: str) -> None:
    found, report = compiled(HEAD + stage(tokens=tokens, data="{ web 1, math 2 }"))
    assert found, report.diagnostics
    assert abs(only(jobs(found)).tokens - int(float(tokens.split()[0]))) < 10**25


def test_a_ramp_moves_in_levels_of_the_size_that_it_names() -> None:
    ramp = "4 seqs -> 16 seqs in levels of 4 seqs for 60 steps then 16 seqs"
    found = levels(segments(stage(batch=ramp)))
    assert [sequences for _, sequences in found] == [4, 8, 12, 16]
    tokens = "64 tokens -> 256 tokens in levels of 64 tokens for 60 steps then 256 tokens"
    assert levels(segments(stage(batch=tokens))) == found


def test_each_level_of_a_linear_ramp_takes_as_many_tokens() -> None:
    ramp = "16 seqs -> 80 seqs in levels of 16 seqs for 64k tokens then 80 seqs"
    (job,) = segments(stage(batch=ramp, tokens="100k"))
    pieces = job.schedule.batch[:-1]
    assert [piece.sequences for piece in pieces] == [16, 32, 48, 64]
    for piece in pieces:
        tokens = (piece.to_step - piece.from_step) * piece.sequences * 16
        assert tokens == pytest.approx(16_000, abs=80 * 16)


def test_a_pipeline_takes_all_of_each_level_at_a_time() -> None:
    head = HEAD.replace("layers = 2", "layers = 4") + 'cluster pod { gpus = 8 of "H100 80GB" }\n'
    ramp = "16 seqs -> 64 seqs in levels of 16 seqs for 50% then 64 seqs"
    made = jobs(plan(head + stage(batch=ramp, parallel="{ pipeline 2 }")))
    assert [job.torchtitan["training"]["local_batch_size"] for job in made] == [4, 8, 12, 16]
    (whole,) = jobs(plan(head + stage(batch=ramp)))
    assert whole.steps == sum(job.steps for job in made)


@pytest.mark.parametrize(
    ("code", "attributes", "help"),
    [
        ("E465", {"batch": "4 seqs -> 10 seqs in levels of 4 seqs"}, "levels of 3 seqs"),
        ("E465", {"batch": "4 seqs -> 10 seqs in levels of 32 tokens"}, "write both in seqs"),
        ("E217", {"lr": "0 -> 1e-3 in levels of 1e-4"}, "remove"),
    ],
)
def test_levels_that_make_no_ramp(code: str, attributes: dict[str, str], help: str) -> None:
    (found,) = check(HEAD + stage(**attributes))
    assert (found.code, help in found.help) == (code, True)
