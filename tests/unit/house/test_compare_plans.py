"""The script that compares plans with those of a commit: nothing differs, or one byte does."""

import re
import subprocess
from pathlib import Path

import compare_plans
import pytest
from compare_plans import CannotTell, checked_out, compare, difference, differences

from etude.spec.findings.codes import rule

ROOT = Path(__file__).resolve().parents[3]


def write_specs(folder: Path) -> None:
    """Two small specs, one with a variant."""
    text = rule("E401").right.texts[""]
    (folder / "one.etude").write_text(text)
    (folder / "two.etude").write_text(text + "variant brief { pretrain.steps = 50 }\n")


def git(tree: Path, *words: str) -> None:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "-C", str(tree), *who, *words], check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with etude as it is here, in one commit."""
    made = compare_plans.copied(ROOT, tmp_path / "repository")
    git(made, "init", "-q")
    git(made, "add", ".")
    git(made, "commit", "-q", "-m", "etude as it is")
    return made


def test_a_difference_of_one_byte_is_found_in_every_plan(tree: Path, tmp_path: Path) -> None:
    (same := tmp_path / "same").mkdir()
    found, made, refused = compare("HEAD", same, write_specs, repository=tree)
    # Schemas; of each spec JSON, text, and five outputs of it and of its variant.
    assert (found, made, refused) == ({}, 2 + 2 * 2 + 3 * 5, 0)

    keys = next(
        file
        for file in (tree / "compiler").rglob("*.py")
        if re.search(r"^KEYS = \d+$", file.read_text(), re.MULTILINE)
    )
    text = keys.read_text()
    before = int(re.findall(r"^KEYS = (\d+)$", text, re.MULTILINE)[0])
    keys.write_text(text.replace(f"KEYS = {before}\n", f"KEYS = {before + 1}\n"))
    (changed := tmp_path / "changed").mkdir()
    found, _, _ = compare("HEAD", changed, write_specs, repository=tree)
    differ = {name for names in found.values() for name in names if name.endswith("plan.json")}
    assert {"one/plan.json", "one/miniature/plan.json", "two/brief/plan.json"} <= differ
    # Of each spec and of the variant the plan, and the miniature's.
    assert len(differ) == 3 * 2
    # How keys are made is in the keys of jobs.
    assert any(re.fullmatch(r'jobs\[0\]\.key: "\w+" became "\w+"', what) for what in found)


def test_without_names_it_takes_examples_templates_and_the_examples_of_codes(
    tmp_path: Path,
) -> None:
    compare_plans.specs_of_the_project(tmp_path)
    found = {file.relative_to(tmp_path) for file in tmp_path.rglob("*.etude")}
    shipped = {file.relative_to(ROOT) for file in (ROOT / "examples").rglob("*.etude")}
    templates = {Path("templates") / f"{name}.etude" for name in ("quickstart", "post_training")}
    assert found >= shipped | templates | {Path("rules/E401/spec.etude"), Path("whole.etude")}


def test_a_command_that_fails_in_one_tree_only_is_a_difference(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    (old / "plan.json").write_text("{}")
    (new / "plan.json.refused").write_text("exit code 1\nerror[E402]: unknown name")
    assert differences(old, new) == {
        'made only by the commit: "{}"': ["plan.json"],
        'made only by the working tree: "error[E402]: unknown name"': ["plan.json.refused"],
    }


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('{"a": [1, {"b": 2}]}', '{"a": [1, {"b": 3}]}', "a[1].b: 2 became 3"),
        ('{"a": 1}', '{"a": 1.0}', "a: 1 became 1.0"),
        ('{"a": 1}', '{"a": 1, "b": 2}', "b is new: 2"),
        ('{"a": 1, "b": 2}', '{"a": 1}', "b is gone: 2"),
        ('{"a": [1, 2]}', '{"a": [1]}', "a has 1 entries, not 2"),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', None),
        ("one\ntwo", "one\ntoo", 'line 2: "two" became "too"'),
        ("one", "one\n", 'line 2: nothing became ""'),
    ],
)
def test_the_first_difference_is_named_by_its_place(old: str, new: str, said: str | None) -> None:
    found = difference(old, new)
    assert found == said if said else found.startswith("line 1: ")


def test_a_commit_that_is_not_there_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CannotTell, match="no_such_commit"):
        checked_out("no_such_commit", tmp_path, ROOT)
    assert compare_plans.main(["no_such_commit", str(ROOT / "examples" / "quickstart.etude")]) == 2
    assert "no_such_commit" in capsys.readouterr().err
