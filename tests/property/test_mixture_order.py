"""The order of sequences, over any stretches of any weights."""

from collections import Counter
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from etude.compiler.schedule.mixture import Mixture, integer_weights

Stretches = list[tuple[dict[str, int], int]]


@st.composite
def stretches(draw: st.DrawFn, most_weight: int = 12, most_count: int = 120) -> Stretches:
    """One to five stretches; sources come and go."""
    found = []
    for _ in range(draw(st.integers(1, 5))):
        names = draw(st.lists(st.sampled_from("abcde"), min_size=1, max_size=5, unique=True))
        weights = {name: draw(st.integers(0, most_weight)) for name in names}
        weights[names[0]] = max(weights[names[0]], 1)
        found.append((weights, draw(st.integers(1, most_count))))
    return found


def shares(weights: dict[str, int]) -> dict[str, Fraction]:
    return {name: Fraction(weight, sum(weights.values())) for name, weight in weights.items()}


def follow(given: Stretches) -> None:
    """Draws every sequence and compares with the ideal share, which is added up exactly."""
    mixture = Mixture(given)
    assert mixture.sequences == sum(count for _, count in given)
    ideal: Counter[str] = Counter()
    drawn: Counter[str] = Counter()
    index = 0
    for weights, count in given:
        share = shares(weights)
        for _ in range(count):
            assert mixture.counts(index) == {name: drawn[name] for name in mixture.sources}
            source, ordinal = mixture.locate(index)
            assert ordinal == drawn[source]
            drawn[source] += 1
            index += 1
            for name, part in share.items():
                ideal[name] += part  # type: ignore[assignment]
            for name in mixture.sources:
                assert abs(drawn[name] - ideal[name]) < 1, (name, index)
    assert mixture.counts(index) == {name: drawn[name] for name in mixture.sources}


@settings(max_examples=100, deadline=None)
@given(stretches())
def test_every_source_is_always_within_one_sequence_of_its_share(given: Stretches) -> None:
    follow(given)


@settings(max_examples=30, deadline=None)
@given(stretches(most_weight=300, most_count=900))
def test_with_long_periods_too(given: Stretches) -> None:
    follow(given)


@settings(max_examples=60, deadline=None)
@given(stretches(most_weight=60, most_count=10**12), st.data())
def test_long_stretches_agree_with_their_counts_anywhere(
    given: Stretches, data: st.DataObject
) -> None:
    mixture = Mixture(given)
    index = data.draw(st.integers(0, mixture.sequences - 1))
    before, after = mixture.counts(index), mixture.counts(index + 1)
    source, ordinal = mixture.locate(index)
    assert (before[source], after[source]) == (ordinal, ordinal + 1)
    assert {n: c for n, c in after.items() if n != source} == {
        n: c for n, c in before.items() if n != source
    }
    assert sum(before.values()) == index
    ideal: dict[str, Fraction] = dict.fromkeys(mixture.sources, Fraction(0))
    left = index
    for weights, count in given:
        for name, part in shares(weights).items():
            ideal[name] += part * min(count, left)
        left -= min(count, left)
    assert all(abs(before[name] - ideal[name]) < 1 for name in ideal)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.fractions(0, 1000), min_size=1),
    st.integers(10, 100_000),
)
def test_weights_are_the_shares_as_exactly_as_the_resolution_allows(
    given: dict[str, Fraction], resolution: int
) -> None:
    given["a"] = given.get("a", Fraction(0)) + 1
    weights = integer_weights(given, resolution)
    assert list(weights) == list(given)
    total = sum(given.values())
    assert 0 < sum(weights.values()) <= resolution
    for name, weight in weights.items():
        off = abs(Fraction(weight, sum(weights.values())) - given[name] / total)
        assert off < Fraction(1, resolution)
