"""The tables of `etude report`, whatever they are printed as."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..spec.quantity import measured

LEFT_OUT = ("bad lines", "limit", "dropped", "truncated", "too similar")
SAMPLED = ("prompts", "draws", "finished", "right", "reward", "kept", "kept_reward", "pairs")
SPEED = {
    "tokens_per_second": "tokens/s a rank",
    "planned_tokens_per_second": "planned",
    "mfu": "MFU",
    "planned_mfu": "planned MFU",
    "data": "waiting for data",
    "memory": "GiB of a GPU",
}
"""A figure of a stage's speed → its column."""
_SHARES = ("mfu", "planned_mfu", "data")
COSTS = {
    "tokens": "tokens",
    "steps": "steps",
    "hours": "hours",
    "gpu_hours": "GPU-hours",
    "price": "price",
}
"""A figure of a stage's costs → its column; the planned one follows it."""
MOST_SHOWN = 10
"""Of the evaluations inside a stage, so many of the newest are shown; `--json` has all."""
DECIDED = {"result": "kept", "ended the stage": "ended"}
"""Column of what an evaluation decided → the field of a stage with its step."""
LOWER = ("loss", "nll")
"""Measures and figures of which less is better begin with one of these words; of others that are
compared, more is."""


class Table(NamedTuple):
    """A table of a report.

    Attributes:
        rows: each column's value: a number, a text, a mapping of names to numbers, or None.
        best: for each row, the columns with the best value; () if nothing is compared.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    best: Sequence[frozenset[str]] = ()

    def right(self, column: str) -> bool:
        """Whether a column has numbers, which are aligned to the right."""
        return any(isinstance(row.get(column), int | float) for row in self.rows)

    def cells(self) -> Iterator[list[tuple[str, bool]]]:
        """The texts of each row, and whether each is the best of its row."""
        for number, row in enumerate(self.rows):
            best = self.best[number] if self.best else ()
            yield [(cell(row.get(name)), name in best) for name in self.columns]


def cell(value: Any) -> str:
    """A value as people read it: numbers with four digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        return measured(value, 4)
    if isinstance(value, dict):
        return ", ".join(f"{name} {measured(number)}" for name, number in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def tables(found: Mapping[str, Any]) -> list[Table]:
    """The tables of one run, without those that would be empty.

    Args:
        found: what `gather` has found, with `costs`.
    """
    from ..runtime.reporting.results import FIGURES, STEPS

    stages = found["stages"]
    trained = ["stage", "kind", "state", "steps", "tokens"]
    trained += _present(stages, (*FIGURES, "spikes", "rollbacks", "passes", "made"))
    speeds = list(_speeds(stages))
    left_out = [_left_out(row) for row in found["data"]]
    scored = [
        {"stage": row["job"], "of": row["of"]} | _figures(row["scores"])
        for row in found["evaluations"]
    ]
    measures = dict.fromkeys(name for row in scored for name in row if name not in ("stage", "of"))
    samples = found["samples"]
    all_of_them = [
        Table(f"Training (means of the last {STEPS} steps)", trained, stages),
        _costs(found["costs"]),
        Table("Speed (medians over steps)", ["stage", *_present(speeds, SPEED.values())], speeds),
        _during(stages),
        Table("Records left out", ["dataset", *_present(left_out, LEFT_OUT)], left_out),
        Table("Evaluations", ["stage", "of", *measures], scored, _best(found["evaluations"])),
        Table(
            "Gates",
            ["gate", "of", "measure", "score", "wanted", "passed"],
            list(_gates(found["gates"])),
        ),
        Table("Samples", ["stage", *_present(samples, SAMPLED)], samples),
        Table(
            "Choices", ["stage", "measure", "of", "score", "best"], list(_choices(found["best"]))
        ),
    ]
    return [table for table in all_of_them if table.rows]


def compared(runs: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Tables with a column for each of several runs, and the best of each row marked.

    Args:
        runs: name of a run → what `gather` has found, with `costs`.
    """
    from ..runtime.reporting.results import FIGURES, STEPS

    trained: dict[tuple[str, ...], dict[str, Any]] = {}
    scored: dict[tuple[str, ...], dict[str, Any]] = {}
    for name, found in runs.items():
        for row in found["stages"]:
            for figure in FIGURES:
                if figure in row:
                    trained.setdefault((row["stage"], figure), {})[name] = row[figure]
        for row in found["evaluations"]:
            for measure, score in row["scores"].items():
                key = (row["job"], row["of"] or "", measure)
                scored.setdefault(key, {})[name] = score["score"]
    all_of_them = [
        _marked(
            f"Training (means of the last {STEPS} steps)", ("stage", "figure"), trained, list(runs)
        ),
        _marked("Evaluations", ("stage", "of", "measure"), scored, list(runs)),
        Table("Costs", ["what", *runs], list(_compared_costs(runs))),
    ]
    return [table for table in all_of_them if table.rows]


def _marked(
    title: str,
    keys: tuple[str, ...],
    values: Mapping[tuple[str, ...], Mapping[str, Any]],
    names: list[str],
) -> Table:
    """A table of figures, of which the best of several runs are marked; equal ones are not."""
    rows = [{**dict(zip(keys, key, strict=True)), **found} for key, found in values.items()]
    best = []
    for key, found in values.items():
        pick = min if key[-1].startswith(LOWER) else max
        wins = frozenset(name for name in found if found[name] == pick(found.values()))
        best.append(wins if len(wins) < len(names) and len(found) > 1 else frozenset[str]())
    return Table(title, [*keys, *names], rows, best)


def _compared_costs(runs: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for name, column in COSTS.items():
        row: dict[str, Any] = {"what": column}
        for run, found in runs.items():
            values = [stage[name] for stage in found["costs"]]
            row[run] = sum(values) if values and None not in values else None
        if any(row[run] is not None for run in runs):
            yield row


def _costs(rows: list[dict[str, Any]]) -> Table:
    shown: list[dict[str, Any]] = []
    for row in rows:
        pairs = [
            (name, column, row[name], row[f"planned_{name}"]) for name, column in COSTS.items()
        ]
        shown.append(
            {"stage": row["stage"]}
            | {column: value for _, column, value, _ in pairs}
            | {f"planned {column}": planned for _, column, _, planned in pairs}
        )
    columns = [name for column in COSTS.values() for name in (column, f"planned {column}")]
    return Table("Planned and done", ["stage", *_present(shown, columns)], shown)


def _speeds(stages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in stages:
        if "speed" in row:
            yield {"stage": row["stage"]} | {
                SPEED[name]: f"{value:.1%}" if name in _SHARES else float(f"{value:.4g}")
                for name, value in row["speed"].items()
            }


def _during(stages: list[dict[str, Any]]) -> Table:
    """The newest evaluations inside stages, and what they decided."""
    rows = [
        {"stage": row["stage"], "step": each["step"], "tokens": each["tokens"]}
        | _losses(each["scores"])
        | {column: "yes" for column, of in DECIDED.items() if row.get(of) == each["step"]}
        for row in stages
        for place, each in enumerate(row.get("evaluations", ()), start=MOST_SHOWN)
        if place >= len(row["evaluations"]) or row.get("kept") == each["step"]
    ]
    names = [name for name in dict.fromkeys(n for row in rows for n in row) if name not in DECIDED]
    best = [_lowest(row, stages) for row in rows]
    return Table("Evaluations during training", [*names, *_present(rows, DECIDED)], rows, best)


def _lowest(row: Mapping[str, Any], stages: list[dict[str, Any]]) -> frozenset[str]:
    """The losses of an evaluation that are the lowest of all of its stage."""
    (of,) = (each["evaluations"] for each in stages if each["stage"] == row["stage"])
    known = [_losses(each["scores"]) for each in of]
    return frozenset(
        name
        for name, value in row.items()
        if name.startswith(LOWER)
        and len(known) > 1
        and value == min(each[name] for each in known if name in each)
    )


def _best(rows: Sequence[Mapping[str, Any]]) -> list[frozenset[str]]:
    """For each evaluation, the measures of which it has the best score of several models; equal
    ones are not marked."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        for name, score in row["scores"].items():
            scores.setdefault(name, []).append(score["score"])
    best = {
        name: (min if name.startswith(LOWER) else max)(values)
        for name, values in scores.items()
        if len(set(values)) > 1
    }
    return [
        frozenset(n for n, score in row["scores"].items() if score["score"] == best.get(n))
        for row in rows
    ]


def _losses(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Losses, and the accuracies that come with those of preferences."""
    found = {}
    for name, score in scores.items():
        found[name] = score["score"]
        if "accuracy" in score:
            found[f"accuracy{name.removeprefix('loss')}"] = score["accuracy"]
    return found


def _gates(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        for requirement in row["requirements"]:
            yield {
                "gate": row["job"],
                "of": row["what"],
                **requirement,
                "wanted": f"{requirement['op']} {cell(requirement['wanted'])}",
                "passed": "yes" if requirement["passed"] else "no",
            }


def _choices(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        for place, each in enumerate(row["scores"]):
            yield {
                "stage": row["stage"],
                "measure": row["measure"],
                "of": each["stage"],
                "score": each["score"],
                "best": "yes" if place == row["index"] else "",
            }


def _figures(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of an evaluation: those of verifiers with their standard error and pass@k, those
    of several answers with the best of k, those of steps with the accuracies on right and on wrong
    ones."""
    from ..runtime.reporting.results import SIDES

    found: dict[str, Any] = {}
    for name, score in scores.items():
        shown = found[name] = score["score"]
        if score.get("stderr") is not None:
            found[name] = f"{cell(shown)} ± {cell(score['stderr'])}"
        found |= {side: score[side] for side in SIDES if score.get(side) is not None}
        of = name.partition("(")[2].rstrip(")")
        for what, mark in (("pass", "pass@"), ("best_of", "best of ")):
            for k, value in score.get(what, {}).items():
                if k != "1":  # the score itself
                    found[f"{mark}{k} ({of})"] = value
    return found


def _left_out(row: Mapping[str, Any]) -> dict[str, Any]:
    """How many records of a data set are missing or incomplete, by reason."""
    long = row.get("long") or {}
    return {
        "dataset": row["dataset"],
        "bad lines": row.get("bad_lines"),
        "limit": long.get("limit"),
        "dropped": long.get("dropped"),
        "truncated": long.get("truncated"),
        "too similar": (row.get("similar") or {}).get("records"),
    }


def _present(rows: Sequence[Mapping[str, Any]], names: Any) -> list[str]:
    return [name for name in names if any(row.get(name) is not None for row in rows)]
