"""torchtitan's verdicts on configurations, as findings at the places in the spec that set them."""

import re

from ...spec.findings.diagnostics import Report
from ..plan.fitting import Misfit
from ..program import Scheduled

SET_BY = (
    (r"(?i)sequence length|seq_len|Q_LEN", "seq_len"),
    (r"(?i)batch", "batch"),
    (r"(?i)parallel|mesh|world|stages?\b|heads|shard|tensor|degree|rank", "parallel"),
)
"""Words in torchtitan's reason → the attribute that sets their subject; the first match counts."""


def rejected(program: Scheduled, stage: str, reason: str, report: Report) -> None:
    """Adds torchtitan's reason for rejecting a configuration of a train stage."""
    spec = program.stages[stage].spec
    attribute = next((name for words, name in SET_BY if re.search(words, reason)), "")
    report.add(
        "E491",
        f"torchtitan rejects the stage `{stage}`: {_sentence(reason)}",
        spec.at(attribute),
        help=f"change {attribute or 'model, placement or batch'}",
    )


def differs(program: Scheduled, stage: str, difference: str, report: Report) -> None:
    """Adds a difference between torchtitan's model and the plan's count of it."""
    place = program.stages[stage].spec.at("model")
    report.add("E492", f"{difference}, in the stage `{stage}`", place)


def misfit(program: Scheduled, found: Misfit, report: Report) -> None:
    """Adds a job whose model cannot generate where the plan puts it."""
    spec = program.stages[found.job.stage or ""].spec
    place = spec.at(found.attribute) or spec.at()
    report.add(found.code, found.message, place, help=found.help)


def _sentence(reason: str) -> str:
    """The first sentence, of 200 characters at most."""
    first = re.split(r"\.\s+(?=[A-Z])", reason.strip(), maxsplit=1)[0].rstrip(".")
    return first if len(first) <= 200 else first[:199] + "…"
