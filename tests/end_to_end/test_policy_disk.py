"""What a policy's turns leave on disk, and what is made again of it."""

import json
import shutil
from pathlib import Path

import pytest
from etude_cli import etude

from etude.runtime.run_folder.store import MANIFEST, Store

SPEC = """
recipe turns { seed = 5 }
model tiny { layers = 1, dim = 32, heads = 2, ffn = 64 }
tokenizer words { train = { on [corpus], vocab 280 } }
dataset asked { sample = arithmetic, documents = 20, kind = prompts }
dataset corpus { sample = arithmetic, documents = 50 }
stage start: train {
  model = tiny, data = corpus, steps = 2, seq_len = 64, batch = 2 seqs, lr = 1e-3
}
verifier digit { kind = regex, pattern = ".*\\\\d.*" }
stage rl: grpo {
  data = asked, steps = 6, refresh = 2 steps, batch = 2 prompts, group = 4, max_tokens = 4
  reward = digit, kl = 0.1, lr = 1e-3
}
"""


def left(run: Path) -> dict[str, list[str]]:
    """The files of each job's artifact, by its id."""
    found = {}
    for path in (run / "artifacts").glob(f"*/{MANIFEST}"):
        manifest = json.loads(path.read_bytes())
        names = {str(each.relative_to(path.parent)) for each in path.parent.rglob("*")}
        assert names >= manifest["files"].keys()
        found[manifest["job"]] = sorted(manifest["files"])
    return found


@pytest.mark.exhaustive
def test_weights_of_past_turns_go_and_are_made_again_where_one_needs_them(tmp_path: Path) -> None:
    (tmp_path / "spec.etude").write_text(SPEC)
    run = tmp_path / "run"

    def ran() -> str:
        done = etude("run", "spec.etude", "--folder", "run", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    ran()
    files = left(run)
    spent = {job for job, names in files.items() if names in ([], ["metrics.jsonl"])}
    past = {"rl.1", "export.rl.1", "export.rl.2", "old.rl.1", "old.rl.2", "reference.rl.2"}
    assert spent == past
    assert files["rl.1"] == ["metrics.jsonl"]

    before = (run / "models" / "rl" / "model.safetensors").read_bytes()
    assert "rl.1: train" not in ran()  # nothing is left to do
    assert left(run) == files

    keys = {event["job"]: event["key"] for event in Store(run).events()}
    for job in ("rl.2", "rl.3", "export.rl"):
        shutil.rmtree(run / "artifacts" / keys[job])
    told = ran()
    assert "rl.1: train" in told
    assert "draws.rl.1.asked: draw" not in told  # answers are kept
    assert (run / "models" / "rl" / "model.safetensors").read_bytes() == before
    assert left(run) == files
    assert etude("report", "run", cwd=tmp_path).returncode == 0
