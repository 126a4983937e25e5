"""The formulas of the cost model: each is a text that is evaluated exactly as shown.

They are evaluated in order over symbols and earlier results. Units are bytes, seconds and FLOPs,
per GPU and optimizer step unless stated otherwise.
"""

from collections.abc import Mapping
from types import CodeType

from ...spec.record import Record

SYMBOLS = {
    "L_d": "layers of the pipeline stage (of all where there is one) without experts",
    "L_e": "layers of the pipeline stage with experts",
    "d": "width",
    "H": "heads",
    "q": "width of all queries: heads × width of a head",
    "k": "width of all keys: KV heads × width of a head",
    "w": "width of all values",
    "u": "width of the values that attention mixes: heads × width of a value",
    "N_last": "parameters of the last norm, between embedding and first layer, and of the "
    "output's bias",
    "normed": "1 if queries and keys are normalized, else 0",
    "scaled": "1 if queries and keys are normalized by any kind of norm, else 0",
    "biased": "1 if attention, routers and experts have biases, else 0",
    "sinks": "1 if heads have sinks, else 0",
    "apart": "parameters that a layer without experts has more than a Llama's, by its parts; "
    "below 0 if fewer",
    "apart_e": "the same of a layer with experts",
    "near": "share of the layers that have a window",
    "linear": "share of the layers that have linear attention",
    "more": "width of what a layer makes besides attention's queries, keys, values and mixed "
    "values, in the mean: its gate; with linear attention, what that makes less those",
    "H_l": "heads of linear attention",
    "h_k": "width of their queries and keys",
    "h_v": "width of their values",
    "window": "tokens of a window, at most those of a sequence",
    "r_q": "width of the latent of queries, 0 if there is none",
    "r_k": "width of the latent of keys and values, 0 if there is none",
    "r": "width of a head's rotary part, besides a latent",
    "turns": "bytes of the rotary angles of a position, as a layer's table has them",
    "f": "width of the feed-forward layer",
    "g": "products that a feed-forward layer makes of its input: 2 with a gate, else 1",
    "D": "further tokens that modules predict (multi-token prediction), each by a layer that "
    "counts among those of the pipeline stage",
    "E": "experts of a layer",
    "K": "experts that a token is routed to",
    "E_s": "shared experts",
    "e": "width of an expert",
    "V": "vocabulary; 1 where a model that only reads gives scores",
    "s": "tokens of a sequence",
    "N_in": "parameters of the embedding, 0 if the pipeline stage has none",
    "N_out": "parameters of the output layer, 0 if the pipeline stage has none",
    "has_out": "1 if the pipeline stage has the output layer, else 0",
    "S": "GPUs that FSDP shards over: shard × context",
    "R": "replicas",
    "t": "tensor-parallel degree",
    "c": "context-parallel degree",
    "p": "pipeline-parallel degree",
    "x": "expert-parallel degree",
    "X": "GPUs that share a layer's experts: x, or t without expert parallelism",
    "v": "pipeline stages per GPU",
    "b": "sequences of a micro-batch",
    "m": "micro-batches of a step",
    "fills": "times per step that a pipeline fills and drains: batch divided by what it "
    "processes at a time",
    "alive": "micro-batches whose activations are held at once",
    "between": "micro-batches at once between their gradients of inputs and of weights, where a "
    "schedule has them apart",
    "outs": "1 where the output's work is spread over the pipeline, as its usual split is taken to "
    "do; with others p on the GPU that has the output, 0 on the rest",
    "split": "1 in the schedule `zero_bubble`, else 0",
    "vee": "1 in the schedule `zero_bubble_v`, else 0",
    "dual": "1 in the schedule `dualpipe_v`, else 0",
    "kept": "1 where weights stay gathered after the forward pass: in pipelines, unless "
    "`fsdp_reshard_after_forward` says otherwise",
    "offload": "1 where the host keeps weights, gradients and moments, else 0",
    "chunks": "parts that the loss is computed in",
    "asked": "bytes for each logit of a loss that asks about places in rows, in pieces of 2,048: "
    "12, with tensor ranks 16, and 20 for several tokens of a place; else 0",
    "chunked": "1 where the gradients of those parts are added up in fp32, else 0",
    "save_all": "share of the activations that are kept: 1 without recomputation, the share of a "
    "`budget`, else 0",
    "save_some": "1 with selective recomputation, else 0",
    "recompute": "share of the forward pass that is repeated: 1 with full recomputation, the rest "
    "of a `budget`, else 0",
    "backward": "1 where a step trains, 0 where a model only reads",
    "frozen": "1 where a step trains adapters alone, else 0",
    "adapters": "parameters of adapters for each of the model's",
    "eager": "1 without torch.compile, else 0",
    "muon": "1 where the matrices of layers learn by Muon, else 0",
    "adafactor": "1 where all parameters learn by Adafactor, else 0",
    "lion": "1 where all parameters learn by Lion, else 0",
    "k_d": "rows and columns of a layer without experts, and elements of its norms, without "
    "Adafactor 0",
    "k_e": "the same for a layer with experts, except those that tokens are routed to",
    "k_x": "rows and columns of the experts of a layer, without Adafactor 0",
    "averaged": "1 where a mean of the weights is kept, by `average` or `ema`, else 0",
    "matrix": "elements of the largest matrix that learns by Muon",
    "z_d": "FLOPs of Newton–Schulz for a layer without experts, without Muon 0",
    "z_e": "the same for a layer with experts, all of them",
    "plain_loss": "1 if the loss is not compiled into one kernel, else 0",
    "flash2": "1 where a Hopper GPU has the kernels of FlashAttention 2, which do not use what is "
    "new in it (arXiv:2407.08608 §1), else 0",
    "once": "1 where gradients are reduced once a step and kept whole until then, 0 where after "
    "every micro-batch",
    "low": "share of the layers' products that is in fp8, mxfp8 or nvfp4",
    "low_out": "1 if the output layer's are, else 0",
    "rowwise": "1 if rows or blocks are scaled, 0 if whole tensors are",
    "wide": "1 if gradients of converted weights are in bf16, else 0",
    "bytes": "bytes of a parameter in compute: 2 in bf16, 4 in fp32",
    "gathered": "bytes of a parameter that FSDP gathers: as in compute; 1 in fp8 that is scaled by "
    "tensors",
    "peak": "peak FLOP/s of matrix products in bf16 or fp32",
    "peak_low": "the same in fp8 or nvfp4",
    "power": "watts of its power limit for each of its peak FLOP/s in bf16, over those of an H100: "
    "what limits the rate of long products",
    "hbm": "bandwidth of the GPU's memory",
    "bw_t": "bandwidth between tensor-parallel GPUs",
    "bw_s": "bandwidth between GPUs that FSDP shards over",
    "bw_r": "bandwidth between replicas",
    "bw_c": "bandwidth between context-parallel GPUs",
    "bw_p": "bandwidth between pipeline stages",
    "sent_near": "copies of a token that are sent to other GPUs by NVLink, for its experts",
    "sent_far": "copies of a token that are sent to other nodes",
    "bw_near": "bandwidth between GPUs of a node",
    "bw_far": "bandwidth of a GPU to other nodes",
}
"""The inputs of the formulas, in words."""


class Formula(Record):
    """A formula.

    Attributes:
        text: the expression, in Python's notation.
        what: what it is, with its source.
        unit: "bytes", "s", "FLOPs", …
    """

    text: str
    what: str
    unit: str


def _of(text: str, what: str, unit: str = "") -> Formula:
    return Formula(text=text, what=what, unit=unit)


FITTED: dict[str, float] = {
    "a_logits": 13.8,
    "a_margin": 0.15,
    "e_matmul": 0.768,
    "e_fp8": 0.95,
    "e_rowwise": 0.362,
    "e_attention": 0.403,
    "e_flash2": 0.194,
    "e_power": 0.11,
    "e_memory": 3.02,
    "e_eager": 1.47,
    "e_weights": 4.86,
    "e_link": 0.5,
    "e_network": 0.508,
    "e_shared": 0.204,
}
"""Constants that `python -m benchmarks.cost_model --fit` fits to published measurements."""

TIME: dict[str, Formula] = {
    "effective": _of(
        "peak * min(power ** e_power, 0.95 / e_matmul)",
        "peak rate under the power limit; products come to 95% of the peak at most",
        "FLOP/s",
    ),
    "N_active": _of(
        "L_d * N_layer + L_e * (N_mixed + K * N_expert) + D * N_module",
        "parameters of the layers that a token goes through",
    ),
    "matmul_flops": _of(
        "2 * T / t * (N_active * (1 + (2 - frozen) * backward + recompute"
        " + adapters * (1 + 2 * backward + recompute)) + save_some * d * L * (k + u + F))",
        "matrix products of the layers: 2 N forward, 4 N backward (arXiv:2001.08361 §2.1), of "
        "frozen ones 2 N, and what is recomputed, selectively keys, attention's output and up; of "
        "one micro-batch",
        "FLOPs",
    ),
    "output_flops": _of(
        "outs * (1 + D) * (1 + (2 - frozen) * backward) * 2 * T * d * V / (t * p)",
        "the output layer's, over all stages",
        "FLOPs",
    ),
    "seen": _of(
        "(1 - near - linear) * s + near * window * (2 - window / s)",
        "twice the number of keys that a token sees, averaged over the sequence and the layers",
    ),
    "attention_flops": _of(
        "(L * (q + u) * seen + L * linear * H_l * (6 * h_k * h_v + 128 * (3 * h_k + 2 * h_v)))"
        " * T / t * (1 + 2.5 * backward + recompute)",
        "causal attention: scores and weighted sums over half of the sequence, or the window; "
        "backward 2.5 times forward (arXiv:2307.08691 §4.1); linear attention in chunks of 64 "
        "tokens: the state is read twice and added to, and within a chunk are two products of "
        "keys, one triangular system for keys and values, and the weighted sum of values "
        "(arXiv:2412.06464 §3.3)",
        "FLOPs",
    ),
    "converted": _of(
        "low * (1 - wide / (1 + 2 * backward + recompute))",
        "share of the layers' products in 8 or 4 bits; `wide` leaves out one of the passes: the "
        "gradients of weights",
    ),
    "rate_low": _of(
        "(e_rowwise if rowwise else e_fp8) * peak_low * min(power ** e_power, 1)",
        "rate of products in 8 or 4 bits, with their conversion",
        "FLOP/s",
    ),
    "matmul": _of(
        "(1 - converted) * matmul_flops / (e_matmul * effective)"
        " + converted * matmul_flops / rate_low"
        " + output_flops / (rate_low if low_out else e_matmul * effective)",
        "time of matrix products, of one micro-batch",
        "s",
    ),
    "attention": _of(
        "attention_flops / ((e_flash2 if flash2 else e_attention) * peak)",
        "time of attention, of one micro-batch; its kernels do not come to the power limit",
        "s",
    ),
    "handling": _of(
        "e_weights * bytes * ((L_d * N_layer + L_e * N_mixed) / t + N_experts / X)"
        " * (1 + (2 - frozen) * backward + recompute) / hbm",
        "weights and their gradients, read, copied and written in every pass, whatever the tokens: "
        "what makes small micro-batches slow",
        "s",
    ),
    "elementwise": _of(
        "L * T * bytes * ((e_memory + eager * e_eager) * (12 * d + 6 * F) + 4 * copies) / t"
        " * (1 + 2 * backward + recompute + 0.5 * save_some) / hbm",
        "norms, rotations, activations and residuals: bound by memory; and copies of tokens for "
        "experts, each read and written twice on the way there and twice on the way back",
        "s",
    ),
    "tensor": _of(
        "(t > 1) * L * T * bytes * d * (t - 1) / t * 4 * (1 + backward + recompute)"
        " / (e_link * bw_t)",
        "gathers and scatters of tensor and sequence parallelism, four a layer and pass "
        "(arXiv:2205.05198 §4.2.2)",
        "s",
    ),
    "context_all": _of(
        "(c > 1) * L * T * (c - 1) * bytes * (k + w) / t * (1 + 2 * backward + recompute)"
        " / (e_network * bw_c)",
        "keys and values passed around the ring (arXiv:2310.01889 §3)",
        "s",
    ),
    "context": _of("max(context_all - attention, 0)", "the part that attention does not hide", "s"),
    "expert": _of(
        "L_e * T / t * bytes * d * 2 * (1 + backward + recompute)"
        " * max(sent_near / bw_near, sent_far / bw_far) / e_network",
        "tokens sent to the GPUs of their experts and back, in both passes (arXiv:2006.16668 "
        "§3.2): within nodes and, beside it, between them, where each GPU has its own network card",
        "s",
    ),
    "micro_batch": _of(
        "matmul + attention + handling + elementwise + tensor + context + expert",
        "one micro-batch through the stage, forward and backward",
        "s",
    ),
    "compute": _of("m * (matmul + attention + handling + elementwise)", "work of the step", "s"),
    "third": _of(
        "backward * ((1 - low * (1 - wide)) * 2 * T / t * N_active / (e_matmul * effective)"
        " + low * (1 - wide) * 2 * T / t * N_active / rate_low"
        " + outs * (1 + D) * 2 * T * d * V / (t * p)"
        " / (rate_low if low_out else e_matmul * effective))",
        "one of three equal products: forward, gradients of inputs, gradients of weights",
        "s",
    ),
    "weights": _of("(1 - frozen) * third", "the part that makes the gradients of weights", "s"),
    "forward": _of(
        "third + attention / (1 + 2.5 * backward + recompute)"
        " + handling / (1 + (2 - frozen) * backward + recompute)"
        " + elementwise / (1 + 2 * backward + recompute + 0.5 * save_some)"
        " + (tensor + expert) / (1 + backward + recompute)"
        " + context / (1 + 2 * backward + recompute)",
        "the part that is its forward pass",
        "s",
    ),
    "inputs": _of(
        "micro_batch - forward - weights",
        "the rest: the gradients of inputs, and what is recomputed",
        "s",
    ),
    "bubble": _of(
        "fills * (p - 1) / v * (micro_batch - 2 * weights) if split else "
        "fills * (p - 1) * max(inputs / 2, inputs - weights, forward / 2) if vee else "
        "fills * max((p - 1) * (micro_batch - 2 * weights) / 2,"
        " (p - 1) * (inputs - weights / 2) - forward / 2) if dual else "
        "fills * (p - 1) / v * micro_batch",
        "pipeline bubble: of 1F1B, interleaved 1F1B, GPipe and looped BFS (arXiv:2104.04473 §2.2); "
        "of zero bubble, whose gradients of weights fill it (arXiv:2401.10241 Table 1), and of its "
        "V and DualPipeV as torch orders them, without communication (a test runs both orders)",
        "s",
    ),
    "handing": _of(
        "(p > 1) * 2 * (1 + backward) * m * v * T * bytes * d / t / (e_network * bw_p)",
        "activations and gradients from stage to stage",
        "s",
    ),
    "pipeline": _of("max(handing - compute, 0)", "the part that computation does not hide", "s"),
    "gathers": _of(
        "(p == 1) * m + fills",
        "times per step that weights are gathered and gradients reduced: once per micro-batch, "
        "in a pipeline each time that it fills",
    ),
    "data_all": _of(
        "(gathers * (1 + backward * max(p > 1, kept == 0)) * gathered"
        " + (1 if once else gathers) * 4 * backward * trained"
        " + (p > 1 and kept == 0) * (m - fills) * (1 + backward) * gathered)"
        " * (N_rest / t * (S - 1) / S"
        " + N_experts / X * (S * t - X) / (S * t)) / (e_network * bw_s)"
        " + 8 * backward * trained * N / (S * t) * (R - 1) / R / (e_network * bw_r)",
        "weights gathered twice, or once where they stay gathered, gradients reduced in fp32 "
        "(FSDP2), and summed over replicas",
        "s",
    ),
    "data": _of(
        "max(data_all - compute, e_shared * data_all)",
        "the part that computation does not hide; or by how much it slows what runs beside it",
        "s",
    ),
    "update": _of(
        "(28 + 32 * adafactor + 24 * lion) * backward * trained * N / (S * t) / hbm"
        " + backward * (L_d * z_d + L_e * z_e) / S / (e_matmul * effective)",
        "AdamW: 28 bytes read and written per parameter, by one kernel; Adafactor: 60, by nine; "
        "Lion: 52, by five; "
        "Muon: Newton–Schulz, whose matrices the GPUs share",
        "s",
    ),
    "time": _of(
        "compute + m * (tensor + context + expert) + bubble + pipeline + data + update",
        "an optimizer step",
        "s",
    ),
}
"""name → formula of the time, in the order in which they are computed, behind those of memory."""

ACCOUNT: dict[str, Formula] = {
    "P": _of(
        "dense * N_layer + mixed * (N_mixed + E * N_expert) + N_last + V * d * (2 - tied)",
        "all parameters: layers, last norm, embedding and output layer",
    ),
    "P_active": _of(
        "dense * N_layer + mixed * (N_mixed + K * N_expert) + N_last + V * d * (2 - tied)",
        "parameters that a token goes through",
    ),
    "P_further": _of(
        "D * (N_module + V * d + (N_mixed + K * N_expert if mixed else N_layer))",
        "parameters that further tokens go through: their modules, and the output again",
    ),
    "flops": _of(
        "6 * (P_active + P_further) * tokens",
        "as reports count them (arXiv:2001.08361 §2.1; arXiv:2407.21783 §1)",
        "FLOPs",
    ),
    "gpu_hours": _of("seconds / 3600 * W", "estimated time on all GPUs", "h"),
    "energy": _of("gpu_hours * watts / 1000", "GPUs at their power limit", "kWh"),
    "price": _of("gpu_hours * gpu_hour", "at the cluster's price of a GPU-hour"),
}
"""The totals of a stage."""
TOTALS = {
    "dense": "layers without experts",
    "mixed": "layers with experts",
    "tied": "1 if embedding and output share their weights, else 0",
    "tokens": "tokens of the stage",
    "seconds": "estimated steps of the stage, each with its batch",
    "W": "GPUs",
    "watts": "power limit of a GPU",
    "gpu_hour": "price of a GPU-hour, 0 if none is given",
}
"""Symbols of ACCOUNT."""


def compiled(formulas: Mapping[str, Formula]) -> CodeType:
    """The formulas as one program, which assigns each to its name, in order."""
    lines = [f"{name} = ({of.text})" for name, of in formulas.items()]
    return compile("\n".join(lines), "<formulas>", "exec")
