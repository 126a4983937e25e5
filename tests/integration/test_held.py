"""What a process holds on its GPU makes room for a job that trains, and for no other."""

from pathlib import Path
from typing import Any

import engine_jobs  # noqa: F401 (before torchtitan is imported: on CPUs)
from specs import plan

from etude.runtime import held
from etude.runtime.gang import execute

SPEC = """recipe held { seed = 1 }
model tiny { layers = 1, dim = 32, heads = 2, ffn = 64, vocab = 300 }
tokenizer letters { bytes }
dataset sums { sample = arithmetic, documents = 100 docs }
stage pre: train {
  model = tiny, steps = 1, seq_len = 64, batch = 4 seqs, lr = 1e-3, data = sums
}
"""


def test_it_makes_room_before_the_first_step(tmp_path: Path) -> None:
    told: list[str] = []
    held.hold(lambda: told.append("rests"), lambda: told.append("ends"))

    def tell(event: dict[str, Any]) -> None:
        told.append(f"{event['event']} {event.get('kind', '')}".strip())

    execute(plan(SPEC), tmp_path / "run", tmp_path, tell)
    assert told.count("rests") == 1
    begun = told.index("rests")
    assert told[begun - 1] == "started train"
    assert "finished dataset" in told[:begun]
    assert "step" in told[begun:]
    assert told[-1] == "ends", "another leg may need the GPU"
    assert told.count("ends") == 1
