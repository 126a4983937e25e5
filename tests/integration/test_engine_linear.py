"""Linear attention: the rule, its documents, and that ranks and interruptions change nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import decoder, interrupted_and_resumed, run, train_job
from test_decoders import OWN, made
from test_engine_ranks import Run, Workplace
from transformers import AutoConfig, DynamicCache

from etude.compiler.files.published_config import describe
from etude.compiler.plan.plan import TrainJob
from etude.runtime.engine.attention.documents import by_window, document_mask
from etude.runtime.engine.families import decoder_delta, model_spec
from etude.runtime.engine.families.decoder_delta import delta_rule, normed
from etude.runtime.engine.families.decoder_linear import convolved
from etude.runtime.errors import RunError
from etude.runtime.sampling import decoding

HYBRID: dict[str, Any] = {
    "qk_norm": "head",
    "gate": True,
    "rotary": 0.25,
    "linear_heads": 4,
    "linear_key_heads": 2,
    "linear_key_dim": 8,
    "linear_value_dim": 12,
    "linear_skips": 2,
}


def job(steps: int, ranks: int = 1, **fields: Any) -> TrainJob:
    return train_job(
        steps=steps,
        model=decoder(parts=HYBRID),
        world_size=ranks,
        torchtitan={"parallelism": fields.pop("parallelism", {})},
        checkpoint_every=4,
        **fields,
    )


def drawn(length: int, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    """Inputs of the rule, with documents that begin anywhere, also where chunks do."""
    torch.manual_seed(length)
    shapes = [(2, length, 2, 8), (2, length, 2, 8), (2, length, 4, 6)]
    q, k, v = (torch.randn(shape, dtype=dtype) for shape in shapes)
    decay, write = (torch.rand(2, length, 4, dtype=dtype) for _ in range(2))
    begins = torch.rand(2, length) < 0.05
    begins[:, 0] = True
    begins[0, 64:65] = begins[1, 127:128] = True
    return [each.requires_grad_() for each in (q, k, v, -3 * decay, write)], begins


def joined(inputs: Any, begins: torch.Tensor) -> Any:
    """The arguments of the rule."""
    return (*inputs, begins)


def plainly(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    decay: torch.Tensor,
    write: torch.Tensor,
    begins: torch.Tensor,
) -> torch.Tensor:
    """arXiv:2412.06464, equation 10, token by token."""
    more = v.shape[2] // k.shape[2]
    q, k = (normed(each).repeat_interleave(more, 2) for each in (q, k))
    state = v.new_zeros(v.shape[0], v.shape[2], k.shape[3], v.shape[3])
    found = []
    for at in range(v.shape[1]):
        kept = decay[:, at].exp() * ~begins[:, at, None]
        state = state * kept[..., None, None]
        seen = torch.einsum("bnkv,bnk->bnv", state, k[:, at])
        change = write[:, at, :, None] * (v[:, at] - seen)
        state = state + torch.einsum("bnk,bnv->bnkv", k[:, at], change)
        found.append(torch.einsum("bnkv,bnk->bnv", state, q[:, at]) / k.shape[3] ** 0.5)
    return torch.stack(found, 1)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_chunks_compute_what_the_paper_says_token_by_token(length: int) -> None:
    inputs, begins = drawn(length)
    given = joined(inputs, begins)
    ours, theirs = delta_rule(*given), plainly(*given)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    weights = torch.randn_like(ours)
    both = [torch.autograd.grad((of * weights).sum(), inputs) for of in (ours, theirs)]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_memory_is_linear_in_the_length() -> None:
    def kept(length: int) -> int:
        sizes: list[int] = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        inputs, begins = drawn(length, torch.float32)
        given = joined(inputs, begins)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            decoder_delta.chunked(*given)
        return sum(sizes)

    assert kept(2048) < 2.1 * kept(1024)


def test_it_is_one_operation_for_the_compiler() -> None:
    inputs, begins = drawn(70)
    given = joined(inputs, begins)

    def twice(of: Any) -> torch.Tensor:
        return delta_rule(*of) * 2

    compiled: Any = torch.compile(twice, fullgraph=True, backend="aot_eager")
    ours, theirs = compiled(given), 2 * plainly(*given)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    both = [torch.autograd.grad(of.sum(), inputs) for of in (ours, theirs)]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_the_kernel_of_gpus_gets_all_documents_in_one_row() -> None:
    """What flash-linear-attention is called with, by a stand-in that takes its arguments."""

    def kernel(*of: torch.Tensor, cu_seqlens: Any, cu_seqlens_cpu: Any, **said: Any) -> Any:
        assert said == {"use_qk_l2norm_in_kernel": True}
        assert cu_seqlens.dtype == torch.int32
        assert torch.equal(cu_seqlens, cu_seqlens_cpu)
        assert {each.shape[:3] for each in of[:3]} == {(1, 2 * 70, 4)}
        parts = zip(*(each.split(cu_seqlens.diff().tolist(), 1) for each in of), strict=True)
        alone = torch.zeros(1, 1, dtype=torch.bool)
        found = [plainly(*joined(part, alone.expand(1, part[0].shape[1]))) for part in parts]
        return torch.cat(found, 1), None

    inputs, begins = drawn(70)
    given = joined(inputs, begins)
    ours = decoder_delta.by_kernel(kernel, *given)
    torch.testing.assert_close(ours, plainly(*given), rtol=1e-10, atol=1e-12)


def test_a_convolution_ends_where_a_document_begins() -> None:
    torch.manual_seed(0)
    x, kernel = torch.randn(1, 9, 5), torch.randn(5, 4)
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 0, 0]])
    found = convolved(x, kernel, positions)
    for start, end in ((0, 5), (5, 7), (7, 8), (8, 9)):
        alone = torch.nn.functional.pad(x[:, start:end].mT, (3, 0))
        expected = torch.nn.functional.conv1d(alone, kernel[:, None], groups=5).mT
        expected = torch.nn.functional.silu(expected)
        torch.testing.assert_close(found[:, start:end], expected)


def test_packed_documents_are_computed_as_transformers_computes_each_alone(tmp_path: Path) -> None:
    theirs = made("qwen3_5_text", OWN["qwen3_5_text"], tmp_path)
    found = describe(theirs.config.to_dict(), "decoder")
    assert found.model
    spec: Any = model_spec(found.model.knowing(256), "cpu", 256)
    ours = spec.model.build()
    ours.init_weights(buffer_device=torch.device("cpu"))
    state = spec.state_dict_adapter(spec.model, None).from_hf(theirs.state_dict())
    ours.load_state_dict(state)
    lengths = [70, 1, 3, 86]
    tokens = torch.randint(300, (1, sum(lengths)))
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    masks = by_window(document_mask(positions), positions, 0)
    logits = ours(tokens, positions=positions, attention_masks=masks).split(lengths, 1)
    for one, document in zip(logits, tokens.split(lengths, 1), strict=True):
        with torch.no_grad():
            expected = theirs(document).logits
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=2e-5 * float(expected.max()))


def test_it_says_that_it_cannot_write_without_vllm() -> None:
    config = AutoConfig.for_model("qwen3_5_text", **OWN["qwen3_5_text"])
    with pytest.raises(RunError, match=r"cannot write here.*LinearAttentionLayer") as found:
        decoding._selected(DynamicCache(config=config), torch.tensor([0]))
    assert "install vLLM" in (found.value.help or "")


def test_interrupted_and_resumed_it_ends_bit_for_bit_alike(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    whole = interrupted_and_resumed(job(8), inputs, tmp_path, lost=6, again=[4, 5, 6, 7])
    assert whole[-1]["loss"] < whole[0]["loss"]


@pytest.mark.parametrize(
    "degrees",
    [
        {"tensor_parallel_degree": 2},
        {"data_parallel_shard_degree": 2},
        pytest.param({"pipeline_parallel_degree": 2}, marks=pytest.mark.exhaustive),
    ],
)
def test_two_ranks_learn_the_same(
    degrees: dict[str, int], inputs: dict[str, Path], tmp_path: Path
) -> None:
    place = Workplace(inputs, tmp_path)
    assert place.run(Run(job(3, 2, parallelism=degrees), "two")) == 0
    alone = run(job(3), inputs, tmp_path / "alone")
    for one, two in zip(alone, place.events("two"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
