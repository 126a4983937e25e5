"""`--only` names one stage, so that other options for parts cannot say more."""

from pathlib import Path

import pytest
from specs import HEAD, stage

from etude.cli.main import main

ON_GPUS = """
cluster c { gpus = 8 of "H100 80GB" }
tokenizer words { train = { on [web], vocab 300 } }
dialog chat { protocol = llama3 }
dataset likes { sample = python_functions, kind = preferences }
stage kept: score { from = first, data = [web] }
stage second: dpo { from = first, data = likes, steps = 9, batch = 8 pairs, lr = 1e-5 }
"""


def test_only_shows_what_that_stage_reads_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What must exist already is read by nobody."""
    spec = tmp_path / "spec.etude"
    spec.write_text(HEAD + stage(batch="8 seqs") + ON_GPUS)
    for options, shown in (([], ["kept", "reference"]), (["--only", "second"], ["reference"])):
        assert main(["plan", str(spec), *options]) == 0
        table = capsys.readouterr().out.partition("|reads")[2].partition("kept: score")[0]
        assert [name for name in ("kept", "reference") if name in table] == shown, table


@pytest.mark.parametrize("option", ["--until", "--from"])
def test_only_goes_with_no_other_option_for_parts(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "spec.etude"
    spec.write_text(HEAD + stage())
    assert main(["plan", str(spec), "--only", "first"]) == 0
    assert main(["plan", str(spec), "--only", "first", option, "first"]) != 0
    assert f"--only is one stage, so {option} cannot say more" in capsys.readouterr().err
