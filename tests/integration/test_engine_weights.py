"""Published weights: what transformers writes is what training starts from."""

import json
import os
import shutil
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import architecture, decoder, experts, latent, run, tensors, train_job, weights
from safetensors.torch import load_file, save_file
from sampling_models import judge, judge_shape
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM

from etude.compiler.families import FAMILIES
from etude.compiler.files.published_config import describe
from etude.compiler.files.published_keys import KINDS
from etude.compiler.plan.plan import Architecture, ExportJob, WeightsJob
from etude.runtime import weight_files
from etude.runtime.engine.attention.documents import by_window, document_mask
from etude.runtime.engine.families import hf_config, model_spec
from etude.runtime.engine.process import join
from etude.runtime.engine.train import make_trainer
from etude.runtime.engine.weights.convert import SOURCE
from etude.runtime.engine.weights.convert import weights as read
from etude.runtime.engine.weights.export import export
from etude.runtime.errors import DataError

GELU = {"norm": "layer", "activation": "gelu", "gated": False}
SHAPES = {
    "grouped": architecture(),
    "tied": architecture(tied=True, kv_heads=4),
    "wide heads": architecture(head_dim=32),
    "long": architecture(
        rope_scaling="llama",
        rope_factor=8.0,
        rope_original=8192,
        rope_theta=500_000.0,
        norm_eps=1e-6,
    ),
    "qwen3": architecture(family="qwen3", qk_norm=True, head_dim=32, tied=True),
    "qwen3 experts": architecture(family="qwen3", qk_norm=True, experts=experts(dense=1), layers=3),
    "deepseek": architecture(
        family="deepseek_v3",
        kv_heads=4,
        head_dim=24,
        latent=latent(),
        layers=3,
        experts=experts(
            shared=1, score="sigmoid", groups=4, groups_used=2, scale=2.5, dense=1, balance=0.001
        ),
    ),
    "gpt_oss": architecture(
        family="gpt_oss", head_dim=32, biased=True, sinks=True, window=16, experts=experts()
    ),
    "gemma": decoder(parts={"activation": "gelu_tanh", "scaled": True}, tied=True),
    "gemma2": decoder(
        parts={
            "norms": "both",
            "activation": "gelu_tanh",
            "scaled": True,
            "window_skips": 2,
            "attention_cap": 50.0,
            "logit_cap": 30.0,
        },
        window=16,
        tied=True,
    ),
    "gpt2": decoder(
        parts={**GELU, "activation": "gelu_tanh", "biases": "all", "learned": 256},
        kv_heads=4,
        tied=True,
    ),
    "gpt_neox": decoder(
        parts={**GELU, "biases": "all", "parallel": "two", "rotary": 0.25}, kv_heads=4
    ),
    "bloom": decoder(
        parts={
            **GELU,
            "activation": "gelu_tanh",
            "biases": "all",
            "alibi": True,
            "embedding_norm": True,
        },
        kv_heads=4,
        ffn=256,
        tied=True,
    ),
    "falcon": decoder(parts={**GELU, "parallel": "two"}, tied=True),
    "falcon, one norm": decoder(parts={**GELU, "parallel": "one"}, kv_heads=1),
}


def job(model: Architecture, folder: Path) -> WeightsJob:
    return WeightsJob(
        key="w", id="base", stage="base", inputs={}, model=model, source={"folder": str(folder)}
    )


def made(shape: Architecture, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """A model that transformers has made and written."""
    torch.manual_seed(3)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(**hf_config(shape)))
    model.to(dtype).save_pretrained(folder)
    return model


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_what_was_exported_is_read_with_the_same_bits(
    shape: Architecture, inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(train_job(steps=1, model=shape), inputs, tmp_path / "job")
    result = tmp_path / "job" / "result"
    made = ExportJob(key="x", id="x", stage="toy", inputs={}, model=shape)
    export(made, {"model": result, "tokenizer": inputs["tokenizer"]}, tmp_path / "export")
    exported = tmp_path / "export" / "result"
    read(job(shape, exported), tmp_path / "read", root=tmp_path)
    before, after = weights(result / "state"), tensors(tmp_path / "read" / "result" / "weights")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    source = json.loads((tmp_path / "read" / "result" / SOURCE).read_text())
    assert (
        source["files"]["model.safetensors"]["bytes"]
        == (exported / "model.safetensors").stat().st_size
    )


KINDS_OF_THEIRS = {
    "phi3": {"num_key_value_heads": 2, "partial_rotary_factor": 0.75},
    "phi3, as a Llama": {"model_type": "phi3", "num_key_value_heads": 2},
    "seed_oss": {"num_key_value_heads": 2, "head_dim": 32},
    "granite": {
        "attention_multiplier": 0.5,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "logits_scaling": 8.0,
    },
    "gemma2": {"query_pre_attn_scalar": 9, "head_dim": 32, "sliding_window": 16},
    "gemma3_text": {"head_dim": 32, "sliding_window": 16},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 16},
}


@pytest.mark.parametrize("name", KINDS_OF_THEIRS)
def test_a_folder_of_transformers_is_computed_as_transformers_does(
    name: str, tmp_path: Path
) -> None:
    given = {
        "model_type": name,
        "vocab_size": 300,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "pad_token_id": None,
        **KINDS_OF_THEIRS[name],
    }
    torch.manual_seed(3)
    theirs: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(**given)).eval()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    theirs.save_pretrained(tmp_path / "w")
    found = describe(json.loads((tmp_path / "w" / "config.json").read_text()), "decoder")
    assert found.problems == ()
    assert found.model
    shape = found.model.knowing(64)
    read(job(shape, tmp_path / "w"), tmp_path / "read", root=tmp_path)
    model: Any = model_spec(shape, "cpu", 64).model.build()
    model.init_weights(buffer_device=torch.device("cpu"))
    model.load_state_dict(tensors(tmp_path / "read" / "result" / "weights"))
    tokens, positions = torch.randint(300, (1, 48)), torch.arange(48)[None]
    masks = by_window(document_mask(positions), positions, shape.window)
    with torch.no_grad():
        expected = theirs(tokens).logits
        ours = model(tokens, positions=positions, attention_masks=masks)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def mean_loss(model: Any, batches: list[Any]) -> float:
    """The cross-entropy of batches under transformers, every document alone."""
    total, count = torch.zeros(()), 0
    for inputs, labels in batches:
        rows = zip(inputs["input"], inputs["positions"], labels, strict=True)
        for tokens, positions, targets in rows:
            starts = [*(positions == 0).nonzero().flatten().tolist(), len(tokens)]
            starts = starts if starts[0] == 0 else [0, *starts]
            for begin, end in pairwise(starts):
                logits = model(tokens[None, begin:end]).logits[0].float()
                loss = cross_entropy(logits, targets[begin:end], reduction="sum", ignore_index=-100)
                total += loss.detach()
                count += int((targets[begin:end] != -100).sum())
    return float(total) / count


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_first_loss_is_that_of_transformers(
    dtype: torch.dtype, inputs: dict[str, Path], tmp_path: Path
) -> None:
    shape = architecture()
    theirs = made(shape, tmp_path / "theirs", dtype).float()
    read(job(shape, tmp_path / "theirs"), tmp_path / "read", root=tmp_path)
    first = train_job(steps=1, model=shape)
    roles = {**inputs, "model": tmp_path / "read" / "result"}
    join(1, "cpu")
    with make_trainer(first, roles, tmp_path / "look", tmp_path, lambda event: None, {}) as trainer:
        batches = list(islice(trainer.dataloader, 2))  # of two rows each: a batch of four
    events = run(first, roles, tmp_path / "job")
    assert events[0]["loss"] == pytest.approx(mean_loss(theirs, batches), rel=1e-5)
    random = run(first, inputs, tmp_path / "random")
    assert events[0]["loss"] != pytest.approx(random[0]["loss"], rel=1e-3)


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    model = made(architecture(), tmp_path / "one")
    model.save_pretrained(tmp_path / "several", max_shard_size="100KB")
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 3
    for name in ("one", "several"):
        read(job(architecture(), tmp_path / name), tmp_path / f"{name} read", root=tmp_path)
    one, several = (
        tensors(tmp_path / f"{n} read" / "result" / "weights") for n in ("one", "several")
    )
    assert all(torch.equal(one[name], several[name]) for name in one)


def test_a_mistral_is_a_llama_of_its_own_shape(tmp_path: Path) -> None:
    made(architecture(), tmp_path / "w")
    change(
        tmp_path / "w",
        model_type="mistral",
        architectures=["MistralForCausalLM"],
        sliding_window=256,
    )
    read(job(architecture(), tmp_path / "w"), tmp_path / "read", root=tmp_path)
    assert (tmp_path / "read" / "result" / "weights").is_dir()


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def retensor(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    edit(state)
    save_file(state, path, metadata={"format": "pt"})


NORM = "model.layers.1.input_layernorm.weight"
WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, "there is no folder .*w with weights"),
    "no configuration": (
        lambda folder: (folder / "config.json").unlink(),
        "config.json cannot be read: no such file",
    ),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
    "another shape": (
        lambda folder: change(folder, num_hidden_layers=3, rms_norm_eps=1e-6),
        "num_hidden_layers is 3 there, and 2 in the spec; rms_norm_eps is 1e-06 there, and 1e-05",
    ),
    "another base": (
        lambda folder: change(folder, rope_parameters={"rope_theta": 5e5, "rope_type": "default"}),
        "rope_theta is 500000 there, and 10000 in the spec",
    ),
    "another family": (
        lambda folder: change(folder, model_type="qwen3", head_dim=16),
        "model_type qwen3, but `base` has the family llama3",
    ),
    "an architecture that is not built": (
        lambda folder: change(folder, model_type="qwen2"),
        "has the model_type qwen2, but `base` has the family llama3",
    ),
    "layers without positions": (
        lambda folder: change(folder, no_rope_layers=[1, 0]),
        "says no_rope_layers",
    ),
    "a YaRN that sharpens the softmax": (
        lambda folder: change(
            folder,
            rope_parameters={
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        ),
        "a YaRN that llama3 does not support: attention_factor = 1.13863 instead of 1",
    ),
    "another factor": (
        lambda folder: change(
            folder,
            rope_parameters={
                "rope_type": "llama3",
                "factor": 32.0,
                "original_max_position_embeddings": 64,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "rope_theta": 1e4,
            },
        ),
        r"rope_scaling is llama \{ factor = 32, original = 64, low = 1, high = 4 \} there",
    ),
    "a classifier of two": (
        lambda folder: change(folder, architectures=["LlamaForSequenceClassification"]),
        "LlamaForSequenceClassification with 2 labels: a reward model has one, its score",
    ),
    "a shorter context": (
        lambda folder: change(folder, max_position_embeddings=128),
        "max_position_embeddings 128, but `context` of `base` is 256",
    ),
    "a matrix that nothing says to tie": (
        lambda folder: retensor(folder, lambda state: state.pop("lm_head.weight")),
        "the files lack lm_head.weight: transformers would initialize it at random",
    ),
    "pickled": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "has no model.safetensors .* but pytorch_model.bin",
    ),
    "cut off": (
        lambda folder: os.truncate(folder / "model.safetensors", 100_000),
        "model.safetensors is truncated, or not a safetensors file",
    ),
    "a tensor missing": (
        lambda folder: retensor(folder, lambda state: state.pop(NORM)),
        f"lacks the tensor {NORM}",
    ),
    "a tensor too much": (
        lambda folder: retensor(
            folder, lambda s: s.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(64)})
        ),
        "has the tensor model.layers.0.self_attn.q_proj.bias in model.safetensors, which the "
        "model `base` does not have",
    ),
    "a tensor of another shape": (
        lambda folder: retensor(folder, lambda s: s.update({NORM: torch.ones(65)})),
        rf"the tensor {NORM} of .*model.safetensors has the shape \[65\], .* needs \[64\]",
    ),
    "quantized": (
        lambda folder: retensor(folder, lambda s: s.update({NORM: torch.ones(64).to(torch.int8)})),
        f"the tensor {NORM} of .* is stored as I8",
    ),
    "not a number": (
        lambda folder: retensor(folder, lambda s: s[NORM].fill_(float("nan"))),
        f"the tensor {NORM} of .* has values that are not finite",
    ),
}


@pytest.mark.parametrize(("edit", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named_with_a_way_out(
    edit: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    made(architecture(), tmp_path / "w")
    edit(tmp_path / "w")
    with pytest.raises(DataError, match=message) as raised:
        read(job(architecture(), tmp_path / "w"), tmp_path / "read", root=tmp_path)
    assert raised.value.help
    assert not (tmp_path / "read" / "result").exists()


def lying(folder: Path) -> Any:
    """Weights whose configuration ties an output matrix that the files have."""
    model = made(architecture(kv_heads=4), folder)
    change(folder, tie_word_embeddings=True)
    return model


def test_a_configuration_that_ties_two_matrices_is_taken_as_transformers_takes_it(
    tmp_path: Path,
) -> None:
    theirs = lying(tmp_path / "w")
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "w")
    assert torch.equal(loaded.lm_head.weight, theirs.lm_head.weight)
    assert not torch.equal(loaded.lm_head.weight, loaded.model.embed_tokens.weight)
    of = job(architecture(kv_heads=4), tmp_path / "w")
    found = read(of, tmp_path / "read", root=tmp_path)
    (note,) = found["notes"]
    assert "both are kept, as transformers does" in note
    state = tensors(tmp_path / "read" / "result" / "weights")
    assert torch.equal(state["lm_head.weight"], loaded.lm_head.weight)
    assert torch.equal(state["tok_embeddings.weight"], loaded.model.embed_tokens.weight)


def test_a_spec_that_believes_it_is_told_what_to_write(tmp_path: Path) -> None:
    lying(tmp_path / "w")
    with pytest.raises(DataError, match="the files have a separate output matrix") as raised:
        read(
            job(architecture(kv_heads=4, tied=True), tmp_path / "w"), tmp_path / "r", root=tmp_path
        )
    assert "`tied = false`" in raised.value.help


def test_an_output_matrix_that_is_the_embedding_once_more_is_tied(tmp_path: Path) -> None:
    made(architecture(kv_heads=4, tied=True), tmp_path / "w")
    retensor(
        tmp_path / "w",
        lambda state: state.update({"lm_head.weight": state["model.embed_tokens.weight"].clone()}),
    )
    found = read(
        job(architecture(kv_heads=4, tied=True), tmp_path / "w"), tmp_path / "r", root=tmp_path
    )
    assert found["notes"] == []
    with pytest.raises(DataError, match="tie_word_embeddings is true there, and false") as raised:
        read(job(architecture(kv_heads=4), tmp_path / "w"), tmp_path / "s", root=tmp_path)
    assert "`tied = true`" in raised.value.help


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_configuration_leaves_out_is_as_in_transformers(kind: str) -> None:
    theirs = AutoConfig.for_model(kind).to_dict()
    theirs |= theirs.get("rope_parameters") or {}
    for key, value in FAMILIES[KINDS[kind]].kinds[kind].defaults.items():
        if key == "sliding_window" and not theirs.get("use_sliding_window", True):
            continue
        if key == "rms_norm_eps" and key not in theirs:
            continue  # such a kind has its epsilon under another name
        if key in ("head_dim", "num_key_value_heads") and value is None:
            continue  # made from others there
        if key == "use_sliding_window" and key not in theirs:
            assert value is True  # such a kind always uses its window
            continue
        if key == "first_k_dense_replace" and key not in theirs:
            assert theirs["mlp_layer_types"].count("dense") == value
            continue
        if key == "intermediate_size" and key not in theirs:
            continue  # all layers of such a kind have experts
        if key == "norm_topk_prob" and key not in theirs:
            assert value is True  # such a kind always normalizes
            continue
        assert theirs.get(key) == value, key


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    made(architecture(), tmp_path / "x").save_pretrained(tmp_path / "w", max_shard_size="100KB")
    shard = sorted((tmp_path / "w").glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(DataError, match=rf"lacks the file {shard.name} with the tensor"):
        read(job(architecture(), tmp_path / "w"), tmp_path / "read", root=tmp_path)


def test_weights_of_the_hub_come_from_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, commit = tmp_path / "hub", "0" * 40
    made(architecture(), cache / "models--org--tiny" / "snapshots" / commit)
    (cache / "models--org--tiny" / "refs").mkdir()
    (cache / "models--org--tiny" / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    source = {"hub": "org/tiny", "revision": "main"}
    of = job(architecture(), tmp_path).model_copy(update={"source": source})
    read(of, tmp_path / "read", root=tmp_path)
    assert (tmp_path / "read" / "result" / "weights").is_dir()
    assert commit in json.loads((tmp_path / "read" / "result" / SOURCE).read_text())["from"]


def test_changed_weights_have_another_fingerprint(tmp_path: Path) -> None:
    made(architecture(), tmp_path / "w")
    source = {"folder": "w"}
    before = weight_files.fingerprint(source, tmp_path)
    assert weight_files.fingerprint(source, tmp_path) == before
    retensor(tmp_path / "w", lambda state: state[NORM].add_(0.5))
    assert weight_files.fingerprint(source, tmp_path) != before


def test_the_weights_of_a_judge_are_those_of_its_training(tmp_path: Path) -> None:
    """A classifier of transformers becomes the checkpoint that a reward stage would write."""
    folder = judge(tmp_path / "judge")
    shape = judge_shape(json.loads((folder / "config.json").read_text())["vocab_size"])
    asked = job(shape, folder).model_copy(update={"head": "score"})
    counted = read(asked, tmp_path / "job", root=tmp_path)
    theirs, ours = tensors(folder / "state"), tensors(tmp_path / "job" / "result" / "weights")
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert ours["lm_head.weight"].shape == (1, shape.dim)
    assert counted["parameters"] == sum(each.numel() for each in ours.values())
    assert counted["notes"] == []


def test_weights_that_end_in_something_else_are_refused(tmp_path: Path) -> None:
    folder = judge(tmp_path / "judge")
    shape = judge_shape(json.loads((folder / "config.json").read_text())["vocab_size"])
    with pytest.raises(DataError, match="describes a reward model"):
        read(job(shape, folder), tmp_path / "job", root=tmp_path)
