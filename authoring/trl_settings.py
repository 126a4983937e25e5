"""Settings of TRL's commands: which of them know which, and what becomes of those that change no
training here, or that etude cannot follow.

The names are those of TRL 1.x and transformers 5 (`trl/trainer/*_config.py`, `TrainingArguments`).
"""

from typing import Any, NamedTuple

_FOLDER = "a run writes only to its folder"
_LOGGED = "logging has no settings"
_LOADING = "data loading has no settings"
_EVALUATED = "write `evaluate = { … }` in the stage"
_KEPT = "checkpoints have no other settings"
_SHARDED = "weights are always sharded (FSDP2)"
_SPEED = "speed and memory only"
_WRITER = "who writes the answers follows from the cluster"
_OTHER = "belongs to an objective that is not this one"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


class Command(NamedTuple):
    """A command of TRL, and the stage that does the same.

    Attributes:
        name: of the command and of the kind of stage.
        unit: what a batch counts.
        rate: the learning rate without `learning_rate`.
        losses: what `loss_type` may be.
        own: its settings that not all commands have.
    """

    name: str
    unit: str
    rate: str
    losses: frozenset[str]
    own: frozenset[str]


COMMANDS = (
    Command(
        "sft",
        "dialogs",
        "2e-5",
        _names("nll chunked_nll dft"),
        _names(
            """
            activation_offloading assistant_only_loss chat_template_path
            completion_only_loss dataset_kwargs dataset_num_proc dataset_text_field
            eos_token eval_packing loss_type max_length packing packing_strategy pad_token
            padding_free router_aux_loss_coef shuffle_dataset truncation_mode
            """
        ),
    ),
    Command(
        "dpo",
        "pairs",
        "1e-6",
        _names(
            """
            sigmoid sigmoid_norm hinge ipo exo_pair nca_pair robust bco_pair sppo_hard aot
            aot_unpaired apo_zero apo_down discopop sft
            """
        ),
        _names(
            """
            activation_offloading beta dataset_num_proc disable_dropout discopop_tau
            f_alpha_divergence_coef f_divergence_type label_smoothing ld_alpha loss_type
            loss_weights max_length pad_token padding_free precompute_ref_batch_size
            precompute_ref_log_probs ref_model_mixup_alpha ref_model_sync_steps
            router_aux_loss_coef sync_ref_model truncation_mode use_weighting
            """
        ),
    ),
    Command(
        "grpo",
        "prompts",
        "1e-6",
        _names("grpo dapo dr_grpo bnpo cispo sapo luspo vespo"),
        _names(
            """
            beta cache_implementation cast_lm_head_to_fp32 chat_template_kwargs delta
            disable_dropout ds3_gather_for_generation entropy_coef entropy_coef_delta
            entropy_coef_max entropy_coef_min entropy_target epsilon epsilon_high
            generation_batch_size generation_kwargs importance_sampling_level
            log_completions log_completions_hub_repo log_multimodal log_unique_prompts
            loss_type mask_truncated_completions max_completion_length
            max_tool_calling_iterations min_p multi_objective_aggregation
            num_completions_to_print num_generations num_generations_eval num_iterations
            off_policy_mask_threshold ref_model_mixup_alpha ref_model_sync_steps
            repetition_penalty reward_funcs reward_model_name_or_path
            reward_weights router_aux_loss_coef sapo_temperature_neg sapo_temperature_pos
            scale_rewards shuffle_dataset steps_per_generation sync_ref_model temperature
            top_entropy_quantile top_k top_p transformers_continuous_batching_config
            use_adaptive_entropy use_bias_correction_kl use_transformers_continuous_batching
            use_transformers_paged use_vllm vespo_k_neg vespo_k_pos vespo_lambda_neg
            vespo_lambda_pos vllm_enable_sleep_mode vllm_gpu_memory_utilization
            vllm_group_port vllm_importance_sampling_cap vllm_importance_sampling_clip_max
            vllm_importance_sampling_clip_min vllm_importance_sampling_correction
            vllm_importance_sampling_mode vllm_max_model_length vllm_mode vllm_model_impl
            vllm_server_base_url vllm_server_host vllm_server_port vllm_server_timeout
            vllm_structured_outputs_regex vllm_tensor_parallel_size
            """
        ),
    ),
    Command(
        "kto",
        "ratings",
        "1e-6",
        _names("kto apo_zero_unpaired"),
        _names(
            """
            activation_offloading beta dataset_num_proc desirable_weight disable_dropout
            loss_type max_length precompute_ref_batch_size precompute_ref_log_probs
            ref_model_mixup_alpha ref_model_sync_steps router_aux_loss_coef sync_ref_model
            undesirable_weight
            """
        ),
    ),
    Command(
        "reward",
        "pairs",
        "1e-4",
        _names(""),
        _names(
            """
            activation_offloading center_rewards_coefficient chat_template_path
            dataset_num_proc disable_dropout eos_token max_length pad_token
            """
        ),
    ),
    # Of TRL's `PRMTrainer`, which 1.16 no longer has (0.20, `trl/trainer/prm_config.py`).
    Command(
        "prm",
        "solutions",
        "1e-5",
        _names(""),
        _names(
            """
            dataset_num_proc disable_dropout max_completion_length max_length max_prompt_length
            step_separator train_on_last_step_only
            """
        ),
    ),
)
OWN = {command.name: command.own for command in COMMANDS}


def _each(names: str, reason: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), reason)


ARGUMENTS: dict[str, str] = {
    **_each("output_dir overwrite_output_dir logging_dir run_name project", _FOLDER),
    **_each(
        """
        debug disable_tqdm include_for_metrics include_num_input_tokens_seen
        include_tokens_per_second log_level log_level_replica log_on_each_node
        logging_first_step logging_nan_inf_filter
        logging_steps logging_strategy skip_memory_metrics trackio_bucket_id trackio_space_id
        trackio_static_space_id
        """,
        _LOGGED,
    ),
    **_each(
        """
        dataloader_in_order dataloader_multiprocessing_context dataloader_num_workers
        dataloader_persistent_workers dataloader_pin_memory dataloader_prefetch_factor
        length_column_name label_names remove_unused_columns dataset_streaming streaming
        train_sampling_strategy group_by_length
        """,
        _LOADING,
    ),
    **_each(
        """
        batch_eval_metrics bf16_full_eval fp16_full_eval do_eval eval_accumulation_steps eval_delay
        eval_do_concat_batches eval_on_start eval_use_gather_object greater_is_better
        metric_for_best_model per_device_eval_batch_size prediction_loss_only dataset_test_split
        """,
        _EVALUATED,
    ),
    **_each(
        """
        enable_jit_checkpoint ignore_data_skip restore_callback_states_from_checkpoint
        resume_from_checkpoint save_on_each_node save_only_model save_safetensors do_train
        do_predict
        """,
        _KEPT,
    ),
    **_each(
        """
        accelerator_config ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb
        ddp_find_unused_parameters ddp_static_graph ddp_timeout deepspeed fsdp fsdp_config
        local_rank parallelism_config auto_find_batch_size
        """,
        _SHARDED,
    ),
    **_each(
        """
        activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing_kwargs
        liger_kernel_config tf32 torch_compile torch_compile_backend torch_compile_mode
        torch_empty_cache_steps use_liger_kernel attn_implementation use_cache use_cpu
        """,
        _SPEED,
    ),
    **_each(
        """
        hub_always_push hub_model_id hub_private_repo hub_revision hub_strategy hub_token
        push_to_hub
        """,
        "`etude push` sends results to the Hub",
    ),
    "average_tokens_across_devices": "the loss is the mean over the tokens of all devices",
    "full_determinism": "runs are deterministic",
    "data_seed": "one seed for all: that of the recipe",
}
"""Settings of transformers' Trainer that change no training here."""

IRRELEVANT: dict[str, str] = {
    **_each(
        """
        activation_offloading padding_free pad_to_multiple_of packing_strategy eval_packing
        pad_token precompute_ref_batch_size ds3_gather_for_generation cache_implementation
        vllm_enable_sleep_mode
        """,
        _SPEED,
    ),
    **_each(
        """
        use_vllm vllm_mode vllm_model_impl vllm_server_base_url vllm_server_host vllm_server_port
        vllm_server_timeout vllm_group_port vllm_gpu_memory_utilization vllm_max_model_length
        vllm_tensor_parallel_size use_transformers_paged use_transformers_continuous_batching
        transformers_continuous_batching_config
        """,
        _WRITER,
    ),
    **_each(
        """
        log_completions log_multimodal num_completions_to_print log_unique_prompts
        log_completions_hub_repo num_generations_eval
        """,
        _LOGGED,
    ),
    **_each(
        """
        discopop_tau f_alpha_divergence_coef sapo_temperature_neg sapo_temperature_pos vespo_k_neg
        vespo_k_pos vespo_lambda_neg vespo_lambda_pos entropy_coef_delta entropy_coef_max
        entropy_coef_min entropy_target ref_model_mixup_alpha ref_model_sync_steps loss_weights
        """,
        _OTHER,
    ),
    "precompute_ref_log_probs": "they are always computed once, before",
    "dataset_num_proc": _LOADING,
    "dataset_text_field": "dialogs have no such field",
    "truncation_mode": "records that are too long are dropped",
    "shuffle_dataset": "records are always shuffled, by the seed",
    "trust_remote_code": "code that comes with models is never run",
    "disable_dropout": "models have no dropout",
    "ignore_bias_buffers": _SHARDED,
    "cast_lm_head_to_fp32": "logits are computed in fp32",
    "lora_task_type": "the stage's",
    "bnb_4bit_quant_type": "weights are not quantized",
    "bnb_4bit_quant_storage": "weights are not quantized",
    "use_bnb_nested_quant": "weights are not quantized",
    "test_split_size": "nothing is evaluated",
    "load_best_model_at_end": "nothing is evaluated",
    "sync_ref_model": "there is no reference",
}
"""Settings of TRL that change no training here."""

_OFF: list[Any] = [False, 0]
UNLESS: dict[str, tuple[list[Any], str]] = {
    "load_in_8bit": (_OFF, "weights are not quantized"),
    "load_in_4bit": (_OFF, "weights are not quantized"),
    "lora_target_parameters": ([], "adapters stand beside the matrices of linear layers"),
    "lora_modules_to_save": ([], "beside adapters nothing is trained"),
    "model_init_kwargs": ([], "the shape is the model's"),
    "dataset_kwargs": ([], "data loading has no settings"),
    "eos_token": ([], "special tokens come from the tokenizer and the dialog"),
    "chat_template_kwargs": ([], "a template has no settings"),
    "neftune_noise_alpha": (_OFF, "no noise is added"),
    "label_smoothing_factor": (_OFF, "of language models there is none"),
    "lr_scheduler_kwargs": ([], "write the shape into `lr`"),
    "optim_args": ([], "an optimizer has the settings that the spec writes"),
    "optim_target_modules": ([], "all matrices have one optimizer"),
    "dataloader_drop_last": (
        [False],
        "write `drop_last = true` in a stage of one data set",
    ),
    "ld_alpha": ([], "there is no length desensitization; `length_penalty` is another"),
    "f_divergence_type": (["reverse_kl"], "the divergence is the reverse KL"),
    "use_weighting": (_OFF, "pairs have equal weights"),
    "sync_ref_model": (_OFF, "the reference stays what it is"),
    "router_aux_loss_coef": (_OFF, "routers have losses in `train` stages alone"),
    "delta": ([], "ratios are clipped by `clip_ratio` alone"),
    "top_p": ([1], "a policy draws from all of its tokens"),
    "top_k": (_OFF, "a policy draws from all of its tokens"),
    "min_p": (_OFF, "a policy draws from all of its tokens"),
    "repetition_penalty": ([1], "a policy draws from all of its tokens"),
    "generation_kwargs": ([], "a policy draws from all of its tokens"),
    "vllm_structured_outputs_regex": ([], "a policy draws from all of its tokens"),
    "max_tool_calling_iterations": ([], "answers call no tools"),
    "multi_objective_aggregation": (
        ["sum_then_normalize"],
        "rewards are added, and the sum is normalized",
    ),
    "top_entropy_quantile": ([1], "all tokens are learned"),
    "entropy_coef": (_OFF, "there is no bonus for entropy"),
    "use_adaptive_entropy": (_OFF, "there is no bonus for entropy"),
    "off_policy_mask_threshold": ([], "answers are masked by their length alone"),
    "use_bias_correction_kl": (_OFF, "the divergence is not weighted"),
    **dict.fromkeys(
        (
            "vllm_importance_sampling_correction",
            "vllm_importance_sampling_mode",
            "vllm_importance_sampling_cap",
            "vllm_importance_sampling_clip_max",
            "vllm_importance_sampling_clip_min",
        ),
        (
            [],
            "probabilities of the writing model are computed by the engine that trains, so the "
            "writer's own are not compared with them",
        ),
    ),
}
"""Settings that change training unless they have one of some values, and what is so here."""
