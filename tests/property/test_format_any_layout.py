"""However a spec is laid out, `etude fmt` gives one text that says the same."""

import random
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from specs import POST_TRAINING
from test_language_any_text import SPEC

from etude.spec.findings.diagnostics import Report
from etude.spec.source import Source
from etude.spec.text.format import format_text, shape
from etude.spec.text.parse import parse, tokens

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXTS = [SPEC, POST_TRAINING, *(path.read_text() for path in sorted(EXAMPLES.glob("*.etude")))]
GAPS = [
    *["", " ", "  ", "\n", "\r\n", "\n\n\n", ",\n"],
    *[" # why\n", "\n  # own\n", "\n\n# two\n\n # lines\n"],
]


def laid_out_anew(text: str, chance: random.Random, share: float) -> str:
    """The tokens of a text with other things between some of them; it may make no sense."""
    made, end = [], 0
    for token in tokens(text):
        start = token.start
        if token.kind == "_NL" and chance.random() < share:
            made.append(text[end:start] + chance.choice(["\n", "\n\n\n", " # why\n", ", \n", ", "]))
        elif chance.random() < share:
            made.append(chance.choice(GAPS) + str(token))
        else:
            made.append(text[end:start] + str(token))
        end = start + len(token)
    return "".join(made) + text[end:]


def tree(text: str) -> object:
    report = Report()
    items = parse(Source("spec.etude", text), report)
    return None if report.errors else shape(items)


def judge(seed: int) -> bool:
    """Whether the text that the seed makes could be read; formatting it is examined."""
    chance = random.Random(seed)
    text = laid_out_anew(chance.choice(TEXTS), chance, chance.choice([0.002, 0.01, 0.05]))
    said = tree(text)
    made = format_text(Source("spec.etude", text), Report())
    assert (made is None) == (said is None)
    if made is None:
        return False
    assert tree(made) == said
    assert format_text(Source("spec.etude", made), Report()) == made
    assert all(line == line.rstrip() for line in made.splitlines())
    assert "\n\n\n" not in made
    assert not made.startswith("\n")
    return True


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_any_layout_says_the_same_and_is_laid_out_once(seed: int) -> None:
    judge(seed)


def test_many_of_the_texts_can_be_read() -> None:
    assert sum(judge(seed) for seed in range(20)) >= 5
