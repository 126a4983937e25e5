"""Configurations of other programs as specs: numbers, what is listed, what is refused."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from specs import batches, jobs, only, plan, rates

from etude.authoring import writing
from etude.authoring.config import Finding
from etude.authoring.draft import Base, Options
from etude.authoring.imports import Imported, import_config
from etude.authoring.published_models import by_name
from etude.authoring.tree import ConfigError
from etude.compiler.plan import Plan, TrainJob
from etude.compiler.published_config import describe
from etude.compiler.published_weights import differences
from etude.spec.diagnostics import Report
from etude.spec.load import loads

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FILES = sorted(path.name for path in CONFIGS.iterdir())
COMPLETE = [name for name in FILES if not name.startswith("axolotl")]
BASE = """recipe base { seed = 1 }
model tiny { layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300 }
dataset web { sample = python_docs }
stage base: train { model = tiny, steps = 10, seq_len = 16, batch = 4 seqs, lr = 1e-3, data = web }
"""


def config(name: str) -> str:
    return (CONFIGS / name).read_text(encoding="utf-8")


def imported(name: str, text: str | None = None, **options: Any) -> Imported:
    return import_config(text or config(name), name, options=Options(**options))


GIVEN = {
    "family": 'size = "8B", context = 8Ki', "template": "protocol = llama3",
    "files": 'files = "texts.jsonl"', "hub": 'hub = "some/texts"', "tokens": "tokens = 1M",
    "pairs": "pairs = 1k", "gpus": 'gpus = 8 of "H100 80GB"', "batch": "batch = 64 seqs",
}  # fmt: skip


def filled(text: str) -> str:
    """An imported spec with something in place of every open line: of rates the comment."""
    pairs = ": dpo {" in text or ": reward {" in text
    given = GIVEN | ({"batch": "batch = 64 pairs"} if pairs else {})
    text = re.sub(r"# (lr = [^\n]*)\n\s*open lr [^\n]*", r"\1", text)
    return re.sub(r'open (\w+)\s+"(?:[^"\\]|\\.)*"', lambda m: given.get(m[1], ""), text)


def opened(of: Imported) -> list[str]:
    """The attributes that `check` reports as open, and nothing else."""
    report = Report()
    loads(of.text, report)
    assert {found.code for found in report.errors} <= {"E335"}
    return [found.message.split("`")[1] for found in report.errors]


def changed(name: str, *changes: tuple[str, str]) -> str:
    """A configuration with some of its lines written otherwise."""
    text = config(name)
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def of_pretrain(text: str) -> list[TrainJob]:
    return jobs(plan(filled(text)), "pretrain")


def after_base(text: str) -> Plan:
    """The plan of stages that continue from a stage `base`."""
    head = text.replace("recipe ", "recipe_").partition("\n\n")  # the header goes, the rest stays
    body = "\n\n".join(p for p in head[2].split("\n\n") if not p.startswith("recipe_"))
    return plan(BASE + body)


def found(of: Imported, fate: str) -> dict[str, Finding]:
    return {finding.key: finding for finding in of.of(fate)}


@pytest.mark.parametrize("name", FILES)
def test_the_program_is_told_by_the_content(name: str) -> None:
    assert imported(name).kind == name.partition("_")[0]


@pytest.mark.parametrize("name", FILES)
def test_every_value_is_accounted_for_with_a_reason(name: str) -> None:
    result = imported(name)
    root = import_config.__globals__["Config"](import_config.__globals__["read"](
        config(name), toml=name.endswith(".toml")))  # fmt: skip
    fates = {f.key for f in result.findings}
    assert set(root.leaves) <= fates
    assert not [f for f in result.findings if f.fate != "carried" and not f.reason]
    assert not [f for f in result.findings if "does not know" in f.reason]


@pytest.mark.parametrize("name", COMPLETE)
def test_a_complete_configuration_makes_a_spec_without_errors(name: str) -> None:
    assert of_pretrain(imported(name).text)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("axolotl")])
def test_a_stage_after_others_lacks_those_and_nothing_else(name: str) -> None:
    options = Options(
        base=Base("base.etude", "base", frozenset({"web", "tiny", "base"})),
        sizes=dict.fromkeys(data_of(name), 1000000),
    )
    text = import_config(config(name), name, options=options).text
    assert text.count('use "base.etude"') == 1
    assert plan(BASE + filled(text.replace('use "base.etude"', "")))


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("axolotl")])
def test_a_stage_without_others_starts_from_the_weights_that_it_names(name: str) -> None:
    text = imported(name, sizes=dict.fromkeys(data_of(name), 1000000), gpus=8).text
    job = only([job for job in plan(filled(text)).jobs if job.kind == "weights"])
    assert f"base_model: {job.source['hub']}" in config(name)


def test_the_shape_of_weights_is_known_by_their_name() -> None:
    known = imported("axolotl_liger_fsdp.yaml")
    assert 'size         = "8B"' in known.text
    assert not [f for f in known.of("needed") if f.key.startswith("model of")]
    unknown = imported("axolotl_reward.yaml").of("needed")
    assert "model of google/gemma-2-2b" in {f.key for f in unknown}


def test_the_shape_of_weights_is_read_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "weights" / "mine" / "one"
    folder.mkdir(parents=True)
    shape = {"num_hidden_layers": 3, "hidden_size": 48, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 500,
             "rope_theta": 2e4, "rms_norm_eps": 1e-6, "max_position_embeddings": 256,
             "model_type": "mistral", "sliding_window": 128}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(shape))
    old = "base_model: NousResearch/Meta-Llama-3.1-8B"
    text = changed("axolotl_liger_fsdp.yaml", (old, "base_model: weights/mine/one"))
    found = imported("axolotl_liger_fsdp.yaml", text, sizes={"finetome_100k": 10**6})
    job = only([job for job in plan(filled(found.text)).jobs if job.kind == "weights"])
    model = job.model
    assert (model.layers, model.dim, model.kv_heads, model.vocab) == (3, 48, 2, 500)
    assert (model.rope_theta, model.norm_eps, model.context) == (2e4, 1e-6, 128)
    assert job.source == {"folder": "weights/mine/one"}
    assert 'file = "weights/mine/one/tokenizer.json"' in found.text


OF_WEIGHTS: dict[str, dict[str, Any]] = {
    "longer": {"rope_scaling": {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128}},
    "bounds": {"rope_parameters": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 0.5, "high_freq_factor": 2.0,
        "original_max_position_embeddings": 8192, "rope_theta": 3e4}},
    "yarn": {"rope_scaling": {
        "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
        "attention_factor": 1.0}},
    "wide heads": {"head_dim": 32, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 12},
    "experts": {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2,
                "moe_intermediate_size": 16, "norm_topk_prob": True, "mlp_only_layers": [0]},
    "latents": {"model_type": "deepseek_v3", "num_key_value_heads": 4, "kv_lora_rank": 16,
                "q_lora_rank": None, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
                "v_head_dim": 8, "n_routed_experts": 8, "n_group": 2, "topk_group": 1,
                "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                "first_k_dense_replace": 1},
    "windows": {"model_type": "gpt_oss", "head_dim": 12, "num_local_experts": 4,
                "num_experts_per_tok": 2, "rope_parameters": {"rope_type": "default"},
                "attention_bias": True, "sliding_window": 16},
}  # fmt: skip


@pytest.mark.parametrize("changes", OF_WEIGHTS.values(), ids=OF_WEIGHTS.keys())
def test_a_model_is_written_as_its_configuration_describes_it(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "weights" / "mine"
    folder.mkdir(parents=True)
    shape = {"num_hidden_layers": 3, "hidden_size": 48, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 500,
             "rms_norm_eps": 1e-6, "max_position_embeddings": 256,
             "model_type": "llama"} | changes  # fmt: skip
    (folder / "config.json").write_text(json.dumps(shape))
    text = changed(
        "axolotl_liger_fsdp.yaml",
        ("base_model: NousResearch/Meta-Llama-3.1-8B", "base_model: weights/mine/"),
    )
    found = imported("axolotl_liger_fsdp.yaml", text, gpus=2, sizes={"finetome_100k": 10**6})
    job = only([job for job in plan(found.text).jobs if job.kind == "weights"])
    described = describe(shape)
    assert described.model
    assert list(differences(described.model, job.model)) == []
    assert job.model.context == described.longest


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"rope_scaling": {"type": "linear", "factor": 2.0}}, "positions by linear"),
     ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "llama3 and yarn"),
     ({"attention_bias": True}, "adds no biases"), ({"model_type": "qwen2"}, "have biases")],
)  # fmt: skip
def test_what_no_family_computes_is_left_open_with_the_reason(
    changes: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # A name that is known says less than the configuration.
    folder = tmp_path / "weights" / "Meta-Llama-3.1-8B"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | changes))
    text = changed(
        "axolotl_liger_fsdp.yaml",
        ("base_model: NousResearch/Meta-Llama-3.1-8B", "base_model: weights/Meta-Llama-3.1-8B/"),
    )
    needed = imported("axolotl_liger_fsdp.yaml", text).of("needed")
    (finding,) = [each for each in needed if each.key.startswith("model of")]
    assert reason in finding.reason


def data_of(name: str) -> list[str]:
    needed = [f.key for f in imported(name).of("needed")]
    return [key.removeprefix("dataset ") for key in needed if key.startswith("dataset ")]


def test_what_to_look_at_stands_at_the_end_of_the_spec() -> None:
    text = imported("axolotl_dpo_lora.yaml").text
    comments = text.partition("# Not carried over:")[2]
    for expected in ("lora_r = 32 (line 30)", "# Assumed:"):
        assert expected in comments
    assert all(line.startswith("#") for line in comments.splitlines()[1:] if line)


# torchtitan


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
    [("qwen3", "30B-A3B", "30B-A3B", 1), ("deepseek_v3", "671B", "671B", 40),
     ("gpt_oss", "20b", "20B", 32)],
)  # fmt: skip
def test_sizes_that_torchtitan_names_are_published_sizes_with_its_balance(
    family: str, flavor: str, size: str, stretched: float
) -> None:
    text = changed(
        "torchtitan_8b.toml", ('name = "llama3"', f'name = "{family}"'),
        ('flavor = "8B"', f'flavor = "{flavor}"'),
    )  # fmt: skip
    model = only(of_pretrain(imported("torchtitan_8b.toml", text, gpus=8).text)).model
    assert (model.family, model.size, model.rope_factor) == (family, size, stretched)
    assert model.experts
    assert model.experts.balance == 0.001


# nanotron


def nanotron_rate(step: int, warmup: int, start: int, decay: int, peak: float, low: float) -> float:
    """nanotron's rate: warm-up, stable phase, cosine, and the lowest rate from there on."""
    if step <= warmup:
        return peak * step / warmup
    if step < start:
        return peak
    if step < start + decay:
        return low + (peak - low) * (1 + math.cos(math.pi * (step - start) / decay)) / 2
    return low


@pytest.mark.parametrize(
    ("start", "decay", "begin", "length"),
    [("1000", "700", 1000, 700), ("null", "null", 200, 1800), ("1000", "null", 1000, 800),
     ("1500", "900", 1500, 900), ("null", "13", 200, 13)],
)  # fmt: skip
def test_nanotrons_learning_rate_is_the_same_at_every_step(
    start: str, decay: str, begin: int, length: int
) -> None:
    text = changed(
        "nanotron_tiny.yaml",
        ("lr_decay_starting_step: 1000", f"lr_decay_starting_step: {start}"),
        ("lr_decay_steps: 700", f"lr_decay_steps: {decay}"),
    )
    wanted = [nanotron_rate(s, 200, begin, length, 3e-4, 1e-5) for s in range(2000)]
    spec = imported("nanotron_tiny.yaml", text).text
    assert rates(of_pretrain(spec)) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("layers", "interleave"), [("", 2), ("layers_per_stage = 8", 4)])
def test_torchtitans_interleaved_pipeline_stays_one(layers: str, interleave: int) -> None:
    text = (CONFIGS / "torchtitan_405b.toml").read_text().replace(
        "pipeline_parallel_degree = 1",
        'pipeline_parallel_degree = 4\npipeline_parallel_schedule = "Interleaved1F1B"\n'
        + (f"pipeline_parallel_{layers}\n" if layers else ""),
    )  # fmt: skip
    made = imported("torchtitan_405b.toml", text, gpus=128).text
    assert f"tensor 8, pipeline 4, interleave {interleave}, micro_batch" in made


def test_nanotrons_batch_is_micro_times_accumulation_times_data_parallel() -> None:
    result = of_pretrain(imported("nanotron_tiny.yaml").text)
    assert set(batches(result)) == {3 * 5 * 4}
    resources = result[0].resources
    assert (resources.world_size, resources.tensor, resources.replicate) == (8, 2, 4)
    deep = of_pretrain(imported("nanotron_folders.yaml").text)
    assert set(batches(deep)) == {1 * 2 * 16}
    assert (deep[0].resources.world_size, deep[0].resources.pipeline) == (128, 2)
    assert deep[0].resources.shard == 16


def test_nanotrons_stages_of_data_are_one_schedule() -> None:
    spec = imported("nanotron_folders.yaml").text
    job = only(of_pretrain(spec))
    pieces = [
        (p.from_step, {n: weight / sum(p.weights.values()) for n, weight in p.weights.items()})
        for p in job.schedule.mixture
    ]
    assert pieces == [
        (0, {"c4_es": 1}),
        (14, {"slimpajama_6b": 0.5, "c4_es": 0.5}),
        (24, {"slimpajama_6b": 0.8, "c4_es": 0.2}),
    ]


def test_nanotrons_sequence_length_changes_with_its_stage() -> None:
    first, second = of_pretrain(imported("nanotron_tiny.yaml").text)
    assert (first.steps, first.model.context) == (1500, 4096)
    assert (second.steps, second.model.context) == (500, 8192)
    text = imported("nanotron_tiny.yaml").text
    assert 'split  = "test"' in text
    assert "{ openwebtext_10k_2 75%, testing_alpaca_small 25% }" in text


def test_nanotrons_shape_is_a_published_size_where_it_is_one() -> None:
    assert 'size = "8B"' in imported("nanotron_folders.yaml").text
    own = of_pretrain(imported("nanotron_tiny.yaml").text)[0].model
    assert (own.layers, own.dim, own.heads, own.kv_heads, own.ffn) == (28, 2048, 16, 2, 11008)
    assert (own.vocab, own.tied, own.rope_theta) == (128256, True, 10_000)


def test_tokenized_folders_are_open() -> None:
    made = imported("nanotron_folders.yaml")
    assert {"dataset c4_es", "dataset slimpajama_6b"} <= set(found(made, "needed"))
    assert opened(made).count("files") == 2


def test_what_is_missing_is_named() -> None:
    text = changed("nanotron_tiny.yaml", ("  train_steps: 2000\n", ""))
    with pytest.raises(ConfigError, match=r"`tokens\.train_steps` is missing"):
        imported("nanotron_tiny.yaml", text)


@pytest.mark.parametrize(
    "unlike",
    ["is_qwen2_config: true", "is_llamoe_config: true\n    moe_num_experts: 4",
     "moe_config: {num_experts: 8, top_k: 2}", "hidden_act: gelu", "attention_bias: true",
     "frobnication: 3"],
)  # fmt: skip
def test_a_model_that_is_no_llama_is_open(unlike: str) -> None:
    """No mixture of experts becomes a dense Llama, and nothing unknown changes it unseen."""
    text = config("nanotron_tiny.yaml").replace("    hidden_act: silu\n", "")
    text = text.replace("    attention_bias: false\n", "")
    assert opened(imported("nanotron_tiny.yaml", text)) == []
    made = imported("nanotron_tiny.yaml", text.replace("is_llama_config: true", unlike))
    assert opened(made) == ["family"]
    (reason,) = [finding.reason for finding in made.of("needed")]
    assert unlike.partition(":")[0] in reason


def test_experts_of_nanotron_stay_on_their_ranks() -> None:
    old = "    is_llama_config: true"
    text = changed("nanotron_tiny.yaml", (old, f"{old}\n    moe_num_experts: 4"))
    text = text.replace("expert_parallel_size: 1", "expert_parallel_size: 2")
    assert "expert 2" in imported("nanotron_tiny.yaml", text).text


@pytest.mark.parametrize(
    ("vocab", "tensor", "multiple", "rows"),
    [(50277, 1, 1, 50277), (50277, 2, 1, 50278), (50257, 2, 64, 50304), (128256, 2, 128, 128256)],
)
def test_nanotron_fills_the_vocabulary_up(
    vocab: int, tensor: int, multiple: int, rows: int
) -> None:
    text = changed(
        "nanotron_tiny.yaml",
        ("vocab_size: 128256", f"vocab_size: {vocab}"),
        ("\n  tp: 2", f"\n  tp: {tensor}"),
        ("divisible_by: 1", f"divisible_by: {multiple}"),
    )
    made = imported("nanotron_tiny.yaml", text)
    assert of_pretrain(made.text)[0].model.vocab == rows
    assert any(f"{rows} rows" in each.reason for each in made.of("assumed")) == (rows != vocab)


def test_a_state_space_model_of_nanotron_is_refused() -> None:
    old = "    is_llama_config: true"
    text = changed("nanotron_tiny.yaml", (old, "    is_mamba_config: true"))
    with pytest.raises(ConfigError, match="state-space model"):
        imported("nanotron_tiny.yaml", text)


@pytest.mark.parametrize(
    ("number", "written"),
    [(8096, "8096"), (8000, "8k"), (500_000, "500k"), (8192, "8Ki"), (999, "999")],
)
def test_counts_are_written_as_people_write_them(number: int, written: str) -> None:
    assert writing.count(number).replace("_", "") == written


def test_nanotrons_older_place_of_adams_settings_is_read() -> None:
    text, count = re.subn(
        r"  optimizer_factory:\n(    [^\n]*\n)+",
        "  adam_beta1: 0.9\n  adam_beta2: 0.98\n  adam_eps: 1.0e-9\n",
        config("nanotron_tiny.yaml"),
    )
    assert count == 1
    optimizer = of_pretrain(imported("nanotron_tiny.yaml", text).text)[0].torchtitan["optimizer"]
    kwargs = optimizer["param_groups"][0]["optimizer_kwargs"]
    assert (kwargs["betas"], kwargs["eps"]) == ([0.9, 0.98], 1e-9)


# axolotl


def stage_after(name: str, text: str | None = None, **options: Any) -> tuple[str, Plan]:
    """The imported spec after a base, and its plan."""
    base = Base("base.etude", "base", frozenset({"web", "tiny", "base"}))
    sizes = dict.fromkeys(data_of(name), 1000000)
    spec = imported(name, text, base=base, **({"sizes": sizes} | options)).text
    return spec, plan(BASE + filled(spec.replace('use "base.etude"', "")))


@pytest.mark.parametrize(("name", "stage", "gpus", "batch"), [
    ("axolotl_sft.yaml", "sft", 8, 1 * 8 * 8),
    ("axolotl_liger_fsdp.yaml", "sft", 2, 2 * 4 * 2),
    ("axolotl_dpo_lora.yaml", "dpo", 4, 2 * 4 * 4),
    ("axolotl_reward.yaml", "reward", 1, 2 * 4),
    ("axolotl_pretrain.yaml", "pretrain", 16, 1 * 8 * 16),
])  # fmt: skip
def test_axolotls_batch_is_micro_times_accumulation_times_gpus(
    name: str, stage: str, gpus: int, batch: int
) -> None:
    result = jobs(stage_after(name, gpus=gpus)[1], stage)
    assert set(batches(result)) == {batch}


def cosine(step: int, warmup: int, total: int) -> float:
    """transformers' cosine schedule with warm-up."""
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def linear(step: int, warmup: int, total: int) -> float:
    """transformers' linear schedule with warm-up."""
    return step / warmup if step < warmup else (total - step) / (total - warmup)


@pytest.mark.parametrize(("kind", "curve"), [
    ("cosine", cosine),
    ("linear", linear),
    ("constant", lambda step, warmup, total: 1.0),
    ("constant_with_warmup", lambda step, warmup, total: min(step / warmup, 1.0)),
])  # fmt: skip
def test_axolotls_learning_rate_is_the_same_at_every_step(
    kind: str, curve: Callable[[int, int, int], float]
) -> None:
    text = changed("axolotl_pretrain.yaml", ("lr_scheduler: cosine", f"lr_scheduler: {kind}"))
    result = jobs(stage_after("axolotl_pretrain.yaml", text)[1], "pretrain")
    wanted = [5e-4 * curve(step, 100, 1000) for step in range(1000)]
    assert rates(result) == pytest.approx(wanted, rel=1e-6, abs=1e-12)


def test_axolotls_warm_up_in_steps_and_lowest_rate() -> None:
    text = changed("axolotl_pretrain.yaml", ("warmup_ratio: 0.1", "warmup_steps: 50\n"
                                             "cosine_min_lr_ratio: 0.1"))  # fmt: skip
    result = rates(jobs(stage_after("axolotl_pretrain.yaml", text)[1], "pretrain"))
    assert result[49] == pytest.approx(5e-4 * 49 / 50)
    wanted = [5e-5 + (5e-4 - 5e-5) * cosine(step, 50, 1000) for step in range(50, 1000)]
    assert result[50:] == pytest.approx(wanted, rel=1e-6)


def test_a_stage_of_dialogs() -> None:
    spec, result = stage_after("axolotl_liger_fsdp.yaml")
    assert 'messages = "conversations"' in spec
    assert "epochs    = 1" in spec
    job = only(jobs(result, "sft"))
    assert job.objective.name == "sft"
    assert job.model.context == 4096
    assert job.torchtitan["training"]["mixed_precision_param"] == "bfloat16"
    assert job.torchtitan["activation_checkpoint"] == {"mode": "full"}
    kwargs = job.torchtitan["optimizer"]["param_groups"][0]["optimizer_kwargs"]
    assert kwargs["betas"] == [0.9, 0.999]
    assert kwargs["weight_decay"] == 0


def test_a_stage_of_dpo() -> None:
    name = "axolotl_dpo_lora.yaml"
    text = config(name) + "rl_beta: 0.2\nrpo_alpha: 0.5\ndpo_label_smoothing: 0.1\n"
    spec, result = stage_after(name, text)
    objective = only(jobs(result, "dpo")).objective
    assert (objective.beta, objective.nll, objective.label_smoothing) == (0.2, 0.5, 0.1)
    assert 'fields  = { prompt = "conversation" }' in spec
    lost = found(imported(name, text), "lost")
    assert {"adapter", "lora_r", "lora_alpha", "load_in_8bit"} <= set(lost)
    assert "base_model" not in lost
    assert "load_in_4bit" not in lost


def test_the_rate_of_an_adapter_is_not_that_of_all_weights() -> None:
    made = imported("axolotl_dpo_lora.yaml", gpus=4, sizes={"alpaca_messages_2k_dpo_test": 1000})
    assert "lr" in opened(made)
    assert "# lr = 0 -> " in made.text
    without = config("axolotl_dpo_lora.yaml").replace("adapter: lora\n", "")
    assert "lr" not in opened(imported("axolotl_dpo_lora.yaml", without))


@pytest.mark.parametrize(
    ("old", "new", "attribute"),
    [("lr_scheduler: cosine", "lr_scheduler: rex", "lr"),
     ("optimizer: adamw_torch_fused", "optimizer: muon", "optimizer"),
     ("chat_template: llama3", "chat_template: qwen_25", "template"),
     ("chat_template: llama3\n", "", "template"),
     ("type: chat_template", "type: alpaca", "fields"),
     ("type: chat_template", "type: phi_3", "fields"),
     ("base_model: NousResearch/Meta-Llama-3.1-8B", "base_model: Qwen/Qwen2.5-0.5B", "family")],
)  # fmt: skip
def test_what_axolotl_has_and_etude_lacks_is_open(old: str, new: str, attribute: str) -> None:
    text = changed("axolotl_liger_fsdp.yaml", (old, new))
    options = {"gpus": 2, "sizes": {"finetome_100k": 10**6}}
    assert opened(imported("axolotl_liger_fsdp.yaml", **options)) == []
    assert opened(imported("axolotl_liger_fsdp.yaml", text, **options)) == [attribute]


def test_weights_of_a_family_that_etude_lacks_are_told_by_their_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text('{"model_type": "gemma3"}')
    text = changed("axolotl_liger_fsdp.yaml", ("NousResearch/Meta-Llama-3.1-8B", "./weights"))
    made = imported("axolotl_liger_fsdp.yaml", text, gpus=2, sizes={"finetome_100k": 10**6})
    assert opened(made) == ["family"]
    assert "of the model_type gemma3" in made.of("needed")[0].reason


@pytest.mark.parametrize(
    ("warmup", "rate"), [("0.1", 5e-4 * 10 / 100), ("10", 5e-4), ("0", 5e-4), ("2.5", None)]
)
def test_axolotls_warm_up_may_be_a_share(warmup: str, rate: float | None) -> None:
    """As in transformers 5, a number of steps below 1 is a share of them."""
    text = changed("axolotl_pretrain.yaml", ("warmup_ratio: 0.1", f"warmup_steps: {warmup}"),
                   ("lr_scheduler: cosine", "lr_scheduler: constant_with_warmup"))  # fmt: skip
    if rate is None:
        with pytest.raises(ConfigError, match="or a share below 1"):
            stage_after("axolotl_pretrain.yaml", text)
        return
    result = rates(jobs(stage_after("axolotl_pretrain.yaml", text)[1], "pretrain"))
    assert result[10] == pytest.approx(rate)


def test_gpus_that_the_degrees_contradict_are_refused() -> None:
    text = config("axolotl_sft.yaml") + "dp_shard_size: 4\ndp_replicate_size: 2\n"
    assert "8 of" in imported("axolotl_sft.yaml", text).text
    with pytest.raises(ConfigError, match="multiply to 8"):
        imported("axolotl_sft.yaml", text, gpus=16)


@pytest.mark.parametrize(
    ("setting", "long"),
    [("", "drop"), ("excess_length_strategy: truncate\n", "truncate"),
     ("excess_length_strategy: raise\n", None)],
)  # fmt: skip
def test_long_records_are_left_out_as_in_axolotl(setting: str, long: str | None) -> None:
    text = config("axolotl_liger_fsdp.yaml") + setting
    spec = imported("axolotl_liger_fsdp.yaml", text).text
    assert (f"long    = {long}" in spec) if long else "long " not in spec


def test_the_names_of_parts_of_messages_are_carried_over() -> None:
    made = imported("axolotl_liger_fsdp.yaml")
    assert 'role = "from", content = "value"' in made.text
    assert not [key for key in found(made, "lost") if "message_property" in key]


def test_an_objective_that_is_not_there_is_refused() -> None:
    text = changed("axolotl_dpo_lora.yaml", ("rl: dpo", "rl: kto"))
    with pytest.raises(ConfigError, match="objective `kto`"):
        imported("axolotl_dpo_lora.yaml", text)


def test_plain_texts_are_trained_on_as_documents() -> None:
    text = changed("axolotl_sft.yaml", ("type: alpaca", "type: completion\n    field: body"))
    spec, result = stage_after("axolotl_sft.yaml", text)
    assert 'fields  = { text = "body" }' in spec
    assert "stage pretrain: train" in spec
    assert only(jobs(result, "pretrain")).objective.name == "next_token"


def test_files_instead_of_the_hub() -> None:
    text = changed(
        "axolotl_sft.yaml",
        ("path: tatsu-lab/alpaca", "path: data/chat.jsonl\n    ds_type: json"),
        ("type: alpaca", "type: chat_template"),
    )
    assert 'files   = "data/chat.jsonl"' in imported("axolotl_sft.yaml", text).text


def test_the_places_of_lost_settings_are_told() -> None:
    lost = found(imported("axolotl_liger_fsdp.yaml"), "lost")
    assert lost["datasets[0].split"].line == 12
    assert "train[:20%]" in lost["datasets[0].split"].value


def test_a_setting_that_nobody_knows_is_listed() -> None:
    lost = found(
        imported("axolotl_sft.yaml", config("axolotl_sft.yaml") + "frobnicate: 3\n"), "lost"
    )
    assert lost["frobnicate"].value == "3"


def test_a_size_of_no_data_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="--size web"):
        imported("axolotl_sft.yaml", sizes={"web": 5})


# Broken input

LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, {}]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Each name stands for nine of the one before: 9⁹ values in 300 characters."""


@pytest.mark.parametrize(("file", "text", "line", "message"), [
    ("a.yaml", "base_model: x\ndatasets: [\n", 3, "not YAML"),
    ("a.yaml", "base_model: x\n  seed: 3\ndatasets: []\n", 2, "not YAML"),
    ("a.yaml", "base_model: x\nseed: 1\nseed: 2\n", 3, "`seed` is given twice"),
    ("a.yaml", "base_model: x\n? [1, 2]\n: 3\n", 2, "plain text"),
    ("a.toml", "[training]\nsteps = \n", 2, "not TOML"),
    ("a.toml", "[training]\nsteps = 1\nsteps = 2\n", 3, "not TOML"),
    ("a.toml", "x = " + "9" * 5000, None, "not TOML"),
    ("a.yaml", "- 1\n- 2\n", 1, "no names"),
    ("a.yaml", "just text\n", 1, "no names"),
    ("a.json", '{"a": 1', 1, "not JSON"),
        ("a.json", '{"a":' * 5000, None, "40 deep"),
        ("a.yaml", "a:" + " b" * 200_000, None, "more than 200 kB"),
    ("a.yaml", "- " * 3000 + "a", None, "40 deep"),
    ("a.yaml", "a: " + "[" * 60 + "]" * 60, None, "40 deep"),
    ("a.yaml", "a: &a [*a]\n", 1, "40 deep"),
    ("a.yaml", LAUGHS, None, "more than 20000"),
    ("a.yaml", "a: \x00\n", None, "not YAML"),
    ("a.yaml", "a: !!python/object/apply:os.system [ls]\n", None, "no configuration of"),
    ("a.yaml", "", None, "no configuration of"),
    ("a.yaml", "model: {}\n", None, "no configuration of"),
])  # fmt: skip
def test_what_cannot_be_read_is_one_message_with_its_line(
    file: str, text: str, line: int | None, message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        import_config(text, file)
    assert message in raised.value.message
    if line:
        assert raised.value.line == line


@pytest.mark.parametrize(("old", "new", "message"), [
    ("micro_batch_size: 1", "micro_batch_size: many", "`micro_batch_size` is many"),
    ("micro_batch_size: 1", "micro_batch_size: 0", "at least 1"),
    ("micro_batch_size: 1", "micro_batch_size: 1.5", "a whole number"),
    ("learning_rate: 2e-5", "learning_rate: [1, 2]", "a number"),
    ("sample_packing: true", "sample_packing: perhaps", "true or false"),
    ("learning_rate: 2e-5", "learning_rate: 1e99999999", "a number"),
])  # fmt: skip
def test_a_value_of_the_wrong_kind_is_one_message_with_its_line(
    old: str, new: str, message: str
) -> None:
    text = changed("axolotl_sft.yaml", (old, new))
    with pytest.raises(ConfigError) as raised:
        imported("axolotl_sft.yaml", text)
    assert message in raised.value.message
    assert raised.value.line == config("axolotl_sft.yaml").splitlines().index(old) + 1


def test_anchors_and_merged_groups_are_followed() -> None:
    text = changed("nanotron_folders.yaml", ("general: {", "seeds: &s {seed: 3, project: P}\n"
                   "general: {<<: *s, "))  # fmt: skip
    assert "seed = 7" in imported("nanotron_folders.yaml", text).text


def test_texts_of_a_configuration_cannot_leave_their_place() -> None:
    text = changed("nanotron_folders.yaml",
                   ("project: Nanoset, run: llama", 'project: "a\\" }\\nstage x", run: "l\\nlama"'),
                   ("{std: 0.025}", '{std: 0.025, why: "x\\nrecipe evil { }"}'))  # fmt: skip
    spec = imported("nanotron_folders.yaml", text).text
    recipe = loads(filled(spec), Report())
    assert recipe
    assert recipe.header.title == 'a" }\nstage x: l\nlama'
