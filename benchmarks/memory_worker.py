"""A step of a rank of a train job, on a GPU that computes nothing: what memory it takes.

    LD_PRELOAD=… python -m benchmarks.memory_worker < jobs.jsonl

Each line is {"job": …, "rank": …}; each answer says the peak of the allocator, and of what it was.
The engine is etude's own, and so is everything that it calls: torchtitan, FSDP2, PyTorch's caching
allocator. Five things have to be in place of others:

- messages: of the group of ranks there is this one, whose collectives do nothing (`FakeStore`);
- compiled functions: nothing can compile for a GPU here. A function is traced, cut into forward and
  backward, and rematerialized as Inductor does (AOTAutograd, min-cut), and then allocates what
  Inductor's code would: what matrix products, attention and messages read and write, and what a
  graph returns. Elementwise work and sums between them are taken to be one kernel.
- attention, where nothing is compiled: its kernels allocate their outputs;
- tokens for experts: as many for each rank, where on a GPU the router says;
- records: each fills its row, with a prompt and as many responses of the same length, or steps.
"""

import json
import operator
import os
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import fx
from torch.testing._internal.distributed.fake_pg import FakeStore

from .memory_batches import rows

STEPS = 2
"""Steps that are taken: from the second on, moments are there during forward and backward."""
EVENTS = 4_000_000
"""The most allocations and releases of a step that are recorded."""
UNKNOWN = 0
"""Rows that only a router decides on, where nothing here does."""
VIEWS = {
    *("_unsafe_view", "alias", "as_strided", "detach", "diagonal", "expand", "narrow", "permute"),
    *("reshape", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose"),
    *("unbind", "unsqueeze", "view", "wait_tensor"),
}
"""Functions whose result lies where their argument does."""
FUSED = {
    *("_to_copy", "amax", "arange", "broadcast_in_dim", "cat", "clone", "constant_pad_nd"),
    *("convert_element_type", "copy", "embedding", "empty", "full", "full_like", "gather", "index"),
    *("iota", "mean", "new_empty", "new_full", "new_zeros", "ones", "scalar_tensor", "scatter"),
    *("select_scatter", "slice_scatter", "sum", "var_mean", "where", "zeros", "zeros_like"),
}
"""What else Inductor makes part of a kernel with its neighbours."""


def put(owner: Any, **values: Any) -> None:
    """Puts what is here in the place of what a library has."""
    for name, value in values.items():
        setattr(owner, name, value)


def be_a_rank(rank: int, ranks: int) -> None:
    """Makes this process a rank of so many, of which there are no others."""
    os.environ |= {"WORLD_SIZE": str(ranks), "RANK": str(rank), "NGPU": str(ranks)}
    os.environ |= {"LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    begin, more = dist.init_process_group, dist.new_group

    def init_process_group(backend: str, **keywords: Any) -> None:
        begin("fake", store=FakeStore(), rank=rank, world_size=ranks)

    def new_group(*given: Any, backend: str | None = None, **keywords: Any) -> Any:
        return more(*given, backend="fake", **keywords)

    def all_gather_object(object_list: list[Any], obj: Any, **_: Any) -> None:
        object_list[:] = [obj] * len(object_list)

    def all_to_all_single(*_: Any, async_op: bool = False, **__: Any) -> Any:
        return dist.Work() if async_op else None

    put(
        dist,
        init_process_group=init_process_group,
        new_group=new_group,
        all_gather_object=all_gather_object,
        all_to_all_single=all_to_all_single,
    )


def is_elementwise(node: fx.Node) -> bool:
    """Whether Inductor makes a function part of a kernel with its neighbours."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace not in ("aten", "prims"):
        return False
    tagged = {torch.Tag.pointwise, torch.Tag.reduction} & set(target.tags)
    return bool(tagged) or target.overloadpacket.__name__ in FUSED


class Allocating:
    """A graph that allocates what Inductor's code for it would, and computes nothing."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        (output,) = (node for node in graph.graph.nodes if node.op == "output")
        self.kept = self._kept(output)
        self.last: dict[fx.Node, list[fx.Node]] = {}
        seen: set[fx.Node] = set()
        for node in reversed(list(graph.graph.nodes)):
            for used in node.all_input_nodes:
                if used not in seen:
                    seen.add(used)
                    self.last.setdefault(node, []).append(used)

    def _kept(self, output: fx.Node) -> set[fx.Node]:
        """The nodes whose values are in memory: those that are returned, or that something other
        than a kernel of elementwise work reads."""
        kept: set[fx.Node] = set()
        for node in reversed(list(self.graph.graph.nodes)):
            if any(
                user is output or (user in kept if is_view(user) else not is_elementwise(user))
                for user in node.users
            ):
                kept.add(node)
        return kept

    def __call__(self, *given: Any) -> Any:
        values: dict[fx.Node, Any] = {}
        inputs = iter(given)
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(inputs)
            elif node.op == "get_attr":
                values[node] = getattr(self.graph, str(node.target), None)
            elif node.op == "output":
                return fx.map_arg(node.args[0], values.__getitem__)
            else:
                values[node] = self._made(node, values)
            for dead in self.last.get(node, ()):
                values[dead] = None
        raise AssertionError("a graph without an output")

    def _made(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        if node.target is operator.getitem:
            whole, index = node.args
            of = values[whole]  # type: ignore[index]
            return None if of is None else of[index]
        if is_view(node):
            source = values[node.all_input_nodes[0]]
            if not isinstance(source, torch.Tensor):
                return None
            if name_of(node) == "wait_tensor":
                return source
            return viewed(source, node.meta["val"])
        if is_elementwise(node) and node not in self.kept:
            return None
        return allocated(node.meta.get("val"))


def name_of(node: fx.Node) -> str:
    target = node.target
    packet = target.overloadpacket if isinstance(target, torch._ops.OpOverload) else target
    return getattr(packet, "__name__", str(packet)).split(".")[-1]


def is_view(node: fx.Node) -> bool:
    return node.op == "call_function" and (
        node.target is operator.getitem or name_of(node) in VIEWS
    )


def viewed(source: torch.Tensor, shape: Any) -> Any:
    """What lies in the same memory, in the shape of a traced value."""
    if not isinstance(shape, torch.Tensor):
        return [viewed(source, each) for each in shape]
    size, stride = sizes(shape.size()), sizes(shape.stride())
    return torch.as_strided(source, size, stride, 0)


def sizes(given: Sequence[Any]) -> list[int]:
    """Sizes as numbers; what only a GPU would know is what the tracer takes it to be."""
    return [int(each) if isinstance(each, int) else hint(each) for each in given]


def hint(size: Any) -> int:
    known = size.node.hint
    return UNKNOWN if known is None else int(known)


def allocated(value: Any) -> Any:
    """New memory for a traced value, or for each of several."""
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(
            sizes(value.size()), sizes(value.stride()), dtype=value.dtype, device=value.device
        )
    if isinstance(value, (list, tuple)):
        return [allocated(each) for each in value]
    return value if isinstance(value, (int, float)) else None


def without_compilers() -> None:
    """Has compiled functions and attention allocate what they would, and the memory of masks."""
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor.decomposition import select_decomp_table
    from torch.nn.attention import flex_attention
    from torchtitan.distributed import compile as compiling
    from torchtitan.models.common import attention

    def allocating(graph: fx.GraphModule, _: Any) -> Callable[..., Any]:
        from torch._functorch._aot_autograd.utils import make_boxed_func

        return make_boxed_func(Allocating(graph))

    backend = aot_autograd(
        fw_compiler=allocating,
        bw_compiler=allocating,
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
    )
    put(compiling, _maybe_regional_inductor_backend=lambda *_: backend)
    flex = staticmethod(flex_attention.flex_attention)
    put(attention.FlexAttention, _compiled_flex_attn=flex)
    put(attention, _compiled_create_block_mask=block_mask)
    put(flex_attention, _FLEX_ATTENTION_DISABLE_COMPILE_DEBUG=True)
    compile_of_torch = torch.compile

    def compiled(function: Any = None, **keywords: Any) -> Any:
        if function is None:
            return lambda of: compiled(of, **keywords)
        keywords["backend"] = backend
        return compile_of_torch(function, **keywords)

    put(torch, compile=compiled)
    from torch._C import DispatchKey
    from torch._higher_order_ops.flex_attention import flex_attention as forward
    from torch._higher_order_ops.flex_attention import flex_attention_backward as backward

    dense = DispatchKey.CompositeExplicitAutograd
    forward.py_kernels[dense] = attend
    backward.py_kernels[dense] = attend_backward


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> Any:
    """Output, and logarithms of sums and maxima."""
    out = query.new_empty(*query.shape[:-1], value.shape[-1])
    rows = query.new_empty(query.shape[:-1], dtype=torch.float32)
    return out, rows, torch.empty_like(rows)


def attend_backward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: Any, *rest: Any, **__: Any
) -> Any:
    made = [torch.empty_like(each) for each in (query, key, value)]
    return *made, ()


def block_mask(mod: Any, B: Any, H: Any, Q_LEN: int, KV_LEN: int, **keywords: Any) -> Any:  # noqa: N803
    from torch.nn.attention.flex_attention import BlockMask

    size = keywords.get("BLOCK_SIZE", 128)
    rows, columns = (size, size) if isinstance(size, int) else size
    queries, keys = -(-Q_LEN // rows), -(-KV_LEN // columns)
    count = torch.zeros(B or 1, H or 1, queries, dtype=torch.int32, device="cuda")
    index = torch.zeros(B or 1, H or 1, queries, keys, dtype=torch.int32, device="cuda")
    return BlockMask.from_kv_blocks(
        count, index, BLOCK_SIZE=size, mask_mod=mod, seq_lengths=(Q_LEN, KV_LEN)
    )


def without_others(job: Any) -> None:
    """What other ranks or a GPU would say: as many tokens for each expert, the shapes of stages,
    and how many tokens a response has."""
    from torch.distributed.pipelining import schedules

    stages: Any = import_module("torch.distributed.pipelining.stage")
    from torchtitan.distributed.flex_shard import dist_muon
    from torchtitan.models.common.token_dispatcher import AllToAllTokenDispatcher

    from etude.runtime.engine import objectives
    from etude.runtime.engine.records import policy, solutions

    def splits(self: Any, counts: torch.Tensor, exchanged: torch.Tensor, size: int) -> Any:
        experts, r = job.model.experts, job.resources
        tokens = job.seq_len * job.torchtitan["training"]["local_batch_size"]
        if r.pipeline > 1:
            tokens = job.seq_len
        each = tokens // (r.context * r.tensor) * experts.active // size
        return exchanged.reshape(-1), [each] * size, [each] * size

    put(AllToAllTokenDispatcher, _sync_token_count_exchange=splits)
    put(dist_muon, _validate_bucket_plans_across_ranks=lambda *_, **__: None)

    def told(self: Any, source: int) -> Any:
        if source > self.stage_index:
            metas = stages._derive_grad_metas(self._stage_meta.outputs)
            return stages._StageBackwardMeta(backward_metas=metas)
        r = job.resources
        shape = (1, job.seq_len // r.context // r.tensor, job.model.dim)
        given = torch.empty(shape, dtype=torch.bfloat16, device="cuda", requires_grad=True)
        return stages._StageForwardMeta(forward_metas=stages.extract_tensor_metas((given,)))

    def asks(_: Any, own: Sequence[Any], *__: Any) -> None:
        for each in own:
            each._inference_mode = stages.InferenceMode.DYNAMIC

    def sums(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        return values.sum().expand(len(counts))

    for module in (objectives, policy):
        put(module, sums_of=sums)
    for loss in (objectives.RecordLoss, solutions.StepLoss):
        put(loss, collect=lambda *_: ({}, None))
    put(schedules._PipelineSchedule, _warmup_p2p=asks)
    put(stages.PipelineStage, _recv_meta=told, _send_meta=lambda *_: None)


def without_weights(model: Any, *, buffer_device: torch.device | None = None) -> None:
    """Ties tables and moves buffers as torchtitan does, and draws no weights."""
    if getattr(model.config, "enable_weight_tying", False) and model.tok_embeddings is not None:
        model.tok_embeddings.weight = model.lm_head.weight
    for module in model.modules() if buffer_device else ():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty_like(buffer, device=buffer_device)


def measure(job: Any, rank: int) -> dict[str, Any]:
    """The most that a step has of a rank's memory, in bytes: `allocated`, the `state` that was
    there before, and `of` what, by where it is allocated."""
    from torchtitan.protocols import BaseModel

    from etude.runtime.engine.config import trainer_config

    put(BaseModel, init_weights=without_weights)
    without_others(job)
    with tempfile.TemporaryDirectory() as folder:
        loader = rows().Config(job=job)
        config = trainer_config(
            job, Path(folder), dataloader=loader, start=None, on_event=lambda _: None
        )
        trainer = config.build()
        batches = iter(trainer.dataloader)
        memory = torch.cuda.memory
        for trainer.step in range(1, STEPS):
            trainer.train_step(batches)
        before = memory.memory_allocated()
        memory._record_memory_history(context="alloc", stacks="python", max_entries=EVENTS)
        trainer.step = STEPS
        trainer.train_step(batches)
        trace = cast(Any, memory._snapshot())["device_traces"][0]
        memory._record_memory_history(enabled=None)
    of = at_peak(trace, before)
    return {"allocated": sum(of.values()), "state": of[BEFORE], "of": dict(of)}


BEFORE = "before the step"


def at_peak(trace: Sequence[Any], before: int) -> Counter[str]:
    """The bytes that are allocated at the peak of a step, by where they were.

    Args:
        before: bytes that were allocated when the step began.
    """
    now, most, when = 0, 0, 0
    for number, event in enumerate(trace):
        if event["action"] == "alloc":
            now += event["size"]
            if now > most:
                most, when = now, number
        elif event["action"] == "free_completed":
            now -= event["size"]
    places: dict[int, tuple[str, int]] = {}
    left = before
    for event in trace[: when + 1]:
        if event["action"] == "alloc":
            places[event["addr"]] = (place(event["frames"]), event["size"])
        elif event["action"] == "free_completed" and places.pop(event["addr"], None) is None:
            left -= event["size"]
    found: Counter[str] = Counter({BEFORE: left})
    for name, size in places.values():
        found[name] += size
    return found


def place(frames: Sequence[Any]) -> str:
    """The innermost functions of a stack."""
    named = (f"{Path(each['filename']).name}:{each['line']} {each['name']}" for each in frames[:4])
    return " < ".join(named)


def main() -> None:
    from etude.compiler.pipelines import pipelining
    from etude.compiler.plan.plan import TrainJob
    from etude.runtime.engine import device
    from etude.runtime.engine.process import join

    for line in sys.stdin:
        asked = json.loads(line)
        job = TrainJob.model_validate(asked["job"])
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            continue
        try:
            be_a_rank(asked["rank"], job.resources.world_size)
            device.prepare(job.resources.device)
            without_compilers()
            device.twice_backward(pipelining(job.resources).split)
            join(job.resources.world_size, job.resources.device)
            found = measure(job, asked["rank"])
        except BaseException:
            found = {"wrong": traceback.format_exc()}
        print(json.dumps(found), flush=True)
        os._exit(0)  # another rank needs a process in which nothing is set up


if __name__ == "__main__":
    main()
