"""The gated delta rule (arXiv:2412.06464), by chunks of tokens and within documents.

Names carry shapes: B sequences, L tokens, G heads of keys, N heads of values, K and V their widths,
M chunks, C tokens of a chunk. R is N / G, the heads of values of a head of keys.
"""
# ruff: noqa: N803, N806 (the names of the shapes)

from typing import Any

import torch
from torch import nn

CHUNK = 64


def delta_rule(
    q_BLGK: torch.Tensor,
    k_BLGK: torch.Tensor,
    v_BLNV: torch.Tensor,
    decay_BLN: torch.Tensor,
    write_BLN: torch.Tensor,
    begins_BL: torch.Tensor,
) -> torch.Tensor:
    """What queries read of a state S of shape (K, V) for each head, which starts with 0 in each
    document, and changes with each token: S ← α (I - β k kᵀ) S + β k vᵀ, o = Sᵀ q (equation 10).
    Queries and keys are divided by their norm, queries besides by √K.

    In chunks the changes of a state are one triangular system (§3.3, the WY form): memory is linear
    in the length. The backward pass computes the chunks again.

    Args:
        decay_BLN: ln α, at most 0.
        write_BLN: β.
        begins_BL: whether a token begins a document; the first of a row always does.

    Returns:
        Shape (B, L, N, V), in the precision of `v_BLNV`.
    """
    return RULE(q_BLGK, k_BLGK, v_BLNV, decay_BLN, write_BLN, begins_BL)


def computed(*inputs: torch.Tensor) -> torch.Tensor:
    """`delta_rule` by operations that autograd knows: by the kernels of flash-linear-attention on
    GPUs where it is installed, else by chunks."""
    kernel = fast() if inputs[0].is_cuda else None
    return chunked(*inputs) if kernel is None else by_kernel(kernel, *inputs)


def fast() -> Any:
    """The kernel of flash-linear-attention; None if it is not installed."""
    try:
        from fla.ops.gated_delta_rule import (  # pyright: ignore[reportMissingImports]
            chunk_gated_delta_rule,  # pyright: ignore[reportUnknownVariableType]
        )
    except ImportError:
        return None
    return chunk_gated_delta_rule  # pyright: ignore[reportUnknownVariableType]


def by_kernel(
    kernel: Any,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    decay: torch.Tensor,
    write: torch.Tensor,
    begins: torch.Tensor,
) -> torch.Tensor:
    """The same by that kernel, called as torchtitan does (0.3, `models/qwen3_5/model.py`): all
    documents in one row, and heads of keys repeated for those of values."""
    more = v.shape[2] // k.shape[2]
    q, k = (each.repeat_interleave(more, dim=2).flatten(0, 1)[None] for each in (q, k))
    first = begins.flatten().nonzero().flatten()
    borders = torch.cat([first, first.new_full((1,), begins.numel())]).int()
    found = kernel(
        q,
        k,
        v.flatten(0, 1)[None],
        decay.flatten(0, 1)[None],
        write.flatten(0, 1)[None],
        use_qk_l2norm_in_kernel=True,
        cu_seqlens=borders,
        cu_seqlens_cpu=borders.cpu(),
    )
    return found[0].view_as(v)


def normed(x: torch.Tensor) -> torch.Tensor:
    """x divided by its norm along the last axis, as flash-linear-attention does (epsilon 1e-6)."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def chunked(
    q_BLGK: torch.Tensor,
    k_BLGK: torch.Tensor,
    v_BLNV: torch.Tensor,
    decay_BLN: torch.Tensor,
    write_BLN: torch.Tensor,
    begins_BL: torch.Tensor,
) -> torch.Tensor:
    """`delta_rule` by chunks: sums in fp32 at least."""
    B, L, G, K = k_BLGK.shape
    V, more = v_BLNV.shape[3], v_BLNV.shape[2] // G
    exact = torch.promote_types(v_BLNV.dtype, torch.float32)
    q, k = (normed(each.to(exact)) for each in (q_BLGK, k_BLGK))
    lack = -L % CHUNK

    def by_chunks(x: torch.Tensor) -> torch.Tensor:
        """(B, L, G · r, …) as (B, G, r, M, C, …), padded; r is 1 for queries and keys."""
        padded = nn.functional.pad(x.to(exact), (0, 0) * (x.ndim - 2) + (0, lack))
        return padded.unflatten(2, (G, -1)).unflatten(1, (-1, CHUNK)).movedim((3, 4), (1, 2))

    q, k, v = by_chunks(q * K**-0.5), by_chunks(k), by_chunks(v_BLNV)
    write, decay = by_chunks(write_BLN)[..., None], by_chunks(decay_BLN)
    sums = decay.cumsum(-1)  # ln of the decay since the chunk began
    same, first, last = of_one_document(
        nn.functional.pad(begins_BL, (0, lack)).unflatten(1, (-1, CHUNK))
    )
    apart = sums[..., :, None] - sums[..., None, :]
    between = apart.masked_fill(~same, -torch.inf).exp()
    before = (sums.exp() * first)[..., None]
    behind = ((sums[..., -1:] - sums) * last).exp() * last
    kept = (sums[..., -1].exp() * first[..., -1])[..., None, None]

    # What each token writes depends on what those before it in the chunk have written.
    system = (k @ k.mT) * between * write
    told = torch.cat([v * write, (k * before).expand(B, G, more, -1, CHUNK, K) * write], -1)
    told = torch.linalg.solve_triangular(system, told, upper=False, unitriangular=True)
    new, read = told.split([V, K], -1)
    scores, asked, written = (q @ k.mT) * between, q * before, (k * behind[..., None]).mT
    state = v.new_zeros(B, G, more, K, V)
    found: list[torch.Tensor] = []
    # `unbind`, since the gradient of an index is as large as all chunks.
    parts = (each.unbind(3) for each in (new, read, scores, asked, written, kept))
    for adds, reads, sees, asks, writes, keeps in zip(*parts, strict=True):
        values = adds - reads @ state
        found.append(asks @ state + sees @ values)
        state = state * keeps + writes @ values
    out = torch.stack(found, 3)  # (B, G, r, M, C, V)
    return out.movedim((1, 2), (3, 4)).flatten(1, 2).flatten(2, 3)[:, :L].to(v_BLNV.dtype)


def of_one_document(begins_BMC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which tokens of a chunk are of one document, as bool; broadcast over heads.

    Returns:
        Whether a token sees another of its chunk, shape (B, 1, 1, M, C, C); whether it is of the
        document that the chunk before ends with, and of that with which its own ends, shape
        (B, 1, 1, M, C).
    """
    number = begins_BMC.cumsum(-1)
    same = (number[..., :, None] == number[..., None, :]).tril()
    first, last = number == 0, number == number[..., -1:]
    return same[:, None, None], first[:, None, None], last[:, None, None]


def gradients_of(given: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """The gradients of all inputs but the last, from that of the result."""
    of: Any = torch._C
    # Inside an operation torch leaves autograd out, whatever `enable_grad` says.
    left_out = of._dispatch_tls_local_exclude_set()
    for key in ("AutogradFunctionality", "AutogradOther", "ADInplaceOrView"):
        left_out = left_out.remove(getattr(of.DispatchKey, key))
    inside = of._dispatch_tls_local_include_set()
    with of._ForceDispatchKeyGuard(inside, left_out), torch.enable_grad():
        again = [each.detach().requires_grad_() for each in inputs[:-1]]
        return list(torch.autograd.grad(computed(*again, inputs[-1]), again, given))


def registered() -> Any:
    """`computed` as an operation that torch.compile takes as a whole, and whose backward pass
    computes it again from its inputs."""

    def forward(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        decay: torch.Tensor,
        write: torch.Tensor,
        begins: torch.Tensor,
    ) -> torch.Tensor:
        return computed(q, k, v, decay, write, begins).contiguous()

    def backward(
        given: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        decay: torch.Tensor,
        write: torch.Tensor,
        begins: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        q, k, v, decay, write = gradients_of(given, q, k, v, decay, write, begins)
        return q, k, v, decay, write

    def kept(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs)

    def gradients(ctx: Any, given: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (*back(given, *ctx.saved_tensors), None)

    of = torch.library.custom_op("etude::delta_rule", forward, mutates_args=())
    back = torch.library.custom_op("etude::delta_rule_backward", backward, mutates_args=())
    of.register_fake(lambda q, k, v, *others: v.new_empty(v.shape))
    back.register_fake(lambda given, *inputs: tuple(x.new_empty(x.shape) for x in inputs[:-1]))
    of.register_autograd(gradients, setup_context=kept)
    return of


RULE = registered()
