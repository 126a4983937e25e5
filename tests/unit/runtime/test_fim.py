"""Fill-in-the-middle: documents whose middle comes last, and which of them."""

from fractions import Fraction
from pathlib import Path
from random import Random

import pytest
from specs import HEAD, check, only, plan, stage

from etude.compiler.plan.plan import DatasetJob, TokenizerJob
from etude.runtime.data.tokens.fim import Fim
from etude.runtime.data.tokens.shards import Shards, write_shards
from etude.runtime.data.tokens.tokenizer import EOS, byte_level
from etude.runtime.errors import DataError

NAMES = {"prefix": "<fim_prefix>", "suffix": "<fim_suffix>", "middle": "<fim_middle>"}
TEXTS = [f"def f{i}(x):\n    return x + {i} # {'é' * (i % 5)}\n" for i in range(400)]


def fim(rate: str = "1/2", spm: str = "0", *, seed: int = 1, name: str = "code") -> Fim:
    made = Fim.of(
        {"rate": rate, "spm": spm, **NAMES}, byte_level([*NAMES.values()]), seed=seed, name=name
    )
    assert made
    return made


def shards(folder: Path, texts: list[str], how: Fim | None, holdout: int = 0) -> list[list[int]]:
    write_shards(
        iter(texts),
        byte_level([*NAMES.values()]),
        folder,
        holdout=Fraction(holdout),
        seed=1,
        name="code",
        fim=how,
    )
    found = Shards(folder, "heldout" if holdout else "train")
    return [found.document(i).tolist() for i in range(found.documents)]


@pytest.mark.parametrize(("spm", "order"), [("0", "psm"), ("1", "spm")])
def test_a_document_is_its_three_parts_behind_their_tokens(
    tmp_path: Path, spm: str, order: str
) -> None:
    how = fim("1", spm)
    begin, hole, end = how.ids
    for text, tokens in zip(TEXTS, shards(tmp_path, TEXTS, how), strict=True):
        assert (tokens[0], tokens[-1]) == (256, 257)
        inside = tokens[1:-1]
        assert inside[0] == begin
        at = inside.index(hole), inside.index(end)
        first, second = bytes(inside[1 : at[0]]), bytes(inside[at[0] + 1 : at[1]])
        last = bytes(inside[at[1] + 1 :])
        if order == "psm":
            assert first + last + second == text.encode()
        else:
            assert first == b""
            assert last + second == text.encode()


def test_the_share_of_documents_and_of_orders_is_that_asked_for() -> None:
    how = fim("1/10", "1/2")
    texts = [f"document {i}" for i in range(20_000)]
    found = [parts for text in texts if (parts := how.parts(text))]
    assert len(found) == pytest.approx(2000, abs=200)  # 4.7 standard deviations
    suffix_first = sum(parts[1] == how.ids[1] for parts in found)
    assert suffix_first == pytest.approx(1000, abs=110)


def test_every_place_of_a_document_is_as_likely_a_border() -> None:
    how = fim("1")
    cuts = [0] * 11
    for number in range(5000):
        text = f"{number:010}"
        parts = how.parts(text)
        assert parts
        first, third = str(parts[1]), str(parts[5])
        cuts[len(first)] += 1
        cuts[len(first) + len(third)] += 1
    # 10,000 borders on 11 places: 909 each, with a deviation of 29.
    assert all(abs(count - 10_000 / 11) < 150 for count in cuts)


def test_what_becomes_of_a_document_depends_on_seed_name_and_text_alone(tmp_path: Path) -> None:
    mixed = TEXTS.copy()
    Random(7).shuffle(mixed)
    one, other = shards(tmp_path / "a", TEXTS, fim()), shards(tmp_path / "b", mixed, fim())
    assert sorted(one) == sorted(other)
    assert one != shards(tmp_path / "c", TEXTS, fim(seed=2))
    assert one != shards(tmp_path / "d", TEXTS, fim(name="web"))
    assert shards(tmp_path / "e", TEXTS, fim("0")) == shards(tmp_path / "f", TEXTS, None)


def test_empty_and_odd_texts_are_cut_like_others() -> None:
    for text in ("", "x", "a\ud800b"):
        parts = fim("1").parts(text)
        assert parts
        assert "".join(str(parts[at]) for at in (1, 5, 3)) == text


def test_a_tokenizer_without_the_tokens_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(DataError, match="it has <fim_prefix>") as refused:
        Fim.of(
            {"rate": "1", "spm": "0", **NAMES}, byte_level(["<fim_prefix>"]), seed=1, name="code"
        )
    assert "lacks tokens for `fim` of the data set `code`: <fim_suffix>, <fim_middle>" in str(
        refused.value
    )


def test_a_token_that_ends_every_document_is_refused_within_one() -> None:
    names = {**NAMES, "middle": EOS}
    with pytest.raises(DataError, match="every document begins or ends"):
        Fim.of(
            {"rate": "1", "spm": "0", **names}, byte_level([*NAMES.values()]), seed=1, name="code"
        )


def dataset(fim: str, more: str = "sample = python_docs") -> str:
    tokenizer = "tokenizer plain { bytes }\n"
    return HEAD + tokenizer + stage(data="code") + f"dataset code {{ {more}\n {fim} }}\n"


def test_the_plan_has_it_and_its_tokenizer_the_tokens() -> None:
    found = plan(
        dataset("fim = { rate = 10%, order = both }").replace("vocab = 300", "vocab = 400")
    )
    job = only([each for each in found.jobs if isinstance(each, DatasetJob)])
    assert job.fim == {"rate": "1/10", "spm": "1/2", **NAMES}
    made = only([each for each in found.jobs if isinstance(each, TokenizerJob)])
    assert made.tokenizer["special"] == [*NAMES.values()]
    plain = plan(dataset(""))
    without = only([each for each in plain.jobs if isinstance(each, DatasetJob)])
    assert "fim" not in without.model_dump()
    assert without.key != job.key


@pytest.mark.parametrize(
    ("fim", "more", "code"),
    [
        ("fim = { ¦rate = 0% }", "sample = python_docs", "E550"),
        ('fim = ¦{ rate = 10%, prefix = "a", suffix = "a" }', "sample = python_docs", "E550"),
        ('fim = { rate = 10%, ¦suffix = "" }', "sample = python_docs", "E550"),
        ("¦fim = { rate = 10% }", 'tokenized = "a/*.npy"', "E545"),
        ("fim = { rate = ¦110% }", "sample = python_docs", "E208"),
        ("fim = ¦{ order = psm }", "sample = python_docs", "E318"),
    ],
)
def test_what_is_refused(fim: str, more: str, code: str) -> None:
    text = dataset(fim, more)
    found = check(text.replace("¦", ""))
    assert [each.code for each in found] == [code]
