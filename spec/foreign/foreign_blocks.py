"""Attributes from other programs, for blocks other than training stages."""

from .foreign_attributes import Answer
from .foreign_optimizers import SETTINGS

_DECODER = "family = decoder, layers = 8, dim = 512, heads = 8, ffn = 2Ki, vocab = 32_000"
_EXPERTS = "experts = { count = 64, active = 6, ffn = 1408 }"
_LATENT = "latent = { queries = 1536, keys = 512, plain = 128, rotary = 64, values = 128 }"

_RENAMED: dict[str, dict[str, str]] = {
    "model": {
        "layers": "num_layers n_layers n_layer num_hidden_layers depth",
        "dim": "hidden_size d_model n_embd embed_dim hidden_dim model_dim width emb_dim",
        "heads": "num_heads n_heads n_head num_attention_heads attention_heads",
        "kv_heads": "num_kv_heads n_kv_heads num_key_value_heads num_query_groups",
        "head_dim": "head_size kv_channels d_head attention_head_dim",
        "ffn": "intermediate_size ffn_dim ffn_hidden_size d_ff mlp_dim ffn_size mlp_hidden_size",
        "vocab": "vocab_size n_vocab padded_vocab_size vocabulary vocabulary_size",
        "rope_theta": "rotary_base rope_base rotary_emb_base rope_freq_base",
        "tied": "tie_word_embeddings tie_embeddings tied_embeddings weight_tying",
        "norm_eps": "rms_norm_eps layer_norm_eps layernorm_epsilon norm_epsilon",
        "family": "model_type arch architecture architectures flavor",
        "size": "params parameters n_params num_parameters model_size",
        "hub": "repo repo_id repository hf_repo model_name model_name_or_path name_or_path "
        "pretrained base_model pretrained_model_name_or_path",
        "weights": "checkpoint path model_path checkpoint_path load_path",
    },
    "experts": {
        "count": "num_experts n_experts num_local_experts n_routed_experts",
        "active": "top_k num_experts_per_tok experts_per_token moe_top_k n_active",
        "ffn": "moe_intermediate_size intermediate_size ffn_dim expert_ffn",
        "shared": "n_shared_experts num_shared_experts shared_experts",
        "dense": "first_k_dense_replace n_dense_layers num_dense_layers",
        "groups": "n_group num_groups n_groups num_expert_groups",
        "groups_used": "topk_group limited_groups num_limited_groups",
        "scale": "routed_scaling_factor route_scale",
        "balance": "load_balance_coeff bias_update_rate",
    },
    "latent": {
        "queries": "q_lora_rank",
        "keys": "kv_lora_rank",
        "plain": "qk_nope_head_dim",
        "rotary": "qk_rope_head_dim",
        "values": "v_head_dim",
    },
    "rope_scaling": {
        "factor": "scaling_factor rope_factor scale",
        "original": "original_max_position_embeddings original_seq_len original_length",
        "low": "low_freq_factor",
        "high": "high_freq_factor",
    },
    "dataset": {
        "files": "file path paths data_files file_path glob pattern url urls uri local_path "
        "dataset_path data_path source filename",
        "tokenized": "dataset_folder tokenized_data token_files data_prefix memmap memmap_path "
        "train_data_path",
        "hub": "hf_repo repo repo_id hf_dataset dataset_name name hf_name hf_dataset_or_datasets",
        "config": "subset config_name dataset_config data_dir hf_dataset_config_name",
        "split": "dataset_split train_split train_on_split hf_dataset_splits",
        "documents": "max_samples num_samples max_examples n_samples max_docs max_documents limit "
        "take num_examples max_records records",
        "holdout": "test_size val_set_size validation_split val_size dev_size validation "
        "validation_size eval_split",
        "tokens": "num_tokens n_tokens token_count total_tokens",
        "kind": "type ds_type data_type dataset_type format record_type",
        "long": "truncation truncate truncate_long excess_length_strategy drop_long too_long "
        "overlong filter_overlong",
        "bad_lines": "ignore_errors skip_bad_lines on_error max_bad_lines errors",
    },
    "tokenizer": {
        "hub": "name name_or_path tokenizer_name tokenizer_name_or_path pretrained repo",
        "file": "path tokenizer_path tokenizer_file tokenizer_model",
    },
    "dialog": {
        "template": "chat_template template_file jinja file path chat_template_jinja",
        "end_of_turn": "eot eot_token end_of_turn_token turn_end stop",
        "system": "system_prompt system_message default_system default_system_message",
        "protocol": "type format template_name style",
    },
    "verifier": {
        "kind": "type method",
        "pattern": "regex regexp expression",
        "extract": "extraction answer_regex answer_pattern",
        "options": "choices labels letters",
        "most": "max_words max maximum",
        "least": "min_words min minimum",
        "schema": "json_schema schema_file",
    },
    "fields": {
        "messages": "conversations conversation dialog turns",
        "completion": "response output",
        "answer": "solution final_answer ground_truth target answer_key",
        "label": "kto_tag liked thumbs_up is_good",
        "completions": "steps",
        "labels": "ratings step_labels",
        "role": "from speaker role_key message_role",
        "content": "value message_content content_key",
        "text": "document",
    },
    "needle": {"depths": "num_depths depth", "samples": "num_samples n", "lengths": "length"},
}
"""Block → attribute → its names in other programs."""

BLOCKS = (
    Answer(
        "max_position_embeddings max_seq_len max_seq_length seq_len seq_length max_length "
        "context_length block_size n_ctx n_positions model_max_length",
        "model",
        "`seq_len` of a stage is the length of sequences; `context` of a model with weights is "
        "the length that it was trained on",
    ),
    Answer(
        "num_experts n_experts num_local_experts n_routed_experts n_shared_experts moe "
        "num_experts_per_tok experts_per_token moe_top_k moe_router_topk moe_intermediate_size "
        "moe_config first_k_dense_replace routed_scaling_factor n_group topk_group",
        "model",
        "mixtures of experts are a group, of all families but `llama3`: {}",
        f'family = qwen3, size = "30B-A3B", {_EXPERTS}',
    ),
    Answer(
        "untie_embeddings_and_output_weights",
        "model",
        "did you mean `tied`? {}",
        'size = "8B", tied = false',
    ),
    Answer(
        "q_lora_rank kv_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim mla",
        "model",
        "attention through latents is a group, of the families `deepseek_v2` and `deepseek_v3`: {}",
        f'family = deepseek_v3, size = "16B-A3B", {_LATENT}',
    ),
    Answer(
        "sliding_window window_size attention_window sliding_window_size",
        "model",
        "did you mean `window`? The family `gpt_oss` has windows in every other layer, `decoder` "
        "in the layers that its parts say: {}",
        'family = decoder, size = "olmo3-7B", window = 8Ki',
    ),
    Answer(
        "hidden_act activation activation_function act_fn mlp_type ffn_type",
        "model",
        "feed-forward layers are SwiGLU, unless the parts of a `decoder` say otherwise: {}",
        f"{_DECODER}, parts = {{ activation = relu2, gated = false }}",
    ),
    Answer(
        "norm norm_type normalization layer_norm layernorm norm_position post_norm pre_norm",
        "model",
        "norms are RMSNorm before each layer, unless the parts of a `decoder` say otherwise: {}",
        f"{_DECODER}, parts = {{ norms = after, qk_norm = width }}",
    ),
    Answer(
        "attention_bias qkv_bias bias use_bias mlp_bias add_bias_linear",
        "model",
        "`gpt_oss` has biases, as published, and `decoder` those that its parts say: {}",
        f"{_DECODER}, parts = {{ biases = qkv }}",
    ),
    Answer(
        "qk_norm use_qk_norm qk_layernorm",
        "model",
        "queries and keys are normalized in the family `qwen3`, and in a `decoder` as its parts "
        "say: {}",
        f"{_DECODER}, parts = {{ qk_norm = head }}",
    ),
    Answer(
        "position_embedding_type pos_emb positional_encoding position_embedding rope alibi nope "
        "use_rope",
        "model",
        "positions are rotary, by `rope_theta` and `rope_scaling`; the parts of a `decoder` may "
        "say otherwise: {}",
        f"{_DECODER}, parts = {{ rotary_skips = 4 }}",
    ),
    Answer(
        "initializer_range init_std init init_method weight_init initialization",
        "model",
        "torchtitan initializes weights as usual for the family, by the recipe's `seed`",
    ),
    Answer(
        "attention attention_type attn_type",
        "model",
        "attention is grouped-query, by `heads` and `kv_heads`; through latents in the families "
        "`deepseek_v2` and `deepseek_v3`",
    ),
    Answer(
        "dtype torch_dtype precision",
        "model",
        "`precision` of a stage says what it computes in; weights are trained in fp32",
    ),
    Answer(
        "weight proportion share probability ratio percentage sampling_ratio sampling_weight "
        "weights probabilities mix mixture interleave upsample repeat repeats oversample",
        "dataset",
        "`data` of a stage sets the share of a dataset: `data = { web 60%, code 40% }`",
    ),
    Answer(
        "fim_rate fim_spm_rate fim_split fim_fragment_rate use_fim fill_in_the_middle "
        "fill_in_middle infilling",
        "dataset",
        "did you mean `fim`? {}",
        'files = "code.jsonl", fim = { rate = 10% }',
    ),
    Answer(
        "epochs num_epochs",
        "dataset",
        "the length of a stage determines how often data are read: `epochs = 2`, or its tokens "
        "or steps",
    ),
    Answer(
        "text_field text_column dataset_text_field field text_key content_key column text",
        "dataset",
        "`fields` names the field with the text of a record: {}",
        'files = "web.jsonl", fields = { text = "content" }',
    ),
    Answer(
        "field_messages messages_field messages_key messages_column conversations conversation "
        "message_field message_property_mappings column_mapping columns field_map roles role "
        "role_key message_field_role message_field_content sharegpt",
        "dataset",
        "`fields` names the fields of a record: {}",
        'files = "chats.jsonl", kind = dialogs, fields = { messages = "conversations", role = '
        '"from", content = "value" }',
    ),
    Answer(
        "max_length max_seq_length sequence_len seq_len cutoff_len max_seq_len",
        "dataset",
        "`seq_len` of a stage is the length of rows; longer dialogs and preferences are refused, "
        "dropped or truncated: {}",
        'files = "chats.jsonl", kind = dialogs, long = drop',
    ),
    Answer(
        "train_on_inputs train_on_prompt mask_prompt completion_only_loss assistant_only_loss "
        "roles_to_train train_on_eos",
        "dataset",
        "`loss` of an sft stage says what is learned of dialogs: `assistant` or `all`; in "
        "records, `weight` or `train` of a message",
    ),
    Answer(
        "streaming cache_dir keep_in_memory load_from_cache_file overwrite_cache buffer_size",
        "dataset",
        "data are tokenized once, into the run folder, and read from there. Remove it",
    ),
    Answer(
        "revision dataset_revision",
        "dataset",
        "the newest revision of a Hub data set is read. To use another, save it in a folder and "
        "name the folder",
    ),
    Answer(
        "filter quality_filter filters score_filter",
        "dataset",
        "filters are statements, by a list of sites or by the loss under a score stage: {}",
        'files = "web.jsonl", drop where url in "blocked.txt"',
    ),
    Answer(
        "vocab_size vocab algorithm bpe unigram wordpiece sentencepiece",
        "tokenizer",
        "tokenizers that are trained here are byte-pair encodings: {}",
        "train = { on [web], vocab 32000 }",
    ),
    Answer(
        "user_tag assistant_tag user assistant instruction_template response_template prefix",
        "dialog",
        "what stands before a message is a header, with {role} for who speaks: {}",
        'header = "<|{role}|>", end_of_turn = "<|end|>"',
    ),
)
RENAMED = tuple(
    Answer(names, block, f"did you mean `{name}`?")
    for block, attributes in _RENAMED.items()
    for name, names in attributes.items()
)
OTHERS = (
    Answer(
        "n num_samples num_return_sequences best_of n_samples samples",
        "sample",
        "did you mean `draws`? {}",
        "draws = 4",
    ),
    Answer(
        "max_new_tokens max_length max_completion_length max_gen_toks max_seq_len",
        "sample",
        "did you mean `max_tokens`? {}",
        "max_tokens = 128",
    ),
    Answer(
        "data dataset prompt_dataset prompt_data",
        "sample",
        "did you mean `prompts`? It is a dataset of the kind `prompts`: {}",
        "prompts = asked",
    ),
    Answer(
        "reward_model reward rm scorer",
        "sample evaluate",
        "did you mean `judge`? It is a reward stage",
    ),
    Answer(
        "verifier verifiers reward_function reward_functions grader checker",
        "sample",
        "did you mean `verify`? It names verifier blocks: {}",
        "verify = [right]",
    ),
    Answer(
        "top_k min_p repetition_penalty presence_penalty frequency_penalty num_beams beam_size",
        "sample",
        "answers are drawn by temperature and top_p only: {}",
        "temperature = 0.8, top_p = 0.95",
    ),
    Answer(
        "model",
        "sft reward dpo score sample evaluate",
        "did you mean `from`? This stage continues from another, or from a model with weights: {}",
        "from = pretrain",
    ),
    Answer(
        "data dataset datasets eval_dataset perplexity ppl validation",
        "evaluate best",
        "the loss on held-out documents is measured by {}",
        "loss = [web]",
    ),
    Answer(
        "benchmark benchmarks harness lm_eval lm_eval_tasks eval_tasks task metrics metric",
        "evaluate best",
        "tasks of lm-evaluation-harness are named by capability: {}",
        'suites = { math ["gsm8k"] }',
    ),
    Answer(
        "batch_size num_fewshot few_shot num_shots eval_batch_size",
        "evaluate best",
        "this has no attribute: a task says how many examples it shows, and the engine how many "
        "answers are computed at a time. Remove it",
    ),
    Answer(
        "models stages inputs sources",
        "average best",
        "did you mean `of`? It lists stages: {}",
        "of = [pretrain]",
    ),
    Answer(
        "method merge_method slerp ties dare t density",
        "average",
        "an average stage takes the weighted mean of its stages, and there are no other ways of "
        "merging",
    ),
    Answer(
        "wandb wandb_project wandb_entity wandb_run_name use_wandb enable_wandb report_to log_with "
        "logger loggers",
        "recipe",
        'did you mean `tracking`? {} logs to Weights & Biases, or `wandb { project = "…" }`',
        "tracking = wandb",
    ),
    Answer(
        "mlflow mlflow_tracking_uri mlflow_experiment_name",
        "recipe",
        "did you mean `tracking`? Its `project` is MLflow's experiment: {}",
        'tracking = mlflow { project = "llama" }',
    ),
    Answer(
        "experiment experiment_name wandb_project name",
        "tracker",
        "did you mean `project`? {}",
        'project = "llama"',
    ),
    Answer(
        "run_group job_type tags",
        "tracker",
        "each stage is a run; {} groups them",
        'group = "ablations"',
    ),
    Answer(
        "uri tracking_uri url host server space_id api_key token login mode offline",
        "tracker",
        "this depends on the machine: set it in its environment, as `MLFLOW_TRACKING_URI`, "
        "`WANDB_MODE` or `TRACKIO_SPACE_ID`, and remove it here",
    ),
    Answer(
        "trackio use_trackio trackio_space_id",
        "recipe",
        "did you mean `tracking`? {}",
        "tracking = trackio",
    ),
    Answer(
        "comet comet_ml neptune aim swanlab",
        "recipe",
        "this version logs to `metrics/JOB.jsonl` of the run folder, and to Weights & Biases, "
        "MLflow, Trackio and TensorBoard: {}",
        "tracking = [wandb, mlflow, trackio, tensorboard]",
    ),
    Answer(
        "tensorboard use_tensorboard tensorboard_dir enable_tensorboard",
        "recipe",
        "did you mean `tracking`? {}",
        "tracking = tensorboard",
    ),
    Answer(
        "data_seed random_seed seed_everything manual_seed global_seed",
        "recipe",
        "did you mean `seed`? {}",
        "seed = 42",
    ),
    Answer(
        "project run_name run experiment experiment_name description",
        "recipe",
        "did you mean `title`? {}",
        'title = "A run"',
    ),
    Answer(
        "gpu num_gpus n_gpus ngpus gpus_per_node nproc_per_node devices accelerator device "
        "world_size",
        "cluster",
        "did you mean `gpus`? It says how many each machine has, and which: {}",
        'gpus = 8 of "H100 80GB"',
    ),
    Answer(
        "num_nodes nnodes n_nodes node_count machines num_machines",
        "cluster",
        "did you mean `nodes`? {}",
        "nodes = 4",
    ),
    *SETTINGS,
)
"""For other stages, the recipe, clusters and optimizers."""
