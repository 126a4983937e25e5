"""Writes the data of examples/prm_tiny.etude: `python examples/steps/make.py`."""

import json
import random
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MOST = 5
"""The largest sum."""
TEXTS, GUESSES, CHECKED = 3000, 1500, 5100
WRONG = 0.4, 0.5
"""The shares of wrong steps: of guesses, and of answers that are checked."""
OFF = 2
"""By how much a wrong step is off, at most."""


def said(total: int, wrong: float, rng: random.Random) -> int:
    """A sum, or with the probability `wrong` a number near it."""
    if rng.random() >= wrong:
        return total
    near = range(max(total - OFF, 0), min(total + OFF, MOST) + 1)
    return rng.choice([n for n in near if n != total])


def steps(a: int, b: int, c: int, wrong: float, rng: random.Random) -> tuple[list[str], list[bool]]:
    """An answer in two steps, and which of them are right. The second goes on from what the first
    says, and is right if its own sum is."""
    first = said(a + b, wrong, rng)
    while first + c > MOST:
        first = said(a + b, wrong, rng)
    second = said(first + c, wrong, rng)
    return [f"{a}+{b}={first}", f"{first}+{c}={second}"], [first == a + b, second == first + c]


def asked(a: int, b: int, c: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{a}+{b}+{c}="}]


def write(name: str, records: list[dict[str, Any]]) -> None:
    (HERE / name).write_text("".join(json.dumps(record) + "\n" for record in records))


def main() -> None:
    rng = random.Random(1)
    up_to = range(MOST + 1)
    sums = [(a, b, c) for a in up_to for b in up_to for c in up_to if a + b + c <= MOST]
    write("asked.jsonl", [{"prompt": asked(*each), "answer": str(sum(each))} for each in sums])
    texts: list[dict[str, Any]] = []
    for _ in range(TEXTS):
        each = rng.choice(sums)
        text, _ = steps(*each, 0, rng)
        texts.append({"text": "\n".join([asked(*each)[0]["content"], *text])})
    write("texts.jsonl", texts)
    guesses: list[dict[str, Any]] = []
    for _ in range(GUESSES):
        each = rng.choice(sums)
        text, _ = steps(*each, WRONG[0], rng)
        answer = {"role": "assistant", "content": "\n".join(text)}
        guesses.append({"messages": [*asked(*each), answer]})
    write("guesses.jsonl", guesses)
    checked: list[dict[str, Any]] = []
    for _ in range(CHECKED):
        each = rng.choice(sums)
        text, labels = steps(*each, WRONG[1], rng)
        checked.append({"prompt": asked(*each), "completions": text, "labels": labels})
    write("checked.jsonl", checked)


if __name__ == "__main__":
    main()
