"""`etude preview` as a user runs it: in a terminal, in a pipe, without colours."""

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
from etude_cli import COMMAND, environment, etude

SPEC = """
recipe talks { title = "Talks", seed = 3 }
model tiny { layers = 1, dim = 32, heads = 2, ffn = 64, vocab = 300 }
tokenizer b { bytes }
dialog chat { protocol = llama3 }
dataset docs { sample = arithmetic, documents = 40 docs }
dataset talk { files = "talk.jsonl", kind = dialogs }
stage pre: train { model = tiny, steps = 2, seq_len = 64, batch = 4 seqs, lr = 1e-3, data = docs }
stage sft: sft { from = pre, dialog = chat, steps = 2, seq_len = 512, batch = 2 seqs, lr = 1e-5,
  data = talk }
"""
EVIL = "\x1b[2J\x1b]0;title\x07\u202e"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "r.etude").write_text(SPEC)
    messages = [{"role": "user", "content": EVIL}, {"role": "assistant", "content": "Yes."}]
    (tmp_path / "talk.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    return tmp_path


def in_a_terminal(folder: Path, **variables: str) -> str:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "preview", "r.etude", "sft"],
        stdout=theirs,
        stderr=subprocess.PIPE,
        stdin=theirs,
        cwd=folder,
        env={**environment(), "TERM": "xterm", "PYTHONUTF8": "1", **variables},
    ) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:
                break
            if not chunk:
                break
            written += chunk
    os.close(ours)
    assert process.returncode == 0
    return written.decode()


def test_a_terminal_shows_colours_and_no_escape_of_the_data(folder: Path) -> None:
    out = in_a_terminal(folder)
    assert "\033[1;32mYes.\033[0m\033[1;4;32m<|eot_id|>\033[0m" in out
    assert "⟦" not in out
    assert "\033[2J" not in out
    assert "\033]" not in out
    assert "\u202e" not in out
    assert "␛" in out


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_colours_brackets_stand_for_them(folder: Path, variables: dict[str, str]) -> None:
    out = in_a_terminal(folder, **variables)
    assert "\033" not in out
    assert "⟦Yes.<|eot_id|>⟧" in out


def test_a_pipe_has_no_colours_and_an_ascii_one_no_other_characters(folder: Path) -> None:
    plain = {**environment(), "PYTHONIOENCODING": "ascii"}
    out = etude("preview", "r.etude", "sft", cwd=folder, env=plain).stdout
    assert out.isascii()
    assert "[[Yes.<|eot_id|>]]" in out


def test_json_is_all_that_is_written_to_standard_output(folder: Path) -> None:
    ended = etude("preview", "r.etude", "--json", "-n", "1", cwd=folder)
    assert ended.returncode == 0
    listed = json.loads(ended.stdout)
    assert [(each["stage"], each["source"]) for each in listed] == [
        ("pre", "docs"),
        ("sft", "talk"),
    ]
    user = next(part for part in listed[1]["parts"] if part["kind"] == "user")
    assert user["text"] == EVIL
