"""References and the names of stages and data: values and texts, back and forth."""

from hypothesis import given
from hypothesis import strategies as st

from etude.compiler.ids import DataId, FigureId, SegmentId, StageId, rounds
from etude.spec import syntax as s
from etude.spec.findings.diagnostics import Report
from etude.spec.reference import OUTPUTS, PREVIOUS, ROUND, Index, Names, Reference
from etude.spec.schema.kinds import Ref
from etude.spec.source import Source
from etude.spec.text.parse import parse

VARIANTS, ROUNDS = ("hot", "mild"), ("align", "refine")
NAMES = Names(VARIANTS, ROUNDS)
WORDS = st.sampled_from(["chat", "drafts", "rm", "x1", "A_b"])
ANY_WORDS = st.sampled_from(
    ["chat", "pairs", PREVIOUS, ROUND, "or_", "x1", "A_b", *VARIANTS, *ROUNDS]
)
NUMBERS = st.integers(1, 99_999)


def maybe(strategy: st.SearchStrategy, nothing: object = "") -> st.SearchStrategy:
    return st.just(nothing) | strategy


INDICES = st.builds(Index, NUMBERS | st.just(ROUND), NUMBERS | st.just(ROUND))
SINGLE = st.builds(
    Reference,
    WORDS,
    maybe(st.sampled_from([PREVIOUS, *ROUNDS])),
    maybe(st.sampled_from(VARIANTS)),
    maybe(st.sampled_from(OUTPUTS)),
    maybe(INDICES, None),
    st.none(),
)
REFERENCES = SINGLE | st.builds(lambda a, b: a._replace(otherwise=b), SINGLE, SINGLE)
PATHS = st.lists(ANY_WORDS, min_size=1, max_size=5).map(".".join)
NUMERALS = st.from_regex(r"[0-9]{1,7}", fullmatch=True)
ENDS = NUMERALS | st.sampled_from([ROUND, "chat", "align.chat"])
WRITTEN = st.builds(
    "{}{}".format,
    PATHS,
    maybe(
        st.builds("[{}]".format, ENDS | st.just("1, 2"))
        | st.builds("[{}..{}]".format, NUMERALS, ENDS)
    ),
)
TEXTS = WRITTEN | st.builds("{} or {}".format, WRITTEN, WRITTEN)
"""References as the grammar has them, whether they mean something or not."""


@given(REFERENCES)
def test_a_reference_is_read_as_what_is_written(value: Reference) -> None:
    assert NAMES.parse(str(value)) == value


@given(TEXTS, st.sampled_from([Names(), NAMES, Names(VARIANTS, ("hot",))]))
def test_whatever_names_there_are_the_text_stays_the_same(text: str, names: Names) -> None:
    value = names.parse(text)
    again = names.parse(str(value))
    assert again == value
    assert again.plain == text.partition(" or ")[0].partition("[")[0]


@given(TEXTS)
def test_the_text_is_what_the_grammar_reads(text: str) -> None:
    """A parsed value, and the text of what it is read as, are one reference."""
    value = NAMES.parse(text)
    assert NAMES.parse(_read(text)) == value
    assert _read(str(value)) == str(value)


def _read(text: str) -> str:
    """What the binder makes of a reference in a spec."""
    report = Report()
    (item,) = parse(Source("spec", f"from = {text}\n"), report)
    assert not report.errors
    assert isinstance(item, s.Assign)
    schedule = item.value
    assert not isinstance(schedule, s.Schedule)
    return Ref("stage").read(schedule)


STAGES = st.builds(
    lambda name, variant, place: StageId(name, variant, *place),
    WORDS,
    maybe(st.sampled_from(VARIANTS)),
    st.just(("", 0)) | st.tuples(st.sampled_from(ROUNDS), NUMBERS),
)


@given(STAGES)
def test_a_stage_is_read_as_what_is_written(value: StageId) -> None:
    assert StageId.parse(str(value)) == value
    assert NAMES.parse(str(value.reference)) == value.reference
    assert str(value) == ".".join(filter(None, (value.group, value.name)))


DATA = STAGES.map(lambda stage: DataId(str(stage))) | st.builds(
    DataId, STAGES.map(str), st.builds(Index, NUMBERS, NUMBERS), maybe(st.sampled_from(OUTPUTS))
)


@given(DATA)
def test_data_are_read_as_what_is_written(value: DataId) -> None:
    assert DataId.parse(str(value)) == value


@given(st.builds(FigureId, maybe(STAGES.map(str)), WORDS))
def test_a_figure_is_read_as_what_is_written(value: FigureId) -> None:
    assert FigureId.parse(str(value)) == value


@given(st.builds(SegmentId, STAGES.map(str), NUMBERS, st.integers(0, 9)))
def test_a_segment_is_read_as_what_is_written(value: SegmentId) -> None:
    assert SegmentId.parse(str(value)) == value


@given(INDICES, st.integers(0, 9))
def test_the_rounds_of_an_index_are_there_or_it_means_nothing(index: Index, round: int) -> None:
    numbers = index.numbers(round)
    meant = tuple(round if end == ROUND else int(end) for end in index)
    assert numbers == (meant if 1 <= meant[0] <= meant[1] else None)


def test_texts_of_all_kinds() -> None:
    assert NAMES.parse("previous.hot_chat or first") == Reference(
        "hot_chat", PREVIOUS, otherwise=Reference("first")
    )
    assert NAMES.parse("hot.align.drafts.pairs[1..round]") == Reference(
        "drafts", "align", "hot", "pairs", Index(1, ROUND)
    )
    assert NAMES.parse("hot.previous.chat") == Reference("chat", PREVIOUS, "hot")
    # A name alone is that of a stage or data set, even where a variant or rounds have it, too.
    assert [NAMES.parse(text).name for text in ("hot", "align", "pairs")] == [
        "hot",
        "align",
        "pairs",
    ]
    assert NAMES.parse("align.pairs") == Reference("pairs", "align")
    assert NAMES.parse("other.chat") == Reference("other.chat")
    assert StageId.parse("align.2.hot.chat") == StageId("chat", "hot", "align", 2)
    assert str(StageId("chat", "hot", "align", 2).reference) == "hot.align.chat"
    assert DataId.parse("align.drafts[1..2].pairs") == DataId("align.drafts", Index(1, 2), "pairs")
    assert DataId.parse("drafts.pairs") == DataId("drafts.pairs")
    assert str(SegmentId("align.2.dpo", 3, 1)) == "align.2.dpo.3+1"
    assert SegmentId.parse("align.2.dpo") is None
    assert rounds(["a", "align.1.x", "hot.a", "align.2.x", "align.2.hot.x"]) == {"align": 2}
