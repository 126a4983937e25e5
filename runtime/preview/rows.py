"""Documents as pre-training packs them into rows."""

from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np

from ..data.dialogs.encode import TERMINATION, Encoder, Piece
from ..data.order.stream import IGNORE, Stream, pack
from ..data.reading import readers
from ..data.reading.bad_lines import BadLines
from ..data.reading.formats import Document
from ..data.tokens.fim import Fim
from ..data.tokens.placed import write_placed
from ..data.tokens.shards import Shards, held_out, kinds, write_shards
from ..data.tokens.tokenizer import special
from ..preparation import token_units
from .parts import Label, cut
from .shop import Made, Shop, read_some
from .shown import Preview, Refused, Shown
from .uses import Use

SMALL = 4_000_000
"""A source of up to this many characters is read whole; of a larger one, only the beginning."""
CHARACTERS = 8
"""Characters that are read at first for each token to be shown."""


_PLAIN = (
    "documents are shown as they are: which of them `fim` rearranges shows with the tokenizer "
    "that a run trains"
)
_FIRST = (
    "these rows are made of the source's first documents, in its order; a run shuffles all its "
    "documents, so that its first rows hold others"
)


class InOrder(Stream):
    """The documents in the source's order."""

    def _numbers(self, count: int, epoch: int, window: int) -> np.ndarray:
        return np.arange(count, dtype=np.uint64)


class Lines(BadLines):
    """Collects bad lines without a limit, and counts records."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.found: list[Refused] = []

    def report(
        self, place: str, reason: str, help: str = "", *, rest_is_lost: bool = False
    ) -> None:
        self.number += 1
        self.count += 1
        self.found.append(Refused(self.number, place, reason, help))


def show_rows(use: Use, made: Made, shop: Shop, count: int) -> Preview:
    """The first rows of documents that a stage reads.

    Raises: DataError: the documents cannot be read.
    """
    preview = Preview(use, counted=made.exact)
    shards = shop.documents(use.data, made)
    if use.filtered:
        shards = shards and shop.result(use.filtered.key)
        if shards is None:
            preview.notes.append(
                "documents that the stage will filter out by score are shown, too: they have no "
                f"scores in {shop.folder} yet"
            )
    if shards is not None:
        stream = _stream(use, Shards(shards, "train"))
        preview.looked.whole = True
        preview.items += _rows(use, made, stream, count, use.first_token, {})
        return preview
    if use.data.source["kind"] == "tokens":
        _read_tokens(preview, use, made, shop, count)
    else:
        _read(preview, use, made, shop, count)
    return preview


def _read_tokens(preview: Preview, use: Use, made: Made, shop: Shop, count: int) -> None:
    """Shows existing tokens that no run has checked yet."""
    wanted = count * ((use.seq_len or 0) + 2)
    files, places, whole = token_units.first_documents(
        use.data.source, shop.root, made.tokenizer, max(SMALL, wanted)
    )
    folder = shop.room()
    summary = write_placed(
        places,
        [file.placed for file in files],
        folder,
        holdout=Fraction(use.data.holdout),
        seed=use.data.seed,
        name=use.data.name,
        **kinds(made.tokenizer),
    )
    shards = Shards(folder, "train")
    looked = preview.looked
    looked.whole, looked.records = whole, summary["documents"]
    looked.kept, looked.held_out = shards.documents, summary["documents"] - shards.documents
    if whole and not use.filtered:
        stream = _stream(use, shards)
        preview.items += _rows(use, made, stream, count, use.first_token, {})
        return
    stream = InOrder(shards, seed=use.seed, name=use.source)
    count = min(count, max((shards.tokens - 2) // (use.seq_len or shards.tokens), 1))
    preview.items += _rows(use, made, stream, count, 0, {})
    preview.notes.append(_FIRST)


def _stream(use: Use, shards: Shards) -> Stream:
    return Stream(shards, seed=use.seed, name=use.source)


def _read(preview: Preview, use: Use, made: Made, shop: Shop, count: int) -> None:
    """Shows documents of a source that no run has tokenized yet."""
    lines = Lines()
    wanted = count * ((use.seq_len or 0) + 2) if made.exact else 1
    documents = readers.read_documents(use.data.source, lines, root=shop.root)
    some, whole = read_some(documents, max(SMALL, wanted * CHARACTERS))
    looked = preview.looked
    looked.whole, looked.records = whole, len(some) + len(lines.found)
    kept = [document for number, document in enumerate(some) if not _held_out(use, number)]
    looked.held_out, looked.kept = len(some) - len(kept), len(kept)
    preview.items += lines.found
    if not some:
        return
    if not made.exact:
        preview.items += _documents(use, made, kept[:count])
        if use.data.fim:
            preview.notes.append(_PLAIN)
        return
    places = {number: document.place for number, document in enumerate(kept)}
    if whole and not use.filtered:
        stream = _stream(use, _written(use, made, shop, some))
        preview.items += _rows(use, made, stream, count, use.first_token, places)
        return
    shards = _written(use, made, shop, _enough(some, wanted * CHARACTERS))
    if shards.tokens < wanted:
        shards = _written(use, made, shop, some)
    stream = InOrder(shards, seed=use.seed, name=use.source)
    count = min(count, max((shards.tokens - 2) // (use.seq_len or shards.tokens), 1))
    preview.items += _rows(use, made, stream, count, 0, places)
    preview.notes.append(_FIRST)


def _written(use: Use, made: Made, shop: Shop, documents: list[Document]) -> Shards:
    """Tokenizes documents as a run does."""
    folder = shop.room()
    write_shards(
        (document.text for document in documents),
        made.tokenizer,
        folder,
        holdout=Fraction(use.data.holdout),
        seed=use.data.seed,
        name=use.data.name,
        fim=_fim(use, made),
    )
    return Shards(folder, "train")


def _fim(use: Use, made: Made) -> Fim | None:
    return Fim.of(use.data.fim, made.tokenizer, seed=use.data.seed, name=use.data.name)


def _enough(some: list[Document], characters: int) -> list[Document]:
    """The first documents with this many characters in all; the last one may be cut off."""
    kept: list[Document] = []
    for document in some:
        kept.append(Document(document.place, document.text[: max(characters, 1)]))
        characters -= len(document.text)
        if characters <= 0:
            break
    return kept


def _held_out(use: Use, number: int) -> bool:
    return held_out(number, Fraction(use.data.holdout), seed=use.data.seed, name=use.data.name)


def _rows(
    use: Use, made: Made, stream: Stream, count: int, first: int, places: dict[int, str]
) -> Iterator[Shown]:
    """The rows of a stream: each has one more token than a row's length, for its last label."""
    length = use.seq_len or stream.epoch_tokens
    fim = _fim(use, made)
    for number in range(min(count, use.rows or count)):
        begin = first + number * length
        tokens, starts = stream.read(begin, length + 1)
        _, labels, _ = pack(tokens, starts)
        learned = np.concatenate([[False], labels != IGNORE]) & (use.objective is not None)
        stretches = stream.stretches(begin, length + 1)
        names: list[str] = []
        for document, size in stretches:
            names += [places.get(document, f"document {document + 1}")] * size
        labelled = _labels(made, tokens, learned, names, fim.ids if fim else ())
        parts = cut(made.tokenizer, tokens.tolist(), labelled)
        yield Shown(number + 1, "", parts)


def _labels(
    made: Made, tokens: np.ndarray, learned: np.ndarray, names: list[str], fim: Iterable[int]
) -> list[Label]:
    ids = special(made.tokenizer)
    kinds = dict.fromkeys(fim, "begin") | {ids.eos: "end"}
    if ids.bos is not None:
        kinds[ids.bos] = "begin"
    labels = []
    for number, token in enumerate(tokens.tolist()):
        kind = kinds.get(token, "text")
        labels.append(
            Label(kind, bool(learned[number]), kind != "text", message=0, document=names[number])
        )
    return labels


def _documents(use: Use, made: Made, documents: list[Document]) -> Iterator[Shown]:
    """Single documents, since rows cannot be cut without a tokenizer."""
    ids = special(made.tokenizer)
    encoder = Encoder(made.tokenizer)
    begin = "" if ids.bos is None else made.tokenizer.id_to_token(ids.bos) or ""
    end = made.tokenizer.id_to_token(ids.eos) or ""
    for number, document in enumerate(documents, 1):
        rendered = encoder.encode(
            [Piece(begin), Piece(document.text, free=True), Piece(end, TERMINATION)]
        )
        labels = [
            Label(
                "text" if free else "end" if part == TERMINATION else "begin",
                learned=use.objective is not None and place > 0,
                special=not free,
                message=0,
                document=document.place,
            )
            for place, (free, part) in enumerate(zip(rendered.free, rendered.parts, strict=True))
        ]
        yield Shown(number, document.place, cut(made.tokenizer, rendered.ids, labels))
