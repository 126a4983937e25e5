"""What a stage may set in torchtitan 0.3 under torchtitan's names: fields that etude leaves alone.

Attributes of the language, or the run itself, set all others. A test compares sections, fields and
types with the installed torchtitan, and requires a reason for every field that is not here.
"""

from typing import Any

from . import group_kinds as g
from . import kinds as k
from . import number_kinds as nk
from .declaration import Declaration, attribute, attributes


class TrainingFields(Declaration):
    """torchtitan's section `training`."""

    enable_cpu_offload: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="`false`",
        doc="keep weights, gradients and moments in the memory of the host",
    )
    disable_cuda_graphs: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="`true`",
        doc="`false`: record the kernels of a micro-batch once, as a CUDA graph, and replay them; "
        "only where rows have one length, without `z_loss`, `pipeline` and `expert`",
    )
    gc_freq: int | None = attribute(
        nk.Whole(), None, otherwise="50", doc="steps between two collections of garbage"
    )
    gc_debug: bool | None = attribute(
        k.Flag(), None, otherwise="`false`", doc="log what a collection of garbage has found"
    )


class ParallelismFields(Declaration):
    """torchtitan's section `parallelism`."""

    fsdp_reshard_after_forward: str | None = attribute(
        k.OneOf("default", "always", "never"),
        None,
        otherwise="`default`",
        doc="whether a layer's weights are freed between its forward and backward passes; "
        "`default`: unless there is a pipeline",
    )
    enable_fsdp_symm_mem: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="`false`",
        doc="gather and scatter weights through symmetric memory",
    )
    enable_sequence_parallel: bool | None = attribute(
        k.Flag(), None, otherwise="`true`", doc="shard norms along the sequence, too"
    )
    pipeline_parallel_first_stage_less_layers: int | None = attribute(
        nk.Whole(least=0), None, otherwise="1", doc="layers that the embedding counts for"
    )
    pipeline_parallel_last_stage_less_layers: int | None = attribute(
        nk.Whole(least=0), None, otherwise="1", doc="layers that the output counts for"
    )


class CompileFields(Declaration):
    """torchtitan's section `compile`."""

    enable: bool | None = attribute(
        k.Flag(), None, otherwise="`true` on GPUs", doc="compile with torch.compile"
    )
    components: list[str] | None = attribute(
        k.Text(many=True), None, otherwise='`["model", "loss"]`', doc="what is compiled"
    )
    backend: str | None = attribute(
        k.Text(), None, otherwise='`"inductor"`', doc="the backend of torch.compile"
    )
    enable_async_tensor_parallel: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="`false`",
        doc="overlap tensor parallelism's communication with its products",
    )


class CommFields(Declaration):
    """torchtitan's section `comm`."""

    init_timeout_seconds: int | None = attribute(
        nk.Whole(), None, otherwise="1800", doc="how long a collective may take in the first step"
    )
    train_timeout_seconds: int | None = attribute(
        nk.Whole(),
        None,
        otherwise="100 on GPUs, 1800 on CPUs",
        doc="how long one may take afterwards",
    )
    trace_buf_size: int | None = attribute(
        nk.Whole(least=0), None, otherwise="20000", doc="collectives that the flight recorder keeps"
    )


class DebugFields(Declaration):
    """torchtitan's section `debug`."""

    deterministic: bool | None = attribute(
        k.Flag(), None, otherwise="`true`", doc="take only kernels that always sum in one order"
    )
    deterministic_warn_only: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="`false`",
        doc="warn where there is no such kernel, and take another one",
    )
    detect_anomaly: bool | None = attribute(
        k.Flag(), None, otherwise="`false`", doc="look for NaN in every backward pass; slow"
    )
    moe_force_load_balance: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="`false`",
        doc="send as many tokens to each expert, whatever the router says",
    )
    spmd_typechecking: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="`false`",
        doc="check how tensors are sharded while the model runs",
    )
    enable_structured_logging: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="`false`",
        doc="write how long each part of each step takes to `logs/structured_logs`",
    )
    print_config: bool | None = attribute(
        k.Flag(), None, otherwise="`false`", doc="log the whole configuration"
    )


class OptimizerFields(Declaration):
    """torchtitan's section `optimizer`."""

    implementation: str | None = attribute(
        k.OneOf("foreach", "fused"),
        None,
        otherwise="`fused`",
        doc="how a step is computed",
    )


class Torchtitan(Declaration):
    """Fields of torchtitan's configuration, by section."""

    training: TrainingFields | None = attribute(
        g.Group(TrainingFields, "gc_freq = 100"),
        None,
        doc="[offloading and garbage collection](#training-of-torchtitan)",
    )
    parallelism: ParallelismFields | None = attribute(
        g.Group(ParallelismFields, "fsdp_reshard_after_forward = never"),
        None,
        doc="[sharding and pipelines](#parallelism-of-torchtitan)",
    )
    compile: CompileFields | None = attribute(
        g.Group(CompileFields, "enable = false"),
        None,
        doc="[torch.compile](#compile-of-torchtitan)",
    )
    comm: CommFields | None = attribute(
        g.Group(CommFields, "train_timeout_seconds = 100"),
        None,
        doc="[time limits and traces of collectives](#comm-of-torchtitan)",
    )
    debug: DebugFields | None = attribute(
        g.Group(DebugFields, "deterministic = false"),
        None,
        doc="[deterministic kernels and checks](#debug-of-torchtitan)",
    )
    optimizer: OptimizerFields | None = attribute(
        g.Group(OptimizerFields, "implementation = foreach"),
        None,
        doc="[how the optimizer's step is computed](#optimizer-of-torchtitan)",
    )

    def given(self) -> dict[str, dict[str, Any]]:
        """The fields that are set, by section."""
        found: dict[str, dict[str, Any]] = {}
        for section in attributes(type(self)):
            fields = getattr(self, section)
            for name in attributes(type(fields)) if fields else ():
                if (value := getattr(fields, name)) is not None:
                    found.setdefault(section, {})[name] = value
        return found


TORCHTITAN = g.Group(Torchtitan, "compile = { enable = false }")
