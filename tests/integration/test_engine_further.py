"""Multi-token prediction (arXiv:2412.19437 §2.2): its loss, its jobs, and its published weights."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from engine_jobs import (
    architecture,
    decoder,
    experts,
    interrupted_and_resumed,
    latent,
    lr,
    run,
    tensors,
    train_job,
    weights,
)
from safetensors.torch import load_file
from test_engine_ranks import Run, Workplace
from test_engine_weights import job as reading
from torchtitan.components.loss import IGNORE_INDEX
from transformers import AutoModelForCausalLM

from etude.compiler.plan.plan import Architecture, Averaging, ExportJob, NextToken, TrainJob
from etude.compiler.values import LrPiece
from etude.runtime.data.order.stream import pack
from etude.runtime.data.tokens import tokenizer
from etude.runtime.engine.attention.documents import by_window, document_mask
from etude.runtime.engine.families import model_spec
from etude.runtime.engine.further import FurtherLoss
from etude.runtime.engine.weights.convert import weights as read
from etude.runtime.engine.weights.export import export
from etude.runtime.errors import DataError
from etude.spec.record import replace

WEIGHT = 0.3


def deepseek(depths: int = 1, **changes: Any) -> Architecture:
    shape: dict[str, Any] = {
        "family": "deepseek_v3",
        "kv_heads": 4,
        "head_dim": 24,
        "latent": latent(),
        "experts": experts(shared=1, score="sigmoid", dense=1, balance=0.001),
        "mtp": depths,
    }
    return architecture(**{**shape, **changes})


def glm(depths: int = 1) -> Architecture:
    made = decoder(
        mtp=depths,
        experts=experts(shared=1, score="sigmoid", dense=1, scale=2.5, balance=0.001),
        parts={"qk_norm": "head", "rotary": 0.5, "biases": "qkv"},
    )
    assert made.parts
    assert made.parts.published == "glm4_moe"
    return made


def built(shape: Architecture, state: dict[str, torch.Tensor]) -> Any:
    model: Any = model_spec(shape, "cpu", shape.context, further=True).model.build()
    model.load_state_dict(state)
    return model.eval()


def logits(model: Any, tokens: torch.Tensor, positions: torch.Tensor) -> Any:
    masks = by_window(document_mask(positions), positions, 0)
    return model(tokens, positions=positions, attention_masks=masks)


def weighed(steps: int, weight: float) -> list[LrPiece]:
    return [lr(0, steps, "hold", weight, weight)]


def job(
    steps: int = 2, depths: int = 1, weight: float | list[LrPiece] = WEIGHT, **changes: Any
) -> TrainJob:
    model = changes.pop("model", None) or deepseek(depths)
    made = train_job(steps=steps, model=model, **changes)
    pieces = weighed(steps, weight) if isinstance(weight, float) else weight
    schedule = made.schedule.model_copy(update={"mtp_loss": pieces if model.mtp else None})
    return made.model_copy(update={"schedule": schedule})


STARTS = (0, 7, 22, 31)
"""Where the documents of a row begin; the last one has a single token, and so no next one."""


@pytest.fixture(scope="module")
def packed() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, labels and positions, (1, 32)."""
    tokens = torch.randint(300, (33,), generator=torch.Generator().manual_seed(0))
    starts = torch.zeros(33, dtype=torch.bool)
    starts[[*STARTS[1:], 32]] = True
    inputs, labels, positions = map(torch.from_numpy, pack(tokens.numpy(), starts.numpy()))
    return inputs[None], labels[None], positions[None]


# The loss


def by_hand(
    logits: list[list[list[float]]], tokens: list[int], depth: int, starts: tuple[int, ...]
) -> float:
    """The sum over a row of the cross-entropy of the token `depth` + 1 ahead, in its document."""
    total = 0.0
    for begin, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
        for place in range(begin, end - depth - 1):
            scores = torch.tensor(logits[place], dtype=torch.float64)
            total -= float(torch.log_softmax(scores, 0)[tokens[place + depth + 1]])
    return total


@pytest.mark.parametrize("depths", [1, 2])
def test_the_loss_is_that_of_the_paper_within_documents(
    packed: tuple[torch.Tensor, torch.Tensor, torch.Tensor], depths: int
) -> None:
    tokens, labels, positions = packed
    count = (labels != IGNORE_INDEX).sum()
    assert int(count) == 6 + 14 + 8
    torch.manual_seed(1)
    pred = [torch.randn(1, 32, 300) for _ in range(depths + 1)]
    loss = FurtherLoss.Config(global_vocab_size=300).build()
    loss.weight = WEIGHT
    found, _ = loss(pred, labels, count, positions=positions)
    row = tokens[0].tolist()
    sums = [by_hand(each[0].tolist(), row, depth, STARTS) for depth, each in enumerate(pred)]
    main, further = sums[0] / int(count), sum(sums[1:]) / depths / int(count)
    assert found.item() == pytest.approx(main + WEIGHT * further, rel=1e-5)
    assert loss.collect(None) == (
        {"loss": pytest.approx(main, rel=1e-5), "mtp_loss": pytest.approx(further, rel=1e-5)},
        None,
    )


def test_other_terms_are_those_of_the_next_token(
    packed: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    _, labels, positions = packed
    pred = [torch.randn(1, 32, 300), torch.randn(1, 32, 300)]
    count = (labels != IGNORE_INDEX).sum()
    both = FurtherLoss.Config(global_vocab_size=300, terms={"z_loss": 0.1}).build()
    both.weight = WEIGHT
    total, _ = both(pred, labels, count, positions=positions)
    of, _ = both.collect(None)
    assert [*of] == ["loss", "z_loss", "mtp_loss"]
    expected = of["loss"] + 0.1 * of["z_loss"] + WEIGHT * of["mtp_loss"]
    assert total.item() == pytest.approx(expected, rel=1e-5)
    log_z = torch.logsumexp(pred[0], -1)[labels != IGNORE_INDEX]
    assert of["z_loss"] == pytest.approx(log_z.square().mean().item(), rel=1e-5)


# The modules, and published weights


def exported(shape: Architecture, result: Path, folder: Path) -> Path:
    tokenizer.save(tokenizer.byte_level(), folder / "tokenizer")
    asked = ExportJob(key="x", id="x", stage="toy", inputs={}, model=shape)
    export(asked, {"model": result, "tokenizer": folder / "tokenizer"}, folder / "export")
    return folder / "export" / "result"


@pytest.fixture(
    scope="module",
    params=[deepseek(1), deepseek(2), glm(1)],
    ids=["deepseek", "deepseek, two", "glm"],
)
def trained(
    request: pytest.FixtureRequest,
    inputs: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Architecture, Path, Path]:
    """A model with one or two modules, the result of its job, and its export."""
    folder = tmp_path_factory.mktemp("trained")
    shape = request.param
    run(job(2, model=shape), inputs, folder / "job")
    return shape, folder / "job" / "result", exported(shape, folder / "job" / "result", folder)


def by_transformers(model: Any, files: dict[str, torch.Tensor], document: torch.Tensor) -> Any:
    """The logits of a document alone, of the next token and of each further one, from the layers
    of transformers and the tensors of the files: those of module k for as many places as have a
    token that far ahead."""
    kept: list[torch.Tensor] = []
    hook = model.model.norm.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    found = [model(document).logits]
    hook.remove()
    hidden, config = kept[0], model.config
    depth = config.num_nextn_predict_layers
    for number in range(config.num_hidden_layers, config.num_hidden_layers + depth):
        begin = f"model.layers.{number}."
        own = {
            name.removeprefix(begin): tensor
            for name, tensor in files.items()
            if name.startswith(begin)
        }
        ahead = number - config.num_hidden_layers + 1
        layer = type(model.model.layers[-1])(config, number).eval()
        missing, more = layer.load_state_dict(packed_experts(layer, own), strict=False)
        assert not missing
        assert {name.partition(".")[0] for name in more} <= {
            *("enorm", "hnorm", "eh_proj", "shared_head", "embed_tokens", "mlp")
        }

        def normed(given: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return F.rms_norm(given, weight.shape, weight, config.rms_norm_eps)

        tokens = F.embedding(document[:, ahead:], own["embed_tokens.weight"])
        joined = [normed(tokens, own["enorm.weight"])]
        joined.append(normed(hidden[:, : tokens.shape[1]], own["hnorm.weight"]))
        mixed = torch.cat(joined, -1) @ own["eh_proj.weight"].T
        places = torch.arange(mixed.shape[1])[None]
        turned = model.model.rotary_emb(mixed, places)
        given = layer(mixed, position_ids=places, position_embeddings=turned)
        hidden = normed(
            given[0] if isinstance(given, tuple) else given, own["shared_head.norm.weight"]
        )
        found.append(hidden @ own["shared_head.head.weight"].T)
    return found


def packed_experts(layer: Any, own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a layer as transformers has them in memory: experts in one."""
    state = {name: tensor for name, tensor in own.items() if ".experts." not in name}
    count = sum(name.startswith("mlp.experts.") and "gate_proj" in name for name in own)
    if count:
        of = [
            {end: own[f"mlp.experts.{n}.{end}_proj.weight"] for end in ("gate", "up", "down")}
            for n in range(count)
        ]
        state["mlp.experts.gate_up_proj"] = torch.stack(
            [torch.cat([each["gate"], each["up"]]) for each in of]
        )
        state["mlp.experts.down_proj"] = torch.stack([each["down"] for each in of])
    return state


def test_the_modules_compute_what_those_of_transformers_would(
    trained: tuple[Architecture, Path, Path],
    packed: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    shape, result, folder = trained
    tokens, _, positions = packed
    model = built(shape, weights(result / "state"))
    assert json.loads((folder / "config.json").read_text())["num_nextn_predict_layers"] == shape.mtp
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    files = load_file(folder / "model.safetensors")
    ours = [each.detach() for each in logits(model, tokens, positions)]
    assert len(ours) == shape.mtp + 1
    for begin, end in pairwise(STARTS):
        with torch.no_grad():
            expected = by_transformers(theirs, files, tokens[:, begin:end])
        for depth, each in enumerate(expected):
            assert each.shape[1] == end - begin - depth
            found = ours[depth][:, begin : end - depth]
            torch.testing.assert_close(found, each, rtol=1e-4, atol=5e-5)


def test_without_gradients_the_model_predicts_the_next_token_alone(
    trained: tuple[Architecture, Path, Path],
    packed: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    """With the bits that a model without modules has."""
    shape, result, _ = trained
    tokens, _, positions = packed
    state = weights(result / "state")
    alone = {name: each for name, each in state.items() if not name.startswith("mtp_layers.")}
    with torch.no_grad():
        found = logits(built(shape, state), tokens, positions)
        assert torch.equal(found, logits(built(shape.main, alone), tokens, positions))


def test_what_is_exported_is_read_again(
    trained: tuple[Architecture, Path, Path], tmp_path: Path
) -> None:
    shape, result, folder = trained
    found = read(reading(shape, folder), tmp_path / "whole", root=tmp_path)
    assert found["notes"] == []
    ours, theirs = (
        weights(result / "state"),
        tensors(tmp_path / "whole" / "result" / "weights"),
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    alone = read(reading(shape.main, folder), tmp_path / "alone", root=tmp_path)
    assert alone["notes"] == [
        f"model.layers.{2 + depth} predicts further tokens: it is left out, as transformers does"
        for depth in range(shape.mtp)
    ]
    assert tensors(tmp_path / "alone" / "result" / "weights").keys() == {
        name for name in ours if not name.startswith("mtp_layers.")
    }


def test_modules_that_the_files_lack_are_refused(
    trained: tuple[Architecture, Path, Path], tmp_path: Path
) -> None:
    shape, _, folder = trained
    more = replace(shape, mtp=shape.mtp + 1)
    with pytest.raises(DataError, match=f"has num_nextn_predict_layers {shape.mtp}, but the model"):
        read(reading(more, folder), tmp_path, root=tmp_path)


# Jobs


def test_a_job_tells_the_loss_of_the_next_token_and_of_further_ones(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    changing = [lr(0, 1, "hold", 0.5, 0.5), lr(1, 2, "hold", 0.0, 0.0)]
    found = run(job(2, weight=changing), inputs, tmp_path / "job")
    (plain, _) = run(job(2, depths=0), inputs, tmp_path / "plain")
    (none, _) = run(job(2, weight=0.0), inputs, tmp_path / "none")
    assert "mtp_loss" not in plain
    # Both begin with the same weights.
    assert found[0]["loss"] == pytest.approx(plain["loss"], rel=1e-6)
    assert none["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-6)
    assert found[0]["grad_norm"] != pytest.approx(plain["grad_norm"], rel=1e-3)
    assert found[0]["mtp_loss"] == pytest.approx(none["mtp_loss"], rel=1e-6)
    # At the beginning nothing is known: log 512, for a few tokens less than are next ones.
    assert 5.0 < found[0]["mtp_loss"] < 7.0
    assert found[1]["mtp_loss"] != found[0]["mtp_loss"]


def test_the_load_of_the_modules_experts_is_balanced_too(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(job(2), inputs, tmp_path / "job")
    state = weights(tmp_path / "job" / "result" / "state")
    biases = [each for name, each in state.items() if name.endswith("expert_bias_E")]
    assert len(biases) == 2  # of the second layer, and of the module
    assert all(bias.abs().max() > 0 for bias in biases)


def test_killed_and_resumed_it_has_the_same_bits(inputs: dict[str, Path], tmp_path: Path) -> None:
    average = Averaging(every=2, from_step=2)
    made = job(8, average=average, checkpoint_every=3)
    interrupted_and_resumed(made, inputs, tmp_path, lost=5, again=[3, 4, 5, 6, 7])
    mean = tensors(tmp_path / "job" / "result" / "weights")
    assert mean.keys() == weights(tmp_path / "job" / "result" / "state").keys()
    assert any(name.startswith("mtp_layers.0.") for name in mean)


def test_recomputed_layers_change_nothing(inputs: dict[str, Path], tmp_path: Path) -> None:
    full = {"activation_checkpoint": {"mode": "full"}}
    kept = run(job(2), inputs, tmp_path / "kept")
    again = run(job(2, torchtitan=full), inputs, tmp_path / "again")
    for one, other in zip(kept, again, strict=True):
        for figure in ("loss", "mtp_loss", "grad_norm"):
            assert one[figure] == pytest.approx(other[figure], rel=1e-6)


LAYOUTS: dict[str, dict[str, Any]] = {
    "sharded": {},
    "tensor": {"tensor_parallel_degree": 2},
    "experts": {"expert_parallel_degree": 2},
}


@pytest.mark.parametrize(
    ("shape", "layouts"),
    [
        (deepseek(), ("sharded", "tensor")),
        (glm(), ("tensor",)),
        pytest.param(deepseek(), ("experts",), marks=pytest.mark.exhaustive),
        pytest.param(glm(), ("experts",), marks=pytest.mark.exhaustive),
    ],
    ids=["deepseek", "glm", "deepseek, experts", "glm, experts"],
)
def test_two_ranks_compute_what_one_does(
    shape: Architecture, layouts: tuple[str, ...], inputs: dict[str, Path], tmp_path: Path
) -> None:
    place = Workplace(inputs, tmp_path)
    made = [
        Run(job(3, model=shape, world_size=2, torchtitan={"parallelism": LAYOUTS[name]}), name)
        for name in layouts
    ]
    assert place.run(*made) == 0
    one = run(job(3, model=shape), inputs, tmp_path / "one")
    ours = tensors(tmp_path / "one" / "result" / "state")
    for name in layouts:
        for mine, theirs in zip(one, place.events(name), strict=True):
            for figure in ("loss", "mtp_loss", "grad_norm"):
                assert mine[figure] == pytest.approx(theirs[figure], rel=1e-4), (name, figure)
        theirs = tensors(place.result(name) / "state")
        for key, tensor in ours.items():
            if key.endswith(".exp_avg"):
                torch.testing.assert_close(tensor, theirs[key], rtol=1e-3, atol=1e-5, msg=key)


def test_a_job_with_z_loss_reports_both(inputs: dict[str, Path], tmp_path: Path) -> None:
    made = job(1).model_copy(update={"objective": NextToken(z_loss=0.05)})
    (event,) = run(made, inputs, tmp_path / "job")
    assert {"loss", "z_loss", "mtp_loss"} <= event.keys()
