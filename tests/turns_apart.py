"""A policy whose turns have processes of their own: it writes on fewer ranks than it learns on."""

from typing import Any

import pytest
from whole_spec import spec

from etude.compiler.driver import analyse, compile
from etude.compiler.lowering import model_jobs
from etude.compiler.plan.plan import Plan
from etude.spec.load import reads


def turns_apart(statements: str) -> Plan:
    """The plan of a `grpo` stage, as if some of its GPUs were left over when the others write; that
    takes models of hundreds of billions of parameters."""
    needs = model_jobs.needs

    def of_few(*of: Any, turns: bool, **how: Any) -> dict[str, Any]:
        return needs(*of, **how)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(model_jobs, "needs", of_few)
        made = compile(analyse(reads(spec("grpo", statements))))
    assert made
    assert made.plan
    return made.plan
