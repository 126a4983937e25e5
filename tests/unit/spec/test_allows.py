"""Findings silenced in place, and what is said of an `allow` that silences nothing."""

import pytest
from specs import HEAD, after, compiled, stage

DECAY = "optimizer = adamw { weight_decay = 0 }"
CLIP = 'clip = 100\n  allow W606 "the ablation needs it"'


def found(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Codes of what is found but notes, and codes and reasons of what is silenced."""
    _, report = compiled(text)
    silenced = [(each.finding.code, each.reason) for each in report.silenced]
    return [d.code for d in report.ordered() if d.severity != "note"], silenced


def recipe(more: str) -> str:
    return HEAD.replace("seed = 1", f"seed = 1\n{more}\n")


def test_a_finding_in_the_block_is_silenced_with_its_reason() -> None:
    assert found(HEAD + stage(body="clip = 100")) == (["W606"], [])
    assert found(HEAD + stage(body=CLIP)) == ([], [("W606", "the ablation needs it")])


def test_a_finding_in_another_block_is_not() -> None:
    codes, silenced = found(HEAD + stage(body=CLIP) + after(clip="200"))
    assert codes == ["W606"]
    assert silenced == [("W606", "the ablation needs it")]


def test_in_the_recipe_block_all_of_the_spec_are_silenced() -> None:
    text = recipe('allow W606 "all of them"') + stage(body="clip = 100") + after(clip="200")
    assert found(text) == ([], [("W606", "all of them")] * 2)


def test_the_innermost_allow_gives_the_reason_and_the_outer_one_is_still_said_to_be_idle() -> None:
    text = recipe('allow W606 "all of them"') + stage(body=CLIP)
    assert found(text) == (["W651"], [("W606", "the ablation needs it")])


def test_an_allow_that_silences_nothing_may_itself_be_allowed() -> None:
    text = recipe('allow W651 "kept for the next run"') + stage(body='allow W606 "later"')
    assert found(text) == ([], [("W651", "kept for the next run")])


def test_rounds_and_their_stages_hold_allows() -> None:
    inner = after("chat", from_="first", clip="100").replace("train", "train", 1)
    text = HEAD + stage() + 'rounds align 2 {\n allow W606 "both rounds"\n' + inner + "}\n"
    assert found(text) == ([], [("W606", "both rounds")])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (HEAD + stage(body='allow W999 "why"'), "E331"),
        (HEAD + stage(body='allow E442 "why"'), "E332"),
        (HEAD + stage(body='clip = 100\nallow W606 "  "'), "E333"),
        (HEAD + stage(body="clip = 100\nallow W606"), "E101"),
        (HEAD + 'allow W606 "outside of blocks"\n' + stage(), "E301"),
        (HEAD + stage(optimizer='adamw { allow W606 "in a value" }'), "E311"),
    ],
)
def test_what_is_wrong_with_an_allow_is_said(text: str, code: str) -> None:
    codes, silenced = found(text)
    assert code in codes
    assert silenced == []


def test_the_missing_reason_is_asked_for() -> None:
    _, report = compiled(HEAD + stage(body="clip = 100\nallow W606"))
    assert 'give the reason: allow W601 "the reason"' in [d.help for d in report.ordered()]
