"""The model sees each document alone, and transformers reads it as torchtitan computes it."""

import json
import os
import stat
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from engine_jobs import architecture, decoder, experts, latent, run, tensors, train_job, weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from etude.compiler.plan.plan import Architecture, AverageJob, ExportJob
from etude.runtime.data.order.stream import pack
from etude.runtime.engine.attention.documents import by_window, document_mask
from etude.runtime.engine.checkpoints.storage import weights_of
from etude.runtime.engine.families import model_spec
from etude.runtime.engine.weights import export as exporting
from etude.runtime.engine.weights.export import export
from etude.runtime.engine.weights.mean import average
from etude.runtime.errors import RunError


def build(shape: Architecture, state: dict[str, torch.Tensor] | None = None) -> torch.nn.Module:
    model = model_spec(shape, "cpu", shape.context).model.build()
    if state is None:
        torch.manual_seed(1)
        model.init_weights(buffer_device=torch.device("cpu"))
    else:
        model.load_state_dict(state)
    return model.eval()


def logits(
    model: torch.nn.Module, tokens: torch.Tensor, positions: torch.Tensor, window: int = 0
) -> torch.Tensor:
    with torch.no_grad():
        masks = by_window(document_mask(positions), positions, window)
        return model(tokens, positions=positions, attention_masks=masks)


@pytest.fixture(scope="module")
def packed() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and positions, (1, 32): a document's end of 7 tokens, one of 15, a beginning of 10."""
    tokens = torch.randint(512, (33,), generator=torch.Generator().manual_seed(0))
    starts = torch.zeros(33, dtype=torch.bool)
    starts[[7, 22]] = True
    inputs, labels, positions = map(torch.from_numpy, pack(tokens.numpy(), starts.numpy()))
    assert labels[6] == labels[21] == -100
    return inputs[None], positions[None]


def test_the_mask_is_causal_and_within_documents() -> None:
    mask = document_mask(torch.tensor([[0, 1, 0, 1, 2], [0, 1, 2, 3, 4]]))
    assert mask.shape == (2, 1, 5, 5)
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 1],
    ]
    assert mask[1, 0].equal(torch.ones(5, 5, dtype=torch.bool).tril())


def test_a_document_does_not_see_the_others(packed: tuple[torch.Tensor, torch.Tensor]) -> None:
    tokens, positions = packed
    model = build(architecture())
    before = logits(model, tokens, positions)
    changed = tokens.clone()
    changed[:, 7:22] = (changed[:, 7:22] + 1) % 512
    after = logits(model, changed, positions)
    assert torch.equal(after[:, :7], before[:, :7])
    assert torch.equal(after[:, 22:], before[:, 22:])
    assert not torch.equal(after[:, 7:22], before[:, 7:22])


def test_a_packed_document_is_as_if_alone(packed: tuple[torch.Tensor, torch.Tensor]) -> None:
    tokens, positions = packed
    model = build(architecture())
    alone = logits(model, tokens[:, 7:22], positions[:, 7:22])
    torch.testing.assert_close(logits(model, tokens, positions)[:, 7:22], alone)


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(RunError, match="no model family `gpt9`"):
        model_spec(architecture(family="gpt9"), "cpu", 32)


GELU = {"norm": "layer", "activation": "gelu", "gated": False}
OLMO = {"norms": "after", "qk_norm": "width"}
SHAPES = {
    "grouped": architecture(),
    "tied": architecture(tied=True, kv_heads=4),
    "long": architecture(
        rope_scaling="llama",
        rope_factor=8.0,
        rope_original=8192,
        rope_theta=500_000.0,
        norm_eps=1e-6,
    ),
    "longer": architecture(
        rope_scaling="llama",
        rope_factor=32.0,
        rope_original=64,
        rope_low=0.5,
        rope_high=8.0,
        rope_theta=500_000.0,
    ),
    "yarn": architecture(rope_scaling="yarn", rope_factor=4.0, rope_original=64),
    "wide heads": architecture(head_dim=32),
    "qwen3": architecture(family="qwen3", qk_norm=True, head_dim=32, tied=True),
    "qwen3 yarn": architecture(
        family="qwen3", qk_norm=True, rope_scaling="yarn", rope_factor=4.0, rope_original=64
    ),
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
    "deepseek yarn": architecture(
        family="deepseek_v3",
        kv_heads=4,
        head_dim=24,
        latent=latent(queries=0),
        experts=experts(shared=2, score="sigmoid", balance=0.001),
        rope_scaling="yarn",
        rope_factor=4.0,
        rope_original=64,
    ),
    "deepseek v2": architecture(
        family="deepseek_v2",
        kv_heads=4,
        head_dim=24,
        latent=latent(eps=None),
        layers=3,
        experts=experts(shared=2, normalized=False, groups=4, groups_used=2, scale=16.0, dense=1),
        rope_scaling="yarn",
        rope_factor=4.0,
        rope_original=64,
        norm_eps=1e-6,
    ),
    "gpt_oss": architecture(
        family="gpt_oss", head_dim=32, biased=True, sinks=True, window=16, experts=experts()
    ),
    "gpt_oss yarn": architecture(
        family="gpt_oss",
        biased=True,
        sinks=True,
        experts=experts(),
        rope_scaling="yarn",
        rope_factor=4.0,
        rope_original=64,
    ),
    "parts as in Llama": decoder(),
    "qwen2": decoder(parts={"biases": "qkv"}, tied=True, head_dim=32),
    "olmo2": decoder(parts=OLMO),
    "olmo2 yarn": decoder(
        parts=OLMO, kv_heads=4, rope_scaling="yarn", rope_factor=4.0, rope_original=64
    ),
    "olmo3": decoder(parts={**OLMO, "window_skips": 3}, window=16, layers=4),
    "olmo3 yarn": decoder(
        parts={**OLMO, "window_skips": 2},
        window=16,
        rope_scaling="yarn",
        rope_factor=4.0,
        rope_original=64,
    ),
    "smollm3": decoder(parts={"rotary_skips": 2}, tied=True, layers=3),
    "nemotron": decoder(
        parts={"norm": "layer", "activation": "relu2", "gated": False, "rotary": 0.5}
    ),
    "stablelm": decoder(parts={"norm": "layer", "rotary": 0.25, "biases": "qkv"}),
    "starcoder2": decoder(
        parts={"norm": "layer", "activation": "gelu_tanh", "gated": False, "biases": "all"},
        window=16,
    ),
    "gemma": decoder(parts={"activation": "gelu_tanh", "scaled": True}, tied=True, head_dim=32),
    "gemma2": decoder(
        parts={
            "norms": "both",
            "activation": "gelu_tanh",
            "scaled": True,
            "window_skips": 2,
            "attention_cap": 2.0,
            "logit_cap": 1.0,
        },
        window=16,
        tied=True,
        head_dim=32,
    ),
    "gemma2, scores by another width": decoder(
        parts={
            "norms": "both",
            "activation": "gelu_tanh",
            "scaled": True,
            "window_skips": 2,
            "attention_scale": 9**-0.5,
        },
        window=16,
        tied=True,
    ),
    "gemma3_text": decoder(
        parts={
            "norms": "both",
            "qk_norm": "head",
            "activation": "gelu_tanh",
            "scaled": True,
            "window_skips": 2,
            "window_theta": 100.0,
        },
        window=16,
        tied=True,
        head_dim=32,
        rope_theta=1e6,
    ),
    "granite": decoder(
        parts={
            "attention_scale": 0.5,
            "embedding_scale": 12.0,
            "residual_scale": 0.22,
            "logit_scale": 0.125,
        },
        tied=True,
    ),
    "arcee": decoder(parts={"activation": "relu2", "gated": False}),
    "mistral": decoder(window=16),
    "phi3": decoder(parts={"rotary": 0.75}, window=16, head_dim=16),
    "gpt2": decoder(
        parts={**GELU, "activation": "gelu_tanh", "biases": "all", "learned": 256},
        kv_heads=4,
        tied=True,
    ),
    "gpt_neox": decoder(
        parts={**GELU, "biases": "all", "parallel": "two", "rotary": 0.25}, kv_heads=4
    ),
    "gpt_neox, one after the other": decoder(parts={**GELU, "biases": "all"}, kv_heads=4),
    "bloom": decoder(
        parts={
            **GELU,
            "activation": "gelu_tanh",
            "biases": "all",
            "alibi": True,
            "embedding_norm": True,
        },
        heads=6,
        kv_heads=6,
        dim=96,
        ffn=384,
        tied=True,
    ),
    "mixtral": decoder(window=16, experts=experts()),
    "falcon, two norms": decoder(parts={**GELU, "parallel": "two"}, tied=True),
    "falcon, one norm": decoder(parts={**GELU, "parallel": "one"}, kv_heads=1),
}


# Shapes whose parts are in others too; `test_engine_weights.py` reads such folders.
ALIKE = ("gemma2, scores by another width", "arcee", "mistral", "phi3")


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(shape, marks=[pytest.mark.exhaustive] if name in ALIKE else [], id=name)
        for name, shape in SHAPES.items()
    ],
)
def test_transformers_computes_the_same(
    shape: Architecture, inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(train_job(steps=2, model=shape), inputs, tmp_path / "job")
    result = tmp_path / "job" / "result"
    job = ExportJob(key="x", id="x", stage="toy", inputs={}, model=shape)
    export(job, {"model": result, "tokenizer": inputs["tokenizer"]}, tmp_path / "export")
    exported = tmp_path / "export" / "result"
    loaded: Any = AutoModelForCausalLM.from_pretrained(exported, output_loading_info=True)
    theirs, info = loaded
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys"))
    tokens = torch.randint(512, (2, 64), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(64).expand(2, -1)
    ours = build(shape, weights(result / "state"))
    with torch.no_grad():
        expected = theirs(tokens).logits
    found = logits(ours, tokens, positions, shape.window)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    if shape.window:
        assert not torch.allclose(logits(ours, tokens, positions), expected, rtol=1e-4, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(exported)
    begin, *ids = tokenizer("the cat")["input_ids"]
    assert begin == theirs.config.bos_token_id == 256
    assert tokenizer.decode(ids) == "the cat"
    assert theirs.config.eos_token_id == tokenizer.eos_token_id == 257
    assert theirs.generation_config.eos_token_id == 257


def test_an_export_in_bf16_is_the_weights_rounded_in_as_many_files_as_it_takes(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from etude.runtime.engine.weights import export as module

    monkeypatch.setattr(module, "SHARD_BYTES", 20_000)
    run(train_job(steps=2), inputs, tmp_path / "job")
    roles = {"model": tmp_path / "job" / "result", "tokenizer": inputs["tokenizer"]}
    made = {}
    precisions: dict[str, Literal["bf16"] | None] = {"whole": None, "rounded": "bf16"}
    for name, dtype in precisions.items():
        job = ExportJob(key="x", id="x", stage="toy", inputs={}, model=architecture(), dtype=dtype)
        export(job, roles, tmp_path / name)
        folder = tmp_path / name / "result"
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        assert len(set(index["weight_map"].values())) > 2
        assert all((folder / file).is_file() for file in index["weight_map"].values())
        found: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not any(found[1][wrong] for wrong in ("missing_keys", "unexpected_keys"))
        made[name] = found[0].state_dict()
        config = json.loads((folder / "config.json").read_text())
        assert config["dtype"] == ("bfloat16" if dtype else "float32")
    assert {tensor.dtype for tensor in made["rounded"].values()} == {torch.bfloat16}
    for name, tensor in made["whole"].items():
        assert made["rounded"][name].equal(tensor.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o007, 0o660, 0o770)]
)
def test_whoever_may_read_new_files_may_read_exports(
    umask: int, file: int, folder: int, inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(train_job(steps=1), inputs, tmp_path / "job")
    job = ExportJob(key="x", id="x", stage="toy", inputs={}, model=architecture())
    roles = {"model": tmp_path / "job" / "result", "tokenizer": inputs["tokenizer"]}
    before = os.umask(umask)
    try:
        export(job, roles, tmp_path / "export")
    finally:
        os.umask(before)
    result = tmp_path / "export" / "result"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in result.iterdir()}
    assert modes == dict.fromkeys(modes, file)
    assert "model.safetensors" in modes
    assert stat.S_IMODE(result.stat().st_mode) == folder


@pytest.mark.parametrize("picked", [0, 1])
def test_the_best_of_several_models_says_its_own_context(
    picked: int, inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(train_job(steps=1), inputs, tmp_path / "job")
    result = tmp_path / "job" / "result"
    (result / "verdict.json").write_text(json.dumps({"index": picked}))
    job = ExportJob(
        key="x", id="x", stage="toy", inputs={}, model=architecture(), contexts=[64, 512]
    )
    export(job, {"model": result, "tokenizer": inputs["tokenizer"]}, tmp_path / "export")
    exported = tmp_path / "export" / "result"
    assert AutoTokenizer.from_pretrained(exported).model_max_length == [64, 512][picked]
    found = json.loads((exported / "config.json").read_text())["max_position_embeddings"]
    assert found == [64, 512][picked]


def test_a_large_export_has_several_files(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(train_job(steps=1), inputs, tmp_path / "job")
    job = ExportJob(key="x", id="x", stage="toy", inputs={}, model=architecture())
    roles = {"model": tmp_path / "job" / "result", "tokenizer": inputs["tokenizer"]}
    export(job, roles, tmp_path / "one")
    monkeypatch.setattr(exporting, "SHARD_BYTES", 150_000)
    export(job, roles, tmp_path / "several")
    files = list((tmp_path / "several" / "result").glob("model-0000*-of-0000*.safetensors"))
    assert len(files) > 2
    assert not list((tmp_path / "several" / "result").glob("*.new"))
    one, several = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name / "result").state_dict()
        for name in ("one", "several")
    )
    assert all(torch.equal(one[name], several[name]) for name in one)


def test_an_average_is_the_weighted_mean(inputs: dict[str, Path], tmp_path: Path) -> None:
    roles = {}
    for number in range(3):
        job = train_job(steps=1).model_copy(update={"seed": number})
        run(job, inputs, tmp_path / str(number))
        roles[f"of.{number}"] = tmp_path / str(number) / "result"
    job = AverageJob(
        key="x", id="x", stage="toy", inputs={}, model=architecture(), weights=["1/2", "1/3", "1/6"]
    )
    average(job, roles, tmp_path / "average")
    mean = tensors(weights_of(tmp_path / "average" / "result"))
    models = [weights(folder / "state") for folder in roles.values()]
    assert mean.keys() == models[0].keys()
    for name, tensor in mean.items():
        first, second, third = (model[name] for model in models)
        assert not torch.equal(first, second) or "norm" in name
        torch.testing.assert_close(tensor, first / 2 + second / 3 + third / 6)


def test_models_of_different_shapes_have_no_average(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(train_job(steps=1), inputs, tmp_path / "one")
    run(train_job(steps=1, model=architecture(ffn=96)), inputs, tmp_path / "other")
    job = AverageJob(
        key="x", id="x", stage="toy", inputs={}, model=architecture(), weights=["1/2", "1/2"]
    )
    roles = {"of.0": tmp_path / "one" / "result", "of.1": tmp_path / "other" / "result"}
    with pytest.raises(RunError, match="have different weights"):
        average(job, roles, tmp_path / "average")
    assert not (tmp_path / "average" / "result").exists()
