"""Fields of records that came later change no key and no count of data sets without them."""

import pytest

from etude.compiler.record_fields import COUNTED, fields_of
from etude.spec.record import replace
from etude.spec.schema import recipe as r


def test_without_names_only_the_first_fields_are_there() -> None:
    first = ["text", "messages", "prompt", "completion", "chosen", "rejected", "edited", "tools"]
    assert fields_of(r.Fields()) == {name: name for name in first}
    counted = fields_of(r.Fields(), COUNTED)
    assert counted.keys() - set(first) == {"system", "role", "content", "answer", "label", "ignore"}
    assert counted["role"] is counted["ignore"] is None


@pytest.mark.parametrize("name", r.FIELDS)
def test_every_field_with_another_name_is_there(name: str) -> None:
    other = ["x"] if name == "ignore" else "x"
    given = replace(r.Fields(), **{name: other})
    assert fields_of(given)[name] == fields_of(given, COUNTED)[name] == other
