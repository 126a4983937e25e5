"""`--emit torchtitan`: models of all families, as the engine builds them, and imported again."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from specs import HEAD, jobs, only, plan, stage

from etude.runtime.emission.emit import emit, function
from etude.runtime.rehearsal import build, configurations
from etude.spec.record import replace

CLUSTER = 'cluster big { nodes = 1, gpus = 8 of "H100 80GB" }\n'
MODEL = "layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300"
EXPERTS = "experts = { count = 8, active = 2, ffn = 32, balance = 0.001%s }"
SHAPES = {
    "llama3 yarn": MODEL + ", rope_scaling = yarn { factor = 4, original = 64 }, tied = true",
    "qwen3": "family = qwen3, head_dim = 32, " + MODEL,
    "qwen3 experts": f"family = qwen3, {MODEL}, {EXPERTS % ', dense = 1'}",
    "deepseek_v3": "family = deepseek_v3, layers = 3, dim = 64, heads = 4, ffn = 128, vocab = 300, "
    "latent = { queries = 24, keys = 32, plain = 16, rotary = 8, values = 16 }, "
    + EXPERTS
    % ", dense = 1, groups = 4, groups_used = 2, scale = 2.5",
    "deepseek_v2 yarn": 'family = deepseek_v2, size = "236B", '
    "rope_scaling = yarn { factor = 40, original = 4Ki }",
    "deepseek_v3 yarn": 'family = deepseek_v3, size = "671B", '
    "rope_scaling = yarn { factor = 40, original = 4Ki }",
    "gpt_oss": "family = gpt_oss, layers = 3, dim = 64, heads = 4, kv_heads = 2, vocab = 300, "
    f"window = 32, {EXPERTS % ''}",
    "gpt_oss yarn": 'family = gpt_oss, size = "20B"',
}


@pytest.mark.parametrize("model", SHAPES.values(), ids=SHAPES.keys())
def test_models_of_every_family_are_emitted_as_the_engine_builds_them(
    model: str, tmp_path: Path
) -> None:
    from etude.runtime.engine.families import model_spec

    spec = HEAD.replace(MODEL, model) + CLUSTER
    made = plan(spec + stage(batch="8 seqs", parallel="{ tensor 2 }"))
    (tmp_path / "all.py").write_text(emit(made))
    job = only(jobs(made))
    theirs = runpy.run_path(str(tmp_path / "all.py"))[function(job)]().model_spec
    ours = model_spec(job.model, "H100 80GB", job.seq_len)
    assert _shown(theirs) == _shown(ours)
    for one, other in zip(_kinds(ours), _kinds(theirs), strict=True):
        # The engine has patched some of torchtitan's modules.
        assert issubclass(one, other)
    assert theirs.parallelize_fn is ours.parallelize_fn
    assert theirs.post_optimizer_build_fn is ours.post_optimizer_build_fn
    assert issubclass(ours.state_dict_adapter, theirs.state_dict_adapter)


@pytest.mark.parametrize("shape", ["deepseek_v3", "glm"])
def test_modules_of_further_tokens_are_emitted_and_counted(shape: str, tmp_path: Path) -> None:
    from torchtitan.models.deepseek_v3.mtp import MTPLoss

    from etude.runtime.engine.families import model_spec

    glm = f"family = decoder, {MODEL}, parts = {{ rotary = 0.5 }}, "
    glm += EXPERTS % ", shared = 1, score = sigmoid"
    model = {"glm": glm}.get(shape) or SHAPES[shape]
    spec = HEAD.replace(MODEL, f"{model}, mtp = 1") + CLUSTER
    made = plan(spec + stage(batch="8 seqs", parallel="{ tensor 2, expert 2 }", mtp_loss="0.2"))
    (tmp_path / "all.py").write_text(emit(made))
    job = only(jobs(made))
    theirs = runpy.run_path(str(tmp_path / "all.py"))[function(job)]()
    ours = model_spec(job.model, "H100 80GB", job.seq_len, further=True).model
    for one, other in zip(ours.mtp_layers, theirs.model_spec.model.mtp_layers, strict=True):
        assert repr(one).replace("builtin", "") == repr(other).replace("builtin", "")
    assert theirs.loss == MTPLoss.Config(mtp_scale=0.2, global_vocab_size=job.model.vocab)
    (built,) = build(configurations(made))
    assert built.rejected is None
    assert built.differences == []


@pytest.mark.parametrize("model", SHAPES.values(), ids=SHAPES.keys())
def test_what_is_emitted_comes_back_as_the_same_job(model: str, tmp_path: Path) -> None:
    from etude.authoring.draft import Options
    from etude.authoring.imports import import_config

    expert = ", expert 2" if "experts" in model or "size" in model else ""
    spec = HEAD.replace(MODEL, model) + CLUSTER
    spec += stage(batch="8 seqs", parallel=f"{{ tensor 2{expert} }}", recompute="full")
    job = only(jobs(plan(spec)))
    (tmp_path / "all.py").write_text(emit(plan(spec)))
    config = runpy.run_path(str(tmp_path / "all.py"))[function(job)]()
    saved = json.dumps(config.to_dict(), default=str)
    made = import_config(saved, "config.json", options=Options(gpus=8))
    again = only(jobs(plan(made.text), "pretrain"))
    assert replace(again.model, size=None) == replace(job.model, size=None)
    for name in ("resources", "seq_len", "steps", "sequences"):
        assert getattr(again, name) == getattr(job, name), name
    assert again.torchtitan["optimizer"] == job.torchtitan["optimizer"]


def _kinds(spec: Any) -> list[type]:
    from torchtitan.protocols.module import Module

    return [type(found[1]) for found in spec.model.traverse(Module.Config)]


def _shown(spec: Any) -> str:
    return json.dumps(spec.model.to_dict(), sort_keys=True, default=repr, indent=1)
