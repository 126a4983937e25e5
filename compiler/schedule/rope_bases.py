"""Checks that models used together have the same position encoding, that is, end with the same RoPE
base. Their shapes are compared when names are resolved; bases change during a stage."""

from collections.abc import Iterator

from ...spec.findings.diagnostics import Report
from ...spec.quantity import plain
from ...spec.schema import recipe as r
from ..program import Scheduled


def bases(program: Scheduled, report: Report) -> Scheduled:
    """Reports models of averages and choices, and references, that end with different bases."""
    for spec, attribute, one, other in _together(program):
        ends = [program.trained(name).last.rope_theta for name in (one, other)]
        if ends[0] != ends[1]:
            report.add(
                "E544",
                f"`{one}` ends with RoPE base {plain(ends[0])}, `{other}` with {plain(ends[1])}",
                spec.at(attribute),
                help="use models that end with the same `rope_theta`: with another base, the "
                "weights do not compute what they learned",
            )
    return program


def _together(program: Scheduled) -> Iterator[tuple[r.Stage, str, str, str]]:
    """The stage and the attribute that use two models together, and the two."""
    for name, stage in program.stages.items():
        for other in stage.sources[1:]:
            yield stage.spec, "of", stage.sources[0], other
        reference = getattr(stage.spec, "reference", None)
        if reference:
            yield stage.spec, "reference", name, reference
