"""QK-clip in specs: what the job is told, and where it is refused."""

import pytest
from specs import HEAD, after, check, jobs, only, plan, stage

MODEL = "layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300"
CLIPPED = "muon { qk_clip = 100 }"


def test_a_job_has_the_threshold_that_its_stage_writes_or_inherits() -> None:
    text = HEAD + stage(optimizer=CLIPPED) + after(lr="last -> 0")
    made = plan(text)
    assert [only(jobs(made, name)).qk_clip for name in ("first", "second")] == [100.0, 100.0]
    assert only(jobs(plan(HEAD + stage(optimizer="muon")))).qk_clip is None


def test_without_it_plans_say_nothing_of_it() -> None:
    job = only(jobs(plan(HEAD + stage(optimizer="muon"))))
    assert "qk_clip" not in job.model_dump()


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (f"family = qwen3, {MODEL}", "normed"),
        (f"family = decoder, {MODEL}, parts = {{ qk_norm = width }}", "normed"),
        (f"family = decoder, {MODEL}, parts = {{ attention_cap = 50 }}", "capped"),
        (f"family = decoder, {MODEL}, parts = {{ alibi = true }}", "ALiBi"),
        (
            f"family = gpt_oss, {MODEL.replace(', ffn = 128', '')}, "
            "experts = { count = 4, active = 2, ffn = 32 }",
            "sinks",
        ),
    ],
)
def test_scores_that_weights_do_not_decide_cannot_be_clipped(model: str, why: str) -> None:
    text = HEAD.replace(MODEL, model) + stage(optimizer=CLIPPED, export="none")
    (found,) = [each for each in check(text) if each.severity == "error"]
    assert found.code == "E597"
    assert why in found.message


def test_adapters_cannot_be_clipped() -> None:
    text = HEAD + stage(optimizer=CLIPPED) + after(adapter="lora { rank = 8 }")
    found = [each for each in check(text) if each.severity == "error"]
    assert [each.code for each in found] == ["E597"]
    assert "adapter" in found[0].message


def test_other_optimizers_have_no_such_setting() -> None:
    assert [each.code for each in check(HEAD + stage(optimizer="adamw { qk_clip = 100 }"))] == [
        "E325"
    ]
