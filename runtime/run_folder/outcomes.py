"""The outcomes of a plan's jobs in a run folder, whichever run made them.

Runs of a recipe and of its variants share artifacts. A job counts as finished if any of them has
its result: this job, a job with the same content under another name, or one of another run.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...compiler.plan.plan import Plan
from .json_lines import record_of
from .recorder import EVALUATIONS, STEPS, Kind
from .store import Store
from .variant_folders import runs

Event = Mapping[str, Any]
SMALL = 1 << 20
"""Files up to this many bytes are fetched from a store to show results."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job.

    Attributes:
        state: "started" or "finished".
        key: the key of its artifact.
        run: the variant whose run did the work; "" for the recipe's own.
        job: the job's name in that run.
    """

    state: str
    key: str
    run: str
    job: str

    def elsewhere(self, plan: Plan, job: str) -> str:
        """Which other run or job did the work, in a few words; "" if it was this run's `job`."""
        by = "" if self.run == (plan.variant or "") else self.run or "the recipe"
        name = "" if self.job == job else self.job
        return " ".join([*(["by", by] if by else []), *(["as", name] if name else [])])


def outcomes(plan: Plan, store: Store) -> dict[str, Outcome]:
    """Job → its outcome, for jobs of the plan that have started."""
    journals = list(_journals(store))
    own = plan.variant or ""
    makers = {e["key"]: (run, e["job"]) for run, e in journals if e["event"] == "finished"}
    latest: dict[tuple[str, str], Event] = {}
    elsewhere: dict[str, Event] = {}
    for run, event in journals:
        planned = (event["detail"] or {}).get("plan")
        if planned is None:
            continue
        if run == own:
            latest[event["job"], planned] = event
        if event["event"] == "finished":
            elsewhere[planned] = event
    found = {}
    for job in plan.jobs:
        event = latest.get((job.id, job.key))
        if event and event["event"] != "started" and not _there(store, event["key"]):
            event = None  # the result was removed, for example by `etude clean`
        if event is None or event["event"] == "started":
            other = elsewhere.get(job.key)
            event = other if other and _there(store, other["key"]) else event
        if event is None:
            continue
        if event["event"] == "started":
            found[job.id] = Outcome("started", event["key"], own, job.id)
        else:
            made = makers.get(event["key"], (own, job.id))
            found[job.id] = Outcome("finished", event["key"], *made)
    return found


def results(plan: Plan, store: Store) -> dict[str, Path]:
    """Job → folder of its result, for finished jobs of the plan; if the run folder is in a store,
    with only the small files.

    Raises: RunError: a result is damaged.
    """
    found = {}
    for job, outcome in outcomes(plan, store).items():
        folder = store.fetch(outcome.key, most=SMALL) if outcome.state == "finished" else None
        if folder:
            found[job] = folder
    return found


def steps(store: Store, job: str, outcome: Outcome | None) -> list[dict[str, Any]]:
    """The logged steps of a train job so far, in order."""
    return _logged(store, job, outcome, STEPS)


def evaluations(store: Store, job: str, outcome: Outcome | None) -> list[dict[str, Any]]:
    """The evaluations inside a train job so far, in order."""
    return _logged(store, job, outcome, EVALUATIONS)


def _logged(store: Store, job: str, outcome: Outcome | None, kind: Kind) -> list[dict[str, Any]]:
    paths = [store.folder / "metrics" / f"{job}{kind.ending}"]
    if outcome and outcome.state == "finished":
        paths.insert(0, store.folder / "artifacts" / outcome.key / kind.kept)
    for path in paths:
        try:
            return [_known(line) for line in _lines(path) if _is_written(line, kind)]
        except FileNotFoundError:
            continue
    return []


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().splitlines():
        record = record_of(line)
        if record is None:
            return  # the last line may be incomplete during a run
        yield record


_NO_FIGURES = ("event", "job", "stage", "mixture", "sources")
"""What a step has besides figures."""


def _is_written(line: Any, kind: Kind) -> bool:
    """Whether a line has the form of a step or an evaluation. Figures are only shown: damage in
    them is left out, and ends no report."""
    names = [line.get(name, "") for name in ("job", "stage")]
    if not isinstance(line.get("step"), int) or not all(isinstance(n, str | None) for n in names):
        return False
    if kind is EVALUATIONS:
        scores = line.get("scores")
        told = isinstance(scores, dict) and isinstance(line.get("tokens"), int)
        return told and all(map(_is_score, scores.values()))
    drawn = [line.get("mixture", {}), line.get("sources", {})]
    figures = {name: value for name, value in line.items() if name not in _NO_FIGURES}
    return (
        figures.get("loss") is not None
        and all(value is None or _is_number(value) for value in figures.values())
        and all(isinstance(of, dict) and all(map(_is_number, of.values())) for of in drawn)
    )


def _known(line: dict[str, Any]) -> dict[str, Any]:
    """A line without the figures that nobody knew."""
    return {name: value for name, value in line.items() if value is not None}


def _is_score(score: Any) -> bool:
    return isinstance(score, dict) and all(map(_is_number, score.values())) and "score" in score


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _journals(store: Store) -> Iterator[tuple[str, Event]]:
    """The events of the recipe's run and its variants' runs, oldest first, with the run's name.

    Those of one run are in the order of its journal, even if a clock was set back meanwhile.
    """
    events = []
    for name, folder in runs(store.folder).items():
        latest = 0.0
        for event in Store(folder).events():
            latest = max(latest, event["time"])
            events.append((latest, name, event))
    return ((name, event) for _, name, event in sorted(events, key=lambda found: found[0]))


def _there(store: Store, key: str) -> bool:
    return (store.folder / "artifacts" / key).is_dir()
