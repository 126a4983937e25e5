"""What a rank holds of a model: the layers of a pipeline's stages, and a part of every weight."""

from typing import Any

from etude.compiler.families.architectures import complete, parameters
from etude.compiler.pipelines import first_layer, layers_of_stage
from etude.compiler.placement import interleaves
from etude.compiler.torchtitan.shards import local_parameters
from etude.compiler.values import ModelShape, Resources
from etude.spec.record import replace

SHAPE = {"layers": 1, "dim": 16, "heads": 4, "kv_heads": 4, "ffn": 32, "vocab": 64}


def model(layers: int) -> ModelShape:
    return replace(complete("llama3", None, SHAPE), layers=layers, tied=False)


def mesh(pipeline: int, interleave: int) -> Resources:
    degrees: dict[str, Any] = {"replicate": 1, "shard": 1, "tensor": 1, "context": 1, "expert": 1}
    return Resources(
        world_size=pipeline,
        per_node=pipeline,
        device="cpu",
        pipeline=pipeline,
        interleave=interleave,
        **degrees,
    )


def test_every_pipeline_that_is_admitted_shares_out_all_layers_and_no_weight_twice() -> None:
    shared = 0
    for layers in range(1, 21):
        for pipeline in range(1, layers + 1):
            for interleave in interleaves(layers, pipeline):
                stages = pipeline * interleave
                parts = [layers_of_stage(layers, stages, stage) for stage in range(stages)]
                assert min(parts) >= 0, (layers, pipeline, interleave)
                assert sum(parts) == layers
                assert first_layer(layers, stages, stages - 1) == layers - parts[-1]
                own = mesh(pipeline, interleave)
                held = [local_parameters(model(layers), own, rank) for rank in range(pipeline)]
                assert sum(held) == parameters(model(layers)), (layers, pipeline, interleave)
                shared += interleave > 1
    assert shared > 50


def test_six_layers_make_no_twelve_stages() -> None:
    assert interleaves(6, 4) == [1, 2]
