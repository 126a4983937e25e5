"""The time of drawing answers, beside transformers' `generate` on the same prompts.

    python -m benchmarks.sampling [ROUNDS]

Two tasks for a model of 4 layers, 256 wide, with random weights and a vocabulary of 2048: one
greedy answer to each prompt, all of the same number of tokens; and 4 draws of each prompt, which
end by themselves sooner or later. `generate` takes the prompts in their order, with the largest
batches that fit etude's limit of tokens in the cache, and several draws of a prompt by
`num_return_sequences`. What counts are tokens of answers, up to the one that ends each. Both sides
run in turns. Writes the section "Sampling" of benchmarks/RESULTS.md.
"""

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
import transformers

from etude.runtime.sampling.decoding import Decoder
from etude.runtime.sampling.drawing import Request, Settings
from etude.runtime.sampling.generators import BATCH_TOKENS
from etude.runtime.sampling.noise import draw_seed

from .results import write_section

PROMPTS, DRAWS = 40, 4
SHORTEST, LONGEST = 16, 384
"""Tokens of prompts, of which all sizes occur alike."""
MOST = 64
"""Tokens of an answer."""
ENDS = 1 / 32
"""How often a drawn token ends an answer, if all were as probable."""


@dataclass(frozen=True)
class Task:
    """Answers to draw.

    Attributes:
        draws: of each prompt.
        stop: the tokens that end an answer.
    """

    name: str
    prompts: list[np.ndarray]
    draws: int
    temperature: float
    stop: frozenset[int]


def network(layers: int = 4, width: int = 256, vocab: int = 2048) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=4096,
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def tasks(count: int = PROMPTS, vocab: int = 2048) -> list[Task]:
    random = np.random.default_rng(1)
    lengths = np.exp(random.uniform(np.log(SHORTEST), np.log(LONGEST), count)).astype(int)
    prompts = [random.integers(64, vocab, n, dtype=np.int32) for n in lengths]
    ends = frozenset(range(round(vocab * ENDS)))
    return [
        Task("one greedy answer each, of one length", prompts, 1, 0.0, frozenset([vocab])),
        Task(f"{DRAWS} draws each, which end at random", prompts, DRAWS, 1.0, ends),
    ]


def etude(model: Any, task: Task, most: int) -> list[list[int]]:
    """All answers, by prompt and draw."""
    requests = [
        Request(prompt, draw_seed(0, number, draw), most)
        for number, prompt in enumerate(task.prompts)
        for draw in range(task.draws)
    ]
    settings = Settings(task.temperature, 1.0, task.stop)
    found = dict(Decoder(model, settings, BATCH_TOKENS).draw(requests))
    return [found[number] for number in range(len(requests))]


def generate(model: Any, task: Task, most: int) -> list[list[int]]:
    """All answers, by prompt and draw."""
    answers: list[list[int]] = []
    rows = BATCH_TOKENS // (max(map(len, task.prompts)) + most) // task.draws
    for begin in range(0, len(task.prompts), rows):
        prompts = task.prompts[begin : begin + rows]
        width = max(map(len, prompts))
        tokens = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for place, prompt in enumerate(prompts):
            tokens[place, width - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
            mask[place, width - len(prompt) :] = 1
        with torch.inference_mode():
            output = model.generate(
                tokens,
                attention_mask=mask,
                do_sample=task.temperature > 0,
                num_return_sequences=task.draws,
                max_new_tokens=most,
                top_k=0,
                eos_token_id=sorted(task.stop),
                pad_token_id=0,
            )
        answers += [_ended(row, task.stop) for row in output[:, width:].tolist()]
    return answers


def _ended(tokens: list[int], stop: frozenset[int]) -> list[int]:
    end = next((place for place, token in enumerate(tokens) if token in stop), len(tokens))
    return tokens[: end + 1]


def compare(model: Any, task: Task, rounds: int, most: int = MOST) -> tuple[list[float], int]:
    """Tokens a second of etude and of `generate`, at the median; and answers that differ."""
    ways: Sequence[Callable[[Any, Task, int], list[list[int]]]] = (etude, generate)
    rates: list[list[float]] = [[], []]
    answers: list[list[list[int]]] = [[], []]
    for turn in range(rounds + 1):
        for number, way in enumerate(ways):
            begin = time.perf_counter()
            answers[number] = way(model, task, most)
            seconds = time.perf_counter() - begin
            if turn:  # the first one warms up
                rates[number].append(sum(map(len, answers[number])) / seconds)
    differ = sum(one != other for one, other in zip(*answers, strict=True))
    return [median(each) for each in rates], differ


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    transformers.utils.logging.set_verbosity_error()
    model = network()
    rows = []
    for task in tasks():
        (ours, theirs), differ = compare(model, task, rounds)
        if task.temperature == 0 and differ:
            sys.exit(f"{differ} greedy answers differ")
        rows.append(f"| {task.name} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.2f} |")
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("torch", "transformers"))
    write_section(
        "Sampling",
        f"""
`python -m benchmarks.sampling {rounds}` on {platform.machine()}, Python
{platform.python_version()}, {versions}; {PROMPTS} prompts of {SHORTEST} to {LONGEST} tokens, at
most {MOST} tokens an answer, tokens of answers a second, medians of {rounds} alternating runs; load
average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores. All greedy answers are the same.

| answers | etude | `generate` | ratio |
| --- | ---: | ---: | ---: |
"""
        + "\n".join(rows),
    )


if __name__ == "__main__":
    main()
