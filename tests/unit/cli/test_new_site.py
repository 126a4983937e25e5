"""`etude new --on ENGINE`: a site file to begin with."""

from pathlib import Path

import pytest

from etude.cli.main import main
from etude.runtime.launchers import sites
from etude.runtime.launchers.remote import TABLES
from etude.runtime.launchers.slurm_site import SlurmSite

MODELS = {"slurm": SlurmSite, **TABLES}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sites, "folder", lambda: tmp_path / "etude" / "sites")
    return tmp_path / "etude" / "sites"


@pytest.mark.parametrize("engine", list(MODELS))
def test_it_lies_where_launch_finds_it_by_its_name(
    engine: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "lab", "--on", engine]) == 0
    path = home / "lab.toml"
    assert f"etude launch SPEC --on {engine} --site lab" in " ".join(
        capsys.readouterr().out.split()
    )
    assert f"--on {engine} --site lab\n" in path.read_text()
    assert sites.find("lab") == path
    sites.read(path, engine, MODELS[engine])
    before = path.read_bytes()
    assert main(["new", "lab", "--on", engine]) == 1
    assert "already exists" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert main(["new", "lab", "--on", engine, "--force"]) == 0


def test_it_may_lie_elsewhere(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "--on", "slurm", "-o", str(tmp_path / "site.toml")]) == 0
    assert f"--site {tmp_path / 'site.toml'}" in "".join(capsys.readouterr().out.split("\n"))
    assert main(["new", "--on", "slurm", "-o", "-"]) == 0
    assert "\n[slurm]\n" in capsys.readouterr().out
    assert not home.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a/b"], "`a/b` is no name of a site"),
        (["--template", "quickstart"], "--template has no meaning with --on"),
        (["--size", "8B"], "--size has no meaning with --on"),
        (["--list"], "--list has no meaning with --on"),
    ],
)
def test_what_is_for_specs_is_refused(
    words: list[str], message: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "--on", "slurm", *words]) == 2
    assert message in capsys.readouterr().err
    assert not home.exists()
