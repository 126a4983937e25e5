"""Converts statements to their JSON form: plain data, with numbers as `Numeral`s."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from .. import syntax as s
from ..schema import group_kinds as g
from ..schema import kinds as k
from ..schema import number_kinds as nk
from ..schema import recipe as r
from ..source import Span
from ..text.to_text import figure, shown
from . import json_form as form
from .json_text import Numeral

_NUMERAL = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
MOST_DIGITS = 15
"""Digits that numbers keep in any program that reads JSON."""


class Unfit(Exception):
    """A statement that the form cannot hold; only in specs with errors."""

    def __init__(self, span: Span) -> None:
        super().__init__(repr(span))
        self.span = span


def as_json(items: Iterable[s.Item]) -> dict[str, Any]:
    """The JSON form of statements, in the order of the form and, inside blocks, of the text.

    Raises: Unfit: a block has something twice or in the wrong place: `bind` reports it.
    """
    top: dict[str, Any] = {form.MARK: Numeral(form.VERSION)}
    last_stage: str | None = None
    for item in items:
        match item:
            case s.Use():
                file = item.file.value
                use = {"file": file, "after": last_stage} if last_stage else file
                top.setdefault("use", []).append(use)
            case s.Let():
                _put(top.setdefault("let", {}), item.word.name, _plain(item.value), item.span)
            case s.Block(keyword=s.Word(name="expect")):
                _more_than_once(top, "expect", _expect(item))
            case s.Block():
                name = _name(item)
                last_stage = _block(item, name, top) or last_stage
            case _:
                raise Unfit(item.span)
    return {key: top[key] for key in form.TOP if key in top}


def _block(item: s.Block, name: str, top: dict[str, Any]) -> str | None:
    """Puts a block where it belongs; returns the name of a stage or of rounds."""
    keyword = item.keyword.name
    if item.kind and keyword != "stage":
        raise Unfit(item.kind.span)
    if keyword == "recipe":
        if "name" in top:
            raise Unfit(item.head)
        top["name"] = name
        own = _attributes(item.items, r.Header)
        order = sorted(own.get("sources", ()), key=form.TOP.index)
        top |= own | ({"sources": {key: own["sources"][key] for key in order}} if order else {})
    elif keyword == "variant":
        _put(top.setdefault("variants", {}), name, _variant(item), item.head)
    elif keyword == "rounds":
        _put(top.setdefault("stages", {}), name, _rounds(item), item.head)
        return name
    elif keyword == "stage":
        _put(top.setdefault("stages", {}), name, _stage(item), item.head)
        return name
    else:
        keys = [key for key, word in form.BLOCKS.items() if word == keyword]
        if not keys:
            raise Unfit(item.keyword.span)
        of = _attributes(item.items, r.BLOCKS[keyword])
        _put(top.setdefault(keys[0], {}), name, of, item.head)
    return None


def _put(into: dict[str, Any], key: str, value: Any, span: Span) -> None:
    if key in into:
        raise Unfit(span)
    into[key] = value


def _name(block: s.Block) -> str:
    most = 2 if block.keyword.name == "rounds" else 1
    if not block.labels or len(block.labels) > most or not isinstance(block.labels[0], s.Word):
        raise Unfit(block.head)
    return block.labels[0].name


def _stage(block: s.Block) -> dict[str, Any]:
    if block.kind is None:
        raise Unfit(block.head)
    kind = block.kind.name
    if kind == "rounds":
        raise Unfit(block.kind.span)
    return {"kind": kind} | _attributes(block.items, r.STAGES.get(kind))


def _rounds(block: s.Block) -> dict[str, Any]:
    stages: dict[str, Any] = {}
    allow: dict[str, Any] = {}
    for item in block.items:
        if isinstance(item, s.Allow):
            _allow(item, allow)
        elif isinstance(item, s.Block) and item.keyword.name == "stage":
            _put(stages, _name(item), _stage(item), item.head)
        else:
            raise Unfit(item.span)
    if len(block.labels) != 2:
        raise Unfit(block.head)
    count = block.labels[1]
    shown_count = count.name if isinstance(count, s.Word) else _number(count)
    found = {"kind": "rounds", "count": shown_count, "stages": stages}
    return found | ({"allow": allow} if allow else {})


def _variant(block: s.Block) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    sources: dict[str, Any] = {}
    allow: dict[str, Any] = {}
    for item in block.items:
        if isinstance(item, s.Allow):
            _allow(item, allow)
        elif isinstance(item, s.Assign) and item.at is None and item.claim is None:
            _put(changes, item.path.name, _plain(item.value), item.path.span)
            if item.origin:
                sources[item.path.name] = _origin(item.origin)
        else:
            raise Unfit(item.span)
    return {"set": changes} | _more(sources, allow)


def _expect(block: s.Block) -> dict[str, Any]:
    claims: dict[str, Any] = {}
    allow: dict[str, Any] = {}
    for item in block.items:
        if isinstance(item, s.Allow):
            _allow(item, allow)
        elif isinstance(item, s.Assign) and not (item.origin and item.origin.assumed):
            _more_than_once(claims, figure(item), _claim(item))
        else:
            raise Unfit(item.span)
    return claims | _more({}, allow)


def _claim(item: s.Assign) -> dict[str, Any]:
    claim: dict[str, Any] = {"value": _plain(item.value)}
    if item.claim:
        claim["within"] = _plain(item.claim.within)
        if reason := item.claim.reason:
            claim["contradicted" if reason.contradicted else "because"] = _text(reason.text)
    if item.origin:
        claim["cite"] = _text(item.origin.text)
    return claim


def _more_than_once(into: dict[str, Any], key: str, value: Any) -> None:
    """Puts a value under a key; if the key has one already, both become a list."""
    if key not in into:
        into[key] = value
    else:
        first = into[key]
        into[key] = [*(first if isinstance(first, list) else [first]), value]


def _allow(item: s.Allow, found: dict[str, Any]) -> None:
    _more_than_once(found, item.code.name, item.reason.value)


def _more(sources: dict[str, Any], allow: dict[str, Any]) -> dict[str, Any]:
    return ({"sources": sources} if sources else {}) | ({"allow": allow} if allow else {})


def _origin(origin: s.Origin) -> dict[str, Any]:
    return {"assumed" if origin.assumed else "cite": _text(origin.text)}


def _attributes(items: Sequence[s.Item], model: form.Model) -> dict[str, Any]:
    """The attributes of a block, by name."""
    given: dict[str, Any] = {}
    sources: dict[str, Any] = {}
    allow: dict[str, Any] = {}
    open_: dict[str, Any] = {}
    for item in items:
        match item:
            case s.Allow():
                _allow(item, allow)
            case s.Open():
                _put(open_, item.attribute.name, item.reason.value, item.span)
            case s.Assign(path=s.Path(words=[word]), at=None, claim=None):
                _put(given, word.name, _value(item.value, model, word.name), item.span)
                if item.origin:
                    sources[word.name] = _origin(item.origin)
            case s.Entry(word=s.Word(name)) if model and model.entries:
                _put(given, name, _value(item.value, model, name), item.span)
            case s.Every() if isinstance(r.kind_of(model, item.word.name), nk.Every):
                _put(given, item.word.name, _plain(form.in_steps(item.every)), item.span)
            case s.Keep() if isinstance(r.kind_of(model, item.word.name), nk.Keep):
                _put(given, item.word.name, shown(item).removeprefix("keep "), item.span)
            case s.Flag() if isinstance(r.kind_of(model, item.word.name), g.Mark):
                _put(given, item.word.name, True, item.span)
            case s.Filter() if r.kind_of(model, "filters"):
                given.setdefault("filters", []).append(shown(item))
            case s.Alike(s.Word("drop"), s.Word("similar"), ">") if r.kind_of(model, "similar"):
                _put(given, "similar", _plain(item.value), item.span)
            case s.Block(keyword=s.Word(name="gate"), labels=[s.Word(name="seq_len")]):
                _put(given, "gate", _gate(item), item.span)
            case s.Block(keyword=keyword, labels=[], kind=None):
                group = form.group(model, keyword.name)
                if group is None:
                    raise Unfit(item.span)
                _put(given, keyword.name, _attributes(item.items, group), item.span)
            case _:
                raise Unfit(item.span)
    others = form.TOP if model is r.Header else form.RESERVED
    if any(name in others and not form.has(model, name) for name in given):
        raise Unfit(items[0].span)
    return given | _more(sources, allow) | ({"open": open_} if open_ else {})


def _group(braces: s.Braces, model: form.Model) -> dict[str, Any]:
    """The attributes of a value in braces, which cannot contain `allow`."""
    for item in braces.items:
        if isinstance(item, s.Allow):
            raise Unfit(item.span)
    return _attributes(braces.items, model)


def _gate(block: s.Block) -> dict[str, Any]:
    given: dict[str, Any] = {"require": []}
    others = []
    for item in block.items:
        if isinstance(item, s.Require):
            given["require"].append(shown(item).removeprefix("require "))
        elif isinstance(item, s.Otherwise):
            _put(given, "otherwise", shown(item).removeprefix("otherwise "), item.span)
        else:
            others.append(item)
    return given | _attributes(others, r.Gate)


def _value(value: s.Value, model: form.Model, name: str) -> Any:
    """The value of an attribute."""
    kind = r.kind_of(model, name)
    if kind and kind.distinct and isinstance(value, s.Path) and len(value.words) == 1:
        return _plain(value) if value.name in kind.choices else {"let": value.name}
    match kind, value:
        case k.Text(), _:
            return _text(value)
        case g.Group(holds=group), s.Braces():
            return _group(value, group)
        case g.Tagged(), s.Tagged(tag=tag, braces=braces):
            alone = not braces.items and tag.name in kind.names
            return tag.name if alone else {"kind": tag.name} | _group(braces, kind.holds)
        case g.Tagged(many=True), s.List():
            return [_value(each, model, name) for each in value.items]
        case k.Suites(), s.Braces():
            return _suites(value)
        case nk.Every(), _:
            return _plain(form.in_steps(value))
    return _plain(value)


def _text(value: s.Value) -> Any:
    """A text, a list of texts, or the name of a `let` for a text."""
    match value:
        case s.Text():
            return value.value
        case s.List():
            return [_text(item) for item in value.items]
        case s.Path(words=[word]):
            return {"let": word.name}
    raise Unfit(value.span)


def _suites(value: s.Braces) -> dict[str, Any]:
    tasks: dict[str, Any] = {}
    for item in value.items:
        if not isinstance(item, s.Entry):
            raise Unfit(item.span)
        _put(tasks, shown(item.word), _text(item.value), item.span)
    return tasks


def _plain(value: s.Value) -> Any:
    """A number, a boolean, a list or a group; anything else as a string in the spec's syntax."""
    match value:
        case s.Number():
            return _number(value)
        case s.Path(words=[s.Word(name="true" | "false" as name)]):
            return name == "true"
        case s.List():
            return [_plain(item) for item in value.items]
        case s.Braces():
            pairs = [
                (shown(item.word), item.value) for item in value.items if isinstance(item, s.Entry)
            ]
            if len(dict(pairs)) == len(value.items):
                return {name: _plain(of) for name, of in pairs}
    return shown(value)


def _number(value: s.Number) -> Any:
    """A JSON number if that loses nothing, else a string."""
    exact = value.unit is None and _NUMERAL.fullmatch(value.text)
    digits = sum(c.isdigit() for c in value.text)
    return Numeral(value.text) if exact and digits <= MOST_DIGITS else value.text
