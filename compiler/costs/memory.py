"""The formulas of memory: what PyTorch's allocator has given out at the fullest moment of a step.

A step is fullest as its backward pass begins, with all that it will need and hardly a gradient, in
the loss or in the first layers; or as it ends, with all gradients and one layer. What is there at
each moment was counted in traces of the allocator (`benchmarks/memory.py`).
"""

from .formulas import Formula


def _of(text: str, what: str, unit: str = "") -> Formula:
    return Formula(text=text, what=what, unit=unit)


MEMORY: dict[str, Formula] = {
    "L": _of("L_d + L_e", "layers of the pipeline stage"),
    "N_attention": _of(
        "(r_q * (d + 1 + q) if r_q else d * q) + d * (r_k + r) + r_k * (1 + q - H * r + u) + u * d"
        " if r_k else 2 * d * q + 2 * d * k + 2 * normed * q / H + biased * (q + 2 * k + d)"
        " + sinks * H",
        "parameters of attention: through latents (arXiv:2412.19437 §2.1.1), or of grouped queries",
    ),
    "N_layer": _of(
        "N_attention + 3 * d * f + 2 * d + apart",
        "parameters of a layer without experts: attention, SwiGLU and two norms, or other parts",
    ),
    "N_expert": _of("3 * d * e + biased * (2 * e + d)", "parameters of an expert"),
    "N_mixed": _of(
        "N_attention + (d + biased) * E + E_s * N_expert + 2 * d + apart_e",
        "parameters of a layer with experts, except those that tokens are routed to",
    ),
    "N_module": _of(
        "(D > 0) * (2 * d * d + 3 * d)",
        "parameters of a module that predicts a further token, besides its layer: a matrix and "
        "three norms (arXiv:2412.19437 §2.2)",
    ),
    "N_rest": _of(
        "L_d * N_layer + L_e * N_mixed + D * N_module + N_in + N_out",
        "parameters of the pipeline stage, except experts",
    ),
    "N_experts": _of("L_e * E * N_expert", "parameters of its experts"),
    "N": _of("N_rest + N_experts", "parameters of the pipeline stage"),
    "trained": _of(
        "adapters if frozen else 1", "parameters that are trained for each of the model's"
    ),
    "parameters": _of(
        "4 * (1 + adapters) * N / (S * t) * (1 - offload)",
        "fp32 weights, sharded (FSDP2); the host has them where they are offloaded",
        "bytes",
    ),
    "reduced": _of(
        "4 * backward * trained * N / (S * t) * (1 - offload)",
        "fp32 gradients, reduced and sharded (FSDP2), on the GPU",
        "bytes",
    ),
    "factors": _of(
        "adafactor * (L_d * k_d + L_e * (k_e + k_x / x) + (N_in + N_out) * (1 / V + 1 / d))",
        "numbers that Adafactor keeps (arXiv:1804.04235 §3): one for each row and column",
    ),
    "optimizer": _of(
        "(((8 * (1 - adafactor) - 4 * lion) * N - 4 * muon * (N - N_in - N_out)) * backward"
        " * trained + 4 * averaged * N) / (S * t) * (1 - offload)"
        " + 4 * factors * backward * (1 - offload)",
        "two fp32 moments of AdamW, one of Muon and of Lion, and the fp32 mean of the weights "
        "where there is one, sharded, on the GPU; what Adafactor keeps, as if each GPU had all of "
        "it",
        "bytes",
    ),
    "T": _of("b * s / c", "tokens of a micro-batch that the GPU works on"),
    "F": _of(
        "(L_d * f + L_e * e * (K + E_s)) / L",
        "mean width of the feed-forward layers that a token goes through, per layer",
    ),
    "F_every": _of(
        "(L_d * f + L_e * e * E_s) / L",
        "the same without the experts that tokens are routed to, whose products come in groups",
    ),
    "copies": _of("2 * K * d * L_e / L", "width of what goes to experts and comes back, per layer"),
    "made": _of(
        "bytes * ((2 * d + q + k + w + u + more + (g + 1) * F + copies) / t + r_q + r_k)",
        "bytes a token that a layer makes: both residuals, queries, keys, values, what attention "
        "gives, what linear attention has more, and the products of the feed-forward layer "
        "(arXiv:2205.05198 §4)",
        "bytes",
    ),
    "saved_all": _of(
        "made + bytes * (2 * d + d * L_e / L + (scaled * (q + k) + eager * F) / t)"
        " + 4 * H / t + turns",
        "bytes a token and layer kept without recomputation: what every product reads, so also "
        "the norms' outputs, as tensor parallelism has gathered them; attention's sums in fp32, "
        "and the angles of the token's position (torch 2.14, functorch's "
        "`ban_recompute_materialized_backward`). Without torch.compile also the activated gate",
        "bytes",
    ),
    "saved_some": _of(
        "bytes * (d * (1 + (t > 1)) + q + u + w + more + (r_k > 0) * (k - H * r) + F_every"
        " + copies) / t + 4 * H / t",
        "the same with selective recomputation: the input, attention, every second matrix product "
        "(queries, values, gate), and what tensor parallelism has reduced of attention's "
        "(torchtitan 0.3, distributed/activation_checkpoint.py)",
        "bytes",
    ),
    "saved_full": _of(
        "bytes * d / t", "the same with full recomputation: a layer's input", "bytes"
    ),
    "saved": _of(
        "save_all * saved_all + save_some * saved_some + recompute * saved_full",
        "bytes a token and layer that the backward pass finds",
        "bytes",
    ),
    "gathers_norm": _of(
        "(t > 1) * bytes * (4 * d + (1 - save_all) * (2 * d + q + k + w + u) / t)",
        "bytes a token while tensor parallelism has a norm's output gathered, and its gradients "
        "before they are reduced",
        "bytes",
    ),
    "gathers_keys": _of(
        "(c > 1) * bytes * c * (k + w) / t",
        "bytes a token of the keys and values of all context ranks",
        "bytes",
    ),
    "working": _of(
        "T * max(made - saved + bytes * (2 * d + (copies - K * e * L_e / L) / t) + gathers_keys,"
        " bytes * (d + F + copies) / t, gathers_norm,"
        " (c > 1) * bytes * (3 * d + 2 * (q + u) / t) + 2 * gathers_keys)"
        " if backward else T * (made + 3 * bytes * d * (t > 1))",
        "the current layer, at its fullest: what is made again, with norms' outputs and what goes "
        "to experts and comes back; or gradients alone, where all is kept; or attention with "
        "gradients. Where a model only reads, all that it makes, and, gathered, input, output and "
        "the copy that is reduced",
        "bytes",
    ),
    "waiting": _of(
        "(1 + save_all) / 2 * saved_all + bytes * (2 * d + q + k + w + g * F + copies / 2) / t",
        "bytes a token and layer between the passes for gradients of inputs and for those of "
        "weights, where a schedule has them apart: gradients of what products give, and what they "
        "read; about half of what was recomputed, since a checkpoint drops what is used once",
        "bytes",
    ),
    "held": _of(
        "L * T * ((alive - between) * saved + between * waiting)",
        "what waits for the backward pass, or for its second part, of all layers and micro-batches",
        "bytes",
    ),
    "N_gathered": _of(
        "max((L_d > 0) * N_layer / t, (L_e > 0) * (N_mixed / t + E * N_expert / X)) + N_module",
        "parameters of the largest layer that a GPU works with",
    ),
    "N_whole": _of(
        "N_rest / t + N_experts / X", "parameters of the pipeline stage before FSDP shards them"
    ),
    "N_head": _of(
        "has_out * (N_out if N_out else N_in) / t",
        "parameters of the output layer, or of the table that is also the embedding",
    ),
    "learned": _of("backward * (1 - frozen)", "1 where the model's own weights have gradients"),
    "whole": _of(
        "4 * learned * N_whole * max(p > 1, once)",
        "fp32 gradients of all layers, where they are reduced only behind the last micro-batch",
        "bytes",
    ),
    "few": _of(
        "p > 1 and m <= alive * fills",
        "1 where a rank of a pipeline holds all micro-batches before it has a gradient",
    ),
    "rest": _of(
        "(1 - 1 / alive) / v if few else 1",
        "share of the activations that is left once all layers have gradients",
    ),
    "early": _of(
        "few and held * (1 - rest) > whole * (1 - (v > 1) / v)",
        "1 where that rank is fullest before: with gradients of none, or of one of its stages",
    ),
    "summed": _of(
        "whole * (v > 1) / v if early else whole", "whole gradients that are there then", "bytes"
    ),
    "earlier": _of(
        "reduced * (fills > 1 if p > 1 else m > 1 and once == 0)",
        "gradients of earlier micro-batches, where they are reduced with each",
        "bytes",
    ),
    "present": _of(
        "held if early else held * rest", "activations as a backward pass begins", "bytes"
    ),
    "hidden": _of(
        "has_out * backward * T * d * (4 * chunked + 3 * bytes) * (1 + D)",
        "for the loss: outputs of the last layer and the last norm, the parts of the latter, and "
        "its gradient, which is put together in fp32 (torchtitan, components/loss.py)",
        "bytes",
    ),
    "logits_part": _of(
        "has_out * (asked if asked else a_logits * (1 + D) if plain_loss else"
        " bytes * (1 + D) + (bytes if t == 1 else 8)) * T * V / (t * chunks)",
        "logits, of further tokens too, their fp32 copy, log-softmax and gradient, in parts; of a "
        "compiled loss only logits and gradient, which is made of two in fp32 where tensor ranks "
        "share the vocabulary",
        "bytes",
    ),
    "logits_sent": _of(
        "chunked * has_out * bytes * T * V / (t * chunks)",
        "the last part's logits, which are still there as the output's gradient is sent",
        "bytes",
    ),
    "head": _of(
        "(gathered * (1 if N_out and learned else 2) * (1 - kept)"
        " + 4 * chunked * (p == 1) * learned) * N_head",
        "the output's gathered weights, a table that is also the embedding twice, and frozen ones, "
        "which are fullest as they are gathered; and the fp32 sum of the gradients of all parts, "
        "which is among the whole gradients of a pipeline",
        "bytes",
    ),
    "head_part": _of(
        "head + bytes * learned * N_head"
        " * ((1 - plain_loss) * (t == 1) + (asked > 0) * (chunks > 1))"
        " + (asked > 0) * gathered * N_gathered * (1 - kept)",
        "the same with the gradient of a part; before that, a loss with copies in fp32 has most, "
        "and one that asks about places the gradient of the pieces before, and the last layer, "
        "which is gathered already",
        "bytes",
    ),
    "head_sent": _of(
        "head + (bytes * (1 - chunked) + 4 + 4 * (1 - offload) / S) * learned * N_head",
        "the same as the gradient is sent: with the fp32 copy that is sent and what comes back",
        "bytes",
    ),
    "sends": _of(
        "head_sent + logits_sent > head_part + logits_part",
        "1 where the loss takes most then",
    ),
    "loss": _of(
        "hidden + max(head_sent + logits_sent, head_part + logits_part)",
        "the loss: with chunks 10 bytes for each parameter of the output",
        "bytes",
    ),
    "around": _of(
        "2 * gathered * N_gathered * (1 - kept) + bytes * learned * N_gathered",
        "weights of the layer that goes backward and of the next, gathered, and its gradients",
        "bytes",
    ),
    "first": _of(
        "working + around"
        " + 4 * learned * max((1 - chunked) * N_head, N_gathered - T * saved / 4, 0)"
        " if p == 1 else max(working + around, 4 * learned * N_gathered)",
        "the first layer that goes backward, while the output's gradient is sent, which a loss in "
        "chunks has behind it; or the second, while the first's is sent and its activations are "
        "gone; in a pipeline gradients are sent only at the end",
        "bytes",
    ),
    "last": _of(
        "T * saved + working + around + 4 * learned * N_gathered",
        "the same of the last layer, with what the backward pass finds of it",
        "bytes",
    ),
    "table": _of(
        "learned * max(4 * N_gathered + 2 * bytes * N_in / t, (4 + bytes) * N_in / t)",
        "the embedding behind it: weights and gradient, or the copy that is sent",
        "bytes",
    ),
    "ends": _of(
        "backward * (p == 1)"
        " * (reduced + max(last, table) > earlier + summed + present + max(loss, first))",
        "1 where memory is fullest as the backward pass ends, not as it begins",
    ),
    "gradients": _of(
        "reduced if ends else earlier", "sharded gradients that are there then", "bytes"
    ),
    "activations": _of(
        "(T * saved + working) * (last > table) if ends else"
        " present + (hidden if loss > first else working) if backward else working",
        "what is kept for the backward pass, and the current layer, or the loss",
        "bytes",
    ),
    "logits": _of(
        "(logits_sent if sends else logits_part) * (loss > first and ends == 0)"
        " if backward else logits_part",
        "the loss' logits, where memory is fullest in the loss",
        "bytes",
    ),
    "tables": _of(
        "L * s * turns + has_out * backward * bytes * T * d",
        "rotary angles, of whole sequences in every layer; and the last output of the step before",
        "bytes",
    ),
    "received": _of(
        "(p > 1) * backward * (2 * v - (N_in > 0) - has_out) * m / max(fills, 1)"
        " * bytes * T * d / t",
        "what a pipeline has room for from the stages before and behind, of each micro-batch "
        "(torch 2.14, distributed/pipelining/stage.py)",
        "bytes",
    ),
    "staying": _of(
        "kept * gathered * N_whole * (min(v, 3) / v if p > 1 else 1)",
        "weights that stay gathered behind a pass: in a pipeline of at most three of a rank's "
        "stages (torch 2.14, distributed/pipelining/schedules.py, `_add_unshard_reshard`)",
        "bytes",
    ),
    "exchange": _of(
        "muon * 8 * (max(matrix, N_gathered / S) + matrix + (N_gathered + matrix) / S)",
        "two sets of what Muon sends and works with: shards of a layer, whole matrices of it, and "
        "the one at work (torchtitan 0.3, distributed/flex_shard)",
        "bytes",
    ),
    "buffers": _of(
        "tables + received + exchange + staying"
        " + (max(last, table) - (T * saved + working) * (last > table) if ends else"
        " summed + ((head_sent if sends else head_part) if loss > first else first - working))"
        " if backward else tables + 2 * gathered * N_gathered + bytes * (N_in + N_out) / t",
        "gathered weights and whole gradients at that moment; and what is always there. Where a "
        "model only reads, the weights of two layers and both tables",
        "bytes",
    ),
    "margin": _of(
        "a_margin * (gradients + activations + logits + buffers)",
        "fragmentation of the allocator",
        "bytes",
    ),
    "memory": _of(
        "parameters + gradients + optimizer + activations + logits + buffers + margin",
        "memory of the fullest GPU",
        "bytes",
    ),
}
"""name → formula, in the order in which they are computed."""
