"""What families of models have, and what they have not."""

from typing import Any

import pytest
from specs import HEAD, check, jobs, miniature, only, plan, stage

from etude.compiler.families import FAMILIES
from etude.compiler.families.architectures import (
    active_parameters,
    attention_flops_per_token,
    parameters,
    published,
    windowed,
)
from etude.compiler.families.config_json import written
from etude.compiler.files.published_config import describe
from etude.compiler.files.published_weights import differences
from etude.spec.record import replace

MODEL = "layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300"
GPT_OSS = (
    "family = gpt_oss, layers = 2, dim = 64, heads = 4, vocab = 300, window = 16, "
    "experts = { count = 4, active = 2, ffn = 32 }"
)


def spec(model: str) -> str:
    assert MODEL in HEAD
    return HEAD.replace(MODEL, model) + stage()


@pytest.mark.parametrize(
    ("size", "total", "active"), [("20B", 20.91e9, 3.61e9), ("120B", 116.83e9, 5.13e9)]
)
def test_gpt_oss_has_as_many_parameters_as_published(
    size: str, total: float, active: float
) -> None:
    shape = published("gpt_oss", size)
    assert parameters(shape) == pytest.approx(total, rel=1e-3)
    # arXiv:2508.10925, Table 1, leaves the embedding out of what is active.
    assert active_parameters(shape) - shape.vocab * shape.dim == pytest.approx(active, rel=2e-3)


@pytest.mark.parametrize(
    ("size", "total", "active"), [("16B-A3B", 16e9, 3e9), ("1T-A32B", 1.04e12, 32.6e9)]
)
def test_what_kimi_has_published_has_so_many_parameters(
    size: str, total: float, active: float
) -> None:
    shape = published("deepseek_v3", size)
    assert parameters(shape) == pytest.approx(total, rel=0.015)
    assert active_parameters(shape) == pytest.approx(active, rel=0.03)


# mistral.ai/news/mixtral-8x22b; arXiv:2508.06471, Table 1, whose active parameters are without
# embedding and output.
@pytest.mark.parametrize(
    ("size", "total", "active"),
    [
        ("mixtral-8x22B", 141e9, 39e9),
        ("glm4.5-106B", 106e9, 12e9),
        ("glm4.5-355B", 355e9, 32e9),
    ],
)
def test_mixtures_have_about_as_many_parameters_as_published(
    size: str, total: float, active: float
) -> None:
    shape = published("decoder", size)
    table = 0 if size.startswith("mixtral") else 2 * shape.vocab * shape.dim
    assert parameters(shape) == pytest.approx(total, rel=0.01)
    assert active_parameters(shape) - table == pytest.approx(active, rel=0.03)


# arXiv:2405.04434 §3.1.2 and Appendix B.1; exact: `num_parameters` of transformers' models.
@pytest.mark.parametrize(
    ("size", "total", "active"), [("16B-A2.4B", 15.7e9, 2.4e9), ("236B", 236e9, 21e9)]
)
def test_deepseek_v2_has_as_many_parameters_as_published(
    size: str, total: float, active: float
) -> None:
    shape = published("deepseek_v2", size)
    assert parameters(shape) == pytest.approx(total, rel=2e-3)
    # What is active is said without the embedding.
    assert active_parameters(shape) - shape.vocab * shape.dim == pytest.approx(active, rel=0.03)


def test_a_model_of_ones_own_has_windows_and_no_feed_forward_width() -> None:
    job = only(jobs(plan(spec(GPT_OSS))))
    assert (job.model.window, job.model.ffn, job.model.kv_heads) == (16, 32, 4)
    assert (job.model.biased, job.model.sinks) == (True, True)
    assert [windowed(job.model, layer) for layer in range(3)] == [True, False, True]


# config.json and the published weights; OLMo 2: arXiv:2501.00656; Qwen2.5: its model card.
# Mixtral: arXiv:2401.04088, Table 1.
@pytest.mark.parametrize(
    ("size", "total"),
    [
        ("olmo2-7B", 7_298_617_344),
        ("olmo2-13B", 13_716_198_400),
        ("olmo2-32B", 32_234_279_936),
        ("olmo3-7B", 7_298_011_136),
        ("qwen2.5-0.5B", 494_032_768),
        ("qwen2.5-1.5B", 1_543_714_304),
        ("qwen2.5-3B", 3_085_938_688),
        ("qwen2.5-7B", 7_615_616_512),
        ("qwen2.5-14B", 14_770_033_664),
        ("qwen2.5-32B", 32_763_876_352),
        ("qwen2.5-72B", 72_706_203_648),
        ("gemma2-2B", 2_614_341_888),
        ("gemma2-9B", 9_241_705_984),
        ("gemma2-27B", 27_227_128_320),
        ("gemma3-1B", 999_885_952),
        ("smollm3-3B", 3_075_098_624),
        ("mixtral-8x7B", 46_702_792_704),
        ("starcoder2-3B", 3_030_371_328),
    ],
)
def test_decoders_have_as_many_parameters_as_published(size: str, total: int) -> None:
    assert parameters(published("decoder", size)) == total


def test_the_parts_of_a_size_can_be_changed_one_by_one() -> None:
    text = spec('family = decoder, size = "olmo3-7B", parts = { biases = qkv }')
    job = only(jobs(plan(text.replace("lr =", "export = none, lr ="))))
    of = job.model.parts
    assert of
    assert (of.norms, of.qk_norm, of.window_skips, of.biases) == ("after", "width", 4, "qkv")
    assert [windowed(job.model, layer) for layer in range(5)] == [True, True, True, False, True]


@pytest.mark.parametrize("size", FAMILIES["decoder"].sizes)
def test_the_config_json_of_a_decoder_is_read_as_it_was_written(size: str) -> None:
    family, ours = FAMILIES["decoder"], published("decoder", size)
    for shape in (ours, replace(ours, rope_scaling="yarn", rope_factor=8.0, rope_original=8192)):
        known = shape.knowing(65536)
        config = written(known, family.yarn) | family.config_json(known)
        config |= {"tie_word_embeddings": shape.tied}
        found = describe({key: of for key, of in config.items() if key not in ("name", "classes")})
        assert ours.parts
        alone = ours.parts.published in ("olmo3", "gemma3_text")
        if shape.window and shape.rope_scaling != "none" and not alone:
            # There layers with windows are scaled as all others.
            shape = replace(shape, parts=replace(ours.parts, window_scaled=True))
        assert (found.family, found.problems, found.unknown) == ("decoder", (), ())
        assert found.model
        assert found.model.parts == shape.parts
        assert list(differences(found.model, shape)) == []
        assert found.longest == 65536


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("smollm3", {"no_rope_layers": [1, 0, 1, 1]}, "not every n-th layer"),
        ("qwen2", {"use_sliding_window": True}, "whole document"),
        ("nemotron", {"hidden_act": "silu"}, "squared ReLU"),
        ("starcoder2", {"use_bias": False}, "biases"),
        ("olmo3", {"layer_types": ["full_attention", "sliding_attention"] * 16}, "order"),
        ("olmo2", {"clip_qkv": 8.0}, "not clipped"),
        ("gemma", {"hidden_act": "relu"}, "GELU"),
        ("gemma2", {"query_pre_attn_scalar": -1}, "query_pre_attn_scalar"),
        ("gemma3_text", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}, "linear"),
        ("gemma3_text", {"layer_types": ["full_attention", "sliding_attention"] * 13}, "order"),
        ("gemma3_text", {"layer_types": ["full_attention"] * 4}, "no list of 26 kinds"),
        ("gemma3_text", {"layer_types": "x"}, "no list of 26 kinds"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "before them"),
        ("granite", {"attention_bias": True}, "no biases there"),
        ("phi3", {"rope_scaling": {"type": "longrope", "long_factor": [1]}}, "longrope"),
        ("seed_oss", {"attention_out_bias": True}, "no bias"),
        ("arcee", {"hidden_act": "silu"}, "squared ReLU"),
        ("gpt_neo", {"attention_types": [[["local", "global"], 12]]}, "in turn"),
        ("gpt_neo", {"attention_types": [[["global"], 2**40]]}, "one for each layer"),
        ("gptj", {"activation_function": "relu"}, "GELU"),
        ("mpt", {"n_heads": 12}, "another order"),
        ("mpt", {"attn_config": {"alibi": False}}, "ALiBi"),
        ("mpt", {"attn_config": {"qk_ln": True}}, "not normed"),
        ("opt", {"do_layer_norm_before": False}, "before attention"),
        ("opt", {"word_embed_proj_dim": 512}, "the width 512"),
        ("cohere2", {"layer_types": ["sliding_attention"] * 39 + ["x"]}, "x in an order"),
        ("apertus", {"hidden_act": "silu"}, "xIELU"),
        ("hunyuan_v1_dense", {"rope_scaling": {"type": "dynamic", "factor": 2}}, "dynamic"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "alike in all layers"),
        ("gpt_neox", {"hidden_act": "silu"}, "GELU"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "not normed"),
        ("falcon", {"alibi": True}, "rotary"),
        ("falcon", {"parallel_attn": False}, "are parallel"),
    ],
)
def test_what_a_published_decoder_computes_otherwise_is_said(
    kind: str, given: dict[str, Any], message: str
) -> None:
    (problem,) = describe({"model_type": kind} | given).problems
    assert message in problem.message
    assert problem.help


def test_its_miniature_keeps_the_parts_of_a_decoder() -> None:
    made = miniature(spec('family = decoder, size = "olmo3-7B"'))
    job = only(jobs(made))
    assert job.model.parts
    assert (job.model.parts.norms, job.model.parts.published) == ("after", "olmo3")
    assert [windowed(job.model, layer) for layer in range(job.model.layers)] == [True, False]


DECODER = f"family = decoder, {MODEL}"
MIXED = f"{DECODER}, experts = {{ count = 4, active = 2, ffn = 32 }}"
GPT = "norm = layer, activation = gelu, gated = false"
GPT_TANH = GPT.replace("gelu", "gelu_tanh")


@pytest.mark.parametrize(
    ("parts", "model_type"),
    [
        ("gated = true", "llama"),
        ("biases = qkv", "qwen2"),
        ("norms = after, qk_norm = width", "olmo2"),
        ("rotary_skips = 4", "smollm3"),
        ("norm = layer, rotary = 0.25", "stablelm"),
        ("norm = layer, biases = all", ""),
        ("biases = all", "llama"),
        ("qk_norm = head", "qwen3"),
        ("norm = layer_scale, parallel = one, logit_scale = 0.0625", "cohere"),
        ("norm = layer_plain, qkv_clip = 8", "olmo"),
        ("norms = both, biases = qkv, rotary = 0.5", "glm4"),
        ("norms = after, qk_norm = head", "exaone4"),
        ("qk_norm = head, qk_norm_late = true", "hunyuan_v1_dense"),
        ("activation = xielu, gated = false, qk_norm = head", "apertus"),
        ("activation = xielu", ""),
        ("norm = layer, activation = relu2, gated = false, biases = all", "nemotron"),
        (f"{GPT_TANH}, biases = ffn, parallel = one, rotary = 0.5, output_bias = true", "gptj"),
        (f"{GPT_TANH}, biases = all, parallel = one, rotary = 0.5, output_bias = true", "phi"),
        (
            f"{GPT_TANH}, biases = but_qkv, learned = 2Ki, attention_scale = 1",
            "gpt_neo",
        ),
        ("norm = layer_scale, activation = gelu, gated = false, alibi = true", "mpt"),
        (f"{GPT}, biases = all, learned = 2Ki, scaled = true", "biogpt"),
        (f"{GPT.replace('gelu', 'relu')}, biases = all, learned = 2Ki", "opt"),
        ("norm = layer, activation = gelu, gated = false, parallel = one", "falcon"),
        (f"{GPT}, biases = all, parallel = two, rotary = 0.5", "gpt_neox"),
        (f"{GPT_TANH}, biases = all, learned = 2Ki", "gpt2"),
        (f"{GPT_TANH}, biases = all, alibi = true, embedding_norm = true", "bloom"),
        ("embedding_scale = 12, residual_scale = 0.22, logit_scale = 0.125", "granite"),
        ("activation = relu2, gated = false", "arcee"),
        ("rotary = 0.75", "phi3"),
        ("parallel = one", ""),
        ("alibi = true", ""),
        ("logit_cap = 30", ""),
        ("biases = qkv, residual_scale = 0.22", ""),
        ("norms = both, activation = relu2", ""),
    ],
)
def test_what_transformers_computes_a_decoder_is_found_by_its_parts(
    parts: str, model_type: str
) -> None:
    shape = DECODER.replace("kv_heads = 2, ffn = 128", "kv_heads = 4, ffn = 256")
    text = spec(f"{shape}, parts = {{ {parts} }}")
    found = check(text)
    assert [each.code for each in found if each.severity == "error"] == (
        [] if model_type else ["E594"]
    )
    job = only(jobs(plan(text.replace("lr =", "export = none, lr =") if not model_type else text)))
    assert job.model.parts
    assert job.model.parts.published == model_type


def test_a_reward_model_that_transformers_lacks_is_not_exported() -> None:
    reward = """
    dataset ranked { sample = python_functions, kind = preferences }
    stage rm: reward { from = first, data = ranked, steps = 2, batch = 2 pairs, lr = 1e-4 }
    """
    granite = spec(f"{DECODER}, parts = {{ residual_scale = 0.5 }}") + reward
    (found,) = [each for each in check(granite) if each.code == "E594"]
    assert "transformers has granite only as a language model" in found.message
    for other in (spec(DECODER) + reward, granite.replace("lr = 1e-4", "lr = 1e-4, export = none")):
        assert "E594" not in {each.code for each in check(other)}


@pytest.mark.parametrize(
    ("experts", "parts", "model_type"),
    [
        ("", "", "mixtral"),
        ("dense = 1", "qk_norm = width", ""),
        ("normalized = false, dense = 1", "qk_norm = head, biases = attention", "qwen3_moe"),
        ("scale = 2", "qk_norm = head", ""),
        ("normalized = false", "qk_norm = width", "olmoe"),
        ("score = sigmoid, shared = 1, scale = 2.5, dense = 1", "qk_norm = head", "dots1"),
        ("score = sigmoid, shared = 1", "biases = qkv, rotary = 0.5", "glm4_moe"),
        ("score = sigmoid", "qk_norm = head", ""),
        ("score = sigmoid", "qk_norm = width, rotary = 0.5", "minimax_m2"),
        ("shared = 2, dense = 1", "", "ernie4_5_moe"),
        ("balance = 0.001", "", "ernie4_5_moe"),
        ("", "qk_norm = plain", ""),
    ],
)
def test_what_transformers_computes_a_decoder_with_experts_is_found_by_both(
    experts: str, parts: str, model_type: str
) -> None:
    text = spec(MIXED.replace("ffn = 32", f"ffn = 32, {experts}") + f", parts = {{ {parts} }}")
    job = only(jobs(plan(text.replace("lr =", "export = none, lr ="))))
    assert job.model.parts
    assert job.model.parts.published == model_type
    refused = [each.code for each in check(text) if each.severity == "error"]
    assert refused == ([] if model_type else ["E594"])


def test_experts_that_are_scored_alone_are_balanced_by_a_bias() -> None:
    for score, balance in (("softmax", 0.0), ("sigmoid", 0.001)):
        text = spec(MIXED.replace("ffn = 32", f"ffn = 32, score = {score}"))
        job = only(jobs(plan(text.replace("lr =", "export = none, lr ="))))
        assert job.model.experts
        assert (job.model.experts.score, job.model.experts.balance) == (score, balance)


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (DECODER + ", parts = { window_skips = 4 }", "E592"),
        (DECODER + ", parts = { parallel = two, norms = after }", "E592"),
        (DECODER + ", parts = { rotary = 1.5 }", "E592"),
        (DECODER + ", parts = { norm = layer, rotary = 0.3 }", None),
        (DECODER + ", parts = { rotary = 0.01 }", "E418"),
        (DECODER + ", parts = { alibi = true, learned = 2Ki }", "E592"),
        (DECODER + ", rope_theta = 5e5, parts = { alibi = true }", "E592"),
        (DECODER + ", parts = { window_theta = 1e4 }", "E592"),
        (DECODER + ", window = 16, parts = { alibi = true, window_theta = 1e4 }", "E592"),
        (DECODER + ", parts = { scaled = true, embedding_scale = 12 }", "E592"),
        (DECODER + ", parts = { residual_scale = 0 }", "E208"),
        (DECODER + ", parts = { learned = 2Ki, rotary = 0.5 }", "E592"),
        (
            DECODER + ", rope_scaling = yarn { factor = 4, original = 64 }, "
            "parts = { learned = 2Ki }",
            "E592",
        ),
        (MODEL + ", parts = { biases = qkv }", "E419"),
        (DECODER + ", latent = { keys = 8 }", "E419"),
        (DECODER + ", rope_scaling = llama", None),
        (DECODER + ", window = 16, rope_scaling = llama", "E419"),
        (DECODER + ", window = 16, rope_scaling = llama, parts = { window_scaled = true }", None),
        (DECODER + ", parts = { window_scaled = true }", "E592"),
        (DECODER + ", window = 16, parts = { window_first = true }", "E592"),
        (DECODER + ", parts = { qk_norm_late = true }", "E592"),
        (MIXED, None),
        (MIXED + ", parts = { activation = relu }", "E592"),
        (MIXED + ", parts = { gated = false }", "E592"),
        (MIXED + ", parts = { biases = all }", "E592"),
        (MIXED.replace("active = 2", "active = 5"), "E419"),
        (MIXED.replace("active = 2", "active = 2, shared = 1, shared_gate = true"), None),
        (MIXED.replace("active = 2", "active = 2, shared_gate = true"), "E419"),
        (
            MIXED.replace("decoder", "qwen3").replace("active", "shared_gate = true, active"),
            "E419",
        ),
        ('family = deepseek_v3, size = "16B-A3B", experts = { shared_gate = true }', "E419"),
        (MIXED.replace("active = 2", "active = 2, groups = 2, groups_used = 1"), "E419"),
        (MIXED.replace("decoder", "qwen3").replace("active", "score = sigmoid, active"), "E419"),
        (MIXED.replace("decoder", "qwen3").replace("active", "scale = 2, active"), "E419"),
        ('family = deepseek_v3, size = "16B-A3B", experts = { score = softmax }', "E419"),
        ('family = deepseek_v3, size = "16B-A3B", experts = { normalized = false }', None),
        ('family = deepseek_v2, size = "16B-A2.4B"', None),
        ('family = deepseek_v2, size = "16B-A2.4B", experts = { score = sigmoid }', "E419"),
        ('family = deepseek_v2, size = "16B-A2.4B", experts = { normalized = true }', "E419"),
        ('family = deepseek_v2, size = "16B-A2.4B", experts = { shared = 0 }', "E419"),
        (DECODER + ", window = 16, rope_scaling = yarn { factor = 4, original = 64 }", "E419"),
        (GPT_OSS.replace("family = gpt_oss", "family = qwen3, ffn = 128"), "E419"),
        (MODEL + ", window = 16", "E419"),
        (GPT_OSS + ", ffn = 128", "E419"),
        (GPT_OSS.replace("ffn = 32", "ffn = 32, dense = 1"), "E419"),
        (GPT_OSS.replace("ffn = 32", "ffn = 32, shared = 1"), "E419"),
        (GPT_OSS + ", rope_scaling = llama", "E419"),
        (GPT_OSS.replace(", experts = { count = 4, active = 2, ffn = 32 }", ""), "E417"),
        (GPT_OSS.replace("window = 16", "window = 0"), None),
    ],
)
def test_what_does_not_belong_to_a_family_is_an_error(model: str, code: str | None) -> None:
    found = [each for each in check(spec(model)) if each.severity == "error"]
    assert [each.code for each in found] == ([code] if code else [])


def test_a_stage_cannot_set_the_base_of_positions_that_do_not_rotate() -> None:
    text = HEAD.replace(MODEL, DECODER + ", parts = { alibi = true }")
    (found,) = check(text + stage(rope_theta="5e5", export="none"))
    assert (found.code, found.severity) == ("E592", "error")
    assert "ALiBi" in found.message or "`alibi`" in found.message


def test_sequences_end_with_the_learned_positions() -> None:
    text = HEAD.replace(MODEL, DECODER + ", parts = { learned = 16 }")
    (found,) = check(text + stage(seq_len="32", export="none"))
    assert (found.code, "16" in found.message, "learned = 32" in (found.help or "")) == (
        "E595",
        True,
        True,
    )
    assert check(text + stage(seq_len="16", export="none")) == []


@pytest.mark.parametrize(("place", "way"), [("rms", "`rope_theta`"), ("alibi", "`seq_len`")])
def test_how_sequences_may_become_longer_depends_on_the_positions(place: str, way: str) -> None:
    parts = "alibi = true" if place == "alibi" else "norm = rms"
    text = HEAD.replace(MODEL, f"{DECODER}, parts = {{ {parts} }}") + stage(export="none")
    text += """
    dataset human { sample = python_functions, kind = dialogs }
    stage tune: sft {
      from = first, data = human, steps = 2, seq_len = 64, batch = 4 seqs, lr = 1e-4, export = none
    }
    """
    (found,) = [each for each in check(text) if each.code == "W609"]
    assert f"a longer {way}" in found.help or f"a larger {way}" in found.help


def test_alibi_goes_by_the_order_of_tokens() -> None:
    cluster = 'cluster big { nodes = 1, gpus = 8 of "H100 80GB" }\n'
    text = HEAD.replace(MODEL, DECODER + ", parts = { alibi = true }") + cluster
    placed = stage(batch="8 seqs", seq_len="512", parallel="{ context 2 }", export="none")
    assert [each.code for each in check(text + placed)] == ["E487"]


def test_what_stands_before_the_first_layer_counts() -> None:
    def count(parts: str) -> int:
        text = HEAD.replace(MODEL, f"{DECODER}, parts = {{ norm = layer, {parts} }}")
        return parameters(only(jobs(plan(text + stage(export="none")))).model)

    plain = count("rotary = 1")
    assert count("learned = 2Ki") == plain + 2048 * 64
    assert count("embedding_norm = true, alibi = true") == plain + 2 * 64


def test_a_miniature_has_learned_positions_for_its_sequences() -> None:
    model = f"{DECODER}, parts = {{ {GPT_TANH}, biases = all, learned = 4Ki }}"
    made = miniature(HEAD.replace(MODEL, model) + stage(seq_len="4096", export="none"))
    job = only(jobs(made))
    assert job.model.parts
    assert job.model.parts.learned == job.seq_len < 4096


def test_windows_spare_attention_what_lies_beyond_them() -> None:
    shape = published("gpt_oss", "20B")
    whole = replace(shape, window=0)
    assert attention_flops_per_token(shape, 128) == attention_flops_per_token(whole, 128)
    # Of 24 layers 12 see 128 of 4096 tokens: 128 · (2 - 1/32) in place of 4096 for twice the mean.
    long, full = (attention_flops_per_token(each, 4096) for each in (shape, whole))
    assert long * 4096 == full // 2 * (4096 + 252)


def test_a_miniature_has_windows_and_positions_of_its_size() -> None:
    text = HEAD.replace(MODEL, 'family = gpt_oss, size = "20B"') + stage(seq_len="4096")
    made = miniature(text)
    model = only(jobs(made)).model
    assert (model.family, model.layers, model.window) == ("gpt_oss", 2, 8)
    assert model.rope_scaling == "yarn"
    assert model.experts
    assert (model.experts.count, model.ffn) == (8, model.experts.ffn)
