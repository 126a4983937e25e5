"""A recipe of every way to start and to end, so short that each model learns one text by heart."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

STARTS = ("random", "weights", "average")
ENDS = ("train", "sft", "dpo")
TEXT, QUESTION, ANSWER = "one two three", "name it", "It is blue."
DIALOG = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
CONTEXT = {"random": 96, "weights": 128, "average": 96}
"""What each start has known; all endings are of 64 tokens."""
SHAPE = "layers = 1, dim = 64, heads = 2, kv_heads = 2, ffn = 128, tied = false"

HEAD = f"""recipe exports {{ seed = 5 }}
model fresh {{ {SHAPE}, vocab = 264 }}
model base {{ {SHAPE}, vocab = 264, weights = "weights", context = 128 }}
tokenizer plain {{ bytes }}
tokenizer own {{ file = "weights/tokenizer.json" }}
dialog chat {{ protocol = chatml }}
dataset texts {{ files = "texts.jsonl" }}
dataset talks {{ files = "talks.jsonl", kind = dialogs }}
dataset pairs {{ files = "pairs.jsonl", kind = preferences }}
stage random: train {{
  model = fresh, tokenizer = plain, steps = 2, seq_len = 96, batch = 4 seqs, lr = 1e-3, data = texts
}}
stage other: train {{
  model = fresh, tokenizer = plain, steps = 3, seq_len = 96, batch = 4 seqs, lr = 1e-3, data = texts
}}
stage average: average {{ of = [random, other] }}
stage look: evaluate {{ from = base, needle = {{ lengths = [128], depths = 1, samples = 1 }} }}
"""
_SHORT = "seq_len = 64, lr = 1e-2, precision = fp32"
_ENDINGS = {
    "train": f"train {{ steps = 40, batch = 4 seqs, {_SHORT}, data = texts",
    "sft": f"sft {{ steps = 60, batch = 4 seqs, {_SHORT}, data = talks, dialog = chat",
    "dpo": f"dpo {{ steps = 60, batch = 4 pairs, {_SHORT}, data = pairs, dialog = chat, nll = 1.0",
}


def spec() -> str:
    stages = [
        f"stage {start}_{end}: {_ENDINGS[end]}, from = {'base' if start == 'weights' else start} }}"
        for start in STARTS
        for end in ENDS
    ]
    return HEAD + "\n".join(stages) + "\n"


def write(folder: Path) -> None:
    """The recipe, its data, and weights in bf16 whose tokenizer has names of its own."""
    (folder / "recipe.etude").write_text(spec())
    rejected = [{"role": "assistant", "content": "No."}]
    records = {
        "texts": {"text": TEXT},
        "talks": {"messages": DIALOG},
        "pairs": {"prompt": DIALOG[:1], "chosen": DIALOG[1:], "rejected": rejected},
    }
    for name, record in records.items():
        (folder / f"{name}.jsonl").write_text((json.dumps(record) + "\n") * 8)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=264,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    network: Any = LlamaForCausalLM(config)
    network.to(torch.bfloat16).save_pretrained(folder / "weights")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|first|>", "<|last|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|first|> $A", special_tokens=[("<|first|>", 256)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|first|>", eos_token="<|last|>"
    ).save_pretrained(folder / "weights")
