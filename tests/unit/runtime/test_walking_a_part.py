"""A gang that is started for a phase does what the plan has up to its end."""

import pytest
from specs import HEAD, plan, stage

from etude.compiler.plan.phases import phases
from etude.runtime.errors import RunError
from etude.runtime.part import PHASE, phase_of, up_to

MADE = plan(
    HEAD
    + "tokenizer words { bytes }\ncluster pair { nodes = 2, cpus = 1 }\n"
    + stage(data="{ web 100% }")
)


def test_without_a_number_there_is_no_end() -> None:
    assert phase_of(MADE, {}) is None


def test_a_phase_is_done_with_all_that_comes_before_it() -> None:
    found = phases(MADE)
    assert [phase.kind for phase in found] == ["cpu", "gang", "small"]
    for number, phase in enumerate(found, 1):
        assert phase_of(MADE, {PHASE: str(number)}) == phase
        ids = [job.id for job in up_to(MADE, phase).jobs]
        assert ids == [id for each in found[:number] for id in each.jobs]
    assert up_to(MADE, found[-1]) == MADE


@pytest.mark.parametrize("number", ["0", "4", "two", "-1"])
def test_a_number_that_no_phase_has_is_said(number: str) -> None:
    with pytest.raises(RunError, match=f"{PHASE}={number}, but the plan has 3 phases"):
        phase_of(MADE, {PHASE: number})
