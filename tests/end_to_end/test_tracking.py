"""`tracking = wandb`: an offline run beside the metrics, with what each source has given."""

from pathlib import Path

from etude_cli import TINY, etude


def test_wandb_is_offline_by_default(tmp_path: Path) -> None:
    spec = TINY.replace("seed = 7", "seed = 7, tracking = wandb").split("stage anneal")[0]
    (tmp_path / "tiny.etude").write_text(spec)
    done = etude("run", "tiny.etude", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "runs" / "tiny" / "wandb").glob("offline-run-*")
    (record,) = folder.glob("*.wandb")
    logged = record.read_bytes()
    assert b"tokens/docs" in logged
    assert b"tokens/sums" in logged
