"""The same plans under another version of Python, where there is one on this machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN = [
    ROOT / "examples" / f"{name}.etude"
    for name in ("llama3_405b", "llama3_posttraining_tiny", "ablation_tiny")
]
PUBLISHED = sorted((ROOT / "examples" / "published").glob("*.etude"))
NEEDED = ("pydantic", "pydantic-core", "jsonschema", "rich")
"""What planning imports; torch is not among it."""
PLAN = """
import contextlib, hashlib, io, sys
from etude.cli.main import main
for spec in sys.argv[1:]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["plan", spec, "--json"]) == 0, spec
    print(hashlib.sha256(out.getvalue().encode()).hexdigest(), spec)
"""


def _pythons() -> Iterator[str]:
    """Other versions of Python that etude supports, on the path and in pyenv's folder."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in range(11, 16):
        if (3, minor) == sys.version_info[:2]:
            continue
        inside = sorted(pyenv.glob(f"3.{minor}.*/bin/python"))
        yield from (str(found) for found in inside[-1:])
        if not inside and (found := shutil.which(f"python3.{minor}")):
            yield found


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another Python, with what planning needs and a copy of etude."""
    found = list(_pythons())
    if not found:
        pytest.skip("there is no other Python on this machine")
    folder = tmp_path_factory.mktemp("python")
    subprocess.run([found[-1], "-m", "venv", folder], check=True)
    pins = [f"{name}=={version(name)}" for name in NEEDED]
    made = subprocess.run(
        [folder / "bin" / "pip", "install", "--quiet", *pins], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    (packages,) = (folder / "lib").glob("python3.*/site-packages")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            packages,
            "--ignore-requires-python",
            ROOT,
        ],
        check=True,
        capture_output=True,
    )
    return folder / "bin" / "python"


def hashes(python: str | Path, seed: str, specs: list[Path]) -> list[str]:
    """A line for each spec, with the hash of its plan."""
    done = subprocess.run(
        [python, "-s", "-c", PLAN, *map(str, specs)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONHASHSEED": seed},
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "specs",
    [
        pytest.param([*OWN, *PUBLISHED[::5]], id="some"),
        pytest.param(PUBLISHED, id="all", marks=pytest.mark.exhaustive),
    ],
)
def test_plans_are_the_same_bytes_under_another_python_and_another_order_of_hashes(
    other: Path, specs: list[Path]
) -> None:
    shown = subprocess.run([other, "-V"], capture_output=True, text=True, check=True).stdout
    assert shown.split()[1].split(".")[:2] != [str(part) for part in sys.version_info[:2]]
    found = hashes(other, "1", specs)
    assert len(found) == len(specs) > 5
    assert found == hashes(sys.executable, "2", specs)
