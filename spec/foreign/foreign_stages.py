"""Attributes of stages from other programs."""

from .foreign_attributes import Answer

_TRAIN = "train sft reward dpo"
_PAIRS = "reward dpo"
_EVALUATIONS = (
    "eval evals evaluation validate validation eval_steps eval_strategy evaluation_strategy "
    "eval_interval eval_freq eval_every evals_per_epoch do_eval val_check_interval val_interval "
    "eval_dataset eval_datasets eval_data validation_data val_data test_datasets eval_batch_size "
    "per_device_eval_batch_size compute_metrics"
)
_EVALUATE = "did you mean `evaluate`? Losses of held-out data are measured while a stage trains"
_BEST = "metric_for_best_model load_best_model_at_end greater_is_better"
_KEEP = "`keep = best` makes the checkpoint with the lowest loss the stage's result"
_LR = "lr = 0 -> 3e-4 for 100 steps then -> 3e-5 cosine"

STAGES = (
    Answer(
        "warmup warmup_steps warmup_ratio warmup_tokens warmup_iters num_warmup_steps "
        "lr_warmup_steps lr_warmup_iters lr_warmup_samples warmup_fraction warmup_init "
        "warmup_epochs",
        _TRAIN,
        "a warm-up is the first segment of `lr`, `for` steps, tokens or a share of the stage: {}",
        _LR,
    ),
    Answer(
        "learning_rate max_lr peak_lr base_lr init_lr learning_rate_schedule",
        _TRAIN,
        "did you mean `lr`? The rate and its whole schedule are one value: {}",
        _LR,
    ),
    Answer(
        "lr_scheduler lr_scheduler_type lr_scheduler_kwargs lr_schedule scheduler scheduler_type "
        "lr_decay lr_decay_style lr_decay_type lr_decay_steps lr_decay_iters decay_steps "
        "decay_ratio decay_type lr_decay_ratio lr_decay_starting_step min_lr min_lr_ratio "
        "min_lr_rate min_lr_factor min_decay_lr cosine_min_lr_ratio final_lr end_lr",
        _TRAIN,
        "the schedule is the value of `lr`, in segments with an end and a shape (linear, cosine, "
        "half_cosine, sqrt, exponential, inverse, inverse_sqrt): {}",
        "lr = 0 -> 3e-4 for 2% then 3e-4 until 80% then -> 0 sqrt",
    ),
    Answer(
        "num_cycles lr_num_cycles n_cycles cycles restarts num_restarts warm_restarts t_0 t_mult "
        "cycle_length",
        _TRAIN,
        "cycles are repeated segments of `lr`; without a length, they fill the stage: {}",
        "lr = 0 -> 3e-4 for 2% then repeat 4 times { 3e-4 -> 3e-5 cosine }",
    ),
    Answer(
        "start_weight_decay end_weight_decay weight_decay_incr_style weight_decay_schedule",
        _TRAIN,
        "`weight_decay` of the optimizer may be a schedule: {}",
        "optimizer = adamw { weight_decay = 0.01 -> 0.1 cosine }",
    ),
    Answer(
        "bias_update_rate bias_update_speed moe_router_bias_update_rate "
        "router_bias_update_rate expert_bias_update_rate",
        _TRAIN,
        "did you mean `balance`? It may change during a stage; `experts` of a model have it, too",
    ),
    Answer(
        "max_grad_norm grad_clip clip_grad clip_grad_norm gradient_clipping gradient_clip "
        "gradient_clip_val max_norm grad_norm_clip",
        _TRAIN,
        "did you mean `clip`? It is the maximum gradient norm, 1 by default: {}",
        "clip = 1.0",
    ),
    Answer(
        "weight_decay betas adam_beta1 adam_beta2 beta1 beta2 beta_1 beta_2 eps epsilon "
        "adam_epsilon adam_eps optim_args optimizer_kwargs",
        _TRAIN,
        "this is a part of the optimizer: {}",
        "optimizer = adamw { betas = [0.9, 0.95], weight_decay = 0.1, eps = 1e-8 }",
    ),
    Answer(
        "rampup_batch_size batch_size_rampup batch_size_schedule batch_warmup",
        "train",
        "`batch` may change over time: {}",
        "batch = 64 seqs for 50% then 128 seqs",
    ),
    Answer(
        "train_samples max_samples num_samples",
        _TRAIN,
        "the length of a stage is in `tokens`, `steps` or `epochs`: {}",
        "steps = 1000",
    ),
    Answer(
        "data_stages data_schedule curriculum",
        "train",
        "`data` may change over time: {}",
        "data = { web 100% } for 50% then { web 60%, code 40% }",
    ),
    Answer(
        "enable_profiling profiling profiler_step use_pytorch_profiler",
        _TRAIN,
        "did you mean `profile`? {}",
        "profile = { steps = [10..12] }",
    ),
    Answer(
        "optim optimizer_name optimizer_type optimiser",
        _TRAIN,
        "did you mean `optimizer`? There are `adamw`, `adam`, `muon`, `adafactor` and `lion`: {}",
        "optimizer = adamw { weight_decay = 0.1 }",
    ),
    Answer(
        "batch_size global_batch_size train_batch_size gbs mbs bsz micro_batch micro_batch_size "
        "per_device_train_batch_size per_device_batch_size device_batch_size local_batch_size "
        "device_train_microbatch_size gradient_accumulation_steps gradient_accumulation "
        "grad_accum grad_accum_steps accumulate_grad_batches batch_accumulation_per_replica",
        "train sft",
        "`batch` is the global batch of a step, and `micro_batch` what a rank processes at a "
        "time; the rest is accumulated: {}",
        "batch = 64 seqs, parallel = { micro_batch 2 }",
    ),
    Answer(
        "batch_size global_batch_size train_batch_size gbs mbs bsz micro_batch micro_batch_size "
        "per_device_train_batch_size per_device_batch_size device_batch_size local_batch_size "
        "device_train_microbatch_size gradient_accumulation_steps gradient_accumulation "
        "grad_accum grad_accum_steps accumulate_grad_batches batch_accumulation_per_replica",
        _PAIRS,
        "`batch` is the global batch of a step in pairs, and `micro_batch` the pairs that a rank "
        "processes at a time; the rest is accumulated: {}",
        "batch = 64 pairs, parallel = { micro_batch 2 }",
    ),
    Answer(
        "max_steps train_steps num_steps total_steps n_steps train_iters max_iters iterations "
        "num_iterations num_train_steps training_steps num_training_steps",
        _TRAIN,
        "did you mean `steps`? {}",
        "steps = 1000",
    ),
    Answer(
        "num_epochs num_train_epochs n_epochs max_epochs epoch train_epochs",
        _TRAIN,
        "did you mean `epochs`? {}, of as many tokens or pairs as the datasets declare",
        "epochs = 2",
    ),
    Answer(
        "train_tokens max_tokens total_tokens num_tokens n_tokens token_budget training_tokens",
        "train sft",
        "did you mean `tokens`? {}",
        "tokens = 100M",
    ),
    Answer(
        "train_tokens max_tokens total_tokens num_tokens n_tokens token_budget",
        _PAIRS,
        "the length of preferences is known only once they are read, so use `steps` or `epochs`: "
        "{}",
        "steps = 500",
    ),
    Answer(
        "sequence_len sequence_length seq_length seqlen max_length max_len max_seq_length "
        "max_seq_len max_sequence_length model_max_length context_length context_len context "
        "block_size cutoff_len ctx_len n_ctx context_window max_prompt_length "
        "max_completion_length max_position_embeddings",
        _TRAIN,
        "did you mean `seq_len`? {}. `long` of the dataset says what to do with longer records",
        "seq_len = 2Ki",
    ),
    Answer(
        "packing sample_packing pack packed neat_packing pack_sequences padding_free multipack "
        "eval_sample_packing pad_to_sequence_len group_by_length packing_strategy",
        "train sft",
        "rows are always packed with documents or whole dialogs, which do not attend to each "
        "other. Remove it",
    ),
    Answer(
        "packing sample_packing pack packed pad_to_sequence_len group_by_length padding_free",
        _PAIRS,
        "rows of preferences are not packed, but padded to the longest. Remove it",
    ),
    Answer(
        "flash_attention flash_attn flash_attention_2 use_flash_attention use_flash_attention_2 "
        "attn_implementation attention_backend attn_backend sdp_attention sdpa "
        "xformers_attention xformers flex_attention",
        _TRAIN,
        "documents are always apart, by FlexAttention. FlashAttention is `attention = varlen`, or "
        "`flex_flash` from Hopper on",
    ),
    Answer(
        "gradient_checkpointing grad_checkpointing activation_checkpointing checkpoint_activations "
        "activation_checkpoint activation_checkpoint_mode gradient_checkpointing_kwargs "
        "recomputation recompute_granularity recompute_layer recompute_method use_checkpointing",
        _TRAIN,
        "did you mean `recompute`? It is `none`, `selective`, `full` or `budget 60%`: {}",
        "recompute = full",
    ),
    Answer(
        "bf16 fp16 fp32 dtype torch_dtype mixed_precision amp half bfloat16 float16 compute_dtype "
        "param_dtype mixed_precision_param mixed_precision_reduce accumulate_grad_in_fp32",
        _TRAIN,
        "the passes are computed in bf16, fp32 or 8 and 4 bits, and weights and moments are always "
        "fp32: {}",
        "precision = bf16",
    ),
    Answer(
        "deepspeed fsdp fsdp2 fsdp_config fsdp_version zero zero1 zero2 zero3 zero_stage ddp hsdp "
        "strategy distributed distributed_strategy sharding sharding_strategy accelerator",
        _TRAIN,
        "weights, gradients and moments are sharded over all data-parallel ranks (FSDP2), unless "
        "`parallel` says otherwise: {}",
        "parallel = { shard 8, replicate 2 }",
    ),
    Answer(
        "tp pp cp ep dp sp tensor pipeline shard replicate expert tensor_parallel "
        "tensor_parallel_size tensor_parallel_degree tensor_model_parallel_size "
        "pipeline_parallel pipeline_parallel_size pipeline_parallel_degree "
        "pipeline_model_parallel_size context_parallel context_parallel_size "
        "context_parallel_degree sequence_parallel sequence_parallel_size "
        "sequence_parallel_degree expert_parallel expert_parallel_size expert_parallel_degree "
        "expert_model_parallel_size data_parallel data_parallel_size data_parallel_shard_degree "
        "data_parallel_replicate_degree dp_shard dp_shard_size dp_replicate dp_replicate_size "
        "parallelism vpp",
        _TRAIN,
        "this is a part of `parallel`, whose degrees are tensor, context, pipeline, interleave, "
        "shard, replicate and expert; data parallelism takes the ranks that remain: {}",
        "parallel = { tensor 8 }",
    ),
    Answer(
        "eval_steps eval_interval eval_freq eval_every interval freq frequency steps",
        "evaluation",
        "did you mean `every`? {}",
        "every = 100 steps, loss = [web]",
    ),
    Answer(
        "data dataset datasets heldout eval_dataset eval_datasets validation_data val_data",
        "evaluation",
        "did you mean `loss`? It lists data sets whose held-out part is measured: {}",
        "loss = [web], every = 100 steps",
    ),
    Answer(
        "early_stopping early_stopping_patience early_stopping_threshold",
        "evaluation",
        "did you mean `patience`? It counts evaluations without a new lowest loss: {}",
        "patience = 3, every = 100 steps, loss = [web]",
    ),
    Answer(
        "metric metric_for_best_model load_best_model_at_end greater_is_better save_best best",
        "evaluation",
        "did you mean `keep`? The checkpoint with the lowest loss becomes the result: {}",
        "keep = best, every = 100 steps, loss = [web]",
    ),
    Answer(
        _EVALUATIONS,
        "train sft dpo",
        f"{_EVALUATE}: {{}}",
        "evaluate = { every = 100 steps, loss = [web] }",
    ),
    Answer(
        _EVALUATIONS,
        "reward",
        f"{_EVALUATE}: {{}}",
        "evaluate = { every = 100 steps, loss = [ranked] }",
    ),
    Answer(
        _BEST,
        "train sft dpo",
        f"{_KEEP}: {{}}",
        "evaluate = { every = 100 steps, loss = [web], keep = best }",
    ),
    Answer(
        _BEST,
        "reward",
        f"{_KEEP}: {{}}",
        "evaluate = { every = 100 steps, loss = [ranked], keep = best }",
    ),
    Answer(
        "save save_steps save_interval save_every save_freq save_strategy saves_per_epoch "
        "checkpoint_interval checkpoint_every checkpoint_steps checkpoint_freq ckpt_interval "
        "checkpoints checkpointing enable_checkpoint",
        _TRAIN,
        "how often training can be resumed is a statement: {}",
        "checkpoint every 500 steps",
    ),
    Answer(
        "save_total_limit keep_latest_k keep_last_n max_checkpoints",
        _TRAIN,
        "how many checkpoints to keep is a statement: {}",
        "keep last 2",
    ),
    Answer(
        "use_ema ema_decay ema_rate ema_beta ema_weight",
        _TRAIN,
        "the moving average of the weights is set by its decay: {}",
        "ema = 0.999",
    ),
    Answer(
        "swa swa_lr swa_start stochastic_weight_averaging",
        _TRAIN,
        "the plain mean of the weights over the end of a stage: {}",
        "average = polyak every 10 steps over 50%",
    ),
    Answer(
        "base_model model_name model_name_or_path model_path pretrained pretrained_model "
        "pretrained_model_name_or_path init_from load_from load_weights initial_load_path hf_model "
        "model_id hub weights_path finetune_from",
        f"{_TRAIN} score sample evaluate",
        "published weights belong to a model, which a stage names in `from`: {}",
        'model base { size = "8B", hub = "meta-llama/Meta-Llama-3-8B", context = 8Ki }',
    ),
    Answer(
        "chat_template chat_template_jinja jinja_template conversation_template prompt_template "
        "prompt_format prompt_style template chat_format",
        f"{_TRAIN} dataset tokenizer sample evaluate",
        'a dialog block says how dialogs are written, by a protocol or `template = "FILE"`: {}',
        "dialog chat { protocol = chatml }",
    ),
    Answer(
        "system_prompt system_message default_system_message default_system",
        f"{_TRAIN} dataset sample evaluate",
        "a dialog block sets the system prompt for dialogs without one: {}",
        'dialog chat { protocol = chatml, system = "You are a helpful assistant." }',
    ),
    Answer(
        "train_on_inputs train_on_input train_on_prompt mask_prompt mask_inputs "
        "completion_only_loss completions_only assistant_only_loss only_train_on_assistant "
        "train_on_responses_only train_on_completions_only roles_to_train train_on_eos "
        "loss_mask mask_history",
        "sft",
        "an sft stage learns what the assistant says and its end tokens, or every token with {}",
        "loss = all",
    ),
    Answer(
        "special_tokens add_special_tokens added_tokens pad_token eos_token bos_token unk_token "
        "add_bos_token add_eos_token pad_token_id eos_token_id bos_token_id tokens_to_add",
        f"{_TRAIN} dataset tokenizer model dialog",
        "the tokenizer's files say which tokens begin and end a text, and padding has no token; "
        "a tokenizer that is trained here takes those of the protocol. Remove it",
    ),
    Answer(
        "data_path dataset dataset_name dataset_path datasets dataset_mixer dataset_weights "
        "data_files data_mix data_mixture data_weights interleave interleave_datasets mix "
        "mixing_weights mixture pretraining_dataset probabilities proportions sampling_weights "
        "train_data train_dataset train_datasets train_file train_files training_data weights",
        "train",
        "did you mean `data`? It names a dataset, or several with their shares: {}",
        "data = { web 60%, code 40% }",
    ),
    Answer(
        "data_path dataset dataset_name dataset_path datasets dataset_mixer dataset_weights "
        "data_files data_mix data_mixture data_weights interleave interleave_datasets mix "
        "mixing_weights mixture probabilities proportions sampling_weights train_data "
        "train_dataset train_datasets train_file train_files training_data weights",
        "sft reward dpo",
        "did you mean `data`? It names a dataset, or several with their shares, as in "
        "`data = { a 60%, b 40% }`",
    ),
    Answer(
        "loss loss_type loss_fn objective",
        "train",
        "a train stage learns every token of its documents; `loss` is an attribute of sft stages, "
        "and preferences have the stages `dpo` and `reward`",
    ),
    Answer(
        "loss_fn loss_type objective",
        "sft",
        "did you mean `loss`? It is `assistant` or `all`: {}",
        "loss = assistant",
    ),
    Answer(
        "loss loss_type dpo_loss dpo_loss_type loss_fn",
        "dpo",
        "did you mean `objective`? {}",
        "objective = ipo",
    ),
    Answer(
        "loss loss_type ranking_loss",
        "reward",
        "did you mean `objective`? {}",
        "objective = plackett_luce",
    ),
    Answer(
        "center_rewards_coefficient center_rewards centering regularization",
        "reward",
        "did you mean `center`? {}",
        "center = 0.01",
    ),
    Answer(
        "margins margin_loss use_margin scaled_bt",
        "reward",
        "did you mean `margin`? Records then say in their field `margin` how much better the "
        "better response is: {}",
        "margin = subtract",
    ),
    Answer(
        "dpo_beta rl_beta simpo_beta orpo_alpha orpo_lambda orpo_beta pref_beta",
        "dpo",
        "did you mean `beta`? {}",
        "beta = 0.1",
    ),
    Answer(
        "length_regularization length_alpha rdpo_alpha alpha_length",
        "dpo",
        "did you mean `length_penalty`? {}",
        "length_penalty = 0.01",
    ),
    Answer(
        "simpo_gamma margin target_margin",
        "dpo",
        "did you mean `gamma`? It belongs to `simpo`: {}",
        "objective = simpo, gamma = 1",
    ),
    Answer(
        "rpo_alpha nll_weight sft_weight nll_coef nll_loss_coef dpo_norm_loss_alpha cpo_alpha",
        "dpo",
        "did you mean `nll`? It is the coefficient of the chosen response's cross-entropy: {}",
        "nll = 0.2",
    ),
    Answer(
        "length_normalized length_normalization average_log_prob dpo_use_weighting",
        "dpo",
        "did you mean `normalize`? Log-probabilities are then means over tokens: {}",
        "normalize = true",
    ),
    Answer(
        "ref_model reference_model ref_model_name reference_policy",
        "dpo",
        "did you mean `reference`? It is a stage, or a model with weights: {}",
        "reference = pretrain",
    ),
    Answer(
        "reward_model rm scorer",
        "train sft dpo",
        "a reward model is a stage of kind `reward`; a sample stage with it as `judge` keeps the "
        "best answers, which an sft stage learns",
    ),
)
"""For stages that train."""
