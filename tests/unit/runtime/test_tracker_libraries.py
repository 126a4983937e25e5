"""What W&B, MLflow and Trackio are told, by their own libraries on this machine."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any, cast

import pytest

from etude.compiler.driver import analyse, compile
from etude.compiler.plan.plan import Plan
from etude.runtime.errors import RunError
from etude.runtime.preflight.trackers import require_tracker
from etude.runtime.run_folder import trackers
from etude.runtime.run_folder.logger import Made
from etude.runtime.run_folder.recorder import Recorder
from etude.spec.load import reads

SECRET = "sesame-of-this-test"
SPEC = """recipe toy {{ seed = 1, tracking = {} {{ project = "sums", group = "first" }} }}
model small {{ layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 512 }}
tokenizer words {{ bytes }}
dataset sums {{ sample = arithmetic, documents = 20 docs }}
stage pre: train {{
  model = small, steps = 10, batch = 4 seqs, lr = 1e-3, data = sums, seq_len = 16
}}
"""
WARNINGS: list[dict[str, Any]] = []


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None and not os.environ.get("ETUDE_NEEDS_TRACKERS"):
        pytest.skip(f"needs {module}, which the extra of its name brings")


def plan(kind: str) -> Plan:
    made = compile(analyse(reads(SPEC.format(kind))))
    assert made
    return made.plan


def step(step: int) -> dict[str, Any]:
    return {
        "event": "step",
        "job": "pre",
        "stage": "pre",
        "step": step,
        "loss": 4.0 - step,
        "lr": 1e-3,
        "sequences": 4,
        "seq_len": 16,
        "tokens": 64 * (step + 1),
        "mixture": {"sums": 1},
        "sources": {"sums": 64},
    }


def recorded(kind: str, folder: Path) -> None:
    """Two steps, an evaluation, the result, and scores; then resumed with a third step."""
    (folder / "metrics").mkdir(exist_ok=True)
    manifest = folder / "artifacts" / "key" / "manifest.json"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text('{"files": {}}')
    made = plan(kind)
    first = Recorder(folder, trackers.loggers(made, folder), WARNINGS.append)
    first.step(step(0))
    first.step(step(1))
    event = {"event": "evaluation", "job": "pre", "stage": "pre", "step": 1, "tokens": 128}
    first.evaluation({**event, "scores": {"loss(web)": {"score": 2.5}}})
    first.result(Made("pre", "pre", "key", {"data:sums": "other"}, manifest))
    first.scores("exam", "exam", {"accuracy": {"score": 0.5, "stderr": 0.25}})
    first.close()
    again = Recorder(folder, trackers.loggers(made, folder), WARNINGS.append)
    again.step(step(2))
    again.close()


def in_mlflow(folder: Path) -> None:
    recorded("mlflow", folder)
    client = trackers.mlflow_client(folder)
    experiment = client.get_experiment_by_name("sums")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {"pre", "exam"}
    pre = runs["pre"]
    assert pre.info.status == "FINISHED"
    assert pre.data.tags["group"] == "first"
    assert pre.data.params["pre.lr"] == "0.001"
    assert pre.data.params["model.small.dim"] == "64"
    history = client.get_metric_history(pre.info.run_id, "loss")
    assert [(each.step, each.value) for each in history] == [(64, 4.0), (128, 3.0), (192, 2.0)]
    assert pre.data.metrics["evaluation/loss/web"] == 2.5
    assert pre.data.metrics["share/sums"] == 1
    assert runs["exam"].data.metrics == {"exam/accuracy": 0.5, "exam/accuracy stderr": 0.25}
    kept = {each.path for each in client.list_artifacts(pre.info.run_id, "pre")}
    assert kept == {"pre/lineage.json", "pre/manifest.json"}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith(("WANDB_", "MLFLOW_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("A_PASSWORD", SECRET)
    WARNINGS.clear()


def test_mlflow_has_a_run_for_each_stage_over_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files in place of a database, whose first tables take MLflow ten seconds."""
    needs("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "server").as_uri())
    in_mlflow(tmp_path)
    assert WARNINGS == []


@pytest.mark.exhaustive
def test_without_a_server_mlflow_has_a_database_in_the_run_folder(tmp_path: Path) -> None:
    needs("mlflow")
    in_mlflow(tmp_path)
    assert (tmp_path / "mlflow.db").exists()
    assert (tmp_path / "mlflow").is_dir()


def test_trackio_has_a_run_for_each_stage_over_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    recorded("trackio", tmp_path)
    runs = {run.name.partition("-")[0]: run for run in trackio.Api().runs("sums")}
    assert runs.keys() == {"pre", "exam"}
    config = runs["pre"].config
    assert config
    assert (config["pre.lr"], config["_Group"]) == ("0.001", "first")
    logs = SQLiteStorage.get_logs("sums", runs["pre"].name)
    losses = [(each["step"], each["loss"]) for each in logs if "loss" in each]
    assert losses == [(64, 4.0), (128, 3.0), (192, 2.0)]
    assert WARNINGS == []


def test_wandb_is_told_no_secret_and_its_configuration_is_the_plan(tmp_path: Path) -> None:
    recorded("wandb", tmp_path)
    records = [path.read_bytes() for path in (tmp_path / "wandb").glob("offline-*/*.wandb")]
    for each in (b"pre.lr", b"model.small.dim", b"evaluation/loss(web)", b"exam/accuracy stderr"):
        assert any(each in record for record in records)
    kept = [path for path in (tmp_path / "wandb").rglob("*") if path.is_file()]
    assert kept
    assert not any(SECRET.encode() in path.read_bytes() for path in kept)
    assert WARNINGS == []


class Online:
    """The calls of a W&B run that is online."""

    offline = False

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any, **named: Any) -> None:
            told = [each.name if hasattr(each, "manifest") else each for each in given]
            self.calls.append((name, (*told, *named.items())))

        return call


def test_online_wandb_draws_the_lineage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are recorded in place of W&B's service, which is out of reach of tests."""
    import wandb

    other = tmp_path / "artifacts" / "other" / "manifest.json"
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    begun: list[dict[str, Any]] = []
    run = Online()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "init", lambda **given: begun.append(given) or run)
    recorded("wandb", tmp_path)
    assert [(each["name"], each["group"], each["mode"]) for each in begun] == [
        ("pre", "first", "online"),
        ("exam", "first", "online"),
        ("pre", "first", "online"),
    ]
    assert begun[0]["id"] == begun[2]["id"] != begun[1]["id"]
    assert ("use_artifact", ("toy-data_sums",)) in run.calls
    assert ("log_artifact", ("toy-pre", ("aliases", ["latest", "pre"]))) in run.calls
    tokens = [given[0]["tokens"] for name, given in run.calls if name == "log"]
    assert tokens == [64, 128, 128, 0, 192]


def test_a_tracker_that_fails_is_left_out_with_one_warning_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()

    class Broken:
        name = "MLflow"

        def __getattr__(self, name: str) -> Any:
            raise ConnectionError(f"http://me:{SECRET}@host does not answer\nTraceback …")

    recorder = Recorder(tmp_path, [cast(Any, Broken())], WARNINGS.append)
    recorder.step(step(0))
    recorder.step(step(1))
    recorder.close()
    (warning,) = [each["message"] for each in WARNINGS]
    assert warning.startswith("MLflow has failed (ConnectionError: http://…@host does not answer)")
    lines = (tmp_path / "metrics" / "pre.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1]


def test_before_a_run_a_missing_library_login_or_server_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    real = importlib.util.find_spec
    for module in ("mlflow", "trackio"):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(RunError, match=f"{module}.* is not installed") as caught:
            require_tracker(module, tmp_path)
        assert caught.value.help == f"pip install 'etude[{module}]'"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: real("json"))
    monkeypatch.setenv("TRACKIO_SPACE_ID", "me/runs")
    with pytest.raises(RunError, match="nobody is logged in to Hugging Face"):
        require_tracker("trackio", tmp_path)
    monkeypatch.delenv("TRACKIO_SPACE_ID")
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://127.0.0.1:1")
    with pytest.raises(RunError, match="no token to write there"):
        require_tracker("trackio", tmp_path)


def test_before_a_run_a_server_of_mlflow_has_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:1")
    with pytest.raises(RunError, match="does not answer") as caught:
        require_tracker("mlflow", tmp_path)
    assert SECRET not in caught.value.message
    assert "…@127.0.0.1:1" in caught.value.message
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ
