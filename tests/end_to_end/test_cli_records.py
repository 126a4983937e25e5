"""Records that are too long or teach nothing: said before training, counted where it is meant."""

import json
from pathlib import Path

from etude_cli import etude

SPEC = """recipe talks { seed = 1 }
model tiny { layers = 1, dim = 32, heads = 2, ffn = 64, vocab = 300 }
tokenizer plain { bytes }
dialog chat { protocol = chatml }
dataset docs { sample = arithmetic, documents = 50 docs }
dataset talk { files = "talk.jsonl", kind = dialogs }
stage pre: train {
  model = tiny, steps = 1, seq_len = 64, batch = 2 seqs, lr = 1e-3, data = docs
}
stage chats: sft { steps = 1, batch = 1 seqs, lr = 1e-3, data = talk }
"""


def said(question: str, answer: str, **more: str) -> str:
    asked = {"role": "user", "content": question}
    return json.dumps({"messages": [asked, {"role": "assistant", "content": answer, **more}]})


def test_long_records_are_refused_with_what_to_write_and_dropped_where_it_says_so(
    tmp_path: Path,
) -> None:
    talk = [said(f"q{n}", f"a{n}") for n in range(8)] + [said("tell", "word " * 60)]
    (tmp_path / "talk.jsonl").write_text("\n".join(talk))
    (tmp_path / "talks.etude").write_text(SPEC)
    refused = etude("run", "talks.etude", cwd=tmp_path)
    assert refused.returncode == 1
    assert "talk.jsonl:9: the dialog takes 325 tokens, 261 more than the 64" in refused.stderr
    assert "`long = drop` or `long = truncate`" in refused.stderr

    spec = SPEC.replace("kind = dialogs", "kind = dialogs, long = drop")
    (tmp_path / "talks.etude").write_text(spec)
    done = etude("run", "talks.etude", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    long = {"limit": 64, "dropped": 1, "truncated": 0}
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    about = {"event": "long", "job": "dataset.talk", "dataset": "talk"}
    assert [event for event in events if event["event"] == "long"] == [about | long]

    assert (
        "1 record dropped: more than 64 tokens"
        in etude("status", "runs/talks", cwd=tmp_path).stdout
    )
    rows = json.loads(etude("status", "runs/talks", "--json", cwd=tmp_path).stdout)["jobs"]
    (row,) = [row for row in rows if row["job"] == "dataset.talk"]
    assert (row["bad_lines"], row["long"]) == (0, long)
    assert "Records left out" in etude("report", "runs/talks", cwd=tmp_path).stdout
    report = json.loads(etude("report", "runs/talks", "--json", cwd=tmp_path).stdout)
    (row,) = report["data"]
    assert row == {"job": "dataset.talk", "dataset": "talk", "bad_lines": 0, "long": long}


def test_thoughts_that_the_protocol_cannot_write_stop_the_run(tmp_path: Path) -> None:
    """They were left out, an empty answer was learned, and the rate was blamed."""
    talk = [said(f"q{n}", "", reasoning_content=f"I think about {n}.") for n in range(12)]
    (tmp_path / "talk.jsonl").write_text("\n".join(talk))
    (tmp_path / "talks.etude").write_text(SPEC)
    done = etude("run", "talks.etude", cwd=tmp_path)
    assert done.returncode == 1
    assert "talk.jsonl:1: message 2 (assistant) has `reasoning_content`" in done.stderr
    assert "learning rate" not in done.stderr
