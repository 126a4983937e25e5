"""torchtitan's configurations as specs: numbers, what is open, what is refused."""

import math
import re

import pytest
from importing import changed, config, found, imported, of_pretrain, opened
from specs import batches, only, plan, rates

from etude.authoring.published_models import by_name
from etude.authoring.tree import ConfigError
from etude.compiler.plan.plan import TrainJob


def torchtitan_rate(
    step: int, warmup: int, decay: int, total: int, shape: str, low: float
) -> float:
    """The factor of torchtitan's warm-up, stable phase and decay at a step."""
    stable = total + 1 - warmup - decay
    if step < warmup:
        return (step + 1) / warmup
    if step < warmup + stable:
        return 1.0
    u = (step + 1 - warmup - stable) / decay
    gone = {"linear": u, "sqrt": math.sqrt(u), "cosine": (1 - math.cos(math.pi * u)) / 2}[shape]
    return low + (1 - low) * (1 - gone)


@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt"])
@pytest.mark.parametrize(
    ("warmup", "ratio"), [(2, "0.8"), (1, "0.5"), (0, "1.0"), (40, "0.25"), (10, "")]
)
def test_torchtitans_learning_rate_is_the_same_at_every_step(
    shape: str, warmup: int, ratio: str
) -> None:
    text = changed(
        "torchtitan_debug_model.toml",
        ("warmup_steps = 2", f"warmup_steps = {warmup}"),
        ("decay_ratio = 0.8", f"decay_ratio = {ratio}" if ratio else ""),
        ('"linear"', f'"{shape}"'),
        ("min_lr_factor = 0.0", "min_lr_factor = 0.1"),
        ("steps = 10\ndataset", "steps = 100\ndataset"),
    )
    decay = min(round(100 * float(ratio)) if ratio else 100, 100 - warmup)
    wanted = [8e-4 * torchtitan_rate(s, warmup, decay, 100, shape, 0.1) for s in range(100)]
    spec = imported("torchtitan_debug_model.toml", text).text
    assert rates(of_pretrain(spec)) == pytest.approx(wanted, rel=1e-6)


def test_torchtitans_batch_is_local_times_data_parallel() -> None:
    spec = imported("torchtitan_405b.toml", gpus=128)
    job = only(of_pretrain(spec.text))
    assert set(batches([job])) == {2 * 16}
    assert (job.resources.world_size, job.resources.tensor, job.resources.shard) == (128, 8, 16)
    assert "16 of" not in spec.text
    assert "nodes = 16" in spec.text.replace("  ", " ")
    text = changed(
        "torchtitan_8b.toml", ("seq_len = 8192", "seq_len = 8192\nglobal_batch_size = 64")
    )
    assert set(batches(of_pretrain(imported("x.toml", text, gpus=4).text))) == {64}


def test_torchtitans_saved_json_says_the_same_as_its_toml() -> None:
    old = only(of_pretrain(imported("torchtitan_8b.toml", gpus=8).text))
    new = only(of_pretrain(imported("torchtitan_8b.json", gpus=8).text))
    assert rates([old]) == rates([new])
    assert batches([old]) == batches([new])
    assert old.model == new.model
    assert new.model.rope_scaling == "llama"
    assert old.torchtitan["optimizer"] == new.torchtitan["optimizer"]


def test_positions_that_torchtitan_stretches_further_are_stretched_as_far() -> None:
    text = config("torchtitan_8b.json")
    text = text.replace('"scaling_factor":8.0', '"scaling_factor":32.0')
    model = only(of_pretrain(imported("torchtitan_8b.json", text, gpus=8).text)).model
    assert (model.rope_scaling, model.rope_factor, model.rope_original) == ("llama", 32, 8192)
    text = text.replace('"high_freq_factor":4.0', '"high_freq_factor":2.0')
    model = only(of_pretrain(imported("torchtitan_8b.json", text, gpus=8).text)).model
    assert (model.rope_factor, model.rope_low, model.rope_high) == (32, 1, 2)


def test_positions_that_nanotron_stretches_are_stretched_as_far() -> None:
    scaling = (
        "{factor: 32.0, low_freq_factor: 1.0, high_freq_factor: 4.0, rope_type: llama3, "
        "original_max_position_embeddings: 8192}"
    )
    text = changed("nanotron_tiny.yaml", ("rope_scaling: null", f"rope_scaling: {scaling}"))
    model = next(
        j.model
        for j in plan(imported("nanotron_tiny.yaml", text).text).jobs
        if isinstance(j, TrainJob)
    )
    assert (model.rope_scaling, model.rope_factor, model.rope_original) == ("llama", 32, 8192)
    text = text.replace("llama3", "linear")
    assert "rope_scaling" in str(found(imported("nanotron_tiny.yaml", text), "lost"))


@pytest.mark.parametrize("size", ["1B", "3B"])
def test_the_scaling_of_llama_3_2_is_known_by_name(size: str) -> None:
    model = by_name(f"meta-llama/Llama-3.2-{size}-Instruct")
    assert model
    assert model.shape == {"size": size, "rope_scaling": {"kind": "llama", "factor": 32.0}}
    assert model.context == 131_072


def test_a_decay_or_an_optimizer_that_etude_lacks_is_open() -> None:
    text = changed("torchtitan_debug_model.toml", ('"linear"', '"rsqrt"'))
    assert opened(imported("torchtitan_debug_model.toml", text, gpus=8)) == ["lr"]
    text = changed("torchtitan_8b.toml", ('name = "AdamW"', 'name = "Muon"'))
    assert opened(imported("torchtitan_8b.toml", text, gpus=8)) == ["optimizer"]


def test_gpus_that_the_degrees_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be divided by 8"):
        imported("torchtitan_405b.toml", gpus=12)


@pytest.mark.parametrize("name", ["torchtitan_8b.toml", "axolotl_liger_fsdp.yaml"])
def test_the_number_of_gpus_is_open_where_nobody_tells_it(name: str) -> None:
    assert {"gpus", "batch"} <= set(opened(imported(name)))
    assert not {"gpus", "batch"} & set(opened(imported(name, gpus=64)))


def test_another_family_is_refused_with_its_name() -> None:
    text = changed("torchtitan_8b.toml", ('name = "llama3"', 'name = "flux"'))
    with pytest.raises(ConfigError, match="family `flux`"):
        imported("torchtitan_8b.toml", text)
    text = changed("torchtitan_8b.toml", ('name = "llama3"', 'name = "deepseek_v3"'))
    with pytest.raises(ConfigError, match="not a published size of deepseek_v3"):
        imported("torchtitan_8b.toml", text)


@pytest.mark.parametrize(
    ("family", "flavor", "size", "stretched"),
    [
        ("qwen3", "30B-A3B", "30B-A3B", 1),
        ("deepseek_v3", "671B", "671B", 40),
        ("gpt_oss", "20b", "20B", 32),
    ],
)
def test_sizes_that_torchtitan_names_are_published_sizes_with_its_balance(
    family: str, flavor: str, size: str, stretched: float
) -> None:
    text = changed(
        "torchtitan_8b.toml",
        ('name = "llama3"', f'name = "{family}"'),
        ('flavor = "8B"', f'flavor = "{flavor}"'),
    )
    model = only(of_pretrain(imported("torchtitan_8b.toml", text, gpus=8).text)).model
    assert (model.family, model.size, model.rope_factor) == (family, size, stretched)
    assert model.experts
    assert model.experts.balance == 0.001


@pytest.mark.parametrize(
    ("settings", "written", "lost"),
    [
        ("keep_latest_k = 5", "keep last 5", False),
        ("keep_latest_k = 0", "keep all", False),
        ('last_save_in_hf = true\nexport_dtype = "bfloat16"', "export = bf16", False),
        ('last_save_in_hf = true\nexport_dtype = "float32"', "export = fp32", False),
        ('last_save_in_hf = true\nexport_dtype = "float16"', "", True),
        ('last_save_in_hf = false\nexport_dtype = "bfloat16"', "", True),
        ("enable = false\nlast_save_in_hf = true\nkeep_latest_k = 5", "", False),
    ],
)
def test_what_torchtitan_keeps_and_exports_is_kept_and_exported(
    settings: str, written: str, lost: bool
) -> None:
    before, _, rest = config("torchtitan_debug_model.toml").partition("[checkpoint]")
    _, after, behind = rest.partition("\n[")
    enable = "" if "enable" in settings else "enable = true\n"
    made = imported("x.toml", f"{before}[checkpoint]\n{enable}{settings}\n{after}{behind}")
    text = re.sub(r" +", " ", made.text)
    for line in ("keep last 5", "keep all", "export = bf16", "export = fp32"):
        assert (line in text) == (line == written)
    keys = [each.key for each in made.of("lost")]
    assert ("checkpoint.export_dtype" in keys) == lost
    assert of_pretrain(made.text)


def test_torchtitans_float8_is_a_precision_without_the_layers_that_it_leaves_out() -> None:
    spec = imported("torchtitan_405b.toml", gpus=128)
    assert "precision = fp8\n" in squeezed(spec.text)
    assert any("by rows" in each.reason for each in spec.findings if each.key == "precision")
    text = changed(
        "torchtitan_405b.toml",
        ('filter_fqns = ["output"]', 'recipe_name = "rowwise_with_gw_hp"\nfilter_fqns = []'),
    )
    spec = imported("x.toml", text, gpus=128)
    wanted = "precision = fp8 { recipe = rowwise_with_gw_hp, except = [] }"
    assert wanted in squeezed(spec.text)
    text = changed("torchtitan_405b.toml", ('["output"]', '["output", "attention.wk"]'))
    lost = [each for each in imported("x.toml", text, gpus=128).findings if each.fate == "lost"]
    assert any("attention.wk" in each.reason for each in lost)


def test_torchtitans_mx_is_mxfp8() -> None:
    text = changed(
        "torchtitan_405b.toml",
        ('converters = ["float8"]', 'converters = ["mx"]'),
        ("[quantize.linear.float8]", "[quantize.linear.mx]"),
        ("enable_fsdp_float8_all_gather = true\n", ""),
        ("precompute_float8_dynamic_scale_for_fsdp = true\n", ""),
    )
    assert "precision = mxfp8\n" in squeezed(imported("x.toml", text, gpus=128).text)


def test_torchtitans_memory_budget_is_a_budget() -> None:
    mode = next(
        line for line in config("torchtitan_405b.toml").splitlines() if line.startswith("mode")
    )
    text = changed("torchtitan_405b.toml", (mode, 'mode = "memory_budget"\nmemory_budget = 0.3'))
    assert "recompute = budget 30%\n" in squeezed(imported("x.toml", text, gpus=128).text)


def squeezed(text: str) -> str:
    """A spec without the alignment of its equals signs."""
    return re.sub(r" +", " ", text)
