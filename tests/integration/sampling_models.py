"""Small exported models for the tests of sampling and of the measures, made by transformers."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from etude.compiler.plan.plan import SampleJob
from etude.runtime.data import tokenizer
from etude.runtime.data.dialog import special_tokens

DIALOG = {"protocol": "llama3"}
CONTEXT = 320


def config(vocab: int, **changes: Any) -> LlamaConfig:
    values: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.05,
    }
    return LlamaConfig(**{**values, **changes})


def save_tokenizer(folder: Path) -> int:
    """A byte-level tokenizer that knows the protocol; returns the size of its vocabulary."""
    made = tokenizer.byte_level()
    made.add_special_tokens(special_tokens(DIALOG))
    tokenizer.save(made, folder)
    return made.get_vocab_size()


def policy(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A model that says anything, and ends its answers every now and then."""
    vocab = save_tokenizer(folder)
    torch.manual_seed(seed)
    LlamaForCausalLM(config(vocab, **changes)).save_pretrained(folder)
    return folder


def judge(folder: Path, seed: int = 1, labels: int = 1) -> Path:
    vocab = save_tokenizer(folder)
    torch.manual_seed(seed)
    shape = config(vocab, num_labels=labels, initializer_range=0.5)
    LlamaForSequenceClassification(shape).save_pretrained(folder)
    return folder


def prompts(folder: Path, questions: list[Any]) -> Path:
    """prompts.jsonl with a record for each question; a text becomes a message of the user."""
    folder.mkdir(parents=True, exist_ok=True)
    records = [
        {"messages": [{"role": "user", "content": q}]} if isinstance(q, str) else q
        for q in questions
    ]
    lines = [
        json.dumps({**record, "place": f"questions.jsonl:{number}"}) + "\n"
        for number, record in enumerate(records, 1)
    ]
    (folder / "prompts.jsonl").write_text("".join(lines))
    return folder


def sample_job(**changes: Any) -> SampleJob:
    values: dict[str, Any] = {
        "key": "s",
        "id": "drafts.1",
        "stage": "drafts",
        "inputs": {},
        "dialog": DIALOG,
        "prompts": "questions",
        "draws": 4,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 64,
        "keep": 1,
        "seed": 11,
    }
    return SampleJob(**{**values, **changes})


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
