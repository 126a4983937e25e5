"""Phases of a plan as `etude plan` lists them."""

from turns_apart import turns_apart
from whole_spec import spec

from etude.cli import plan_table
from etude.compiler.driver import analyse, compile
from etude.compiler.plan.plan import Plan
from etude.spec.load import reads


def planned(statements: str) -> Plan:
    made = compile(analyse(reads(spec("grpo", statements))))
    assert made
    assert made.plan
    return made.plan


def test_many_turns_of_a_policy_share_two_rows() -> None:
    plan = turns_apart("steps = 1000, refresh = 10 steps")
    found = plan_table._turns(plan.phases)
    writing, training = [phases for phases in found if len(phases) > 1]
    assert {phase.kind for phase in writing} == {"generate"}
    assert {phase.kind for phase in training} == {"gang"}
    assert len(writing) == len(training) == 100
    assert sum(map(len, found)) == len(plan.phases)
    hours = plan_table._all_hours(training)
    assert float(hours) > 99 * float(plan_table._all_hours(training[:1]))


def test_turns_of_a_gang_are_one_phase() -> None:
    plan = planned("steps = 1000, refresh = 10 steps")
    (row,) = [row for row in plan_table._turns(plan.phases) if "draws.rl.7" in str(row)]
    assert len(row) == 1
    assert {"rl.1", "rl.100"} <= {*row[0].jobs}


def test_few_turns_have_a_row_each() -> None:
    plan = turns_apart("steps = 30, refresh = 10 steps")
    assert plan_table._turns(plan.phases) == [[phase] for phase in plan.phases]
