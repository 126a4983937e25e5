"""Which calls vLLM gets, against a stand-in for its module.

The signatures are those that vLLM 0.21 documents (docs.vllm.ai: `vllm.LLM`, `EngineArgs`,
`SamplingParams`, `LLMEngine`, `RequestOutput`). What vLLM does with them is in
`test_vllm_itself.py`.
"""

import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sampling_models import CONTEXT, policy

from etude.compiler.lowering.writing import mesh
from etude.runtime import held, stopping
from etude.runtime.errors import Interrupted, RunError
from etude.runtime.peers import Single
from etude.runtime.sampling import generators, kept, vllm_engine
from etude.runtime.sampling.drawing import Request, Settings, all_of
from etude.runtime.sampling.vllm_engine import Vllm

STOP = 9


@dataclass
class SamplingParams:
    """The parameters that etude sets, as vLLM names them."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    detokenize: bool = True


@dataclass
class Engine:
    """vLLM's engine: each step draws a token of some requests, the last asked first."""

    model_config: Any
    engine_core: Any = None
    asked: dict[str, Any] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    most: int = 0

    def add_request(self, request_id: str, prompt: Any, params: SamplingParams) -> None:
        assert request_id not in self.asked
        assert set(prompt) == {"type", "prompt_token_ids"}
        assert all(isinstance(token, int) for token in prompt["prompt_token_ids"])
        self.asked[request_id] = prompt["prompt_token_ids"], params
        self.waiting.append(request_id)
        self.most = max(self.most, len(self.waiting))

    def step(self) -> list[Any]:
        name = self.waiting.pop()
        last = self.asked[name][0][-1]
        ends = [
            ((last, STOP), "stop", STOP),
            ([last], "stop", STOP),
            ([last, last], "length", None),
        ][last % 3]
        tokens, reason, stopped = ends
        drawn = SimpleNamespace(token_ids=tokens, finish_reason=reason, stop_reason=stopped)
        ready = SimpleNamespace(request_id=name, finished=True, outputs=[drawn])
        return [SimpleNamespace(request_id="?", finished=False, outputs=[]), ready]


class LLM:
    """The arguments that etude gives, as vLLM names them."""

    made: ClassVar[list[Any]] = []

    def __init__(
        self,
        model: str,
        *,
        dtype: str,
        tensor_parallel_size: int,
        pipeline_parallel_size: int,
        gpu_memory_utilization: float,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        seed: int,
        disable_log_stats: bool,
        enable_sleep_mode: bool,
        max_model_len: int | None = None,
        distributed_executor_backend: str | None = None,
    ) -> None:
        if "too_large" in model:
            raise ValueError("No available memory\n for the cache blocks")
        self.told = dict(vars(), self=None)
        self.asleep: set[str] = set()
        self.does: list[str] = []
        self.ended = False
        self.llm_engine = Engine(SimpleNamespace(max_model_len=max_model_len or CONTEXT))
        self.llm_engine.engine_core = SimpleNamespace(shutdown=self.shutdown)
        LLM.made.append(self)

    def shutdown(self) -> None:
        self.ended = True

    def sleep(self, level: int = 1) -> None:
        self.does.append(f"sleep {level}")
        self.asleep = {"weights", "kv_cache"}

    def wake_up(self, tags: list[str]) -> bool:
        self.does.append(f"wake {tags}")
        self.asleep -= {*tags}
        return not self.asleep

    def collective_rpc(self, method: str, kwargs: dict[str, str]) -> None:
        if "damaged" in kwargs["weights_path"]:
            raise OSError("a file\nends early")
        self.does.append(f"{method} {kwargs['weights_path']}")


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    module: Any = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    platforms: Any = ModuleType("vllm.platforms")
    platforms.current_platform = SimpleNamespace(is_sleep_mode_available=lambda: True)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    monkeypatch.setattr(generators, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in vllm_engine.ENVIRONMENT:
        monkeypatch.setenv(name, "else")
    monkeypatch.setattr(LLM, "made", [])
    monkeypatch.setattr(kept, "_kept", [])
    monkeypatch.setattr(held, "_held", set())
    # Ranks that are not there cannot meet.
    monkeypatch.setattr(generators, "_all_write", lambda mesh: True)
    monkeypatch.setattr(kept, "make", lambda peers, ranks: MET.append(ranks))
    MET.clear()
    return LLM


MET: list[int] = []
"""How many ranks have met, each time."""


class Meeting(Single):
    """A rank of several, of which another may say no."""

    def __init__(self) -> None:
        self.others = True

    def all_say(self, yes: bool) -> bool:
        return yes and self.others


def models(root: Path, *names: str, config: str = "{}") -> list[Path]:
    """Folders of models of one shape."""
    for name in names:
        (root / name).mkdir()
        (root / name / "config.json").write_text(config)
    return [root / name for name in names]


def requests(count: int) -> list[Request]:
    return [Request(np.array([1, number], np.int32), 100 + number, 7) for number in range(count)]


def test_one_gpu_needs_no_launcher(vllm: type[LLM], tmp_path: Path) -> None:
    made = generators.generator(tmp_path, mesh("H100", 1, 1), 4096)
    (engine,) = vllm.made
    assert isinstance(made, Vllm)
    assert made.context == 4096
    told = {name: value for name, value in engine.told.items() if value is not None}
    assert told == {
        "model": str(tmp_path),
        "dtype": "bfloat16",
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "gpu_memory_utilization": 0.9,
        "max_num_seqs": 256,
        "max_num_batched_tokens": 8192,
        "seed": 0,
        "disable_log_stats": True,
        "enable_sleep_mode": True,
        "max_model_len": 4096,
    }
    # An engine in a process of its own would outlive a killed run.
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert os.environ["VLLM_LOGGING_STREAM"] == "ext://sys.stderr"
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"


def test_several_gpus_are_ranks_that_somebody_else_has_started(
    vllm: type[LLM], tmp_path: Path
) -> None:
    generators.generator(tmp_path, mesh("H100", 8, 2), None, Meeting())
    (engine,) = vllm.made
    assert engine.told["tensor_parallel_size"] == 8
    assert engine.told["pipeline_parallel_size"] == 2
    assert engine.told["distributed_executor_backend"] == "external_launcher"
    assert engine.told["max_model_len"] is None
    # In a process of its own, each rank's engine would be apart from its worker.
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def test_each_of_several_models_on_one_gpu_is_a_rank_of_its_own(
    vllm: type[LLM], tmp_path: Path
) -> None:
    """vLLM takes the GPU of LOCAL_RANK where somebody else has started it, and else the first."""
    generators.generator(tmp_path, mesh("H100", replicas=16, node=8), None, Meeting())
    (engine,) = vllm.made
    assert engine.told["tensor_parallel_size"] == engine.told["pipeline_parallel_size"] == 1
    assert engine.told["distributed_executor_backend"] == "external_launcher"


def test_requests_go_in_one_stream_with_their_own_seeds(
    vllm: type[LLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine, "AHEAD", 5)
    made = generators.generator(tmp_path)
    found = all_of(made, requests(12), Settings(0.7, 0.9, frozenset([STOP, 3])))
    engine = vllm.made[0].llm_engine
    assert engine.most == 5
    assert not engine.waiting
    assert found[:3] == [[0, STOP], [1, STOP], [2, 2]]
    assert found == [[[n, STOP], [n, STOP], [n, n]][n % 3] for n in range(12)]
    tokens, sent = engine.asked["4"]
    assert tokens == [1, 4]
    assert sent == SamplingParams(
        temperature=0.7,
        top_p=0.9,
        seed=104,
        max_tokens=7,
        stop_token_ids=[3, STOP],
        ignore_eos=True,
        skip_special_tokens=False,
        detokenize=False,
    )


def test_an_engine_stays_for_jobs_with_the_same_weights(vllm: type[LLM], tmp_path: Path) -> None:
    of, peers = mesh("H100", 2), Meeting()
    first = generators.generator(tmp_path / "a", of, 4096, peers)
    settings = Settings(1.0, 1.0, frozenset([STOP]))
    drawn = all_of(first, requests(3), settings)
    assert generators.generator(tmp_path / "a", mesh("H100", 2), 4096, peers) is first
    assert all_of(first, requests(3), settings) == drawn
    assert list(vllm.made[0].llm_engine.asked) == ["0", "1", "2", "3", "4", "5"]
    assert generators.generator(tmp_path / "a", of, 512, peers) is not first
    assert MET == [2, 2]


def test_an_engine_takes_the_weights_of_the_next_turn(vllm: type[LLM], tmp_path: Path) -> None:
    """It sleeps while the policy learns; weights come before the memory of the cache."""
    (first,) = models(tmp_path, "a", config='{"layers": 2, "eos_token_id": 1}')
    (second,) = models(tmp_path, "b", config='{"layers": 2, "eos_token_id": [1, 2]}')
    made = generators.generator(first, mesh("H100", 2), 4096, Meeting())
    (engine,) = vllm.made
    assert not engine.does
    held.make_room()
    held.make_room()
    assert engine.does == ["sleep 2"]
    assert generators.generator(second, mesh("H100", 2), 4096, Meeting()) is made
    renewed = ["wake ['weights']", f"reload_weights {second}", "wake ['kv_cache']"]
    assert engine.does == ["sleep 2", *renewed]
    assert isinstance(made, Vllm)
    assert (made.model, made.asleep) == (second, False)
    # Without training in between it still forgets what it has cached of prompts.
    generators.generator(first, mesh("H100", 2), 4096, Meeting())
    assert engine.does[4:6] == ["sleep 2", "wake ['weights']"]


def test_a_model_of_another_shape_gets_another_engine(vllm: type[LLM], tmp_path: Path) -> None:
    (first,) = models(tmp_path, "a")
    (second,) = models(tmp_path, "b", config='{"num_hidden_layers": 3}')
    made = generators.generator(first, mesh("H100", 2), 4096, Meeting())
    assert generators.generator(second, mesh("H100", 2), 4096, Meeting()) is not made
    assert [engine.ended for engine in vllm.made] == [True, False]


@pytest.mark.parametrize("who", ["this rank", "another"])
def test_an_engine_that_cannot_take_weights_starts_anew_on_all_ranks(
    who: str, vllm: type[LLM], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    peers = Meeting()
    first, second = models(tmp_path, "a", "damaged" if who == "this rank" else "b")
    made = generators.generator(first, mesh("H100", 2), 4096, peers)
    held.make_room()
    peers.others = who == "this rank"
    assert generators.generator(second, mesh("H100", 2), 4096, peers) is not made
    assert len(vllm.made) == len(MET) == 2
    said = "vLLM cannot take new weights: OSError: a file ends early; vLLM starts anew"
    assert (said in caplog.text) == (who == "this rank")


def test_an_engine_that_cannot_sleep_ends(
    vllm: type[LLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranks that train need a process group, which vLLM has ended with itself."""

    def fails(self: LLM, level: int) -> None:
        raise AssertionError("Memory usage increased after sleeping.")

    monkeypatch.setattr(vllm, "sleep", fails)
    (first,) = models(tmp_path, "a")
    generators.generator(first, mesh("H100", 2), 4096, Meeting())
    held.make_room()
    assert vllm.made[0].ended
    assert MET == [2, 2]


def test_an_engine_makes_room_for_other_processes(vllm: type[LLM], tmp_path: Path) -> None:
    generators.generator(tmp_path)
    held.let_go()
    assert vllm.made[0].ended


def test_one_rank_of_several_writes_without_vllm(
    vllm: type[LLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The groups of an engine are made by all ranks of a process group, which would not come."""
    monkeypatch.undo()
    monkeypatch.setattr(generators, "with_vllm", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    made = generators.generator(policy(tmp_path / "model"), mesh("H100"))
    assert isinstance(made, generators.Transformers)


def test_greedy_drawing_has_no_nucleus(vllm: type[LLM], tmp_path: Path) -> None:
    made = generators.generator(tmp_path)
    all_of(made, requests(1), Settings(0.0, 0.9, frozenset([STOP])))
    sent = vllm.made[0].llm_engine.asked["0"][1]
    assert (sent.temperature, sent.top_p) == (0.0, 1.0)


def test_what_vllm_refuses_is_said(vllm: type[LLM], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"does not load .*: No available memory for the cache"):
        generators.generator(tmp_path / "too_large")


@pytest.fixture
def broken(vllm: type[LLM], monkeypatch: pytest.MonkeyPatch) -> None:
    def step(_: Engine) -> list[Any]:
        raise ZeroDivisionError("the engine\nis dead")

    monkeypatch.setattr(Engine, "step", step)


@pytest.mark.usefixtures("broken")
def test_an_engine_that_ends_while_it_draws_is_a_message(tmp_path: Path) -> None:
    made = generators.generator(tmp_path)
    with pytest.raises(RunError, match=r"failed while it wrote .*: the engine is dead") as problem:
        all_of(made, requests(1), Settings(1.0, 1.0, frozenset([STOP])))
    assert "run again" in problem.value.help


@pytest.mark.usefixtures("broken")
def test_an_engine_that_was_asked_to_stop_too_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = generators.generator(tmp_path)
    monkeypatch.setattr(stopping._flag, "asked", signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        all_of(made, requests(1), Settings(1.0, 1.0, frozenset([STOP])))


def test_several_gpus_without_vllm_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generators, "find_spec", lambda name: None)
    with pytest.raises(RunError, match="needs 16 GPUs, over which vLLM spreads it") as problem:
        generators.generator(tmp_path, mesh("H100", 8, 2), None)
    assert "pip install vllm" in problem.value.help


def test_several_models_on_one_gpu_each_need_no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generators, "find_spec", lambda name: None)
    generators.require_vllm(mesh("H100", replicas=16, node=8))


def test_the_harness_gets_the_engine_that_is_there(vllm: type[LLM], tmp_path: Path) -> None:
    """lm-evaluation-harness's own model of vLLM, whose arguments are those of its version here."""
    made = generators.generator(tmp_path, mesh("H100", 2, 1), 4096, Meeting())

    class Harness:
        def __init__(
            self, pretrained: str, add_bos_token: bool, batch_size: str, max_model_len: int
        ) -> None:
            self.model = models.LLM(model=pretrained, max_model_len=max_model_len)
            self.told = (add_bos_token, batch_size, max_model_len)
            self.tokenizer = "its own"

    models: Any = SimpleNamespace(LLM=LLM, VLLM=Harness)
    loaded = made.in_harness(lambda name: {NAME: models}[name], "ours", begins=True)
    assert loaded.model is vllm.made[0]
    assert len(vllm.made) == 1
    assert models.LLM is LLM
    assert (loaded.told, loaded.tokenizer) == ((True, "auto", 4096), "ours")


NAME = "lm_eval.models.vllm_causallms"


def test_the_harness_knows_these_arguments() -> None:
    """Its module imports vLLM, so its text is read."""
    lm_eval = pytest.importorskip("lm_eval")
    path = Path(lm_eval.__file__).parent / "models" / "vllm_causallms.py"
    text = path.read_text()
    for name in ("pretrained: str", "add_bos_token:", "batch_size:", "max_model_len:"):
        assert name in text
    assert "self.model = LLM(**self.model_args)" in text
    assert "self.tokenizer:" in text


def test_needles_go_in_one_stream(tmp_path: Path) -> None:
    """Every cell of the grid at once, and the score is the share of right ones."""
    from transformers import AutoTokenizer

    from etude.compiler.plan.measures import NeedleMeasure
    from etude.runtime.evaluation.needle import needle

    tokenizer: Any = AutoTokenizer.from_pretrained(policy(tmp_path / "model"))
    asked: list[int] = []

    class Knows:
        """Answers right where the haystack is short."""

        context = 4096

        def draw(self, requests: list[Request], settings: Settings) -> Any:
            asked.append(len(requests))
            assert settings.temperature == 0
            for number, request in reversed(list(enumerate(requests))):
                text = tokenizer.decode(request.tokens)
                place = text.index("The password is ") + len("The password is ")
                answer = " " + text[place:].partition(".")[0] + "."
                right = len(request.tokens) < 256
                yield number, tokenizer.encode(answer if right else " no", add_special_tokens=False)

    measure = NeedleMeasure(name="needle", lengths=[200, 400], depths=2, samples=3, seed=1)
    generator: Any = Knows()
    found = needle(measure, generator, tokenizer)
    assert asked == [12]
    assert found == {
        "score": 0.5,
        "grid": {"200": {"0%": 1.0, "100%": 1.0}, "400": {"0%": 0.0, "100%": 0.0}},
    }
