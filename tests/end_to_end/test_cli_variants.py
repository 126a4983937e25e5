"""`--variant`, `--set` and `--provenance`, in processes of their own."""

import json
from pathlib import Path

import pytest
from etude_cli import etude
from specs import HEAD, after, stage

SPEC = (
    "let peak = 1e-3\n"
    + HEAD.replace("vocab = 300", "vocab = 320").replace("seed = 1", 'seed = 1, title = "[/b]"')
    + stage(lr="0 -> peak for 5 steps then peak", data="{ web 50%, math 50% }")
    + after(lr="last -> 0")
    + "stage exam: evaluate { loss = [web] }\n"
    + "variant hot { peak = 2e-3 }\nvariant odd { second.lr = 3 steps }\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "spec.etude").write_text(SPEC)
    return tmp_path


def test_a_check_finds_what_is_wrong_with_every_variant(folder: Path) -> None:
    done = etude("check", "spec.etude", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error[E206]: variant `odd`: `3 steps` is in steps" in done.stderr
    done = etude("check", "spec.etude", "--variant", "hot", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "spec.etude: fine (3 stages)\n")


def test_the_plan_of_a_variant_says_what_was_changed_and_where_it_came_from(folder: Path) -> None:
    done = etude("plan", "spec.etude", cwd=folder)
    assert "variants: hot, odd" in done.stdout
    changed = ["--variant", "hot", "--set", "first.clip=0.5"]
    done = etude("plan", "spec.etude", *changed, cwd=folder)
    assert done.stdout.startswith("[/b], variant hot, --set first.clip=0.5\n")
    assert "0.002" in done.stdout
    made = json.loads(etude("plan", "spec.etude", *changed, "--json", cwd=folder).stdout)
    assert (made["variant"], made["changes"]) == ("hot", ["first.clip=0.5"])
    clip = {
        "value": "0.5",
        "origin": "--set",
        "place": "--set first.clip=0.5",
        "cite": None,
        "assumed": None,
    }
    assert made["stages"]["first"]["values"]["clip"] == clip
    done = etude("plan", "spec.etude", *changed, "--provenance", cwd=folder)
    rows = [[cell.strip() for cell in line.split("|")] for line in done.stdout.splitlines()]
    origins = {row[1]: row[3] for row in rows if len(row) > 3}
    assert origins["first.clip"] == "--set"
    assert origins["recipe.seed"] == "spec.etude:2:22"
    assert origins["second.clip"] == "from first"
    assert origins["model.tiny.tied"] == "etude"


def test_what_cannot_be_changed_is_an_error_with_its_place(folder: Path) -> None:
    done = etude("plan", "spec.etude", "--set", "first.rate=3", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--set 1\n" in done.stderr
    done = etude("run", "spec.etude", "--variant", "hat", cwd=folder)
    assert done.returncode == 1
    assert "did you mean `hot`?" in done.stderr
    made = ["plan", "spec.etude", "--variant", "hot", "-o", "plan.json"]
    assert etude(*made, cwd=folder).returncode == 0
    done = etude("run", "plan.json", "--variant", "hot", cwd=folder)
    assert done.returncode == 2
    assert "use --variant with `etude plan`" in done.stderr
    done = etude("run", "plans.json", "--variant", "hot", cwd=folder)
    assert done.returncode == 1
    assert done.stderr.startswith("error[E124]: there is no file plans.json\n")
    assert "1 error\n" in done.stderr
