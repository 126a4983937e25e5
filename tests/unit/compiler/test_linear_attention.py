"""Linear attention in specs: what goes together, what it costs, and what torchtitan is told."""

import re
from typing import Any

import pytest
from specs import HEAD, check, codes, jobs, only, plan, stage

from etude.compiler.costs.generation import generation
from etude.compiler.costs.hardware import GPUS
from etude.compiler.families.adapters import adapted, adapter_parameters
from etude.compiler.families.architectures import (
    attention_flops_per_token,
    complete,
    linear_layers,
    parameters,
)
from etude.compiler.families.low_precision import share
from etude.compiler.families.weights import Weight
from etude.compiler.miniature.blocks import model as miniature
from etude.compiler.torchtitan.adapters import targets
from etude.compiler.values import ModelShape
from etude.spec.schema.adapter import Adapter
from etude.spec.schema.precision import Precision

MODEL = "layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300"
PARTS = "qk_norm = head, gate = true, rotary = 0.5, linear_heads = 4, linear_key_heads = 2"
WIDTHS = "linear_key_dim = 16, linear_value_dim = 16, linear_skips = 2"


def spec(parts: str = f"{PARTS}, {WIDTHS}", model: str = "", **attributes: Any) -> str:
    shape = f"family = decoder, {MODEL}{model}, parts = {{ {parts} }}"
    head = HEAD.replace(MODEL, shape)
    assert head != HEAD
    return head + stage(**attributes)


def shape(**changes: Any) -> ModelShape:
    parts = {
        "gate": True,
        "linear_heads": 4,
        "linear_key_heads": 2,
        "linear_key_dim": 16,
        "linear_value_dim": 24,
        **changes.pop("parts", {}),
    }
    of = {"layers": 8, "dim": 64, "heads": 4, "ffn": 128, "vocab": 320, "parts": parts}
    return complete("decoder", None, of | changes)


@pytest.mark.parametrize(
    ("parts", "message", "help"),
    [
        (f"{PARTS.replace('= 2', '= 3')}, {WIDTHS}", "3 heads of queries and keys do not", "= 2`"),
        (f"{PARTS.replace('= 2', '= 8')}, {WIDTHS}", "8 heads of queries and keys do not", "= 4`"),
        (f"{PARTS}, linear_skips = 4", "no layer of this model would have attention", "= 2`"),
        (f"{PARTS}, linear_skips = 0", "no layer of this model would have attention", "= 2`"),
        (f"{PARTS}, linear_skips = 1", "all layers have attention", "remove"),
        (f"{PARTS}, {WIDTHS}, linear_convolution = 1", "only its own token", "= 4`"),
        ("linear_heads = 4, linear_skips = 2, alibi = true", "(ALiBi)", "remove `alibi`"),
        ("linear_skips = 2", "the model has none", "write `linear_heads = 32`"),
    ],
)
def test_what_excludes_each_other_is_said_once(parts: str, message: str, help: str) -> None:
    found = only(check(spec(parts)))
    assert found.code == "E592"
    assert message in found.message
    assert help in (found.help or "")


def test_a_window_and_linear_attention_exclude_each_other() -> None:
    found = only(check(spec(model=", window = 8")))
    assert "exclude each other" in found.message
    assert "remove `window`" in (found.help or "")


def test_a_spec_says_only_what_is_not_usual() -> None:
    (job,) = jobs(plan(spec("linear_heads = 4, linear_skips = 2", export="none")))
    parts = job.model.parts
    assert parts
    assert (parts.linear_key_heads, parts.linear_key_dim) == (4, 128)
    assert (parts.linear_value_dim, parts.linear_convolution) == (128, 4)


CLUSTER = 'cluster big { nodes = 1, gpus = 8 of "H100 80GB" }\n'


def test_context_parallelism_is_refused_and_tensor_goes_by_heads() -> None:
    wanted = {"context 2": "E487", "tensor 4": "E433"}
    for parallel, code in wanted.items():
        text = CLUSTER + spec(parallel=f"{{ {parallel} }}", batch="16 seqs", model=", kv_heads = 4")
        text = text.replace("kv_heads = 2, ffn", "ffn")
        assert code in codes(text), parallel
    found = only(
        [
            of
            for of in check(CLUSTER + spec(parallel="{ context 2 }", batch="16 seqs"))
            if of.code == "E487"
        ]
    )
    assert "state of linear attention" in found.message


def test_auto_takes_no_context_parallelism() -> None:
    text = CLUSTER + spec(parallel="auto", batch="16 seqs", seq_len="64Ki")
    (job,) = jobs(plan(text))
    assert job.resources.context == 1


def test_parameters_are_those_of_its_layers() -> None:
    one = shape()
    keys, values = 2 * 16, 4 * 24
    linear = 64 * (2 * keys + 3 * values + 2 * 4) + 4 * (2 * keys + values) + 2 * 4 + 24
    attention = 5 * 64 * 64
    other = 2 * 64 + 3 * 64 * 128
    assert linear_layers(one) == 6
    ends = 2 * 320 * 64 + 64
    assert parameters(one) == 6 * linear + 2 * attention + 8 * other + ends


def test_its_work_is_linear_in_the_length() -> None:
    one, none = shape(), shape(parts={"linear_heads": 0})
    state = 18 * 6 * 4 * 16 * 24
    for length in (1024, 8192):
        full = attention_flops_per_token(none, length) // 4
        assert attention_flops_per_token(one, length) == full + state


def test_its_cache_is_a_state() -> None:
    gpu = GPUS["H100 80GB"]
    at = {
        length: generation(shape(), gpu, per_node=8, nodes=1, context=length, draws=None).memory
        for length in (1024, 2048)
    }
    token = 2 * 2 * 2 * 4 * 16  # bf16 keys and values of two layers
    state = 4 * 6 * 4 * 16 * 24
    assert at[1024]["sequence"] == 1024 * token + state
    assert at[2048]["sequence"] == 2048 * token + state


def test_adapters_are_beside_the_large_matrices() -> None:
    adapter = Adapter(kind="lora", rank=4, on=("attention",))
    found = list(adapted(adapter, shape()))
    linear = [weight for _, weight, layers in found if layers == 6]
    assert linear == [
        *(Weight((rows, 64), 0) for rows in (32, 32, 96, 96)),
        Weight((64, 96), 1),
    ]
    assert adapter_parameters(adapter, shape()) == 4 * (
        6 * sum(sum(weight.shape) for weight in linear) + 2 * 5 * 128
    )
    assert targets(adapter, shape()) == ["wq", "wkv", "wo", "gate", "wk", "wv", "wz"]


def test_in_8_bits_are_the_large_matrices() -> None:
    precision = Precision(kind="fp8")
    text = CLUSTER + spec(
        f"{PARTS}, linear_key_dim = 16, linear_value_dim = 16, linear_skips = 2",
        precision="fp8",
        batch="16 seqs",
        seq_len=128,
    ).replace("vocab = 300", "vocab = 320")
    (job,) = jobs(plan(text))
    left = job.torchtitan["quantization"]["Float8LinearConverter"]["filter_fqns"]
    assert {"delta_net.wa", "delta_net.wb"} <= {*left}
    assert "delta_net." not in left
    assert share(precision, shape()) == pytest.approx(1)


def test_convolutions_do_not_decay_and_others_keep_their_groups() -> None:
    def patterns(text: str) -> list[str]:
        (job,) = jobs(plan(text))
        return [of["pattern"] for of in job.torchtitan["optimizer"]["param_groups"]]

    first = patterns(spec(optimizer="muon"))[0]
    for name in ("q_filter.weight", "rate_bias.weight", "norm.weight"):
        assert re.search(first, f"layers.0.delta_net.{name}"), name
    assert not re.search(first, "layers.0.delta_net.wq.weight")
    assert patterns(HEAD + stage(optimizer="muon"))[0] != first


def test_a_miniature_keeps_the_pattern() -> None:
    from etude.spec.schema import recipe as r

    full = r.Model(name="m", family="decoder", places={})
    small = miniature(full, shape(layers=48), {4096: 64})
    assert small.parts
    assert (small.layers, small.parts.linear_skips, small.parts.linear_key_heads) == (2, 2, 2)
    assert small.parts.gate


RANKED = "dataset ranked { sample = python_functions, kind = preferences }\n"


def test_each_response_of_a_preference_has_its_own_prompt() -> None:
    for text, layout in ((spec(), "pairs"), (HEAD + stage(), "joint")):
        made = plan(
            text + RANKED + "stage rm: reward { from = first, data = ranked, "
            "batch = 4 pairs, steps = 2, lr = 1e-4 }"
        )
        objective: Any = jobs(made, "rm")[0].objective
        assert objective.layout == layout
