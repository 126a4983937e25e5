"""Adapters: what is checked of them, planned and estimated."""

from math import sqrt
from typing import Any

import pytest
from specs import HEAD, after, check, jobs, miniature, only, plan, stage

from etude.compiler.costs.estimate import Estimate, Setting, estimate
from etude.compiler.costs.hardware import gpu
from etude.compiler.families.adapters import adapter_parameters
from etude.compiler.families.architectures import parameters, published
from etude.compiler.values import Resources
from etude.runtime.emission.emit import emit
from etude.spec.schema.recipe import Adapter

MIXED = (
    "model tiny { family = qwen3, layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, "
    "vocab = 300, experts = { count = 8, active = 2, ffn = 32, balance = 1e-3 } }"
)
OF_HEAD = "model tiny { layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300 }"


def tuned(adapter: str = "lora { rank = 4 }", head: str = HEAD, **settings: str) -> str:
    return head + stage() + after(**{"lr": "1e-3", "adapter": adapter, **settings})


def wrong(text: str) -> list[tuple[str, str]]:
    """The errors of a spec, with the way out of each."""
    return [(each.code, each.help) for each in check(text) if each.code.startswith("E")]


def section(text: str) -> dict[str, Any]:
    return only(jobs(plan(text), "second")).torchtitan["adapter"]["LoRAConverter"]


@pytest.mark.parametrize(
    ("adapter", "rank", "alpha", "layers"),
    [
        ("lora", 16, 32, ["wq", "wkv", "wo", "w1", "w2", "w3"]),
        ("lora { rank = 8, alpha = 4 }", 8, 4, ["wq", "wkv", "wo", "w1", "w2", "w3"]),
        ("lora { rank = 4, on = [attention] }", 4, 8, ["wq", "wkv", "wo"]),
        ("lora { rank = 4, on = [feed_forward] }", 4, 8, ["w1", "w2", "w3"]),
        ("lora { rank = 4, alpha = 6, over = sqrt_rank }", 4, 12, None),
    ],
)
def test_torchtitan_is_told(
    adapter: str, rank: int, alpha: float, layers: list[str] | None
) -> None:
    found = section(tuned(adapter))
    assert (found["rank"], found["alpha"]) == (rank, alpha)
    assert layers is None or found["target_modules"] == layers


def test_the_factor_of_rslora_is_over_the_root_of_the_rank() -> None:
    assert Adapter(name="lora", rank=16, alpha=8.0, over="sqrt_rank").factor == 8 / sqrt(16)
    assert Adapter(name="lora", rank=16, alpha=8.0).factor == 8 / 16


def test_other_plans_and_keys_stay_as_they_were() -> None:
    found = plan(HEAD + stage() + after(lr="1e-3"))
    assert all("adapter" not in getattr(job, "torchtitan", {}) for job in found.jobs)
    first, second = (only(jobs(plan(tuned()), name)) for name in ("first", "second"))
    assert first.key == only(jobs(found)).key
    assert second.key != only(jobs(found, "second")).key
    assert section(tuned("lora { rank = 8 }")) != section(tuned())


def test_moments_go_neither_into_the_stage_nor_out_of_it() -> None:
    found = plan(tuned() + after("third", from_="second", lr="1e-3"))
    names = ("first", "second", "third")
    states = {name: only(jobs(found, name)).optimizer_state for name in names}
    assert states == {"first": "fresh", "second": "fresh", "third": "fresh"}
    third = only(jobs(found, "third"))
    assert "adapter" not in third.torchtitan


def test_the_plan_says_how_many_parameters_are_trained() -> None:
    values = plan(tuned()).stages["second"].values
    # Two layers: 4 · (64 + 64, 64 + 32, 64 + 32, 64 + 64) and 4 · 3 · (64 + 128).
    assert 2 * 4 * (128 + 96 + 96 + 128 + 3 * 192) == 8192
    shown = "lora { rank = 4, alpha = 8, over = rank, on = [attention, feed_forward] }"
    assert values["adapter"].value == f"{shown}, 8,192 parameters"


@pytest.mark.parametrize(
    ("text", "code", "help"),
    [
        (HEAD + stage(adapter="lora"), "E573", "remove `adapter`"),
        (tuned(head=HEAD.replace(OF_HEAD, MIXED)), "E574", "write `on = [attention]`"),
        (tuned("lora { rank = 33 }"), "E575", "lower `rank` to 32 or less"),
        (tuned("lora { on = [attenton] }"), "E202", "did you mean `attention`?"),
        (tuned("lora { on = [] }"), "E574", "remove `on`"),
        (tuned("dora"), "E202", "write `lora`"),
        (tuned("lora { rank = 0 }"), "E208", ""),
        (tuned("lora { alpha = 0 }"), "E208", ""),
    ],
)
def test_what_cannot_be_is_said(text: str, code: str, help: str) -> None:
    found = wrong(text)
    assert [each for each, _ in found] == [code]
    assert help in found[0][1]


def test_attention_beside_experts_can_have_adapters() -> None:
    head = HEAD.replace(OF_HEAD, MIXED)
    assert section(tuned("lora { rank = 4, on = [attention] }", head))["target_modules"] == [
        "wq",
        "wkv",
        "wo",
    ]


def test_a_miniature_has_small_adapters_with_the_same_factor() -> None:
    big = "model tiny { layers = 4, dim = 1024, heads = 8, ffn = 4096, vocab = 32768 }"
    text = tuned("lora { rank = 32, alpha = 16 }", HEAD.replace(OF_HEAD, big))
    found = only(jobs(miniature(text), "second")).torchtitan["adapter"]["LoRAConverter"]
    assert (found["rank"], found["alpha"] / found["rank"]) == (4, 0.5)


def test_torchtitan_alone_does_not_get_such_stages() -> None:
    assert "torchtitan trains adapters, but does not merge them" in emit(plan(tuned()))


def step(adapters: float) -> Estimate:
    """A step of Llama 3 8B on one H100."""
    h100 = gpu("H100")
    assert h100
    one = Resources(
        world_size=1,
        device="H100",
        replicate=1,
        shard=1,
        tensor=1,
        context=1,
        pipeline=1,
        interleave=1,
        expert=1,
    )
    return estimate(
        Setting(
            model=published("llama3", "8B"),
            resources=one,
            seq_len=2048,
            micro_batch=1,
            sequences=8,
            recompute="full",
            gpus_per_node=8,
            gpu=h100,
            adapters=adapters,
        )
    )


def test_memory_and_time_are_those_of_the_adapters() -> None:
    model = published("llama3", "8B")
    count = adapter_parameters(Adapter(name="lora", rank=16), model)
    assert count == 41_943_040  # PEFT's count for rank 16 beside all seven matrices of 8B
    share = count / parameters(model)
    whole, adapted = step(0.0), step(share)
    for part, ratio in (("gradients", share), ("optimizer", share), ("parameters", 1 + share)):
        assert adapted.memory[part] == pytest.approx(ratio * whole.memory[part])
    # Frozen weights in fp32 are a quarter of weights, gradients and moments.
    assert adapted.memory_total < 0.36 * whole.memory_total
    # Of three products and a recomputed one, that of the gradients of weights is gone.
    assert 0.7 < adapted.time["compute"] / whole.time["compute"] < 0.85
    assert adapted.time["update"] < 0.01 * whole.time["update"]
