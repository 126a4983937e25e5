"""Data given in place of a spec: the advice fits what they are."""

from pathlib import Path

import pytest

from etude.cli.main import main
from etude.compiler.files.data_files import ENDINGS
from etude.spec.load import DATA, OTHERS


def test_every_kind_of_data_that_a_spec_names_is_told_from_a_spec() -> None:
    """Those of texts and of JSON aside, which specs may have."""
    endings = {Path(f"web{ending}").suffix for ending in ENDINGS} - {".txt", ".json"}
    assert endings <= {ending for ending, (what, _) in OTHERS.items() if what == DATA}


@pytest.mark.parametrize(
    ("name", "help"),
    [
        ("web.arrow", 'dataset mine { files = "web.arrow" }'),
        ("web.bin", 'dataset mine { tokenized = "web.bin" }'),
        ("web.npy", 'dataset mine { tokenized = "web.npy" }'),
        ("web.jsonl.xz", "recompress it with zstd"),
    ],
)
def test_how_a_spec_names_data_depends_on_what_they_are(
    name: str,
    help: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"\x00")
    assert main(["check", name]) == 1
    assert help in " ".join(capsys.readouterr().err.split())
