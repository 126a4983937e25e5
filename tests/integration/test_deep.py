"""`--deep` and `--emit torchtitan`: what torchtitan says of plans, and what it is given."""

import ast
import dataclasses
import inspect
import json
import random
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
from drawn_parts import drawn, names
from specs import HEAD, POST_TRAINING, check, jobs, only, plan, stage
from test_emitted_families import SHAPES

from etude.cli.main import main
from etude.compiler.driver import analyse, compile
from etude.compiler.families import FAMILIES
from etude.compiler.families.architectures import complete
from etude.compiler.pipelines import fullest, layers_of_stage
from etude.compiler.plan.plan import Schedule, TrainJob
from etude.compiler.values import Resources
from etude.runtime import rehearsal
from etude.runtime.emission.emit import emit, emit_each, function
from etude.runtime.errors import RunError
from etude.runtime.rehearsal import Built, Configuration, build, configurations

CLUSTER = 'cluster big {{ nodes = {nodes}, gpus = {gpus} of "H100 80GB" }}\n'
MODEL = "layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300"


class Case:
    """A random model, mesh and batch, as a spec and as what torchtitan is asked."""

    def __init__(self, seed: int, family: str = "llama3") -> None:
        draw = random.Random(seed)
        self.heads = draw.choice([2, 4, 6, 8])
        self.kv_heads = draw.choice([d for d in (1, 2, 3, 4, 6, 8) if self.heads % d == 0])
        self.tied = draw.random() < 0.2
        self.model = {
            "layers": draw.randint(1, 6),
            "dim": self.heads * 16,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "ffn": draw.choice([96, 100, 128, 130]),
            "vocab": draw.choice([256, 300, 301]),
        }
        self.world = draw.choice([4, 6, 7, 8, 12, 16, 24])
        self.degrees = {
            name: degree
            for name, of in (
                ("tensor", (1, 1, 2, 2, 3, 4)),
                ("context", (1, 1, 1, 2, 4)),
                ("pipeline", (1, 1, 1, 2, 3, 4)),
                ("replicate", (1, 1, 2)),
            )
            if (degree := draw.choice(of)) > 1
        }
        self.seq_len = draw.choice([128, 256, 512, 520, 1024, 1100, 1536])
        self.batch = draw.choice([6, 8, 12, 16, 24, 48])
        self.micro = draw.choice([1, 1, 2, 3])
        self.recompute = draw.choice(["none", "selective", "full"])
        if (pipeline := self.degrees.get("pipeline", 1)) > 1 and draw.random() < 0.4:
            self.degrees["interleave"] = draw.choice([2, 2, 3])
            self.micro = draw.choice([1, 2, pipeline, 2 * pipeline + 1])
        self.family = family
        self.groups: dict[str, dict[str, Any]] = {}
        if family == "llama3":
            return
        if family == "decoder":
            self.parts(draw)
            return
        if family == "gpt_oss":
            self.model["window"] = draw.choice([0, 32])
        latent = FAMILIES[family].latent
        if latent:
            self.kv_heads = self.model["kv_heads"] = self.heads
            self.groups["latent"] = {
                "queries": draw.choice([0, 24]),
                "keys": 32,
                "plain": 16,
                "rotary": 8,
                "values": 16,
            }
        if family != "qwen3" or draw.random() < 0.7:
            self.experts(draw, shared=draw.choice([1, 2]) if latent else 0)
            if family == "gpt_oss":
                del self.model["ffn"]
        if family == "deepseek_v3" and draw.random() < 0.4:
            self.model["mtp"] = 1

    def parts(self, draw: random.Random) -> None:
        self.model["window"] = draw.choice([0, 32])
        window, seq_len = self.model["window"], self.seq_len
        of = drawn(draw, window=window, seq_len=seq_len)
        if draw.random() < 0.4:
            of |= {"activation": "silu", "gated": True, "biases": draw.choice(["none", "qkv"])}
            self.experts(draw, shared=draw.choice([0, 1]))
            if self.groups["experts"]["shared"]:
                self.groups["experts"]["shared_gate"] = True
        self.groups["parts"] = of

    def experts(self, draw: random.Random, *, shared: int) -> None:
        self.groups["experts"] = {
            "count": draw.choice([4, 6, 8]),
            "active": 2,
            "ffn": draw.choice([32, 36]),
            "shared": shared,
            "dense": 0 if self.family == "gpt_oss" else draw.choice([0, 1]),
        }
        if (degree := draw.choice((1, 1, 2, 4))) > 1:
            self.degrees["expert"] = degree

    def spec(self) -> str:
        shape = ", ".join(
            f"{name} = {value}" for name, value in ({"family": self.family} | self.model).items()
        )
        for name, group in self.groups.items():
            values = ", ".join(f"{each} = {str(value).lower()}" for each, value in group.items())
            shape += f", {name} = {{ {values} }}"
        head = HEAD.replace(MODEL, shape + (", tied = true" if self.tied else ""))
        assert MODEL not in head
        placed = ", ".join(
            f"{n} {d}" for n, d in (self.degrees | {"micro_batch": self.micro}).items()
        )
        return (
            head
            + CLUSTER.format(nodes=1, gpus=self.world)
            + stage(
                seq_len=str(self.seq_len),
                batch=f"{self.batch} seqs",
                recompute=self.recompute,
                export="none",
                parallel=f"{{ {placed} }}",
            )
        )

    def asked(self, like: TrainJob) -> Configuration:
        """The configuration as it stands, whether checking would take it or not."""
        tensor, context, pipeline, replicate = (
            self.degrees.get(name, 1) for name in ("tensor", "context", "pipeline", "replicate")
        )
        expert, interleave = (self.degrees.get(name, 1) for name in ("expert", "interleave"))
        layers = -(-(self.model["layers"] + 2) // (pipeline * interleave))
        shard = max(self.world // (tensor * context * pipeline * replicate), 1)
        shape: dict[str, Any] = {"rope_theta": 10_000.0, "tied": self.tied, "head_dim": 16}
        shape |= self.model | self.groups
        if "latent" in shape:
            shape["head_dim"] = 24
        model = complete(self.family, None, shape).knowing(self.seq_len)
        sections = {
            **like.torchtitan,
            "training": {
                **like.torchtitan["training"],
                "local_batch_size": self.micro,
                "seq_len": self.seq_len,
            },
            "parallelism": {
                "data_parallel_replicate_degree": replicate,
                "data_parallel_shard_degree": shard,
                "tensor_parallel_degree": tensor,
                "context_parallel_degree": context,
                "pipeline_parallel_degree": pipeline,
                "expert_parallel_degree": expert,
                "pipeline_parallel_schedule": "Interleaved1F1B"
                if interleave > 1
                else "GPipe"
                if pipeline > self.micro
                else "1F1B",
                "pipeline_parallel_layers_per_stage": layers if interleave > 1 else None,
            },
            "activation_checkpoint": None if self.recompute == "none" else {"mode": self.recompute},
        }
        resources = Resources(
            world_size=self.world,
            device="H100 80GB",
            replicate=replicate,
            shard=shard,
            tensor=tensor,
            context=context,
            pipeline=pipeline,
            interleave=interleave,
            expert=expert,
        )
        job = like.model_copy(
            update={
                "model": model,
                "seq_len": self.seq_len,
                "resources": resources,
                "torchtitan": sections,
                **({"schedule": weighed(like.schedule)} if model.mtp else {}),
            }
        )
        return Configuration(job, ("first.1",), self.batch)


def weighed(schedule: Schedule) -> Schedule:
    """The schedule with a loss of further tokens."""
    return schedule.model_copy(update={"mtp_loss": schedule.lr})


def can_interleave(case: Case) -> bool:
    """Whether the stages asked for exist; where not, torchtitan makes others without a word."""
    pipeline, interleave = (case.degrees.get(name, 1) for name in ("pipeline", "interleave"))
    layers = case.model["layers"]
    if interleave == 1 or fullest(layers, pipeline, interleave) is not None:
        return True
    assert any(found.severity == "error" for found in check(case.spec()))
    return False


LIKE = only(jobs(plan(HEAD + CLUSTER.format(nodes=1, gpus=8) + stage(batch="8 seqs"))))


def compare(cases: list[Case], results: list[Built]) -> list[str]:
    """Where checking and torchtitan disagree, in words; both verdicts have to occur."""
    found, verdicts = [], set()
    for case, built in zip(cases, results, strict=True):
        errors = [d.code for d in check(case.spec()) if d.severity == "error"]
        refused = bool(built.rejected or built.differences)
        # Torchtitan builds pipeline stages without layers; checking refuses what only waits.
        if errors == ["E433"] and case.degrees.get("pipeline", 1) > case.model["layers"]:
            continue
        verdicts.add(refused)
        if bool(errors) != refused:
            found.append(f"{vars(case)}: {errors}, {built.rejected}, {built.differences}")
    assert verdicts == {True, False}
    return found


def test_checking_and_torchtitan_agree() -> None:
    cases = [Case(seed) for seed in range(10)]
    cases += [Case(s, family) for s in range(5) for family in FAMILIES if family != "llama3"]
    cases = [case for case in cases if can_interleave(case)]
    small = HEAD + CLUSTER.format(nodes=1, gpus=8)
    placed = stage(batch="8 seqs", parallel="{ context 2 }", seq_len="512")
    good = configurations(plan(small + placed))[0]
    long = good._replace(job=good.job.model_copy(update={"seq_len": 516}))
    wanted = [case.asked(LIKE) for case in cases]
    results = build([*wanted, good, long, good._replace(sequences=3)])
    assert compare(cases, results[:-3]) == []
    assert results[-3].rejected is None
    assert results[-3].differences == []
    assert "Q_LEN 516 is not divisible" in (results[-2].rejected or "")
    assert "global batch size must be multiple" in (results[-1].rejected or "")


def test_every_part_is_drawn() -> None:
    given = [Case(seed, "decoder").groups["parts"] for seed in range(200)]
    assert {name for of in given for name, value in of.items() if value} == names()


@pytest.mark.exhaustive
def test_checking_and_torchtitan_agree_on_hundreds() -> None:
    cases = [Case(seed) for seed in range(10, 410)]
    cases += [Case(s, family) for s in range(200) for family in FAMILIES if family != "llama3"]
    cases = [case for case in cases if can_interleave(case)]
    assert compare(cases, build(case.asked(LIKE) for case in cases)) == []


def test_fields_for_gpus_are_built_on_a_machine_without_any() -> None:
    fields = (
        "{ training = { enable_cpu_offload = true }, parallelism = { enable_fsdp_symm_mem = true }"
        ", compile = { enable_async_tensor_parallel = true } }"
    )
    placed = stage(batch="8 seqs", parallel="{ tensor 2 }", torchtitan=fields)
    made = plan(HEAD + CLUSTER.format(nodes=1, gpus=8) + placed)
    assert jobs(made)[0].torchtitan["parallelism"]["enable_fsdp_symm_mem"] is True
    (built,) = build(configurations(made))
    assert (built.rejected, built.differences) == (None, [])


@pytest.mark.parametrize(
    ("reason", "place"),
    [
        ("Training sequence length (32) must be divisible by 64. And more.", "seq_len"),
        ("global batch size must be multiple of local batch size", "batch"),
        ("tensor_parallel_degree (3) must divide n_heads (4).", "parallel"),
        ("something else", "stage"),
    ],
)
def test_what_torchtitan_refuses_is_shown_where_the_spec_sets_it(
    reason: str,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = HEAD + CLUSTER.format(nodes=1, gpus=8)
    spec += stage(batch="8 seqs", parallel="{ tensor 2 }", seq_len="32")
    (tmp_path / "spec.etude").write_text(spec)
    line = next(n for n, text in enumerate(spec.splitlines(), 1) if text.strip().startswith(place))

    def refusing(wanted: list[Configuration], on_built: Any) -> list[Built]:
        found = [Built(wanted[0], reason, [], {}, 0.1)]
        on_built(found[0])
        return found

    monkeypatch.setattr(rehearsal, "build", refusing)
    assert main(["plan", str(tmp_path / "spec.etude"), "--deep", "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    (found,) = shown["diagnostics"]
    assert (found["code"], found["place"]["line"]) == ("E491", line)
    assert reason.split(".")[0] in found["message"]
    assert "And more" not in found["message"]
    assert shown["configurations"][0]["rejected"] == reason


@pytest.mark.exhaustive
def test_the_whole_405b_recipe_is_taken_at_its_true_size() -> None:
    from etude.spec.load import read

    made = compile(analyse(read(Path(__file__).parents[2] / "examples/llama3_405b.etude")))
    assert made
    for built in build(configurations(made.plan)):
        assert (built.rejected, built.differences) == (None, [])
        assert len(built.ranks) == 2


def test_the_layers_of_pipeline_stages_are_those_of_torchtitan() -> None:
    from torchtitan.distributed.pipeline_parallel import _generate_llm_fqn_per_model_part as split

    for layers in range(1, 20):
        for pipeline in range(2, layers + 1):
            theirs = [sum("layers." in n for n in part) for part in split(pipeline, layers)]
            assert theirs == [layers_of_stage(layers, pipeline, s) for s in range(pipeline)]


def test_a_builder_that_dies_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = configurations(plan(HEAD + stage()))
    for program, words in (
        ("raise ModuleNotFoundError(\"No module named 'torchtitan'\")", "No module named"),
        ("import os; os.kill(os.getpid(), 9)", "killed, probably because it ran out of memory"),
        ("raise SystemExit(3)", "exit code 3"),
    ):
        start = subprocess.Popen

        def instead(command: list[str], program: str = program, start: Any = start, **kw: Any):
            return start([command[0], "-c", program], **kw)

        monkeypatch.setattr(rehearsal.subprocess, "Popen", instead)
        with pytest.raises(RunError, match=words):
            build(wanted)
        monkeypatch.undo()


EMITTED = (
    HEAD
    + CLUSTER.format(nodes=1, gpus=8)
    + stage(
        batch="8 seqs for 50 steps then 16 seqs",
        lr="0 -> 1e-3 for 10 steps then -> 1e-5",
        seq_len="256 for 60 steps then 512",
        parallel="{ tensor 2, pipeline 2, micro_batch 2 }",
        recompute="selective",
    )
    + "stage second: train { from = first, steps = 10, recompute = full, "
    "checkpoint every 7 steps }\n"
)


@pytest.mark.parametrize("shape", ["llama3 yarn", "qwen3 experts", "gpt_oss"])
@pytest.mark.parametrize(
    "placed",
    ["{ tensor 2 }", pytest.param("{ replicate 2 }", marks=pytest.mark.exhaustive), "{ expert 2 }"],
)
def test_jobs_that_learn_from_preferences_are_built_and_counted(shape: str, placed: str) -> None:
    if "expert" in placed and shape == "llama3 yarn":
        return
    rest = POST_TRAINING.removeprefix(HEAD).replace("4 pairs", "8 pairs")
    rest = rest.replace(
        "steps = 100, seq_len = 16, batch = 4 seqs",
        f"steps = 100, seq_len = 32, batch = 8 seqs, parallel = {placed}",
    )
    head = HEAD.replace(MODEL, SHAPES[shape]) + CLUSTER.format(nodes=1, gpus=4)
    found = {}
    for built in build(configurations(plan(head + rest))):
        assert (built.rejected, built.differences) == (None, [])
        found[built.configuration.job.objective.name] = built.ranks[0][1]
    assert found["dpo"] == found["next_token"] != found["reward"]


def test_what_is_emitted_builds_what_etude_gives_torchtitan(tmp_path: Path) -> None:
    from torchtitan.components.dataloader import BaseDataLoader

    from etude.runtime.engine.config import trainer_config

    made = plan(EMITTED)
    text = emit(made)
    assert text == emit(plan(EMITTED))
    (tmp_path / "all.py").write_text(text)
    module = runpy.run_path(str(tmp_path / "all.py"))
    each = emit_each(made)
    train_jobs = [job for job in made.jobs if isinstance(job, TrainJob)]
    assert sorted(each) == sorted(f"{function(job)}.py" for job in train_jobs)
    assert len(train_jobs) == 3
    for job in train_jobs:
        theirs = module[function(job)]()
        loader: Any = BaseDataLoader.Config()
        ours: Any = trainer_config(
            job, tmp_path, dataloader=loader, start=None, on_event=lambda _: None
        )
        assert theirs.model_spec.model.to_dict() == ours.model_spec.model.to_dict()
        assert theirs.model_spec.parallelize_fn is inspect.unwrap(ours.model_spec.parallelize_fn)
        for section in ("parallelism", "compile", "debug", "comm", "activation_checkpoint", "loss"):
            assert getattr(theirs, section) == getattr(ours, section), section
        batch = job.schedule.batch[-1].sequences
        steps = job.sequences // batch
        assert theirs.training == dataclasses.replace(
            ours.training, global_batch_size=batch, steps=steps
        )
        assert theirs.optimizer.param_groups == ours.optimizer.param_groups
        assert theirs.optimizer.implementation == ours.optimizer.implementation
        # Twenty minutes are longer than the first stage takes.
        assert theirs.checkpoint.interval == (7 if job.stage == "second" else job.steps)
        (tmp_path / "one.py").write_text(each[f"{function(job)}.py"])
        alone = runpy.run_path(str(tmp_path / "one.py"))[function(job)]()
        assert alone.training == theirs.training
    assert "0 to 50: 8 sequences" in text
    assert 'initial_load_path=str(OUTPUTS / "first_1/checkpoint/step-35")' in text
    # The first 10 steps have 80 sequences, 5 batches of 16; all of its 60 steps have 35.
    assert module["first_1"]().lr_scheduler.warmup_steps == 5


def test_jobs_that_torchtitan_cannot_do_are_left_out_with_a_reason() -> None:
    text = emit(plan(POST_TRAINING))
    assert "no loss for the objective dpo" in text
    assert "no loss for the objective reward" in text
    ast.parse(text)
