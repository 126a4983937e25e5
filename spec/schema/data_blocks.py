"""The attributes of data sets, tokenizers and dialogs."""

from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar

from ..record import field, fields
from . import group_kinds as g
from . import kinds as k
from . import number_kinds as nk
from .declaration import Declaration, attribute, statement

DATA = ("dataset", "stage")
"""Blocks that can be used as data; a stage that samples provides its draws."""


PROTOCOLS = ("llama3", "chatml")
"""Built-in dialogs."""


class TokenizerTraining(Declaration):
    """A tokenizer to be trained."""

    entries: ClassVar[bool] = True

    on: list[str] = attribute(
        k.Name("dataset", many=True), doc="data sets to learn the merges from, all documents"
    )
    vocab: int = attribute(
        nk.Whole(most=nk.MOST),
        takes="count, 258 or more",
        doc="size, including 256 bytes and two special tokens",
    )


class Tokenizer(Declaration):
    """Where a tokenizer comes from."""

    ways: ClassVar[tuple[tuple[str, ...], ...]] = (("file", "hub", "bytes", "train"),)

    file: str | None = attribute(
        k.Text(), None, doc="a `tokenizer.json`, relative to the spec's folder"
    )
    hub: str | None = attribute(
        k.Text(), None, doc="a Hugging Face repository that holds a `tokenizer.json`"
    )
    bytes: bool = attribute(g.Mark("bytes"), False, doc="one token per byte; 258 tokens")
    train: TokenizerTraining | None = attribute(
        g.Group(TokenizerTraining, "on [docs], vocab 4096"),
        None,
        doc="byte-pair encoding trained on data sets of the recipe",
    )


class Fields(Declaration):
    """Which field of a record, and of its messages, holds what, and which is ignored."""

    text: str = attribute(k.Text(), "text", doc="field or column with the document's text")
    messages: str = attribute(k.Text(), "messages", doc="messages of a dialog")
    prompt: str = attribute(
        k.Text(), "prompt", doc="prompt of preferences, prompts, and dialogs in two parts"
    )
    completion: str = attribute(
        k.Text(), "completion", doc="the second part of a dialog in two parts; a rated answer"
    )
    chosen: str = attribute(k.Text(), "chosen", doc="the better response")
    answer: str = attribute(
        k.Text(), "answer", doc="the right answer to a prompt, which [verifiers](#verifier) need"
    )
    label: str = attribute(
        k.Text(), "label", doc="whether a rated answer is good: `true` or `false`"
    )
    rejected: str = attribute(k.Text(), "rejected", doc="the worse response")
    edited: str = attribute(k.Text(), "edited", doc="a response better than the chosen one")
    ranked: str = attribute(
        k.Text(), "ranked", doc="a list of responses, the best first, in place of these three"
    )
    margin: str = attribute(
        k.Text(), "margin", doc="by how much the better of two responses is better, a number"
    )
    completions: str = attribute(k.Text(), "completions", doc="the steps of an answer")
    labels: str = attribute(
        k.Text(), "labels", doc="which of these steps are right: a list of `true` and `false`"
    )
    tools: str = attribute(k.Text(), "tools", doc="definitions of tools")
    system: str = attribute(
        k.Text(), "system", doc="the system prompt of a record, if it is outside the messages"
    )
    role: str | None = attribute(
        k.Text(),
        None,
        otherwise="`role`",
        doc='role of a message; if set, even to `"role"`, the [role names of '
        "ShareGPT](data.md#other-formats) are translated",
    )
    content: str = attribute(k.Text(), "content", doc="text of a message")
    ignore: list[str] | None = attribute(
        k.Text(many=True), None, doc="keys of messages to ignore, even if they have a value"
    )


ORDERS = {"psm": "0", "spm": "1", "both": "1/2"}
"""Order of the parts → share of the documents whose suffix comes first."""


class Fim(Declaration):
    """Documents whose middle comes last: how many, in which order, and the tokens between parts."""

    rate: Fraction = attribute(nk.Share(all=True), doc="share of the documents")
    order: str = attribute(
        k.OneOf(*ORDERS),
        "psm",
        doc="`psm`: prefix, suffix, middle; `spm`: suffix, then prefix and middle; `both`: each "
        "for half of them",
    )
    prefix: str = attribute(k.Text(), "<fim_prefix>", doc="token before the prefix")
    suffix: str = attribute(k.Text(), "<fim_suffix>", doc="token before the suffix")
    middle: str = attribute(k.Text(), "<fim_middle>", doc="token before the middle")

    @property
    def tokens(self) -> tuple[str, str, str]:
        """Those before prefix, suffix and middle."""
        return self.prefix, self.suffix, self.middle

    def settings(self) -> dict[str, str]:
        """Those of the plan."""
        tokens = dict(zip(("prefix", "suffix", "middle"), self.tokens, strict=True))
        return {"rate": str(self.rate), "spm": ORDERS[self.order], **tokens}


FIELDS = tuple(name for name in fields(Fields) if fields(Fields)[name].metadata)


class Filter(Declaration):
    """`keep 10% where quality.loss > 4.0`, or `drop where url in "sites.txt"`.

    Keeps the share `keep` of the documents that meet the condition, and all others. With a list of
    sites (`file`), drops the documents on it (0) or all that are not on it (1).
    """

    keep: Fraction
    what: str
    op: str
    value: Fraction = Fraction(0)
    file: str | None = None


class Dialog(Declaration):
    """A chat protocol: a built-in one, a Jinja template, or your own."""

    ways: ClassVar[tuple[tuple[str, ...], ...]] = (("protocol", "template", "header"),)

    protocol: str | None = attribute(
        k.OneOf(*PROTOCOLS, foreign="protocol"), None, doc="a built-in protocol"
    )
    template: str | None = attribute(
        k.Text(),
        None,
        doc="a Hugging Face chat template, relative to the spec's folder: a Jinja file, or a "
        "`tokenizer_config.json` that holds one",
    )
    header: str | None = attribute(
        k.Text(),
        None,
        doc="for your own protocol: the text before a message; {role} stands for the role",
    )
    end_of_turn: str | None = attribute(
        k.Text(),
        None,
        needs=("header",),
        doc="a special token that ends a turn; required with `header`",
    )
    end_of_message: str | None = attribute(
        k.Text(),
        None,
        needs=("header",),
        doc="a special token that ends a message if the turn continues",
    )
    roles: list[str] | None = attribute(
        k.Name(many=True),
        None,
        needs=("header",),
        otherwise="system, user, assistant; and ipython with `end_of_message`",
        doc="the roles, including `assistant`",
    )
    system: str | None = attribute(k.Text(), None, doc="system prompt for dialogs without one")


RECORDS: Mapping[str, tuple[str, ...]] = {
    "python_functions": ("dialogs", "preferences", "ratings", "solutions", "prompts"),
    "arithmetic": ("dialogs", "prompts"),
}
"""Built-in samples of more than documents → the other kinds that they have."""


SAMPLES = ("python_docs", "python_code", "python_functions", "arithmetic", "needles")


KINDS = ("documents", "dialogs", "preferences", "ratings", "solutions", "prompts")


LONG = ("refuse", "drop", "truncate")
"""What to do with records that have more tokens than their stage's rows."""


class Dataset(Declaration):
    """Where documents, dialogs, preferences, ratings, solutions or prompts come from.

    Attributes:
        deal: (hands, first, last): records are dealt out to `hands`; this has hands `first` to
            `last`.
        stages: stages whose `output` this is, instead of files.
    """

    ways: ClassVar[tuple[tuple[str, ...], ...]] = (("files", "hub", "sample", "tokenized"),)

    files: list[str] | None = attribute(
        k.Text(many=True),
        None,
        doc="paths, glob patterns or fsspec URLs; relative to the spec's folder; of a [format "
        "that can be read](errors/E493.md)",
    )
    hub: str | None = attribute(
        k.Text(), None, doc="a Hugging Face data set, or a folder with a saved one"
    )
    config: str | None = attribute(k.Text(), None, doc="configuration of a `hub` data set")
    split: str = attribute(k.Text(), "train", doc="split of a `hub` data set")
    sample: str | None = attribute(
        k.OneOf(*SAMPLES),
        None,
        doc="a corpus that needs no download; `python_functions` holds all kinds, "
        "`arithmetic` documents, dialogs, and prompts with answers",
    )
    tokenized: list[str] | None = attribute(
        k.Text(many=True),
        None,
        doc="token ids that are there already: paths or glob patterns of files in a "
        "[layout](data.md#tokens-that-exist) of Megatron, datatrove, OLMo or NumPy; they are read "
        "where they are",
    )
    layout: str | None = attribute(
        k.OneOf("megatron", "datatrove", "npy", "uint16", "uint32"),
        None,
        needs=("tokenized",),
        otherwise="what the files say",
        doc="how `tokenized` files hold ids; `uint16` and `uint32` are ids and nothing else, with "
        "the end-of-text token behind each document",
    )
    documents: int | None = attribute(
        nk.Whole("docs"),
        None,
        otherwise="all; 2000 for generated samples",
        doc="the most documents or records to read",
    )
    skip: int = attribute(
        nk.Whole("docs", least=0),
        0,
        doc="documents or records to skip at the beginning",
    )
    fields: Fields = attribute(
        g.Group(Fields, 'text = "body"'),
        Fields(),
        otherwise="below",
        doc="names of the fields of a record",
    )
    tokens: int | None = attribute(
        nk.Whole("tokens"),
        None,
        doc="number of tokens, as far as you know: for epochs in the plan and for lengths in "
        "[`epochs`](#epochs), which are counted otherwise",
    )
    holdout: Fraction = attribute(
        nk.Share(all=True),
        Fraction(1, 200),
        doc="share of documents to measure losses on; they are never trained on. 100% of data "
        "that are there for measuring alone",
    )
    bad_lines: int = attribute(
        nk.Whole(least=0),
        0,
        doc="how many unreadable lines may be skipped; one more stops the run",
    )
    long: str = attribute(
        k.OneOf(*LONG, foreign="long"),
        "refuse",
        doc="what to do with records longer than their stage's rows, see [long "
        "records](data.md#long-records); prompts cannot be truncated, and documents are never "
        "too long",
    )
    kind: str = attribute(
        k.OneOf(*KINDS, foreign="records"),
        "documents",
        doc="what the records are, see "
        "[records](data.md#records-of-dialogs-preferences-and-prompts)",
    )
    pairs: int | None = attribute(
        nk.Whole("pairs"),
        None,
        doc="number of preferences, as far as you know: for [`epochs`](#epochs), which are "
        "counted otherwise",
    )
    ratings: int | None = attribute(
        nk.Whole("ratings"),
        None,
        doc="number of rated answers, in the same way",
    )
    solutions: int | None = attribute(
        nk.Whole("solutions"),
        None,
        doc="number of answers in steps, in the same way",
    )
    dialogs: int | None = attribute(
        nk.Whole("dialogs"),
        None,
        doc="number of dialogs, in the same way, for stages whose batches count them",
    )
    fim: Fim | None = attribute(
        g.Group(Fim, "rate = 10%"),
        None,
        otherwise="none",
        doc="documents that are learned with their [middle last](data.md#fill-in-the-middle)",
    )
    awaited: bool = attribute(
        g.Mark("awaited"),
        False,
        doc="the files need not exist yet: the run goes as far as it can, stops with exit code 3 "
        "and says what it waits for",
    )
    candidates: str | None = attribute(
        k.Ref("stage"),
        None,
        takes="sample stage",
        doc="for awaited preferences: the stage whose draws are to be labelled",
    )
    filters: list[Filter] = statement(
        g.Filters(),
        list,
        doc="keep or drop documents by score or by list, see [filters](#filters)",
    )
    deal: tuple[int, int, int] | None = None
    stages: list[str] = field(default_factory=list)
    output: str = ""

    def declared(self, rows: str) -> int | None:
        """Its size, as far as the spec says: dialogs, pairs, ratings, solutions, or tokens of what
        is read in sequences.

        Args:
            rows: what the batches of a stage count that reads it.
        """
        sizes = {
            "sequences": self.tokens,
            "dialogs": self.dialogs,
            "pairs": self.pairs,
            "ratings": self.ratings,
            "solutions": self.solutions,
        }
        return sizes.get(rows)
