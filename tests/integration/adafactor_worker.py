"""One of four ranks: it takes three steps by Adafactor on parameters that ranks
share in several ways, and prints how far their results are from those of whole parameters."""

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Placement, Replicate, Shard, distribute_tensor

from etude.runtime.engine.device import prepare

prepare("cpu")

from etude.runtime.engine.updates.adafactor import Adafactor  # noqa: E402

SETTINGS: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.1, "beta2_decay": 0.8}
SETTINGS |= {"eps1": 1e-15, "eps2": 1e-3, "d": 1.0, "scale_parameter": True}
CASES: dict[str, tuple[tuple[int, ...], list[Placement]]] = {
    "rows": ((7, 5), [Replicate(), Shard(0)]),
    "columns": ((7, 5), [Shard(1), Replicate()]),
    "rows and columns": ((7, 6), [Shard(1), Shard(0)]),
    "fewer rows than ranks": ((1, 8), [Replicate(), Shard(0)]),
    "a vector": ((9,), [Replicate(), Shard(0)]),
    "experts": ((4, 6, 8), [Shard(0), Shard(1)]),
    "experts twice": ((5, 6, 8), [Shard(0), Shard(2)]),
}


def main() -> None:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("outer", "inner"))
    for name, (shape, places) in CASES.items():
        torch.manual_seed(0)
        begun = torch.randn(shape)
        whole = torch.nn.Parameter(begun.clone())
        cut = torch.nn.Parameter(distribute_tensor(begun.clone(), mesh, places))
        both = [Adafactor([{"params": [of], **SETTINGS}]) for of in (whole, cut)]
        for _ in range(3):
            whole.grad = torch.randn(shape)
            cut.grad = distribute_tensor(whole.grad.clone(), mesh, places)
            for each in both:
                each.step()
        apart = (cut.full_tensor() - whole).abs().max().item()  # type: ignore[operator]
        for kept in ("row_var", "col_var", "variance"):
            if kept in both[0].state[whole]:
                found = both[1].state[cut][kept].full_tensor()
                apart = max(apart, (found - both[0].state[whole][kept]).abs().max().item())
        if dist.get_rank() == 0:
            print(f"{name}: {apart}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
