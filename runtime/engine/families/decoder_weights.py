"""The weights of decoders that are put together from parts, under transformers' names."""

import re
from typing import Any

import torch
from torchtitan.protocols.state_dict_adapter import StateDictAdapter

from .decoder_names import (
    ADDED,
    ALONE,
    APART,
    ASIDE,
    CHOICE,
    CHOICES,
    DELTA_BA,
    DELTA_QKV,
    DELTA_QKVZ,
    EXPERTS,
    EXPERTS_APART,
    EXPERTS_STACKED,
    EXPERTS_TOGETHER,
    FILTERS,
    FLIPPED,
    FURTHER,
    FUSED,
    GATE,
    GATED,
    LAYER,
    LAYERS,
    OFFSET,
    PAIRED,
    PIECES,
    POSITIONS,
    QKV,
    ROUTED,
    SHARED,
    WHOLE,
    WHOLES,
    K,
    Q,
)

_LAYER = re.compile(r"layers\.(\d+)\.(.+)")
_LAYERS = r"{}\.(\d+)\.(.+)"


class PartsAdapter(StateDictAdapter):
    """Weights under transformers' names: one to one, but for matrices that are one there, which
    are given once all of their parts have been."""

    def __init__(self, model_config: Any, hf_assets_path: str | None) -> None:
        super().__init__(model_config, hf_assets_path)
        kind, layer = model_config.published, model_config.layers[0]
        attention = model_config.first_attention
        # Of layers with linear attention, if there are any.
        delta = next((each.delta_net for each in model_config.layers if each.delta_net), None)
        # Of layers without experts, if there are any.
        fed = next((each.feed_forward for each in model_config.layers if not each.moe), None)
        self.kind, self.tied = kind, model_config.enable_weight_tying
        self.number = len(model_config.layers)
        self.layer = LAYER | dict(APART.get(kind, {}))
        if model_config.mtp_layers:
            self.layer |= FURTHER
        if kind == "falcon" and layer.ffn_norm is None:
            self.layer["attention_norm"] = "input_layernorm"
        if fed is not None and fed.w3 is None:
            # Its name is then that of the first matrix.
            del self.layer["feed_forward.w3"]
        self.whole = WHOLES.get(kind, WHOLE)
        self.layers = LAYERS.get(kind, "model.layers")
        aside = ASIDE.get(kind, ())
        self.from_hf_map = {f"{self.layers}.{{}}.{name}": None for name in aside}
        # GPT-2 holds matrices as inputs × outputs.
        self.turned = kind == "gpt2"
        self.usual_pieces = int(PIECES.get(kind) or attention.n_kv_heads or 1)
        shared = delta.wq.out_features // delta.kernel.key_dim if delta else 1
        self.pieces = {GATE: attention.n_heads, DELTA_QKV: 1, FILTERS: 1}
        # Qwen3-Next has what belongs to a head of keys together.
        self.pieces |= {DELTA_QKVZ: shared, DELTA_BA: shared}
        self.width, self.rotary = attention.head_dim, attention.rope.dim
        keys = attention.n_kv_heads * self.width
        rows = (attention.n_heads * self.width, keys, keys)
        self.rows: dict[str, int] = dict(zip(QKV, rows, strict=True))
        self.rows |= dict.fromkeys(GATED, fed.w1.out_features if fed is not None else 0)
        mixed = next((each.moe for each in model_config.layers if each.moe), None)
        beside = mixed.shared_experts if mixed is not None else None
        self.rows |= dict.fromkeys(SHARED, beside.w1.out_features if beside is not None else 0)
        self.rows["attention.gate"] = rows[0]
        for part, which in zip(DELTA_QKV, "qkv", strict=True):
            of = getattr(delta, f"w{which}").out_features if delta else 0
            self.rows |= {part: of, f"delta_net.{which}_filter": of}
        for which in "zab":
            self.rows[f"delta_net.w{which}"] = (
                getattr(delta, f"w{which}").out_features if delta else 0
            )
        self.experts: dict[str, str] = EXPERTS_APART.get(kind, EXPERTS)
        self.together: dict[str, str] = EXPERTS_TOGETHER.get(kind, {})
        self.stacked: dict[str, str] = EXPERTS_STACKED.get(kind, {})
        self.count = mixed.num_experts if mixed is not None else 0
        self.choice = CHOICES.get(kind)
        self.fused: dict[Any, str] = dict(FUSED.get(kind, {}))
        self.joined: dict[str, Any] = {part: of for of in self.fused for part in of}
        self.more = 1.0 if kind in ADDED else 0.0
        self.offset = OFFSET.get(kind, 0)
        self.waiting: dict[str, dict[str, Any]] = {}

    def sources(self, name: str, tensor: Any) -> dict[str, Any]:
        """transformers' tensors that one of ours is made from, as tensors of their shapes."""
        name = self.behind(name)
        of = re.fullmatch(r"layers\.(\d+)\.(.+)\.(\w+)", name)
        if of and of[2] == ROUTED and self.together:
            return self.to_hf(
                {f"layers.{of[1]}.{ROUTED}.{each}": tensor for each in self.beside(of[3])}
            )
        if not of or of[2] not in self.joined:
            return self.to_hf({name: tensor})
        parts = {
            f"layers.{of[1]}.{part}.{of[3]}": tensor.new_empty((self.rows[part], *tensor.shape[1:]))
            for part in self.joined[of[2]]
        }
        return self.to_hf(parts)

    def to_hf(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Weights under transformers' names."""
        found = {}
        for name, weight in state_dict.items():
            if self.tied and name == "lm_head.weight":
                continue
            ours, _, last = self.behind(name).rpartition(".")
            weight = self.changed(ours, last, weight, back=True)
            if theirs := self.whole.get(ours):
                found[f"{theirs}.{last}"] = weight
                continue
            of = _LAYER.fullmatch(ours)
            assert of is not None
            if of[2] == ROUTED and self.together:
                whole = f"{self.layers}.{of[1]}.{self.together[last]}.weight"
                have, parts = self.waiting.setdefault(whole, {}), self.beside(last)
                have[last] = weight
                if len(have) == len(parts):
                    del self.waiting[whole]
                    found[whole] = torch.cat([have[each] for each in parts], dim=1)
                continue
            if of[2] == ROUTED and self.stacked:
                found[f"{self.layers}.{of[1]}.{self.stacked[last]}"] = self.stack(last, weight)
                continue
            if of[2] == ROUTED:
                theirs = f"{self.layers}.{of[1]}.{self.experts[last]}.weight"
                found |= {theirs.format(expert): each for expert, each in enumerate(weight)}
                continue
            if f"{of[2]}.{last}" == CHOICE:
                # Where transformers has no such bias, it is left out.
                if self.choice:
                    # Ernie has a row for each of its groups, of which there is one.
                    rows = weight[None] if self.kind == "ernie4_5_moe" else weight
                    found[f"{self.layers}.{of[1]}.{self.choice}"] = rows
                continue
            if parts := self.joined.get(of[2]):
                fused = f"{self.layers}.{of[1]}.{self.fused[parts]}.{last}"
                have = self.waiting.setdefault(fused, {})
                have[of[2]] = weight
                if len(have) == len(parts):
                    del self.waiting[fused]
                    found[fused] = self.turn(self.join([have[each] for each in parts], parts))
                continue
            if theirs := ALONE.get(of[2]):
                found[f"{self.layers}.{of[1]}.{theirs}"] = weight
                continue
            theirs = f"{self.layers}.{of[1]}.{self.layer[of[2]]}"
            if theirs.endswith(".norms"):
                found |= {f"{theirs}.{head}.{last}": each for head, each in enumerate(weight)}
            else:
                found[f"{theirs}.{last}"] = self.turn(weight)
            if last == "alpha_n":
                # transformers has what is always the same as tensors, too (`activations.py`).
                for constant, value in (("beta", 0.5), ("eps", -1e-6)):
                    found[f"{theirs}.{constant}"] = weight.new_full((), value)
        return found

    def from_hf(self, hf_state_dict: dict[str, Any]) -> dict[str, Any]:
        """The inverse of `to_hf`; rotary frequencies are left out."""
        layer = {theirs: ours for ours, theirs in self.layer.items() if ours not in self.joined}
        alone = {theirs: ours for ours, theirs in ALONE.items()}
        whole = {theirs: ours for ours, theirs in self.whole.items()}
        fused = {theirs: parts for parts, theirs in self.fused.items()}
        found = self._routed(hf_state_dict)
        for name, weight in self._whole_norms(hf_state_dict).items():
            theirs, _, last = name.rpartition(".")
            of = re.fullmatch(rf"{re.escape(self.layers)}\.(\d+)\.(.+)", theirs)
            inside: dict[str, Any] = {}
            if of and (parts := fused.get(of[2])):
                inside = dict(zip(parts, self.split(self.turn(weight), parts), strict=True))
            elif of and of[2] in layer:
                inside = {layer[of[2]]: self.turn(weight)}
            elif (single := re.fullmatch(_LAYERS.format(re.escape(self.layers)), name)) and (
                ours := alone.get(single[2])
            ):
                found[f"layers.{single[1]}.{ours}.weight"] = weight
            elif theirs in whole:
                ours = whole[theirs]
                found[f"{ours}.{last}"] = self.changed(ours, last, weight, back=False)
            for part, each in inside.items():
                ours = f"layers.{of[1] if of else 0}.{part}"
                found[f"{ours}.{last}"] = self.changed(ours, last, each, back=False)
        if self.tied and "lm_head.weight" not in found:
            found["lm_head.weight"] = found["tok_embeddings.weight"]
        return {self.apart(name): weight for name, weight in found.items()}

    def behind(self, name: str) -> str:
        """The name of a tensor of ours, with modules that predict further tokens as layers behind
        the model's, as transformers counts them."""
        of = re.fullmatch(r"mtp_layers\.(\d+)\.(.+)", name)
        return f"layers.{self.number + int(of[1])}.{of[2]}" if of else name

    def apart(self, name: str) -> str:
        """The inverse of `behind`."""
        of = _LAYER.fullmatch(name)
        if of is None or int(of[1]) < self.number:
            return name
        return f"mtp_layers.{int(of[1]) - self.number}.{of[2]}"

    def beside(self, last: str) -> list[str]:
        """Our weights of experts that are one module there with this one, by its rows."""
        return [each for each, theirs in self.together.items() if theirs == self.together[last]]

    def stack(self, last: str, weight: torch.Tensor) -> torch.Tensor:
        """A weight of all experts as a matrix with the rows of each, one after the other."""
        rows = weight.transpose(1, 2) if last == "w2_EDF" else weight
        return rows.flatten(0, 1).contiguous()

    def _routed(self, given: dict[str, Any]) -> dict[str, Any]:
        """The weights of experts, of all in one, and the bias on their choice."""
        found, apart = {}, {}
        ours = {theirs: name for name, theirs in self.experts.items()}
        stacked = {theirs: name for name, theirs in self.stacked.items()}
        for name, weight in given.items():
            of = re.fullmatch(rf"{re.escape(self.layers)}\.(\d+)\.(.+)", name)
            if of and of[2] == self.choice:
                found[f"layers.{of[1]}.{CHOICE}"] = weight.flatten()
            if of and (last := stacked.get(of[2])):
                each = weight.unflatten(0, (self.count, -1))
                each = each.transpose(1, 2).contiguous() if last == "w2_EDF" else each
                found[f"layers.{of[1]}.{ROUTED}.{last}"] = each
            stem = of[2].removesuffix(".weight") if of else ""
            if of and stem in self.together.values():
                names = [each for each, theirs in self.together.items() if theirs == stem]
                for last, each in zip(names, weight.chunk(len(names), dim=1), strict=True):
                    found[f"layers.{of[1]}.{ROUTED}.{last}"] = each.contiguous()
            part = re.fullmatch(r"(.+\.experts\.)(\d+)(\..+)\.weight", of[2]) if of else None
            if of and part and (last := ours.get(f"{part[1]}{{}}{part[3]}")):
                apart.setdefault(f"layers.{of[1]}.{ROUTED}.{last}", {})[int(part[2])] = weight
        of_all = {name: [of[expert] for expert in sorted(of)] for name, of in apart.items()}
        return found | {name: torch.stack(each) for name, each in of_all.items()}

    def _whole_norms(self, given: dict[str, Any]) -> dict[str, Any]:
        """Norms that are a module for each head there, as one."""
        found, heads = {}, {}
        for name, weight in given.items():
            of = re.fullmatch(r"(.+\.norms)\.(\d+)\.(\w+)", name)
            if of is None:
                found[name] = weight
            else:
                heads.setdefault(f"{of[1]}.{of[3]}", {})[int(of[2])] = weight
        stacked = {name: [of[head] for head in sorted(of)] for name, of in heads.items()}
        return found | {name: torch.stack(each) for name, each in stacked.items()}

    def changed(self, ours: str, last: str, weight: torch.Tensor, *, back: bool) -> torch.Tensor:
        """A weight as this side holds it; with `back`, as the other does."""
        if self.more and last == "weight" and "norm" in ours and ".delta_net." not in ours:
            return weight - self.more if back else weight + self.more
        if ours.endswith("_filter"):
            # A convolution has an axis for the channels that it sees: one.
            return weight[:, None] if back else weight.squeeze(1)
        if self.offset and ours == POSITIONS:
            none = weight.new_zeros((self.offset, *weight.shape[1:]))
            return torch.cat([none, weight]) if back else weight[self.offset :]
        if ours.endswith((Q, K)):
            return self.sort(weight.unflatten(0, (-1, self.width)), back=back).flatten(0, 1)
        if ours.endswith(("attention.q_norm", "attention.k_norm")):
            return self.sort(weight.reshape(-1, self.width), back=back).reshape(weight.shape)
        return weight

    def sort(self, heads: torch.Tensor, *, back: bool) -> torch.Tensor:
        """The elements of heads, along the second axis, in the order of the other side."""
        if self.kind in FLIPPED:
            return heads.unflatten(1, (2, -1)).flip(1).flatten(1, 2)
        if self.kind not in PAIRED:
            return heads
        turned, rest = heads[:, : self.rotary], heads[:, self.rotary :]
        pairs = turned.unflatten(1, (2, -1) if back else (-1, 2)).transpose(1, 2).flatten(1, 2)
        return torch.cat([pairs, rest], dim=1)

    def turn(self, weight: torch.Tensor) -> torch.Tensor:
        """A matrix of a layer as the other side holds it."""
        return weight.t().contiguous() if self.turned and weight.ndim == 2 else weight

    def join(self, weights: list[torch.Tensor], parts: tuple[str, ...]) -> torch.Tensor:
        """Weights or biases of several modules as one, by rows."""
        pieces = self.pieces.get(parts, self.usual_pieces)
        split = [weight.unflatten(0, (pieces, -1)) for weight in weights]
        return torch.cat(split, dim=1).flatten(0, 1)

    def split(self, fused: torch.Tensor, parts: tuple[str, ...]) -> list[torch.Tensor]:
        """The inverse of `join`."""
        pieces = self.pieces.get(parts, self.usual_pieces)
        each = fused.unflatten(0, (pieces, -1))
        rows = [self.rows[part] // pieces for part in parts]
        return [part.flatten(0, 1).contiguous() for part in each.split(rows, dim=1)]
