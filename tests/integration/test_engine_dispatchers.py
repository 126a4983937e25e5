"""Token dispatchers in torchtitan's configuration: of every layer with experts, with its room."""

from pathlib import Path
from typing import Any

import pytest
from engine_jobs import architecture, decoder, experts, latent, train_job
from torchtitan.models.common import token_dispatcher as titans

from etude.compiler.plan.plan import TrainJob
from etude.runtime.engine.config import trainer_config
from etude.spec.record import replace

MODELS: dict[str, Any] = {
    "qwen3": architecture(family="qwen3", qk_norm=True, experts=experts()),
    "deepseek_v3": architecture(
        family="deepseek_v3", kv_heads=4, latent=latent(), experts=experts(shared=1, dense=1)
    ),
    "gpt_oss": architecture(family="gpt_oss", biased=True, sinks=True, window=8, experts=experts()),
    "decoder": decoder(layers=2, experts=experts(dense=1)),
}
KINDS: dict[str, Any] = {
    "deepep": titans.DeepEPTokenDispatcher.Config,
    "hybridep": titans.HybridEPTokenDispatcher.Config,
    "minimal_async_ep": titans.MinimalAsyncEPTokenDispatcher.Config,
}


def job(model: Any, backend: str) -> TrainJob:
    made = train_job(steps=1, seq_len=128, batch=4, world_size=2, model=model)
    sections = {
        **made.torchtitan,
        "dispatcher": {"backend": backend},
        "parallelism": {"expert_parallel_degree": 2},
        "activation_checkpoint": {"mode": "full"},
    }
    resources = replace(made.resources, device="H100 80GB", expert=2)
    return made.model_copy(update={"torchtitan": sections, "resources": resources})


@pytest.mark.parametrize("backend", KINDS)
@pytest.mark.parametrize("family", MODELS)
def test_every_layer_with_experts_has_it_with_room_for_a_micro_batch(
    family: str, backend: str, tmp_path: Path
) -> None:
    model, asked = MODELS[family], job(MODELS[family], backend)
    loader: Any = None
    config = trainer_config(asked, tmp_path, dataloader=loader, start=None, on_event=lambda _: None)
    assert config.model_spec
    built: Any = config.model_spec.model
    built.update_from_config(config=config)
    layers = [layer.moe for layer in built.layers if layer.moe]
    assert len(layers) == model.layers - model.experts.dense
    for layer in layers:
        of = layer.routed_experts.token_dispatcher
        assert type(of) is KINDS[backend]
        assert (of.num_experts, of.top_k) == (model.experts.count, model.experts.active)
        assert of.hidden_dim == model.dim
        batch = asked.torchtitan["training"]["local_batch_size"]
        assert of.num_max_tokens_per_rank == batch * asked.seq_len
