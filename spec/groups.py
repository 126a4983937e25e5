"""Values that are groups of attributes themselves: of `fields`, optimizers, averages and others."""

from collections.abc import Set
from typing import Any

from . import convert as c
from . import recipe as r
from . import syntax as s
from .diagnostics import did_you_mean
from .source import Span
from .statements import Statements, named

_FORMS = {
    "gate": "write `gate seq_len { … }`",
    "bytes": "write `bytes` without a value",
    "awaited": "write `awaited` without a value",
}
GROUPS: dict[tuple[type, str], type[r.Declaration]] = {
    (r.Tokenizer, "train"): r.TokenizerTraining,
    (r.Dataset, "fields"): r.Fields,
    (r.Model, "experts"): r.Experts,
    (r.Model, "latent"): r.Latent,
    (r.Evaluate, "needle"): r.Needle,
    (r.Best, "needle"): r.Needle,
}
"""The attributes that are groups of attributes themselves, `{ name = value, … }`."""


class Groups(Statements):
    """Reads the values of attributes, and reports what is wrong."""

    def _read(
        self,
        values: dict[str, Any],
        model: type[r.Declaration],
        head: Span,
        what: str,
        opened: Set[str] = frozenset(),
    ) -> dict[str, Any]:
        """Fields by name, read from the values of attributes; what is wrong is reported.

        Args:
            opened: attributes that are left open, and reported already.
        """
        found: dict[str, Any] = {}
        for name, attribute in r.attributes(model).items():
            if name not in values:
                if attribute.required and name not in opened:
                    self._missing("E318", f"{what} needs `{name}`", head)
                continue
            value = values[name]
            if attribute.read is None:
                if isinstance(value, s.Value):
                    self._error(
                        "E201", f"`{name}` is not written like this", value.span, help=_FORMS[name]
                    )
                found[attribute.field] = value
                continue
            try:
                found[attribute.field] = attribute.read(value)
            except c.Invalid as problem:
                self._invalid(problem)
        return found

    def _nested(self, name: str, value: Any, model: type[r.Declaration]) -> Any:
        """The values that are groups of attributes themselves."""
        group = GROUPS.get((model, name))
        if group:
            if not isinstance(value, s.Braces):
                self._error(
                    "E201",
                    f"`{name}` is a group of attributes",
                    value.span,
                    help=f"write `{name} = {{ … }}`",
                )
                return None
            return self._build(value.items, group, value.span, f"`{name}`", name=name)
        if issubclass(model, r.Training) and name == "optimizer":
            return self._optimizer(value)
        if issubclass(model, r.Training) and name == "average":
            return self._polyak(value)
        if name == "rope_scaling" and name in r.attributes(model):
            return self._rope_scaling(value)
        return value

    def _rope_scaling(self, value: s.Value) -> r.RopeScaling | None:
        if isinstance(value, s.Tagged) and value.tag.name in ("yarn", "llama"):
            kind = value.tag.name
            items = value.braces.items
            return self._build(items, r.RopeScaling, value.span, kind, name=kind, kind=kind)
        if isinstance(value, s.Path) and value.name in ("none", "llama"):
            return r.RopeScaling(name=value.name, kind=value.name, places={"": value.span})
        self._error(
            "E202",
            "this is not a way of stretching positions",
            value.span,
            help="write `none`, `llama`, `llama { factor = 32 }`, or "
            "`yarn { factor = 8, original = 8Ki }`",
        )
        return None

    def _optimizer(self, value: s.Value) -> Any:
        if isinstance(value, s.Path) and value.name == "last":
            return "last"
        if isinstance(value, s.Path):
            value = s.Tagged(value.words[0], s.Braces((), value.span), value.span)
        if not isinstance(value, s.Tagged) or value.tag.name not in ("adamw", "adam"):
            said = did_you_mean(named(value), (), of="optimizer")
            form = "write `adamw { betas = [0.9, 0.95], weight_decay = 0.1 }` or `last`"
            self._error("E202", "this is not an optimizer", value.span, help=said or form)
            return None
        kind = value.tag.name
        return self._build(value.braces.items, r.Optimizer, value.span, kind, name=kind, kind=kind)

    def _polyak(self, value: s.Value) -> Any:
        if not isinstance(value, s.Periodic) or value.what.name != "polyak":
            said = did_you_mean(named(value), (), of="average")
            form = "write `polyak every 1 step`, or `polyak every 10 steps over 50%`"
            self._error("E201", "this is not a way of averaging", value.span, help=said or form)
            return None
        places = {"": value.span, "every": value.every.span}
        if value.over:
            places["over"] = value.over.span
        before = self.report.failures
        values: dict[str, Any] = {"every": value.every}
        if value.over:
            values["over"] = value.over
        found = self._read(values, r.Polyak, value.span, "polyak")
        if self.report.failures > before:
            return None
        return r.Polyak(name="polyak", places=places, **found)
