"""What vLLM does with what etude tells it: its build for CPUs, in an environment of its own.

`make vllm` makes the environment (`build/vllm`) and runs this. Answers are compared with those of
transformers in fp32: vLLM computes in bf16, so each of its tokens has to be the most likely one, or
as likely up to rounding.
"""

import json
import math
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sampling_models import draw_job, policy, prompts, read_lines
from transformers import AutoModelForCausalLM, AutoTokenizer

from etude.compiler.lowering.writing import mesh
from etude.runtime.sampling.generators import Transformers

PYTHON = Path(__file__).parents[2] / "build" / "vllm" / "bin" / "python"
WORKER = Path(__file__).with_name("vllm_worker.py")
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # other ranks, and other tests, are on these cores
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
SHAPE = {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 64}
"""Widths of heads that vLLM's kernels for CPUs take."""
ROUNDING = 0.05
"""The share of the spread of a position's logits by which bf16 may be off."""
MOST = 12

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(
        not PYTHON.exists() and "ETUDE_NEEDS_VLLM" not in os.environ,
        reason="vLLM is not there: `make vllm` installs it",
    ),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policy(tmp_path_factory.mktemp("vllm") / "model", initializer_range=0.2, **SHAPE)


def told(model: Path, count: int = 8, most: int = MOST) -> dict[str, Any]:
    asked = [([1, number, number + 2], 100 + number, most) for number in range(count)]
    return {"model": str(model), "requests": asked}


def started(case: str, ranks: int = 1) -> list[subprocess.Popen[str]]:
    """The worker, or one for each rank of a gang on this machine."""
    environment = {**os.environ, **ENVIRONMENT}
    environment.pop("PYTHONPATH", None)
    made = []
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for rank in range(ranks):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        place |= {"LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        made.append(
            subprocess.Popen(
                [PYTHON, WORKER, case],
                env=environment | (place if ranks > 1 else {}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
    return made


def said(case: str, what: dict[str, Any], ranks: int = 1) -> Any:
    """What the first rank says."""
    workers = started(case, ranks)
    for worker in workers[1:]:
        assert worker.stdin
        worker.stdin.write(json.dumps(what))
        worker.stdin.close()
        worker.stdin = None
    printed, errors = workers[0].communicate(json.dumps(what), timeout=500)
    for worker in workers[1:]:
        assert worker.communicate(timeout=100)[0] == ""
    assert all(worker.returncode == 0 for worker in workers), errors[-3000:]
    ours = [line for line in errors.splitlines() if "deprecated" in line and "prompt" in line]
    assert not ours, "what etude asks for is not to be removed from vLLM"
    return json.loads(printed)  # all that is printed is JSON: vLLM's own messages go elsewhere


@pytest.fixture(scope="module")
def alone(model: Path) -> dict[str, Any]:
    pairs = [["hello", " world"], ["abc", "def"]]
    return said("alone", told(model) | {"stop": [], "pairs": pairs}) | {"pairs": pairs}


def gaps(model: Path, prompt: Sequence[int], answer: Sequence[int]) -> Iterator[float]:
    """How far each token is below the most likely one, as a share of the logits' spread."""
    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = network(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    for row, token in zip(logits, answer, strict=True):
        yield float((row.max() - row[token]) / (row.max() - row.min()))


def check_greedy(model: Path, answers: list[list[int]]) -> None:
    for (prompt, _, most), answer in zip(told(model)["requests"], answers, strict=True):
        assert len(answer) == most
        assert max(gaps(model, prompt, answer)) < ROUNDING


def test_greedy_answers_are_the_most_likely_tokens(model: Path, alone: dict[str, Any]) -> None:
    check_greedy(model, alone["greedy"])
    other = [
        gap
        for p, a in zip(told(model)["requests"], alone["drawn"], strict=True)
        for gap in gaps(model, p[0], a)
    ]
    assert np.mean([gap > ROUNDING for gap in other]) > 0.5, "what is drawn is told from it"


def test_draws_follow_their_seeds(alone: dict[str, Any]) -> None:
    assert alone["again"] == alone["drawn"] != alone["greedy"]
    assert len({tuple(answer) for answer in alone["drawn"]}) == len(alone["drawn"])


def test_an_answer_ends_with_the_token_that_stops_it(model: Path, alone: dict[str, Any]) -> None:
    """Two of their tokens stop greedy answers, wherever they come first."""
    stop = [alone["greedy"][0][3], alone["greedy"][1][5]]
    found = said("alone", told(model) | {"stop": stop, "pairs": []})
    for whole, stopped in zip(found["greedy"], found["stopped"], strict=True):
        ends = [place for place, token in enumerate(whole) if token in stop]
        assert stopped == whole[: ends[0] + 1 if ends else None]
    assert found["stopped"][0] != found["greedy"][0]


def test_the_harness_gets_the_likelihoods_of_texts(model: Path, alone: dict[str, Any]) -> None:
    from lm_eval.api.instance import Instance

    theirs = Transformers(model).in_harness(
        import_module, AutoTokenizer.from_pretrained(model), begins=False
    )
    asked = [Instance("loglikelihood", {}, tuple(pair), 0) for pair in alone["pairs"]]
    expected = [likelihood for likelihood, _ in theirs.loglikelihood(asked)]
    assert alone["harness"] == pytest.approx(expected, rel=0.05)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vllm") / "other"
    return policy(folder, seed=5, initializer_range=0.2, **SHAPE)


def check_turns(found: dict[str, Any], models: Sequence[Path], ranks: int) -> None:
    """The answers of each turn are those of its model, and of the draws' seeds."""
    first: dict[Path, Any] = {}
    for model, turn in zip(models, found["found"], strict=True):
        check_greedy(model, turn["greedy"])
        answers = {name: turn[name] for name in ("greedy", "drawn")}
        assert first.setdefault(model, answers) == answers
        assert turn["group"] == ranks
    assert len({json.dumps(answers) for answers in first.values()}) == len(first)


@pytest.mark.parametrize(
    "degrees", [(1, 1), (2, 1), (1, 2), (1, 1, 2)], ids=["alone", "tensor", "pipeline", "copies"]
)
def test_an_engine_stays_and_takes_the_weights_of_each_turn(
    degrees: tuple[int, ...], model: Path, other: Path
) -> None:
    models, ranks = [model, other, model, model], math.prod(degrees)
    what = {"models": [*map(str, models)], "mesh": degrees}
    found = said("turns", told(model) | what, ranks=ranks)
    check_turns(found, models, ranks)
    assert found["there"] == [True] * 4
    assert (
        max(turn["processor"] for turn in found["found"][1:]) < found["found"][0]["processor"] / 4
    )


def test_if_one_rank_cannot_read_new_weights_all_start_anew(model: Path, other: Path) -> None:
    what = {"models": [str(model), str(other), str(model)], "mesh": (2, 1), "broken": str(other)}
    found = said("turns", told(model) | what, ranks=2)
    check_turns(found, [model, other, model], 2)
    assert found["there"] == [False, True, True]


def test_a_model_of_another_shape_is_loaded_anew(model: Path, tmp_path: Path) -> None:
    deeper = policy(tmp_path / "deeper", initializer_range=0.2, num_hidden_layers=3, **SHAPE)
    found = said("turns", told(model) | {"models": [str(model), str(deeper)], "mesh": (1, 2)}, 2)
    check_turns(found, [model, deeper], 2)
    assert found["there"] == [False, True]


def test_two_copies_of_a_model_share_a_job(model: Path, tmp_path: Path) -> None:
    questions = prompts(tmp_path / "questions", ["What is it?", "Why?", "Who?"])
    job = draw_job(draws=3, max_tokens=8, resources=mesh("H100", replicas=2, node=2))
    what = {
        "job": job.model_dump(mode="json"),
        "roles": {"model": str(model), "prompts": str(questions)},
        "folder": str(tmp_path / "work"),
    }
    (tmp_path / "work").mkdir()
    said("replicas", what, ranks=2)
    lines = read_lines(tmp_path / "work" / "result" / "draws.jsonl")
    assert [(line["prompt"], line["draw"]) for line in lines] == [
        (prompt, draw) for prompt in range(3) for draw in range(3)
    ]
    assert len({line["seed"] for line in lines}) == 9


def test_what_vllm_cannot_compute_is_a_message(tmp_path: Path) -> None:
    found = said("fails", told(policy(tmp_path / "narrow"), count=1))
    assert found[0].startswith(f"vLLM failed while it wrote answers with {tmp_path / 'narrow'}: ")
    assert "run again" in found[1]


def processes(session: int) -> list[str]:
    """The commands of a session's processes."""
    listed = subprocess.run(
        ["ps", "-s", str(session), "-o", "stat=,args="], capture_output=True, text=True
    )
    return [line for line in listed.stdout.splitlines() if not line.startswith("Z")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_of_vllm_outlives_a_run(number: int, model: Path) -> None:
    """Neither a kill of the run's own process, nor a signal to all, as of a terminal or Slurm."""
    (worker,) = started("waits")
    assert worker.stdin
    assert worker.stdout
    worker.stdin.write(json.dumps(told(model, count=64, most=300)))
    worker.stdin.close()
    worker.stdin = None
    process = json.loads(worker.stdout.readline())
    time.sleep(2)
    if number == signal.SIGKILL:
        os.kill(process, number)
    else:
        os.killpg(process, number)
    printed, errors = worker.communicate(timeout=100)
    if number != signal.SIGKILL:
        assert worker.returncode == 0, errors[-3000:]
        assert json.loads(printed)[0] == "Interrupted"
    end = time.monotonic() + 20
    while processes(process) and time.monotonic() < end:
        time.sleep(0.2)
    assert not processes(process)
