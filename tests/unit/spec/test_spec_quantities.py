"""Numbers, suffixes and units: exact, and never mixed."""

from fractions import Fraction

import pytest
from specs import HEAD, check, only, parsed, stage

from etude.spec.quantity import UNITS, Quantity, amount, counted, literal, measured, plain, short


def tokens(text: str) -> int | None:
    recipe = parsed(HEAD + stage(tokens=text))
    return recipe.stages["first"].tokens  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("15.6T", 15_600_000_000_000),
        ("15.6T tokens", 15_600_000_000_000),
        ("1 token", 1),
        ("4k", 4_000),
        ("4Ki", 4_096),
        ("252M", 252_000_000),
        ("16Mi tokens", 16_777_216),
        ("1.5B", 1_500_000_000),
        ("2Gi", 2**31),
        ("1_200_000", 1_200_000),
        ("1e6", 1_000_000),
        ("1.5E+3", 1_500),
        ("2.5e-3k", 2.5),
        ("0.1e1", 1),
        ("9007199254740993", 2**53 + 1),
        ("1234567890123456789012345678901234567890", 1234567890123456789012345678901234567890),
    ],
)
def test_counts_are_exact(text: str, value: int | float) -> None:
    if isinstance(value, int):
        assert tokens(text) == value
    else:
        assert only(check(HEAD + stage(tokens=text))).code == "E207"


@pytest.mark.parametrize(
    ("suffix", "help"),
    [
        ("K", "write `1.5k` for 1,500 or `1.5Ki` for 1,536"),
        ("m", "write `1.5M` for 1,500,000 or `1.5Mi` for 1,572,864"),
        ("G", "write `1.5B` for 1,500,000,000 or `1.5Gi` for 1,610,612,736"),
        ("t", "write `1.5T` for 1,500,000,000,000"),
        ("tokens", "a unit follows its number after a space: `1.5 tokens`"),
        ("KiB", "the suffixes are k M B T"),
        ("e", "the suffixes are k M B T"),
        ("%%", "the suffixes are k M B T"),
    ],
)
def test_a_wrong_suffix_says_what_was_probably_meant(suffix: str, help: str) -> None:
    found = only(check(HEAD + stage(tokens=f"1.5{suffix}")))
    assert found.code == "E111"
    assert help in found.help


@pytest.mark.parametrize("unit", sorted({u for u in UNITS if UNITS[u] != "tokens"} | {"%", "x"}))
def test_no_other_unit_stands_for_tokens(unit: str) -> None:
    found = only(check(HEAD + stage(tokens=f"10{unit}" if unit in "%x" else f"10 {unit}")))
    assert (found.code, found.help) == ("E206", "write it in `tokens`")


def test_units_have_a_singular_and_a_plural() -> None:
    for one, many in (("1 step", "1 steps"), ("1 tokens", "1 token")):
        attribute = "steps" if "step" in one else "tokens"
        texts = [HEAD + stage(**{"steps": None, attribute: text}) for text in (one, many)]
        first, second = (parsed(text).stages["first"] for text in texts)
        assert getattr(first, attribute) == getattr(second, attribute) == 1


def test_fractions_stay_fractions() -> None:
    data = "{ web 33.3%, math 66.7% }"
    segment = only(parsed(HEAD + stage(data=data)).stages["first"].data.segments)  # type: ignore[attr-defined]
    assert segment.end == {"web": Fraction(333, 1000), "math": Fraction(667, 1000)}
    thirds = parsed(HEAD + stage(data="{ web 1, math 2 }")).stages["first"].data  # type: ignore[attr-defined]
    assert thirds.segments[0].end == {"web": Fraction(1, 3), "math": Fraction(2, 3)}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1,000"),
        (4096, "4,096"),
        (53_248, "53,248"),
        (128_256, "128.3k"),
        (131_072, "128Ki"),
        (4_194_304, "4Mi"),
        (800_000_000_000, "800B"),
        (15_600_000_696_320, "15.6T"),
        (Fraction(1, 3), "0.3333"),
    ],
)
def test_short_forms(value: int | Fraction, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.02113, "0.0211"),
        (3.0, "3"),
        (17.04, "17"),
        (99.96, "100"),
        (1706.7, "1,707"),
        (Fraction(5000, 3), "1,667"),
        (-12345.6, "-12,346"),
        (4_601_723.4, "4,601,723"),
    ],
)
def test_measured_figures_are_never_powers_of_ten(value: float | Fraction, text: str) -> None:
    assert measured(value) == text


def test_scores_have_the_digits_that_are_asked_for() -> None:
    assert [measured(x, 4) for x in (2.34567, 12345.6, 1e16)] == ["2.346", "12,346", "1e+16"]


def test_quantities_are_shown_as_they_are_written() -> None:
    assert str(Quantity(Fraction(1, 2), "%")) == "50%"
    assert str(Quantity(Fraction(252_000_000), "tokens")) == "252,000,000 tokens"
    assert plain(Fraction(1, 3)) == "0.3333333333"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (1000, "1k"),
        (5000, "5k"),
        (8192, "8Ki"),
        (53_248, "52Ki"),
        (128_256, "128_256"),
        (500_000, "500k"),
        (15_600_000_000_000, "15.6T"),
        (1_000_001, "1_000_001"),
        (Fraction(1, 4), "0.25"),
    ],
)
def test_numbers_that_a_spec_is_told_to_hold_are_read_back_exactly(
    value: int | Fraction, text: str
) -> None:
    assert literal(value) == text
    if isinstance(value, int):
        assert tokens(text) == value


@pytest.mark.parametrize(
    ("number", "nouns", "text"),
    [
        (0, "steps", "0 steps"),
        (1, "steps", "1 step"),
        (53_248, "tokens", "53,248 tokens"),
        (1, "entries", "1 entry"),
        (1, "claims hold", "1 claim hold"),
        (1, "seqs", "1 seq"),
    ],
)
def test_what_is_counted_is_exact_and_agrees_with_its_number(
    number: int, nouns: str, text: str
) -> None:
    assert counted(number, nouns) == text


def test_a_quantity_is_shown_as_its_spec_writes_it() -> None:
    recipe = parsed(HEAD + stage(batch="4096 tokens -> 8Ki tokens for 1 step then 8Ki tokens"))
    batch = recipe.stages["first"].batch  # type: ignore[attr-defined]
    start, end = batch.segments[0].start, batch.segments[0].end
    assert (str(start), str(end)) == ("4,096 tokens", "8Ki tokens")
    assert str(batch.segments[0].bound.quantity) == "1 step"
    assert end == Quantity(Fraction(8192), "tokens"), "how it is written makes no difference"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (6400.0, "6,400"),
        (3e9, "3B"),
        (405_853_388_800.0, "405.853B"),
        (999_999_900_000.0, "1T"),
        (15.6e12, "15.6T"),
        (3.8e25, "3.8e+25"),
        (29_987_204.4, "29,987,204"),
        (0.4093, "0.4093"),
        (1_148_617.0, "1,148,617"),
    ],
)
def test_figures_of_claims_are_exact_where_that_can_be_read(value: float, text: str) -> None:
    assert amount(value) == text
