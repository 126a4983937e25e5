"""What a run imports before it trains is imported fast."""

import subprocess
import sys

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
"""


def test_the_engine_is_imported_without_collecting_garbage_and_left_out_of_later_collections():
    done = subprocess.run(
        [sys.executable, "-c", COUNTED], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0", "True", "True"]
