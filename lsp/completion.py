"""Completion at the cursor."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from lsprotocol import types

from ..compiler.claims.claims import COUNTED, ESTIMATES, SUMS
from ..compiler.claims.in_force import MOMENTS
from ..compiler.families import FAMILIES
from ..spec import syntax as s
from ..spec.reference import PAIRS, PREVIOUS, Reference
from ..spec.schema import documentation
from ..spec.schema import group_kinds as g
from ..spec.schema import kinds as k
from ..spec.schema import number_kinds as nk
from ..spec.schema import recipe as r
from ..spec.schema.convert_schedule import Mixture, Placement, ScheduleOf
from ..spec.schema.precision import Recompute
from ..spec.schema.statements import CLAIMED
from ..spec.source import Source, Span
from ..spec.text.keywords import BLOCKS, BREAKS_AFTER, FORMS, MEANINGS, SNIPPETS
from ..spec.text.parse import following
from . import names
from .context import Context, Frame, context
from .project import Analysis

Kind = types.CompletionItemKind
NOWHERE = Span(Source("", ""), 0, 0)
FILTERS = {"keep": "filter by a model's loss", "drop": "drop the documents that match a condition"}


def completion(analysis: Analysis, path: Path, offset: int) -> list[types.CompletionItem]:
    """What may be at a place in a file, whatever is broken around it."""
    here = context(analysis.source(path).text, offset)
    last = here.statement[-1] if here.statement else None
    if here.inside == "comment" or (last and last.kind == "number" and last.end == offset):
        return []
    found = _Completer(analysis, path, here)
    items = list(found.in_text() if here.inside == "text" else found.items())
    edit = analysis.lines(path).range(here.start, offset)
    unique: dict[str, types.CompletionItem] = {}
    for item in items:
        item.text_edit = types.TextEdit(edit, item.insert_text or item.label)
        item.insert_text = None
        unique.setdefault(item.label, item)
    return list(unique.values())


class _Completer:
    def __init__(self, analysis: Analysis, path: Path, here: Context) -> None:
        self.analysis = analysis
        self.path = path
        self.here = here
        self.names = analysis.names
        self.words = [token.text for token in here.statement]

    def items(self) -> Iterator[types.CompletionItem]:
        here, words = self.here, self.words
        blocks = here.blocks
        if here.frames and here.frames[-1].brace == "[":
            yield from self._in_list(here.frames[-1])
        elif not blocks:
            yield from self._outside()
        elif blocks[-1].words[:1] == ["rounds"]:
            yield from self._head() if words else [_keyword("stage")]
        elif blocks[-1].words[:1] == ["expect"]:
            yield from self._expect()
        elif blocks[-1].words[:1] == ["gate"]:
            yield from self._gate()
        elif blocks[-1].words[:1] == ["variant"]:
            yield from self._variant()
        elif here.model:
            if words:
                yield from self._statement(here.model)
            else:
                yield from self._attributes(here.model)
        elif here.outer_model:
            yield from self._in_group(here.outer_model, blocks[-1])

    def in_text(self) -> Iterator[types.CompletionItem]:
        words, model = self.words, self.here.model
        if words[:1] == ["use"]:
            yield from self._files()
        elif model is r.Model and words[:1] == ["size"]:
            for name, family in FAMILIES.items():
                for size in family.sizes:
                    yield _item(size, Kind.EnumMember, name)
        elif model is r.Cluster and words[:1] == ["gpus"]:
            for declared in self.names.kind("cluster"):
                for item in declared.item.items if isinstance(declared.item, s.Block) else ():
                    value = item.value if isinstance(item, s.Assign) else None
                    if isinstance(value, s.Counted):
                        name = getattr(value.what, "value", "")
                        yield _item(name, Kind.Value, declared.symbol.name)

    # Where statements begin

    def _outside(self) -> Iterator[types.CompletionItem]:
        if self.words:
            yield from self._head()
            return
        for keyword, of in BLOCKS.items():
            yield _item(keyword, Kind.Keyword, of, _block_snippet(keyword, of))
        yield _statement("let")
        yield _statement("use")

    def _head(self) -> Iterator[types.CompletionItem]:
        if self.words[:1] == ["stage"] and self.words[-1:] == [":"]:
            for kind, model in r.STAGES.items():
                yield _item(kind, Kind.Class, documentation.about(model))
        elif self.words[:1] == ["let"] and "=" in self.words:
            yield from self._lets()

    def _attributes(self, model: type[r.Declaration]) -> Iterator[types.CompletionItem]:
        given = self.here.frames[-1].given
        for name, attribute in {**r.attributes(model), **r.statements(model)}.items():
            entry = documentation.documentation(model, name)
            if attribute.kind.statement:
                yield from _statements(name, attribute.kind, entry, given)
                continue
            if name in given:
                continue
            snippet = f"{name} = "
            if isinstance(attribute.kind, g.Group):
                snippet = f"{name} = {{ $1 }}"
            item = _item(name, Kind.Property, entry.value if entry else "", snippet)
            if entry:
                text = documentation.markdown(name, entry)
                item.documentation = types.MarkupContent(types.MarkupKind.Markdown, text)
            item.sort_text = ("0" if attribute.required else "1") + name
            yield item
        yield _statement("open")
        if "=" not in self.here.blocks[-1].words:  # a value cannot contain `allow`
            yield _statement("allow")

    # In values

    def _statement(self, model: type[r.Declaration]) -> Iterator[types.CompletionItem]:
        here, words = self.here, self.words
        attribute = words[0]
        kind = r.kind_of(model, attribute)
        if "=" in words:
            yield from self._value(kind, attribute, words[words.index("=") + 1 :])
        elif isinstance(kind, nk.Every):
            yield from self._keywords("period")
            if here.statement[-1].kind == "number":
                yield from _units(kind.units)
        elif isinstance(kind, nk.Keep):
            yield from self._keywords("kept")
            if len(words) == 1:
                yield _keyword("all")
            if here.statement[-1].kind == "number" and words[-2] == "every":
                yield from _units(kind.units)
        elif "filters" in r.statements(model):
            yield from self._keywords("filter")
            for declared in self.names.kind("stage") if words[-1] == "where" else ():
                stage = r.STAGES.get(_kind(declared))
                if stage and stage.scores:
                    yield _name(declared, f"{declared.symbol.name}.loss")

    def _value(
        self, kind: k.Kind | None, attribute: str, before: list[str]
    ) -> Iterator[types.CompletionItem]:
        if self.here.statement[-1].kind == "number":
            yield from _units(_measured(kind, before))
        yield from self._keywords("origin", *_forms(kind))
        if not before or before[-1] in (*BREAKS_AFTER, "or", "."):
            yield from self._plain(kind, attribute, before)

    def _keywords(self, *forms: str) -> Iterator[types.CompletionItem]:
        """The words of some forms that the grammar accepts after the statement so far."""
        wanted = [word for form in forms for word in FORMS[form]]
        accepted = following(self.here.before)
        for word in dict.fromkeys(wanted):
            if word in accepted:
                yield _keyword(word)

    def _plain(
        self, kind: k.Kind | None, attribute: str, before: list[str]
    ) -> Iterator[types.CompletionItem]:
        """Completions of a value: choices, names of blocks, groups."""
        if kind is None:
            return
        for choice in kind.choices:
            if choice == "last":
                yield _item(choice, Kind.Keyword, "the value at the end of the previous stage")
            else:
                yield _item(choice, Kind.EnumMember, attribute)
        if kind.refers:
            yield from self._named(kind.refers, before)
        if attribute == "family":
            for family in FAMILIES:
                yield _item(family, Kind.EnumMember, "a model family")
        match kind:
            case g.Group():
                yield _item("{ … }", Kind.Class, attribute, kind.example)
            case g.Tagged():
                for tag in kind.tags:
                    snippet = f"{tag} {{ {kind.typical} }}"
                    yield _item(f"{tag} {{ … }}", Kind.Class, attribute, snippet)
            case Recompute():
                yield _item(kind.word, Kind.EnumMember, attribute, f"{kind.word} ${{1:60}}%")
            case g.Periodic():
                yield _item(kind.word, Kind.Keyword, attribute, f"{kind.word} every ${{1:1}} step")
        if before[-1:] != ["."]:
            yield from self._lets()

    def _named(self, kinds: Iterable[str], before: list[str]) -> Iterator[types.CompletionItem]:
        """Names of the right kinds; after a dot, what is inside the thing before it."""
        rounds = self.here.rounds
        if before[-1:] == ["."]:
            owner = before[-2] if len(before) > 1 else ""
            scopes = [rounds if owner == PREVIOUS else owner]
            if owner in (declared.symbol.name for declared in self.names.kind("variant")):
                scopes = list(dict.fromkeys(["", rounds]))
            for scope in scopes:
                yield from (_name(declared) for declared in self.names.kind("stage", scope))
            if "dataset" in kinds:
                yield _item(PAIRS, Kind.Property, "the preferences that a judge makes from draws")
            return
        own = self._own_name()
        for kind in kinds:
            if kind != "stage":
                alone = "stage" not in kinds or kind != "model"
                yield from (
                    _name(declared)
                    for declared in self.names.kind(kind)
                    if alone or _weights(declared)
                )
                continue
            for scope in dict.fromkeys(["", rounds]):
                for declared in self.names.kind("stage", scope):
                    if declared.symbol.name == own and declared.symbol.scope == rounds:
                        continue
                    stage = r.STAGES.get(_kind(declared))
                    offers = stage.offers if stage else _kind(declared) == "rounds"
                    if "dataset" in kinds and not offers:
                        continue
                    yield _name(declared)
            if rounds and "dataset" not in kinds:
                for declared in self.names.kind("stage", rounds):
                    name = str(Reference(declared.symbol.name, PREVIOUS))
                    yield _item(name, Kind.Reference, "of the previous round")
            if "dataset" not in kinds:
                yield from (_name(declared) for declared in self.names.kind("variant"))

    def _own_name(self) -> str:
        """The name of the stage that the cursor is in."""
        for frame in self.here.frames:
            if frame.words[:1] == ["stage"] and len(frame.words) > 1:
                return frame.words[1]
        return ""

    def _lets(self) -> Iterator[types.CompletionItem]:
        for declared in self.names.kind("let"):
            yield _name(declared)

    def _indices(self) -> Iterator[types.CompletionItem]:
        if self.here.rounds:
            yield _item("round", Kind.Keyword, "this round")
            yield _item("1..round", Kind.Snippet, "all rounds up to this one")
            return
        for declared in self.names.kind("stage"):
            count = (
                declared.item.labels[1]
                if isinstance(declared.item, s.Block) and declared.item.labels[1:]
                else 0
            )
            if _kind(declared) == "rounds" and isinstance(count, s.Number):
                for number in range(1, min(int(count.value), 20) + 1):
                    yield _item(str(number), Kind.Value, f"a round of {declared.symbol.name}")

    # In groups and lists

    def _in_list(self, frame: Frame) -> Iterator[types.CompletionItem]:
        head, model = frame.words, self.here.outer_model
        if len(head) > 1 and "=" not in head[-1:] and frame.head[-1].kind == "word":
            inner = self.here.frames[-2] if len(self.here.frames) > 1 else None
            if head[0] != "on" and not (inner and inner.words[:1] == ["suites"]):
                yield from self._indices()
                return
        kind = r.kind_of(model, head[0]) if head else None
        if kind is None:
            return
        before = self.words if self.words[-1:] == ["."] else []
        if self.words and not before:
            return
        yield from self._plain(kind, head[0], before)

    def _in_group(self, model: type[r.Declaration], frame: Frame) -> Iterator[types.CompletionItem]:
        kind = r.kind_of(model, frame.words[0])
        operand = kind.operand if isinstance(kind, ScheduleOf) else None
        if isinstance(operand, Placement) and not self.words:
            for degree in operand.degrees:
                if degree not in frame.given:
                    yield _item(degree, Kind.Property, "parallelism", f"{degree} ")
        elif isinstance(operand, Mixture) and (not self.words or self.words[-1] == "."):
            for item in self._named(operand.refers, self.words):
                if item.label not in frame.given:
                    yield item

    def _gate(self) -> Iterator[types.CompletionItem]:
        words = self.words
        if not words:
            yield _statement("require")
            yield _statement("otherwise")
            yield from self._attributes(r.Gate)
        elif "=" in words:
            yield from self._statement(r.Gate)
        elif words[-1] == "require":
            yield _item("needle", Kind.Function, "share of needles found")
            yield _item("loss", Kind.Function, "held-out loss", "loss(${1:short})")
        elif words[-1] == "(":
            yield _item("short", Kind.Keyword, "the sources, at the previous length")
            yield from (_name(declared) for declared in self.names.kind("dataset"))
        elif words[-1] == "of":
            yield _item("start", Kind.Keyword, "the same measure at the start of the stage")
        else:
            if words[0] == "otherwise" and self.here.statement[-1].kind == "number":
                yield from _units(["times"] if "most" in words else ["tokens", "steps"])
            yield from self._keywords("condition", "extension")

    def _expect(self) -> Iterator[types.CompletionItem]:
        words = self.words
        if "=" in words:
            if self.here.statement[-1].kind == "number":
                figure = words[words.index("=") - 1] if "at" not in words else ""
                yield from _units([CLAIMED[figure]] if figure in CLAIMED else [])
            elif words[-1] == "=":
                yield from self._lets()
            yield from self._keywords("claim")
        elif not words or words[-1] == ".":
            for figure in COUNTED:
                yield _item(figure, Kind.Property, "the plan's value")
            for figure in ESTIMATES if words else SUMS:
                yield _item(figure, Kind.Property, "an estimate")
            for figure in MOMENTS if words else ():
                text = f"{figure} at ${{1:1000}} steps"
                yield _item(figure, Kind.Property, "at a point in the stage", text)
            scope = words[0] if words else ""
            yield from (_name(declared) for declared in self.names.kind("stage", scope))
        else:
            yield from self._keywords("claim")

    def _variant(self) -> Iterator[types.CompletionItem]:
        words = self.words
        end = words.index("=") if "=" in words else len(words)
        path = [s.Word(word, NOWHERE) for word in words[:end] if word != "."]
        if not words:
            for kind in names.CHANGEABLE:
                yield from (_name(declared) for declared in self.names.kind(kind))
            yield from self._lets()
            yield _item("recipe", Kind.Keyword, "its own attributes", "recipe.")
        elif "=" in words:
            yield from self._changed(path, words[end + 1 :])
        elif words[-1] == ".":
            yield from self._path([*path, s.Word("", NOWHERE)])

    def _path(self, path: list[s.Word]) -> Iterator[types.CompletionItem]:
        """What may follow in the path of a change, whose last word is empty."""
        if len(path) == 2 and path[0].name in names.CHANGEABLE:
            yield from (_name(declared) for declared in self.names.kind(path[0].name))
            return
        symbol, model, rest = self.names.change(path)
        declared = self.names.declarations.get(symbol) if symbol else None
        if symbol and declared and declared.what == "rounds":
            yield from (_name(declared) for declared in self.names.kind("stage", symbol.name))
            yield _item("rounds", Kind.Property, "their number", "rounds = ")
            return
        for word in rest[:-1]:
            model = names.group_model(model, word.name)
        for name, attribute in r.attributes(model).items() if model else ():
            entry = documentation.entry(name, attribute).without_links
            yield _item(name, Kind.Property, entry.value, f"{name} = ")

    def _changed(self, path: list[s.Word], before: list[str]) -> Iterator[types.CompletionItem]:
        """Completions of the new value of what a path names."""
        _, model, rest = self.names.change(path)
        for word in rest[:-1]:
            model = names.group_model(model, word.name)
        kind = r.kind_of(model, rest[-1].name) if rest else None
        if kind is None:  # a `let`, or something unknown
            yield from self._lets()
            return
        if isinstance(kind, g.Mark):
            yield from (_item(word, Kind.EnumMember, rest[-1].name) for word in ("true", "false"))
        yield from self._value(kind, rest[-1].name, before)
        if not before:
            yield _item("default", Kind.Keyword, "removes the attribute")

    def _files(self) -> Iterator[types.CompletionItem]:
        folder = self.path.parent
        try:
            files = sorted(folder.rglob("*.etude"))[:200]
        except OSError:
            return
        for file in files:
            if file != self.path:
                yield _item(file.relative_to(folder).as_posix(), Kind.File, "a spec")


def _item(label: str, kind: Kind, detail: str, snippet: str = "") -> types.CompletionItem:
    item = types.CompletionItem(label, kind=kind, detail=detail or None)
    if snippet:
        item.insert_text = snippet
    if "$" in snippet:
        item.insert_text_format = types.InsertTextFormat.Snippet
    return item


def _keyword(word: str) -> types.CompletionItem:
    return _item(word, Kind.Keyword, MEANINGS.get(word, ""))


def _statement(word: str) -> types.CompletionItem:
    return _item(word, Kind.Keyword, MEANINGS[word], SNIPPETS[word])


def _statements(
    name: str, kind: k.Kind, entry: documentation.Entry | None, given: frozenset[str]
) -> Iterator[types.CompletionItem]:
    """The statements that set an attribute; there may be several filters."""
    told = entry.meaning if entry else ""
    if isinstance(kind, g.Filters):
        for word, does in FILTERS.items():
            yield _item(word, Kind.Property, does, SNIPPETS[word])
    elif isinstance(kind, g.Alike) and "drop" not in given:
        yield _item("drop", Kind.Property, told, SNIPPETS[f"drop {name}"])
    elif name not in given:
        yield _item(name, Kind.Property, told, SNIPPETS.get(name, name))


def _forms(kind: k.Kind | None) -> Iterator[str]:
    """The forms that a value of a kind may have."""
    match kind:
        case ScheduleOf():
            yield "schedule"
            if isinstance(kind.operand, Mixture):
                yield "scaling"
        case nk.Devices():
            yield "count"
        case g.Periodic():
            yield "period"
        case k.Ref():
            yield "choice"


def _measured(kind: k.Kind | None, before: list[str]) -> tuple[str, ...]:
    """The units of the number before the cursor: a value, or a duration."""
    word = before[-2] if len(before) > 1 else ""
    if isinstance(kind, g.Periodic):
        part = r.attributes(kind.holds).get(word)
        return part.kind.units if part else ()
    if isinstance(kind, ScheduleOf) and word in ("for", "until", "over"):
        return nk.LENGTH.units
    return kind.units if kind else ()


def _units(units: Iterable[str]) -> Iterator[types.CompletionItem]:
    return (_item(unit, Kind.Unit, "unit") for unit in units)


def _weights(declared: names.Declaration) -> bool:
    """Whether a model has weights that a stage can continue from."""
    items = declared.item.items if isinstance(declared.item, s.Block) else ()
    return any(isinstance(i, s.Assign) and i.path.name in ("weights", "hub") for i in items)


def _kind(declared: names.Declaration) -> str:
    """`sample` for a sample stage, `rounds`, `dataset`, `let`."""
    kind = declared.item.kind if isinstance(declared.item, s.Block) else None
    return kind.name if kind else declared.what


def _name(declared: names.Declaration, label: str = "") -> types.CompletionItem:
    detail = f"stage: {_kind(declared)}" if declared.what == "stage" else declared.what
    kind = Kind.Constant if declared.what == "let" else Kind.Reference
    return _item(label or declared.symbol.name, kind, detail)


def _block_snippet(keyword: str, form: str) -> str:
    places = iter(range(1, 9))
    words = [
        f"${{{next(places)}:{word.strip(':').lower()}}}" + (":" if word.endswith(":") else "")
        if word.strip(":").isupper() or word.isdigit()
        else word
        for word in form.removesuffix(" { … }").split()
    ]
    return " ".join(words) + " {\n  $0\n}"
