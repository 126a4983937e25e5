"""Reads the attributes of blocks and groups: which one a statement sets, and to what value."""

from collections.abc import Iterable, Set
from typing import Any, cast

from .. import syntax as s
from ..record import Record, field
from ..source import Span
from . import kinds as k
from . import number_kinds as nk
from . import recipe as r
from .convert import Invalid
from .group_kinds import Block, Mark, Nested
from .lacking import instead_of
from .statements import Statements


class _Given(Record):
    """What the statements of one block have set so far."""

    values: dict[str, Any] = field(default_factory=dict)
    filters: list[r.Filter] = field(default_factory=list)
    places: dict[str, Span] = field(default_factory=dict)
    sources: dict[str, r.Cited] = field(default_factory=dict)
    opened: set[str] = field(default_factory=set)


class Attributes(Statements):
    """Reads blocks and the groups in them, and reports what is wrong."""

    def _build(
        self,
        items: Iterable[s.Item],
        model: type[r.Declaration],
        head: Span,
        what: str,
        **given: Any,
    ) -> Any:
        """The model with the attributes that `items` set, or None after reporting."""
        given_here = _Given(places={"": head})
        known = r.attributes(model)
        before = self.report.failures
        for item in items:
            try:
                self._statement(item, model, what, given_here, alike=given)
            except Invalid as problem:
                self._invalid(problem)
                self.broken = True
        found = self._read(given_here.values, model, head, what, given_here.opened)
        lacking = any(a.required and a.field not in found for a in known.values())
        if lacking or self.report.failures > before:
            return None
        if given_here.filters:
            found["filters"] = given_here.filters
        return model(**given, **found, places=given_here.places, sources=given_here.sources)

    def _statement(
        self,
        item: s.Item,
        model: type[r.Declaration],
        what: str,
        given: "_Given",
        alike: dict[str, Any],
    ) -> None:
        """Records what one statement sets.

        Args:
            alike: receives the limit of `drop similar`.

        Raises: Invalid: an attribute does not accept the value.
        """
        if isinstance(item, s.Filter):
            self._filter(item, model, what, given.filters)
        elif isinstance(item, s.Alike):
            self._alike(item, model, what, alike)
            if "similar" in alike:
                given.places.setdefault("similar", item.value.span)
        elif isinstance(item, s.Open):
            self._open(item, model, what)
            given.opened.add(item.attribute.name)
        elif attribute := self._attribute(item, model):
            name, value, span = attribute
            if self._is_new(name, span, model, what, given.places):
                written = item.value if isinstance(item, s.Assign) else value
                if self._one_meaning(name, written, model):
                    given.values[name] = value
                else:
                    given.opened.add(name)
                given.places[name] = written.span if isinstance(written, s.Value) else span
                if isinstance(item, s.Assign) and item.origin:
                    self._source(name, item.origin, given.sources)

    def _one_meaning(self, name: str, value: Any, model: type[r.Declaration]) -> bool:
        """Whether no `let` shares its name with a choice of the attribute or with a block that it
        may name; reports one that does."""
        let = self.uses.get(value.span) if isinstance(value, s.Value) else None
        kind = r.kind_of(model, name)
        if let is None or kind is None:
            return True
        chosen = let.word.name
        known = [f"a choice of `{name}`"] if chosen in kind.choices else []
        known += [f"a {block}" for block in kind.refers if chosen in self.declared.get(block, ())]
        if known:
            self._error(
                "E324",
                f"`{chosen}` is both {known[0]} and the name of a `let`",
                value.span,
                help=f"rename the `let`, for example to `{chosen}_value`",
            )
        return not known

    def _is_new(
        self,
        name: str,
        span: Span,
        model: type[r.Declaration],
        what: str,
        places: dict[str, Span],
    ) -> bool:
        """Whether a block has an attribute of this name that is not set yet; reports if not."""
        known = r.attributes(model)
        if name not in known:
            if self.broken and any(name in r.attributes(each) for each in self.around):
                return False  # it belongs to a block around a group that is not closed
            help = instead_of(name, known, model)
            self._error("E308", f"{what} has no attribute `{name}`", span, help=help)
        elif name in places:
            first = (places[name], "first given here")
            self._error("E309", f"`{name}` is given twice", span, notes=[first])
        else:
            return True
        return False

    def _read(
        self,
        values: dict[str, Any],
        model: type[r.Declaration],
        head: Span,
        what: str,
        opened: Set[str] = frozenset(),
    ) -> dict[str, Any]:
        """Fields by name, read from the values of attributes; reports what is wrong.

        Args:
            opened: attributes that are left open, already reported.
        """
        found: dict[str, Any] = {}
        for name, attribute in r.attributes(model).items():
            if name not in values:
                if attribute.required and name not in opened:
                    self._missing("E318", f"{what} needs `{name}`", head)
                continue
            value, kind = values[name], attribute.kind
            if isinstance(kind, Nested) or not isinstance(value, s.Value | s.Keep):
                found[attribute.field] = value  # already built
                continue
            try:
                found[attribute.field] = kind.read(cast(s.Value, value))
            except Invalid as problem:
                self._invalid(problem)
        return found

    def _nested(self, name: str, value: s.Value, model: type[r.Declaration]) -> Any:
        """The value of an attribute, built if it is a group of attributes."""
        attribute = r.attributes(model).get(name)
        if attribute is None or not isinstance(attribute.kind, Nested):
            return value
        self.around.append(model)
        try:
            return attribute.kind.build(name, value, self._build)
        except Invalid as problem:
            self._invalid(problem)
            return None
        finally:
            self.around.pop()

    def _open(self, item: s.Open, model: type[r.Declaration], what: str) -> None:
        """Reports an attribute that is left open."""
        name, known = item.attribute.name, r.attributes(model)
        if name not in known:
            self._error(
                "E308",
                f"{what} has no attribute `{name}`",
                item.attribute.span,
                help=instead_of(name, known, model),
            )
            return
        reason = item.reason.value.strip()
        self._error(
            "E335",
            f"`{name}` is not set yet" + (f": {reason}" if reason else ""),
            item.attribute.span,
            help=f"replace this line by `{name} = …`",
        )

    def _source(self, name: str, origin: s.Origin, sources: dict[str, r.Cited]) -> None:
        """Records where the value of an attribute comes from."""
        try:
            text = k.text(origin.text)
        except Invalid as problem:
            self._invalid(problem)
            return
        if not text.strip():
            self._error(
                "E322",
                "the source is empty",
                origin.span,
                help='write where the value is from: cite "Table 3", or why it was chosen: '
                'assumed "the report gives none"',
            )
            return
        sources[name] = r.Cited(assumed=origin.assumed, text=text, span=origin.span)

    def _attribute(self, item: s.Item, model: type[r.Declaration]) -> tuple[str, Any, Span] | None:
        """Name, value and place of the attribute that a statement sets."""
        if self._unlike(item, model):
            return None
        if isinstance(item, s.Assign):
            if len(item.path.words) > 1:
                self._error(
                    "E310",
                    f"`{item.path.name}` is not an attribute",
                    item.path.span,
                    help="an attribute has a single name",
                )
                return None
            misplaced = item.claim.within if item.claim else item.at
            if misplaced:
                self._error(
                    "E310",
                    "only claims have a tolerance or a point in training",
                    misplaced.span,
                    help="move this to the `expect` block",
                )
                return None
            name = item.path.name
            return name, self._nested(name, item.value, model), item.path.span
        if isinstance(item, s.Entry) and model.entries:
            return item.word.name, item.value, item.word.span
        if isinstance(item, s.Flag) and self._takes(model, item.word.name, Mark):
            return item.word.name, True, item.span
        if isinstance(item, s.Every) and self._takes(model, item.word.name, nk.Every):
            return item.word.name, item.every, item.word.span
        if isinstance(item, s.Keep) and self._takes(model, item.word.name, nk.Keep):
            return item.word.name, item, item.word.span
        if isinstance(item, s.Block) and self._takes(model, item.keyword.name, Block):
            return item.keyword.name, self._gate(item), item.head
        if isinstance(item, s.Block) and not item.labels:
            braces = s.Braces(item.items, item.span)
            return item.keyword.name, self._nested(item.keyword.name, braces, model), item.span
        name = self._without_equals(item)
        if name and name.name in r.attributes(model):
            value = item.span.source.text[name.span.end : item.span.end].strip()
            self._error(
                "E105",
                f"an `=` is missing after `{name.name}`",
                name.span,
                help=f"write `{name.name} = {value if len(value) < 50 else '…'}`",
            )
            return None
        known = ", ".join(sorted(r.attributes(model)))
        said = instead_of(name.name, (), model) if name else ""
        form = f"attributes are written `name = value`; possible names: {known}"
        self._error("E311", "this is not an attribute", item.span, help=said or form)
        return None

    def _unlike(self, item: s.Item, model: type[r.Declaration]) -> bool:
        """Whether a statement is written like an attribute, or the reverse; reports it."""
        periodic = any(isinstance(of.kind, nk.Every) for of in r.attributes(model).values())
        if (
            isinstance(item, s.Every)
            and periodic
            and not self._takes(model, item.word.name, nk.Every)
        ):
            from ..text.notation import statement  # only after an error

            name = item.word.name
            how = statement(name, f"every {item.every.span.text}")
            form = "only `checkpoint` is written this way: `checkpoint every 1000 steps`"
            help = f"write `{how}`" if how else instead_of(name, (), model) or form
            self._error("E323", f"`{name} every` is not a statement", item.span, help=help)
            return True
        if not isinstance(item, s.Assign) or len(item.path.words) > 1:
            return False
        name = item.path.name
        every = self._takes(model, name, nk.Every) and isinstance(item.value, s.Periodic)
        if not every and (name in r.attributes(model) or not _has_statement(name, model)):
            return False
        from ..text.notation import statement

        if how := statement(name, item.value.span.text):
            self._error(
                "E323", f"`{name}` is a statement and has no `=`", item.span, help=f"write `{how}`"
            )
        return bool(how)

    @staticmethod
    def _takes(model: type[r.Declaration], name: str, kind: type[k.Kind]) -> bool:
        """Whether a block has an attribute of this name and kind."""
        attribute = r.attributes(model).get(name)
        return attribute is not None and isinstance(attribute.kind, kind)

    @staticmethod
    def _without_equals(item: s.Item) -> s.Word | None:
        """The name in an attribute that may lack its `=`: `clip 2.0`, `optimizer adamw { … }`."""
        if isinstance(item, s.Entry) and isinstance(item.word, s.Word):
            return item.word
        return item.keyword if isinstance(item, s.Block) and item.labels else None


def _has_statement(name: str, model: type[r.Declaration]) -> bool:
    """Whether a block may have a statement that begins with this word."""
    if name in ("keep", "drop") and "filters" in r.statements(model):
        return True
    known = r.attributes(model) | r.statements(model)
    return name == "allow" or (name in known and bool(known[name].kind.statement))
