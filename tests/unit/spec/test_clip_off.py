"""What switches clipping off."""

import pytest
from specs import HEAD

from etude.compiler.driver import analyse
from etude.spec.load import reads


@pytest.mark.parametrize("value", ["off", "none", "0"])
def test_who_wants_no_clipping_is_told_which_number_to_write(value: str) -> None:
    stage = "model = tiny, steps = 9, seq_len = 16, batch = 4 seqs, lr = 1e-3, data = web"
    text = HEAD + f"stage first: train {{ {stage}, clip = {{}} }}\n".replace("{}", value)
    (found,) = analyse(reads(text)).report.errors
    assert "to switch it off, write 1e9" in found.help
    assert not analyse(reads(text.replace(f"clip = {value}", "clip = 1e9"))).report.errors
