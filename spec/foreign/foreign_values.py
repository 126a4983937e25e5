"""Values, stage kinds, blocks, degrees and units from other programs.

`where` of an answer is the attribute of the value, or `block`, `kind` (of a stage), `degree` (of
parallelism) or `unit`.
"""

from .foreign_attributes import OBJECTIVES, OF_DPO, Answer
from .foreign_optimizers import OPTIMIZERS

_TEMPLATE = (
    "built in are `llama3` and `chatml`. Save the template, which is `chat_template` of the "
    "model's tokenizer_config.json or its chat_template.jinja, and name the file: {}"
)

VALUES = (
    *OPTIMIZERS,
    Answer(
        "fp16 float16 half fp16_mixed mixed_fp16",
        "precision",
        "this version does not scale losses, which fp16 needs; bf16 does without: {}",
        "precision = bf16",
    ),
    Answer(
        "float8 e4m3 hybrid fp8_hybrid rowwise fp8_rowwise",
        "precision",
        "did you mean `fp8`? {}",
        "precision = fp8",
    ),
    Answer(
        "mxfp4 fp4 nvfp4_e2m1",
        "precision",
        "did you mean `nvfp4`? It needs Blackwell; Hopper has fp8: {}",
        "precision = fp8",
    ),
    Answer(
        "int8 int4",
        "precision",
        "in 8 and 4 bits, this version computes with floating-point numbers: {}",
        "precision = fp8",
    ),
    Answer(
        "tensorwise delayed blockwise current dynamic",
        "precision",
        "torchtitan 0.3 scales fp8 by rows, not by tensors or blocks: {}",
        "precision = fp8 { recipe = rowwise }",
    ),
    Answer(
        "bfloat16 bf16_mixed mixed mixed_precision amp auto half_precision",
        "precision",
        "did you mean `bf16`? Weights and moments stay fp32: {}",
        "precision = bf16",
    ),
    Answer(
        "float32 tf32 full fp64 float64", "precision", "did you mean `fp32`? {}", "precision = fp32"
    ),
    Answer(
        "true on yes all block layer transformer unsloth uniform",
        "recompute",
        "did you mean `full`? All activations inside layers are then recomputed: {}",
        "recompute = full",
    ),
    Answer("false off no", "recompute", "did you mean `none`? {}", "recompute = none"),
    Answer(
        "op attention attn selective_ac",
        "recompute",
        "did you mean `selective`? {}",
        "recompute = selective",
    ),
    Answer(
        "flash_attention_2 flash_attention_3 flash fa2 fa3 flash_attn padding_free",
        "attention",
        "did you mean `varlen`? Its kernels are FlashAttention's",
    ),
    Answer(
        "sdpa eager xformers flex_attention auto",
        "attention",
        "did you mean `flex`? It is the default",
    ),
    Answer(
        "memory_budget memory_budget_ac",
        "recompute",
        "a budget says how much of the activations is kept: {}",
        "recompute = budget 60%",
    ),
    Answer(
        "offload cpu offloaded",
        "recompute",
        "activations are recomputed or kept; none go to the CPU: {}",
        "recompute = full",
    ),
    Answer(
        "completion completions response responses answer answers assistant_only target targets "
        "output masked completion_only",
        "loss",
        "did you mean `assistant`? It learns what the assistant says and its end tokens, also "
        "for a prompt and a completion: {}",
        "loss = assistant",
    ),
    Answer(
        "full everything none prompt inputs both tokens text cross_entropy ce nll default",
        "loss",
        "the loss is cross-entropy, of what the assistant says (`assistant`) or of all: {}",
        "loss = all",
    ),
    Answer(
        f"dpo preference preferences kto {OF_DPO}",
        "loss",
        "preferences and ratings have stages of their own: `stage NAME: dpo { … }`, or `kto`",
    ),
    Answer(
        f"{OBJECTIVES} grpo rloo dft nft bnpo dr_grpo distillation kl gkd",
        "loss",
        "an sft stage has cross-entropy alone; other losses have stages of their own",
    ),
    Answer(
        "qwen qwen2 qwen3 im_start chat_ml openai smollm smollm3 hermes",
        "protocol",
        "its markup is that of `chatml`, but its template may add more, such as a system prompt "
        "or thoughts. If that matters, save the template and name the file: {}",
        'template = "chat.jinja"',
    ),
    Answer(
        "llama llama31 llama3_1 llama_3 llama32 llama33",
        "protocol",
        "did you mean `llama3`? It does not write the template's dates and wording of tools: for "
        "those, save the template and name the file: {}",
        'template = "chat.jinja"',
    ),
    Answer(
        "mistral gemma gemma2 gemma3 phi phi3 phi4 zephyr vicuna llama2 llama4 alpaca deepseek "
        "deepseek_v2 deepseek_v3 deepseek_r1 harmony gpt_oss cohere command_r falcon olmo tulu "
        "granite jinja hf huggingface default tokenizer_default template glm kimi minimax exaone",
        "protocol",
        _TEMPLATE,
        'template = "chat.jinja"',
    ),
    Answer(
        "comet comet_ml neptune aim swanlab clearml dvclive",
        "tracking",
        "this version logs to `metrics/JOB.jsonl` of the run folder, and to Weights & Biases, "
        "MLflow, Trackio and TensorBoard: {}",
        "tracking = [wandb, mlflow, trackio, tensorboard]",
    ),
    Answer("none off false no disabled", "tracking", "remove `tracking`"),
    Answer(
        "sharegpt conversations conversation chat messages chatml chat_template instruction "
        "instructions instruct sft prompt_completion openai dialog",
        "records",
        "did you mean `dialogs`? If records have other fields, name them in `fields`: {}",
        'files = "chats.jsonl", kind = dialogs, fields = { messages = "conversations", role = '
        '"from", content = "value" }',
    ),
    Answer(
        "alpaca",
        "records",
        "its records are filled into a text template. Write them as dialogs in two parts, a "
        "prompt and a completion: {}",
        'files = "alpaca.jsonl", kind = dialogs, fields = { prompt = "prompt", completion = '
        '"completion" }',
    ),
    Answer(
        "text texts completion completions pretrain pretraining raw plain document corpus lm "
        "pretraining_dataset jsonl json parquet csv arrow",
        "records",
        "did you mean `documents`? The file names give the format: {}",
        'files = "web.jsonl", kind = documents',
    ),
    Answer(
        "preference pairwise pairs dpo reward rm comparison comparisons ranking orpo "
        "chosen_rejected",
        "records",
        "did you mean `preferences`? {}",
        'files = "ranked.jsonl", kind = preferences',
    ),
    Answer(
        "unpaired kto unpaired_preference labels labelled rated feedback",
        "records",
        "did you mean `ratings`? {}",
        'files = "rated.jsonl", kind = ratings',
    ),
    Answer(
        "stepwise stepwise_supervision steps step prm process prm800k math_shepherd",
        "records",
        "did you mean `solutions`? {}",
        'files = "checked.jsonl", kind = solutions',
    ),
    Answer(
        "tokenized bin mmap indexed",
        "records",
        "there are documents, dialogs, preferences, ratings, solutions and prompts",
    ),
    Answer(
        "error raise fail stop",
        "long",
        "did you mean `refuse`? {}",
        'files = "chats.jsonl", kind = dialogs, long = refuse',
    ),
    Answer(
        "skip filter remove discard ignore",
        "long",
        "did you mean `drop`? {}",
        'files = "chats.jsonl", kind = dialogs, long = drop',
    ),
    Answer(
        "cut clip trim truncation keep_start keep_end true",
        "long",
        "did you mean `truncate`? {}",
        'files = "chats.jsonl", kind = dialogs, long = truncate',
    ),
    Answer(
        "split wrap chunk",
        "long",
        "dialogs and preferences are not split over rows: they are refused, dropped or truncated",
    ),
    Answer(
        "tp tensor_parallel tensor_parallel_size tensor_model_parallel_size",
        "degree",
        "did you mean `tensor`? {}",
        "parallel = { tensor 8 }",
    ),
    Answer(
        "pp pipeline_parallel pipeline_parallel_size pipeline_model_parallel_size",
        "degree",
        "did you mean `pipeline`? {}",
        "parallel = { pipeline 2 }",
    ),
    Answer(
        "cp context_parallel context_parallel_size ring ulysses ring_attention "
        "sequence_parallel_degree",
        "degree",
        "did you mean `context`? {}",
        "parallel = { context 2 }",
    ),
    Answer(
        "ep expert_parallel expert_parallel_size experts expert_model_parallel_size",
        "degree",
        "did you mean `expert`? It is for models with experts",
    ),
    Answer(
        "dp data data_parallel data_parallel_size dp_size ddp",
        "degree",
        "data parallelism uses the ranks that the other degrees leave; groups of `shard` ranks "
        "share one copy of the weights: {}",
        "parallel = { shard 8, replicate 2 }",
    ),
    Answer(
        "fsdp fsdp2 zero zero2 zero3 dp_shard data_parallel_shard_degree",
        "degree",
        "did you mean `shard`? By default, all data-parallel ranks share one copy of the "
        "weights: {}",
        "parallel = { shard 8, replicate 2 }",
    ),
    Answer(
        "hsdp dp_replicate data_parallel_replicate_degree",
        "degree",
        "did you mean `replicate`? {}",
        "parallel = { shard 8, replicate 2 }",
    ),
    Answer(
        "vpp virtual_pipeline num_virtual_stages virtual_stages chunks",
        "degree",
        "did you mean `interleave`? {}",
        "parallel = { pipeline 2, interleave 2 }",
    ),
    Answer(
        "pipeline_schedule pp_schedule pp_engine pipeline_parallel_schedule",
        "degree",
        "did you mean `schedule`? {}",
        "parallel = { pipeline 2, schedule gpipe }",
    ),
    Answer(
        "first_stage_less_layers pipeline_parallel_first_stage_less_layers "
        "decoder_first_pipeline_num_layers",
        "degree",
        "did you mean `first_less`? {}",
        "parallel = { pipeline 2, first_less 0 }",
    ),
    Answer(
        "last_stage_less_layers pipeline_parallel_last_stage_less_layers "
        "decoder_last_pipeline_num_layers",
        "degree",
        "did you mean `last_less`? {}",
        "parallel = { pipeline 2, last_less 0 }",
    ),
    Answer(
        "one_f_one_b interleaved_1f1b interleaved1f1b interleaved",
        "schedule",
        "1F1B is what a pipeline has without `schedule`; `interleave` gives it several stages a "
        "rank: {}",
        "parallel = { pipeline 2, interleave 2 }",
    ),
    Answer(
        "afab all_forward_all_backward",
        "schedule",
        "did you mean `gpipe`? {}",
        "parallel = { pipeline 2, schedule gpipe }",
    ),
    Answer(
        "zb1p zb_h1 interleaved_zero_bubble interleavedzerobubble",
        "schedule",
        "did you mean `zero_bubble`? {}",
        "parallel = { pipeline 2, schedule zero_bubble }",
    ),
    Answer(
        "zbv zbvzerobubble zb_v",
        "schedule",
        "did you mean `zero_bubble_v`? {}",
        "parallel = { pipeline 2, schedule zero_bubble_v }",
    ),
    Answer(
        "dualpipe dual_pipe dualpipev dual_pipe_v",
        "schedule",
        "did you mean `dualpipe_v`? {}",
        "parallel = { pipeline 2, schedule dualpipe_v }",
    ),
    Answer(
        "mbs micro_batch_size microbatch microbatch_size per_device_train_batch_size",
        "degree",
        "did you mean `micro_batch`? {}",
        "parallel = { micro_batch 2 }",
    ),
    Answer(
        "gradient_accumulation_steps gradient_accumulation grad_accum accumulation",
        "degree",
        "the rest of a batch is accumulated: set the global `batch` of the stage, and what a "
        "rank processes at a time: {}",
        "parallel = { micro_batch 2 }",
    ),
    Answer(
        "sp sequence sequence_parallel",
        "degree",
        "tensor parallelism includes sequence parallelism for norms; to split attention over "
        "long sequences, use `context`: {}",
        "parallel = { context 2 }",
    ),
    Answer(
        "samples sample examples example sequences sequence rows row",
        "unit",
        "did you mean `seqs`?",
    ),
    Answer("iters iter iterations iteration updates update it", "unit", "did you mean `steps`?"),
    Answer("toks tok", "unit", "did you mean `tokens`?"),
    Answer("documents document records record lines", "unit", "did you mean `docs`?"),
    Answer("ep passes pass", "unit", "did you mean `epochs`?"),
    Answer("preferences comparisons", "unit", "did you mean `pairs`?"),
    Answer("dialogues conversations conversation chats", "unit", "did you mean `dialogs`?"),
    Answer(
        "ema exponential exponential_moving_average",
        "average",
        "an exponential moving average is an attribute of its own: {}",
        "ema = 0.999",
    ),
    Answer(
        "swa lawa mean uniform wma",
        "average",
        "did you mean `polyak`? {}",
        "average = polyak every 10 steps over 50%",
    ),
    Answer(
        "pretrain pretraining pre_training midtrain mid_train midtraining cpt continue "
        "continued_pretraining anneal cooldown causal_lm clm lm",
        "kind",
        "did you mean `train`?",
    ),
    Answer(
        "finetune fine_tune finetuning fine_tuning instruct instruction_tuning it supervised chat",
        "kind",
        "did you mean `sft`?",
    ),
    Answer(
        "rm reward_model reward_modeling preference_model",
        "kind",
        "did you mean `reward`?",
    ),
    Answer(
        "eval evaluation benchmark test validate validation measure",
        "kind",
        "did you mean `evaluate`?",
    ),
    Answer(
        "generate generation rejection rejection_sampling best_of_n raft rft inference rollout",
        "kind",
        "did you mean `sample`?",
    ),
    Answer(
        "merge soup model_soup swa ema mean mergekit slerp ties dare",
        "kind",
        "did you mean `average`? It takes the weighted mean of stages",
    ),
    Answer("select pick choose", "kind", "did you mean `best`?"),
    Answer(
        "perplexity filter quality classify",
        "kind",
        "did you mean `score`? A dataset's filters use what it measures",
    ),
    Answer(
        f"preference preference_optimization align alignment {OF_DPO}",
        "kind",
        "did you mean `dpo`?",
    ),
    Answer(
        "rl rlhf rlvr reinforce rloo gspo dapo dr_grpo",
        "kind",
        "did you mean `grpo`? Its `objective` chooses among these losses",
    ),
    Answer(
        "process_reward process_reward_model process_supervision stepwise step_reward",
        "kind",
        "did you mean `prm`? It learns which steps of answers are right",
    ),
    Answer(
        f"{OBJECTIVES} online_dpo nash xpo",
        "kind",
        "this version does not have it: there are `dpo`, `kto`, `reward`, `prm` and `grpo`",
    ),
    Answer(
        "distillation gkd kd minillm",
        "kind",
        "did you mean `distill`? It learns the probabilities of a `teacher`",
    ),
    Answer(
        "lora qlora dora peft adapter",
        "kind",
        "adapters are no kind of stage: write `adapter = lora` in a stage that trains",
    ),
    Answer(
        "quantize quantization gptq awq prune pruning",
        "kind",
        "this version quantizes and prunes nothing: do it with the exported model",
    ),
    Answer(
        "export deploy serve save convert upload push",
        "kind",
        "the results of a recipe are exported automatically, as Hugging Face folders",
    ),
    Answer(
        "tokenize tokenization data preprocess prepare download dedup",
        "kind",
        "data are tokenized automatically, before the first stage that reads them",
    ),
    Answer(
        "train sft reward dpo score sample checkpoint average best evaluate",
        "block",
        "this is a kind of stage: `stage NAME: KIND { … }`",
    ),
    Answer(
        "pretrain finetune training trainer training_args task job phase step",
        "block",
        "training is declared in stages: `stage NAME: train { … }`",
    ),
    Answer(
        "data datasets corpus source sources",
        "block",
        'did you mean `dataset`? One block each: `dataset web { files = "web.jsonl" }`',
    ),
    Answer(
        "optimizer optim scheduler lr_scheduler schedule checkpoint_config gate",
        "block",
        "`optimizer`, `lr`, `checkpoint` and `gate` belong in the stage",
    ),
    Answer(
        "parallel parallelism placement fsdp deepspeed distributed",
        "block",
        "placements are an attribute of stages: {}",
        "parallel = { tensor 8 }",
    ),
    Answer(
        "hardware gpus gpu nodes machine machines resources compute",
        "block",
        "did you mean `cluster`?",
    ),
    Answer("chat template chat_template protocol prompt", "block", "did you mean `dialog`?"),
    Answer(
        "metadata config configuration project run experiment name",
        "block",
        "did you mean `recipe`?",
    ),
    Answer(
        "eval evaluation evaluations benchmark",
        "block",
        "measures are stages: `stage NAME: evaluate { … }`",
    ),
    Answer(
        "lora qlora peft adapter quantization",
        "block",
        "adapters are `adapter = lora` in a stage that trains, and nothing is quantized",
    ),
    Answer(
        "wandb logging logger tracking report",
        "block",
        "did you mean `recipe`? It has an attribute for this: `tracking = wandb`",
    ),
    Answer("sweep ablation override overrides experiments", "block", "did you mean `variant`?"),
    Answer("loop repeat iterate iterations rounds_of", "block", "did you mean `rounds`?"),
    Answer("claims claim expected assert", "block", "did you mean `expect`?"),
    Answer("import include", "block", 'include another file with `use "FILE"`'),
    Answer("reward_model", "block", "a stage trains it: `stage NAME: reward { … }`"),
    Answer("ref_model reference policy base_model", "block", "did you mean `model`?"),
)
