"""Small jobs on the stand-in of a GPU (`gpu_stand_in`), each whole: its trainer is built, takes a
step on batches of its own loader, and saves what one rank has.

python gpu_worker.py RANKS CASE…    prints a line of JSON for each case: `case`, `wrong` (the error,
or null) and `waits` (where in a step the CPU waits for the GPU)
"""

import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_stand_in import Device, InOrder, be_a_rank, without_compilers

from etude.runtime.engine import device

RANKS = int(sys.argv[1]) if __name__ == "__main__" else 1
if __name__ == "__main__":
    be_a_rank(RANKS)
    device.prepare("H100 80GB")
    device.prepare = lambda _: None  # type: ignore[assignment]  # the tests' own jobs are of CPUs
    without_compilers()

import engine_jobs  # noqa: E402
from engine_jobs import architecture, decoder, experts, latent, run  # noqa: E402

from etude.compiler.plan.evaluations import Evaluation, role  # noqa: E402
from etude.compiler.plan.measures import LossMeasure  # noqa: E402
from etude.compiler.plan.plan import (  # noqa: E402
    Averaging,
    Distill,
    Dpo,
    Grpo,
    Kto,
    LikelihoodJob,
    NextToken,
    Prm,
    ReferenceJob,
    Reward,
    Sft,
    TeacherJob,
    TrainJob,
)
from etude.compiler.torchtitan.adapters import adapters  # noqa: E402
from etude.compiler.values import ROUTER_LOSSES, Spikes  # noqa: E402
from etude.runtime.engine import trainer  # noqa: E402
from etude.runtime.engine.checkpoints import checkpoint  # noqa: E402
from etude.runtime.engine.weights import initial  # noqa: E402
from etude.spec.record import replace  # noqa: E402
from etude.spec.schema.preference_losses import LOSSES  # noqa: E402
from etude.spec.schema.recipe import Adapter  # noqa: E402

STEP = {"forward_backward_step", "begin", "say"}
"""Functions of a step in which the CPU should not wait."""
_on_cpus = engine_jobs.train_job


def train_job(**given: Any) -> TrainJob:
    """A job of `engine_jobs` on GPUs, as a plan has it, without compiled functions."""
    titan = {"compile": {"enable": False}, **(given.pop("torchtitan", None) or {})}
    titan["debug"] = {"deterministic": True, **titan.get("debug", {})}
    given = {"steps": 1, "batch": 2 * RANKS, "world_size": RANKS, **given}
    made = _on_cpus(**given, torchtitan=titan)
    training = made.torchtitan["training"]
    assert training
    training["mixed_precision_param"] = "bfloat16"
    parallelism = titan.get("parallelism", {})
    degrees = {
        name: parallelism.get(f"{name}_parallel_degree", 1)
        for name in ("tensor", "context", "pipeline", "expert")
    }
    shard = RANKS // (degrees["tensor"] * degrees["context"] * degrees["pipeline"])
    resources = replace(made.resources, device="H100 80GB", shard=shard, **degrees)
    return made.model_copy(update={"resources": resources})


if __name__ == "__main__":
    engine_jobs.train_job = train_job

import record_jobs  # noqa: E402

Roles = dict[str, Path]
Case = Callable[[Roles, Path], object]


def plain(**given: Any) -> Case:
    """A job that learns from documents."""
    objective = given.pop("objective", NextToken())
    changes = given.pop("changes", {})

    def case(inputs: Roles, folder: Path) -> None:
        made = train_job(**given).model_copy(update={"objective": objective, **changes})
        run(made, inputs, folder)

    return case


def routed(**given: Any) -> Case:
    """A job whose routers have losses."""

    def case(inputs: Roles, folder: Path) -> None:
        made = train_job(**given)
        held = [engine_jobs.lr(0, made.steps, "hold", 0.01, 0.01)]
        losses: dict[str, Any] = dict.fromkeys(ROUTER_LOSSES, held)
        changes = {"schedule": made.schedule.model_copy(update=losses)}
        run(made.model_copy(update=changes), inputs, folder)

    return case


def placed(model: Any = None, **degrees: int) -> Case:
    """A job that learns from documents, so placed."""
    parallelism = {f"{name}_parallel_degree": of for name, of in degrees.items()}
    if degrees.get("context", 1) > 1:
        parallelism |= {"context_parallel_load_balancer": "ptrr"}  # type: ignore[dict-item]
    titan = {"parallelism": parallelism, "activation_checkpoint": {"mode": "full"}}
    return plain(seq_len=256, model=model or architecture(), torchtitan=titan)


def of_records(objective: Any, without: tuple[str, ...] = (), **given: Any) -> Case:
    """A job that continues from a model and learns from records."""

    def case(inputs: Roles, folder: Path) -> None:
        roles = inputs | (trained(inputs) if RANKS == 1 else {})
        mixture = {"mixture": [(0, {"rl": 1})]} if isinstance(objective, Grpo) else {}
        made = record_jobs.record_job(objective, **{"steps": 1, "batch": 2, **mixture, **given})
        run(made, {n: path for n, path in roles.items() if n not in without}, folder)

    return case


def forward(kind: Any, source: str, work: Callable[..., None], **given: Any) -> Case:
    """A job that only reads."""

    def case(inputs: Roles, folder: Path) -> None:
        job = record_jobs.forward_job(kind, source, **given)
        roles = inputs | trained(inputs)
        work(job, roles, folder, root=folder.parent, on_event=lambda _: None)

    return case


def trained(inputs: Roles) -> Roles:
    """A model, and what others have said of the records: numbers, as a file has them."""
    return _trained(inputs["tokenizer"].parent, tuple(inputs.items()))


@cache
def _trained(folder: Path, inputs: tuple[tuple[str, Path], ...]) -> Roles:
    run(train_job(), dict(inputs), folder / "base")
    return {"model": folder / "base" / "result"}


def make_inputs(folder: Path) -> Roles:
    """Documents and records, and files of what a reference, a teacher and a judge say of these."""
    from test_policy import answer

    from etude.runtime.data.records.shards import (
        ADVANTAGES,
        LEARNED,
        LIKELIHOOD,
        REWARDS,
        Records,
        write_records,
    )

    inputs = engine_jobs.make_inputs(folder) | record_jobs.make_records(folder, count=RECORDS)
    rng = np.random.default_rng(5)
    given: dict[str, Any] = {"vocab": 512, "holdout": Fraction(0), "seed": 0}
    answers = [answer(rng) for _ in range(RECORDS)]
    write_records(answers, folder / "rl", form="rollouts", name="rl", **given)
    inputs["data:rl"] = folder / "rl"
    for name in (ADVANTAGES, REWARDS):
        np.save(folder / "rl" / name, rng.normal(size=RECORDS).astype(np.float32))
    np.save(folder / "rl" / LEARNED, (np.arange(RECORDS) % 3 > 0).astype(np.float32))
    said = {"reference": rng.normal(size=(RECORDS, 3)).astype(np.float32)}
    for number in range(RECORDS):
        count = len(Records(inputs["data:prefer"], "train").record(number).branches) - 1
        said["reference"][number, count:] = np.nan
    said[LIKELIHOOD.removesuffix(".npy")] = -np.ones(
        sum(int(each.branches[1]) for each in answers), np.float32
    )
    for name, values in said.items():
        (folder / "said").mkdir(exist_ok=True)
        np.save(folder / "said" / f"{name}.npy", values)
    places = ("reference:prefer", "reference:rated", "old:rl", "reference:rl")
    return inputs | dict.fromkeys(places, folder / "said")


RECORDS = 4


def taught(**given: Any) -> Case:
    """A teacher speaks, and a student learns from it."""

    def case(inputs: Roles, folder: Path) -> None:
        from etude.runtime.engine.measures.teaching import teach

        forward(TeacherJob, "chat", teach, top_k=8)(inputs, folder / "teacher")
        roles = inputs | {"teacher:chat": folder / "teacher" / "result"}
        of_records(Distill(temperature=1.0, top_k=8, **given))(roles, folder / "student")

    return case


def evaluated(inputs: Roles, folder: Path) -> None:
    """Losses on held-out documents during training."""
    measures = [LossMeasure(name="web", data=["web"], seq_len=32, tokens=64)]
    watched = Evaluation(every=1, times=0, measures=measures, reading=None)
    job = train_job().model_copy(update={"evaluation": watched})
    asked = {role(each, None, "data"): inputs[f"data:{each.data[0]}"] for each in measures}
    run(job, inputs | asked, folder)


def reference(*given: Any, **keywords: Any) -> None:
    from etude.runtime.engine.measures.forward import reference as work

    work(*given, **keywords)


def likelihood(*given: Any, **keywords: Any) -> None:
    from etude.runtime.engine.measures.likelihood import likelihood as work

    work(*given, **keywords)


DPO: dict[str, Any] = {"beta": 0.3, "nll": 0.2, "normalize": False, "mask": "formatting"}
KTO: dict[str, Any] = {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0}
GRPO: dict[str, Any] = {"clip_ratio": (0.1, 0.3), "max_tokens": 20}
LORA = adapters(Adapter(name="lora", rank=4, alpha=8.0), architecture())
SHAPES: dict[str, Any] = {
    "llama3": architecture(),
    "qwen3": architecture(family="qwen3", qk_norm=True, tied=True),
    "qwen3 moe": architecture(family="qwen3", qk_norm=True, experts=experts(balance=0.01)),
    "deepseek_v3": architecture(
        family="deepseek_v3",
        kv_heads=4,
        latent=latent(),
        experts=experts(shared=1, dense=1, score="sigmoid", groups=4, groups_used=2),
    ),
    "gpt_oss": architecture(
        family="gpt_oss", biased=True, sinks=True, window=16, experts=experts()
    ),
    "norms after": decoder(parts={"norms": "after", "qk_norm": "width"}),
    "parallel": decoder(
        parts={
            "norm": "layer",
            "activation": "gelu",
            "gated": False,
            "biases": "all",
            "parallel": "two",
            "rotary": 0.5,
        }
    ),
    "caps and windows": decoder(
        window=16,
        parts={
            "norms": "both",
            "attention_cap": 2.0,
            "logit_cap": 2.0,
            "scaled": True,
            "window_skips": 2,
        },
    ),
    "alibi": decoder(parts={"norm": "layer", "alibi": True, "embedding_norm": True}),
    "learned positions": decoder(parts={"norm": "layer", "biases": "all", "learned": 64}),
}
PREFERENCES: dict[str, Case] = {
    f"dpo {name}": of_records(
        Dpo.model_validate({"objective": name, "label_smoothing": 0.1 * (name == "robust"), **DPO})
    )
    for name in LOSSES
}
POLICIES: dict[str, Case] = {
    f"grpo {name}": of_records(
        Grpo(objective=name, kl=0.1, temperature=0.7, mask_truncated=True, **GRPO)  # type: ignore[arg-type]
    )
    for name in ("grpo", "dapo", "dr_grpo", "gspo", "rloo")
}
ALONE: dict[str, Case] = {
    **{f"train {name}": plain(model=shape) for name, shape in SHAPES.items()},
    "train z_loss": plain(objective=NextToken(z_loss=1e-4)),
    "train router losses": routed(model=SHAPES["deepseek_v3"]),
    "train recompute full": plain(torchtitan={"activation_checkpoint": {"mode": "full"}}),
    "train recompute selective": plain(torchtitan={"activation_checkpoint": {"mode": "selective"}}),
    "train lora": plain(torchtitan=LORA),
    "train ema": plain(average=Averaging(from_step=0, every=1, decay=0.9)),
    "train spikes": plain(changes={"spikes": Spikes(do="skip", above=10.0)}),
    "train evaluated": evaluated,
    "sft": of_records(Sft()),
    "sft dialogs": of_records(Sft(counts="dialogs")),
    "distill": taught(),
    "distill dialogs": taught(counts="dialogs", divergence="jsd"),
    "reward bradley_terry": of_records(Reward(center=0.1)),
    "reward plackett_luce": of_records(Reward(objective="plackett_luce", layout="pairs")),
    "prm": of_records(Prm()),
    "prm last": of_records(Prm(loss_on="last")),
    **PREFERENCES,
    "dpo pairs": of_records(Dpo(layout="pairs", label_smoothing=0.0, **DPO)),
    "dpo lora": of_records(Dpo(label_smoothing=0.0, **DPO), torchtitan=LORA),
    "kto": of_records(Kto(mask="none", **KTO)),
    **POLICIES,
    "grpo first": of_records(
        Grpo(objective="grpo", kl=0.0, **GRPO), without=("old:rl", "reference:rl")
    ),
    "reference": forward(ReferenceJob, "prefer", reference, mask="formatting"),
    "likelihood": forward(LikelihoodJob, "rl", likelihood),
}
# Not the exchange of experts, pipelines and Muon: those are in `test_memory_steps`, since they wait
# for numbers of other ranks, or have no form without content.
MANY: dict[str, Case] = {
    "sharded": placed(),
    "replicated": plain(
        torchtitan={
            "parallelism": {"data_parallel_replicate_degree": 2, "data_parallel_shard_degree": 1}
        }
    ),
    "tensor": placed(tensor=2),
    "context": placed(context=2),
    "tensor dpo": of_records(
        Dpo(label_smoothing=0.0, **DPO),
        torchtitan={"parallelism": {"tensor_parallel_degree": 2}},
    ),
    "tensor z_loss": plain(
        objective=NextToken(z_loss=1e-4),
        torchtitan={"parallelism": {"tensor_parallel_degree": 2}},
    ),
    "sharded router losses": routed(model=SHAPES["qwen3 moe"], batch=4),
    "tensor router losses": routed(
        model=SHAPES["qwen3 moe"], torchtitan={"parallelism": {"tensor_parallel_degree": 2}}
    ),
    "context router losses": routed(
        model=SHAPES["qwen3 moe"],
        seq_len=256,
        torchtitan={
            "parallelism": {
                "context_parallel_degree": 2,
                "context_parallel_load_balancer": "ptrr",
            }
        },
    ),
    "sharded prm": of_records(Prm(), batch=4),
    "sharded kto": of_records(Kto(mask="none", **KTO), batch=4),
}
CASES = {1: ALONE, 2: MANY}


def main() -> None:
    torch.set_num_threads(1)
    initial.ThreadPoolExecutor = InOrder  # type: ignore[assignment]
    if RANKS > 1:  # the other ranks' parts of a checkpoint do not come
        trainer.Trainer.save_result = lambda *_: None  # type: ignore[method-assign]
        checkpoint.Checkpoints.dcp_save = lambda *_, **__: None  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = make_inputs(folder)
        for case in sys.argv[2:]:
            print(json.dumps(tried(case, inputs, folder / case)), flush=True)


def tried(case: str, inputs: Roles, folder: Path) -> dict[str, Any]:
    wrong = None
    with Device() as gpu:
        try:
            CASES[RANKS][case](inputs, folder)
        except BaseException:  # as DCP's are
            wrong = traceback.format_exc()
    return {"case": case, "wrong": wrong, "waits": in_steps(gpu.waits)}


def in_steps(waits: list[list[tuple[str, str]]]) -> list[str]:
    """Of the reads in a step, our functions and torchtitan's that led to them, the last first."""
    found = set()
    for stack in waits:
        if STEP & {function for _, function in stack}:
            ours = [f"{Path(file).name} {function}" for file, function in stack if _ours(file)]
            found.add(" < ".join(ours[:-6:-1]))
    return sorted(found)


def _ours(file: str) -> bool:
    return "/torchtitan/" in file or "/runtime/engine/" in file


if __name__ == "__main__":
    main()
