"""Checks blocks with errors further, with the wrong parts replaced.

A statement with an error is removed from its block; if the block cannot do without it, a stand-in
replaces it. Findings of later passes in such a block are shown only if they follow from its other
attributes alone (`DEPENDS`): better to show too little than something wrong.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ...spec import syntax as s
from ...spec.findings.diagnostics import Diagnostic, did_you_mean
from ...spec.schema import recipe as r
from ...spec.source import Span
from ...spec.text.reader import BRACES
from .places import Found, Index, holds, place_of, put_into, with_block, without
from .stand_ins import Key, StandIns, blocks, key, statement_name
from .undeclared import UNKNOWN

_ANY = "?"
"""Prefix for the name of an unknown statement, which may be a misspelling of a missing one."""
_LENGTH = "steps|tokens|epochs"
_START = "from|model"
_MEASURES = "loss|needle|accuracy|judge|verify|suites"
_CLOCK = (_LENGTH, "batch", "seq_len", "parallel", "cluster", _START)
_MESH = ("parallel", "cluster", "tokenizer", "rope_scaling", _START)
_SHAPE = (
    "family",
    "size",
    "layers",
    "dim",
    "heads",
    "kv_heads",
    "head_dim",
    "ffn",
    "vocab",
    "latent",
    "experts",
    "rope_scaling",
)
DEPENDS: dict[str, tuple[str, ...]] = {
    "E404": ("from", "model"),
    "E405": (_START, "model", "from"),
    "E406": (),
    "E407": (_LENGTH,),
    "E408": (_START,),
    "E409": (_START,),
    "E410": (_START, "average"),
    "E411": (_START, "tokenizer", "teacher"),
    "E412": ("cluster", "tokenizer", "dialog", _START),
    "E413": ("gpus|cpus",),
    "E414": (),
    "E415": ("family",),
    "E417": (*_SHAPE, "weights", "hub", "context"),
    "E418": _SHAPE,
    "E419": ("family", "latent", "experts", "parts"),
    "E420": (_START, "rope_scaling", "reference|of"),
    "E421": ("of",),
    "E422": (_MEASURES,),
    "E423": ("files|hub|sample|tokenized",),
    "E424": ("file|hub|bytes|train",),
    "E425": (),
    "E426": ("weights", "hub"),
    "E428": ("mtbf",),
    "E429": ("torchtitan", "cluster"),
    "E431": _MESH,
    "E432": ("parallel", "cluster"),
    "E433": _MESH,
    "E434": ("cluster",),
    "E435": (*_CLOCK, *_MESH, "precision", "recompute"),
    "E436": (*_MESH, "precision"),
    "E437": (*_CLOCK, *_MESH, "precision"),
    "E438": (*_MESH, "optimizer", "torchtitan"),
    "E441": _CLOCK,
    "E442": _CLOCK,
    "E443": (_LENGTH, "data"),
    "E444": (_START,),
    "E445": (_START, "data"),
    "E446": (),
    "E447": _CLOCK,
    "E448": (),
    "E450": (_START,),
    "E449": (_START,),
    "E451": (*_CLOCK, *_MESH, "layout", "precision", "recompute"),
    "E452": (*_CLOCK, *_MESH),
    "E453": ("from",),
    "E454": (),
    "E455": _CLOCK,
    "E456": _CLOCK,
    "E457": _CLOCK,
    "E458": ("data", "batch"),
    "E459": (_LENGTH, "data", "batch"),
    "E464": (),
    "E465": (_START,),
    "E466": _CLOCK,
    "E467": ("balance", _START),
    "E468": ("mtp_loss", "adapter", _START),
    "E483": _MESH,
    "E484": (*_MESH, "torchtitan"),
    "E485": (*_CLOCK, *_MESH),
    "E486": (*_MESH, "torchtitan"),
    "E487": _MESH,
    "E488": (*_MESH, "mtp_loss", _START),
    "E493": ("kind",),
    **dict.fromkeys(("E501", "E502", "E503", "E504", "E505"), ()),
    "E511": (),
    "E512": (_START, "of", _MEASURES),
    "E513": (),
    "E514": ("kind",),
    "E516": ("awaited", "files", "kind"),
    "E517": ("protocol|template|header", "end_of_turn", "roles"),
    "E518": (),
    "E519": (),
    "E520": (_MEASURES,),
    "E521": ("keep", "draws", "judge", "verify"),
    "E522": (_MEASURES, "on_policy"),
    "E523": ("sample", "kind"),
    "E524": ("kind", "pattern", "options", "schema", "most", "least", "soft"),
    "E526": ("kind",),
    "E527": ("objective", "label_smoothing"),
    "E528": ("teacher", _START),
    "E529": ("on_policy", "batch", "prompts", "max_tokens", _LENGTH, _START),
    "E535": ("kind",),
    "E536": ("dialog", _START),
    "E541": ("rope_scaling.low", "rope_scaling.high"),
    "E545": ("tokenized", "kind"),
    "E546": ("tokenized|train",),
    "E550": ("kind",),
    "E551": (),
    "E564": ("precision", "cluster", _START),
    "E565": ("recompute", "torchtitan", "cluster", _START),
    "E566": (_START,),
    "E568": (
        *("dispatcher", "parallel", "precision", "recompute", "cluster", "torchtitan", "experts"),
        _START,
    ),
    "E567": ("attention", "precision", "batch", "cluster", "torchtitan", _START),
    "E572": _CLOCK,
    "E581": (*_CLOCK, "max_tokens"),
    "E582": (),
    "E583": ("refresh",),
    "E584": (),
    "E585": ("loss", "by", "patience", "keep"),
    "E586": (*_CLOCK, "rope_theta", "gate", "average", "ema", "patience", "keep"),
    "E587": _CLOCK,
    "E588": (),
    "E589": ("reward",),
    "E590": ("reward",),
    "E573": (_START,),
    "E574": (_START,),
    "E575": (_START,),
    "E592": (*_SHAPE, "parts", "window", "rope_theta", "rope_scaling", _START),
    "E594": ("export",),
    "E595": ("seq_len", _START),
    "E596": (),
    "E597": ("optimizer", "optimizer.qk_clip", "adapter", _START),
    UNKNOWN: (),
}
"""Error → the attributes of its block that it depends on, besides the one where it is shown; `a|b`
means whichever of them is given."""
_AT_HEAD = {"E405", "E407", "E408", "E412", "E413", "E417", "E422", "E423", "E424", "E517", "E524"}
"""Errors of a block as a whole, about what it lacks."""
_OF_OTHERS = {"from", "model", "of", "data", "judge", "prompts", "reference", "teacher"}
"""Attributes that refer to other stages."""
_IMPLIED = {"E417": "tokenizer"}
"""Errors that may come from a block that the other one does not name: a model's `vocab`."""
_STEPPED = {"E441", "E447", "E455", "E456", "E457"}
_OF_CLOCK = {"seq_len", "batch"}
_BEGINS = re.compile(r"(?:^|[\n,{])\s*([A-Za-z_][\w.]*)(?=\s*[={]|\s+every\b)")
"""The name of an attribute at the beginning of a statement."""
_NEEDS = re.compile(r"\bneeds `(\w+)`|`(\w+)` is missing")
_LACKS = {"E407": "steps", "E422": "loss", "E423": "sample", "E405": "model"}
REPAIRED = {*r.BLOCKS, "stage", "rounds"} - {"recipe"}
"""The blocks that are repaired."""


class Repairs:
    """Removes what is wrong, and remembers it.

    Attributes:
        put: what a variant or `--set` has put into blocks.
        wrong: the removed attributes of each block.
        silent: blocks whose findings are all dropped, because they depend on such blocks.
        unread: blocks with statements that could not be parsed.
    """

    def __init__(self, items: Sequence[s.Item]) -> None:
        self.put = put_into(items)
        self.wrong: dict[Key, set[str]] = {}
        self.silent: set[Key] = set()
        self.unread: set[Key] = set()
        self._given = {key(b): {statement_name(i) for i in b.items} for b in blocks(items)}
        self._as_read = {key(b): b for b in blocks(items)}
        self._keywords = {of: block.keyword.name for of, block in self._as_read.items()}
        self._stand_ins = StandIns(items)
        self._index = Index(items, self.put)

    def repair(
        self, items: Sequence[s.Item], errors: Iterable[Diagnostic]
    ) -> tuple[list[s.Item], set[Key]]:
        """The statements without what is wrong, and the blocks that could not be repaired."""
        found = list(items)
        beyond: set[Key] = set()
        places = {key(item): n for n, item in enumerate(found) if isinstance(item, s.Block)}
        index = Index(found, self.put)
        replaced: set[Span] = set()
        for error in errors:
            at = index.block(error.span)
            if at is None:
                continue
            at = found[places[key(at)]]  # with the earlier errors already repaired
            assert isinstance(at, s.Block)
            place = place_of(at, error.span) if error.span else None
            if place and place.path and error.span:
                if error.span in replaced:
                    continue  # what is there now stands in for the statement
                replaced.add(error.span)
            repaired = self._repaired(at, error) if at.keyword.name in REPAIRED else None
            if repaired is None:
                beyond.add(key(at))
            else:
                found[places[key(at)]] = repaired
        return found, beyond

    def holds(self, items: Sequence[s.Item], error: Diagnostic) -> bool:
        """Whether a finding is independent of what was removed from its block."""
        if self._index.items is not items:
            self._index = Index(items, self.put)
        at = self._index.block(error.span)
        place = place_of(at, error.span) if at and error.span else None
        if place is None:
            return True
        wrong = self.wrong.get(key(place.block))
        if at and (key(at) in self.silent or self._beside(at, place.block, error.code)):
            return False
        code, path = error.code, place.path
        if any(self._keywords[each] == _IMPLIED.get(code) for each in self.wrong):
            return False
        if not wrong:
            return True
        if code not in DEPENDS or (not path and code not in _AT_HEAD):
            return False
        if not path and key(place.block) in self.unread:  # it may have what it seems to lack
            return False
        if _touches(path, wrong) or ((missing := _missing(error)) and _touches(missing, wrong)):
            return False
        given = self._given.get(key(place.block), set())
        return not any(_hidden(each.split("|"), wrong, given) for each in _depends(code, place))

    def _beside(self, at: s.Block, block: s.Block, code: str) -> bool:
        """Whether a finding in a stage of rounds may come from another wrong stage there."""
        stages = at.items if at.keyword.name == "rounds" else ()
        others = (each for each in stages if isinstance(each, s.Block) and key(each) != key(block))
        if not any(self.wrong.get(key(other)) for other in others):
            return False
        depends = {name for each in DEPENDS.get(code, ("of",)) for name in each.split("|")}
        return not depends.isdisjoint(_OF_OTHERS)

    def _repaired(self, at: s.Block, error: Diagnostic) -> s.Block | None:
        place = place_of(at, error.span) if error.span else None
        if place is None:
            return None
        block = place.block
        name = place.path or _missing(error)
        if not name:
            return self._without_unread(at, block, error)
        wrong = self.wrong.setdefault(key(block), set())
        if error.code in ("E308", "E310", "E311"):
            wrong.add(_ANY + (name if error.code == "E308" else ""))
        again = name in wrong
        wrong.add(name)
        inner = place.inner
        kept: list[s.Item] = []
        for item in block.items:
            if not place.path or error.span is None or not holds(item, error.span):
                kept.append(item)
            elif inner:
                kept.append(without(item, error.span))
        if not inner and not again and not any(statement_name(item) == name for item in kept):
            span = error.span if place.path and error.span else block.head
            stand_in = self._stand_ins.of(block._replace(items=tuple(kept)), name, span)
            if stand_in:
                kept.append(stand_in)
                wrong.add(statement_name(stand_in))
        return (
            None
            if tuple(kept) == block.items
            else with_block(at, block._replace(items=tuple(kept)))
        )

    def _without_unread(self, at: s.Block, block: s.Block, error: Diagnostic) -> s.Block | None:
        """The block with stand-ins for the statements that could not be parsed; None if it is
        unclear which these are."""
        names = _unread(self._as_read[key(block)], error)
        if not names:
            return None
        self.unread.add(key(block))
        model = r.block_model(block.keyword.name, block.kind and block.kind.name)
        known = r.attributes(model) if model else {}
        wrong = self.wrong.setdefault(key(block), set())
        for name in names - wrong:
            wrong |= {name} if name in known else {name, _ANY + name}
            stand_in = self._stand_ins.of(block, name, error.span or block.head)
            if stand_in and not any(statement_name(item) == name for item in block.items):
                block = block._replace(items=(*block.items, stand_in))
                wrong.add(statement_name(stand_in))
        return with_block(at, block)


def _unread(block: s.Block, error: Diagnostic) -> set[str]:
    """The attributes in a stretch of a block that could not be parsed and was left out."""
    span = error.span
    if span is None or not error.code.startswith("E1"):
        return set()
    text = span.source.text
    before = [item.span.end for item in block.items if item.span.end <= span.start]
    after = [item.span.start for item in block.items if item.span.start > span.start]
    opening = text.find("{", block.head.end if block.head else block.span.start)
    start = max(before, default=opening + 1)
    stretch = text[start : min(after, default=block.span.end)]
    return set(_BEGINS.findall(BRACES.sub(lambda m: " " if m[0][0] in '"#' else m[0], stretch)))


def _hidden(one_of: list[str], wrong: set[str], given: set[str]) -> bool:
    """Whether an attribute, or one of several, is unknown: it is wrong, or it is missing and an
    unknown name may be a misspelling of it."""
    if any(_touches(name, wrong) for name in one_of):
        return True
    unknown = [name.removeprefix(_ANY) for name in wrong if name.startswith(_ANY)]
    if not unknown or not given.isdisjoint(one_of):
        return False
    return len(one_of) > 1 or any(
        not name or did_you_mean(name, one_of).startswith("did") for name in unknown
    )


def _depends(code: str, place: Found) -> tuple[str, ...]:
    """What an error depends on. In a stage with a length in steps, the end of a schedule in steps
    does not depend on the tokens per step."""
    if code in _STEPPED and place.path not in _OF_CLOCK:
        items = {statement_name(item): item for item in place.block.items}
        if "steps" in items and place.path in items and not _has_tokens(items[place.path]):
            return ("steps", *((_START,) if "last" in _words(items[place.path]) else ()))
    return DEPENDS[code]


def _has_tokens(item: s.Item) -> bool:
    """Whether a schedule has, or may have, bounds in tokens."""
    ends = [part.quantity for part in _parts(item) if isinstance(part, s.Bound)]
    ends += [part.over for part in _parts(item) if isinstance(part, s.Periodic) and part.over]
    return not all(
        isinstance(end, s.Number)
        and (end.percent or (end.unit and end.unit.name in ("step", "steps")))
        for end in ends
    )


def _parts(node: Any) -> Iterator[Any]:
    yield node
    for part in node:
        if isinstance(part, tuple) and type(part) is not Span:
            yield from _parts(part)


def _words(item: s.Item) -> set[str]:
    return {part.name for part in _parts(item) if type(part) is s.Word}


def _missing(error: Diagnostic) -> str:
    """The attribute that an error says is missing."""
    match = _NEEDS.search(error.message)
    return match[1] or match[2] if match else _LACKS.get(error.code, "")


def _touches(name: str, wrong: set[str]) -> bool:
    """Whether an attribute is wrong, or is inside a wrong one, or contains one."""
    return name in wrong or any(
        each.startswith(f"{name}.") or name.startswith(f"{each}.") for each in wrong
    )
