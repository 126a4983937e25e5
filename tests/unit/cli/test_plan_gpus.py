"""`etude plan --gpus A..B --deadline T`: time and price by the number of GPUs."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from etude.cli.main import main
from etude.cli.plan_gpus import _placement, _range, _seconds, _sizes
from etude.compiler.driver import analyse, compile
from etude.spec.load import reads

SPEC = """recipe test { seed = 1 }
tokenizer hub { hub = "meta-llama/Llama-3.1-8B" }
model large { size = "8B" }
dataset web { sample = python_docs }
cluster pod { nodes = 2, gpus = 8 of "H100 80GB", price = 2 }
stage first: train {
  model = large, steps = 100000, seq_len = 8Ki, batch = 96 seqs, lr = 1e-4, data = web
  parallel = { tensor 8 }
}
rounds again 2 {
  stage more: train { steps = 1000, lr = 1e-5 }
}
"""


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """The command line turns the garbage collector off; the tests continue."""
    yield
    gc.enable()


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "spec.etude"
    path.write_text(SPEC)
    return path


def compared(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["plan", "spec.etude", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    assert main(["plan", "spec.etude", *arguments]) == code
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("spec")
def test_a_point_is_the_plan_with_these_changes(capsys: pytest.CaptureFixture[str]) -> None:
    found = compared(capsys, "--gpus", "16..32")
    assert [point["gpus"] for point in found["points"]] == [16, 24, 32]
    for point in found["points"]:
        made = compile(analyse(reads(SPEC), sets=point["sets"]))
        assert made
        total = made.plan.totals
        assert total
        assert point["seconds"] == pytest.approx(total.seconds, rel=1e-3)
        assert point["price"] == total.price
        assert {j.resources.world_size for j in made.plan.trained()} == {point["gpus"]}
        assert set(point["placements"]) == {"first", "again.1.more", "again.2.more"}


@pytest.mark.usefixtures("spec")
def test_the_cheapest_that_meets_the_deadline_is_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    points = compared(capsys, "--gpus", "16..32")["points"]
    for point in points:
        days = point["seconds"] / 86400 * 1.001
        found = compared(capsys, "--gpus", "16..32", "--deadline", f"{days:.4f}d")
        meet = [p for p in points if p["seconds"] <= point["seconds"]]
        assert found["chosen"] == min(meet, key=lambda p: p["price"])["gpus"]


@pytest.mark.usefixtures("spec")
def test_a_deadline_that_none_meets_names_what_does(capsys: pytest.CaptureFixture[str]) -> None:
    points = compared(capsys, "--gpus", "16..32")["points"]
    days = points[-1]["seconds"] / 86400
    said = refusal(capsys, 1, "--gpus", "16..24", "--deadline", f"{days * 1.001:.4f}d")
    assert "no number of GPUs from 16..24 meets the deadline" in said
    assert "the fastest is 24" in said
    assert "or take 48 GPUs" in said
    assert refusal(capsys, 1, "--gpus", "16", "--deadline", "1h").count("error") == 1


@pytest.mark.usefixtures("spec")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--deadline 30d", "add --gpus 64..512"),
        ("--gpus 64-512", "is not a range"),
        ("--gpus 512..64", "is not a range"),
        ("--gpus 64..512 --deadline 30", "write hours, days or weeks"),
        ("--gpus 64..512 --deadline 0d", "write hours, days or weeks"),
        ("--gpus 64..512 --ranks 2", "takes no --ranks"),
        ("--gpus 64..512 --from first", "takes no --from"),
    ],
)
def test_what_cannot_be_read_is_one_message(
    capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    assert said in refusal(capsys, 2, *arguments.split())


def test_numbers_without_a_whole_node_name_the_next(
    capsys: pytest.CaptureFixture[str], spec: Path
) -> None:
    assert "write --gpus 9..16" in refusal(capsys, 1, "--gpus", "9..15")
    spec.write_text(SPEC.replace('gpus = 8 of "H100 80GB", price = 2', "cpus = 8"))
    assert "no cluster of GPUs" in refusal(capsys, 1, "--gpus", "8..16")
    spec.write_text(SPEC.replace('8 of "H100 80GB"', '8 of "Abacus"'))
    assert "Abacus" in refusal(capsys, 1, "--gpus", "8")


def test_more_nodes_fail_more_often(capsys: pytest.CaptureFixture[str], spec: Path) -> None:
    spec.write_text(SPEC.replace("price = 2", "price = 2, mtbf = 10 h"))
    (point,) = compared(capsys, "--gpus", "32")["points"]
    assert "cluster.pod.mtbf=18000 s" in point["sets"]
    assert point["seconds"] > point["gpu_hours"] / 32 * 3600


def test_ranges_times_and_sizes() -> None:
    assert _range("64..512") == (64, 512)
    assert _range("8") == (8, 8)
    assert _range("0..8") is None
    assert _seconds("1.5d") == 129600
    assert _seconds("2 w") == 14 * 86400
    assert list(_sizes(60, 200, 8)) == [64, 96, 128, 192, 200]


@pytest.mark.parametrize(
    "placed",
    [
        "{ tensor 8 }",
        "{ tensor 2, micro_batch 3 }",
        "{ pipeline 4, interleave 2, first_less 0, last_less 0 }",
        "{ tensor 2, pipeline 4, last_less 0 }",
    ],
)
def test_a_placement_is_shown_as_a_spec_writes_it(placed: str) -> None:
    made = compile(analyse(reads(SPEC.replace("{ tensor 8 }", f"{placed}, recompute = none"))))
    assert made
    assert _placement(next(iter(made.plan.trained()))) == placed
