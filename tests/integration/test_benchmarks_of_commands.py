"""Smoke runs of the benchmarks that `test_benchmarks` leaves out, at tiny sizes."""

import asyncio
import sys
from pathlib import Path

import engine_jobs  # noqa: F401 (before torchtitan is imported: on CPUs)
import pytest

# The benchmarks are no part of what is installed.
sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import (
    averaging,
    data_order,
    dialogs,
    language_server,
    placement,
    preparing,
    scale,
    startup,
)

ROOT = Path(__file__).parents[2]

TEMPLATE = """{% if tools %}{{ tools | tojson }}{% endif %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
ELSEWHERE = {"cost_model": "unit", "settings": "unit", "overhead": "integration"}
"""Benchmarks that other tests use, by their folder."""
WITH_TRL = ("post_training", "post_training_profile")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What benchmarks would write into RESULTS.md."""
    found: dict[str, str] = {}
    for module in (dialogs, scale, startup):
        monkeypatch.setattr(module, "write_section", found.__setitem__)
    return found


def test_averaging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"layers": 1, "dim": 64, "heads": 2, "kv_heads": 2, "head_dim": 32, "ffn": 64}
    monkeypatch.setattr(averaging, "SHAPE", averaging.SHAPE | small | {"vocab": 512})
    size = averaging.make_models(tmp_path)
    assert size["total"] > size["largest"] > 0
    assert averaging.run_etude(tmp_path)["seconds"] > 0


def test_data_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_order, "FILE", 2**24)
    monkeypatch.setattr(data_order, "READS", 10)
    data_order.make(tmp_path / "500", 500)
    for count in (500, data_order.COMPUTED):
        found = data_order.measure(count, tmp_path / str(count))
        assert min(found["first"], found["far"], found["next"]) > 0
    assert set(data_order.scattered_reads(tmp_path / "random.bin")) == {False, True}


def test_dialogs(written: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogs, "DIALOGS", 1)
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    dialogs.main(tmp_path / "template.jinja", 1)
    assert written["Dialogs"].count("| 10, ") == 2


def test_language_server() -> None:
    found = asyncio.run(language_server.measure(language_server.spec(), 2))
    assert {name: len(times) for name, times in found.items()} == dict.fromkeys(found, 2)


def test_placement() -> None:
    assert len(list(placement.table())) >= 2 + len(placement.ROWS)


def test_scale() -> None:
    assert scale.seconds(scale.spec(20)) > 0


def test_startup(written: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: command for name, command in startup.COMMANDS.items() if name != startup.SLOW}
    monkeypatch.setattr(startup, "COMMANDS", few)
    startup.main(1)
    assert written["Start-up"].count("| `") == 3


@pytest.mark.exhaustive
def test_preparing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "SIZE", 1_000_000)
    preparing.corpus(tmp_path / "web.jsonl")
    spec = tmp_path / "spec.etude"
    source = 'files = "web.jsonl"'
    spec.write_text(preparing.SPEC.format(tokenizer=preparing.TRAINED, source=source))
    assert preparing.prepare(spec, tmp_path / "whole") > 0
    whole = preparing.shards(tmp_path / "whole")
    assert "shards.json" in preparing.sums(whole)


def test_every_benchmark_runs_in_a_test() -> None:
    """Except those that compare with TRL, which needs an environment of its own."""
    made = {
        path.stem for path in (ROOT / "benchmarks").glob("*.py") if "def main" in path.read_text()
    }
    here = "".join(path.read_text() for path in Path(__file__).parent.glob("test_benchmarks*.py"))
    here += Path(__file__).with_name("test_memory_steps.py").read_text()
    for name, folder in ELSEWHERE.items():
        tests = "".join(path.read_text() for path in (ROOT / "tests" / folder).rglob("test_*.py"))
        assert f"benchmarks import {name}" in tests or f"benchmarks.{name}" in tests, name
    missing = {name for name in made - ELSEWHERE.keys() if f"{name}." not in here}
    assert missing <= {*WITH_TRL, "memory_worker"}
