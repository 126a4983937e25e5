"""Syntax trees to a recipe: each block becomes its model, and all that is wrong is reported."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from .. import syntax as s
from ..findings.allows import taken
from ..findings.diagnostics import Report, did_you_mean
from ..record import replace
from ..source import Span
from ..text.keywords import BLOCKS, advice, why_no_name
from . import kinds as k
from . import recipe as r
from .changes import changes
from .convert import Invalid
from .group_kinds import Block, Mark
from .groups import Groups
from .lets import Lets

_PLURAL = {
    "model": "models",
    "tokenizer": "tokenizers",
    "dataset": "datasets",
    "cluster": "clusters",
    "dialog": "dialogs",
    "stage": "stages",
    "rounds": "stages",
}
MOST_ROUNDS = 1000
_LET = re.compile(r"^[ \t]*let\W+(\w+)", re.MULTILINE)


def bind(
    items: Iterable[s.Item],
    report: Report,
    *,
    broken: bool = False,
    where: Span | None = None,
    variant: str = "",
    sets: Sequence[str] = (),
    left_out: frozenset[str] = frozenset(),
) -> r.Recipe | None:
    """The recipe that the statements of all files declare, or None where something is wrong.

    Args:
        broken: statements were left out because they could not be parsed; then nothing is
            reported as missing.
        where: the beginning of the main file, where what the whole spec lacks is reported.
        variant: the variant whose changes were made to the statements; "" for none.
        sets: the changes on top of it, as on the command line: `pretrain.lr=1e-3`.
        left_out: the keywords of blocks that are missing here because of errors.
    """
    kept, allowances = taken(items, report)
    unchanged = not (variant or sets or left_out)
    recipe = _Binder(report, broken, where, unchanged=unchanged).recipe(kept)
    if recipe is None:
        return None
    others = [block for name, block in recipe.variants.items() if name != variant]
    allowances = [each for each in allowances if each.within not in others]
    more = {"variant": variant, "sets": list(sets), "left_out": left_out}
    return replace(recipe, allowances=allowances, **more)


class _Binder(Groups):
    def __init__(
        self, report: Report, broken: bool, where: Span | None, *, unchanged: bool = True
    ) -> None:
        super().__init__(report, broken)
        self.unchanged = unchanged
        self.where = where
        self.lets = Lets((), report)

    def recipe(self, items: list[s.Item]) -> r.Recipe | None:
        items = self._with_lets(items)
        found: dict[str, Any] = {plural: {} for plural in _PLURAL.values()}
        heads: dict[tuple[str, str], Span] = {}
        headers: list[tuple[s.Block, Any]] = []
        expectations: list[r.Expectation] = []
        variants: dict[str, Span] = {}
        headless = False  # a block that may be meant to be the header has no name
        for item in items:
            if isinstance(item, s.Let | s.Use):
                continue
            if not isinstance(item, s.Block):
                self._error("E301", "only blocks, `let` and `use` may be outside blocks", item.span)
                continue
            keyword = item.keyword.name
            if keyword not in BLOCKS:
                headless = headless or not item.labels
                self._error(
                    "E302",
                    f"`{keyword}` is not a block",
                    item.keyword.span,
                    help=did_you_mean(keyword, BLOCKS, of="block"),
                )
                continue
            if keyword == "expect":
                expectations += self._expectations(item)
                continue
            name = self._name(item)
            if name is None:
                headless = headless or keyword == "recipe"
                continue
            if keyword == "variant":
                self._variant(item, name, variants)
                continue
            if keyword == "recipe":
                headers.append((item, self._declaration(item, r.Header, name)))
                continue
            group = _PLURAL[keyword]
            if (group, name) in heads:
                self._error(
                    "E303",
                    f"the {'name' if keyword == 'rounds' else keyword} `{name}` is declared twice",
                    item.labels[0].span,
                    help="rename one of them",
                    notes=[(heads[group, name], "first declared here")],
                )
                continue
            heads[group, name] = item.labels[0].span
            if keyword == "rounds":
                found[group][name] = self._rounds(item, name)
                continue
            model = self._kind(item) if keyword == "stage" else r.BLOCKS[keyword]
            found[group][name] = self._declaration(item, model, name) if model else None
        header = None if headless and not headers else self._header(headers)
        broken = any(value is None for group in found.values() for value in group.values())
        if self.report.failures or broken or header is None:
            return None
        self._unused()
        lets = {place: (let.word.name, let.value.span) for place, let in self.lets.uses.items()}
        return r.Recipe(
            name=header.name,
            header=header,
            expectations=expectations,
            **found,
            lets=lets,
            variants=variants,
            main=self.where.source if self.where else None,
        )

    def _with_lets(self, items: list[s.Item]) -> list[s.Item]:
        """The statements with values in place of their names."""
        given = [item for item in items if isinstance(item, s.Let)]
        if self.broken and self.where:
            written = _LET.findall(self.where.source.text)
            self.lost = {*written} - {item.word.name for item in given}
        if not given:
            return items
        self.lets = Lets(given, self.report)
        self.names = self.lets.of
        for item in given:
            first = self.lets.of[item.word.name]
            if first is not item:
                self._error(
                    "E303",
                    f"`{item.word.name}` is given two values",
                    item.word.span,
                    notes=[(first.word.span, "first given here")],
                )
            self._plain_name(item.word, "let")
        found = []
        for item in items:
            item = self._replaced(item) if isinstance(item, s.Block) else item
            if item is not None:
                found.append(item)
        return found

    def _unused(self) -> None:
        """Notes the lets of the main file that stand nowhere."""
        main = self.where.source if self.where else None
        for name, let in self.lets.of.items():
            if name not in self.lets.used and let.span.source is main and self.unchanged:
                self._error(
                    "N656",
                    f"nothing uses `let {name}`",
                    let.word.span,
                    help=f"write `{name}` where the value stands, or leave the `let` out",
                )

    def _replaced(self, item: s.Item) -> s.Item | None:
        """A statement with values in place of their names, None after reporting."""
        try:
            if isinstance(item, s.Block):
                kept = [each for each in map(self._replaced, item.items) if each is not None]
                return self.lets.head(item)._replace(items=tuple(kept))
            return self.lets.replaced(item)
        except Invalid as problem:
            self._invalid(problem)
            self.broken = True
            return None

    def _variant(self, block: s.Block, name: str, variants: dict[str, Span]) -> None:
        if name in variants:
            self._error(
                "E303",
                f"the variant `{name}` is declared twice",
                block.labels[0].span,
                help="rename one of them",
                notes=[(variants[name], "first declared here")],
            )
        variants.setdefault(name, block.span)
        if not changes(block, self.report) and not block.items:
            self._missing(
                "E341",
                "this variant changes nothing",
                block.head,
                help="write a path and a value: `pretrain.lr = 1e-3`",
            )

    def _header(self, headers: list[tuple[s.Block, Any]]) -> r.Header | None:
        if not headers:
            self._missing(
                "E304",
                "a spec needs exactly one `recipe` block",
                self.where,
                help='begin with: recipe my_recipe { title = "…" }',
            )
            return None
        for block, _ in headers[1:]:
            self._error(
                "E304",
                "a spec has exactly one `recipe` block",
                block.head,
                notes=[(headers[0][0].head, "the first one is here")],
            )
        return headers[0][1]

    def _name(self, block: s.Block) -> str | None:
        form = BLOCKS[block.keyword.name]
        label = block.labels[0] if block.labels else None
        if not isinstance(label, s.Word):
            self._error(
                "E305",
                f"this `{block.keyword.name}` block has no name",
                block.head,
                help=f"write `{form}`",
            )
            return None
        kindless = block.keyword.name == "stage" and not block.kind
        if len(block.labels) > 1 and not kindless and block.keyword.name != "rounds":
            self._error(
                "E305", "a block has one name", block.labels[1].span, help=f"write `{form}`"
            )
        if block.kind and block.keyword.name != "stage":
            self._error("E305", "only stages have a kind", block.kind.span, help=f"write `{form}`")
        self._plain_name(label, block.keyword.name)
        return label.name

    def _plain_name(self, word: s.Word, kind: str) -> None:
        why = why_no_name(word.name)
        if why:
            self._error("E306", why, word.span, help=advice(word.name, kind))

    def _kind(self, block: s.Block) -> type[r.Stage] | None:
        if block.kind is None:
            self._error(
                "E305",
                "this stage has no kind",
                block.head,
                help=f"write `stage {block.labels[0].name}: train {{`",  # type: ignore[union-attr]
            )
            return None
        if block.kind.name not in r.STAGES:
            self._error(
                "E307",
                f"`{block.kind.name}` is not a kind of stage",
                block.kind.span,
                help=did_you_mean(block.kind.name, r.STAGES, of="kind"),
            )
            return None
        return r.STAGES[block.kind.name]

    def _rounds(self, block: s.Block, name: str) -> r.Rounds | None:
        """The stages of a `rounds` block."""
        stages: dict[str, Any] = {}
        number = block.labels[1] if len(block.labels) > 1 else None
        if not isinstance(number, s.Number) or len(block.labels) > 2:
            self._error(
                "E319",
                "rounds have a name and a number",
                block.head,
                help=f"write `rounds {name} 6 {{ … }}`",
            )
            return None
        try:
            count = k.Whole(most=MOST_ROUNDS).read(number)
        except Invalid as problem:
            self._invalid(problem)
            return None
        for item in block.items:
            if not isinstance(item, s.Block) or item.keyword.name != "stage":
                self._error(
                    "E320",
                    "rounds hold stages only",
                    item.span,
                    help="declare everything else outside",
                )
                continue
            stage = self._name(item)
            model = self._kind(item) if stage else None
            if stage is None or model is None:
                continue
            if stage in stages:
                self._error(
                    "E303",
                    f"the stage `{stage}` is declared twice",
                    item.labels[0].span,
                    help="rename one of them",
                )
                continue
            stages[stage] = self._declaration(item, model, stage)
        if not block.items:
            self._missing("E320", "these rounds have no stages", block.head)
        if any(stage is None for stage in stages.values()):
            return None
        return r.Rounds(name=name, count=count, stages=stages, places={"": block.head})

    def _declaration(self, block: s.Block, model: type[r.Declaration], name: str) -> Any:
        given = {item.path.name for item in block.items if isinstance(item, s.Assign)}
        self.counts_steps = "tokens" not in given and bool(given & {"steps", "epochs"})
        found = self._build(block.items, model, block.head, f"a {block.keyword.name}", name=name)
        self.counts_steps = False
        return found

    def _build(
        self,
        items: Iterable[s.Item],
        model: type[r.Declaration],
        head: Span,
        what: str,
        **given: Any,
    ) -> Any:
        """The model with the attributes that `items` give, or None after reporting."""
        values: dict[str, Any] = {}
        filters: list[r.Filter] = []
        places: dict[str, Span] = {"": head}
        sources: dict[str, r.Cited] = {}
        known = r.attributes(model)
        opened: set[str] = set()
        before = self.report.failures
        for item in items:
            try:
                if isinstance(item, s.Filter):
                    self._filter(item, model, what, filters)
                    continue
                if isinstance(item, s.Alike):
                    self._alike(item, model, what, given)
                    if "similar" in given:
                        places.setdefault("similar", item.value.span)
                    continue
                if isinstance(item, s.Open):
                    self._open(item, model, what)
                    opened.add(item.attribute.name)
                    continue
                attribute = self._attribute(item, model)
            except Invalid as problem:
                self._invalid(problem)
                self.broken = True
                continue
            if attribute is None:
                continue
            name, value, span = attribute
            if name not in known:
                self._error(
                    "E308",
                    f"{what} has no attribute `{name}`",
                    span,
                    help=did_you_mean(name, known, of=model),
                )
            elif name in places:
                self._error(
                    "E309",
                    f"`{name}` is given twice",
                    span,
                    notes=[(places[name], "first given here")],
                )
            else:
                values[name] = value
                written = item.value if isinstance(item, s.Assign) else value
                places[name] = written.span if isinstance(written, s.Value) else span
                if isinstance(item, s.Assign) and item.origin:
                    self._source(name, item.origin, sources)
        found = self._read(values, model, head, what, opened)
        lacking = any(a.required and a.field not in found for a in known.values())
        if lacking or self.report.failures > before:
            return None
        if filters:
            found["filters"] = filters
        return model(**given, **found, places=places, sources=sources)

    def _open(self, item: s.Open, model: type[r.Declaration], what: str) -> None:
        """Reports an attribute that is yet to be given."""
        name, known = item.attribute.name, r.attributes(model)
        if name not in known:
            self._error(
                "E308",
                f"{what} has no attribute `{name}`",
                item.attribute.span,
                help=did_you_mean(name, known, of=model),
            )
            return
        reason = item.reason.value.strip()
        self._error(
            "E335",
            f"`{name}` is open" + (f": {reason}" if reason else ""),
            item.attribute.span,
            help=f"write `{name} = …` in place of this line",
        )

    def _source(self, name: str, origin: s.Origin, sources: dict[str, r.Cited]) -> None:
        """Where the value of an attribute is from."""
        try:
            text = k.text(origin.text)
        except Invalid as problem:
            self._invalid(problem)
            return
        if not text.strip():
            self._error(
                "E322",
                "this says nothing of where the value is from",
                origin.span,
                help='write where: cite "Table 3", or why: assumed "the report names none"',
            )
            return
        sources[name] = r.Cited(assumed=origin.assumed, text=text, span=origin.span)

    def _attribute(self, item: s.Item, model: type[r.Declaration]) -> tuple[str, Any, Span] | None:
        """Name, value and place of the attribute that a statement gives."""
        if self._unlike(item, model):
            return None
        if isinstance(item, s.Assign):
            if len(item.path.words) > 1:
                self._error(
                    "E310",
                    f"`{item.path.name}` is not an attribute",
                    item.path.span,
                    help="attributes have one name",
                )
                return None
            misplaced = item.claim.within if item.claim else item.at
            if misplaced:
                self._error(
                    "E310",
                    "only expectations have a tolerance, or a place in a stage",
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
        if isinstance(item, s.Every) and self._takes(model, item.word.name, k.Every):
            return item.word.name, item.every, item.word.span
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
        said = did_you_mean(name.name, (), of=model) if name else ""
        form = f"attributes are written `name = value`; there is {known}"
        self._error("E311", "this is not an attribute", item.span, help=said or form)
        return None

    def _unlike(self, item: s.Item, model: type[r.Declaration]) -> bool:
        """Whether a statement stands there as an attribute, or an attribute as one; reports it."""
        periodic = any(isinstance(of.kind, k.Every) for of in r.attributes(model).values())
        if (
            isinstance(item, s.Every)
            and periodic
            and not self._takes(model, item.word.name, k.Every)
        ):
            from ..text.notation import statement  # only where something is wrong

            name = item.word.name
            how = statement(name, f"every {item.every.span.text}")
            form = "only checkpoints are written so: `checkpoint every 1000 steps`"
            help = f"write `{how}`" if how else did_you_mean(name, (), of=model) or form
            self._error("E323", f"`{name} every` is not a statement", item.span, help=help)
            return True
        if not isinstance(item, s.Assign) or len(item.path.words) > 1:
            return False
        name = item.path.name
        every = self._takes(model, name, k.Every) and isinstance(item.value, s.Periodic)
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
        """What may be an attribute whose `=` is missing: `clip 2.0`, `optimizer adamw { … }`."""
        if isinstance(item, s.Entry) and isinstance(item.word, s.Word):
            return item.word
        return item.keyword if isinstance(item, s.Block) and item.labels else None


def _has_statement(name: str, model: type[r.Declaration]) -> bool:
    """Whether a block may have a statement that begins with a word."""
    if name in ("keep", "drop"):
        return "filters" in r.statements(model)
    known = r.attributes(model) | r.statements(model)
    return name == "allow" or (name in known and bool(known[name].kind.statement))
