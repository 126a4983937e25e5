"""Rounds with people in them: the run stops for labels, and continues when they are there."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from all_kinds import write
from etude_cli import etude, kill_when
from stopping import signalled

from etude.compiler.plan.plan import Plan
from etude.runtime.run_folder.store import Store

MODEL = """
recipe small { seed = 5 }
model tiny { layers = 2, dim = 32, heads = 4, kv_heads = 2, ffn = 64 }
tokenizer words { train = { on [corpus], vocab 280 } }
dataset corpus { sample = arithmetic, documents = 200, holdout = 5% }
dataset human  { files = "dialogs.jsonl", kind = dialogs }
dataset asked  { files = "prompts.jsonl", kind = prompts }
stage pretrain: train {
  model = tiny, data = corpus, steps = 6, seq_len = 64, batch = 4 seqs, lr = 3e-3
}
# Until it answers with one word and ends its turn.
stage start: sft { data = human, steps = 60, batch = 8 seqs, lr = 3e-3 }
"""
LABELLED = (
    MODEL
    + """
dataset prefer {
  files = "labels/round{round}.jsonl", kind = preferences, holdout = 0%
  awaited, candidates = drafts
}
rounds align 2 {
  stage drafts: sample {
    from = previous.sft or start, prompts = asked[round], draws = 3, max_tokens = 24
  }
  stage rm: reward {
    from = start, data = prefer[1..round], steps = 2, batch = 2 pairs, lr = 1e-3
  }
  stage best: sample {
    from = previous.sft or start, prompts = asked[round], draws = 3, judge = rm
    max_tokens = 24, temperature = 0.8, keep = all
  }
  stage sft: sft { from = start, data = best, steps = 2, batch = 2 seqs, lr = 1e-3 }
}
"""
)
ALL = (
    MODEL
    + """
dataset labeled { files = "preferences.jsonl", kind = preferences }
dataset sifted  { sample = arithmetic, documents = 100, keep 50% where quality.loss > 4.0 }
stage quality: score  { from = pretrain, data = [sifted] }
stage more:    train  { from = pretrain, data = sifted, steps = 2, lr = 1e-3 }
stage rm:      reward { data = labeled, steps = 4, batch = 4 pairs, lr = 1e-3, from = start
                        checkpoint every 1 steps }
stage drafts:  sample { from = start, prompts = asked, draws = 2, judge = rm, max_tokens = 24 }
stage sft:     sft    { from = start, data = drafts, steps = 4, batch = 2 seqs, lr = 1e-3
                        checkpoint every 1 steps }
stage dpo:     dpo    { data = labeled, nll = 0.2, mask = formatting, steps = 4, batch = 4 pairs
                        lr = 1e-4, checkpoint every 1 steps }
stage pick:    best   { of = [sft, dpo], loss = [corpus] }
verifier word { kind = regex, pattern = "^[a-z]{3}$" }
stage rl:      grpo   { from = dpo, data = asked, steps = 4, refresh = 2 steps, batch = 2 prompts
                        group = 4, max_tokens = 24, reward = { word 1, rm 0.1 }, kl = 0.1
                        lr = 1e-4, checkpoint every 1 steps }
"""
)


def label(run: Path, number: int, labels: Path) -> None:
    """Fills in what a person would: the first response is better than the second."""
    labels.mkdir(exist_ok=True)
    name = "prefer[1]" if number == 1 else f"prefer[1..{number}]"
    lines = (run / "to_label" / f"{name}.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert all(record["chosen"] is None for record in records)
    with (labels / f"round{number}.jsonl").open("w") as file:
        for record in records:
            record["chosen"], record["rejected"] = record["responses"][:2]
            file.write(json.dumps(record) + "\n")


def test_the_run_stops_for_labels_and_goes_on_with_them(tmp_path: Path) -> None:
    write(tmp_path, LABELLED)
    run = tmp_path / "run"
    for number in (1, 2):
        stopped = etude("run", "spec.etude", "--folder", "run", cwd=tmp_path)
        assert stopped.returncode == 3, stopped.stdout + stopped.stderr
        assert f"labels/round{number}.jsonl" in stopped.stderr
        assert "to_label" in stopped.stderr
        assert "Traceback" not in stopped.stderr
        label(run, number, tmp_path / "labels")
    done = etude("run", "spec.etude", "--folder", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (run / "models" / "align.2.sft" / "config.json").exists()


@pytest.mark.exhaustive
def test_labels_that_were_not_filled_in_are_named(tmp_path: Path) -> None:
    write(tmp_path, LABELLED)
    etude("run", "spec.etude", "--folder", "run", cwd=tmp_path)
    (tmp_path / "labels").mkdir()
    given = (tmp_path / "run" / "to_label" / "prefer[1].jsonl").read_text()
    (tmp_path / "labels" / "round1.jsonl").write_text(given)
    failed = etude("run", "spec.etude", "--folder", "run", cwd=tmp_path)
    assert failed.returncode == 1
    assert "labels/round1.jsonl:1" in failed.stderr
    assert "Traceback" not in failed.stderr


def weights(run: Path) -> dict[str, bytes]:
    return {
        name: (run / "models" / name / "model.safetensors").read_bytes() for name in ("pick", "rl")
    } | {"drafts": (run / "models" / "drafts" / "draws.jsonl").read_bytes()}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    write(folder, ALL)
    done = etude("run", "spec.etude", "--folder", "run", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run"


@pytest.mark.parametrize(
    "job",
    [
        pytest.param("rm.1", marks=pytest.mark.exhaustive),
        pytest.param("drafts", marks=pytest.mark.exhaustive),
        pytest.param("reference.dpo.labeled", marks=pytest.mark.exhaustive),
        pytest.param("dpo.1", marks=pytest.mark.exhaustive),
        pytest.param("rollouts.rl.2", marks=pytest.mark.exhaustive),
        pytest.param("old.rl.2", marks=pytest.mark.exhaustive),
        "rl.2",
    ],
)
def test_killed_in_a_job_and_run_again_it_ends_the_same(
    job: str, straight: Path, tmp_path: Path
) -> None:
    write(tmp_path, ALL)
    store = Store(tmp_path / "run")

    def begun() -> bool:
        return any(e["job"] == job and e["event"] == "started" for e in store.events())

    kill_when(begun, "run", "spec.etude", "--folder", "run", cwd=tmp_path)
    done = etude("run", "spec.etude", "--folder", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert weights(tmp_path / "run") == weights(straight)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "job",
    [
        pytest.param("tokenizer.words", marks=pytest.mark.exhaustive),
        pytest.param("dataset.corpus", marks=pytest.mark.exhaustive),
        pytest.param("pretrain.1", marks=pytest.mark.exhaustive),
        pytest.param("quality.sifted", marks=pytest.mark.exhaustive),
        pytest.param("filter.sifted", marks=pytest.mark.exhaustive),
        "rm.1",
        pytest.param("drafts.judge", marks=pytest.mark.exhaustive),
        "drafts.draws",
        pytest.param("sft.1", marks=pytest.mark.exhaustive),
        pytest.param("reference.dpo.labeled", marks=pytest.mark.exhaustive),
        pytest.param("dpo.1", marks=pytest.mark.exhaustive),
        pytest.param("pick", marks=pytest.mark.exhaustive),
        pytest.param("draws.rl.2.asked", marks=pytest.mark.exhaustive),
        pytest.param("rl.1", marks=pytest.mark.exhaustive),
    ],
)
def test_asked_to_stop_in_a_job_of_any_kind_it_ends_the_same(
    job: str, straight: Path, tmp_path: Path
) -> None:
    write(tmp_path, ALL)
    store = Store(tmp_path / "run")

    def begun() -> bool:
        return any(e["job"] == job and e["event"] == "started" for e in store.events())

    stop_and_continue(begun, straight, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(20))
def test_asked_to_stop_at_any_moment_it_ends_the_same(
    seed: int, straight: Path, tmp_path: Path
) -> None:
    """Moments are numbers of things that are known of jobs, so that a slow machine has them too."""
    write(tmp_path, ALL)
    happened = 2 * len(Plan.model_validate_json((straight / "plan.json").read_bytes()).jobs)
    moment, store = Random(seed).randrange(1, happened), Store(tmp_path / "run")
    stop_and_continue(lambda: len(store.events()) >= moment, straight, tmp_path)


def stop_and_continue(condition: Callable[[], bool], straight: Path, folder: Path) -> None:
    """Asks a run to stop once a condition holds, continues it, and compares what comes of it."""
    begun = ("run", "spec.etude", "--folder", "run")
    stopped = signalled(signal.SIGTERM, condition, *begun, cwd=folder)
    assert stopped.returncode == 75, stopped.stdout + stopped.stderr
    assert "stopped by SIGTERM: " in stopped.stderr
    assert "Traceback" not in stopped.stderr
    taken = steps(folder / "run")
    done = etude(*begun, "--json", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    again = [json.loads(line) for line in done.stdout.splitlines()]
    repeated = [(e["job"], e["step"]) for e in again if e["event"] == "step"]
    assert not taken & set(repeated)
    assert weights(folder / "run") == weights(straight)


def steps(run: Path) -> set[tuple[str, int]]:
    """The job and number of every step that was taken."""
    lines = [line for path in run.glob("metrics/*.jsonl") for line in path.read_text().splitlines()]
    return {(entry["job"], entry["step"]) for entry in map(json.loads, lines)}


def test_two_ranks_train_all_kinds_of_stages(straight: Path, tmp_path: Path) -> None:
    write(tmp_path, ALL)
    done = etude("run", "spec.etude", "--folder", "run", "--ranks", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr

    def losses(run: Path, job: str) -> list[float]:
        lines = (run / "metrics" / f"{job}.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    for job in ("rm.1", "sft.1", "dpo.1", "rl.1"):
        assert losses(tmp_path / "run", job) == pytest.approx(losses(straight, job), abs=2e-3)


def test_the_plan_of_the_run_is_read_back(straight: Path) -> None:
    plan = Plan.model_validate_json((straight / "plan.json").read_bytes())
    kinds = {job.kind for job in plan.jobs}
    assert {"filter", "score", "sample", "reference", "best", "rollout", "likelihood"} <= kinds
