"""Initial weights: drawn by name, the same in whichever parts, of the distribution they are for."""

import math
from functools import partial
from typing import Any

import engine_jobs  # before torchtitan is imported: on CPUs
import numpy as np
import pytest
import torch
from torch import nn

from etude.runtime.engine.weights import initial
from etude.runtime.errors import RunError

assert engine_jobs

CUT = partial(nn.init.trunc_normal_, std=0.5, a=-1.0, b=0.25)


class Layer(nn.Module):
    """A module as torchtitan has them: what draws its weights stands beside them."""

    def __init__(self, **inits: Any) -> None:
        super().__init__()
        self._param_init = inits
        for name in inits:
            self.register_parameter(name, nn.Parameter(torch.empty(64, 48)))

    def draw(self) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            for name, weight in self.named_parameters():
                self._param_init[name](weight)
        return {name: weight.detach().clone() for name, weight in self.named_parameters()}


def drawn(seed: int = 1, path: str = "layers.0", drawn: Any = lambda name: True) -> Any:
    parts = path.split(".")
    layer = module = Layer(first=nn.init.normal_, second=nn.init.normal_, bias=nn.init.zeros_)
    for part in reversed(parts):
        above = nn.Module()
        above.add_module(part, module)
        module = above
    initial.by_name(lambda model: model, seed, drawn)(module)
    return layer.draw()


def test_a_parameter_is_drawn_by_the_seed_and_its_name() -> None:
    before = drawn()
    assert all(torch.equal(drawn()[name], weight) for name, weight in before.items())
    assert not before["bias"].any()
    others = [before["second"], drawn(seed=2)["first"], drawn(path="layers.1")["first"]]
    for other in others:
        share = (before["first"] * other).mean().abs()  # of independent numbers it is near 0
        assert share < 5 / math.sqrt(other.numel())


def test_what_comes_from_elsewhere_is_nan_until_then() -> None:
    found = drawn(drawn=lambda name: name == "layers.0.second")
    assert found["first"].isnan().all()
    assert torch.equal(found["second"], drawn()["second"])
    assert not found["bias"].any()


@pytest.mark.parametrize("piece", [7, 100, 1 << 20])
def test_parts_are_those_of_the_whole(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut along any dimension, and drawn in pieces of any size."""
    shape = (6, 10, 14)
    numbers = partial(initial._numbers, initial._key(3, "experts", shape))
    strides = torch.empty(shape).stride()
    whole = numbers(0, math.prod(shape)).view(shape)
    monkeypatch.setattr(initial, "PIECE", piece)
    boxes = [(0, 6, 0, 10, 0, 14), (2, 5, 0, 10, 0, 14), (0, 6, 3, 4, 0, 14), (1, 3, 2, 9, 5, 12)]
    for a, b, c, d, e, f in boxes:
        part = torch.empty(b - a, d - c, f - e)
        first = a * strides[0] + c * strides[1] + e * strides[2]
        for rows, begin in initial._pieces(part, strides, first):
            assert rows.numel() <= piece
            rows.copy_(numbers(begin, rows.numel()).view(rows.shape))
        assert torch.equal(part, whole[a:b, c:d, e:f].float())


def test_numbers_are_never_0_or_1(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ends:
        def __init__(self, **_: Any) -> None:
            pass

        def random_raw(self, count: int) -> Any:
            return np.array([0, 2**64 - 1] * count, dtype=np.uint64)[:count]

    monkeypatch.setattr(initial.np.random, "Philox", Ends)
    least, most = initial._numbers(1, 0, 2).tolist()
    assert 0 < least == 1 - most
    assert torch.special.ndtri(torch.tensor([least, most], dtype=torch.float64)).isfinite().all()


def test_the_distribution_is_that_of_the_function() -> None:
    uniform = initial._numbers(11, 0, 400_000)
    normal = initial._quantile(partial(nn.init.normal_, mean=0.1, std=0.02))(uniform.clone())
    assert normal.mean().item() == pytest.approx(0.1, abs=1e-4)
    assert normal.std().item() == pytest.approx(0.02, rel=5e-3)
    cut = initial._quantile(CUT)(uniform.clone())
    torch.manual_seed(0)
    theirs = torch.empty(400_000, dtype=torch.float64)
    CUT(theirs)
    assert -1 <= cut.min() < -0.99
    assert 0.249 < cut.max() <= 0.25
    levels = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    gaps = (cut.quantile(levels) - theirs.quantile(levels)).abs()
    assert gaps.max() < 0.01


def test_a_function_that_is_not_known_is_refused() -> None:
    with pytest.raises(RunError, match="cannot draw weights by `zeros_`"):
        initial._quantile(nn.init.zeros_)
