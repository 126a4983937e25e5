"""Folders with the small files of published weights, written without torch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 5e5,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    },
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "eos_token_id": 257,
}
CHATML = ("<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_folder(
    folder: Path,
    config: dict[str, Any] | None = None,
    *,
    tokens: Sequence[str] = CHATML,
    template: str | None = TEMPLATE,
    settings: dict[str, Any] | None = None,
    weights: bool = True,
) -> Path:
    """Writes a folder of published weights without tensors: enough for all but a run.

    Args:
        config: changes to CONFIG; a value of None removes the key.
        tokens: special tokens besides the ends of texts.
        template: the content of chat_template.jinja; None: there is no such file.
        settings: further keys of tokenizer_config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = {name: value for name, value in {**CONFIG, **(config or {})}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(own))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({mark: i for i, mark in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens(["<s>", "</s>", *tokens])
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, **(settings or {})}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    ends = [257, *([259] if tokens else [])]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    if weights:
        header = b"{}"
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return folder
