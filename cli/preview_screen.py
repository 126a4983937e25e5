"""Shows previews on a terminal."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from ..compiler.plan.objectives import scores
from ..compiler.plan.plan import Distill, Dpo, Kto, Prm, Reward, Sft
from ..runtime.preview import Part, Preview, Refused, Shown, Use
from .preview_text import Look, Span, Style, lines

GUTTER = 13
LONGEST = 1200
"""Of longer parts, only the beginning and the end are shown."""
DOCUMENTS = 5
"""If a row has more documents, only the first and the last are shown."""
REFUSALS = 5


class Screen:
    """Prints previews.

    Args:
        full: whether to show everything in full.
    """

    def __init__(self, style: Style, *, full: bool) -> None:
        self._style = style
        self._full = full
        self._said: set[str] = set()

    def show(self, preview: Preview) -> None:
        if not self._said:
            self._legend()
        self._head(preview.use)
        for note in preview.notes:
            if note not in self._said:
                self._text(note if note.startswith("warning: ") else f"note: {note}", "  ")
                self._said.add(note)
        for item in preview.items:
            if isinstance(item, Shown):
                self._record(preview, item)
        self._summary(preview)

    def _legend(self) -> None:
        style = self._style
        learned = "green" if style.color else f"{style.opens}in brackets{style.closes}"
        text = f"what is learned is {learned}; {style.newline} is a line feed"
        print(style.painted(text, "protocol"))
        self._said.add(text)

    def _head(self, use: Use) -> None:
        style = self._style
        title = f"{use.stage} {use.purpose} {use.source}"
        rule = style.rule * max(style.width - len(title) - 4, 3)
        mark = "\033[1m" if style.color else ""
        print(f"\n{style.rule * 2} {mark}{title}{chr(27) + '[0m' if mark else ''} {rule}")
        self._text(_about(use), "  ")

    def _text(self, text: str, indent: str) -> None:
        text = "".join(self._style.visible(c) or c for c in text)
        wrapped = textwrap.fill(
            text, self._style.width, initial_indent=indent, subsequent_indent=indent + "  "
        )
        print(wrapped)

    def _record(self, preview: Preview, shown: Shown) -> None:
        row = preview.use.data.form == "documents" and not shown.place
        what = [f"{'row' if row else 'record'} {shown.record}"]
        what += [shown.place] if shown.place else []
        what += [_counts(preview, shown)]
        print()
        self._text("  ".join(what), "")
        for branch, parts in groupby(shown.parts, key=lambda part: part.branch):
            if branch:
                own = list(parts)
                print(f"  {self._style.rule} {branch}{_compared(preview.use, own)}")
                self._messages(own)
            elif preview.use.data.form == "documents":
                self._documents(list(parts))
            else:
                self._messages(list(parts))

    def _documents(self, parts: Sequence[Part]) -> None:
        documents = [list(own) for _, own in groupby(parts, key=lambda part: part.document)]
        hidden = len(documents) - DOCUMENTS
        for number, own in enumerate(documents):
            if hidden > 0 and not self._full and DOCUMENTS - 1 <= number < len(documents) - 1:
                if number == DOCUMENTS - 1:
                    print(f"  {self._style.rule} {self._style.more} {hidden:,} more")
                continue
            self._text(f"{self._style.rule} {own[0].document}", "  ")
            self._spans(own, "    ", "    ")

    def _messages(self, parts: Sequence[Part]) -> None:
        for (_, name), own in groupby(parts, key=lambda part: (part.message, _group(part.kind))):
            label = "  " + name.ljust(GUTTER - 2)
            self._spans(list(own), label, " " * GUTTER)

    def _spans(self, parts: Sequence[Part], first: str, indent: str) -> None:
        label = self._style.painted(first, "protocol")
        for stretch in self._stretches(parts):
            if isinstance(stretch, str):
                print(indent + self._style.painted(stretch, "sign"))
                continue
            for line in lines(stretch, self._style, self._style.width - len(indent)):
                print(f"{label}{line}")
                label = indent

    def _stretches(self, parts: Sequence[Part]) -> Iterator[list[Span] | str]:
        """Consecutive spans, and between them a note on text that is left out."""
        spans: list[Span] = []
        for part in parts:
            look = _look(part)
            if self._full or len(part.text) <= LONGEST:
                spans.append(Span(part.text, look))
                continue
            head, tail = LONGEST * 2 // 3, LONGEST // 3
            more = self._style.more
            yield [*spans, Span(part.text[:head], look)]
            yield f"{more} {len(part.text) - head - tail:,} characters left out {more}"
            spans = [Span(part.text[-tail:], look)]
        yield spans

    def _summary(self, preview: Preview) -> None:
        looked, refused = preview.looked, preview.refused
        if looked.records:
            print()
            self._text(_looked(preview), "  ")
        for reason in refused[:REFUSALS]:
            self._text(f"refused: {reason.place}: {reason.reason}", "  ")
        if len(refused) > REFUSALS:
            self._text(f"refused: {len(refused) - REFUSALS:,} more", "  ")
        for help in _most(refused):
            self._text(f"help: {help}", "  ")
        if refused and preview.stops:
            allowed = preview.use.data.bad_lines
            lines = f"{allowed:,} bad {_plural(allowed, 'line')}"
            self._text(f"a run stops here: the data set allows {lines} (`bad_lines`)", "  ")


def _about(use: Use) -> str:
    """What is learned from a source, in words."""
    also = f"; {', '.join(use.also)} {'does' if len(use.also) == 1 else 'do'} the same"
    also = also if use.also else ""
    match use.objective:
        case Sft(loss_on="all") | Distill(loss_on="all"):
            what = f"{use.data.form}; every token is learned but the first"
        case Sft() | Distill():
            what = f"{use.data.form}; what the assistant says is learned, its ends included"
        case Reward():
            what = f"{use.data.form}; the score is read at the end of every response"
        case Prm(loss_on="last"):
            what = f"{use.data.form}; the score is read at the end of the last step"
        case Prm():
            what = f"{use.data.form}; a score is read at the end of every step"
        case Kto(mask="formatting"):
            what = f"{use.data.form}; the content of the answer counts"
        case Kto():
            what = f"{use.data.form}; every token of the answer counts"
        case Dpo(mask="formatting"):
            what = f"{use.data.form}; the content of the best and the worst response counts"
        case Dpo():
            what = f"{use.data.form}; every token of the best and the worst response counts"
        case None:
            what = f"{use.data.form}; nothing is learned"
        case _:
            what = (
                f"rows of {use.seq_len:,} tokens, and the one that comes next; every token is "
                "learned but the first of each document"
            )
    if use.later:
        what += f"; later rows have {', '.join(f'{length:,}' for length in use.later)} tokens"
    return what + also


def _counts(preview: Preview, shown: Shown) -> str:
    objective = preview.use.objective
    if preview.counted:
        tokens, learned, what = shown.tokens, shown.learned, "token"
    else:
        tokens = sum(len(part.text) for part in shown.parts)
        learned = sum(len(part.text) for part in shown.parts if part.learned)
        what = "character"
    text = f"{tokens:,} {_plural(tokens, what)}"
    if scores(objective):
        return f"{text}, {shown.learned:,} {_plural(shown.learned, 'score')}"
    return text if objective is None else f"{text}, {learned:,} learned"


def _looked(preview: Preview) -> str:
    looked = preview.looked
    what = _plural(looked.records, "document" if preview.use.data.form == "documents" else "record")
    first = "all " if looked.whole else "the first "
    said = [f"{looked.kept:,} {_plural(looked.kept, 'is', 'are')} read"]
    said += [f"{looked.held_out:,} held out for measuring"] if looked.held_out else []
    said += [f"{count:,} {reason}" for reason, count in looked.left_out.items()]
    said += [f"{len(preview.refused):,} refused"]
    text = f"of {first}{looked.records:,} {what}: {', '.join(said)}"
    if looked.tokens and preview.counted:
        mean = looked.tokens / looked.kept
        text += f"; {mean:,.0f} tokens on average"
        if isinstance(preview.use.objective, Sft | Distill | Dpo | Kto):
            text += f", {looked.learned / looked.tokens:.0%} of them learned"
        text += f", the longest {looked.longest:,}"
        text += f" of {preview.use.seq_len:,}" if preview.use.seq_len else ""
    return text


def _most(refused: Sequence[Refused]) -> list[str]:
    """The most common help for refused records."""
    return [help for help, _ in Counter(each.help for each in refused if each.help).most_common(1)]


def _compared(use: Use, parts: Sequence[Part]) -> str:
    """A note on a response that does not count."""
    if not isinstance(use.objective, Dpo) or parts[0].branch == "prompt":
        return ""
    return "" if any(part.learned for part in parts) else ": not compared"


def _group(kind: str) -> str:
    """A part's name in the margin: headers and ends belong to their message."""
    return kind.removesuffix(" header").removesuffix(" end")


def _look(part: Part) -> Look:
    if part.learned:
        return "learned special" if part.special else "learned"
    if part.special:
        return "special"
    return "protocol" if part.kind.endswith((" header", " end")) else "plain"


def _plural(count: int, one: str, more: str = "") -> str:
    return one if count == 1 else more or one + "s"
