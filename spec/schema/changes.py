"""Changes of a `variant` or of `--set`, made to the statements of a recipe before they are bound.

So a changed recipe is what the edited text would give, with two differences: the places of changes
are in the variant or in the pseudo-file `--set 1`, and the claims are left out, because they are
about the unchanged recipe.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from .. import syntax as s
from ..findings.diagnostics import Report, did_you_mean
from ..source import SET, Source, Span
from . import group_kinds as g
from . import kinds as k
from . import recipe as r
from .convert_schedule import Placement, ScheduleOf

_NAMED = ("stage", "rounds", "model", "dataset", "tokenizer", "dialog", "verifier", "cluster")
"""Blocks whose attributes a path may name. The first that has the name counts, unless the path
begins with the keyword."""
_PATH = re.compile(r"[A-Za-z_][\w.\[\]]*")
Model = type[r.Declaration] | None
_WHOLE = "write it as a whole"


class Change(NamedTuple):
    """`path = value`."""

    path: s.Path
    value: s.Value
    origin: s.Origin | None
    span: Span


def change(item: s.Item, report: Report) -> Change | None:
    """The change that a statement of a variant makes, or None after reporting."""
    if isinstance(item, s.Assign) and item.claim is None and item.at is None:
        return Change(item.path, item.value, item.origin, item.span)
    report.add(
        "E341",
        "this is not a change",
        item.span,
        help="write a path and a value: `pretrain.lr = 1e-3`",
    )
    return None


def changes(block: s.Block, report: Report) -> list[Change]:
    """The changes of a variant; reports what is not a change or is given twice."""
    found: dict[str, Change] = {}
    for item in block.items:
        made = change(item, report)
        if made and made.path.name in found:
            report.add(
                "E309",
                f"`{made.path.name}` is given twice",
                made.path.span,
                notes=[(found[made.path.name].path.span, "first given here")],
            )
        elif made:
            found[made.path.name] = made
    return list(found.values())


def _of_command_line(sets: Sequence[str], report: Report, parse: Any) -> list[Change]:
    found = []
    for number, text in enumerate(sets, 1):
        source = Source(f"{SET}{number}", text)
        path, equals, _ = text.partition("=")
        if not path.strip() or (not equals and _PATH.fullmatch(path.strip())):
            shown = path.strip() or "pretrain.lr"
            value = "1e-3" if shown.endswith("lr") else "…"
            report.add(
                "E341",
                f"`{shown}` has no value here" if path.strip() else "the path is missing",
                Span(source, len(text), len(text) + 1) if equals == "" else Span(source, 0, 1),
                help=f"write a path and a value: --set {shown}={value}",
            )
            continue
        if text.rstrip().endswith("="):
            report.add(
                "E101",
                "a value is missing here",
                Span(source, len(text) - 1, len(text)),
                help="write a value after it",
            )
            continue
        before = report.failures
        items = parse(source, report)
        if report.failures > before:
            continue
        if len(items) != 1:
            report.add(
                "E341",
                "this is not one change",
                Span(source, 0, max(len(text), 1)),
                help="write a path and a value: --set pretrain.lr=1e-3",
            )
            continue
        made = change(items[0], report)
        if made:
            found.append(made)
    return found


def changed(
    items: Iterable[s.Item], report: Report, *, variant: str = "", sets: Sequence[str] = ()
) -> list[s.Item]:
    """The statements after the changes of a variant and then those of the command line.

    Reports what cannot be changed.
    """
    from ..text.parse import parse

    items = list(items)
    wanted: list[Change] = []
    if variant:
        variants = {
            item.labels[0].name: item
            for item in reversed(items)
            if isinstance(item, s.Block)
            and item.keyword.name == "variant"
            and item.labels
            and isinstance(item.labels[0], s.Word)
        }
        if variant not in variants:
            help = did_you_mean(variant, variants) or "declare it: variant NAME { … }"
            report.add("E402", f"there is no variant `{variant}`", None, help=help)
        else:
            # Errors in the variant itself are reported when it is bound.
            wanted += changes(variants[variant], Report())
    if wanted or sets:  # claims are about the recipe as it is written
        items = [
            item
            for item in items
            if not (isinstance(item, s.Block) and item.keyword.name == "expect")
        ]
    wanted += _of_command_line(sets, report, parse)
    changer = _Changer(items, report)
    for each in wanted:
        changer.make(each)
    return changer.items


class _Changer:
    def __init__(self, items: list[s.Item], report: Report) -> None:
        self.items = items
        self.report = report
        self.lets: dict[str, int] = {}
        self.blocks: dict[tuple[str, str], int] = {}
        for number, item in enumerate(items):
            if isinstance(item, s.Let):
                self.lets.setdefault(item.word.name, number)
            elif isinstance(item, s.Block) and item.labels:
                label = item.labels[0]
                if isinstance(label, s.Word):
                    self.blocks.setdefault((item.keyword.name, label.name), number)

    def make(self, change: Change) -> None:
        """Makes a change, or reports why it cannot be made."""
        words = list(change.path.words)
        first = words[0].name
        if len(words) == 1:
            self._let(change)
            return
        if first == "recipe":
            number = next((n for (k, _), n in self.blocks.items() if k == "recipe"), None)
            if number is not None:
                self._attribute(number, words[1:], change)
            return
        if first in _NAMED and (first, words[1].name) in self.blocks and len(words) > 2:
            self._block(self.blocks[first, words[1].name], words[2:], change)
            return
        of_name = [self.blocks[k, first] for k in _NAMED if (k, first) in self.blocks]
        if not of_name:
            names = {name for keyword, name in self.blocks if keyword in _NAMED}
            self._unknown(
                f"there is no `{first}` to change",
                words[0].span,
                did_you_mean(first, names | {"recipe"}),
            )
        elif len(of_name) > 1:
            keywords = [k for k in _NAMED if (k, first) in self.blocks]
            self._unknown(
                f"`{first}` is both a {' and a '.join(keywords)}",
                words[0].span,
                f"write `{keywords[0]}.{change.path.name} = …`, or begin with `{keywords[1]}.`",
            )
        else:
            self._block(of_name[0], words[1:], change)

    def _unknown(self, message: str, span: Span, help: str) -> None:
        self.report.add("E342", message, span, help=help)

    def _let(self, change: Change) -> None:
        name = change.path.name
        if name in self.lets:
            let = self.items[self.lets[name]]
            assert isinstance(let, s.Let)
            self.items[self.lets[name]] = let._replace(value=change.value)
            return
        help = "attributes are written with their block: `pretrain.lr = …`"
        if self.lets:
            help = did_you_mean(name, self.lets)
        self._unknown(f"there is no `let {name}` to change", change.path.span, help)

    def _block(self, number: int, words: Sequence[s.Word], change: Change) -> None:
        """Changes a block, or a stage in rounds."""
        block: Any = self.items[number]
        if block.keyword.name != "rounds":
            self._attribute(number, words, change)
        elif len(words) == 1 and words[0].name == "rounds" and len(block.labels) > 1:
            count = change.value
            if isinstance(count, s.Path) and len(count.words) == 1:
                count = count.words[0]
            if isinstance(count, s.Number | s.Word):
                self.items[number] = block._replace(labels=(block.labels[0], count))
            else:
                self.report.add(
                    "E201",
                    "this must be a number of rounds",
                    count.span,
                    help=f"write `{change.path.name} = 2`",
                )
        else:
            self._of_rounds(number, block, words, change)

    def _of_rounds(
        self, number: int, block: s.Block, words: Sequence[s.Word], change: Change
    ) -> None:
        stages = {
            item.labels[0].name: place
            for place, item in enumerate(block.items)
            if isinstance(item, s.Block) and item.labels and isinstance(item.labels[0], s.Word)
        }
        name = block.labels[0].name  # type: ignore[union-attr]
        if words[0].name not in stages or len(words) < 2:
            known = words[0].name in stages
            self._unknown(
                f"`{name}.{words[0].name}` is a stage: the attribute is missing"
                if known
                else f"there is no stage `{words[0].name}` in the rounds `{name}`",
                words[0].span,
                f"write `{change.path.name}.lr = …`"
                if known
                else did_you_mean(words[0].name, [*stages, "rounds"]),
            )
            return
        inner = list(block.items)
        place = stages[words[0].name]
        inner[place] = self._with(inner[place], words[1:], change)
        self.items[number] = block._replace(items=tuple(inner))

    def _attribute(self, number: int, words: Sequence[s.Word], change: Change) -> None:
        self.items[number] = self._with(self.items[number], words, change)

    def _with(self, block: Any, words: Sequence[s.Word], change: Change) -> Any:
        """The block with a new value of an attribute, or of a part of one."""
        model = r.block_model(block.keyword.name, block.kind and block.kind.name)
        if not _is_part(words, model):
            self._unknown(
                f"`{change.path.name}` is not an attribute",
                change.path.span,
                "paths end with an attribute, or with a part of a group: "
                "`pretrain.optimizer.weight_decay`",
            )
            return block
        name = words[0].name
        if len(words) > 1:
            part = self._part(block.items, words, change, model)
            return block if part is None else self._put(block, {name}, part)
        if _is(change.value, "default"):
            new, others = None, {name}
        else:
            new, others = _item(words[0], change, model), _rivals(model, name)
        return _without_orphans(block, self._put(block, others, new), model)

    def _put(self, block: s.Block, names: set[str], new: s.Item | None) -> s.Block:
        """The block with `new` in place of the statements that set the attributes `names`."""
        return block._replace(items=_replaced(block.items, names, new))

    def _part(
        self, items: Sequence[s.Item], words: Sequence[s.Word], change: Change, model: Model
    ) -> s.Item | None:
        """The statement of an attribute that is a group, with a new value of one part.

        Args:
            items: of the block or group that has the attribute.
        """
        name, part, *deeper = words
        old = next((item for item in items if _gives(item, {name.name})), None)
        value: Any = old.value if isinstance(old, s.Assign | s.Entry) else None
        if isinstance(value, s.Path) and value.name in self.lets:
            value = self.items[self.lets[value.name]].value  # type: ignore[union-attr]
        if isinstance(old, s.Block) and not old.labels:
            value = s.Braces(old.items, old.span)
        kind = r.kind_of(model, name.name)
        if isinstance(kind, g.Tagged) and isinstance(value, s.Path) and value.name in kind.tags:
            value = s.Tagged(value.words[0], s.Braces((), value.span), value.span)
        if old is None and _may_begin(kind):
            value = s.Braces((), change.span)
        braces = value.braces if isinstance(value, s.Tagged) else value
        if not isinstance(braces, s.Braces):
            whole = ".".join(word.name for word in change.path.words[:-1])
            what = "it is a schedule" if isinstance(value, s.Schedule) else "it has no parts"
            what = "it is not in this block" if old is None else what
            self.report.add(
                "E343",
                f"no part of `{whole}` can be changed: {what}",
                change.path.span,
                help=f"{_WHOLE}: `{whole} = …`, or `{whole} = default` to remove it",
            )
            return None
        entries = isinstance(kind, ScheduleOf) or any(isinstance(i, s.Entry) for i in braces.items)
        if deeper:
            new = self._part(braces.items, words[1:], change, kind and kind.model)
            if new is None:
                return None
        else:
            new = _item(part, change, kind and kind.model)
        if _is(change.value, "default") and not deeper:
            new = None
        elif entries:
            new = s.Entry(part, change.value, change.span)  # type: ignore[arg-type]
        group = braces._replace(items=_replaced(braces.items, {part.name}, new), span=change.span)
        whole = group if value is braces else value._replace(braces=group, span=change.span)
        return s.Assign(s.Path((name,), name.span), None, whole, None, change.origin, change.span)


def _is_part(words: Sequence[s.Word], model: Model) -> bool:
    """Whether a path leads to an attribute, to a part of one, or through nested groups."""
    for outer, inner in pairwise(words[:-1]):
        kind = r.kind_of(model, outer.name)
        model = kind and kind.model
        if not isinstance(r.kind_of(model, inner.name), g.Group):
            return False
    return True


def _is(value: s.Value, name: str) -> bool:
    return isinstance(value, s.Path) and value.name == name


def _item(word: s.Word, change: Change, model: Model) -> s.Item | None:
    """The statement that sets an attribute; None for a flag that is off."""
    value = change.value
    match r.kind_of(model, word.name):
        case g.Mark() if _is(value, "true") or _is(value, "false"):
            return s.Flag(word, change.span) if _is(value, "true") else None
        case g.Alike() if isinstance(value, s.Number | s.Path):
            return s.Alike(s.Word("drop", word.span), word, ">", value, change.span)
    path = s.Path((word,), word.span)
    return s.Assign(path, None, value, None, change.origin, change.span)


def _rivals(model: Model, name: str) -> set[str]:
    """An attribute and those that it excludes."""
    ways = model.ways if model else ()
    return {name}.union(*(way for way in ways if name in way))


def _may_begin(kind: k.Kind | None) -> bool:
    """Whether setting one part creates the group, if the block does not have it yet."""
    if isinstance(kind, g.Group):
        return not any(of.required for of in r.attributes(kind.holds).values())
    return isinstance(kind, ScheduleOf) and isinstance(kind.operand, Placement)


def _without_orphans(old: s.Block, new: s.Block, model: Model) -> s.Block:
    """The changed block without attributes that depended on ones that are gone."""
    orphans = set()
    for name, of in r.attributes(model).items() if model else ():
        had, has = (
            any(_gives(item, set(of.needs)) for item in block.items) for block in (old, new)
        )
        if had and not has:
            orphans.add(name)
    return new._replace(items=_replaced(new.items, orphans, None)) if orphans else new


def _gives(item: s.Item, names: set[str]) -> bool:
    """Whether a statement sets one of the attributes."""
    match item:
        case s.Assign():
            return len(item.path.words) == 1 and item.path.name in names
        case s.Entry() | s.Every() | s.Keep() | s.Flag():
            return item.word.name in names
        case s.Block():
            return item.keyword.name in names
        case s.Alike():
            return item.what.name in names
        case s.Open():
            return item.attribute.name in names
    return False


def _replaced(items: tuple[s.Item, ...], names: set[str], new: s.Item | None) -> tuple[s.Item, ...]:
    """The statements with `new` in place of those that set the attributes `names`."""
    found: list[s.Item] = []
    for item in items:
        if not _gives(item, names):
            found.append(item)
        elif new is not None:
            found.append(new)
            new = None
    return (*found, new) if new is not None else tuple(found)
