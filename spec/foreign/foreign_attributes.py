"""Attributes from other programs, and what this version does instead.

If two answers have the same name and block, the first counts.
"""

from typing import NamedTuple

ANY = "any"
"""An answer that holds wherever the name is."""


OBJECTIVES = "ppo"
"""Objectives of other programs for preferences and rewards that this version lacks."""
OF_DPO = "sigmoid ipo simpo cpo orpo apo apo_zero apo_down robust robust_dpo hinge slic slic_hf"
"""Their names for losses of a dpo stage."""


class Answer(NamedTuple):
    """An answer about some names.

    Attributes:
        names: as other programs write them, separated by spaces.
        where: the blocks in which it holds, separated by spaces, or `ANY`; for values, the
            attribute or the place in a spec.
        says: one line; `{}` stands for the example.
        example: statements of such a block, or whole blocks: valid as they are.
    """

    names: str
    where: str
    says: str
    example: str = ""

    @property
    def text(self) -> str:
        return self.says.replace("{}", f"`{self.example}`")

    @property
    def all_names(self) -> list[str]:
        return self.names.split()


NOT_YET = (
    Answer(
        "mask_truncated_completions overlong_filtering",
        "grpo",
        "answers that are cut off are left out by {}",
        "mask_truncated = true",
    ),
    Answer(
        "active_sampling filter_groups filter_zero_std_samples dynamic_sampling_filter",
        "grpo",
        "prompts whose answers are all right or all wrong are replaced by {}",
        "dynamic_sampling = { most = 10 }",
    ),
    Answer(
        "num_samples_per_prompt_rollout rollouts_per_prompt",
        "grpo",
        "the answers to a prompt are its group: {}",
        "group = 8",
    ),
    Answer(
        "lora peft adapters use_lora use_peft lora_r lora_rank lora_alpha lora_target_modules "
        "lora_target_linear lora_config peft_config target_modules use_rslora",
        "train sft reward dpo",
        "it is `adapter` here, which trains low-rank matrices beside frozen weights: "
        "`adapter = lora { rank = 16, alpha = 32 }`",
    ),
    Answer(
        "qlora dora loftq ia3 prefix_tuning prompt_tuning modules_to_save lora_dropout "
        "lora peft adapters use_lora use_peft lora_r lora_rank lora_alpha lora_target_modules "
        "lora_target_linear lora_config peft_config target_modules",
        ANY,
        "this version has LoRA alone, without dropout, beside weights that are not quantized: "
        "`adapter = lora` in a stage that trains",
    ),
    Answer(
        "load_in_8bit load_in_4bit quantization quantize quantization_config bnb_config gptq awq "
        "bnb_4bit_quant_type bnb_4bit_compute_dtype qat int8 int4",
        ANY,
        "this version does not quantize: weights are trained in fp32. Remove it, and quantize "
        "the exported model with another program",
    ),
    Answer(
        "fp8 mxfp8 nvfp4 float8 mxfp4 fp8_recipe enable_fp8 fp8_format",
        ANY,
        "products in 8 or 4 bits are a `precision` of a stage: {}",
        "stage long: train { from = pretrain, steps = 10, precision = fp8 }",
    ),
    Answer(
        "muon muon_lr muon_momentum muon_ns_steps",
        ANY,
        "Muon is an `optimizer` of a stage, with one rate for all parameters: {}",
        "stage long: train { from = pretrain, steps = 10, optimizer = muon { momentum = 0.95 } }",
    ),
    Answer(
        "sophia shampoo soap",
        ANY,
        "the optimizers in this version are `adamw`, `adam`, `muon`, `adafactor` and `lion`; "
        "learning rates for other optimizers do not suit them",
    ),
    Answer(
        "adafactor",
        ANY,
        "Adafactor is an `optimizer` of a stage: {}",
        "stage long: train { from = pretrain, steps = 10, optimizer = adafactor }",
    ),
    Answer(
        "lion",
        ANY,
        "Lion is an `optimizer` of a stage: {}",
        "stage long: train { from = pretrain, steps = 10, optimizer = lion }",
    ),
    Answer(
        "mtp_num_layers num_mtp_layers num_nextn_predict_layers multi_token_prediction "
        "mtp_num_depths",
        ANY,
        "how many further tokens a model learns to predict is `mtp` of the model: {}",
        'model deeper { family = deepseek_v3, size = "16B-A3B", mtp = 1 }',
    ),
    Answer(
        "mtp_scale mtp_loss_scaling_factor mtp_loss_weight mtp_loss_coef",
        ANY,
        "the weight of the loss of further tokens is `mtp_loss` of a train stage, whose model has "
        "`mtp`",
    ),
    Answer(
        "z_loss_weight zloss z_loss_coef z_loss_coefficient z_loss_multiplier",
        ANY,
        "the coefficient of log² Z is `z_loss` of a train stage: {}",
        "stage long: train { from = pretrain, steps = 10, z_loss = 1e-4 }",
    ),
    Answer(
        "router_z_loss_coef moe_z_loss_coeff moe_zloss_weight",
        ANY,
        "the coefficient of log² Z of routers is `router_z_loss` of a train stage",
    ),
    Answer(
        "aux_loss aux_loss_alpha aux_loss_coef router_aux_loss_coef moe_aux_loss_coeff "
        "load_balance_loss load_balancing_loss balance_loss moe_loss_weight",
        ANY,
        "a train stage has `sequence_balance_loss`, within a sequence, and `batch_balance_loss`, "
        "over a batch: coefficients of losses that balance experts",
    ),
    Answer(
        "load_balance_coeff",
        ANY,
        "`balance` in `experts` of a model balances experts by a bias on the choice",
    ),
    Answer(
        "dropout hidden_dropout attention_dropout attn_dropout resid_pdrop embd_pdrop "
        "neftune_noise_alpha neft_alpha label_smoothing_factor",
        ANY,
        "this version trains without dropout, noise on embeddings and smoothed labels; only a dpo "
        "stage has `label_smoothing`",
    ),
    Answer(
        "freeze frozen freeze_layers freeze_embeddings unfrozen_parameters trainable_layers "
        "layerwise_lr_decay param_groups embedding_lr embedding_learning_rate",
        ANY,
        "this version trains every weight, or adapters alone, all at the rate that `lr` says. "
        "Remove it",
    ),
    Answer(
        "teacher_model teacher_model_name_or_path distill distillation kd kd_loss gkd "
        "kd_temperature",
        ANY,
        "a teacher's probabilities are learned in a stage of a kind of its own: {}",
        "stage x: distill { from = pretrain, teacher = more, data = chats, steps = 50, lr = 1e-5 }",
    ),
    Answer(
        OF_DPO,
        ANY,
        "losses of preferences are the `objective` of a dpo stage: {}",
        "stage x: dpo { from = pretrain, data = ranked, steps = 50, batch = 16 pairs, lr = 1e-6, "
        "objective = simpo }",
    ),
    Answer(
        "num_generations reward_funcs rl rlhf rlvr reinforce grpo rloo dr_grpo dapo gspo kl_coef "
        "kl_coeff",
        ANY,
        "reinforcement learning has a kind of stage of its own, which writes answers, has them "
        "scored, and learns: {}",
        "stage x: grpo { data = asked, steps = 100, batch = 16 prompts, lr = 1e-6, "
        "max_tokens = 64, reward = right }",
    ),
    Answer(
        "use_vllm vllm",
        ANY,
        "etude chooses what writes text: vLLM on GPUs, in a phase of its own, and transformers on "
        "CPUs",
    ),
    Answer(
        "kto kto_tag",
        ANY,
        "answers that are rated good or bad are the data of a kto stage: {}",
        "stage x: kto { from = pretrain, data = rated, steps = 50, batch = 64 ratings, lr = 1e-6 }",
    ),
    Answer(
        OBJECTIVES,
        ANY,
        "this version has no PPO, which needs a model of values: a grpo stage learns from rewards "
        "without one, and a dpo stage from preferences",
    ),
    Answer(
        "early_stopping early_stopping_patience early_stopping_threshold",
        ANY,
        "`patience` of `evaluate` ends a stage whose held-out loss no longer falls: {}",
        "stage long: train { from = pretrain, steps = 400, lr = 1e-4, "
        "evaluate = { every = 50 steps, loss = [web], patience = 3 } }",
    ),
    Answer(
        "dedup deduplicate deduplication minhash decontaminate decontamination",
        ANY,
        "this version removes no duplicates: do it before, and name the files that are left",
    ),
)
"""What this version does not have."""

OUTSIDE = (
    Answer(
        "output_dir checkpoint_folder save_folder checkpoint_dir checkpoints_path checkpoint_path "
        "save_dir save_path ckpt_dir ckpt_path dump_folder out_dir output_path output_folder "
        "run_folder folder logging_dir log_dir save_to s3 bucket",
        ANY,
        "name a run's folder when you start it: `etude run SPEC --folder FOLDER`. It may be in an "
        "object store: `--folder s3://BUCKET/PATH`",
    ),
    Answer(
        "push_to_hub hub_model_id hub_strategy hub_token hub_private_repo",
        ANY,
        "a run uploads nothing. When it is done, push the model of a stage: `etude push FOLDER "
        "STAGE --to hf://ORG/NAME`",
    ),
    Answer(
        "resume resume_from_checkpoint auto_resume auto_resume_from_checkpoints resume_path "
        "resume_checkpoint_path load_checkpoint_path",
        ANY,
        "to resume, run the same command again: it continues where it stopped",
    ),
    Answer(
        "torch_compile compile compile_model liger liger_kernel use_liger_kernel "
        "cut_cross_entropy fused fused_optimizer tf32 num_workers dataloader_num_workers "
        "dataloader_pin_memory pin_memory prefetch_factor num_proc dataset_num_proc "
        "preprocessing_num_workers",
        ANY,
        "it affects only the speed, and the engine chooses it. Remove it",
    ),
    Answer(
        "logging_steps logging_strategy log_interval log_freq log_every log_every_n_steps "
        "iteration_step_info_interval",
        ANY,
        "every step is logged, in `metrics/JOB.jsonl` of the run folder. Remove it",
    ),
    Answer(
        "save_only_model save_safetensors",
        ANY,
        "a checkpoint has all that training needs to continue, and results are exported as "
        "safetensors. Remove it",
    ),
    Answer(
        "shuffle shuffle_seed data_shuffle shuffle_merged_datasets shuffle_data",
        ANY,
        "data are always shuffled, by the recipe's `seed`. Remove it",
    ),
    Answer(
        "trust_remote_code",
        ANY,
        "code that comes with weights or data is never executed. Remove it",
    ),
)
"""What a spec does not say."""
