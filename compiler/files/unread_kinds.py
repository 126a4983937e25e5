"""Decoders of transformers (5.24, `MODEL_FOR_CAUSAL_LM_MAPPING_NAMES`) that no family computes, and
why: what a dense decoder of text has that no part has, or what the others are instead."""

from collections.abc import Mapping

_SINUS = "its positions are sinusoids"
_LATENT = "its dense layers have latents, which here only models with experts have"
_INPUTS = "each of its layers has embeddings of its own"
_LOOPS = "its tokens go through the same layers several times"
DENSE: Mapping[str, str] = {
    "apertus1p5_text": "its output has another vocabulary than its embedding",
    "bitnet": "its matrices have values of -1, 0 and 1, and norms before the last ones",
    "blt": "it reads bytes in patches of its own choice",
    "cohere_compass_text": "it embeds texts, and all tokens see each other",
    "cpmant": "its scores depend on learned buckets of distances",
    "ctrl": _SINUS,
    "diffllama": "its heads subtract two attentions",
    "doge": "its attention learns which tokens a head does not see",
    "dory": _LOOPS,
    "gemma3n_text": _INPUTS,
    "gemma4_text": _INPUTS,
    "gemma4_unified_text": _INPUTS,
    "gpt_neox_japanese": "attention's output has a bias in its last layer only",
    "granite_swa": "its heads have sinks, which here only gpt_oss has, with experts",
    "hrm_text": _LOOPS,
    "minicpm3": _LATENT,
    "ministral3": "its queries are scaled by their position",
    "modernbert-decoder": "its first layer has no norm of attention, and its output one more layer",
    "openai-gpt": "its norms come after the residual",
    "xglm": _SINUS,
    "youtu": _LATENT,
}
"""model_type of a dense decoder of text → what no part here computes."""
_EXPERTS = "no family here has its kind of experts"
_LINEAR = "some of its layers have no attention, but a state or a convolution"
_ENCODER = "it is an encoder, used from left to right"
_HALF = "it is the decoder of an encoder-decoder, and attends to an encoder"
_OTHER = "it reads more than text: its language model has a model_type of its own"
_SPARSE = "its attention chooses the tokens that it sees"
OTHERS: Mapping[str, tuple[str, ...]] = {
    _EXPERTS: (
        *("aria_text", "axk1", "beam", "cohere2_moe", "flint"),
        "granitemoe_swa",
        *("jetmoe", "kolibri1", "laguna", "llama4", "llama4_text", "longcat_flash"),
        *("mimo_v2_flash", "minimax_m3_vl_text", "phimoe"),
        *("sarvam_mla", "sarvam_moe", "zaya"),
    ),
    _SPARSE: (
        *("axk2", "deepseek_v32", "deepseek_v4", "dots3_note_text", "glm_moe_dsa", "hy_v4"),
        "qwen4_exp_text",
    ),
    _LINEAR: (
        *("bailing_hybrid", "bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid"),
        *("inkling2_loop_text", "inkling2_text", "inkling_text", "jamba", "kimi_linear"),
        *("lara_mini", "lfm2", "lfm2_moe", "lfm3", "mamba", "mamba2", "minimax", "nemotron_h"),
        *("olmo_hybrid", "recurrent_gemma"),
        *("rwkv", "xlstm", "zamba", "zamba2"),
    ),
    _ENCODER: (
        *("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra"),
        *("ernie", "megatron-bert", "reformer", "rembert", "roberta", "roberta-prelayernorm"),
        *("roc_bert", "roformer", "xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet", "xmod"),
    ),
    _HALF: (
        *("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart"),
        *("moshi", "musicgen", "musicgen_melody", "mvp", "pegasus", "plbart", "prophetnet"),
        *("trocr", "whisper"),
    ),
    _OTHER: (
        *("dots3_note", "emu3", "fuyu", "gemma3", "gemma3n", "gemma4", "gemma4_assistant"),
        *("gemma4_unified", "gemma4_unified_assistant", "git", "got_ocr2", "mllama"),
        *("moss_transcribe_diarize", "phi4_multimodal", "qwen3_5", "qwen3_5_moe", "qwen4_exp"),
    ),
}
"""What a kind of model is instead of a dense decoder of text → the model_types."""
SAME = {"gpt-sw3": "gpt2"}
"""Names in that table of models that are no model_type → the model_type of such models."""
UNREAD: Mapping[str, str] = {
    **DENSE,
    **{kind: why for why, kinds in OTHERS.items() for kind in kinds},
    # Names that folders have without transformers.
    "gemma3": "it reads images too: its language model is a gemma3_text",
    "qwen": "its code is its own, and transformers has no such model",
    "minicpm": "transformers has no such model",
    "qwen2_5_vl": "it reads images too, and its language model has no model_type of its own",
}
"""model_type → why its weights are not supported."""
