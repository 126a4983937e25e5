"""`etude fmt` as users and hooks call it."""

import json
import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from etude_cli import COMMAND, environment, etude
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
UGLY = "# a comment\r\nlet peak=1e-3 # high\r\nlet longer = 2\r\n"
MADE = "# a comment\nlet peak   = 1e-3  # high\nlet longer = 2\n"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "a.etude"
    path.write_bytes(UGLY.encode())
    return path


def test_a_file_is_laid_out_in_place_and_then_left_alone(spec: Path) -> None:
    spec.chmod(0o640)
    link = spec.with_name("link.etude")
    link.symlink_to(spec.name)
    done = etude("fmt", "link.etude", cwd=spec.parent)
    assert (done.returncode, done.stdout) == (0, "link.etude: reformatted\n")
    assert spec.read_bytes() == MADE.encode()
    assert spec.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    again = etude("fmt", "a.etude", cwd=spec.parent)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert sorted(os.listdir(spec.parent)) == ["a.etude", "link.etude"]


def test_check_and_diff_write_nothing(spec: Path) -> None:
    check = etude("fmt", "--check", "a.etude", cwd=spec.parent)
    assert (check.returncode, check.stdout) == (1, "a.etude: not in the canonical layout\n")
    diff = etude("fmt", "--diff", "a.etude", cwd=spec.parent)
    assert diff.returncode == 0
    assert "+let peak   = 1e-3  # high\n" in diff.stdout
    both = etude("fmt", "--check", "--diff", "a.etude", cwd=spec.parent)
    assert (both.returncode, both.stdout) == (1, diff.stdout)
    assert spec.read_bytes() == UGLY.encode()


def test_standard_input_goes_to_standard_output(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "fmt", "-"],
        input=b"\xef\xbb\xbf" + UGLY.encode(),
        capture_output=True,
        env=environment(),
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, MADE.encode())
    bad = subprocess.run(
        [*COMMAND, "fmt", "-"],
        input=b"\xff",
        capture_output=True,
        env=environment(),
        cwd=tmp_path,
        check=False,
    )
    assert bad.returncode == 1
    assert b"error[E126]" in bad.stderr


def test_what_cannot_be_read_is_left_alone_and_the_rest_is_done(spec: Path) -> None:
    broken = spec.with_name("b.etude")
    broken.write_text("let a = \nlet  b=2\n")
    done = etude("fmt", "b.etude", "missing.etude", "a.etude", cwd=spec.parent)
    assert done.returncode == 1
    assert "error[E101]" in done.stderr
    assert "there is no file missing.etude" in done.stderr
    assert broken.read_text() == "let a = \nlet  b=2\n"
    assert spec.read_bytes() == MADE.encode()


def test_a_file_that_cannot_be_written_is_named(spec: Path) -> None:
    full = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (4, 4))
    done = etude("fmt", "a.etude", cwd=spec.parent, preexec_fn=full)
    assert done.returncode == 1
    assert "a.etude cannot be written and stays unchanged: file too large" in done.stderr
    assert spec.read_bytes() == UGLY.encode()
    assert os.listdir(spec.parent) == ["a.etude"]


def test_the_hooks_name_commands_that_there_are(spec: Path) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert [hook["id"] for hook in hooks] == ["etude-fmt", "etude-check"]
    for hook in hooks:
        program, command = hook["entry"].split()
        assert (Path(sys.executable).parent / program).exists()
        assert hook["language"] == "python"
        assert etude(command, "--help", cwd=spec.parent).returncode == 0


TEXT = '# a comment\nrecipe x { seed=3 }\nmodel m { size="8B" }\n'
JSON = """{
  "etude_spec": 1,
  "name": "x",
  "seed": 3,
  "models": {
    "m": {"size": "8B"}
  }
}
"""


def test_a_spec_is_written_as_json_and_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.etude").write_text(TEXT)
    made = etude("fmt", "--to", "json", "a.etude", cwd=tmp_path)
    assert (made.returncode, made.stdout, made.stderr) == (0, JSON, "")
    (tmp_path / "b.json").write_text(JSON)
    again = etude("fmt", "--to", "etude", "b.json", cwd=tmp_path)
    assert again.stdout == 'recipe x { seed = 3 }\n\nmodel m { size = "8B" }\n'
    same = etude("fmt", "--to", "etude", "a.etude", cwd=tmp_path)
    assert same.stdout == '# a comment\nrecipe x { seed = 3 }\nmodel m { size = "8B" }\n'
    for command in (["fmt", "--check", "b.json"], ["fmt", "--to", "json", "b.json"]):
        assert etude(*command, cwd=tmp_path).returncode == 0


def test_standard_input_is_a_text_or_json(tmp_path: Path) -> None:
    def piped(form: str, text: str) -> str:
        command = [*COMMAND, "fmt", "--to", form, "-"]
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, env=environment(), cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert piped("json", TEXT) == JSON
    assert piped("json", piped("etude", JSON)) == JSON


def test_json_is_laid_out_in_place_and_other_json_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(json.loads(JSON)))
    (tmp_path / "other.json").write_text('{"a":1}')
    assert etude("fmt", "a.json", cwd=tmp_path).returncode == 0
    assert (tmp_path / "a.json").read_text() == JSON
    done = etude("fmt", "other.json", cwd=tmp_path)
    assert done.returncode == 1
    assert "E134" in done.stderr
    assert (tmp_path / "other.json").read_text() == '{"a":1}'


def test_what_json_cannot_say_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.etude").write_text("model m { layers = 2, layers = 3 }\n")
    done = etude("fmt", "--to", "json", "a.etude", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "a.etude:1:23" in done.stderr
    (tmp_path / "a.json").write_bytes(b'{"etude_spec": 1, "name": "caf\xe9"}')
    assert "E126" in etude("check", "a.json", cwd=tmp_path).stderr
    two = etude("fmt", "--to", "json", "a.etude", "a.etude", cwd=tmp_path)
    assert two.returncode == 2


def test_every_command_takes_a_spec_in_json(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "quickstart.etude").read_text()
    (tmp_path / "a.etude").write_text(text)
    made = etude("fmt", "--to", "json", "a.etude", cwd=tmp_path).stdout
    (tmp_path / "a.json").write_text(made)
    assert etude("check", "a.json", cwd=tmp_path).stdout == "a.json: fine (5 stages)\n"
    one, other = (etude("plan", f, "--json", cwd=tmp_path).stdout for f in ("a.json", "a.etude"))
    jobs = [json.loads(plan)["jobs"] for plan in (one, other)]
    assert jobs[0] == jobs[1]
    assert "No difference." in etude("diff", "a.json", "a.etude", cwd=tmp_path).stdout
    (tmp_path / "plan.json").write_text(one)
    assert "2 specs" in etude("verify", ".", cwd=tmp_path).stdout
    assert etude("plan", "a.json", "--provenance", cwd=tmp_path).returncode == 0
    schema = json.loads(etude("schema", "spec", cwd=tmp_path).stdout)
    Draft202012Validator(schema).validate(json.loads(made))
