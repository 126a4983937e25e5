"""`tracking = wandb`: an offline run beside the metrics, with what each source has given."""

from pathlib import Path

import wandb
from etude_cli import TINY, etude


def test_wandb_is_offline_by_default_and_a_profile_is_said(tmp_path: Path) -> None:
    logged = _logged(tmp_path, profile="  profile = { steps = [1..2] }\n")
    assert b"tokens/docs" in logged
    assert b"tokens/sums" in logged
    (trace,) = (tmp_path / "runs" / "tiny" / "profiles" / "pretrain").iterdir()
    assert trace.name == "rank-0-steps-1-2.trace.json.gz"
    told = (tmp_path / "runs" / "tiny" / "events.jsonl").read_text()
    assert f"recorded {trace.relative_to(tmp_path)}" in told


def test_the_service_of_a_parent_process_writes_into_the_run_folder(tmp_path: Path) -> None:
    """It runs in another working directory, and child processes find it in the environment."""
    wandb.setup().ensure_service()
    try:
        assert b"tokens/docs" in _logged(tmp_path)
    finally:
        wandb.teardown()


def _logged(tmp_path: Path, profile: str = "") -> bytes:
    spec = TINY.replace("seed = 7", "seed = 7, tracking = wandb").split("stage anneal")[0]
    begin = "stage pretrain: train {\n"
    assert begin in spec
    spec = spec.replace(begin, begin + profile)
    (tmp_path / "tiny.etude").write_text(spec)
    done = etude("run", "tiny.etude", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = (tmp_path / "runs" / "tiny" / "wandb").glob("offline-run-*/*.wandb")
    return record.read_bytes()
