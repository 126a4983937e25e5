"""The names declared in a spec, and where they are used."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..spec import reference
from ..spec import syntax as s
from ..spec.schema import recipe as r
from ..spec.source import Source, Span

STAGES = ("stage",)
DECLARING = (
    "recipe",
    "model",
    "tokenizer",
    "dataset",
    "dialog",
    "verifier",
    "cluster",
    "variant",
)


CHANGEABLE = ("stage", "model", "dataset", "tokenizer", "dialog", "verifier", "cluster")
"""Blocks that variants change, in the order in which a name without a keyword is looked up."""


class Symbol(NamedTuple):
    """What a name refers to.

    Attributes:
        kind: a block's keyword or `let`; rounds have the kind `stage`, because they share names
            with stages.
        scope: for a stage in rounds, the name of the rounds; else "".
    """

    kind: str
    scope: str
    name: str


class Occurrence(NamedTuple):
    """A place where a name is written: its declaration, or a reference to it."""

    symbol: Symbol
    span: Span
    declares: bool


class Declaration(NamedTuple):
    """A statement that declares a name: a block, or a `let`."""

    symbol: Symbol
    word: s.Word
    item: s.Block | s.Let

    @property
    def what(self) -> str:
        """The kind of thing, in words: `stage`, `rounds`, `let`."""
        return self.item.keyword.name if isinstance(self.item, s.Block) else "let"


def referred(model: type[r.Declaration] | None, attribute: str) -> tuple[str, ...]:
    """The kinds of things that an attribute of a block names; empty if it takes no names."""
    kind = r.kind_of(model, attribute)
    return kind.refers if kind else ()


def group_model(model: type[r.Declaration] | None, attribute: str) -> type[r.Declaration] | None:
    """The model of the group that is the value of an attribute."""
    kind = r.kind_of(model, attribute)
    return kind.model if kind else None


def changed(words: Sequence[s.Word]) -> tuple[Sequence[s.Word], tuple[str, ...]]:
    """From the path of a change in a variant: the words that name a block, and kinds of blocks.

    Attributes follow; the keyword may come first, as in `model.tiny.dim`.
    """
    if len(words) > 2 and words[0].name in (*CHANGEABLE, "rounds"):
        kind = words[0].name
        return words[1:-1], ("stage" if kind == "rounds" else kind,)
    return words[:-1], CHANGEABLE


class Names:
    """Declarations and every reference to one, across all files of a spec."""

    def __init__(self, trees: Iterable[Iterable[s.Item]]) -> None:
        self.declarations: dict[Symbol, Declaration] = {}
        self.occurrences: list[Occurrence] = []
        trees = [list(items) for items in trees]
        for items in trees:
            for item in items:
                self._declare(item, "")
        rounds = {
            symbol.name
            for symbol, of in self.declarations.items()
            if isinstance(of.item, s.Block) and of.item.keyword.name == "rounds"
        }
        self._of_variants = reference.Names({of.symbol.name for of in self.kind("variant")}, rounds)
        self._of_recipe = reference.Names((), rounds)
        for items in trees:
            for item in items:
                if isinstance(item, s.Let):
                    self._value(item.value, (), "")
                elif isinstance(item, s.Block):
                    self._block(item, "")

    def at(self, source: Source | None, offset: int) -> Occurrence | None:
        """The occurrence at a place in a source, its end included."""
        for of in self.occurrences:
            if of.span.start <= offset <= of.span.end and of.span.source is source:
                return of
        return None

    def of(self, symbol: Symbol) -> list[Occurrence]:
        """Every occurrence of a name, in the order of the files."""
        return [of for of in self.occurrences if of.symbol == symbol]

    def kind(self, kind: str, scope: str = "") -> list[Declaration]:
        """All declarations of a kind."""
        found = self.declarations.items()
        return [of for symbol, of in found if (symbol.kind, symbol.scope) == (kind, scope)]

    def _declare(self, item: s.Item, scope: str) -> None:
        if isinstance(item, s.Let):
            self._declared("let", "", item.word, item)
        if not isinstance(item, s.Block) or not item.labels:
            return
        label, keyword = item.labels[0], item.keyword.name
        if not isinstance(label, s.Word):
            return
        if keyword in ("stage", "rounds"):
            self._declared("stage", scope, label, item)
            for inner in item.items if keyword == "rounds" and not scope else ():
                if isinstance(inner, s.Block) and inner.keyword.name == "stage":
                    self._declare(inner, label.name)
        elif keyword in DECLARING:
            self._declared(keyword, "", label, item)

    def _declared(self, kind: str, scope: str, word: s.Word, item: s.Block | s.Let) -> None:
        symbol = Symbol(kind, scope, word.name)
        self.declarations.setdefault(symbol, Declaration(symbol, word, item))
        self.occurrences.append(Occurrence(symbol, word.span, True))

    def _block(self, block: s.Block, scope: str) -> None:
        keyword = block.keyword.name
        if keyword == "rounds":
            label = block.labels[0] if block.labels else None
            inside = label.name if isinstance(label, s.Word) else ""
            for inner in block.items:
                if isinstance(inner, s.Block):
                    self._block(inner, inside)
        elif keyword == "expect":
            for item in block.items:
                if isinstance(item, s.Assign):
                    self._words(item.path.words[:-1], STAGES, "")
                    for part in (item.at, item.value, item.claim, item.origin):
                        self._value(part, (), "")
        elif keyword == "variant":
            self._variant(block)
        else:
            model = r.block_model(keyword, block.kind.name if block.kind else None)
            self._items(block.items, model, scope)

    def _variant(self, block: s.Block) -> None:
        for item in block.items:
            if not isinstance(item, s.Assign):
                continue
            words = item.path.words
            if len(words) == 1 and Symbol("let", "", words[0].name) in self.declarations:
                self._words(words, (), "")
                self._value(item.value, (), "")
                continue
            self._words(*changed(words), "")
            _, model, rest = self.change(words)
            kind = r.kind_of(model, rest[0].name) if rest else None
            if len(rest) > 1 and kind and kind.model:
                kind = r.kind_of(kind.model, rest[1].name)
            elif len(rest) > 1 and kind and kind.refers:  # a share of a mixture
                self._words(rest[1:], kind.refers, "")
                kind = None
            self._value(item.value, kind.refers if kind else (), "")

    def change(
        self, words: Sequence[s.Word]
    ) -> tuple[Symbol | None, type[r.Declaration] | None, Sequence[s.Word]]:
        """From the path of a change: the block that it names, that block's model, and the rest: an
        attribute, and a part of it."""
        if words[0].name == "recipe":
            return None, r.Header, words[1:]
        path, kinds = changed(words)
        symbol = self.resolve(path, kinds, "")
        if symbol is None:
            return None, None, ()
        keyword = len(words) - len(path) - 1
        return symbol, self._model(symbol), words[keyword + 1 + bool(symbol.scope) :]

    def _model(self, symbol: Symbol) -> type[r.Declaration] | None:
        item = self.declarations[symbol].item
        if isinstance(item, s.Let):
            return None
        return r.block_model(item.keyword.name, item.kind.name if item.kind else None)

    def _items(
        self, items: Iterable[s.Item], model: type[r.Declaration] | None, scope: str
    ) -> None:
        for item in items:
            match item:
                case s.Assign():
                    name = item.path.name
                    group = group_model(model, name)
                    if group and isinstance(item.value, s.Braces):
                        self._items(item.value.items, group, scope)
                    elif group and isinstance(item.value, s.Tagged | s.List):
                        each = item.value.items if isinstance(item.value, s.List) else [item.value]
                        for one in each:
                            inner = one.braces.items if isinstance(one, s.Tagged) else ()
                            self._items(inner, group, scope)
                    else:
                        where = self._drawing(item.value) if name == "candidates" else scope
                        self._value(item.value, referred(model, name), where)
                    self._value(item.claim, (), scope)
                case s.Entry(word=s.Word(name=name)):
                    self._value(item.value, referred(model, name), scope)
                case s.Block():
                    self._items(item.items, group_model(model, item.keyword.name), scope)
                case s.Require():
                    if item.argument and item.argument.name != "short":
                        self._words([item.argument], r.DATA, scope)
                    self._value(item.value, (), scope)
                case s.Filter():
                    self._words(item.what.words[:1], STAGES, scope)
                    self._value(item.share, (), scope)
                    self._value(item.value, (), scope)
                case s.Every() | s.Keep() | s.Otherwise() | s.Alike():
                    for part in item:
                        self._value(part, (), scope)

    def _drawing(self, value: s.Value) -> str:
        """The rounds whose stage draws a data set's candidates; "" if none or several do."""
        name = value.words[0].name if isinstance(value, s.Path) else ""
        if Symbol("stage", "", name) in self.declarations:
            return ""
        found = [of.scope for of in self.declarations if (of.kind, of.name) == ("stage", name)]
        return found[0] if len(found) == 1 else ""

    def _value(self, node: Any, kinds: tuple[str, ...], scope: str) -> None:
        match node:
            case s.Path():
                self._words(node.words, kinds, scope)
            case s.Indexed():
                self._words(node.path.words, kinds, scope)
            case s.Either():
                self._value(node.first, kinds, scope)
                self._value(node.second, kinds, scope)
            case s.List():
                for part in node.items:
                    self._value(part, kinds, scope)
            case s.Schedule():
                for part in node.segments:
                    if isinstance(part, s.Repeat):
                        self._value(part.times, (), scope)
                for part in node.once():
                    ends = (part.value,) if isinstance(part, s.Hold) else (part.start, part.end)
                    for end in ends:
                        self._value(end, kinds, scope)
                    self._value(part.bound, (), scope)
                    if isinstance(part, s.Ramp):
                        self._value(part.levels, (), scope)
                        self._value(part.over, (), scope)
            case (
                s.Bound()
                | s.Range()
                | s.Periodic()
                | s.Counted()
                | s.Sized()
                | s.Claim()
                | s.Origin()
                | s.Reason()
            ):
                for part in node:
                    self._value(part, (), scope)
            case s.Tagged():
                self._value(node.braces, (), scope)
            case s.Scaled():
                self._value(node.factors, kinds, scope)
            case s.Braces():
                for part in node.items:
                    if isinstance(part, s.Entry):
                        words = part.word
                        path = [words] if isinstance(words, s.Word) else None
                        if path:
                            self._words(path, kinds, scope)
                        else:
                            self._value(words, kinds, scope)
                        self._value(part.value, (), scope)
                    elif isinstance(part, s.Assign):
                        self._value(part.value, (), scope)

    def _words(self, words: "Iterable[s.Word]", kinds: tuple[str, ...], scope: str) -> None:
        words = list(words)
        if not words:
            return
        let = Symbol("let", "", words[0].name)
        if len(words) == 1 and let in self.declarations:
            self._refers(let, words[0])
            return
        of = self._reference(words, kinds)
        ahead = iter(words)
        if of.variant:
            self._refers(Symbol("variant", "", of.variant), next(ahead))
        if of.rounds:
            word = next(ahead)
            if of.rounds != reference.PREVIOUS:
                self._refers(Symbol("stage", "", of.rounds), word)
        word = next(ahead)
        symbol = self.resolve(words, kinds, scope)
        if symbol and symbol.name == word.name:
            self._refers(symbol, word)

    def _reference(self, words: Sequence[s.Word], kinds: tuple[str, ...]) -> reference.Reference:
        """The parts of a dotted name: only a stage's can begin with a variant, and the path of a
        change cannot."""
        if "stage" not in kinds:
            return reference.Reference(words[0].name)
        names = self._of_recipe if kinds == CHANGEABLE else self._of_variants
        return names.reference([word.name for word in words])

    def resolve(
        self, words: "Iterable[s.Word]", kinds: tuple[str, ...], scope: str
    ) -> Symbol | None:
        """What a dotted name refers to: `anneal`, `align.chat`, `previous.chat`, `drafts.pairs`.

        If rounds have no such stage, the rounds.

        Args:
            scope: the rounds that contain the name, or "".
        """
        words = list(words)
        if not words:
            return None
        of = self._reference(words, kinds)
        first = words[1 if of.variant else 0].name
        for kind in kinds:
            symbols = [Symbol(kind, "", first)]
            if kind == "stage":
                own = first if not of.rounds else of.name.partition(".")[0]
                inside = scope if of.rounds in ("", reference.PREVIOUS) else of.rounds
                symbols = [Symbol(kind, inside, own), *symbols]
            for symbol in symbols:
                if symbol in self.declarations:
                    return symbol
        return None

    def _refers(self, symbol: Symbol, word: s.Word) -> None:
        self.occurrences.append(Occurrence(symbol, word.span, False))
