"""What libraries print while a run works: all of it in the run folder, none on the terminal."""

import json
import subprocess
from pathlib import Path

import pytest
from etude_cli import COMMAND, started

SPEC = """recipe chatter { seed = 1, tracking = wandb }
model tiny { layers = 1, dim = 32, heads = 2, ffn = 64, vocab = 300 }
tokenizer plain { bytes }
dialog chat { protocol = chatml }
dataset docs { sample = arithmetic, documents = 100 docs, holdout = 10% }
dataset saved { hub = "saved", kind = dialogs }
dataset pairs { files = "pairs.jsonl", kind = preferences }
dataset asked { files = "asked.jsonl", kind = prompts }
stage pre: train {
  model = tiny, steps = 20, seq_len = 128, batch = 2 seqs, lr = 1e-2, data = docs
  average = polyak every 1 steps over 50%
}
stage chats: sft { steps = 60, batch = 2 seqs, lr = 1e-2, data = saved }
stage drafts: sample {
  prompts = asked, draws = 2, max_tokens = 16
  allow N654 "its output is what counts"
}
stage prefer: dpo { from = chats, steps = 2, batch = 2 pairs, lr = 1e-5, data = pairs }
stage exam: evaluate { loss = [docs]SUITES }
"""
TASK = """task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: sums.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: ["2", "3"]
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
LINES = (
    "tokenizer.",
    "dataset.",
    "pre",
    "chats",
    "drafts",
    "prefer",
    "reference.",
    "export.",
    "heldout.",
    "exam",
    "done: ",
)
"""What etude's own lines begin with: a job, a stage, or the last word."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe with everything that makes libraries talk."""
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("lm_eval")
    rows = [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}]}
        for n in range(300)
    ]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    pairs = [{"prompt": f"p{n}", "chosen": "yes", "rejected": "no"} for n in range(8)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    (tmp_path / "asked.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "q1"}]})
    )
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "sums.yaml").write_text(TASK)
    sums = [{"question": f"{n + 1}+1=", "answer": n} for n in range(2)]
    (tmp_path / "tasks" / "sums.jsonl").write_text("\n".join(map(json.dumps, sums)))
    suites = ', suites = { math ["sums"] }, tasks = "tasks"'
    (tmp_path / "chatter.etude").write_text(SPEC.replace("SUITES", suites))
    return tmp_path


def talks(folder: Path) -> bool:
    """Whether the log of the run, or of a rank, has what lm-evaluation-harness says of the task."""
    run = folder / "runs" / "chatter"
    logs = [run / "log", *(run / "logs").glob("*.log")]
    return any("Running loglikelihood requests" in log.read_text() for log in logs)


def test_in_a_pipe_there_are_only_etudes_lines(folder: Path) -> None:
    done = started("run", "chatter.etude", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if not line.startswith(LINES)] == []
    assert talks(folder)


@pytest.mark.exhaustive
def test_as_json_there_are_only_json_lines_on_two_ranks(folder: Path) -> None:
    done = started("run", "chatter.etude", "--json", "--ranks", "2", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"started", "step", "finished", "scores"} <= {event["event"] for event in events}
    assert talks(folder)


def test_what_is_printed_before_a_refusal_is_shown(tmp_path: Path) -> None:
    """A run that begins nothing has no folder, and no log to look into."""
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom etude.cli.aside import aside\n"
        "with aside(Path(sys.argv[1])) as (terminal, settle):\n"
        "    os.system('echo from a child')\n    print('from Python')\n"
        "    print('ours', file=terminal, flush=True)\n"
        "    if len(sys.argv) > 2:\n        Path(sys.argv[1]).mkdir()\n        settle()\n"
        "    os.system('echo later >&2')\n"
        "print('after')\n"
    )
    python = COMMAND[0]
    folder = tmp_path / "run"

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [python, "-c", program, str(folder), *more]
        return subprocess.run(command, capture_output=True, text=True, check=True)

    refused = run()
    assert refused.stdout == "ours\nafter\n"
    assert sorted(refused.stderr.splitlines()) == ["from Python", "from a child", "later"]
    done = run("make the folder")
    assert (done.stdout, done.stderr) == ("ours\nafter\n", "")
    log = (folder / "log").read_text().splitlines()
    assert sorted(log) == ["from Python", "from a child", "later"]
    assert log[-1] == "later"
