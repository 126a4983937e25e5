"""`etude sweep`: the points that `--over` names, their plans, and the table of their results."""

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from specs import HEAD, after, plan, stage

from etude.cli import sweep
from etude.cli.main import main
from etude.cli.report_tables import Table
from etude.cli.sweep_law import scaling_law
from etude.cli.sweep_points import Bad, Point, as_variants, points
from etude.compiler.plan.plan import Plan
from etude.spec.load import reads

SPEC = (
    HEAD.replace("vocab = 300", "vocab = 320")
    + stage(lr="0 -> 1e-3 for 5 steps then 1e-3")
    + after(lr="last -> 0")
    + "stage exam: evaluate { loss = [web] }\n"
)


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """The command line turns the garbage collector off; the tests continue."""
    yield
    gc.enable()


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.etude").write_text(SPEC)
    return tmp_path / "spec.etude"


def values(over: str) -> list[dict[str, str]]:
    return [point.values for point in points(over)]


def test_points_are_all_combinations_the_last_changing_fastest() -> None:
    assert values("a.lr=1e-4,2e-4, m.dim=256,512") == [
        {"a.lr": "1e-4", "m.dim": "256"},
        {"a.lr": "1e-4", "m.dim": "512"},
        {"a.lr": "2e-4", "m.dim": "256"},
        {"a.lr": "2e-4", "m.dim": "512"},
    ]


@pytest.mark.parametrize(
    ("over", "found"),
    [
        ("a.lr=1e-4..1e-3 log 3", ["0.0001", "0.0003162", "0.001"]),
        ("a.lr=1e-6..1e-5 log 2", ["1e-6", "1e-5"]),
        ("m.dim=256..1024 log 3", ["256", "512", "1024"]),
        ("a.wd=0.0..0.2 linear 3", ["0", "0.1", "0.2"]),
        ("m.dim=64, 128..256 linear 2", ["64", "128", "256"]),
        ("a.lr=last -> 0,last -> 1e-4", ["last -> 0", "last -> 1e-4"]),
        ("a.data={ web 50%, math 50% },{ web 100% }", ["{ web 50%, math 50% }", "{ web 100% }"]),
        ('w.files="a,b.jsonl","c..d e 2"', ['"a,b.jsonl"', '"c..d e 2"']),
    ],
)
def test_values_are_lists_and_ranges(over: str, found: list[str]) -> None:
    assert [next(iter(each.values())) for each in values(over)] == found


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ("", "`` is not PATH=VALUE"),
        ("256,512", "`256` is not PATH=VALUE"),
        ("a.lr=", "a value of `a.lr` is missing"),
        ("a.lr=1e-3,,1e-4", "a value of `a.lr` is missing"),
        ("a.lr=1,b.lr=2,a.lr=3", "`a.lr` is given twice"),
        ("a.lr=1,1", "`a.lr` has the same value twice: 1, 1"),
        ("a.lr=1..2", "does not say how its values lie"),
        ("a.lr=1..2 cubic 3", "does not say how its values lie"),
        ("a.lr=1..2 log", "does not say how many values"),
        ("a.lr=1..2 log 1", "does not say how many values"),
        ("a.lr=0..1 log 3", "needs two different ends above 0"),
        ("a.lr=2..2 linear 3", "needs two different ends"),
        ("a.tokens=1M..2M log 3", "are not plain numbers"),
        ("a.lr=1..2 linear 257", "257 points are too many"),
        ("a.lr=1.0..2.0 linear 17,b.lr=1.0..2.0 linear 17", "289 points are too many"),
        ("a.lr=1..2 linear 3", "write the ends with a point: 1.0..2.0"),
    ],
)
def test_what_cannot_be_read_is_one_message_with_an_example(
    over: str, message: str, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Bad):
        points(over)
    assert main(["sweep", str(spec), "--over", over]) == 2
    said = capsys.readouterr()
    assert message in " ".join(said.err.split())
    assert "= help: " in said.err
    assert not (spec.parent / "runs").exists()


def test_points_are_variants_that_the_language_has() -> None:
    found = points("first.lr=1e-3..1e-2 log 3, second.data={ web 50%, math 50% },web")
    recipe = reads(SPEC).more("--over", as_variants(found))
    assert not recipe.findings
    assert len({point.name for point in found}) == 6
    assert found[0].name == "sweep_lr_0_001_data_web_50_math_50"
    assert [each.name for each in points("a.lr=1,2,b.lr=3")] == ["sweep_lr_1", "sweep_lr_2"]


def test_points_whose_names_would_be_the_same_are_numbered() -> None:
    found = points('w.files="a-b","a_b"')
    assert [point.name for point in found] == ["point_1", "point_2"]


def test_a_dry_run_counts_what_points_share_once(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(spec), "--over", "second.clip=0.5,2", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "2 points: 7,680 tokens to train, with what they share once; 14,080" in out
    assert not (spec.parent / "runs").exists()


def test_a_point_that_is_wrong_keeps_all_from_running(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(spec), "--over", "second.clip=0.5,2 steps"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "error[E2" in said
    assert "the point second.clip = 2 steps cannot be planned, so nothing was run" in said
    assert not (spec.parent / "runs").exists()


def test_a_page_of_too_many_points_is_refused_before_anything_runs(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    over = ["sweep", str(spec), "--over", "second.clip=1.0..2.0 linear 13", "--html"]
    assert main([*over, str(tmp_path / "page.html")]) == 2
    assert "a page compares at most 12 runs, and these are 13 points" in capsys.readouterr().err
    over[3] = "second.clip=1,2"
    assert main([*over, str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_ranks_of_a_gang_start_no_sweeps_of_their_own(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ranks = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**ranks, "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert main(["sweep", str(spec), "--over", "second.clip=0.5,2"]) == 2
    assert "sweep starts its own ranks" in capsys.readouterr().err
    assert main(["run", str(spec), "--variant", "all"]) == 2
    assert "--variant all starts its own ranks" in capsys.readouterr().err


def test_the_results_have_a_row_a_point_and_the_best_of_each_column_marked() -> None:
    found = [Point(f"p{n}", {"a.lr": str(n)}) for n in (1, 2, 3)]
    gathered = {
        point.name: {
            "stages": [{"stage": "pre", "loss": loss}, {"stage": "post"}],
            "evaluations": [{"job": "exam", "scores": {"needle": {"score": score}}}],
        }
        for point, loss, score in zip(found, (3.0, 2.0, 2.0), (0.5, 0.5, 0.5), strict=True)
    }
    gathered["p3"]["evaluations"] = []
    table = sweep._results(found, gathered)
    assert isinstance(table, Table)
    assert list(table.columns) == ["a.lr", "pre loss", "exam needle"]
    assert list(table.cells()) == [
        [("1", False), ("3", False), ("0.5", False)],
        [("2", False), ("2", True), ("0.5", False)],
        [("3", False), ("2", True), ("", False)],
    ]


def of_points(over: str) -> tuple[list[Plan], list[dict[str, Any]]]:
    """The plans of a sweep, and losses as a law gives them."""
    plans = [plan(SPEC + as_variants([point]), variant=point.name) for point in points(over)]
    found = []
    for each in plans:
        *_, last = each.trained()
        tokens = sum(job.tokens for job in each.trained())
        loss = 1.5 + 90 / last.cost.active_parameters**0.5 + 40 / tokens**0.4
        found.append(
            {"stages": [{"stage": "first", "loss": 9.0}, {"stage": "second", "loss": loss}]}
        )
    return plans, found


def test_a_sweep_over_sizes_and_tokens_shows_the_law_and_its_optimum() -> None:
    pytest.importorskip("scipy")
    numbers, optimum = scaling_law(*of_points("tiny.dim=64,128,256,first.steps=100,200,400"))
    assert numbers.title.startswith("Scaling law L = E + A / N^α + B / D^β, 9 points, off by at")
    values = {row["number"]: row["value"] for row in numbers.rows}
    law = {"E": 1.5, "A": 90.0, "α": 0.5, "B": 40.0, "β": 0.4}
    assert values == pytest.approx(law, rel=1e-3)
    assert [row["budget"] for row in optimum.rows][:2] == ["1 × the largest", "10 × the largest"]
    assert optimum.rows[1]["loss"] < optimum.rows[0]["loss"]


def test_there_is_no_law_of_what_does_not_vary_or_too_little_or_without_scipy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(scaling_law(*of_points("first.lr=1e-3,2e-3,3e-3"))) == []
    assert capsys.readouterr().out == ""
    assert list(scaling_law(*of_points("tiny.dim=64,128,256"))) == []
    assert "too few points for a scaling law" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    assert list(scaling_law(*of_points("tiny.dim=64,128,192,256"))) == []
    assert "pip install 'etude[eval]'" in capsys.readouterr().out
