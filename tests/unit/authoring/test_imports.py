"""Configurations of other programs as specs: what is common, what is listed, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from importing import (
    BASE,
    COMPLETE,
    FILES,
    changed,
    config,
    data_of,
    filled,
    imported,
    of_pretrain,
)
from specs import only, plan
from weights_folders import write_folder

from etude.authoring.draft import Base, Options
from etude.authoring.imports import import_config
from etude.authoring.published_models import by_name
from etude.authoring.tree import ConfigError
from etude.compiler.files.published_config import describe
from etude.compiler.files.published_weights import differences
from etude.spec.findings.diagnostics import Report
from etude.spec.load import loads


@pytest.mark.parametrize("name", FILES)
def test_the_program_is_told_by_the_content(name: str) -> None:
    assert imported(name).kind == name.partition("_")[0]


@pytest.mark.parametrize("name", FILES)
def test_every_value_is_accounted_for_with_a_reason(name: str) -> None:
    result = imported(name)
    root = import_config.__globals__["Config"](
        import_config.__globals__["read"](config(name), toml=name.endswith(".toml"))
    )
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
    known = imported("axolotl_reward.yaml")
    assert '= "gemma2-2B"' in known.text
    text = config("axolotl_reward.yaml").replace("google/gemma-2-2b", "org/other-2b")
    unknown = imported("axolotl_reward.yaml", text).of("needed")
    assert "model of org/other-2b" in {f.key for f in unknown}


@pytest.mark.parametrize(
    ("name", "size", "context"),
    [
        ("allenai/OLMo-2-1124-13B", "olmo2-13B", 4096),
        ("allenai/OLMo-2-0325-32B-Instruct", "olmo2-32B", 4096),
        ("Qwen/Qwen2.5-1.5B-Instruct", "qwen2.5-1.5B", 32_768),
        ("Qwen/Qwen2.5-14B", "qwen2.5-14B", 32_768),
        ("google/gemma-2-27b-it", "gemma2-27B", 8192),
        ("google/gemma-3-1b-pt", "gemma3-1B", 32_768),
    ],
)
def test_decoders_are_known_by_the_names_of_their_sizes(name: str, size: str, context: int) -> None:
    found = by_name(name)
    assert found
    assert (found.family, found.shape, found.context) == ("decoder", {"size": size}, context)


def test_larger_instruct_models_of_qwen_have_another_epsilon() -> None:
    found = by_name("Qwen/Qwen2.5-72B-Instruct")
    assert found
    assert found.shape == {"size": "qwen2.5-72B", "norm_eps": 1e-6}


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("axolotl_sft.yaml", "base_model: NousResearch/Meta-Llama-3.1-8B"),
        ("trl_sft.yaml", "model_name_or_path: meta-llama/Llama-3.1-8B"),
    ],
)
@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json"])
def test_the_chat_template_is_that_of_weights_that_are_here(
    name: str, old: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "mine", template=None)
    text = changed(name, (old, f"{old.partition(':')[0]}: ./mine"))
    text = text.replace("type: alpaca", "type: chat_template")
    assert "open template" in imported(name, text).text
    template = "{{ messages }}"
    said = template if file.endswith(".jinja") else json.dumps({"chat_template": template})
    (tmp_path / "mine" / file).write_text(said)
    assert f'template = "./mine/{file}"' in imported(name, text).text


def test_data_that_are_here_need_no_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = changed("axolotl_sft.yaml", ("path: tatsu-lab/alpaca", "path: talk.jsonl"))
    assert "--size talk=COUNT" in imported("axolotl_sft.yaml", text).text
    (tmp_path / "talk.jsonl").write_text("{}")
    assert "--size" not in imported("axolotl_sft.yaml", text).text


def test_the_shape_of_weights_is_read_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "weights" / "mine" / "one"
    folder.mkdir(parents=True)
    shape = {
        "num_hidden_layers": 3,
        "hidden_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "vocab_size": 500,
        "rope_theta": 2e4,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 256,
        "model_type": "mistral",
        "sliding_window": 128,
    }
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
    "longer": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        }
    },
    "bounds": {
        "rope_parameters": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 0.5,
            "high_freq_factor": 2.0,
            "original_max_position_embeddings": 8192,
            "rope_theta": 3e4,
        }
    },
    "yarn": {
        "rope_scaling": {
            "type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "attention_factor": 1.0,
        }
    },
    "wide heads": {"head_dim": 32, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 12},
    "experts": {
        "model_type": "qwen3_moe",
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "norm_topk_prob": True,
        "mlp_only_layers": [0],
    },
    "latents": {
        "model_type": "deepseek_v3",
        "num_key_value_heads": 4,
        "kv_lora_rank": 16,
        "q_lora_rank": None,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 8,
        "n_routed_experts": 8,
        "n_group": 2,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
    },
    "windows": {
        "model_type": "gpt_oss",
        "head_dim": 12,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "rope_parameters": {"rope_type": "default"},
        "attention_bias": True,
        "sliding_window": 16,
    },
}


@pytest.mark.parametrize("changes", OF_WEIGHTS.values(), ids=OF_WEIGHTS.keys())
def test_a_model_is_written_as_its_configuration_describes_it(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "weights" / "mine"
    folder.mkdir(parents=True)
    shape = {
        "num_hidden_layers": 3,
        "hidden_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "vocab_size": 500,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 256,
        "model_type": "llama",
    } | changes
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
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "positions by linear"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "llama3 and yarn"),
        ({"clip_qkv": 8.0}, "are not clipped"),
    ],
)
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


def test_what_to_look_at_stands_at_the_end_of_the_spec() -> None:
    text = imported("axolotl_dpo_lora.yaml").text
    comments = text.partition("# Not converted:")[2]
    for expected in ("lora_dropout = 0.05 (line 32)", "# Assumed:"):
        assert expected in comments
    assert all(line.startswith("#") for line in comments.splitlines()[1:] if line)


# Broken input

LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, {}]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Each name stands for nine of the one before: 9⁹ values in 300 characters."""


@pytest.mark.parametrize(
    ("file", "text", "line", "message"),
    [
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
        ("a.yaml", "a: !!python/object/apply:os.system [ls]\n", None, "not a configuration of"),
        ("a.yaml", "", None, "not a configuration of"),
        ("a.yaml", "model: {}\n", None, "not a configuration of"),
    ],
)
def test_what_cannot_be_read_is_one_message_with_its_line(
    file: str, text: str, line: int | None, message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        import_config(text, file)
    assert message in raised.value.message
    if line:
        assert raised.value.line == line


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("micro_batch_size: 1", "micro_batch_size: many", "`micro_batch_size` is many"),
        ("micro_batch_size: 1", "micro_batch_size: 0", "at least 1"),
        ("micro_batch_size: 1", "micro_batch_size: 1.5", "a whole number"),
        ("learning_rate: 2e-5", "learning_rate: [1, 2]", "a number"),
        ("sample_packing: true", "sample_packing: perhaps", "true or false"),
        ("learning_rate: 2e-5", "learning_rate: 1e99999999", "a number"),
    ],
)
def test_a_value_of_the_wrong_kind_is_one_message_with_its_line(
    old: str, new: str, message: str
) -> None:
    text = changed("axolotl_sft.yaml", (old, new))
    with pytest.raises(ConfigError) as raised:
        imported("axolotl_sft.yaml", text)
    assert message in raised.value.message
    assert raised.value.line == config("axolotl_sft.yaml").splitlines().index(old) + 1


def test_anchors_and_merged_groups_are_followed() -> None:
    text = changed(
        "nanotron_folders.yaml",
        ("general: {", "seeds: &s {seed: 3, project: P}\ngeneral: {<<: *s, "),
    )
    assert "seed = 7" in imported("nanotron_folders.yaml", text).text


def test_texts_of_a_configuration_cannot_leave_their_place() -> None:
    text = changed(
        "nanotron_folders.yaml",
        ("project: Nanoset, run: llama", 'project: "a\\" }\\nstage x", run: "l\\nlama"'),
        ("{std: 0.025}", '{std: 0.025, why: "x\\nrecipe evil { }"}'),
    )
    spec = imported("nanotron_folders.yaml", text).text
    recipe = loads(filled(spec), Report())
    assert recipe
    assert recipe.header.title == 'a" }\nstage x: l\nlama'
