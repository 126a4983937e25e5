"""The spans of a micro-batch in groups of about the same length, for attention on CPUs.

The groups are made once a micro-batch, and all layers go by them.

Names carry shapes: B rows, L tokens of a row, T tokens of all rows, G spans of a group, Q tokens of
each, P tokens of each one's prefix, N heads, H dimensions per head.
"""
# ruff: noqa: N803, N806, N815 (the names are also torchtitan's)

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F

from . import masked, rearranged
from .blockwise import attend
from .spans import Span, Spans

DENSE = 256
"""Tokens of the longest rows, and in them of the longest spans that continue each other, that are
taken with a dense mask, which costs less there than going by spans."""
EXACT = 512
"""Spans of at least this length are together only with others of the same length."""
STEPS = 8
"""Shorter ones are padded to one of this many lengths between a power of two and its half."""
LEAST = 16

Score = Callable[[Any, Any, Any, Any, Any], torch.Tensor]
"""How scores change: from the score, its row, its head, and the places of query and key in the row,
tensors that broadcast together."""

_Family = list[Span]
"""A span that is computed alone, or one with those that continue it."""
_Parts = tuple["Group", torch.Tensor, torch.Tensor, torch.Tensor, Sequence[torch.Tensor]]


@dataclass(frozen=True)
class Group:
    """Spans that are computed together, shorter ones padded at their end, and shorter prefixes at
    their beginning; or spans with those that continue them, with a mask.

    Attributes:
        spans: how many.
        length: tokens that each is padded to.
        prefix: tokens that the prefix of each is padded to.
        absent_GP: bool, what of the prefixes is padding; None if nothing is.
        sees: which tokens see which, bool, shape (G, 1, Q, Q); None: all earlier ones, and the
            prefix.
        apart_GQQ: how far the token (second axis) is from the token (third axis) that it sees.
    """

    spans: int
    length: int
    prefix: int = 0
    absent_GP: torch.Tensor | None = None
    sees: torch.Tensor | None = None
    apart_GQQ: torch.Tensor | None = None

    def within(self, window: int) -> Self:
        """The same for layers with a window, or without one if it is 0."""
        if not window or self.sees is None or self.apart_GQQ is None:
            return self
        return replace(self, sees=self.sees & (self.apart_GQQ < window)[:, None])


@dataclass(frozen=True)
class Grouped:
    """Which tokens see which, in the form that attention on CPUs takes.

    Attributes:
        groups: of the spans.
        own_Q: where the tokens of all groups are among those of all rows, int64; None if they are
            the rows as they are.
        prefixes_P: the same of the tokens of all groups' prefixes.
        back_T: for the tokens of all rows, where each is among those of all groups.
        window: tokens that a token sees, including itself; 0: all.
    """

    groups: tuple[Group, ...]
    own_Q: torch.Tensor | None
    prefixes_P: torch.Tensor
    back_T: torch.Tensor
    window: int = 0

    @classmethod
    def of(cls, spans: Spans) -> Self:
        """The groups of some rows' spans."""
        together: dict[tuple[int, int, bool], list[tuple[int, _Family]]] = defaultdict(list)
        for row, of_row in enumerate(spans.rows):
            for family in _families(of_row):
                prefix = 0 if len(family) > 1 else family[0].prefix
                length = family[-1].end - family[0].start
                key = _padded(length), _padded(prefix) if prefix else 0, len(family) > 1
                together[key].append((row * spans.length, family))
        tokens = len(spans.rows) * spans.length
        groups, own, prefixes, back = [], [], [], torch.empty(tokens, dtype=torch.int64)
        for (length, prefix, several), found in together.items():
            lacks = []
            for base, family in found:
                first, last = family[0], family[-1]
                start, end = base + first.start, base + last.end
                back[start:end] = torch.arange(len(own), len(own) + end - start)
                # Padding repeats a token: what comes of it is not read, and has no gradient.
                own += [*range(start, end), *[end - 1] * (length - (end - start))]
                if not several:
                    lack, at = prefix - first.prefix, base + first.prefix_start
                    prefixes += [*[at] * lack, *range(at, base + first.prefix_end)]
                    lacks.append(lack)
            if several:
                groups.append(_masked([family for _, family in found], length))
                continue
            absent = torch.arange(prefix) < torch.tensor(lacks)[:, None] if any(lacks) else None
            groups.append(Group(len(found), length, prefix, absent))
        as_is = own == list(range(tokens))
        return cls(
            tuple(groups),
            None if as_is else torch.tensor(own),
            torch.tensor(prefixes, dtype=torch.int64),
            back,
        )

    def within(self, window: int) -> Self:
        """The same for layers with a window."""
        groups = tuple(group.within(window) for group in self.groups)
        return replace(self, groups=groups, window=window)

    def attend(
        self,
        q_BLNH: torch.Tensor,
        k_BLNH: torch.Tensor,
        v_BLNH: torch.Tensor,
        scale: float | None = None,
    ) -> torch.Tensor:
        """The mixed values, shape (B, L, N, H); k and v may have fewer heads than q, and v other
        dimensions."""
        same = q_BLNH.shape[-1] == v_BLNH.shape[-1]
        found = []
        for group, q, k, v, of_prefix in self._parts(q_BLNH, k_BLNH, v_BLNH):
            causal = not group.prefix and not 0 < self.window < group.length
            if group.sees is not None or (same and causal):
                found.append(masked.attend(q, k, v, group.sees, scale))
            else:
                found.append(_in_blocks(group, q, k, v, of_prefix, scale, self.window)[0])
        return self._back(found, q_BLNH)

    def attend_with_sums(
        self,
        q_BLNH: torch.Tensor,
        k_BLNH: torch.Tensor,
        v_BLNH: torch.Tensor,
        scale: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What `attend` returns, and the logarithms of the softmax's denominators, float32, shape
        (B, L, N)."""
        found = []
        for group, q, k, v, of_prefix in self._parts(q_BLNH, k_BLNH, v_BLNH):
            if group.sees is not None:
                found.append(masked.attend_with_sums(q, k, v, group.sees, scale))
            else:
                found.append(_in_blocks(group, q, k, v, of_prefix, scale, self.window))
        out, sums = zip(*found, strict=True)
        return self._back(out, q_BLNH), self._back(sums, q_BLNH)

    def attend_scored(
        self,
        q_BLNH: torch.Tensor,
        k_BLNH: torch.Tensor,
        v_BLNH: torch.Tensor,
        score: Score,
        scale: float | None = None,
    ) -> torch.Tensor:
        """What `attend` returns, by changed scores, with memory that is the square of a span's
        length."""
        B, L = q_BLNH.shape[:2]
        flat = torch.arange(B * L) if self.own_Q is None else self.own_Q
        own = flat.split([group.spans * group.length for group in self.groups])
        before = self.prefixes_P.split([group.spans * group.prefix for group in self.groups])
        found = []
        for number, (group, q, k, v, of_prefix) in enumerate(self._parts(q_BLNH, k_BLNH, v_BLNH)):
            mine = own[number].view(group.spans, -1)
            seen = torch.cat([before[number].view(group.spans, -1), mine], dim=1)
            keys, values = (
                torch.cat([p, of], dim=1) for p, of in zip(of_prefix, (k, v), strict=True)
            )
            hidden = _hidden(group, self.window) if group.sees is None else ~group.sees
            rows = mine[:, 0] // L
            out = mixed(
                q, keys, values, hidden, score, scale, rows=rows, own=mine % L, seen=seen % L
            )
            found.append(out)
        return self._back(found, q_BLNH)

    def largest(
        self, q_BLNH: torch.Tensor, k_BLNH: torch.Tensor, scale: float | None = None
    ) -> torch.Tensor:
        """The largest score of each head of the queries, shape (N,)."""
        found = []
        for group, q, k, _, of_prefix in self._parts(q_BLNH, k_BLNH, k_BLNH):
            hidden = _hidden(group, self.window) if group.sees is None else ~group.sees
            keys = torch.cat([of_prefix[0], k], dim=1) if group.prefix else k
            found.append(largest(q, keys, hidden, scale))
        return torch.stack(found).amax(0)

    def _parts(
        self, q_BLNH: torch.Tensor, k_BLNH: torch.Tensor, v_BLNH: torch.Tensor
    ) -> Iterator[_Parts]:
        """Each group with its queries, keys and values, shape (G, Q, N, H), and the keys and values
        of its prefixes, shape (G, P, N, H)."""
        flat = [of.flatten(0, 1) for of in (q_BLNH, k_BLNH, v_BLNH)]
        # One copy of everything: a copy for each group would have a gradient of all rows each.
        own = flat
        if self.own_Q is not None:
            own = [rearranged.Out.apply(of, self.own_Q, self.back_T) for of in flat]
        sizes = [group.spans * group.length for group in self.groups]
        of_own = [of.split(sizes) for of in own]
        sizes = [group.spans * group.prefix for group in self.groups]
        of_prefixes = [of.index_select(0, self.prefixes_P).split(sizes) for of in flat[1:]]
        for number, group in enumerate(self.groups):
            q, k, v = (of[number].unflatten(0, (group.spans, -1)) for of in of_own)
            before = [
                of[number].view(group.spans, group.prefix, *of[number].shape[1:])
                for of in of_prefixes
            ]
            yield group, q, k, v, before

    def _back(self, found: Sequence[torch.Tensor], q_BLNH: torch.Tensor) -> torch.Tensor:
        """What the groups have found, in the order of the rows."""
        parts = [of.flatten(0, 1) for of in found]
        joined = torch.cat(parts) if len(parts) > 1 else parts[0]
        if self.own_Q is not None:
            joined = rearranged.Back.apply(joined, self.back_T)
        return joined.unflatten(0, q_BLNH.shape[:2])


def mixed(
    q_GQNH: torch.Tensor,
    k_GKNH: torch.Tensor,
    v_GKNH: torch.Tensor,
    hidden: torch.Tensor,
    score: Score,
    scale: float | None,
    *,
    rows: torch.Tensor,
    own: torch.Tensor,
    seen: torch.Tensor,
) -> torch.Tensor:
    """Values that are mixed by changed scores, shape (G, Q, N, H).

    Args:
        hidden: bool, which keys queries do not see, broadcasts to shape (G, N, Q, K).
        rows: the row of each span, shape (G,).
        own, seen: the places of queries and keys in their rows, shapes (G, Q) and (G, K).
    """
    N, each = q_GQNH.shape[2], q_GQNH.shape[2] // k_GKNH.shape[2]
    q_GNQH = q_GQNH.transpose(1, 2)
    k_GNKH, v_GNKH = (of.transpose(1, 2).repeat_interleave(each, dim=1) for of in (k_GKNH, v_GKNH))
    by = q_GQNH.shape[-1] ** -0.5 if scale is None else scale
    scores = (q_GNQH @ k_GNKH.transpose(2, 3)).float() * by
    heads = torch.arange(N)[None, :, None, None]
    scores = score(
        scores, rows[:, None, None, None], heads, own[:, None, :, None], seen[:, None, None, :]
    )
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    return (weights.to(v_GKNH.dtype) @ v_GNKH).transpose(1, 2)


def largest(
    q_GQNH: torch.Tensor, k_GKNH: torch.Tensor, hidden: torch.Tensor, scale: float | None
) -> torch.Tensor:
    """The largest score of each head of the queries, shape (N,), a piece of the queries at a time.

    Args:
        hidden: bool, which keys queries do not see, broadcasts to shape (G, N, Q, K).
    """
    N, each = q_GQNH.shape[2], q_GQNH.shape[2] // k_GKNH.shape[2]
    k_GNHK = k_GKNH.permute(0, 2, 3, 1).repeat_interleave(each, dim=1)
    by = q_GQNH.shape[-1] ** -0.5 if scale is None else scale
    found = torch.full((N,), float("-inf"))
    for begin in range(0, q_GQNH.shape[1], DENSE):
        at = slice(begin, begin + DENSE)
        scores = (q_GQNH[:, at].transpose(1, 2) @ k_GNHK).float() * by
        scores = scores.masked_fill(hidden[..., at, :], float("-inf"))
        found = torch.maximum(found, scores.amax((0, 2, 3)))
    return found


def _hidden(group: Group, window: int) -> torch.Tensor:
    """Which keys of its prefix and its own the queries of a span do not see, shape (G, 1, Q, K)."""
    query = torch.arange(group.length)[:, None] + group.prefix
    key = torch.arange(group.prefix + group.length)[None]
    hidden = (key > query) | ((query - key >= window) if window else False)
    hidden = hidden.expand(group.spans, -1, -1)
    if group.absent_GP is not None:
        # A span's own tokens always see themselves.
        absent = F.pad(group.absent_GP, (0, group.length), value=False)
        hidden = hidden | absent[:, None]
    return hidden[:, None]


def _families(row: Sequence[Span]) -> Iterator[_Family]:
    """A row's spans, those together of which each but the first continues the first, if they are
    short."""
    family: _Family = []
    for span in row:
        first = family[0] if family else span
        continues = span.prefix and (span.prefix_start, span.prefix_end) == first[:2]
        if family and continues and span.end - first.start <= DENSE:
            family.append(span)
            continue
        if family:
            yield family
        family = [span]
    yield family


def _masked(families: Sequence[_Family], length: int) -> Group:
    """A group of families of one span and those that continue it, as `Group.sees` says."""
    # Padding is a span of its own.
    number = torch.full((len(families), length), -1)
    place = torch.zeros(len(families), length, dtype=torch.int64)
    for row, family in enumerate(families):
        base = family[0].start
        for which, span in enumerate(family):
            at = slice(span.start - base, span.end - base)
            number[row, at] = which
            place[row, at] = torch.arange(span.prefix, span.prefix + span.length)
    theirs = number[:, None, :]
    seen = ((theirs == 0) & (number >= 0)[:, :, None]) | (theirs == number[:, :, None])
    apart = place[:, :, None] - place[:, None, :]
    return Group(len(families), length, sees=seen.tril()[:, None], apart_GQQ=apart)


def _padded(length: int) -> int:
    if length >= EXACT:
        return length
    step = max((1 << (length - 1).bit_length()) // (2 * STEPS), 1)
    return max(-(-length // step) * step, LEAST)


def _in_blocks(
    group: Group,
    q_GQNH: torch.Tensor,
    k_GQNH: torch.Tensor,
    v_GQNH: torch.Tensor,
    before: Sequence[torch.Tensor],
    scale: float | None,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixed values, shape (G, Q, N, H), and log denominators, shape (G, Q, N), of a group.

    Args:
        before: keys and values of the prefixes, shape (G, P, N, H).
    """
    G, Q, N, H = q_GQNH.shape
    heads = k_GQNH.shape[2]
    k_GKH, v_GKH = (
        (torch.cat([first, of], dim=1) if group.prefix else of).transpose(1, 2).flatten(0, 1)
        for first, of in zip(before, (k_GQNH, v_GQNH), strict=True)
    )
    absent = group.absent_GP
    out, sums = attend(
        q_GQNH.unflatten(2, (heads, -1)).permute(0, 2, 3, 1, 4).flatten(0, 1),
        k_GKH,
        v_GKH,
        H**-0.5 if scale is None else scale,
        window,
        None if absent is None else absent.repeat_interleave(heads, dim=0),
    )
    return out.view(G, N, Q, -1).transpose(1, 2), sums.view(G, N, Q).transpose(1, 2)
