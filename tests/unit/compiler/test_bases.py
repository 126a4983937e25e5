"""Models that go together end with the same RoPE base."""

import pytest
from specs import HEAD, after, check, place, stage

RANKED = "dataset ranked { sample = python_functions, kind = preferences }\n"
LONG = after("long", rope_theta="500_000")
TOGETHER = {
    "average": "stage x: average { of = [long, other] }",
    "best": "stage x: best { of = [long, other], loss = [web] }",
    "reference": "stage x: dpo { from = long, reference = other, steps = 2, seq_len = 16, "
    "batch = 4 pairs, lr = 1e-5, data = ranked }",
}
OTHERS = {
    "the same": (after("other", from_="long"), 0),
    "the first": (after("other", from_="first"), 1),
    "in between": (
        after("other", from_="first", rope_theta="20_000 until 5 steps then 500_000"),
        0,
    ),
    "at the end": (after("other", from_="long", rope_theta="500_000 until 5 steps then 20_000"), 1),
}


@pytest.mark.parametrize("together", TOGETHER.values(), ids=TOGETHER.keys())
@pytest.mark.parametrize(("other", "errors"), OTHERS.values(), ids=OTHERS.keys())
def test_models_that_go_together_end_with_one_base(together: str, other: str, errors: int) -> None:
    text = HEAD + RANKED + stage() + LONG + other + together
    found = [each for each in check(text) if each.severity == "error"]
    assert [each.code for each in found] == ["E544"] * errors
    if errors:
        assert (place(found[0]) or (0, 0))[0] == text.count("\n") + 1
        assert "`long`" in found[0].message or "`x`" in found[0].message
