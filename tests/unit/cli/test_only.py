"""`--only` names one stage, so that other options for parts cannot say more."""

from pathlib import Path

import pytest
from specs import HEAD, stage

from etude.cli.main import main


@pytest.mark.parametrize("option", ["--until", "--from"])
def test_only_goes_with_no_other_option_for_parts(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "spec.etude"
    spec.write_text(HEAD + stage())
    assert main(["plan", str(spec), "--only", "first"]) == 0
    assert main(["plan", str(spec), "--only", "first", option, "first"]) != 0
    assert f"--only is one stage, so {option} cannot say more" in capsys.readouterr().err
