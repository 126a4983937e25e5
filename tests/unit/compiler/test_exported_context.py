"""The context that an export says it has: the longest that its lineage has known."""

import pytest
from specs import HEAD, POST_TRAINING, after, plan, stage

from etude.compiler.plan.plan import ExportJob, TrainJob

TALK = """dataset human  { sample = python_functions, kind = dialogs }
dataset ranked { sample = python_functions, kind = preferences }
"""
LONG = HEAD + TALK + stage("long", seq_len="256", steps="2")
WEIGHTS = """model base {
  layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 300, weights = "there", context = 8Ki
}
"""


def contexts(text: str) -> dict[str, int]:
    """Job of an export → the context that it says."""
    return {
        job.id.removeprefix("export."): job.model.context
        for job in plan(text).jobs
        if isinstance(job, ExportJob)
    }


SHORTER = {
    "sft": "stage x: sft { from = long, steps = 2, seq_len = 64, lr = 1e-4, data = human }",
    "dpo": "stage x: dpo { from = long, steps = 2, seq_len = 64, batch = 4 pairs, lr = 1e-4, "
    "data = ranked }",
    "reward": "stage x: reward { from = long, steps = 2, seq_len = 64, batch = 4 pairs, lr = 1e-4, "
    "data = ranked }",
    "train": after("x", seq_len="64"),
    "checkpoint": after("s", seq_len="64") + "stage x: checkpoint { from = s, after = 5 steps }",
    "average": after("s", seq_len="64") + "stage x: average { of = [s, long] }",
    "best": after("s", seq_len="64") + "stage x: best { of = [s, long], loss = [web] }",
    "average of shorter ones": after("s", seq_len="64")
    + after("t", seq_len="32", from_="s")
    + "stage x: average { of = [t, s] }",
}


@pytest.mark.parametrize("then", SHORTER.values(), ids=SHORTER.keys())
def test_a_shorter_stage_forgets_no_context(then: str) -> None:
    found = contexts(LONG + then)
    assert found["x"] == 256
    assert set(found.values()) == {256}


@pytest.mark.parametrize("of", ["sft", "dpo", "reward", "train", "checkpoint", "average"])
def test_published_weights_keep_their_context(of: str) -> None:
    start = "stage long: train { from = base, steps = 2, seq_len = 256, batch = 4 seqs, lr = 1e-4, "
    text = HEAD + WEIGHTS + TALK + start + "data = web }\n" + SHORTER[of]
    assert contexts(text)["x"] == 8192


def test_the_weights_themselves_are_exported_with_their_context() -> None:
    text = HEAD + WEIGHTS + "stage x: evaluate { from = base, needle = { } }"
    assert contexts(text) == {"base": 8192}


def test_a_best_stage_keeps_what_each_model_of_it_knows() -> None:
    two = stage("a", seq_len="64") + stage("b", seq_len="256", model="tiny", lr="2e-3")
    text = HEAD + two + "stage x: best { of = [a, b], needle = { } }"
    assert contexts(text) == {"a": 64, "b": 256, "x": 64}
    exports = {job.id: job for job in plan(text).jobs if isinstance(job, ExportJob)}
    assert exports["export.x"].contexts == [64, 256]
    assert exports["export.a"].contexts is None
    # What is trained further on the best one knows what each of them does.
    assert contexts(text + "\n" + after("y", from_="x", seq_len="32"))["y"] == 64


@pytest.mark.parametrize(
    ("scaling", "known"),
    [
        ("llama", 8192),
        ("llama { factor = 32, original = 128 }", 256),
        ("yarn { factor = 4, original = 1Ki }", 1024),
        ("none", 256),
    ],
)
def test_an_export_knows_the_length_that_its_positions_are_stretched_from(
    scaling: str, known: int
) -> None:
    text = HEAD + stage("x", seq_len="256", steps="2", rope_scaling=scaling)
    assert contexts(text) == {"x": known}


def test_the_longest_part_of_a_stage_counts() -> None:
    text = HEAD + stage("x", seq_len="128 until 50 steps then 256 until 80 steps then 64")
    assert contexts(text) == {"x": 256}


def test_jobs_that_train_are_built_for_their_own_length() -> None:
    jobs = [job for job in plan(LONG + SHORTER["sft"]).jobs if isinstance(job, TrainJob)]
    assert [job.model.context for job in jobs] == [256, 64]


def test_rounds_keep_it() -> None:
    assert set(contexts(POST_TRAINING).values()) == {16}
