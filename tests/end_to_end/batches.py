"""Which token ids a run trains on, step by step, as its ranks have read them.

`recording(FOLDER)` is an environment for commands: every process of etude then writes each
micro-batch that it hands out to a file of its own in FOLDER.
"""

import json
from pathlib import Path
from typing import Any

from etude_cli import environment

_HOOK = """
import importlib.abc, importlib.machinery, json, os, sys

class Recording(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "etude.runtime.engine.loader":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            record(module.Loader)
        spec.loader.exec_module = exec_module
        return spec

def rows_of(input, positions, segments=None, **_):
    if segments is None:
        return input.tolist()
    # Which preferences share a row depends on the ranks.
    found = []
    for row, at, numbers in zip(input.tolist(), positions.tolist(), segments.tolist()):
        end = sum(number >= 0 for number in numbers)
        begins = [place for place in range(end) if at[place] == 0]
        found += [row[begin:stop] for begin, stop in zip(begins, [*begins[1:], end])]
    return found

def record(loader):
    original = loader.__iter__
    def iterate(self):
        batches = original(self)
        with open(os.path.join(os.environ["RECORD"], f"{os.getpid()}.jsonl"), "a") as file:
            while True:
                step = self.timeline.first_step + self.steps
                batch = next(batches)
                said = {"stage": [self._of, self.timeline.seq_len], "step": step,
                        "batch": self.timeline.batch(step), "rank": self._rank,
                        "rows": rows_of(**batch[0])}
                file.write(json.dumps(said) + "\\n")
                file.flush()
                yield batch
    begin = loader.__init__
    def init(self, config, **rest):
        begin(self, config, **rest)
        self._of = type(self).__name__ + " " + " ".join(sorted(config.first_tokens))
    loader.__iter__, loader.__init__ = iterate, init

sys.meta_path.insert(0, Recording())
"""

Step = tuple[str, int, int]
"""Kind and sources of a stage's loader, tokens of a sequence, step."""


def recording(folder: Path) -> dict[str, str]:
    """An environment in which commands record their batches in a folder."""
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(_HOOK)
    return {**environment(), "PYTHONPATH": str(folder), "RECORD": str(folder)}


def recorded(folder: Path) -> dict[Step, list[list[int]]]:
    """The rows of tokens, or the preferences, of every step that was read whole, sorted.

    Ranks that are one data-parallel rank, in a tensor or pipeline group, read the same rows.
    """
    found: dict[Step, dict[int, list[list[int]]]] = {}
    wanted: dict[Step, int] = {}
    for path in folder.glob("*.jsonl"):
        own: dict[tuple[Step, int], list[list[int]]] = {}
        for line in path.read_text().splitlines():
            try:
                said: dict[str, Any] = json.loads(line)
            except ValueError:
                break  # the process was killed while it wrote
            step = (said["stage"][0], said["stage"][1], said["step"])
            own.setdefault((step, said["rank"]), []).extend(map(_unpadded, said["rows"]))
            wanted[step] = said["batch"]
        for (step, rank), rows in own.items():
            before = found.setdefault(step, {}).get(rank, [])
            common = min(len(before), len(rows))
            assert before[:common] == rows[:common], f"{path}: rank {rank} in {step}"
            found[step][rank] = max(before, rows, key=len)
    whole = {step: [row for rows in of.values() for row in rows] for step, of in found.items()}
    return {step: sorted(rows) for step, rows in whole.items() if len(rows) == wanted[step]}


def _unpadded(row: list[int]) -> list[int]:
    """A row without what fills it up to the length that its micro-batch has."""
    while row and row[-1] == 0:
        row.pop()
    return row
