"""Small exported models for the tests of sampling and of the measures, made by transformers."""

import json
from pathlib import Path
from typing import Any

import torch
from engine_jobs import architecture
from record_jobs import forward_job
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from etude.compiler.plan.plan import Architecture, DrawJob, JudgeJob, SampleJob
from etude.runtime.data.dialogs.dialog import special_tokens
from etude.runtime.data.tokens import tokenizer
from etude.runtime.engine.checkpoints.storage import write_tensors
from etude.runtime.engine.families import model_spec
from etude.runtime.engine.measures.forward import judge as judge_draws
from etude.runtime.sampling.judging import Answered

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


def judge(folder: Path, seed: int = 1) -> Path:
    """A reward model as transformers has it, and its checkpoint in `state`."""
    vocab = save_tokenizer(folder)
    torch.manual_seed(seed)
    made = LlamaForSequenceClassification(config(vocab, num_labels=1, initializer_range=0.5))
    made.save_pretrained(folder)
    spec = model_spec(judge_shape(vocab), "cpu", CONTEXT, "score")
    assert spec.state_dict_adapter is not None
    theirs = dict(made.state_dict())
    theirs["lm_head.weight"] = theirs.pop("score.weight")
    state = spec.state_dict_adapter(spec.model, None).from_hf(theirs)
    write_tensors(state, folder / "state", DefaultSavePlanner())
    return folder


def judge_shape(vocab: int) -> Architecture:
    return architecture(dim=32, ffn=64, head_dim=8, vocab=vocab, context=CONTEXT, norm_eps=1e-6)


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


def draw_job(**changes: Any) -> DrawJob:
    values: dict[str, Any] = {
        "key": "d",
        "id": "drafts.1.draws",
        "stage": "drafts",
        "inputs": {},
        "dialog": DIALOG,
        "prompts": "questions",
        "limit": None,
        "draws": 4,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 64,
        "seed": 11,
    }
    return DrawJob(**{**values, **changes})


def judge_job(folder: Path, context: int = CONTEXT) -> JudgeJob:
    vocab = tokenizer.load(folder / "tokenizer.json").get_vocab_size()
    values = {"dialog": DIALOG, "model": judge_shape(vocab), "seq_len": context}
    return forward_job(JudgeJob, None, **values)


def judged(roles: dict[str, Path], draws: Path, folder: Path, context: int = CONTEXT) -> Path:
    """The result of a judge job on draws."""
    given = {
        "model": roles["judge"],
        "tokenizer": roles["judge"],
        "prompts": roles["prompts"],
        "draws": draws,
    }
    job = judge_job(roles["judge"], context)
    answers = Answered(job, given, folder)
    judge_draws(job, answers, given, folder, root=folder, on_event=lambda _: None)
    return folder / "result"


def sample_job(**changes: Any) -> SampleJob:
    values: dict[str, Any] = {
        "key": "s",
        "id": "drafts.1",
        "stage": "drafts",
        "inputs": {},
        "prompts": "questions",
        "draws": 4,
        "max_tokens": 64,
        "keep": 1,
    }
    return SampleJob(**{**values, **changes})


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
