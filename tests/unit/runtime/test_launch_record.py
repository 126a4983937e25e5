"""What a launch has queued is found again by whoever looks into the run folder."""

from pathlib import Path

import pytest

from etude.runtime.errors import RunError
from etude.runtime.launchers.record import LAUNCH, Launch, forget, load, save


def test_what_was_launched_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "small"
    assert load(folder) is None
    for launch in (
        Launch("slurm", {"jobs": ["4711", "4712"]}),
        Launch("kubernetes", {"namespace": "default", "instance": "etude-small-0a1b2c"}, at=1.5),
    ):
        save(folder, launch)
        assert load(folder) == launch
    assert [path.name for path in folder.iterdir()] == [LAUNCH]
    forget(folder)
    forget(folder)
    assert load(folder) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"engine": "slurm"}', '{"engine": 1, "at": "x"}'])
def test_a_record_that_cannot_be_read_is_said(text: str, tmp_path: Path) -> None:
    (tmp_path / LAUNCH).write_text(text)
    with pytest.raises(RunError, match=r"launch\.json cannot be read") as raised:
        load(tmp_path)
    assert "cancel them there" in raised.value.help
