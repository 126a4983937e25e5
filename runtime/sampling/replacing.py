"""Dynamic sampling: prompts whose answers have the same score are replaced by the next ones.

A policy learns nothing from a group of answers that are all right or all wrong. Yu et al.: DAPO
(arXiv:2503.14476, §3.2, eq. 11).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from ...compiler.plan.plan import DrawJob
from ..peers import Peers
from ..verification import verified
from .draw_files import SUMMARY, finish, saved
from .prompts import records

NEXT = "next"

Scores = dict[str, float]
Add = Callable[[int, int], list[int] | None]
"""Draws the answers to so many prompts after the first so many, and returns the records' numbers.
"""


class Group(NamedTuple):
    """The scores of a prompt's answers, draw by draw, and their weighted sums."""

    scores: list[Scores]
    rewards: list[float]

    @property
    def differ(self) -> bool:
        return min(self.rewards) != max(self.rewards)


def begin(before: Path | None) -> int:
    """The place of a job's first prompt in the order of its stage: after those of another job.

    Args:
        before: the result of that job; None if there is none.
    """
    return json.loads((before / SUMMARY).read_text())[NEXT] if before else 0


def draw(
    job: DrawJob, first: int, add: Add, path: Path, folder: Path, root: Path, peers: Peers
) -> None:
    """Draws answers to prompts, in their order, until as many as the window has have answers of
    different scores, and writes the result of these.

    Which prompts they are depends on nothing but the answers: prompts that were drawn beyond the
    last are drawn again by the next job. If the limit comes first, prompts that teach nothing fill
    the rest.

    Args:
        first: the place of the first prompt.
        path: the prompts.
        peers: the ranks; rank 0 scores the answers for all.
    """
    assert job.until
    assert job.window
    need, most = job.window.count, job.window.count * job.until.most
    groups: list[Group] = []
    drawn, more = 0, need
    while more:
        numbers = add(drawn, more)
        drawn += more
        if peers.rank == 0:
            groups += _scored(job, drawn - more, numbers or [], path, folder, root)
        more = int(peers.told(b"%d" % _more(groups, need, most)))
    if peers.rank != 0:
        return
    kept = _kept(groups, need)
    scores = {
        place * job.draws + which: scores
        for place in kept
        for which, scores in enumerate(groups[place].scores)
    }
    finish(folder, job.draws, scores, _summary(groups, kept, first))


def _scored(
    job: DrawJob, begin: int, numbers: list[int], path: Path, folder: Path, root: Path
) -> Iterator[Group]:
    """The groups of the prompts from `begin` on, whose records have these numbers."""
    assert job.until
    wanted = set(numbers)
    asked = {n: record for n, record in enumerate(records(path)) if n in wanted}
    places = range(begin, begin + len(numbers))
    answers = ((asked[draw["record"]], draw) for draw in saved(folder) if draw["prompt"] in places)
    what = f"`{job.id}` continues with the answers that it has"
    found: dict[tuple[int, int], Scores] = {
        (draw["prompt"], draw["draw"]): scores
        for _, draw, scores in verified(job.until.verify, root, answers, what)
    }
    for place in places:
        scores = [found[place, which] for which in range(job.draws)]
        weights = job.until.weights.items()
        yield Group(scores, [sum(weight * each[n] for n, weight in weights) for each in scores])


def _more(groups: list[Group], need: int, most: int) -> int:
    """How many prompts to draw next, at once: as many as will be enough if their answers differ as
    often as those before; at most a window's."""
    differ = sum(group.differ for group in groups)
    if differ >= need:
        return 0
    wanted = ceil((need - differ) * len(groups) / differ) if differ else need
    return min(wanted, need, most - len(groups))


def _kept(groups: list[Group], need: int) -> list[int]:
    """The places of the prompts to learn from."""
    places = [place for place, group in enumerate(groups) if group.differ][:need]
    idle = [place for place, group in enumerate(groups) if not group.differ]
    return sorted([*places, *idle[: need - len(places)]])


def _summary(groups: list[Group], kept: list[int], first: int) -> Mapping[str, Any]:
    """`drawn` counts the prompts up to the last that is learned from, or all if there were too few;
    of these, `right` and `wrong` are those with all answers right and wrong, `alike` all whose
    answers do not differ; `filled` are those of them that are learned from nonetheless."""
    filled = sum(not groups[place].differ for place in kept)
    drawn = len(groups) if filled else kept[-1] + 1
    alike = [group.scores for group in groups[:drawn] if not group.differ]

    def all_are(value: float) -> int:
        return sum(all(s == value for each in scores for s in each.values()) for scores in alike)

    counts = {"right": all_are(1), "wrong": all_are(0), "alike": len(alike), "filled": filled}
    return {"prompts": len(kept), "drawn": drawn, **counts, NEXT: first + drawn}
