"""`etude plan --why`: what it prints is what the plan says."""

import json
import re
from pathlib import Path

import pytest
from specs import HEAD, stage

from etude.cli.main import main
from etude.compiler.costs.estimate import FORMULAS
from etude.compiler.costs.formulas import ACCOUNT
from etude.compiler.families.architectures import flops_per_token, parameters
from etude.compiler.values import Architecture

SPEC = (
    HEAD
    + (
        'model big { family = llama3, size = "8B" }\n'
        'cluster h { nodes = 2, gpus = 8 of "H100", price = 2.5 }\n'
    )
    + stage(model="big", seq_len="8192", batch="32 seqs", recompute="full")
)


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "spec.etude"
    path.write_text(SPEC, encoding="utf-8")
    return str(path)


def why(spec: str, figure: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["plan", spec, "--why", f"first.{figure}"]) == 0
    return capsys.readouterr().out


def test_the_results_are_those_of_the_plan(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", spec, "--json"]) == 0
    (job,) = (j for j in json.loads(capsys.readouterr().out)["jobs"] if j["kind"] == "train")
    cost, model = job["cost"], Architecture(**job["model"])

    def shown(figure: str) -> float:
        text = re.search(r"^\w+ = ([\d.,e+-]+)( GiB)?", why(spec, figure, capsys), re.M)
        assert text
        return float(text[1].replace(",", "")) * (2**30 if text[2] else 1)

    assert shown("memory") == pytest.approx(sum(cost["memory"].values()), rel=1e-3)
    for part in ("activations", "buffers", "optimizer", "margin"):
        assert shown(part) == pytest.approx(cost["memory"][part], rel=1e-3), part
    assert shown("time") == pytest.approx(sum(cost["step_seconds"].values()), rel=1e-3)
    assert shown("gpu_hours") == pytest.approx(cost["gpu_hours"], rel=1e-3)
    assert shown("energy") == pytest.approx(cost["energy_kwh"], rel=1e-3)
    assert shown("price") == pytest.approx(cost["price"], rel=1e-3)
    assert shown("parameters") == parameters(model)
    assert shown("flops") == pytest.approx(flops_per_token(model) * job["tokens"], rel=1e-3)
    assert f"{job['tokens']:,} tokens" in why(spec, "tokens", capsys)
    assert f"{job['steps']:,} steps" in why(spec, "steps", capsys)


def test_every_formula_can_be_shown_with_its_numbers(
    spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [*FORMULAS, *ACCOUNT]:
        if name == "parameters":
            continue
        found = why(spec, name, capsys)
        formula = (FORMULAS | ACCOUNT)[name]
        assert formula.text in found
        words = {"if", "else", "and", "max", "min"}
        for symbol in set(re.findall(r"[A-Za-z_]\w*", formula.text)) - words:
            assert re.search(rf"^\s*{symbol} +=? *[\d.-]", found, re.M), (name, symbol)


@pytest.mark.parametrize("figure", ["first.memry", "frist.memory", "first.9.memory", "memry"])
def test_what_there_is_not_is_said_in_one_message(
    spec: str, figure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", spec, "--why", figure]) == 1
    found = capsys.readouterr()
    assert not found.out
    assert found.err.startswith("error: ")
    assert "= help: " in found.err
