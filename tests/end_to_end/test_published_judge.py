"""A published reward model of another tokenizer and template scores what transformers says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from etude_cli import etude
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)
from weights_folders import CHATML, CONFIG, TEMPLATE, write_folder

SPEC = """recipe judged { seed = 1 }
model base { weights = "base" }
model rm { weights = "rm" }
dataset asks { files = "asks.jsonl", kind = prompts, holdout = 0% }
stage exam: evaluate { from = base, prompts = asks, max_tokens = 12, judge = rm }
"""


def fill(folder: Path, kind: Any, seed: int, **changes: Any) -> None:
    names = ("architectures", "model_type", "torch_dtype")
    values = {name: value for name, value in CONFIG.items() if name not in names}
    torch.manual_seed(seed)
    kind(LlamaConfig(**values, initializer_range=0.3, **changes)).save_pretrained(folder)


@pytest.mark.exhaustive
def test_its_scores_are_those_of_transformers_for_the_whole_dialog(tmp_path: Path) -> None:
    write_folder(tmp_path / "base")
    fill(tmp_path / "base", LlamaForCausalLM, 1)
    template = TEMPLATE.replace("{{ m.content }}", "{{ m.content }}!")
    rm = write_folder(tmp_path / "rm", tokens=("<|more|>", *CHATML), template=template)
    fill(rm, LlamaForSequenceClassification, 2, num_labels=1)
    asked = [{"messages": [{"role": "user", "content": q}]} for q in ("What?", "Who are you?")]
    (tmp_path / "asks.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked))
    (tmp_path / "judged.etude").write_text(SPEC)
    done = etude("run", "judged.etude", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    artifacts = tmp_path / "runs" / "judged" / "artifacts"
    (scores,) = artifacts.glob("*/scores.npy")
    (draws,) = artifacts.glob("*/draws.jsonl")
    spoken = PreTrainedTokenizerFast(
        tokenizer_file=str(rm / "tokenizer.json"), chat_template=template
    )
    network: Any = AutoModelForSequenceClassification.from_pretrained(rm).eval()
    network.config.pad_token_id = None
    wanted = []
    for line in draws.read_text().splitlines():
        messages = json.loads(line)["messages"]
        read: Any = spoken.apply_chat_template(messages, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            wanted.append(network(read["input_ids"]).logits.item())
    assert len(wanted) == 2
    assert np.load(scores) == pytest.approx(np.array(wanted), rel=1e-4, abs=1e-5)
