"""Binds syntax trees to a recipe: each block becomes its model, and all errors are reported."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .. import syntax as s
from ..findings.allows import taken
from ..findings.diagnostics import Report, did_you_mean
from ..record import replace
from ..source import Span
from ..text.keywords import BLOCKS, advice, why_no_name
from . import number_kinds as nk
from . import recipe as r
from .attributes import Attributes
from .changes import changes
from .convert import Invalid
from .kept import Kept
from .lets import Lets

_PLURAL = {
    "model": "models",
    "tokenizer": "tokenizers",
    "dataset": "datasets",
    "cluster": "clusters",
    "dialog": "dialogs",
    "verifier": "verifiers",
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
    kept: Kept | None = None,
) -> r.Recipe | None:
    """The recipe that the statements of all files declare, or None after an error.

    Args:
        broken: statements that could not be parsed were left out, so nothing is reported as
            missing.
        where: the beginning of the main file, where findings about the whole spec are reported.
        variant: the variant whose changes were made to the statements; "" for none.
        sets: the changes on top of it, as on the command line: `pretrain.lr=1e-3`.
        left_out: the keywords of blocks that errors removed.
        kept: what blocks declared in earlier readings.
    """
    items, allowances = taken(items, report)
    unchanged = not (variant or sets or left_out)
    recipe = _Binder(report, broken, where, kept or Kept(), unchanged=unchanged).recipe(items)
    if recipe is None:
        return None
    others = [block for name, block in recipe.variants.items() if name != variant]
    allowances = [each for each in allowances if each.within not in others]
    more = {"variant": variant, "sets": list(sets), "left_out": left_out}
    return replace(recipe, allowances=allowances, **more)


class _Binder(Attributes):
    def __init__(
        self,
        report: Report,
        broken: bool,
        where: Span | None,
        kept: Kept,
        *,
        unchanged: bool = True,
    ) -> None:
        super().__init__(report, broken)
        self.kept = kept
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
        for block in self._blocks(items):
            keyword = block.keyword.name
            if keyword == "expect":
                expectations += self._expectations(block)
                continue
            name = self._name(block)
            if name is None:
                continue
            if keyword == "variant":
                self._variant(block, name, variants)
            elif keyword == "recipe":
                headers.append((block, self._declaration(block, r.Header, name)))
            elif self._is_first(block, name, heads):
                found[_PLURAL[keyword]][name] = self._named(block, name)
        hidden = not headers and any(map(_is_nameless_header, items))
        header = None if hidden else self._header(headers)
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

    def _blocks(self, items: list[s.Item]) -> Iterator[s.Block]:
        """The blocks with a known keyword; reports whatever else is outside blocks."""
        for item in items:
            if isinstance(item, s.Let | s.Use):
                continue
            if not isinstance(item, s.Block):
                self._error(
                    "E301", "only blocks, `let` and `use` are allowed outside blocks", item.span
                )
            elif item.keyword.name not in BLOCKS:
                word = item.keyword
                help = did_you_mean(word.name, BLOCKS, of="block")
                self._error("E302", f"`{word.name}` is not a block", word.span, help=help)
            else:
                yield item

    def _is_first(self, block: s.Block, name: str, heads: dict[tuple[str, str], Span]) -> bool:
        """Whether this is the first of its kind with the name; reports if not."""
        keyword, span = block.keyword.name, block.labels[0].span
        first = heads.setdefault((_PLURAL[keyword], name), span)
        if first is span:
            return True
        self._error(
            "E303",
            f"the {'name' if keyword == 'rounds' else keyword} `{name}` is declared twice",
            span,
            help="rename one of them",
            notes=[(first, "first declared here")],
        )
        return False

    def _named(self, block: s.Block, name: str) -> Any:
        """The declaration of a named block, or None after reporting."""
        keyword = block.keyword.name
        if keyword == "rounds":
            return self._rounds(block, name)
        model = self._kind(block, name) if keyword == "stage" else r.BLOCKS[keyword]
        return self._declaration(block, model, name) if model else None

    def _with_lets(self, items: list[s.Item]) -> list[s.Item]:
        """The statements with every `let`'s name replaced by its value."""
        given = [item for item in items if isinstance(item, s.Let)]
        if self.broken and self.where:
            written = _LET.findall(self.where.source.text)
            self.lost = {*written} - {item.word.name for item in given}
        if not given:
            return items
        self.lets = Lets(given, self.report)
        self.uses = self.lets.uses
        self.declared = _declared(items)
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
        """Notes each `let` of the main file that nothing uses."""
        main = self.where.source if self.where else None
        for name, let in self.lets.of.items():
            if name not in self.lets.used and let.span.source is main and self.unchanged:
                self._error(
                    "N656",
                    f"nothing uses `let {name}`",
                    let.word.span,
                    help=f"write `{name}` in place of the value, or remove the `let`",
                )

    def _replaced(self, item: s.Item) -> s.Item | None:
        """A statement with every `let`'s name replaced by its value, or None after reporting."""
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
                "E305", "a block has only one name", block.labels[1].span, help=f"write `{form}`"
            )
        if block.kind and block.keyword.name != "stage":
            self._error("E305", "only stages have a kind", block.kind.span, help=f"write `{form}`")
        self._plain_name(label, block.keyword.name)
        return label.name

    def _plain_name(self, word: s.Word, kind: str) -> None:
        why = why_no_name(word.name)
        if why:
            self._error("E306", why, word.span, help=advice(word.name, kind))

    def _kind(self, block: s.Block, name: str) -> type[r.Stage] | None:
        if block.kind is None:
            self._error(
                "E305",
                "this stage has no kind",
                block.head,
                help=f"write `stage {name}: train {{`",
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
                "rounds need a name and a number",
                block.head,
                help=f"write `rounds {name} 6 {{ … }}`",
            )
            return None
        try:
            count = nk.Whole(most=MOST_ROUNDS).read(number)
        except Invalid as problem:
            self._invalid(problem)
            return None
        for item in block.items:
            if not isinstance(item, s.Block) or item.keyword.name != "stage":
                self._error(
                    "E320",
                    "rounds can contain only stages",
                    item.span,
                    help="declare everything else outside the rounds",
                )
                continue
            stage = self._name(item)
            model = self._kind(item, stage) if stage else None
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
        """What a block declares, or None after reporting."""

        def read() -> Any:
            given = {item.path.name for item in block.items if isinstance(item, s.Assign)}
            self.counts_steps = "tokens" not in given and bool(given & {"steps", "epochs"})
            what = f"a {block.keyword.name}"
            found = self._build(block.items, model, block.head, what, name=name)
            self.counts_steps = False
            return found

        return self.kept.once((id(block), self.broken), block, None, read, self.report)


def _declared(items: Iterable[s.Item]) -> dict[str, set[str]]:
    """The names of blocks by keyword, including stages in rounds."""
    found: dict[str, set[str]] = {}
    for block in items:
        if isinstance(block, s.Block):
            names = (label.name for label in block.labels[:1] if isinstance(label, s.Word))
            found.setdefault(block.keyword.name, set()).update(names)
            if block.keyword.name == "rounds":
                found.setdefault("stage", set()).update(_declared(block.items).get("stage", ()))
    return found


def _is_nameless_header(item: s.Item) -> bool:
    """Whether a block looks like the header but has no name."""
    if not isinstance(item, s.Block):
        return False
    if item.keyword.name == "recipe":
        return not item.labels or not isinstance(item.labels[0], s.Word)
    return item.keyword.name not in BLOCKS and not item.labels
