"""Sections and fields of torchtitan that `torchtitan = { … }` lacks, and who sets them."""

from .foreign_attributes import Answer

TORCHTITAN = (
    Answer(
        "model_spec hf_assets_path tokenizer dataloader lr_scheduler loss checkpoint",
        "torchtitan",
        "etude sets this section, from the stage's own attributes. Remove it",
    ),
    Answer(
        "profiler",
        "torchtitan",
        "the stage says which steps are profiled: {}",
        "stage long: train { from = pretrain, steps = 20, profile = { steps = [10..12] } }",
    ),
    Answer(
        "validator",
        "torchtitan",
        "the stage says what is measured while it trains: {}",
        "stage long: train { from = pretrain, steps = 20, "
        "evaluate = { every = 10 steps, loss = [web] } }",
    ),
    Answer(
        "metrics",
        "torchtitan",
        "the run logs every step, and to Weights & Biases or for TensorBoard with the recipe's "
        "`tracking`. Remove it",
    ),
    Answer(
        "dump_folder", "torchtitan", "`etude run SPEC --folder FOLDER` says where a run is kept"
    ),
    Answer(
        "override",
        "torchtitan",
        "this section imports Python code, and a spec runs none. Remove it",
    ),
    Answer(
        "optimizer_factory_kwargs_by_name",
        "torchtitan.optimizer",
        "the optimizer's settings are those of the stage: {}",
        "stage long: train { from = pretrain, steps = 10, optimizer = adamw { eps = 1e-8 } }",
    ),
    Answer(
        "mixed_precision_reduce",
        "torchtitan.training",
        "torchtitan sums gradients in fp32, and knows nothing else. Remove it",
    ),
    Answer(
        "module_fqns_per_model_part pipeline_parallel_layers_per_stage "
        "pipeline_parallel_schedule pipeline_parallel_schedule_csv "
        "pipeline_parallel_microbatch_size",
        "torchtitan.parallelism",
        "this follows from `parallel`: its `schedule`, `interleave`, `first_less` and `last_less` "
        "say how a pipeline runs and is split. Remove it",
    ),
    Answer(
        "context_parallel_load_balancer context_parallel_ptrr_mask_key",
        "torchtitan.parallelism",
        "sequences are shared out by `ptrr`, which is the balancer for flex attention. Remove it",
    ),
    Answer(
        "spmd_backend",
        "torchtitan.parallelism",
        "etude's losses need `spmd_types`, torchtitan's default. Remove it",
    ),
    Answer(
        "save_traces_folder save_traces_file_prefix",
        "torchtitan.comm",
        "traces are kept in the run folder. Remove it",
    ),
    Answer("mode", "torchtitan.comm", "the run sets it. Remove it"),
    Answer(
        "save_config_file",
        "torchtitan.debug",
        "the plan has the configuration of every job: `etude plan SPEC --json`",
    ),
    Answer(
        "batch_invariant",
        "torchtitan.debug",
        "torchtitan has this for reinforcement learning alone, and refuses it here. Remove it",
    ),
)
