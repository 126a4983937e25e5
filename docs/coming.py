"""Writes docs/coming.md, the terms of other programs and ours: `python docs/coming.py`.

What is said of a term is what `etude check` answers to it (spec/foreign), so that the page cannot
say anything else.
"""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

# By name: pyright mistakes the folder `etude` of the tree for the whole package.
r: Any = import_module("etude.spec.schema.recipe")
lacking: Any = import_module("etude.spec.schema.lacking")

_MEANT = re.compile(r"did you mean (`[^`]+`)\? ?")
PAGE = Path(__file__).with_name("coming.md")
HEAD = """# Coming from axolotl, TRL, torchtitan, nanotron or Megatron

What you know under another name. `etude check` says the same where one of these names stands in a
spec. [`etude import`](import.md) converts whole configurations of axolotl, TRL, torchtitan and
nanotron.

Three things are unlike all of them:

- **A spec is the whole recipe**, not one launch: every stage, from random weights to evaluation, is
  in one text, and continues from the stage before it.
- **Batches are global.** No number of a spec depends on how many GPUs there are: `batch` is what a
  step learns from on all ranks together, and [placements](language.md#placements) divide it.
- **Whatever changes over time is one notation**: `lr`, `batch`, `seq_len`, `data` and `rope_theta`
  are a value, or values that follow one another, such as `0 -> 3e-4 for 2000 steps then -> 3e-5`.
"""
PROGRAMS: dict[str, dict[str, str]] = {
    "axolotl": {
        "sft": "sequence_len micro_batch_size gradient_accumulation_steps num_epochs learning_rate "
        "lr_scheduler warmup_ratio warmup_steps weight_decay max_grad_norm sample_packing "
        "gradient_checkpointing bf16 lora_r train_on_inputs val_set_size save_steps eval_steps "
        "early_stopping_patience flash_attention deepspeed fsdp chat_template base_model",
        "dpo": "rl dpo_beta",
        "recipe": "wandb_project mlflow_experiment_name",
    },
    "TRL": {
        "sft": "per_device_train_batch_size gradient_accumulation_steps num_train_epochs max_steps "
        "learning_rate lr_scheduler_type warmup_ratio warmup_steps weight_decay adam_beta1 "
        "max_grad_norm max_length packing assistant_only_loss gradient_checkpointing bf16 "
        "eval_strategy eval_steps save_steps save_total_limit load_best_model_at_end "
        "neftune_noise_alpha",
        "dpo": "ref_model loss_type label_smoothing",
        "grpo": "num_generations max_completion_length epsilon num_iterations reward_funcs "
        "use_vllm",
        "recipe": "report_to",
    },
    "torchtitan": {
        "train": "local_batch_size global_batch_size max_norm warmup_steps decay_ratio decay_type "
        "min_lr_factor data_parallel_shard_degree data_parallel_replicate_degree "
        "tensor_parallel_degree pipeline_parallel_degree context_parallel_degree "
        "expert_parallel_degree initial_load_path "
        "activation_checkpoint enable_profiling mixed_precision_param",
        "recipe": "enable_wandb enable_tensorboard",
    },
    "nanotron": {
        "train": "micro_batch_size batch_accumulation_per_replica sequence_length train_steps "
        "lr_warmup_steps lr_decay_style lr_decay_steps min_decay_lr zero_stage clip_grad "
        "accumulate_grad_in_fp32 checkpoint_interval dp tp pp data_stages",
        "model": "hidden_size intermediate_size num_hidden_layers num_attention_heads "
        "num_key_value_heads tie_word_embeddings vocab_size rms_norm_eps",
    },
    "Megatron": {
        "train": "micro_batch_size global_batch_size rampup_batch_size train_samples train_iters "
        "lr_decay_style lr_warmup_samples lr_warmup_iters min_lr clip_grad weight_decay "
        "adam_beta1 tensor_model_parallel_size pipeline_model_parallel_size "
        "context_parallel_size expert_model_parallel_size sequence_parallel "
        "recompute_granularity save_interval seq_length data_path",
        "model": "num_layers hidden_size ffn_hidden_size num_attention_heads num_query_groups "
        "max_position_embeddings rotary_base num_experts moe_router_topk "
        "untie_embeddings_and_output_weights norm_epsilon",
    },
}
"""Program → block of a spec that the term would be written in → terms."""


def text() -> str:
    """The page."""
    parts = [HEAD]
    for program, blocks in PROGRAMS.items():
        parts.append(f"\n## {program}\n")
        parts.append(f"\n| {program} | in | here |\n| --- | --- | --- |\n")
        for block, names in blocks.items():
            said: dict[str, list[str]] = {}
            for name in names.split():
                said.setdefault(answer(name, block), []).append(f"`{name}`")
            parts += [f"| {', '.join(of)} | `{block}` | {text} |\n" for text, of in said.items()]
    return "".join(parts)


def answer(name: str, block: str) -> str:
    """What is said of a term in a block, without the question that it begins with there."""
    model = r.BLOCKS.get(block) or r.STAGES[block]
    known = r.attributes(model)
    if name in known:
        return f"the same: {known[name].doc}"
    said = lacking.instead_of(name, known, model).replace("|", "\\|")
    return _MEANT.sub(r"\1. ", said).removesuffix(". ")


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
