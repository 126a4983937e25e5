"""Converts the JSON form of a spec to statements, with places in the JSON.

Anything that is valid JSON in the right form becomes a statement. It is checked where statements
from texts are: in `bind` and the compiler.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .. import syntax as s
from ..findings.diagnostics import Report, did_you_mean
from ..schema import group_kinds as g
from ..schema import kinds as k
from ..schema import number_kinds as nk
from ..schema import recipe as r
from ..schema.lacking import instead_of
from ..source import Source, Span
from ..text.to_text import shown
from . import json_form as form
from .json_text import Node, Numeral, read
from .json_values import Bad, Entries, Of, Values, as_entry, joined, several


def statements(source: Source, report: Report) -> tuple[s.Item, ...]:
    """The statements of a spec in JSON. Reports and leaves out what cannot be read."""
    root = spec(source, report)
    return _Reader(source, report).statements(root) if root else ()


def spec(source: Source, report: Report) -> Node | None:
    """The JSON of a spec of this version; else None, with the reason in the report."""
    root = read(source, report)
    try:
        return root and _Reader(source, report).version(root)
    except Bad:
        return None


class _Reader(Values):
    def statements(self, root: Node) -> tuple[s.Item, ...]:
        top = self.object(root, "a spec")
        self._known(top, form.TOP, "a spec", r.Header)
        items: list[s.Item] = []
        items += self.each([top], self._header)
        used = self._uses(top)
        items += [use for use, after in used if after is None]
        items += self._named(
            top, "let", lambda word, node: s.Let(word, self.value(node), node.span)
        )
        for key, keyword in form.BLOCKS.items():
            model = r.BLOCKS[keyword]
            items += self._named(
                top, key, lambda w, node, k=keyword, m=model: self._block(k, w, node, m)
            )
        items += self._with_uses(self._named(top, "stages", self._stage), used)
        if "expect" in top:
            keyword, blocks = top["expect"]
            items += self.each(several(blocks), lambda node: self._expect(keyword, node))
        items += self._named(top, "variants", self._variant)
        return tuple(items)

    def _with_uses(
        self, stages: Iterable[s.Block], used: list[tuple[s.Use, Node | None]]
    ) -> Iterator[s.Item]:
        """The stages, each followed by the files used after it."""
        names = []
        for stage in stages:
            yield stage
            names.append(shown(stage.labels[0]))
            yield from (use for use, after in used if after and after.value == names[-1])
        for _, after in used:
            if after is not None and after.value not in names:
                self.error(
                    "E133",
                    f"there is no stage `{after.value}` in this file",
                    after,
                    help=did_you_mean(str(after.value), names),
                )

    def _known(
        self, entries: Entries, known: Iterable[str], what: str, of: form.Model = None
    ) -> None:
        known = tuple(known)
        for name, (key, _) in entries.items():
            if name not in known:
                self.error(
                    "E308",
                    f"{what} has no attribute `{name}`",
                    key,
                    help=instead_of(name, known, of),
                )

    def version(self, root: Node) -> Node:
        """The spec, if it has this version.

        Raises: Bad: after reporting.
        """
        top = self.object(root, "a spec")
        if form.MARK not in top:
            begin = Span(self.source, root.span.start, root.span.start + 1)
            plan = "etude_plan" in top
            help = (
                "this is a plan: run it with `etude run`"
                if plan
                else (f'a spec in JSON begins with "{form.MARK}": {form.VERSION}')
            )
            self.error(
                "E134", f"this JSON is not a spec: it has no `{form.MARK}`", begin, help=help
            )
            raise Bad
        version = top[form.MARK][1]
        if not isinstance(version.value, Numeral) or version.value != str(form.VERSION):
            self.error(
                "E134",
                f"this version of etude reads version {form.VERSION} of specs in JSON",
                version,
                help=f'write "{form.MARK}": {form.VERSION}, or use another etude',
            )
            raise Bad
        return root

    # Blocks

    def _named(
        self,
        top: Entries,
        key: str,
        make: Callable[[s.Word, Node], Of | None],
    ) -> Iterator[Of]:
        """The statements made from the named values under a key."""
        if key in top:
            for entries in self.each([top[key][1]], lambda of: self.object(of, "names")):
                yield from self.each(
                    entries.values(),
                    lambda pair: make(s.Word(pair[0].value, pair[0].inside), pair[1]),
                )

    def _header(self, top: Entries) -> s.Block | None:
        own = {
            key: pair
            for key, pair in top.items()
            if key in (*r.attributes(r.Header), "sources", "allow", "open")
        }
        if "name" not in top:
            for key, _ in own.values():
                self.error("E305", "a recipe needs a name", key, help='write "name": "my_recipe"')
            return None
        key, name = top["name"]
        word = self.string(name, "the recipe's name, a string")
        items = self._attributes(own, r.Header, "a recipe")
        return s.Block(s.Word("recipe", key.inside), (word,), None, items, joined(key, name))

    def _uses(self, top: Entries) -> list[tuple[s.Use, Node | None]]:
        """The used files, each with the stage that it comes after."""
        if "use" not in top:
            return []
        _, files = top["use"]
        if not isinstance(files.value, tuple):
            self.error("E133", f"this must be an array of files, not {files.kind}", files)
            return []
        return list(self.each(files.value, self._use))

    def _use(self, node: Node) -> tuple[s.Use, Node | None]:
        file, after = node, None
        if isinstance(node.value, dict):
            entries = self.object(node, 'a file: {"file": "b.etude", "after": "pretrain"}')
            self._known(entries, ("file", "after"), "a used file")
            if "file" not in entries:
                self.error("E318", "this needs `file`", node)
                raise Bad
            file = entries["file"][1]
            after = entries["after"][1] if "after" in entries else None
        word = self.string(file, "the path of a file, a string")
        return s.Use(s.Text(word.name, file.span), node.span), after

    def _block(self, keyword: str, name: s.Word, node: Node, model: type[r.Declaration]) -> s.Block:
        entries = self.object(node, f"the attributes of a {keyword}")
        items = self._attributes(entries, model, f"a {keyword}")
        span = Span(self.source, name.span.start, node.span.end)
        return s.Block(s.Word(keyword, name.span), (name,), None, items, span)

    def _stage(self, name: s.Word, node: Node, *, inner: bool = False) -> s.Block:
        entries = self.object(node, "the attributes of a stage")
        kind = self._kind(entries, name.span, f"the stage `{name.name}`", '"kind": "train"')
        if kind.name == "rounds" and not inner:
            return self._rounds(name, node, entries)
        model = r.STAGES.get(kind.name)
        if kind.name == "rounds":
            self.error(
                "E320",
                "rounds can contain only stages",
                kind.span,
                help="declare everything else outside the rounds",
            )
            raise Bad
        if model is None:
            self.error(
                "E307",
                f"`{kind.name}` is not a kind of stage",
                kind.span,
                help=did_you_mean(kind.name, [*r.STAGES, "rounds"], of="kind"),
            )
            raise Bad
        rest = {key: pair for key, pair in entries.items() if key != "kind"}
        items = self._attributes(rest, model, f"a {kind.name} stage")
        span = Span(self.source, name.span.start, node.span.end)
        return s.Block(s.Word("stage", name.span), (name,), kind, items, span)

    def _kind(self, entries: Entries, at: Span, what: str, example: str) -> s.Word:
        if "kind" not in entries:
            self.error("E305", f"{what} has no kind", at, help=f"write {example}")
            raise Bad
        return self.string(entries["kind"][1], f"a kind: {example}")

    def _rounds(self, name: s.Word, given: Node, entries: Entries) -> s.Block:
        self._known(entries, ("kind", "count", "stages", "allow"), "a block of rounds")
        count: list[s.Number | s.Word] = []
        for node in self.each(
            [entries[key][1] for key in ("count",) if key in entries], self.value
        ):
            if isinstance(node, s.Path) and len(node.words) == 1:
                count.append(node.words[0])
            elif isinstance(node, s.Number):
                count.append(node)
            else:
                self.error(
                    "E319", "this must be a number of rounds", node.span, help='write "count": 6'
                )
        if "count" not in entries:
            self.error(
                "E319", "rounds need a name and a number", name.span, help='write "count": 6'
            )
        stages = self._named(entries, "stages", lambda w, n: self._stage(w, n, inner=True))
        items: tuple[s.Item, ...] = (*stages, *self._allows(entries))
        keyword = s.Word("rounds", name.span)
        span = Span(self.source, name.span.start, given.span.end)
        return s.Block(keyword, (name, *count), None, items, span)

    def _expect(self, keyword: Node, node: Node) -> s.Block:
        entries = self.object(node, "claims by their figures")
        items: list[s.Item] = [*self._allows(entries)]
        for name, (figure, claims) in entries.items():
            if name != "allow":
                items += self.each(several(claims), lambda node, at=figure: self._claim(at, node))
        return s.Block(s.Word("expect", keyword.inside), (), None, tuple(items), node.span)

    def _claim(self, figure: Node, node: Node) -> s.Assign:
        entries = self.object(node, 'a claim: {"value": "15T", "within": "1%"}')
        self._known(entries, ("value", "within", "because", "contradicted", "cite"), "a claim")
        reasons = [key for key in ("because", "contradicted") if key in entries]
        for needed in ("value", *(["within"] if reasons else [])):
            if needed not in entries:
                self.error("E318", f"a claim needs `{needed}`", node)
                raise Bad
        if len(reasons) > 1:
            self.error(
                "E133",
                "a claim can have only one reason",
                entries[reasons[1]][0],
                help="remove `because` or `contradicted`",
            )
        value = self.value(entries["value"][1])
        claim = origin = reason = None
        if reasons:
            key, text = entries[reasons[0]]
            reason = s.Reason(reasons[0] == "contradicted", self.text(text), joined(key, text))
        if "within" in entries:
            claim = s.Claim(self.amount(entries["within"][1]), reason)
        if "cite" in entries:
            origin = self.origin(*entries["cite"])
        path, at = self.figure(figure)
        return s.Assign(path, at, value, claim, origin, node.span)

    def _variant(self, name: s.Word, node: Node) -> s.Block:
        entries = self.object(node, "the changes of a variant")
        self._known(entries, ("set", "sources", "allow"), "a variant")
        given = [entries[key][1] for key in ("set",) if key in entries]
        items: list[s.Item] = []
        for changes in self.each(given, lambda node: self.object(node, "values by their paths")):
            origins = self._origins(entries, changes)
            items += self.each(changes.values(), lambda pair, o=origins: self._change(pair, o))
        items += self._allows(entries)
        span = Span(self.source, name.span.start, node.span.end)
        return s.Block(s.Word("variant", name.span), (name,), None, tuple(items), span)

    def _change(self, pair: tuple[Node, Node], origins: dict[str, s.Origin]) -> s.Assign:
        key, of = pair
        path, value = self.path(key), self.value(of)
        return s.Assign(path, None, value, None, origins.get(key.value), joined(key, of))

    # Attributes

    def _attributes(
        self, entries: Entries, model: type[r.Declaration], what: str
    ) -> tuple[s.Item, ...]:
        """The statements of a block."""
        reserved = [key for key in form.RESERVED if not form.has(model, key)]
        values = {key: pair for key, pair in entries.items() if key not in reserved}
        if "kind" in entries and "kind" in reserved:
            self._known({"kind": entries["kind"]}, form.names(model), what, model)
        origins = self._origins(entries, values)
        self._known(values, form.names(model), what, model)
        groups = self.each(
            ((name, pair) for name, pair in values.items() if name in form.names(model)),
            lambda of: self._attribute(of[1], model, origins.get(of[0])),
        )
        given = (item for items in groups for item in items)
        return (*given, *self._allows(entries), *self._opens(entries))

    def _attribute(
        self, pair: tuple[Node, Node], model: type[r.Declaration], origin: s.Origin | None
    ) -> tuple[s.Item, ...]:
        """The statements of an attribute: usually one, none for a flag that is off."""
        key, node = pair
        word, span = s.Word(key.value, key.inside), joined(key, node)
        items = self._statements(word, node, model, span)
        if items is None:
            value = self._attribute_value(word.name, node, model)
            every = isinstance(r.kind_of(model, word.name), nk.Every) and origin is None
            if every and isinstance(value, s.Number | s.Path):
                return (s.Every(word, form.in_steps(value), span),)
            return (s.Assign(s.Path((word,), word.span), None, value, None, origin, span),)
        if origin:
            self.error("E133", f"`{word.name}` is not a value, so it has no source", origin.span)
        return items

    def _statements(
        self, word: s.Word, node: Node, model: type[r.Declaration], span: Span
    ) -> tuple[s.Item, ...] | None:
        """Statements that are not `name = value` in a text; None for a plain value."""
        match r.kind_of(model, word.name):
            case g.Filters() as filters:
                return self._list(node, "", s.Filter, filters.example)
            case g.Alike():
                drop = s.Word("drop", word.span)
                return (s.Alike(drop, word, ">", self.amount(node), span),)
            case nk.Keep() if _is_phrase(node):
                return (self.statement(node, "keep ", s.Keep, "last 2"),)
            case g.Mark():
                if not isinstance(node.value, bool):
                    self.wrong(node, "true or false")
                return (s.Flag(word, span),) if node.value else ()
            case g.Block() if _is_object(node):
                label = s.Word("seq_len", word.span)
                return (s.Block(word, (label,), None, self._gate(node), span),)
            case g.Group(holds=group) if _is_object(node) and model is not r.Gate:
                if _says_more(node):
                    return (s.Block(word, (), None, self._group(word.name, node, group), span),)
        return None

    def _attribute_value(self, name: str, node: Node, model: type[r.Declaration]) -> s.Value:
        kind = r.kind_of(model, name)
        if kind and kind.distinct and (let := self.let(node)):
            return let
        match kind:
            case k.Text():
                return self.texts(node)
            case g.Group(holds=group) if isinstance(node.value, dict):
                items = self._group(name, node, group)
                return s.Braces(tuple(map(as_entry, items)) if group.entries else items, node.span)
            case g.Tagged() if isinstance(node.value, dict):
                return self._tagged(name, node, kind)
            case g.Tagged(many=True) if isinstance(node.value, tuple):
                each = (self._attribute_value(name, one, model) for one in node.value)
                return s.List(tuple(each), node.span)  # type: ignore[arg-type]
            case k.Suites() if isinstance(node.value, dict):
                return self.suites(node)
        return self.value(node)

    def _group(self, name: str, of: Node, model: type[r.Declaration]) -> tuple[s.Item, ...]:
        return self._attributes(self.object(of, "attributes"), model, f"`{name}`")

    def _tagged(self, name: str, node: Node, tagged: g.Tagged) -> s.Value:
        """`adamw { … }`; without attributes the name alone."""
        entries = self.object(node, "attributes")
        kind = self._kind(entries, node.span, f"`{name}`", f'"kind": "{tagged.tags[0]}"')
        rest = {key: pair for key, pair in entries.items() if key != "kind"}
        if not rest and kind.name in tagged.names:
            return s.Path((kind,), kind.span)
        items = self._attributes(rest, tagged.holds, kind.name)
        return s.Tagged(kind, s.Braces(items, node.span), node.span)

    def _gate(self, of: Node) -> tuple[s.Item, ...]:
        entries = self.object(of, "what is required")
        items: list[s.Item] = []
        self._known(
            entries,
            ("require", "otherwise", *form.names(r.Gate), "sources", "allow", "open"),
            "a gate",
            r.Gate,
        )
        rest = dict(entries)
        if "require" in rest:
            items += self._list(rest.pop("require")[1], "require ", s.Require, "needle >= 90%")
        if "otherwise" in rest:
            _, otherwise = rest.pop("otherwise")
            items += self.each(
                [otherwise],
                lambda node: self.statement(
                    node, "otherwise ", s.Otherwise, "extend 10B tokens at most 3 times"
                ),
            )
        rest = {
            key: pair
            for key, pair in rest.items()
            if key in (*form.names(r.Gate), "sources", "allow", "open")
        }
        return (*items, *self._attributes(rest, r.Gate, "a gate"))

    def _list(
        self, texts: Node, prefix: str, wanted: type[Any], example: str
    ) -> tuple[s.Item, ...]:
        """The statements in a list of strings."""
        if not isinstance(texts.value, tuple):
            self.wrong(texts, f'a list of strings: ["{example}"]')
        return tuple(
            self.each(texts.value, lambda node: self.statement(node, prefix, wanted, example))
        )

    def _origins(self, entries: Entries, values: Entries) -> dict[str, s.Origin]:
        """Where values come from, by attribute."""
        origins: dict[str, s.Origin] = {}
        if "sources" not in entries:
            return origins
        example = '{"lr": {"cite": "Table 3"}}'
        for sources in self.each([entries["sources"][1]], lambda node: self.object(node, example)):
            for name, (key, node) in sources.items():
                if name not in values:
                    self.error(
                        "E308",
                        f"there is no `{name}` here",
                        key,
                        help=did_you_mean(name, values),
                    )
                    continue
                for each in self.each([node], self._source):
                    origins[name] = each
        return origins

    def _source(self, node: Node) -> s.Origin:
        entries = self.object(node, 'the source of a value: {"cite": "Table 3"}')
        if len(entries) != 1 or not entries.keys() <= {"cite", "assumed"}:
            self.error(
                "E133",
                "a value can have only one source",
                node,
                help='write {"cite": "where"} or {"assumed": "why"}',
            )
            raise Bad
        ((key, text),) = entries.values()
        return self.origin(key, text)

    def _allows(self, entries: Entries) -> Iterator[s.Allow]:
        """What is silenced, and why."""
        if "allow" not in entries:
            return
        for allowed in self.each([entries["allow"][1]], lambda of: self.object(of, "reasons")):
            for key, of in allowed.values():
                yield from self.each(several(of), lambda of, key=key: self._allow(key, of))

    def _opens(self, entries: Entries) -> Iterator[s.Open]:
        """Attributes that are left open, and why."""
        given = [entries[key][1] for key in ("open",) if key in entries]
        for opened in self.each(given, lambda of: self.object(of, "reasons by attributes")):
            yield from self.each(opened.values(), lambda pair: self._open(*pair))

    def _open(self, key: Node, node: Node) -> s.Open:
        if type(node.value) is not str:
            self.wrong(node, f'a reason: "{key.value}": "the source does not say"')
        word = s.Word(key.value, key.inside)
        return s.Open(word, s.Text(node.value, node.span), joined(key, node))

    def _allow(self, key: Node, node: Node) -> s.Allow:
        if type(node.value) is not str:
            self.wrong(node, f'a reason: "{key.value}": "the ablation needs it"')
        return s.Allow(
            s.Word(key.value, key.inside), s.Text(node.value, node.span), joined(key, node)
        )


def _says_more(node: Node) -> bool:
    """Whether a group, or one inside it, has entries that only blocks may have."""
    return _is_object(node) and bool(
        node.value.keys() & {"allow", "open"}
        or any(_says_more(of) for _, of in node.value.values())
    )


def _is_object(of: Node) -> bool:
    """Whether a value is an object, and not the name of a `let`."""
    return isinstance(of.value, dict) and of.value.keys() != {"let"}


def _is_phrase(of: Node) -> bool:
    """Whether a value is a text of several words."""
    return isinstance(of.value, str) and " " in of.value.strip()
