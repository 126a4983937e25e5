"""What texts have in common at their beginning."""

import pytest

from etude.runtime.data.texts import common_start


@pytest.mark.parametrize(
    ("texts", "start"),
    [
        (["Sky? Blue.", "Sky? Red."], "Sky? "),
        (["Sky", "Sky?"], "Sky"),
        (["same", "same"], "same"),
        (["one"], "one"),
        (["a", "b"], ""),
        (["", "b"], ""),
        (["été", "étage", "étau"], "ét"),
    ],
)
def test_the_common_start_of_texts(texts: list[str], start: str) -> None:
    assert common_start(texts) == start
    assert common_start(texts[::-1]) == start
