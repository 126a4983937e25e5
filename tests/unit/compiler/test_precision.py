"""Products in 8 and 4 bits, and recomputation by a budget: what is checked, planned, estimated."""

from typing import Any

import pytest
from specs import HEAD, after, check, compiled, jobs, miniature, plan, stage

from etude.compiler.costs.estimate import Setting, estimate
from etude.compiler.costs.hardware import GPUS
from etude.compiler.families.architectures import published
from etude.compiler.families.low_precision import KERNELS, converted, share
from etude.compiler.plan.difference import difference
from etude.compiler.values import Resources
from etude.runtime.emission.emit import emit
from etude.spec.schema.precision import Precision, budget

SHAPE = "layers = 4, dim = 1024, heads = 8, ffn = 4096, vocab = 32768"
MODEL = f"model wide {{ {SHAPE} }}\n"
MIXED = (
    f"model wide {{ family = qwen3, {SHAPE}, "
    "experts = { count = 128, active = 8, ffn = 1024 } }\n"
)
WIDE = {"model": "wide", "seq_len": "2048", "batch": "8 seqs"}


def pod(gpu: str, more: str = "") -> str:
    return f'cluster pod {{ gpus = 4 of "{gpu}"{more} }}\n'


def spec(gpu: str = "B200", model: str = MODEL, **settings: str) -> str:
    return HEAD + model + pod(gpu) + stage(**{**WIDE, **settings})


def sections(text: str, name: str = "first") -> dict[str, Any]:
    return jobs(plan(text), name)[0].torchtitan


def wrong(text: str) -> list[tuple[str, str]]:
    """The errors of a spec, with the way out of each."""
    return [(each.code, each.help) for each in check(text) if each.code.startswith("E")]


# What torchtitan is told


def test_bf16_and_fp32_convert_nothing() -> None:
    for kind in ("bf16", "fp32"):
        assert "quantization" not in sections(spec(precision=kind))


def test_fp8_is_torchtitans_converter_without_output_and_router() -> None:
    found = sections(spec(precision="fp8"))
    assert found["quantization"] == {
        "Float8LinearConverter": {"recipe_name": "rowwise", "filter_fqns": ["lm_head"]}
    }
    assert found["training"]["mixed_precision_param"] == "bfloat16"


def test_a_group_says_what_stays_in_bf16() -> None:
    group = "fp8 { recipe = rowwise_with_gw_hp, except = [], bf16_first = 1, bf16_last = 2 }"
    assert sections(spec(precision=group))["quantization"] == {
        "Float8LinearConverter": {
            "recipe_name": "rowwise_with_gw_hp",
            "filter_fqns": ["layers.0.", "layers.2.", "layers.3."],
        }
    }


def test_mxfp8_names_what_is_converted_and_converts_experts() -> None:
    found = sections(spec(model=MIXED, precision="mxfp8"))["quantization"]
    assert found == {
        "MXFP8LinearConverter": {"fqns": ["attention."]},
        "MXFP8GroupedExpertsConverter": {"pad_multiple": 128},
    }


def test_nvfp4_leaves_whole_layers_in_bf16() -> None:
    found = sections(spec(precision="nvfp4 { bf16_last = 2 }"))["quantization"]
    layers = [f"layers.{i}.{part}." for i in (0, 1) for part in ("attention", "feed_forward")]
    assert found == {"NVFP4LinearConverter": {"fqns": layers}}


def test_a_budget_is_torchtitans() -> None:
    found = sections(spec(recompute="budget 62.5%"))["activation_checkpoint"]
    assert found == {"mode": "memory_budget", "memory_budget": 0.625}


def test_stages_inherit_both() -> None:
    text = spec(precision="fp8 { except = [output] }", recompute="budget 60%")
    made = plan(text + after(seq_len="2048", batch="8 seqs"))
    first, second = (jobs(made, name)[0].torchtitan for name in ("first", "second"))
    assert second["quantization"] == first["quantization"]
    assert second["activation_checkpoint"] == first["activation_checkpoint"]
    shown = made.stages["second"].values["precision"]
    assert shown
    assert (shown.value, shown.origin) == (
        "fp8 { recipe = rowwise, except = [output] }",
        "from first",
    )


def test_on_cpus_by_ranks_and_in_miniatures_both_are_left_out() -> None:
    text = spec(precision="fp8", recompute="budget 60%")
    (job,) = jobs(plan(text, ranks=2), "first")
    assert "quantization" not in job.torchtitan
    assert job.torchtitan["training"]["mixed_precision_param"] == "bfloat16"
    assert job.torchtitan["activation_checkpoint"] is None
    tiny = miniature(text)
    small = jobs(tiny, "first")[0].torchtitan
    assert "quantization" not in small
    assert small["training"]["mixed_precision_param"] == "float32"
    said = {(of.full, of.miniature) for of in tiny.miniature or () if of.attribute == "precision"}
    assert said == {("fp8 { recipe = rowwise, except = [output, router] }", "—")}


def test_precision_is_in_the_key_and_recomputation_is_not() -> None:
    def key(**settings: str) -> str:
        return jobs(plan(spec(**settings)), "first")[0].key

    kinds = ("bf16", "fp8", "fp8 { except = [] }", "mxfp8", "nvfp4")
    assert len({key(precision=kind) for kind in kinds}) == len(kinds)
    assert key(recompute="budget 60%") == key()
    now, then = plan(spec()), plan(spec(recompute="budget 60%"))
    assert "budget 60%" in str(difference(now, then))


def test_what_measures_is_in_bf16_and_the_reference_of_dpo_is_as_the_stage() -> None:
    text = spec(precision="fp8") + (
        "dataset ranked { sample = python_functions, kind = preferences }\n"
        "stage chat: sft { from = first, steps = 2, seq_len = 2048, batch = 8 seqs, lr = 1e-4\n"
        "  data = talk }\n"
        "dataset talk { sample = python_functions, kind = dialogs }\n"
        "stage dpo: dpo { from = chat, steps = 2, seq_len = 2048, batch = 8 pairs, lr = 1e-5\n"
        "  data = ranked, precision = fp8 { except = [router] } }\n"
        "stage exam: evaluate { from = dpo, loss = [math], seq_len = 2048 }\n"
    )
    jobs: list[Any] = [job for job in plan(text).jobs if job.stage in ("dpo", "exam")]
    found = {job.kind: job.torchtitan for job in jobs if hasattr(job, "torchtitan")}
    # The head of preferences is etude's own, and no linear layer of torchtitan's.
    assert found["train"]["quantization"]["Float8LinearConverter"]["filter_fqns"] == ["lm_head"]
    assert found["reference"]["quantization"] == found["train"]["quantization"]
    (measured,) = (of for kind, of in found.items() if kind not in ("train", "reference"))
    assert "quantization" not in measured


def test_an_export_of_low_precision_is_bf16() -> None:
    for kind, dtype in (("fp8", "bf16"), ("bf16", "bf16"), ("fp32", None)):
        (export,) = (job for job in plan(spec(precision=kind)).jobs if job.kind == "export")
        assert export.dtype == dtype


def test_emitted_jobs_convert_and_have_a_budget() -> None:
    text = emit(plan(spec(model=MIXED, precision="mxfp8", recompute="budget 60%")))
    assert "from torchtitan.components.quantization import" in text
    assert "MXFP8LinearConverter.Config(" in text
    assert "MXFP8GroupedExpertsConverter.Config(" in text
    assert "fqns=['attention.']," in text
    assert "activation_checkpoint=MemoryBudgetAC.Config(memory_budget=0.6)," in text
    compile(text, "emitted.py", "exec")
    assert "converted" not in emit(plan(spec()))


# What the check finds


@pytest.mark.parametrize(
    ("gpu", "kind", "help"),
    [
        ("A100 80GB", "fp8", "write `precision = bf16`"),
        ("H100 80GB", "fp8", None),
        ("L40S", "fp8", None),
        ("MI300X", "fp8", None),
        ("A100 80GB", "mxfp8", "write `precision = bf16`"),
        ("H200", "mxfp8", "write `precision = fp8`"),
        ("MI300X", "nvfp4", "write `precision = fp8`"),
        ("B200", "mxfp8", None),
        ("B200", "nvfp4", None),
        ("Some New GPU", "nvfp4", None),
    ],
)
def test_a_precision_needs_a_gpu_that_has_it(gpu: str, kind: str, help: str | None) -> None:
    assert wrong(spec(gpu, precision=kind)) == ([("E564", help)] if help else [])


def test_on_cpus_there_are_no_products_in_eight_bits() -> None:
    assert [code for code, _ in wrong(HEAD + stage(precision="fp8"))] == ["E564"]
    assert wrong(HEAD + stage(precision="bf16")) == []


def test_a_stage_that_moves_to_older_gpus_is_told_there_and_its_followers_are_not() -> None:
    text = HEAD + MODEL + pod("H100 80GB") + 'cluster old { gpus = 4 of "A100 80GB" }\n'
    text += stage(**WIDE, precision="fp8", cluster="pod")
    moved = after(seq_len="2048", batch="8 seqs", cluster="old")
    text += moved + after("third", from_="second", seq_len="2048", batch="8 seqs")
    (found,) = (each for each in check(text) if each.code == "E564")
    assert found.span
    assert found.span.text == "old"


OFF = "{ compile = { enable = false } }"


def test_a_budget_needs_a_compiled_model() -> None:
    assert [code for code, _ in wrong(HEAD + stage(recompute="budget 60%"))] == ["E565"]
    assert [c for c, _ in wrong(spec(recompute="budget 60%", torchtitan=OFF))] == ["E565"]
    loss = '{ compile = { components = ["loss"] } }'
    assert [c for c, _ in wrong(spec(recompute="budget 60%", torchtitan=loss))] == ["E565"]
    inherited = spec(recompute="budget 60%")
    inherited += after(seq_len="2048", batch="8 seqs", torchtitan=OFF)
    assert [code for code, _ in wrong(inherited)] == ["E565"]
    assert wrong(spec(recompute="full", torchtitan=OFF)) == []


def test_low_precision_without_compilation_is_a_warning() -> None:
    codes = [each.code for each in check(spec(precision="fp8", torchtitan=OFF))]
    assert codes.count("W663") == 1
    assert "W663" not in [each.code for each in check(spec(precision="fp8"))]
    apart = spec(precision="fp8", parallel="{ pipeline 2, schedule zero_bubble_v }")
    (found,) = (each for each in check(apart) if each.code == "W663")
    assert "schedule" in found.help
    assert "W663" not in [each.code for each in check(spec(precision="bf16", torchtitan=OFF))]


@pytest.mark.parametrize(
    "group",
    [
        "mxfp8 { recipe = rowwise }",
        "fp8 { bf16_first = 2, bf16_last = 2 }",
        "fp8 { except = [attention, feed_forward, output] }",
    ],
)
def test_a_group_that_does_not_apply_is_an_error(group: str) -> None:
    assert [code for code, _ in wrong(spec(precision=group))] == ["E566"]


def test_experts_are_converted_in_all_layers_or_in_none() -> None:
    assert wrong(spec(model=MIXED, precision="mxfp8 { bf16_last = 1 }")) == [
        (
            "E566",
            "write `except = [experts, output, router]`, or remove `bf16_first` and `bf16_last`",
        )
    ]
    out = "mxfp8 { except = [experts, output, router], bf16_last = 1 }"
    assert wrong(spec(model=MIXED, precision=out)) == []


def test_experts_that_stay_in_bf16_are_a_warning_that_a_group_answers() -> None:
    def codes(precision: str) -> list[str]:
        return [each.code for each in check(spec(model=MIXED, precision=precision))]

    assert "W664" in codes("fp8")
    assert "W664" in codes("nvfp4")
    assert "W664" not in codes("mxfp8")
    assert "W664" not in codes("fp8 { except = [experts, output, router] }")


@pytest.mark.parametrize(
    ("precision", "shape", "tensor", "help"),
    [
        ("fp8", SHAPE, 4, None),
        ("nvfp4", SHAPE, 4, None),
        # Keys are 256 wide: 64 on each of 4 ranks.
        (
            "nvfp4",
            SHAPE.replace("heads = 8", "heads = 16, kv_heads = 4"),
            4,
            "write `precision = nvfp4 { except = [attention, router, output] }`, or `tensor 2`",
        ),
        ("nvfp4", SHAPE.replace("heads = 8", "heads = 16, kv_heads = 4"), 2, None),
        (
            "nvfp4 { except = [] }",
            SHAPE.replace("32768", "32832"),
            1,
            "write `precision = nvfp4 { except = [output] }`",
        ),
        ("fp8 { except = [] }", SHAPE.replace("32768", "32832"), 1, None),
        (
            "fp8",
            "layers = 2, dim = 72, heads = 1, ffn = 72, vocab = 300",
            1,
            "write `precision = bf16`",
        ),
    ],
)
def test_widths_are_those_that_the_kernels_take(
    precision: str, shape: str, tensor: int, help: str | None
) -> None:
    parallel = f"{{ tensor {tensor} }}" if tensor > 1 else "{ }"
    model = f"model wide {{ {shape} }}\n"
    found = wrong(spec(model=model, precision=precision, parallel=parallel))
    assert found == ([("E436", help)] if help else [])


@pytest.mark.parametrize(
    ("precision", "seq_len", "found"),
    [
        ("nvfp4", 2048, []),
        ("nvfp4", 2112, ["E437"]),
        ("fp8", 2112, []),
        ("fp8", 2056, ["E437"]),
        # The loss has 8 parts of 264 tokens each.
        ("fp8 { except = [] }", 2112, ["E437"]),
        ("fp8 { except = [] }", 2176, []),
    ],
)
def test_tokens_are_those_that_the_kernels_take(
    precision: str, seq_len: int, found: list[str]
) -> None:
    text = spec(precision=precision, seq_len=str(seq_len))
    assert [code for code, _ in wrong(text)] == found


def test_auto_chooses_only_placements_whose_widths_fit() -> None:
    text = spec(precision="nvfp4", parallel="auto")
    (job,) = jobs(plan(text), "first")
    assert all(width % KERNELS["nvfp4"].widths == 0 for width in (1024 // job.resources.tensor,))
    assert wrong(text) == []


def test_auto_keeps_a_budget() -> None:
    (job,) = jobs(plan(spec(recompute="budget 60%", parallel="auto")), "first")
    assert job.torchtitan["activation_checkpoint"]["memory_budget"] == 0.6


# What it costs


def setting(**changes: Any) -> Setting:
    model = published("llama3", "8B").knowing(8192)
    values: dict[str, Any] = {
        "model": model,
        "resources": Resources(
            world_size=8,
            device="H100 80GB",
            replicate=1,
            shard=8,
            tensor=1,
            context=1,
            pipeline=1,
            interleave=1,
            expert=1,
        ),
        "seq_len": 8192,
        "micro_batch": 1,
        "sequences": 8,
        "recompute": "none",
        "gpus_per_node": 8,
        "gpu": GPUS["H100 80GB"],
    }
    return Setting(**{**values, **changes})


def test_a_budget_lies_between_none_and_full_in_memory_and_time() -> None:
    def of(recompute: str) -> tuple[float, float]:
        found = estimate(setting(recompute=recompute))
        return found.memory["activations"], found.seconds

    none, full, half = of("none"), of("full"), of("budget 50%")
    assert half[0] == pytest.approx((none[0] + full[0]) / 2)
    assert half[1] == pytest.approx((none[1] + full[1]) / 2)
    assert of("budget 100%") == pytest.approx(none)
    assert of("budget 0%") == pytest.approx(full)


def test_only_converted_products_are_at_the_peak_of_eight_bits() -> None:
    def matmul(**changes: Any) -> dict[str, float]:
        return estimate(setting(**changes)).values

    wide, low = matmul(), matmul(precision="fp8 rowwise")
    output = wide["output_flops"] / (wide["e_matmul"] * wide["peak"])
    assert low["matmul"] - output == pytest.approx(
        low["matmul_flops"] / (low["e_rowwise"] * GPUS["H100 80GB"].fp8)
    )
    half = matmul(precision="fp8 rowwise", low=0.5)
    assert half["matmul"] == pytest.approx((wide["matmul"] + low["matmul"]) / 2)
    none = matmul(precision="fp8 rowwise", low=0.0)
    assert none["matmul"] == wide["matmul"]


def test_gradients_of_weights_in_bf16_are_a_third_of_the_products() -> None:
    found = estimate(setting(precision="fp8 rowwise_with_gw_hp")).values
    assert found["converted"] == pytest.approx(2 / 3)
    again = estimate(setting(precision="fp8 rowwise_with_gw_hp", recompute="full")).values
    assert again["converted"] == pytest.approx(3 / 4)


def test_nvfp4_is_at_the_peak_of_four_bits() -> None:
    found = estimate(setting(precision="nvfp4", gpu=GPUS["B200"])).values
    assert found["peak_low"] == GPUS["B200"].fp4 == 2 * GPUS["B200"].fp8


def test_the_share_is_that_of_a_tokens_products() -> None:
    dense = published("llama3", "8B")
    assert share(Precision(kind="fp8"), dense) == 1
    last = Precision(kind="fp8", bf16_last=8)
    assert share(last, dense) == pytest.approx(24 / 32)
    mixed = published("deepseek_v3", "671B")
    assert share(Precision(kind="fp8"), mixed) < 0.5 < share(Precision(kind="mxfp8"), mixed)
    assert converted(Precision(kind="fp8"), mixed) == [
        "attention",
        "feed_forward",
        "shared_experts",
    ]


def test_a_plan_of_fp8_takes_as_much_memory_and_other_time() -> None:
    costs = [
        jobs(plan(spec("H100 80GB", precision=kind)), "first")[0].cost for kind in ("bf16", "fp8")
    ]
    assert costs[0].memory == costs[1].memory
    assert costs[0].seconds != costs[1].seconds


def test_a_budget_is_read_from_how_it_is_shown() -> None:
    assert budget("budget 62.5%") == 5 / 8
    assert budget("full") is None
    made, report = compiled(spec(recompute="budget 60%"))
    assert made
    assert not report.errors
