"""The schedules of a plan as rows over tokens, for charts."""

from bisect import bisect_right
from itertools import pairwise
from typing import Any

from ..compiler.as_written import at_most
from ..compiler.curves import value
from ..compiler.ids import StageId
from ..compiler.plan.plan import Plan, TrainJob
from ..compiler.values import LrPiece

SAMPLES = 48
"""Points of a curved ramp; a straight line needs only its ends."""
ROWS_OF_A_JOB = 600
"""Longer lists of boundaries are thinned evenly; a chart has no more pixels."""

ROWS_OF_A_PICTURE = 1200
"""A small picture is a few hundred pixels wide; each sharp change takes two rows."""


def schedules(plan: Plan) -> dict[str, Any]:
    """Stages and rows on one axis: tokens, counted through all training in running order.

    Returns:
        stages: name, first and last token of each stage on the axis, the unit of its batches, and
            the prefix of its tokens.
        sources: names of data sets, in order of appearance.
        rows: [token on the axis, stage's number, step of the stage, learning rate, sequences and
            tokens per step, sequence length, RoPE base, and the share of each source]. Two rows at
            the same token are the values before and after it.
    """
    jobs = plan.trained()
    sources = list(
        dict.fromkeys(n for job in jobs for p in job.schedule.mixture for n in p.weights)
    )
    stages: list[dict[str, Any]] = []
    rows: list[list[float]] = []
    at = 0
    for job in jobs:
        name = str(job.stage)
        if not stages or stages[-1]["name"] != name:
            stages.append(
                {
                    "name": name,
                    "from": at,
                    "to": at,
                    "rows": job.rows,
                    "at_most": at_most(job.rows),
                }
            )
        rows += _rows(job, at, len(stages) - 1, sources)
        at += job.tokens
        stages[-1]["to"] = at
    return {"stages": stages, "sources": sources, "rows": rows}


def picture(plan: Plan) -> dict[str, Any]:
    """The schedules as a small picture. Every stage outside of rounds and every whole round has the
    same width, however many stages the round has.

    Returns:
        rows: [position from 0 to 1, learning rate, sequence length, and the share of each source].
        sources: their number.
    """
    found = schedules(plan)
    stages = found["stages"]
    units = [StageId.parse(stage["name"]).unit or stage["name"] for stage in stages]
    places = list(dict.fromkeys(units))
    share = 1 / len(places)
    widths = [share / units.count(unit) for unit in units]
    starts = [
        share * places.index(unit) + width * units[:n].count(unit)
        for n, (unit, width) in enumerate(zip(units, widths, strict=True))
    ]
    rows: list[list[float]] = []
    for token, stage, _, lr, _, _, length, _, *shares in found["rows"]:
        begin, end = stages[stage]["from"], stages[stage]["to"]
        x = starts[stage] + widths[stage] * (token - begin) / (end - begin)
        row = [round(x, 4), lr, length, *(round(each, 3) for each in shares)]
        if not rows or row != rows[-1]:
            rows.append(row)
    thin = -(-len(rows) // ROWS_OF_A_PICTURE)
    return {
        "rows": rows if thin < 2 else [*rows[:-1:thin], rows[-1]],
        "sources": len(found["sources"]),
    }


def _rows(job: TrainJob, at: int, stage: int, sources: list[str]) -> list[list[float]]:
    end = job.first_step + job.steps
    batches = job.schedule.batch
    starts = [piece.from_step for piece in batches]
    before = [0]
    for piece in batches:
        taken = (piece.to_step - piece.from_step) * piece.sequences * job.seq_len
        before.append(before[-1] + taken)

    def tokens(step: int) -> int:
        number = bisect_right(starts, step) - 1
        piece = batches[number]
        return before[number] + (step - piece.from_step) * piece.sequences * job.seq_len

    marks = {job.first_step, end}
    for piece in (*job.schedule.lr, *batches, *job.schedule.mixture):
        marks |= {piece.from_step, piece.to_step}
    for piece in job.schedule.lr:
        if piece.shape not in ("hold", "linear"):
            length = piece.to_step - piece.from_step
            marks |= {piece.from_step + length * n // SAMPLES for n in range(SAMPLES)}
    steps = sorted(marks)
    thin = -(-len(steps) // ROWS_OF_A_JOB)
    steps = [*steps[:-1:thin], end]

    def row(step: int, shown: int) -> list[float]:
        """The values at a boundary, from the pieces that contain step `shown`."""
        rate = _piece(job.schedule.lr, shown)
        batch = _piece(batches, shown).sequences
        weights = _piece(job.schedule.mixture, shown).weights
        whole = sum(weights.values())
        shares = [_round(weights.get(name, 0) / whole) for name in sources]
        done = tokens(step)
        lr = _round(_rate(rate, step, job.first_token + done))
        return [
            at + done,
            stage,
            step,
            lr,
            batch,
            batch * job.seq_len,
            job.seq_len,
            job.model.rope_theta,
            *shares,
        ]

    return [r for a, b in pairwise(steps) for r in (row(a, a), row(b, b - 1))]


def _piece(pieces: list[Any], step: int) -> Any:
    return pieces[bisect_right([piece.from_step for piece in pieces], step) - 1]


def _rate(piece: LrPiece, step: int, tokens: int) -> float:
    if piece.shape == "hold":
        return piece.start
    clock = step if piece.clock == "steps" else tokens
    return value(piece.shape, piece.start, piece.end, (clock - piece.origin) / piece.length)


def _round(number: float) -> float:
    return float(f"{number:.6g}")
