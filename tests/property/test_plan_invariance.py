"""What changes no plan: layout, comments, the process that makes it, the way it is written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st
from specs import HEAD, POST_TRAINING, after, plan, stage

from etude.compiler.plan.plan import Plan
from etude.compiler.plan.plan_schema import plan_schema
from etude.spec.text.parse import SUFFIXES
from etude.spec.text.reader import BRACES

SPEC = (
    HEAD
    + stage(
        lr="0 -> 1e-3 for 10 steps then -> 1e-5 cosine over 80 steps for 50% then 1e-5",
        seq_len="16 for 50 steps then 32",
        batch="4 seqs -> 8 seqs for 30 steps then 8 seqs",
        data="{ web 60%, math 40% } -> { math 1 } until 300 tokens then { web 2, math 1 }",
        optimizer="adamw { betas = [0.9, 0.95], eps = 1e-8 }",
    )
    + after(data="last with { web 2x }", average="polyak every 2 steps over 50%")
    + after("third", from_="first", steps="9")
    + after("fourth", from_="first", steps="8", data="math")
    + "stage mean: average { of = [second, third] }\n"
)
WRITTEN = plan(SPEC)
PLANS = {SPEC: WRITTEN, POST_TRAINING: plan(POST_TRAINING)}
BREAKS = st.sampled_from(["\n", "\n\n", "  \n\t", ' # a comment } { " \n', "\r\n", "\n#\n \n"])
SPACES = st.sampled_from(["  ", "\t", " \r ", "   "])
CONTINUED = st.sampled_from(["\n  ", " # so far\n\n  ", "\r\n", "  "])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_layout_changes_no_plan(data: st.DataObject) -> None:
    """Breaks for breaks, spaces for spaces, breaks before words that continue with the line."""
    text = ""
    spec = data.draw(st.sampled_from(list(PLANS)))
    words = spec.replace("\n", " \n ").split(" ")
    for number, word in enumerate(words):
        if word == "\n":
            text += data.draw(BREAKS)
            continue
        goes_on = word in ("then", "->", "for", "until", "over", "within")
        alone = number == 0 or words[number - 1] in ("\n", "")
        if goes_on and data.draw(st.booleans()):
            text += data.draw(CONTINUED)
        elif not alone:
            text += data.draw(SPACES)
        text += word
    assert plan(text) == PLANS[spec]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10**15), st.sampled_from(sorted(set(SUFFIXES) - {"%", "x"})))
def test_a_number_may_be_written_in_any_way(value: int, suffix: str) -> None:
    tokens = f"{value}{suffix}"
    count = int(value * SUFFIXES[suffix])
    grouped = f"{count:_}"
    exponent = f"{count}e0"
    plans = [plan(HEAD + stage(tokens=text)) for text in (tokens, str(count), grouped, exponent)]
    # What is shown of a stage is the number as the spec writes it; what runs is the same.
    ran = [(each.jobs, each.totals, each.outputs) for each in plans]
    assert ran[1:] == ran[:-1]


def test_the_same_plan_is_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    file = tmp_path / "spec"
    file.write_text(SPEC)
    command = [sys.executable, "-m", "etude.cli.main", "plan", str(file), "--json"]
    made = {
        subprocess.run(
            command, capture_output=True, check=True, env=os.environ | {"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert made == {(WRITTEN.to_json() + "\n").encode()}


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 60),
    st.sampled_from([8, 16, 64]),
    st.integers(1, 9),
    st.floats(1e-9, 1e3),
    st.lists(st.integers(1, 99), min_size=1, max_size=2),
)
def test_any_plan_follows_the_schema_and_survives_json(
    steps: int, seq_len: int, batch: int, lr: float, weights: list[int]
) -> None:
    mix = ", ".join(f"{n} {w}" for n, w in zip(["web", "math"], weights, strict=False))
    made = plan(
        HEAD
        + stage(
            steps=str(steps),
            seq_len=str(seq_len),
            batch=f"{batch} seqs",
            lr=f"{lr} -> 0 cosine",
            data=f"{{ {mix} }}",
        )
    )
    text = made.to_json()
    jsonschema.validate(json.loads(text), plan_schema())
    assert Plan.model_validate_json(text) == made


def test_the_spec_above_has_braces_in_all_places() -> None:
    assert {m[0] for m in BRACES.finditer(SPEC)} == {"{", "}", "[", "]"}
