"""The configuration of jobs under torchtitan's names."""

from collections.abc import Iterable, Mapping
from typing import Any

from ...spec.schedule import Schedule
from ...spec.schema import recipe as r
from ...spec.schema.precision import budget
from ..families.architectures import linear_layers
from ..pipelines import LESS_LAYERS, layers_per_stage, pipelining, torch_name
from ..placement import no_graphs
from ..program import Form, ModelStage
from ..values import ADAFACTOR, LION, Architecture, LrPiece, ModelShape, Resources, Value
from .quantization import SECTION, quantization
from .told import ATTENTION, DISPATCHER, WITHOUT_GRAPHS, merged, on_cpus, told, wants_graphs

NO_MATRICES = r"(^|\.)tok_embeddings\.|norm\.weight$|bias|sinks$"
"""torchtitan's names of embeddings, norms (including those of queries, keys and latents), biases
(including those of experts, which are not part of linear layers) and attention sinks; a test
compares them with the shapes of all families."""

CONVOLUTIONS = r"filter\.weight$"
"""Their name of the convolutions of linear attention, a few numbers for each channel: they do not
decay, and learn by AdamW where matrices learn by Muon."""
OUTPUT = r"(^|\.)lm_head\."
"""Their name of the output layer, which learns by AdamW where the matrices of layers learn by Muon
(arXiv:2502.16982 §2.2)."""
MUON = "DistMuon"
"""Their name of Muon."""

FIRST_STEP_SECONDS = 1800
"""The time limit of collectives that may have to wait for compilation in a first step, or for other
ranks that write a result. On CPUs it always applies: steps of minutes are normal there."""
STEP_SECONDS = 100
"""torchtitan's own limit for all other steps. Every minute that 512 GPUs wait for one that hangs
costs 9 GPU-hours."""


def torchtitan(
    stage: ModelStage,
    segment: Form,
    steps: int,
    seed: int,
    lr: Iterable[LrPiece],
    *,
    measures: bool = False,
) -> dict[str, Any]:
    """The torchtitan configuration of a segment: sections and fields as torchtitan names them.

    Args:
        segment: of the stage, or the form in which a job runs its weights over data.
        lr: the pieces of the learning rate; without any, nothing is trained.
        measures: whether the job measures a result, which is done in bf16 in place of 8 or 4 bits.
    """
    on_cpu = segment.resources.device == "cpu"
    resources = segment.resources
    peak = max((max(piece.start, piece.end) for piece in lr), default=0)
    sections: dict[str, Any] = {
        "training": {
            "local_batch_size": segment.micro_batch,
            "seq_len": segment.seq_len,
            "max_norm": _most(stage.settings["clip"]),
            "steps": steps,
            "dtype": "float32",
            "mixed_precision_param": "float32" if stage.precision.kind == "fp32" else "bfloat16",
            "disable_cuda_graphs": True,
        },
        "parallelism": {
            "data_parallel_replicate_degree": resources.replicate,
            "data_parallel_shard_degree": resources.shard,
            "tensor_parallel_degree": resources.tensor,
            "context_parallel_degree": resources.context,
            "pipeline_parallel_degree": resources.pipeline,
            "expert_parallel_degree": resources.expert,
            **_pipeline(segment, stage.model.layers),
            **_balanced(stage.model, resources),
        },
        "optimizer": {
            "implementation": "fused",
            "param_groups": _groups(stage.optimizer, peak, stage.model),
        },
        "activation_checkpoint": _recomputation(stage.recompute, on_cpu=on_cpu),
        "compile": _compiled(resources),
        "debug": {"seed": seed, "deterministic": True},
        "comm": {
            "init_timeout_seconds": FIRST_STEP_SECONDS,
            "train_timeout_seconds": FIRST_STEP_SECONDS if on_cpu else STEP_SECONDS,
        },
        **({} if on_cpu or measures else _quantization(stage)),
        **({} if on_cpu else _attention(stage, resources)),
        **({} if on_cpu else _dispatcher(stage, resources)),
    }
    given = told(stage.hardware.torchtitan, stage.settings["torchtitan"])
    if wants_graphs(given) and (measures or no_graphs(stage, resources)):
        given = merged(given, WITHOUT_GRAPHS)
    return merged(sections, on_cpus(given) if on_cpu else given)


def _quantization(stage: ModelStage) -> dict[str, Any]:
    """The section with the converters to 8 or 4 bits, if there are any."""
    logits = not getattr(stage.spec, "padded", False)
    found = quantization(stage.precision, stage.model, logits=logits)
    return {SECTION: found} if found else {}


def _attention(stage: ModelStage, resources: Resources) -> dict[str, Any]:
    """The section with the backend of attention, where it is not torchtitan's default; not that of
    rows which a stage takes over and cannot use."""
    backend = stage.settings.get("attention") or "flex"
    whole = resources.context == 1 and getattr(stage.spec, "uniform", False)
    clipped = stage.optimizer.qk_clip is not None  # only flex tells the largest score
    if backend == "flex" or clipped or (backend == "varlen" and not whole):
        return {}
    return {ATTENTION: {"backend": backend}}


def _dispatcher(stage: ModelStage, resources: Resources) -> dict[str, Any]:
    """The section with the token dispatcher, where it is not torchtitan's default; none where no
    token leaves its GPU."""
    kind = stage.settings.get("dispatcher") or "all_to_all"
    if kind == "all_to_all" or resources.expert == 1:
        return {}
    return {DISPATCHER: {"backend": kind}}


def _recomputation(recompute: str, *, on_cpu: bool) -> dict[str, Any] | None:
    """The section; with a budget, the compiler chooses, and there is none on CPUs."""
    share = budget(recompute)
    if share is not None:
        return None if on_cpu else {"mode": "memory_budget", "memory_budget": float(share)}
    return None if recompute == "none" else {"mode": recompute}


def _groups(optimizer: r.Optimizer, peak: float, model: ModelShape) -> list[dict[str, Any]]:
    """The groups of parameters; of several that match one, the first counts."""
    name, settings = _of_vectors(optimizer, peak)
    found = []
    vectors = f"{NO_MATRICES}|{CONVOLUTIONS}" if linear_layers(model) else NO_MATRICES
    if optimizer.decay == "matrices":
        found.append((vectors, name, settings | {"weight_decay": 0.0}))
    if optimizer.kind != "muon":
        return _named([*found, (".*", name, settings)])
    pattern = OUTPUT if found else f"{vectors}|{OUTPUT}"
    return _named([*found, (pattern, name, settings), (".*", MUON, _muon(optimizer, peak))])


def optimizers(sections: Mapping[str, Any]) -> set[str]:
    """The names of the optimizers by which a job with these sections learns."""
    return {group["optimizer_name"] for group in sections["optimizer"]["param_groups"]}


def _of_vectors(optimizer: r.Optimizer, peak: float) -> tuple[str, dict[str, Any]]:
    """What norms and biases learn by, and what else but the matrices that learn by Muon."""
    decay = {"weight_decay": _most(optimizer.weight_decay)}
    whole = {"fused": False, "foreach": False}
    if optimizer.kind == "adafactor":
        return ADAFACTOR, {"lr": peak, **optimizer.own(), **decay, **whole}
    if optimizer.kind == "lion":
        return LION, {"lr": peak, "betas": list(optimizer.betas), **decay, **whole}
    name = "Adam" if optimizer.kind == "adam" else "AdamW"
    return name, {"lr": peak, "betas": list(optimizer.betas), "eps": optimizer.eps, **decay}


def _most(value: float | Schedule) -> float:
    """The largest value of a setting that may change: the engine sets it before each step, where
    it is not 0 here."""
    if not isinstance(value, Schedule):
        return value
    ends = (end for each in value.segments for end in (each.start, each.end))
    return max(float(end) for end in ends if end is not None)


def _named(groups: Iterable[tuple[str, str, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [
        {"pattern": pattern, "optimizer_name": name, "optimizer_kwargs": settings}
        for pattern, name, settings in groups
    ]


def _muon(optimizer: r.Optimizer, peak: float) -> dict[str, Any]:
    """The settings of torchtitan's DistMuon; it has neither a fused nor a foreach form."""
    settings = optimizer.own()
    return {
        "lr": peak,
        "weight_decay": _most(optimizer.weight_decay),
        "momentum": settings["momentum"],
        "nesterov": settings["nesterov"],
        "ns_steps": settings["ns_steps"],
        "adjust_lr_fn": settings["adjust_lr"],
        "fused": False,
        "foreach": False,
    }


def arguments(model: Architecture, names: Iterable[str], seq_len: int) -> dict[str, Any]:
    """The arguments of the function that builds a family's models, by name: fields of the
    architecture, groups as dicts, and `rope` for sequences of up to `seq_len` tokens."""
    values = {
        name: rope(model, seq_len) if name == "rope" else getattr(model, name) for name in names
    }
    return {name: v.as_dict() if isinstance(v, Value) else v for name, v in values.items()}


def rope(model: Architecture, seq_len: int) -> dict[str, Any]:
    """torchtitan's settings for rotary positions, for sequences of up to `seq_len` tokens."""
    options: dict[str, Any] = {
        "dim": model.latent.rotary if model.latent else model.head_dim,
        "max_seq_len": seq_len,
        "theta": model.rope_theta,
        "scaling": model.rope_scaling,
    }
    if model.rope_scaling == "llama":
        options["scaling_factor"] = model.rope_factor
        options["low_freq_factor"] = model.rope_low
        options["high_freq_factor"] = model.rope_high
        options["original_max_position_embeddings"] = model.rope_original
    if model.rope_scaling == "yarn":
        options["rope_factor"] = model.rope_factor
        options["original_seq_len"] = model.rope_original
    return options


def _balanced(model: ModelShape, resources: Resources) -> dict[str, Any]:
    """How context parallelism shares out a sequence: flex attention's blocks by the work that the
    mask leaves them (torchtitan 0.3, `distributed/context_parallel/api.py`: "ptrr" for flex,
    "headtail" for SDPA). Where layers have a window, the mask of the others decides."""
    if resources.context == 1 or resources.device == "cpu":
        return {}
    found = {"context_parallel_load_balancer": "ptrr"}
    key = {"context_parallel_ptrr_mask_key": "basic_mask"}
    return found | (key if model.window else {})


def _compiled(resources: Resources) -> dict[str, Any]:
    """What is compiled; not the model under schedules that compute the gradients of weights apart,
    which torch does not support (torch 2.14, `_check_torch_compile_compatibility`)."""
    if resources.device == "cpu":
        return {"enable": False}
    apart = pipelining(resources).split
    return {"enable": True, "components": ["loss"]} if apart else {"enable": True}


def _pipeline(segment: Form, layers: int) -> dict[str, Any]:
    """The schedule and the split of a pipeline, where they differ from torchtitan's defaults."""
    resources = segment.resources
    if resources.pipeline == 1:
        return {}
    found: dict[str, Any] = {}
    if (name := torch_name(resources, segment.micro_batch)) != "1F1B":
        found["pipeline_parallel_schedule"] = name
    if each := layers_per_stage(layers, resources):
        found["pipeline_parallel_layers_per_stage"] = each
    for name, theirs in LESS_LAYERS.items():
        if (less := getattr(resources, name)) != 1:
            found[theirs] = less
    return found
