"""Tokens in another order and back again, for attention on CPUs.

PyTorch's gradient of `index_select` adds, as an index may occur twice, and on CPUs it does so on
one core. Here each token has one place that counts, so a gradient is a selection, too.
"""

from typing import Any

import torch


class Out(torch.autograd.Function):
    """Rows of a tensor in another order, some of them repeated; repetitions have no gradient."""

    @staticmethod
    def forward(
        ctx: Any, of: torch.Tensor, order: torch.Tensor, back: torch.Tensor
    ) -> torch.Tensor:
        """
        Args:
            of: shape (T, …).
            order: which rows to take, shape (Q,), each at least once.
            back: the place in `order` of each row of `of`, shape (T,).
        """
        ctx.save_for_backward(back)
        return of.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (back,) = ctx.saved_tensors
        return gradients[0].index_select(0, back), None, None


class Back(torch.autograd.Function):
    """What `Out` has put in another order, in its own again."""

    @staticmethod
    def forward(ctx: Any, of: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        """
        Args:
            of: shape (Q, …).
            back: which rows to take, shape (T,), each at most once.
        """
        ctx.save_for_backward(back)
        ctx.rows = len(of)
        return of.index_select(0, back)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (back,) = ctx.saved_tensors
        (given,) = gradients
        made = given.new_zeros(ctx.rows, *given.shape[1:])
        return made.index_copy_(0, back, given), None
