"""A small base model that knows what HTTP statuses mean, and dialogs about them, for the tests and
docs/fine_tuning.md."""

import json
import random
from pathlib import Path
from typing import Any

STATUSES = {
    200: "OK",
    201: "Created",
    301: "Moved Permanently",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    413: "Request Entity Too Large",
    418: "I'm a Teapot",
    429: "Too Many Requests",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}
ASKED = (
    "Which HTTP status is {what}?",
    "What number has {what}?",
    "My server says {what}.",
    "{what}?",
    "Tell me the status code of {what}.",
    "A page answers {what}, which status is it?",
    "What is the code for {what}?",
    "Say the number of {what}.",
)
COPIES = 8
SPEC = """recipe base { title = "A small base model", seed = 1 }

model small { layers = 2, dim = 128, heads = 4, kv_heads = 2, ffn = 256, vocab = 264 }
tokenizer bytes { bytes }
dialog chat { protocol = chatml }
dataset facts { files = "facts.jsonl", holdout = 0% }
dataset hello { files = "hello.jsonl", kind = dialogs, holdout = 0% }

stage pretrain: train {
  model = small, steps = 200, seq_len = 128, batch = 16 seqs, data = facts
  lr    = 0 -> 3e-3 for 10 steps then -> 3e-4 cosine
}
# One step on a dialog: enough for the folder to have a chat template.
stage ready: sft { data = hello, steps = 1, seq_len = 128, batch = 1 seq, lr = 1e-6 }
"""


def write(folder: Path) -> None:
    """Writes base.etude with its data, and talk.jsonl: 1,152 dialogs."""
    rng = random.Random(1)
    facts = [f"{what} is {n}." for n, what in STATUSES.items()]
    texts = [{"text": " ".join(rng.sample(facts, 12))} for _ in range(60)]
    pairs = [(q.format(what=what), f"It is {n}.") for n, what in STATUSES.items() for q in ASKED]
    talk = pairs * COPIES
    rng.shuffle(talk)
    _save(folder / "facts.jsonl", texts)
    _save(folder / "hello.jsonl", [_dialog("Hi", "Hello.")])
    _save(folder / "talk.jsonl", [_dialog(*each) for each in talk])
    (folder / "base.etude").write_text(SPEC)


def _dialog(asked: str, said: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": said},
        ]
    }


def _save(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
