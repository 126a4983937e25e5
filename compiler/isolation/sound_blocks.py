"""Finds problems in the blocks that errors do not affect.

A block with an error is left out, together with every block that names it or continues from it; the
others are checked as if they were the whole spec. Dependence is judged by the words of a block,
which leaves out too much rather than too little: the findings are right, whatever the error hides.
Rules that need the whole spec (`Recipe.left_out`) are skipped.
"""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from math import inf
from typing import Any, NamedTuple, Protocol

from ...spec import syntax as s
from ...spec.findings.diagnostics import Diagnostic, Report
from ...spec.load import in_json
from ...spec.schema import recipe as r
from ...spec.source import Source, Span
from ...spec.text.keywords import BLOCKS
from ...spec.text.pieces import pieces
from .places import Put, home
from .repaired import REPAIRED, UNKNOWN, Repairs
from .stand_ins import Key, key
from .undeclared import names

MOST_ROUNDS = 10
"""How often blocks are left out: each pass may find errors that earlier ones could not see."""
MOST_TRIES = 4
"""How often a block is repaired: its errors may appear one after the other."""
MOST_REPAIRED = 20
"""If more blocks have errors, none is repaired."""
_CHOSEN = ("cluster", "tokenizer", "dialog")
"""Blocks of which a stage gets one by default."""
_TO_TEXT, _TO_REWARD = _LINES = (
    "what continues below {}",
    "what continues to reward models below {}",
)
"""What a stage that names nothing to continue from needs, by its kind."""
_WORD = re.compile(r"[A-Za-z_]\w*")
_PAIR = re.compile(r"\b([A-Za-z_]\w*)(?=[ \t]+([A-Za-z_]\w*))")
_NAMED = re.compile(r"(?:\s|#[^\n]*)*(?:expect\b|[a-z]+[ \t]+[A-Za-z_])")
_COMMENT = re.compile(r"#[^\n]*")
_NAMELESS = ("recipe", "expect")
"""Blocks that nothing refers to."""
_ORIGINS = {"from", "of", "model"}


class Driver(Protocol):
    """Binds and checks some blocks of a spec in the same way as the whole spec."""

    def bound(
        self, items: Sequence[s.Item], report: Report, left_out: frozenset[str]
    ) -> r.Recipe | None:
        """The recipe of some blocks; None, with a report, if they are wrong."""
        ...

    def borrowed(self, recipe: r.Recipe, items: Sequence[s.Item], report: Report) -> r.Recipe:
        """The recipe of some blocks, with the stages of variants that it names."""
        ...

    def part(self, items: Sequence[s.Item], left_out: frozenset[str]) -> Report:
        """All findings in some blocks, with blocks of certain keywords left out."""
        ...


def check_rest(kept: Sequence[s.Item], report: Report, driver: Driver) -> None:
    """Adds findings in blocks that are unaffected by the errors of a report.

    Args:
        kept: the statements of all files, after the changes of the variant and the command line.
        driver: checks the remaining blocks.
    """
    left_out: frozenset[str] = frozenset()
    errors = report.errors
    repairs = Repairs(kept)
    put = repairs.put
    nameless = _hides_a_name(kept, errors, put)
    if not nameless:
        unknown_names(kept, errors, report, driver)
    for turn in range(MOST_ROUNDS):
        before = kept
        nameless = nameless or _hides_a_name(kept, errors, put)
        repaired, beyond = repairs.repair(kept, errors if turn < MOST_TRIES else ())
        kept, more, silent = without(repaired, errors, beyond if turn < MOST_TRIES else None, put)
        repairs.silent |= silent
        same = kept == before and more <= left_out
        if not _whole(kept) or (same and (turn or not repairs.wrong)):
            return
        left_out |= more
        own = driver.part(kept, left_out)
        errors = own.errors
        for found in errors or own.diagnostics:
            if repairs.holds(kept, found) and not (found.code == UNKNOWN and nameless):
                _take(report, found)
        if not errors:
            report.silenced += own.silenced
            return


def _take(report: Report, found: Diagnostic) -> None:
    """Adds a finding; an unknown name only once, even if the suggestions differ."""
    known = [(d.span, d.message) for d in report.diagnostics if d.code == UNKNOWN]
    if (found.span, found.message) not in known:
        report.take(found)


def unknown_names(
    items: Sequence[s.Item], errors: Sequence[Diagnostic], report: Report, driver: Driver
) -> None:
    """Adds undeclared names in all blocks, including those with errors and those that depend on
    them."""
    hidden: set[str] = set()
    repairs = Repairs(items)
    kept = items
    for _ in range(MOST_TRIES):
        found = _hit(kept, errors, repairs.put)
        if found is None:
            return
        known, hit = found
        repaired, beyond = repairs.repair(kept, errors)
        now = iter(repaired)
        kept = []
        for place, item in enumerate(known):
            after = item if isinstance(item, Gap) else next(now)
            if place not in hit or (isinstance(after, s.Block) and key(after) not in beyond):
                assert not isinstance(after, Gap)
                kept.append(after)
            elif isinstance(after, s.Block) and after.keyword.name == "recipe":
                kept.append(_emptied(after))
            else:
                hidden |= _gives(item, place)
        own = Report()
        recipe = driver.bound(kept, own, frozenset(BLOCKS))
        if recipe and not own.failures:
            unfit = Report()
            whole = driver.borrowed(recipe, kept, unfit)
            for each in () if unfit.failures else names(whole):
                quoted = each.message.partition("`")[2].partition("`")[0]
                if hidden.isdisjoint(_WORD.findall(quoted)) and repairs.holds(kept, each):
                    _take(report, each)
            return
        errors = own.errors


class Gap(NamedTuple):
    """A stretch of text between statements that could not be parsed, and what it may declare.

    Attributes:
        nameless: whether its first block has no name.
    """

    keywords: frozenset[str]
    names: frozenset[str]
    nameless: bool


def _hides_a_name(items: Sequence[s.Item], errors: Iterable[Diagnostic], put: Put) -> bool:
    """Whether one of the blocks with errors has lost its name, which others may use."""
    known, hit = _hit(items, errors, put) or ([], set())
    return any(_nameless(known[place]) for place in hit)


def _nameless(item: s.Item | Gap) -> bool:
    if isinstance(item, s.Block):
        return item.keyword.name not in _NAMELESS and not any(
            isinstance(label, s.Word) for label in item.labels
        )
    return isinstance(item, Gap) and item.nameless


def without(
    items: Sequence[s.Item],
    errors: Iterable[Diagnostic],
    beyond: Collection[Key] | None,
    put: Put,
) -> tuple[list[s.Item], frozenset[str], set[Key]]:
    """The statements that no error affects, and the keywords of the others.

    None are left if it is unclear what an error hides. The `recipe` block stays, without its
    content. Repaired blocks stay too, if no other error affects them, along with the blocks that
    depend on no other error; these come last.

    Args:
        beyond: the blocks that could not be repaired; None: nothing is repaired.
        put: what changes have put into blocks: errors there count as errors of the blocks.
    """
    found = _hit(items, errors, put)
    if found is None:
        return [], frozenset(), set()
    known, hit = found
    depend = _Dependence(known)
    lost, names = depend.on(hit)
    left_out = frozenset().union(*(_left_out(known[place]) for place in lost))
    silent: set[int] = set()
    if beyond is not None and len(hit) <= MOST_REPAIRED:
        lost, silent = _spared(depend, hit, lost, beyond)
    kept: list[s.Item] = []
    for place, item in enumerate(known):
        if not isinstance(item, s.Block):
            kept += [] if place in lost or isinstance(item, Gap) else [item]
        elif item.keyword.name == "recipe":
            kept.append(_emptied(item) if place in lost else item)
        elif item.keyword.name == "expect" and names:
            claims = [each for each in item.items if _is_known(each, names)]
            kept += [item._replace(items=tuple(claims))] if place not in lost else []
        elif place not in lost:
            kept.append(item)
    return kept, left_out, {key(item) for n in silent if isinstance(item := known[n], s.Block)}


def _spared(
    depend: "_Dependence", hit: set[int], lost: set[int], beyond: Collection[Key]
) -> tuple[set[int], set[int]]:
    """The statements that are left out for good, and those that are kept without reporting on them,
    because they depend on repaired blocks only."""
    repaired = {
        place
        for place in hit
        if isinstance(item := depend.known[place], s.Block)
        and item.keyword.name in REPAIRED
        and key(item) not in beyond
    }
    alone = {place for place in repaired if place not in depend.on(hit - {place})[0]}
    gone = depend.on(hit - alone)[0]
    return gone, {
        place for place in lost - gone - alone if _keyword(depend.known[place]) in REPAIRED
    }


class _Dependence:
    """Which statements depend on which."""

    def __init__(self, known: Sequence[s.Item | Gap]) -> None:
        self.known = known
        self.needed: dict[str, list[int]] = defaultdict(list)
        self.implied: dict[str, list[str]] = defaultdict(list)
        above = -1
        for place, item in enumerate(known):
            for name in _needs(item, above):
                self.needed[name].append(place)
            if _in_line(item):
                for line in {*_LINES} - _bears(item):
                    self.implied[line.format(above)].append(line.format(place))
                above = place

    def on(self, places: Set[int]) -> tuple[set[int], set[str]]:
        """The statements at some places and all that depend on them, and what they declare."""
        lost, names = set(places), set()
        ahead = [name for place in places for name in _gives(self.known[place], place)]
        while ahead:
            name = ahead.pop()
            if name in names:
                continue
            names.add(name)
            ahead += self.implied[name]
            for place in self.needed[name]:
                if place not in lost:
                    lost.add(place)
                    ahead += _gives(self.known[place], place)
        return lost, names


def _hit(
    items: Sequence[s.Item], errors: Iterable[Diagnostic], put: Put
) -> tuple[list[s.Item | Gap], set[int]] | None:
    """The statements, with a gap for each that could not be parsed, and the places of those with
    errors.

    None if braces do not match, so that blocks cannot be told apart, if there is text outside of
    blocks, or if a file cannot be used.
    """
    spans: dict[Source, list[tuple[int, int, int]]] = defaultdict(list)
    for place, item in enumerate(items):
        spans[item.span.source].append((item.span.start, item.span.end, place))
    for of in spans.values():
        of.sort()  # in JSON they may come in any order
    hit: set[int] = set()
    gaps: dict[tuple[int, int], Gap] = {}
    for span in [error.span for error in errors]:
        span = home(span, put) if span else None
        if span is None or span.source not in spans:
            return None
        of = spans[span.source]
        after = bisect_right(of, (span.start, inf, 0))
        before = of[after - 1] if after else (0, 0, -1)
        if span.start < before[1]:
            if not isinstance(items[before[2]], s.Block | s.Let):
                return None
            hit.add(before[2])
            continue
        end = of[after][0] if after < len(of) else len(span.source.text)
        gap = None if in_json(span.source) else _gap(span.source.text[before[1] : end])
        if gap is None or pieces(span.source.text) is None:
            return None
        gaps[before[2], before[1]] = gap
    if not gaps:
        return list(items), hit
    found: list[s.Item | Gap] = []
    places: set[int] = set()
    ahead = sorted(gaps.items(), key=lambda each: each[0], reverse=True)
    for place in range(-1, len(items)):
        if place >= 0:
            if place in hit:
                places.add(len(found))
            found.append(items[place])
        while ahead and ahead[-1][0][0] == place:
            places.add(len(found))
            found.append(ahead.pop()[1])
    return found, places


def _gap(text: str) -> Gap | None:
    """What an unparsable text may declare; None if that is unclear."""
    words = _WORD.findall(_COMMENT.sub("", text))
    if not words or words[0] not in (*BLOCKS, "let"):
        return None
    pairs = _PAIR.findall(text)
    keywords = {words[0], *(first for first, _ in pairs)} & {*BLOCKS, "let", "use"}
    if "use" in keywords:
        return None
    names = [*words[1:2], *(second for _, second in pairs)]
    return Gap(frozenset(keywords), frozenset(names), not _NAMED.match(text))


def _gives(item: s.Item | Gap, place: int) -> set[str]:
    """What a statement declares, named as in `_needs`, including blocks that ended up in it."""
    after = {line.format(place) for line in _LINES}
    if isinstance(item, Gap):
        return {*after, *item.names, *(f"any {word}" for word in item.keywords)}
    if isinstance(item, s.Let):
        return {item.word.name}
    if not isinstance(item, s.Block):
        return set()
    found = {*after, f"any {item.keyword.name}"}
    blocks = [item]
    while blocks:
        block = blocks.pop()
        if block.keyword.name not in _NAMELESS:
            found |= {label.name for label in block.labels if isinstance(label, s.Word)}
        blocks += [each for each in block.items if isinstance(each, s.Block)]
    return found


def _needs(item: s.Item | Gap, above: int) -> set[str]:
    """The words of a statement, and what it gets without naming it.

    Args:
        above: the place of the stage above.
    """
    if isinstance(item, Gap) or _keyword(item) in ("recipe", "expect"):
        return set()
    found = set(_words(item))
    if not isinstance(item, s.Block) or item.keyword.name not in ("stage", "rounds"):
        return found
    for stage in _stages(item):
        given = _attributes(stage)
        model = _model(stage)
        speaks = model is None or "dialog" in r.attributes(model)
        found |= {
            f"any {name}" for name in _CHOSEN if name not in given and (name != "dialog" or speaks)
        }
        if not given & _ORIGINS:
            text = model is None or model.writes_text
            found.add((_TO_TEXT if text else _TO_REWARD).format(above))
    if item.keyword.name == "stage" and _INDEXED in found:
        found.add("any rounds")  # their number decides what there is to choose from
    return found


_INDEXED = "an index"


def _words(item: Any) -> Iterator[str]:
    """The names in a statement that may refer to others: not keywords, kinds or attributes."""
    if isinstance(item, s.Block):
        yield from (label.name for label in item.labels if isinstance(label, s.Word))
        for inner in item.items:
            if isinstance(inner, s.Assign) and item.keyword.name != "variant":
                yield from _words((inner.value,))
            else:
                yield from _words(inner)
        return
    for part in item:
        if type(part) is s.Word:
            yield part.name
        elif type(part) is not Span and isinstance(part, tuple):
            if type(part) is s.Indexed:
                yield _INDEXED
            yield from _words(part)


def _in_line(item: s.Item | Gap) -> bool:
    """Whether stages below may continue from this by default, as far as can be told."""
    keyword = _keyword(item)
    return not isinstance(item, s.Let) and (keyword in ("stage", "rounds") or keyword not in BLOCKS)


def _bears(item: s.Item | Gap) -> set[str]:
    """Which stages below certainly continue from this and from nothing above it."""
    models = [model for stage in _stages(item) if (model := _model(stage)) and model.continued]
    text = {_TO_TEXT} if any(model.writes_text for model in models) else set()
    return text | ({_TO_REWARD} if models else set())


def _stages(item: s.Item | Gap) -> Sequence[s.Item]:
    if not isinstance(item, s.Block) or item.keyword.name not in ("stage", "rounds"):
        return ()
    return item.items if item.keyword.name == "rounds" else (item,)


def _model(stage: s.Item) -> type[r.Stage] | None:
    """The class of a stage; None if its kind is unknown."""
    return r.STAGES.get(stage.kind.name) if isinstance(stage, s.Block) and stage.kind else None


def _attributes(stage: Any) -> set[str]:
    items = stage.items if isinstance(stage, s.Block) else ()
    return {item.path.name for item in items if isinstance(item, s.Assign)}


def _keyword(item: s.Item | Gap) -> str:
    return item.keyword.name if isinstance(item, s.Block) else ""


def _left_out(item: s.Item | Gap) -> frozenset[str]:
    """The keywords of the blocks that are lost with a statement."""
    return item.keywords if isinstance(item, Gap) else frozenset([_keyword(item)])


def _emptied(header: s.Block) -> s.Block:
    """The `recipe` block, reduced to the findings that it allows."""
    return header._replace(items=tuple(i for i in header.items if isinstance(i, s.Allow)))


def _is_known(claim: s.Item, lost: set[str]) -> bool:
    """Whether a claim is about a stage that is left, and not about the whole recipe."""
    words = claim.path.words if isinstance(claim, s.Assign) else ()
    return len(words) > 1 and words[0].name not in lost


def _whole(items: Sequence[s.Item]) -> bool:
    """Whether there is a header, and a stage to check."""
    keywords = {_keyword(item) for item in items}
    return "recipe" in keywords and bool(keywords & {"stage", "rounds"})
