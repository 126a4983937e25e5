"""A recipe in epochs of data that nobody has counted, from estimate to run."""

import json
from pathlib import Path
from typing import Any

import pytest
from etude_cli import etude

SPEC = """recipe s { seed = 1 }
model tiny { layers = 1, dim = 32, heads = 2, ffn = 64 }
tokenizer letters { train = { on [sums], vocab 300 } }
dataset sums { sample = arithmetic, documents = 50 docs }
dataset talk { files = "talk.jsonl", kind = dialogs }
stage pre: train { model = tiny, epochs = 1.5, seq_len = 64, batch = 8 seqs, data = sums
  lr = 0 -> 1e-3 for 10% then -> 1e-4 }
stage sft: sft { data = talk, epochs = 2, seq_len = 64, batch = 8 seqs, lr = 1e-4 }
"""


def write(folder: Path, dialogs: int) -> None:
    (folder / "s.etude").write_text(SPEC)
    talk = [
        [{"role": "user", "content": f"{n} + 1"}, {"role": "assistant", "content": f"{n + 1}"}]
        for n in range(dialogs)
    ]
    lines = [json.dumps({"messages": messages}) for messages in talk]
    (folder / "talk.jsonl").write_text("\n".join(lines) + "\n")


def plan(folder: Path) -> dict[str, Any]:
    done = etude("plan", "s.etude", "-o", "plan.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "plan.json").read_text())


def steps(plan: dict[str, Any]) -> dict[str, int]:
    return {name: stage["steps"] for name, stage in plan["stages"].items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the spec, the estimated plan, and its data prepared and counted."""
    place = tmp_path_factory.mktemp("epochs")
    write(place, 60)
    about = plan(place)
    assert [each["exact"] for each in about["counts"]] == [False, False]
    refused = etude("run", "plan.json", cwd=place)
    assert refused.returncode == 1
    assert "the length of `pre` is an estimate" in refused.stderr
    done = etude("prepare", "s.etude", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "counted: `talk` has" in done.stderr
    assert done.stdout.count("dataset.talk: already done") == 1  # by what follows the counting
    return place


def test_prepare_counts_and_the_plan_is_exact(place: Path) -> None:
    exact = plan(place)
    tokens, rows = ({c["dataset"]: c for c in exact["counts"]}[n] for n in ("sums", "talk"))
    shards = list((place / "runs" / "s" / "artifacts").glob("*/shards.json"))
    held = json.loads(shards[0].read_text())["splits"]["train"]["tokens"]
    assert (tokens["numbers"], tokens["exact"]) == ([held], True)
    assert len(rows["numbers"]) == 2
    assert steps(exact)["pre"] == round(1.5 * held / 64 / 8)
    assert steps(exact)["sft"] == round(sum(rows["numbers"]) / 8)


def test_the_exact_plan_runs_and_what_it_says_is_done(place: Path) -> None:
    exact = plan(place)
    done = etude("run", "plan.json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert f"sft.1: train, {steps(exact)['sft']} steps" in done.stdout
    # What the run says of epochs is what the plan says: rows, not tokens, are counted.
    read = next(j for j in exact["jobs"] if j["id"] == "sft.1")["data"]["talk"]["epochs"]
    assert f"sft reads talk {read:.3g} times" in done.stdout


def test_changed_data_are_counted_again_by_the_spec_and_refused_by_the_plan(place: Path) -> None:
    before = steps(plan(place))
    write(place, 200)
    refused = etude("run", "plan.json", cwd=place)
    assert refused.returncode == 1
    assert "the plan is for data that are others now: `talk` has" in refused.stderr
    done = etude("run", "s.etude", cwd=place)
    assert done.returncode == 0, done.stderr
    after = steps(plan(place))
    assert after["sft"] > 2 * before["sft"]
    assert f"sft.1: train, {after['sft']} steps" in done.stdout
    assert "Traceback" not in done.stderr + refused.stderr
