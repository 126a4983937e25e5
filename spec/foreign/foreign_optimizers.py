"""Optimizers and their settings in other programs."""

from .foreign_attributes import Answer

OPTIMIZERS = (
    Answer(
        "adamw_torch adamw_torch_fused adamw_hf adamw_apex_fused fused_adamw "
        "adamw_fused adamwtorch",
        "optimizer",
        "did you mean `adamw`? {}",
        "optimizer = adamw { betas = [0.9, 0.95], weight_decay = 0.1 }",
    ),
    Answer(
        "adamw_8bit adamw_bnb_8bit paged_adamw paged_adamw_8bit paged_adamw_32bit adam8bit "
        "adamw8bit cpu_adam deepspeed_cpu_adam",
        "optimizer",
        "moments are in fp32 and on the GPU in this version, 8 bytes per parameter over all "
        "ranks: {}",
        "optimizer = adamw { betas = [0.9, 0.95], weight_decay = 0.1 }",
    ),
    Answer(
        "sophia shampoo soap sgd lamb adagrad rmsprop adam_mini adamini galore "
        "galore_adamw apollo came ademamix schedule_free schedule_free_adamw normuon dion",
        "optimizer",
        "this version has `adamw`, `adam`, `muon`, `adafactor` and `lion`, and rates that suit "
        "others do not suit them: {}",
        "optimizer = adamw { betas = [0.9, 0.95], weight_decay = 0.1 }",
    ),
    Answer(
        "dist_muon distmuon muon_clip muonclip muon_with_aux_adam single_device_muon",
        "optimizer",
        "did you mean `muon`? The matrices of layers learn by it, everything else by AdamW; "
        "`qk_clip` bounds attention scores: {}",
        "optimizer = muon { weight_decay = 0.1, qk_clip = 100 }",
    ),
)
"""Values of `optimizer`."""

SETTINGS = (
    Answer(
        "lr learning_rate warmup_steps lr_scheduler",
        "optimizer",
        "the rate is an attribute of the stage, next to `optimizer`: `lr = 3e-4`",
    ),
    Answer(
        "beta1 beta2 adam_beta1 adam_beta2 beta_1 beta_2 b1 b2",
        "optimizer",
        "did you mean `betas`? {}",
        "betas = [0.9, 0.95]",
    ),
    Answer(
        "epsilon adam_epsilon adam_eps",
        "optimizer",
        "did you mean `eps`? {}",
        "eps = 1e-8",
    ),
    Answer(
        "adjust_lr_fn rms_scale adjust_lr_factor matched_adamw_rms",
        "optimizer",
        "did you mean `adjust_lr`, a setting of `muon`?",
    ),
    Answer(
        "qk_clip_threshold qk_clip_tau qk_clip_threshold_tau",
        "optimizer",
        "did you mean `qk_clip`, a setting of `muon`?",
    ),
    Answer(
        "clip_threshold clipping_threshold",
        "optimizer",
        "did you mean `d`, a setting of `adafactor`?",
    ),
    Answer(
        "decay_rate beta2_decay_rate",
        "optimizer",
        "did you mean `beta2_decay`, a setting of `adafactor`? It is above 0",
    ),
    Answer(
        "relative_step warmup_init multiply_by_parameter_scale",
        "optimizer",
        "the rate is the stage's `lr`, also of `adafactor`; `scale_parameter` says whether it is "
        "relative to the size of a parameter. Remove it",
    ),
    Answer("wd", "optimizer", "did you mean `weight_decay`? {}", "weight_decay = 0.1"),
    Answer(
        "no_decay no_decay_params weight_decay_exclude_named_params decay_norm_and_bias "
        "decay_embeddings exclude_from_weight_decay",
        "optimizer",
        "did you mean `decay`? {}",
        "decay = matrices",
    ),
    Answer(
        "foreach amsgrad state_dtype moment_dtype bits",
        "optimizer",
        "the optimizer is torch's own, with moments in fp32. Remove it",
    ),
)
"""What an optimizer is set by."""
