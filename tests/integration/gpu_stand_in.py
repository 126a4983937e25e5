"""A GPU that computes nothing: what a job does on a GPU, on a machine without one.

`gpu_stand_in.c` makes PyTorch believe in a GPU, and `Device` makes every tensor on it a fake
tensor, which has a shape and a type and no content, while tensors on the CPU stay real. So a run's
own code takes the ways that only a GPU takes. A tensor left on the CPU is an error, as on a GPU,
and a value that the CPU asks the GPU for is noted. What this cannot show: numbers, kernels,
compiled functions, and time.
"""

import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.attention import flex_attention
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

aten = torch.ops.aten
VARYING = {aten.median.dim, aten.put_.default, aten.nll_loss2d_forward.default}
PLAIN = {torch.Tensor, torch.nn.Parameter, FakeTensor}


class Device(TorchDispatchMode):
    """Makes tensors on the GPU fake. What the CPU reads of them are ones.

    Attributes:
        waits: of each read, the files and functions that were running, outermost first.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.waits: list[list[tuple[str, str]]] = []

    def __enter__(self) -> "Device":
        self._lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(self._lifted)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_iter((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if any(type(tensor) not in PLAIN for tensor in tensors):
            return NotImplemented  # it is of others, such as a DTensor
        fake = any(isinstance(tensor, FakeTensor) for tensor in tensors)
        if not fake and torch.device(kwargs.get("device") or "cpu").type != "cuda":
            return func(*args, **kwargs)
        if torch.are_deterministic_algorithms_enabled() and _varies(func, args):
            raise RuntimeError(f"{func} has no deterministic kernel on GPUs")
        if func is aten._local_scalar_dense.default:
            self._note()
            return 1.0 if args[0].is_floating_point() else 1
        if func is aten.copy_.default and not isinstance(args[0], FakeTensor):
            self._note()
            return args[0].fill_(1)
        with self.fake:
            made = func(*args, **kwargs)
        return tree_map_only(FakeTensor, self._kept, made)

    def _kept(self, made: FakeTensor) -> torch.Tensor:
        if made.device.type != "cpu":
            made.constant = None  # which would be computed with on the GPU
            return made
        self._note()
        return torch.ones(made.shape, dtype=made.dtype)

    def _note(self) -> None:
        frames, frame = [], sys._getframe()
        while frame.f_back:
            frame = frame.f_back
            frames.append((frame.f_code.co_filename, frame.f_code.co_name))
        self.waits.append(frames[::-1])


def _varies(func: Any, args: Any) -> bool:
    """Whether PyTorch refuses a function on GPUs where kernels must be deterministic
    (torch 2.14, `use_deterministic_algorithms`)."""
    if func is aten.histc.default:
        return args[0].is_floating_point()
    return func in VARYING


class InOrder:
    """Threads of which the first does all: fake tensors are not for several at a time."""

    def __init__(self, _: int) -> None:
        self.map = map

    def __enter__(self) -> "InOrder":
        return self

    def __exit__(self, *_: Any) -> None: ...


def be_a_rank(ranks: int) -> None:
    """Makes this process the first of so many ranks, whose messages go nowhere: on GPUs in a group
    that has no others, as NCCL's, and between hosts in one of their own, as Gloo's."""
    os.environ |= {name: str(ranks) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "CUDA_VISIBLE_DEVICES": "0"}
    begin, more = dist.init_process_group, dist.new_group

    def init_process_group(backend: str, **keywords: Any) -> None:
        assert backend == "nccl"
        begin("cuda:fake", store=FakeStore(), rank=0, world_size=ranks)

    def new_group(*given: Any, backend: str | None = None, **keywords: Any) -> Any:
        names = {None: "cuda:fake", "gloo": "cpu:fake"}
        return more(*given, backend=names.get(backend, backend), **keywords)

    def all_gather_object(object_list: list[Any], obj: Any, **_: Any) -> None:
        object_list[:] = [obj] * len(object_list)

    dist.init_process_group = init_process_group
    dist.new_group = new_group
    dist.all_gather_object = all_gather_object

    def gather_object(obj: Any, object_gather_list: list[Any] | None = None, **_: Any) -> None:
        if object_gather_list is not None:
            object_gather_list[:] = [obj] * len(object_gather_list)

    def scatter_object_list(
        scatter_object_output_list: list[Any], scatter_object_input_list: list[Any], **_: Any
    ) -> None:
        scatter_object_output_list[0] = scatter_object_input_list[0]

    dist.gather_object, dist.scatter_object_list = gather_object, scatter_object_list
    dist.broadcast_object_list = lambda *_, **__: None


def without_compilers() -> None:
    """Has attention computed by what a compiler would read."""
    from torchtitan.models.common import attention

    flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True
    attention.FlexAttention._compiled_flex_attn = staticmethod(flex_attention.flex_attention)
    attention._compiled_create_block_mask = flex_attention.create_block_mask
    torch.compile = lambda function=None, **_: function or (lambda of: of)
