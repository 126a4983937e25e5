"""Decoding in rows that come and go: a finished answer's row goes to the next prompt.

Rows are aligned at their last token, padded on the left, and know their own positions; so rows that
began at different times can be put together, in any batch. A prompt with several draws is read
once. transformers' own continuous batching draws from one generator for all rows, and its cache is
paged for GPUs' kernels; here each draw has its own generator.

Dimensions of shapes: R rows, T columns of tokens, H heads, D their width, V tokens of the
vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from inspect import signature
from itertools import groupby
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from ..errors import RunError
from .drawing import Request, Settings
from .noise import drawn

FEWER = 0.75
"""Rows are put together anew when this share of them, or less, has an answer to continue."""

ALIKE = 0.8
"""Prompts are read together if the shortest is at least this share of the longest: the rest of its
row is padding, which costs as much as tokens."""


class Reserved(DynamicLayer):
    """The keys and values of a layer, with room for tokens to come: a token is written in place,
    where transformers copies all tokens to add one."""

    _stored: tuple[torch.Tensor, torch.Tensor] | None = None

    def reserve(self, stored: tuple[torch.Tensor, torch.Tensor], length: int) -> None:
        """Takes tensors (R, H, T, D) whose first `length` columns are filled."""
        self._stored = stored
        self.keys, self.values = (each[:, :, :length] for each in stored)
        self.device, self.is_initialized = stored[0].device, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `DynamicLayer.update`."""
        if self._stored is None:
            return super().update(key_states, value_states, *args, **kwargs)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        for stored, new in zip(self._stored, (key_states, value_states), strict=True):
            stored[:, :, begin:end] = new
        self.keys, self.values = (stored[:, :, :end] for stored in self._stored)
        return self.keys, self.values


@dataclass
class Row:
    """An answer being drawn.

    Attributes:
        number: of the request.
        length: tokens of the prompt and of the answer that the cache holds.
        answer: its tokens so far.
    """

    number: int
    request: Request
    generator: torch.Generator | None
    length: int
    answer: list[int] = field(default_factory=list)

    @property
    def left(self) -> int:
        return self.request.most - len(self.answer)


@dataclass
class Batch:
    """Rows with their cache.

    Attributes:
        rows: None where the answer is finished, and the row only fills the batch.
        mask: bool, (R, T and more): whether a column is a token of the row.
        columns: T.
    """

    rows: list[Row | None]
    cache: DynamicCache
    mask: torch.Tensor
    columns: int

    @property
    def places(self) -> list[int]:
        """The rows whose answers are not finished."""
        return [place for place, row in enumerate(self.rows) if row is not None]

    @property
    def alive(self) -> list[Row]:
        return [row for row in self.rows if row is not None]


class Decoder:
    """Draws answers from a network of transformers.

    Args:
        network: in the mode of evaluation.
        batch_tokens: the most tokens in the cache, including those to come.
    """

    def __init__(self, network: Any, settings: Settings, batch_tokens: int) -> None:
        self._network = network
        self._settings = settings
        self._batch_tokens = batch_tokens
        names = signature(network.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"

    @torch.inference_mode()
    def draw(self, requests: Sequence[Request]) -> Iterator[tuple[int, list[int]]]:
        """Number and tokens of each answer as it is finished; see `Generator.draw`."""
        order = sorted(range(len(requests)), key=lambda i: (-len(requests[i].tokens), i))
        waiting = [self._row(number, requests[number]) for number in order]
        batch: Batch | None = None
        while waiting or (batch and batch.alive):
            alive = batch.alive if batch else []
            more = self._more(alive, waiting)
            if more and 1 - more / (len(alive) + more) <= FEWER:
                new, waiting = waiting[:more], waiting[more:]
                # Finished rows go before others come: caches fill much of a GPU.
                kept = self._together([batch], room=False) if batch else None
                parts = [kept] if kept else []
                for rows in _alike(new):
                    read, finished = self._read(rows)
                    parts.append(read)
                    yield from finished
                batch = self._together(parts)
            elif batch and len(alive) <= FEWER * len(batch.rows):
                batch = self._together([batch])
            if batch and batch.alive:
                yield from self._step(batch)

    def _row(self, number: int, request: Request) -> Row:
        generator = None
        if self._settings.temperature > 0:
            generator = torch.Generator(self._network.device).manual_seed(request.seed)
        return Row(number, request, generator, len(request.tokens))

    def _more(self, alive: Sequence[Row], waiting: Sequence[Row]) -> int:
        """How many of the waiting rows there is room for: at least one if there is no other."""
        if not waiting:
            return 0
        longest = max(row.length for row in (waiting[0], *alive))
        to_come = max(row.left for row in (*waiting, *alive))
        rows = max(self._batch_tokens // (longest + to_come) - len(alive), 0)
        return min(rows if alive else max(rows, 1), len(waiting))

    def _read(self, new: Sequence[Row]) -> tuple[Batch, list[tuple[int, list[int]]]]:
        """Reads the prompts of new rows, which lie side by side if they are equal, and draws the
        first token of each.

        Returns: the rows, and the answers that are finished.
        """
        same = [list(rows) for _, rows in groupby(new, lambda row: row.request.tokens.tobytes())]
        prompts = [rows[0].request.tokens for rows in same]
        width = max(map(len, prompts))
        tokens = np.zeros((len(prompts), width), np.int64)
        mask = torch.zeros(tokens.shape, dtype=torch.bool)
        for place, prompt in enumerate(prompts):
            tokens[place, width - len(prompt) :] = prompt
            mask[place, width - len(prompt) :] = True
        device = self._network.device
        mask = mask.to(device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self._network.config)
        logits = self._logits(torch.from_numpy(tokens).to(device), mask, positions, cache)
        repeated = torch.tensor(
            [place for place, rows in enumerate(same) for _ in rows], device=device
        )
        finished = self._add(new, logits[repeated])
        batch = Batch(
            [None if self._ends(row) else row for row in new],
            _selected(cache, repeated),
            mask[repeated],
            width,
        )
        return batch, finished

    def _step(self, batch: Batch) -> list[tuple[int, list[int]]]:
        """Draws a token of each row; returns the answers that are finished."""
        device = self._network.device
        rows = [(row.answer[-1], row.length) if row else (0, 0) for row in batch.rows]
        last, positions = torch.tensor(rows, device=device).T[:, :, None]
        for row in batch.alive:
            row.length += 1
        batch.columns += 1
        mask = batch.mask[:, : batch.columns]
        mask[:, -1] = True
        places = batch.places
        logits = self._logits(last, mask, positions, batch.cache)
        finished = self._add(batch.alive, logits[places] if None in batch.rows else logits)
        for place in places:
            row = batch.rows[place]
            if row and self._ends(row):
                batch.rows[place] = None
        return finished

    def _logits(
        self, tokens: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        """The logits of the token that follows each row: (R, V)."""
        output = self._network(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_name: cache},
        )
        return output.logits[:, -1]

    def _add(self, rows: Sequence[Row], logits: torch.Tensor) -> list[tuple[int, list[int]]]:
        """Draws a token of each row; returns the answers that are finished."""
        if self._settings.temperature > 0:
            generators = [row.generator for row in rows if row.generator]
            settings = self._settings
            logits = drawn(
                logits, generators, temperature=settings.temperature, top_p=settings.top_p
            )
        for row, token in zip(rows, logits.float().argmax(-1).tolist(), strict=True):
            row.answer.append(token)
        return [(row.number, row.answer) for row in rows if self._ends(row)]

    def _ends(self, row: Row) -> bool:
        return row.left == 0 or row.answer[-1] in self._settings.stop

    def _together(self, batches: Sequence[Batch], *, room: bool = True) -> Batch | None:
        """The rows of all batches that are not finished, or None; takes the batches' caches.

        Args:
            room: whether there is room for the tokens to come.
        """
        batches = [batch for batch in batches if batch.alive]
        rows = [row for batch in batches for row in batch.alive]
        if not rows:
            return None
        columns = max(row.length for row in rows)
        more = max(row.left for row in rows) if room else 0
        device = self._network.device
        mask = torch.zeros((len(rows), columns + more), dtype=torch.bool, device=device)
        parts = []
        begin = 0
        for batch in batches:
            places = torch.tensor(batch.places, dtype=torch.long, device=device)
            parts.append((batch.cache, places))
            end = begin + len(places)
            width = min(batch.columns, columns)
            mask[begin:end, columns - width : columns] = batch.mask[
                places, batch.columns - width : batch.columns
            ]
            begin = end
        return Batch(list(rows), _joined(parts, columns, more, self._network.config), mask, columns)


def _alike(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows that are read together: of prompts of similar length, the longest first."""
    group: list[Row] = []
    for row in rows:
        if group and row.length < ALIKE * group[0].length:
            yield group
            group = []
        group.append(row)
    yield group


def _selected(cache: DynamicCache, places: torch.Tensor) -> DynamicCache:
    for layer in cache.layers:
        if not isinstance(layer, DynamicLayer):
            raise _cannot(layer)
    cache.batch_select_indices(places)
    return cache


def _cannot(layer: Any) -> RunError:
    return RunError(
        "this model cannot write here: its layers keep what they have read as "
        f"{type(layer).__name__}, whose rows cannot be put together",
        "install vLLM, on a machine with a GPU: pip install vllm",
    )


def _joined(
    parts: Sequence[tuple[DynamicCache, torch.Tensor]], columns: int, room: int, config: Any
) -> DynamicCache:
    """A cache with some rows of others, aligned at their last column; the others are emptied layer
    by layer.

    Args:
        parts: caches, and which of their rows.
        columns: of the result; others are cut off or empty on the left.
        room: for how many more columns.
    """
    made = DynamicCache(config=config)
    for number, layer in enumerate(made.layers):
        found = [(cache.layers[number], places) for cache, places in parts]
        if isinstance(layer, DynamicSlidingWindowLayer):
            width = min(columns, layer.sliding_window - 1)
            keys, values = (_aligned(found, name, width, 0) for name in ("keys", "values"))
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values, layer.cumulative_length = keys, values, columns
        elif type(layer) is DynamicLayer:
            reserved = made.layers[number] = Reserved()
            keys, values = (_aligned(found, name, columns, room) for name in ("keys", "values"))
            reserved.reserve((keys, values), columns)
        else:
            raise _cannot(layer)
        for cache, _ in parts:
            cache.layers[number] = DynamicLayer()
    return made


def _aligned(
    parts: Sequence[tuple[Any, torch.Tensor]], name: str, width: int, room: int
) -> torch.Tensor:
    """Keys or values of some rows of layers: (R, H, width + room, D)."""
    tensors = [(getattr(layer, name), places) for layer, places in parts]
    one = tensors[0][0]
    count = sum(len(places) for _, places in tensors)
    made = one.new_zeros((count, one.shape[1], width + room, one.shape[3]))
    begin = 0
    for tensor, places in tensors:
        kept = min(tensor.shape[2], width)
        end = begin + len(places)
        made[begin:end, :, width - kept : width] = tensor[places, :, tensor.shape[2] - kept :]
        begin = end
    return made
