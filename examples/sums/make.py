"""Writes the data of examples/rl_tiny.etude: `python examples/sums/make.py`."""

import json
import random
from pathlib import Path

HERE = Path(__file__).parent
GUESSES = 6000
RIGHT = 0.15
"""The share of guesses that are right; the others are off by up to OFF."""
OFF = 3


def asked(a: int, b: int) -> dict[str, str]:
    return {"role": "user", "content": f"{a}+{b}="}


def write(name: str, records: list[dict[str, object]]) -> None:
    (HERE / name).write_text("".join(json.dumps(record) + "\n" for record in records))


def main() -> None:
    rng = random.Random(1)
    sums = [(a, b) for a in range(10) for b in range(10 - a)]
    write("asked.jsonl", [{"prompt": [asked(a, b)], "answer": str(a + b)} for a, b in sums])
    guesses: list[dict[str, object]] = []
    for _ in range(GUESSES):
        a, b = rng.choice(sums)
        near = [n for n in range(a + b - OFF, a + b + OFF + 1) if n != a + b and 0 <= n <= 9]
        said = a + b if rng.random() < RIGHT else rng.choice(near)
        answer = {"role": "assistant", "content": str(said)}
        guesses.append({"messages": [asked(a, b), answer]})
    write("guesses.jsonl", guesses)


if __name__ == "__main__":
    main()
