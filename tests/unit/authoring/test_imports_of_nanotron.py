"""nanotron's configurations as specs: numbers, what is open, what is refused."""

import math
import re

import pytest
from importing import (
    CONFIGS,
    changed,
    config,
    imported,
    of_pretrain,
    opened,
)
from specs import batches, only, rates

from etude.authoring import writing
from etude.authoring.tree import ConfigError


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
    [
        ("1000", "700", 1000, 700),
        ("null", "null", 200, 1800),
        ("1000", "null", 1000, 800),
        ("1500", "900", 1500, 900),
        ("null", "13", 200, 13),
    ],
)
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
    text = (
        (CONFIGS / "torchtitan_405b.toml")
        .read_text()
        .replace(
            "pipeline_parallel_degree = 1",
            'pipeline_parallel_degree = 4\npipeline_parallel_schedule = "Interleaved1F1B"\n'
            + (f"pipeline_parallel_{layers}\n" if layers else ""),
        )
    )
    made = imported("torchtitan_405b.toml", text, gpus=128).text
    assert f"tensor 8, pipeline 4, interleave {interleave}, micro_batch" in made


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ('schedule = "ZBVZeroBubble"', "schedule zero_bubble_v"),
        ('schedule = "DualPipeV"', "schedule dualpipe_v"),
        ('schedule = "GPipe"', "schedule gpipe"),
        ('schedule = "InterleavedZeroBubble"', "schedule zero_bubble"),
        (
            "first_stage_less_layers = 0\npipeline_parallel_last_stage_less_layers = 2",
            "first_less 0, last_less 2",
        ),
    ],
)
def test_torchtitans_schedules_and_splits_stay_what_they_are(fields: str, written: str) -> None:
    text = (
        (CONFIGS / "torchtitan_405b.toml")
        .read_text()
        .replace(
            "pipeline_parallel_degree = 1",
            f"pipeline_parallel_degree = 4\npipeline_parallel_{fields}\n",
        )
    )
    made = imported("torchtitan_405b.toml", text, gpus=128).text
    assert f"pipeline 4, micro_batch 2, {written} }}" in made


def test_nanotrons_pipeline_that_runs_all_forward_passes_first_stays_one() -> None:
    text = changed("nanotron_tiny.yaml", ("pp: 1", "pp: 2"), ("pp_engine: 1f1b", "pp_engine: afab"))
    assert "pipeline 2, micro_batch" in imported("nanotron_tiny.yaml", text).text
    assert "schedule gpipe" in imported("nanotron_tiny.yaml", text).text


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


def test_a_folder_that_is_called_like_a_word_of_the_language_gets_another_name() -> None:
    text = changed(
        "nanotron_folders.yaml", ("c4-es/tokenized", "at"), ("SlimPajama-6B/tokenized", "for")
    )
    job = only(of_pretrain(imported("nanotron_folders.yaml", text).text))
    assert [sorted(piece.weights) for piece in job.schedule.mixture] == [
        ["data_at"],
        ["data_at", "data_for"],
        ["data_at", "data_for"],
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


def test_tokenized_folders_are_read_where_they_are() -> None:
    made = imported("nanotron_folders.yaml")
    assert 'tokenized = "datasets/c4-es/tokenized/**/*.ds"' in made.text
    assert 'tokenized = "datasets/SlimPajama-6B/tokenized/**/*.ds"' in made.text
    assert "files" not in opened(made)


def test_what_is_missing_is_named() -> None:
    text = changed("nanotron_tiny.yaml", ("  train_steps: 2000\n", ""))
    with pytest.raises(ConfigError, match=r"`tokens\.train_steps` is missing"):
        imported("nanotron_tiny.yaml", text)


@pytest.mark.parametrize(
    "unlike",
    [
        "is_qwen2_config: true",
        "is_llamoe_config: true\n    moe_num_experts: 4",
        "moe_config: {num_experts: 8, top_k: 2}",
        "hidden_act: gelu",
        "attention_bias: true",
        "frobnication: 3",
    ],
)
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


@pytest.mark.parametrize(("enabled", "written"), [("true", True), ("false", False)])
def test_the_z_loss_is_that_of_the_configuration(enabled: str, written: bool) -> None:
    text = changed(
        "nanotron_tiny.yaml",
        (
            "  model_config:\n",
            f"  model_config:\n    z_loss_enabled: {enabled}\n    z_loss_coefficient: 0.0001\n",
        ),
    )
    assert ("z_loss" in imported("nanotron_tiny.yaml", text).text) == written
    if written:
        assert "= 1e-4" in imported("nanotron_tiny.yaml", text).text
