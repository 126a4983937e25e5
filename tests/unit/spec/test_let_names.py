"""A `let` has a name of its own: neither that of a choice nor that of a block."""

import pytest
from specs import HEAD, check, stage


def codes(text: str) -> list[tuple[str, str]]:
    return [(each.code, each.message) for each in check(text) if each.code.startswith("E")]


@pytest.mark.parametrize(
    ("let", "attribute", "value"),
    [
        ("full = selective", "recompute", "full"),
        ("bf16 = fp32", "precision", "bf16"),
        ("adamw = adam", "optimizer", "adamw"),
    ],
)
def test_a_let_is_not_called_like_a_choice(let: str, attribute: str, value: str) -> None:
    found = codes(f"let {let}\n" + HEAD + stage(body=f"{attribute} = {value}"))
    what = f"`{value}` is both a choice of `{attribute}` and the name of a `let`"
    assert found == [("E324", what)]


def test_a_let_is_not_called_like_a_block_that_an_attribute_may_name() -> None:
    found = codes("let web = math\n" + HEAD + stage(data="web"))
    what = "`web` is both a dataset and the name of a `let`"
    assert found == [("E324", what)]


def test_names_of_choices_are_free_where_nothing_chooses_among_them() -> None:
    assert codes("let full = 40\n" + HEAD + stage(steps="full")) == []


def test_a_let_may_stand_for_a_choice_and_for_a_block() -> None:
    text = "let how = selective\nlet what = web\n" + HEAD
    assert codes(text + stage(data="what", body="recompute = how")) == []
