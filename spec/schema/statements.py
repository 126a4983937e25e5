"""Statements that are not attributes: filters, gates and expectations."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction
from typing import Any

from .. import syntax as s
from ..findings.diagnostics import Report, did_you_mean
from ..source import Span
from . import convert as c
from . import kinds as k
from . import number_kinds as nk
from . import recipe as r

CLAIMED = {
    "tokens": "tokens",
    "batch": "tokens",
    "seq_len": "tokens",
    "steps": "steps",
    "sequences": "seqs",
    "memory": "GiB",
    "hours": "h",
    "gpu_hours": "h",
    "step_seconds": "s",
}
"""Figure of a claim → its unit; other figures have none."""
MOMENT = nk.Amount("steps", "tokens", "%", zero=True)
"""A point in a stage, for claims."""
_OPPOSITE = {">": "<=", ">=": "<", "<": ">=", "<=": ">"}


class Statements(ABC):
    """Reads statements into models, and reports what is wrong.

    Args:
        broken: statements that could not be parsed were left out, so nothing is reported as
            missing.

    Attributes:
        names: the names of all `let`s.
        uses: where a name was replaced → the `let` whose value is there now.
        declared: keyword → the names of such blocks.
        lost: the names of `let`s that could not be parsed.
        counts_steps: whether the length of the current stage is in steps or epochs.
    """

    def __init__(self, report: Report, broken: bool) -> None:
        self.report = report
        self.broken = broken
        self.names: Collection[str] = ()
        self.uses: Mapping[Span, s.Let] = {}
        self.declared: Mapping[str, Collection[str]] = {}
        self.lost: Collection[str] = ()
        self.counts_steps = False
        # Blocks around the group that is being read.
        self.around: list[type[r.Declaration]] = []

    @abstractmethod
    def _build(
        self,
        items: Iterable[s.Item],
        model: type[r.Declaration],
        head: Span,
        what: str,
        **given: Any,
    ) -> Any:
        """The model with the attributes that `items` set, or None after reporting."""

    @abstractmethod
    def _nested(self, name: str, value: s.Value, model: type[r.Declaration]) -> Any:
        """The value of an attribute, built if it is a group of attributes."""

    def _error(self, code: str, message: str, span: Span | None, **rest: Any) -> None:
        self.report.add(code, message, span, **rest)

    def _missing(self, code: str, message: str, span: Span | None, **rest: Any) -> None:
        if not self.broken:
            self._error(code, message, span, **rest)

    def _invalid(self, problem: c.Invalid) -> None:
        if problem.name in self.lost:
            return
        meant = did_you_mean(problem.name, self.names) if problem.name else ""
        help = meant if meant.startswith("did") else problem.help
        if self.counts_steps and "steps" in problem.units:
            help = f"write `{problem.span.text} steps`"
        self._error(problem.code, problem.message, problem.span, label=problem.label, help=help)

    def _alike(
        self, item: s.Alike, model: type[r.Declaration], what: str, given: dict[str, Any]
    ) -> None:
        """Reads `drop similar > 90%` of preferences.

        Raises: Invalid: the share is not a percentage.
        """
        if (item.word.name, item.what.name, item.op) != ("drop", "similar", ">"):
            message, help = "this is not a filter", "write `drop similar > 90%`"
            self._error("E311", message, item.span, help=help)
        elif "similar" not in r.statements(model):
            self._error(
                "E311",
                f"{what} has no responses to compare",
                item.span,
                help="`drop similar` belongs in a reward or dpo stage",
            )
        elif "similar" in given:
            self._error("E309", "`drop similar` is given twice", item.span)
        else:
            given["similar"] = r.statements(model)["similar"].kind.read(item.value)

    def _filter(
        self, item: s.Filter, model: type[r.Declaration], what: str, filters: list[r.Filter]
    ) -> None:
        """Reads `keep … where …` and `drop where …` of a dataset.

        Raises: Invalid: the share, the bound or the file is not valid.
        """
        if self._is_no_filter(item, model, what):
            return
        only = item.word.name == "keep" and item.share is None
        keep = nk.Share().read(item.share) if item.share else Fraction(only and item.op == "in")
        places = {"": item.span, "what": item.what.span}
        if item.op == "in":
            file = k.text(item.value)
            filters.append(
                r.Filter(keep=keep, what=item.what.name, op="in", file=file, places=places)
            )
            return
        if len(item.what.words) != 2 or item.what.words[1].name != "loss":
            self._error(
                "E321",
                f"`{item.what.name}` is not a score of documents",
                item.what.span,
                help="write the loss under a score stage: `quality.loss > 4.0`",
            )
            return
        filters.append(
            r.Filter(
                keep=keep,
                what=item.what.words[0].name,
                places=places,
                op=_OPPOSITE[item.op] if only else item.op,
                value=c.number(item.value, [""], "").value,
            )
        )

    def _is_no_filter(self, item: s.Filter, model: type[r.Declaration], what: str) -> bool:
        """Whether a statement cannot be a filter of its block; reports why."""
        if "filters" not in r.statements(model):
            message, span = f"{what} has no documents to filter", item.span
            help = "`keep` and `drop` belong in a dataset"
        elif item.word.name not in ("keep", "drop"):
            message, span = f"`{item.word.name}` is not a filter", item.word.span
            help = "write `keep 10% where …` or `drop where …`"
        elif item.share and (item.word.name == "drop" or item.op == "in"):
            message, span = "a share is not allowed here", item.share.span
            help = "write `drop where …`, or `keep 10% where quality.loss > 4.0`"
        else:
            return False
        self._error("E311", message, span, help=help)
        return True

    def _gate(self, block: s.Block) -> r.Gate | None:
        if len(block.labels) != 1 or not (
            isinstance(block.labels[0], s.Word) and block.labels[0].name == "seq_len"
        ):
            self._error(
                "E312",
                "a gate can only be on `seq_len`",
                block.head,
                help="write `gate seq_len { … }`",
            )
            return None
        requirements: list[r.Requirement] = []
        values: dict[str, Any] = {}
        places = {"": block.head}
        before = self.report.failures
        for item in block.items:
            if isinstance(item, s.Require):
                self._requirement(item, requirements)
            elif isinstance(item, s.Otherwise):
                self._otherwise(item, values)
            elif isinstance(item, s.Assign) and item.path.name in r.attributes(r.Gate):
                name = item.path.name
                if name in places:
                    self._error("E309", f"`{name}` is given twice", item.path.span)
                places[name] = item.value.span
                values[name] = self._nested(name, item.value, r.Gate)
            else:
                self._error(
                    "E311",
                    "this does not belong in a gate",
                    item.span,
                    help="a gate has `require …`, `otherwise extend … at most … times` and "
                    "`needle = { … }`",
                )
        if not requirements and self.report.failures == before:
            self._missing(
                "E313",
                "this gate requires nothing",
                block.head,
                help="write `require needle >= 90%`",
            )
        if self.report.failures != before:
            return None
        return r.Gate(name="seq_len", places=places, requirements=requirements, **values)

    def _requirement(self, item: s.Require, requirements: list[r.Requirement]) -> None:
        measure = item.measure.name
        if measure not in ("needle", "loss"):
            self._error(
                "E314",
                f"`{measure}` cannot be measured in a gate",
                item.measure.span,
                help=did_you_mean(measure, ["needle", "loss"]),
            )
            return
        if (measure == "loss") != (item.argument is not None):
            self._error(
                "E314",
                f"`{measure}` is written "
                + ("`loss(short)` or `loss(DATASET)`" if measure == "loss" else "`needle`"),
                item.measure.span,
            )
            return
        if item.of and measure == "needle":
            self._error(
                "E314",
                "`needle` is compared with a percentage, not with the start",
                item.of.span,
                help="write `require needle >= 90%`",
            )
            return
        if item.of and item.of.name != "start":
            self._error(
                "E314",
                f"`of {item.of.name}` is not valid",
                item.of.span,
                help="write `of start`, the beginning of the stage",
            )
            return
        percent = measure == "needle" or item.of is not None
        try:
            value = c.number(item.value, ["%"] if percent else [""], None if percent else "")
        except c.Invalid as problem:
            self._invalid(problem)
            return
        if measure == "needle" and not item.of and value.value > 1:
            self._error(
                "E315", "this gate can never pass: a score is at most 100%", item.value.span
            )
        requirements.append(
            r.Requirement(
                name=measure,
                measure=measure,
                argument=item.argument and item.argument.name,
                op=item.op,  # type: ignore[arg-type]
                value=value.value,
                of_start=item.of is not None,
                places={"": item.span},
            )
        )

    def _otherwise(self, item: s.Otherwise, values: dict[str, Any]) -> None:
        if "extend" in values:
            self._error("E309", "`otherwise` is given twice", item.span)
            return
        try:
            values["extend"] = nk.Amount("tokens", "steps").read(item.length)
            values["attempts"] = nk.Whole("times").read(item.times)
        except c.Invalid as problem:
            self._invalid(problem)

    def _expectations(self, block: s.Block) -> list[r.Expectation]:
        found = []
        for item in block.items:
            if not isinstance(item, s.Assign) or not isinstance(item.value, s.Number | s.Path):
                self._error(
                    "E316",
                    "this is not a claim",
                    item.span,
                    help='write `parameters = 405B within 1% cite "Table 3"`',
                )
                continue
            figure = item.path.words[-1].name
            unit = CLAIMED.get(figure, "")
            try:
                value = c.number(item.value, [unit], unit).value
                tolerance = nk.Share().read(item.claim.within) if item.claim else Fraction(0)
                moment = MOMENT.read(item.at) if item.at else None
                reason = item.claim.reason if item.claim else None
                why = k.text(reason.text) if reason else None
                cite = k.text(item.origin.text) if item.origin else None
                if item.origin and item.origin.assumed:
                    self._error(
                        "E322",
                        "a claim needs its published source",
                        item.origin.span,
                        help='write `cite "…"`',
                    )
            except c.Invalid as problem:
                self._invalid(problem)
                continue
            found.append(
                r.Expectation(
                    name=item.path.name,
                    value=value,
                    tolerance=tolerance,
                    cite=cite,
                    moment=moment,
                    because=why if reason and not reason.contradicted else None,
                    contradicted=why if reason and reason.contradicted else None,
                    places={
                        "": item.path.span,
                        "value": item.value.span,
                        "moment": item.at.span if item.at else item.path.span,
                        "within": item.claim.within.span if item.claim else item.path.span,
                        "reason": reason.span if reason else item.path.span,
                    },
                )
            )
        return found
