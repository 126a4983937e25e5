"""More tensor ranks than heads of keys: what plans and estimates say of it."""

import pytest
from specs import HEAD, check, jobs, plan, stage

from etude.compiler.costs.estimate import estimate
from etude.runtime.emission.emit import emit
from etude.spec.record import replace

POD = 'cluster pod { gpus = 8 of "H100 80GB" }\n'
ONE = HEAD.replace("heads = 4, kv_heads = 2", "heads = 8, kv_heads = 2")


def placed(**changes: str | None) -> str:
    return POD + stage(**{"batch": "8 seqs", "parallel": "{ tensor 4 }", **changes})


def test_a_multiple_of_the_heads_is_a_placement_and_emitted() -> None:
    made = plan(ONE + placed())
    assert jobs(made)[0].resources.tensor == 4
    text = emit(made)
    assert "model=sharing(" in text
    assert "class SharedKeys(" in text
    compile(text, "emitted", "exec")
    assert "sharing" not in emit(plan(ONE + placed(parallel="{ tensor 2 }")))


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ("heads = 12, kv_heads = 3", {"parallel": "{ tensor 2 }"}, "neither divides the model's 3"),
        ("family = gpt_oss", {}, "does not divide the model's 2 kv_heads"),
        ("family = decoder, parts = { qk_norm = width }", {}, "does not divide the model's 2"),
    ],
)
def test_what_ranks_cannot_share(shape: str, changes: dict[str, str], message: str) -> None:
    head = ONE
    if "heads" in shape:
        head = head.replace("dim = 64, heads = 8, kv_heads = 2", f"dim = 96, {shape}")
    elif "gpt_oss" in shape:
        experts = f"{shape}, experts = {{ count = 8, active = 2, ffn = 32 }}, layers = 2"
        head = head.replace("layers = 2", experts).replace(", ffn = 128", "")
    elif shape:
        head = head.replace("layers = 2", f"{shape}, layers = 2")
    found = [each for each in check(head + placed(**changes)) if each.severity == "error"]
    assert [each for each in found if each.code == "E433" and message in each.message], found


def test_heads_that_are_clipped_are_not_shared() -> None:
    text = (
        ONE
        + "cluster here { cpus = 8 }\n"
        + stage(batch="8 seqs", parallel="{ tensor 4 }", optimizer="muon { qk_clip = 100 }")
    )
    (found,) = [each for each in check(text) if each.severity == "error"]
    assert found.code == "E433"
    assert "ranks cannot share heads that `qk_clip` clips" in found.message


def test_adapters_of_attention_are_not_shared() -> None:
    text = ONE.replace("vocab = 300 }", 'vocab = 300, weights = "base", context = 64 }')
    lora = "lora {{ rank = 4, on = [{}] }}"
    for on, wrong in (("attention", True), ("feed_forward", False)):
        found = check(text + placed(model=None, **{"from": "tiny"}, adapter=lora.format(on)))
        assert bool([each for each in found if "adapters of attention" in each.message]) == wrong


def test_each_rank_keeps_the_projections_whole() -> None:
    from test_costs import setting

    base = setting(gpus=8, tensor=8)
    few = replace(base, model=replace(base.model, kv_heads=2))
    parameters = estimate(few).memory["parameters"]
    keys = 2 * 4096 * 2 * 128
    fewer = 32 * (2 * 4096 * 8 * 128 - keys) / 8
    whole = 32 * keys * (1 - 1 / 8)
    expected = estimate(base).memory["parameters"] + 4 * (whole - fewer)
    assert parameters == pytest.approx(expected, rel=1e-6)
