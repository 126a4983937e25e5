"""The content of a preview of a source: records in parts, refusals, and counts."""

from dataclasses import dataclass, field
from typing import Any

from ..errors import RunError
from .uses import Use


@dataclass(frozen=True)
class Part:
    """A stretch of a record's text.

    Attributes:
        text: what its tokens decode to.
        kind: what it is, such as "user header", "assistant" or "tool call".
        learned: whether its tokens count in the stage's loss.
        tokens: how many tokens it has.
        special: whether they are special tokens, which text in the data can never become.
        branch: "prompt", or the response of a preference that it belongs to; otherwise "".
        message: the number of its message, from 0; -1 outside messages.
        document: the place of its document, in a row of pre-training; otherwise "".
    """

    text: str
    kind: str
    learned: bool
    tokens: int = 0
    special: bool = False
    branch: str = ""
    message: int = -1
    document: str = ""

    def joins(self, other: "Part") -> bool:
        """Whether both are one part when special tokens are not shown separately."""
        return (self.kind, self.learned, self.branch, self.message, self.document) == (
            other.kind,
            other.learned,
            other.branch,
            other.message,
            other.document,
        )


@dataclass(frozen=True)
class Shown:
    """A record, or a row of documents, as a stage sees it.

    Attributes:
        record: its number in the source, or the row's number, from 1.
        place: where it is ("chat.jsonl:17"); "" for a row.
        parts: their texts, joined, are the decoded tokens.
    """

    record: int
    place: str
    parts: tuple[Part, ...]

    @property
    def tokens(self) -> int:
        return sum(part.tokens for part in self.parts)

    @property
    def learned(self) -> int:
        return sum(part.tokens for part in self.parts if part.learned)


@dataclass(frozen=True)
class Refused:
    """A record that a run would count as a bad line."""

    record: int
    place: str
    reason: str
    help: str = ""


@dataclass
class Looked:
    """Counts over the records that were checked, which may be more than those shown.

    Attributes:
        records: how many there were, including refused ones.
        whole: whether the source has no others.
        kept: how many the stage reads.
        held_out: how many are measured and never learned.
        left_out: reason → how many the recipe itself leaves out.
        tokens, learned, longest: of the kept records.
    """

    records: int = 0
    whole: bool = False
    kept: int = 0
    held_out: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    learned: int = 0
    longest: int = 0

    def keep(self, tokens: int, learned: int) -> None:
        self.kept += 1
        self.tokens += tokens
        self.learned += learned
        self.longest = max(self.longest, tokens)


@dataclass
class Preview:
    """The preview of one source.

    Attributes:
        items: the first records, and all checked records that were refused, in order.
        notes: what is unknown yet, or would be different in a run.
        counted: whether tokens are known; otherwise bytes are counted, which means nothing.
        problem: why no more can be shown.
    """

    use: Use
    items: list[Shown | Refused] = field(default_factory=list)
    looked: Looked = field(default_factory=Looked)
    notes: list[str] = field(default_factory=list)
    counted: bool = True
    problem: RunError | None = None

    @property
    def refused(self) -> list[Refused]:
        return [item for item in self.items if isinstance(item, Refused)]

    @property
    def stops(self) -> bool:
        """Whether a run would stop at this source."""
        data = self.use.data
        # Draws of a stage are not in a file where somebody could fix a record.
        bad = data.source["kind"] != "job" and len(self.refused) > data.bad_lines
        return self.problem is not None or bad


def as_json(preview: Preview) -> list[dict[str, Any]]:
    """The items of a preview as `etude preview --json` lists them."""
    return [_item(preview, item) for item in preview.items]


def _item(preview: Preview, item: Shown | Refused) -> dict[str, Any]:
    about: dict[str, Any] = {"stage": preview.use.stage, "source": preview.use.source}
    about |= {"record": item.record, "place": item.place}
    if isinstance(item, Refused):
        return about | {"refused": item.reason, "help": item.help}
    known = preview.counted
    counts = {"tokens": item.tokens, "learned": item.learned}
    return (
        about
        | {name: count if known else None for name, count in counts.items()}
        | {"parts": [_part(part, known) for part in joined(item.parts)]}
    )


def _part(part: Part, known: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"text": part.text, "kind": part.kind, "learned": part.learned}
    made["tokens"] = part.tokens if known else None
    if part.branch:
        made["branch"] = part.branch
    if part.document:
        made["document"] = part.document
    return made


def joined(parts: tuple[Part, ...]) -> list[Part]:
    """Parts without separate special tokens."""
    made: list[Part] = []
    for part in parts:
        if made and made[-1].joins(part):
            last = made[-1]
            made[-1] = Part(
                last.text + part.text,
                part.kind,
                part.learned,
                last.tokens + part.tokens,
                last.special and part.special,
                part.branch,
                part.message,
                part.document,
            )
        else:
            made.append(part)
    return made
