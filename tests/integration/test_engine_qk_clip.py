"""QK-clip: what it measures, what it makes of weights, and that ranks change nothing."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import (
    architecture,
    decoder,
    experts,
    interrupted_and_resumed,
    latent,
    lr,
    run,
    train_job,
    weights,
)
from test_engine_muon import groups
from test_engine_ranks import Run, Workplace
from torch.nn.attention.flex_attention import (
    AuxOutput,
    AuxRequest,
    create_block_mask,
    flex_attention,
)
from torchtitan.models.common.attention import FlexAttention

from etude.compiler.plan.plan import Architecture, TrainJob
from etude.runtime.engine.attention.documents import document_mask, of_documents
from etude.runtime.engine.families import model_spec
from etude.runtime.engine.process import join
from etude.runtime.engine.train import make_trainer
from etude.runtime.engine.updates.qk_clip import WatchedDocuments, WatchedFlex

SHAPES = {
    "grouped": architecture(),
    "biased, of two heads": decoder(parts={"biases": "qkv"}, heads=2, kv_heads=2, head_dim=32),
    "latent": architecture(
        family="deepseek_v3",
        kv_heads=4,
        head_dim=24,
        latent=latent(),
        layers=3,
        experts=experts(shared=1, score="sigmoid", dense=1, balance=0.001),
    ),
    "latent, queries without": architecture(
        family="deepseek_v3",
        kv_heads=4,
        head_dim=24,
        latent=latent(queries=0),
        experts=experts(shared=1, score="sigmoid", dense=1),
    ),
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "sharded": {},
    "tensor": {"tensor_parallel_degree": 2},
    "pipeline": {"pipeline_parallel_degree": 2},
}
THRESHOLD = 0.02


def job(
    shape: Architecture, steps: int, clip: float | None, world_size: int = 1, **fields: Any
) -> TrainJob:
    sections = {
        "optimizer": {"implementation": "fused", "param_groups": groups()},
        "parallelism": fields.pop("parallelism", {}),
    }
    rate = fields.pop("rate", 1e-2)
    made = train_job(
        steps=steps,
        model=shape,
        world_size=world_size,
        torchtitan=sections,
        schedule_lr=[lr(0, steps, "hold", rate, rate)],
        **fields,
    )
    return made.model_copy(update={"qk_clip": clip})


def largest(
    shape: Architecture, state: dict[str, torch.Tensor], batches: list[Any]
) -> list[torch.Tensor]:
    """The largest score of each layer's heads over batches, computed pair by pair."""
    model: Any = model_spec(shape, "cpu", shape.context).model.build()
    model.init_weights(buffer_device=torch.device("cpu"))
    model.load_state_dict(state, strict=False)
    found: list[torch.Tensor] = []
    taken: list[tuple[torch.Tensor, torch.Tensor, float]] = []
    for layer in model.layers.values():
        layer.attention.inner_attention.register_forward_pre_hook(
            lambda module, args, kwargs: taken.append((args[0], args[1], kwargs["scale"])),
            with_kwargs=True,
        )
    for inputs, _ in batches:
        taken.clear()
        sees = document_mask(inputs["positions"])
        with torch.no_grad():
            model(inputs["input"], positions=inputs["positions"], attention_masks=sees)
        each = []
        for q, k, scale in taken:
            by = q.shape[-1] ** -0.5 if scale is None else scale
            keys = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
            scores = torch.einsum("blnh,bmnh->bnlm", q, keys) * by
            each.append(scores.where(sees, torch.tensor(-torch.inf)).amax((0, 2, 3)))
        found = [*map(torch.maximum, found, each)] if found else each
    return found


def expected(
    shape: Architecture, state: dict[str, torch.Tensor], most: list[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Weights after a step, clipped by the paper's formulas, row by row."""
    clipped = {name: weight.clone() for name, weight in state.items()}
    for number, scores in enumerate(most):
        factors = [min(1.0, THRESHOLD / float(score)) for score in scores.clamp(min=1e-9)]
        at = f"layers.{number}.attention"
        if of := shape.latent:
            name = "wq_b" if of.queries else "wq"
            queries, keys = clipped[f"{at}.{name}.weight"], clipped[f"{at}.wkv_b.weight"]
            for head, factor in enumerate(factors):
                first = head * (of.plain + of.rotary)
                queries[first : first + of.plain] *= factor**0.5
                queries[first + of.plain : first + of.plain + of.rotary] *= factor
                first = head * (of.plain + of.values)
                keys[first : first + of.plain] *= factor**0.5
            continue
        each, width = shape.heads // shape.kv_heads, shape.head_dim
        for kind in ("weight", "bias") if shape.parts else ("weight",):
            queries = clipped[f"{at}.qkv_linear.wq.{kind}"]
            keys = clipped[f"{at}.qkv_linear.wk.{kind}"]
            for group in range(shape.kv_heads):
                least = min(factors[group * each : (group + 1) * each])
                keys[group * width : (group + 1) * width] *= least**0.5
                for head in range(group * each, (group + 1) * each):
                    queries[head * width : (head + 1) * width] *= factors[head] / least**0.5
    return clipped


@pytest.mark.parametrize("name", SHAPES)
def test_a_step_is_followed_by_the_clip_of_the_paper(
    name: str, inputs: dict[str, Path], tmp_path: Path
) -> None:
    shape = SHAPES[name]
    clipped = job(shape, 1, THRESHOLD)
    (event,) = run(clipped, inputs, tmp_path / "clipped")
    run(job(shape, 1, None), inputs, tmp_path / "plain")
    run(job(shape, 1, None, rate=0.0), inputs, tmp_path / "initial")
    plain, initial = (weights(tmp_path / of / "result" / "state") for of in ("plain", "initial"))
    join(1, "cpu")
    with make_trainer(
        clipped, inputs, tmp_path / "look", tmp_path, lambda event: None, {}
    ) as trainer:
        batches = list(islice(trainer.dataloader, 2))  # of two rows each: a batch of four
    most = largest(shape, initial, batches)
    assert event["max_score"] == pytest.approx(max(float(of.max()) for of in most), rel=1e-5)
    assert (torch.stack(most) > THRESHOLD).any()
    found, wanted = weights(tmp_path / "clipped" / "result" / "state"), expected(shape, plain, most)
    assert found.keys() == wanted.keys()
    for each, weight in found.items():
        torch.testing.assert_close(weight, wanted[each], rtol=1e-5, atol=1e-7)
    assert any(not torch.equal(found[each], plain[each]) for each in found)


def alike(place: Workplace, folder: str, alone: Path, events: Any) -> None:
    """A job on several ranks has clipped the same heads as alone."""
    shown = [event["max_score"] for event in place.events(folder)]
    assert shown == pytest.approx([event["max_score"] for event in events], rel=1e-4)
    found, wanted = weights(place.result(folder) / "state"), weights(alone / "state")
    for name in (name for name in wanted if "attention.w" in name or "qkv_linear" in name):
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-3, atol=1e-5)


@pytest.mark.exhaustive
def test_ranks_with_other_data_and_other_heads_clip_the_same(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    place, shape = Workplace(inputs, tmp_path), SHAPES["latent"]
    made = [(name, LAYOUTS[name]) for name in ("sharded", "tensor")]
    runs = [Run(job(shape, 2, THRESHOLD, 2, parallelism=of), name) for name, of in made]
    assert place.run(*runs) == 0
    events = run(job(shape, 2, THRESHOLD), inputs, tmp_path / "alone")
    for name, _ in made:
        alike(place, name, tmp_path / "alone" / "result", events)


@pytest.mark.exhaustive
def test_so_do_a_pipeline_and_four_ranks_that_share_heads_and_data(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    place, shape = Workplace(inputs, tmp_path), SHAPES["grouped"]
    layouts = {"pipeline": (2, LAYOUTS["pipeline"]), "both": (4, LAYOUTS["tensor"])}
    events = run(job(shape, 2, THRESHOLD), inputs, tmp_path / "alone")
    for name, (ranks, of) in layouts.items():
        assert place.run(Run(job(shape, 2, THRESHOLD, ranks, parallelism=of), name)) == 0
        alike(place, name, tmp_path / "alone" / "result", events)


@pytest.mark.exhaustive
def test_interrupted_and_resumed_it_ends_bit_for_bit_alike(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    made = job(SHAPES["latent"], 5, THRESHOLD, checkpoint_every=2)
    interrupted_and_resumed(made, inputs, tmp_path, lost=3, again=[2, 3, 4])


def some(length: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values of two rows, four heads that share two, and positions."""
    made = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, length, heads, 16, generator=made) for heads in (4, 2, 2))
    places = torch.arange(length).expand(2, -1) % torch.tensor([[length], [length // 3]])
    return q, k, v, places


def by_pairs(q: torch.Tensor, k: torch.Tensor, sees: torch.Tensor) -> torch.Tensor:
    scores = torch.einsum("blnh,bmnh->bnlm", q, k.repeat_interleave(2, dim=2)) / 4
    return scores.where(sees, torch.tensor(-torch.inf)).amax((0, 2, 3))


def seen(places: torch.Tensor, window: int, *, dense: bool) -> Any:
    """What attention takes for the layers with the window, if there is one."""
    masks: Any = of_documents(places, window, dense=dense)
    return masks["sliding_window_mask"] if window else masks


@pytest.mark.parametrize("window", [0, 40])
@pytest.mark.parametrize("length", [60, 700])
def test_the_largest_score_is_over_tokens_that_see_each_other(length: int, window: int) -> None:
    q, k, v, places = some(length)
    module: Any = WatchedDocuments.Config().build()
    module.most = torch.full((4,), -torch.inf)
    for half in (slice(0, 1), slice(1, 2)):  # the largest over micro-batches
        mask = seen(places[half], window, dense=False)
        module(q[half], k[half], v[half], attention_masks=mask)
    expected = by_pairs(q, k, seen(places, window, dense=True))
    torch.testing.assert_close(module.most, expected)
    module(q, k, v, attention_masks=seen(places, window, dense=False))
    torch.testing.assert_close(module.most, expected)


def test_on_gpus_it_is_what_flex_attention_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPUs flex attention has no largest scores: they are made by pairs here."""
    q, k, v, places = some(64)

    def flex(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, return_aux: AuxRequest, **rest: Any
    ) -> tuple[torch.Tensor, AuxOutput]:
        assert return_aux.max_scores
        scores = q @ k.repeat_interleave(2, dim=1).transpose(2, 3) * rest["scale"]
        most = scores.where(sees, torch.tensor(-torch.inf)).amax(-1)
        return flex_attention(q, k, v, **rest), AuxOutput(max_scores=most)

    monkeypatch.setattr(FlexAttention, "_compiled_flex_attn", staticmethod(flex))
    sees = document_mask(places)
    blocks = create_block_mask(
        lambda b, h, i, j: sees[b, 0, i, j], 2, None, 64, 64, device="cpu", BLOCK_SIZE=32
    )
    module: Any = WatchedFlex.Config().build()
    module.most = torch.full((4,), -torch.inf)
    with torch.no_grad():
        out = module(q, k, v, attention_masks=blocks, scale=0.25, enable_gqa=True)
    torch.testing.assert_close(module.most, by_pairs(q, k, sees))
    plain: Any = WatchedDocuments.Config().build()
    torch.testing.assert_close(out, plain(q, k, v, attention_masks=sees, scale=0.25))
