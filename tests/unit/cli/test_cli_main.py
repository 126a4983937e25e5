"""The commands: each module owns its arguments, and only the one that is called is imported."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from specs import HEAD, stage

from etude.cli.main import COMMANDS, parser

ASK = """
import json, sys
from etude.cli.main import COMMANDS, main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
loaded = [m.removeprefix("etude.cli.").rstrip("_") for m in sys.modules]
print("\\n" + json.dumps([name for name in loaded if name in COMMANDS]))
"""


def imported(*words: str) -> list[str]:
    """The commands whose modules are imported when a command line is run."""
    shown = subprocess.run([sys.executable, "-c", ASK, *words], capture_output=True, text=True)
    return json.loads(shown.stdout.splitlines()[-1])


@pytest.mark.parametrize("words", [["--help"], [], ["--version"], ["dance"]])
def test_without_a_command_none_is_imported(words: list[str]) -> None:
    assert imported(*words) == []


@pytest.mark.parametrize("name", ["check", "plan", "explain", "import"])
def test_the_help_of_a_command_imports_no_other(name: str) -> None:
    assert imported(name, "--help") == [name]


def test_a_check_imports_no_other_command(tmp_path: Path) -> None:
    spec = tmp_path / "spec.etude"
    spec.write_text(HEAD + stage())
    assert imported("check", str(spec)) == ["check"]


def test_every_module_with_arguments_is_a_command_and_the_other_way_round() -> None:
    folder = Path(__file__).resolve().parents[3] / "cli"
    owners = {
        file.stem
        for file in folder.glob("*.py")
        if "\ndef arguments(" in file.read_text(encoding="utf-8")
    }
    modules = {f"{name}_" if name == "import" else name for name in COMMANDS}
    assert owners == modules
    for name in modules:
        assert callable(import_module(f"etude.cli.{name}").run), name


def test_a_parser_has_the_arguments_of_the_commands_that_it_is_asked_for() -> None:
    words = ["check", "a.etude", "--strict"]
    assert parser().parse_args(words) == parser(["check"]).parse_args(words)
    with pytest.raises(SystemExit):
        parser(["plan"]).parse_args(words)
