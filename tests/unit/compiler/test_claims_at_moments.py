"""Claims about a moment of a stage, wide tolerances, and sources that contradict themselves."""

import json
from pathlib import Path

import pytest
from specs import HEAD, compiled, plan, stage

from etude.cli.main import main
from etude.compiler.schedule.timeline import Timeline

RAMPED = stage(
    steps=None,
    tokens="64k",
    seq_len="16 for 32k tokens then 32",
    batch="4 seqs for 16k tokens then 8 seqs",
    lr="0 -> 1e-3 for 10 steps then -> 1e-4 cosine",
    rope_theta="1e4 for 32k tokens then 1e6",
)
SPEC = HEAD + RAMPED


def codes(claim: str, spec: str = SPEC) -> list[str]:
    _, report = compiled(f"{spec}expect {{ {claim} }}")
    return [finding.code for finding in report.diagnostics if finding.code[0] in "EW"]


def computed(claim: str) -> float:
    (found,) = plan(f'{SPEC}expect {{ {claim} = 1 within 0% contradicted "so" }}').claims
    return found.computed


@pytest.mark.parametrize(
    "claim",
    [
        "lr at 0 steps = 0",
        "lr at 10 steps = 1e-3",
        "batch at 0 tokens = 64 tokens",
        "steps at 0% = 0",
        "lr at 100% = 1e-4",
        "batch at 15k tokens = 64 tokens",
        "batch at 17k tokens = 128",
        "sequences at 17k tokens = 8 seqs",
        "seq_len at 31k tokens = 16",
        "seq_len at 100% = 32",
        "rope_theta at 33k tokens = 1e6",
        "steps at 16k tokens = 250 steps",
        "tokens at 250 steps = 16k tokens",
        "steps at 100% = 500",
    ],
)
def test_what_is_in_force_can_be_claimed(claim: str) -> None:
    assert codes(f"first.{claim}") == []


@pytest.mark.parametrize("step", [0, 1, 9, 10, 249, 250, 300, 374, 375, 400, 499])
def test_a_rate_at_a_step_is_that_of_the_timeline(step: int) -> None:
    """The runtime follows the timeline, and a log holds the same."""
    line = next(
        line
        for job in plan(SPEC).jobs
        if job.kind == "train" and job.first_step <= step < job.first_step + job.steps
        for line in [Timeline.of(job)]
    )
    at = f"at {step or 0.1} steps"
    assert computed(f"first.lr {at}") == pytest.approx(line.lr(step), rel=1e-12)
    assert computed(f"first.sequences {at}") == line.batch(step)
    assert computed(f"first.seq_len {at}") == line.seq_len
    assert computed(f"first.tokens {at}") == line.tokens_before(step)


def test_tokens_fall_on_the_nearest_step_the_later_of_two() -> None:
    assert computed("first.steps at 16_063 tokens") == 250
    assert computed("first.steps at 16_064 tokens") == 251
    assert computed("first.steps at 1 token") == 0


@pytest.mark.parametrize(
    ("claim", "code"),
    [
        ("first.lr = 1e-3", "E463"),
        ("first.lr at 501 steps = 1e-3", "E463"),
        ("first.lr at 65k tokens = 1e-3", "E463"),
        ("first.lr at 101% = 1e-3", "E463"),
        ("first.flops at 10 steps = 3", "E461"),
        ("lr at 10 steps = 3", "E461"),
        ("second.lr at 10 steps = 3", "E461"),
        ("first.lr at 10 seqs = 3", "E206"),
        ("first.batch at 10 steps = 4 seqs", "E206"),
        ("first.lr at 10 steps = 2e-3", "E462"),
    ],
)
def test_what_has_no_figure_is_an_error(claim: str, code: str) -> None:
    assert codes(claim) == [code]


def test_a_moment_belongs_to_claims_alone() -> None:
    _, report = compiled(HEAD + stage().replace("lr =", "lr at 3 steps ="))
    assert "E310" in [finding.code for finding in report.errors]


def test_a_moment_may_be_a_let() -> None:
    assert codes("first.lr at warm = 1e-3", "let warm = 10 steps\n" + SPEC) == []


@pytest.mark.parametrize(
    ("claim", "code"),
    [
        ("first.tokens = 60k within 15%", []),
        ("first.tokens = 60k within 16%", ["W671"]),
        ('first.tokens = 60k within 16% because "so"', []),
        ('first.tokens = 30k within 16% because "so"', ["E462"]),
        ('first.tokens = 30k within 16% contradicted "so"', []),
        ('first.tokens = 60k within 16% contradicted "so"', ["W672"]),
    ],
)
def test_reasons(claim: str, code: list[str]) -> None:
    assert codes(claim) == code


def test_verify_shows_reasons_and_passes_over_contradictions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "spec.etude"
    spec.write_text(
        SPEC + 'expect {\n  first.tokens = 30k\n    within 1%\n    contradicted "Table 2"\n'
        '  first.steps = 400 within 30% because "of one digit"\n    cite "§1"\n}\n',
        encoding="utf-8",
    )
    assert main(["verify", str(spec), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["holds"], row["contradicted"], row["because"]) for row in found["claims"]] == [
        (False, "Table 2", None),
        (True, None, "of one digit"),
    ]
    assert main(["verify", str(spec)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 hold, 1 contradicted by their own source" in shown
