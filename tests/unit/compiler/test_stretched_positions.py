"""How a spec stretches the positions of a model: `rope_scaling`."""

from typing import Any

import pytest
from specs import HEAD, check, jobs, only, plan, stage

MODEL = "layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300"


def spec(model: str) -> str:
    assert MODEL in HEAD
    return HEAD.replace(MODEL, model) + stage()


def test_a_published_size_keeps_its_stretched_positions_unless_told_otherwise() -> None:
    job = only(jobs(plan(spec('family = gpt_oss, size = "20B"'))))
    assert (job.model.rope_scaling, job.model.rope_factor, job.model.window) == ("yarn", 32.0, 128)
    job = only(jobs(plan(spec('family = gpt_oss, size = "20B", rope_scaling = none'))))
    assert job.model.rope_scaling == "none"


@pytest.mark.parametrize(
    ("written", "numbers"),
    [
        ("none", ("none", 1.0, 0, 1.0, 4.0)),
        ("llama", ("llama", 8.0, 8192, 1.0, 4.0)),
        ("llama { factor = 32 }", ("llama", 32.0, 8192, 1.0, 4.0)),
        (
            "llama { factor = 32, original = 4Ki, low = 0.5, high = 2 }",
            ("llama", 32.0, 4096, 0.5, 2.0),
        ),
        ("yarn { factor = 40, original = 4Ki }", ("yarn", 40.0, 4096, 1.0, 4.0)),
    ],
)
@pytest.mark.parametrize("of_stage", [False, True])
def test_positions_are_stretched_as_written(
    written: str, numbers: tuple[Any, ...], of_stage: bool
) -> None:
    if of_stage:
        job = only(jobs(plan(HEAD + stage(rope_scaling=written))))
    else:
        job = only(jobs(plan(spec(f"{MODEL}, rope_scaling = {written}"))))
    model = job.model
    assert numbers == (
        model.rope_scaling,
        model.rope_factor,
        model.rope_original,
        model.rope_low,
        model.rope_high,
    )


@pytest.mark.parametrize(
    ("written", "code", "at"),
    [
        ("llama { low = 4, high = 1 }", "E541", "4"),
        ("llama { low = 4 }", "E541", "4"),
        ("llama { high = 1 }", "E541", "1"),
        ("yarn { factor = 4, original = 1Ki, low = 2 }", "E419", "2"),
        ("yarn { factor = 4 }", "E417", "yarn { factor = 4 }"),
        ("llama { factor = 1 }", "E208", "1"),
        ("none { factor = 4 }", "E202", "none { factor = 4 }"),
    ],
)
def test_stretches_that_mean_nothing_are_errors(written: str, code: str, at: str) -> None:
    (found,) = check(spec(f"{MODEL}, rope_scaling = {written}"))
    assert found.code == code
    assert found.span
    assert at in found.span.source.text[found.span.start : found.span.end]
