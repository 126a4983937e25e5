"""One of two ranks of one of two parts of a pipeline: it takes three steps by
etude's Muon and by torchtitan's DistMuon, placed as etude places it, and prints how far their
results are apart, over the largest change of a weight.

DistMuon wants GPUs. Here it runs on CPUs: nothing of it is replaced but the streams of a GPU,
without which its work runs in order.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from etude.runtime.engine.device import prepare

prepare("cpu")

from torchtitan.distributed.flex_shard import dist_muon  # noqa: E402

from etude.runtime.engine.updates import muon  # noqa: E402

SHAPES = {
    "layers.0.w1": (16, 8),
    "layers.0.w2": (8, 24),
    "layers.0.experts": (4, 8, 12),
    "layers.1.w1": (15, 8),
    "layers.1.w2": (8, 10),
}
SETTINGS: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.95, "nesterov": True}
SETTINGS |= {"ns_steps": 5, "adjust_lr_fn": "match_rms_adamw", "fused": False, "foreach": False}


class InOrder:
    """Streams and events where everything runs in order."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class Device:
    """The parts of torch.cuda that DistMuon calls."""

    Stream = Event = InOrder

    @staticmethod
    def current_stream(*_: Any) -> InOrder:
        return InOrder()

    @staticmethod
    @contextlib.contextmanager
    def stream(_: Any) -> Iterator[None]:
        yield


def on_cpus() -> None:
    torch.get_device_module = lambda *_: Device  # type: ignore[assignment]
    torch.Tensor.record_stream = lambda *_: None  # type: ignore[method-assign, assignment]
    here = torch.device("cpu")
    dist_muon.DistMuon._validate_parameter_storage = lambda _: here  # type: ignore[method-assign]


def main() -> None:
    dist.init_process_group("gloo")
    on_cpus()
    ranks = init_device_mesh("cpu", (2, 2), mesh_dim_names=("pp", "fsdp"))
    part = ranks.get_local_rank("pp")
    sharded = ranks["fsdp"], [Shard(0)]
    of_experts = init_device_mesh("cpu", (2, 1, 2), mesh_dim_names=("pp", "efsdp", "ep"))
    experts = of_experts["efsdp", "ep"], [Shard(1), Shard(0)]
    torch.manual_seed(0)
    begun = {
        name: torch.randn(shape)
        for name, shape in SHAPES.items()
        if name.startswith(f"layers.{part}.")
    }

    def placed(whole: torch.Tensor) -> torch.Tensor:
        return distribute_tensor(whole.clone(), *(experts if whole.ndim == 3 else sharded))

    one, two = (
        {name: torch.nn.Parameter(placed(whole)) for name, whole in begun.items()} for _ in range(2)
    )
    ours, theirs = (
        {"params": list(of.values()), "param_names": list(of), **SETTINGS} for of in (one, two)
    )
    both = muon.Muon([ours]), muon.torchtitans(theirs)
    for _ in range(3):
        for name, whole in begun.items():
            gradient = torch.randn_like(whole)
            one[name].grad, two[name].grad = placed(gradient), placed(gradient)
        for each in both:
            each.step()
    for name, whole in begun.items():
        first, second = (of[name].full_tensor() for of in (one, two))  # type: ignore[operator]
        apart = (first - second).abs().max() / (first - whole).abs().max()
        if ranks.get_local_rank("fsdp") == 0:
            print(name, apart.item())
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
