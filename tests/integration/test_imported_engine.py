"""What a run imports before it trains is imported fast."""

import subprocess
import sys

import pytest

COUNTED = """
import gc
collected = []
gc.callbacks.append(lambda phase, info: collected.append(info["generation"]))
from etude.runtime import imports
gc.collect(), collected.clear()
frozen = gc.get_freeze_count()
imports.engine("cpu")
during = len(collected)
print(during, gc.isenabled(), gc.get_freeze_count() - frozen > 500_000)
import sys
print("datasets" in sys.modules, "pandas" in sys.modules)
from torchtitan.hf_datasets import text_datasets
found = text_datasets.load_dataset("json", data_files=sys.argv[1], split="train")
import datasets
print(found[0], isinstance(found, text_datasets.Dataset), isinstance(1, text_datasets.Dataset))
print(datasets.Dataset is type(found))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a new process tells after it has imported the engine."""
    file = tmp_path_factory.mktemp("data") / "a.jsonl"
    file.write_text('{"a": 1}\n')
    command = [sys.executable, "-c", COUNTED, str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_the_engine_is_imported_without_collecting_garbage_and_left_out_of_later_collections(
    told: list[str],
) -> None:
    assert told[0] == "0 True True"


def test_the_engine_is_imported_without_the_library_datasets(told: list[str]) -> None:
    assert told[1] == "False False"


def test_torchtitans_own_loaders_find_the_library_when_they_use_it(told: list[str]) -> None:
    assert told[2:] == ["{'a': 1} True False", "True"]
