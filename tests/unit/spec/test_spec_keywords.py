"""The words of the language: their table against the grammar, and names that they cannot be."""

import re
from pathlib import Path

import pytest
from specs import HEAD, check, stage

from etude.spec import syntax as s
from etude.spec.findings.diagnostics import Report
from etude.spec.schema import recipe as r
from etude.spec.source import Source
from etude.spec.text.format import shape
from etude.spec.text.keywords import (
    BLOCKS,
    BREAKS_AFTER,
    CONTINUATION,
    CONTINUES,
    CONTINUES_WITH_TEXT,
    FORMS,
    FREE,
    MEANINGS,
    RESERVED,
    SHAPES,
    SNIPPETS,
    STAGE_KINDS,
    STATEMENTS,
    VALUES,
    example,
    proposal,
    why_no_name,
)
from etude.spec.text.parse import following, parse

GRAMMAR = (Path(__file__).parents[3] / "spec" / "text" / "grammar.lark").read_text(encoding="utf-8")
RULES, _, TERMINALS = GRAMMAR.partition("\n// Followed by a name and a text")
STAND_IN = "zzz"
PLACES = (
    r"""
recipe ¤ { title = ¤ }
model ¤ { dim = ¤ }
dataset ¤ { files = "a" }
variant ¤ { ¤.lr = 1, ¤.a.lr = ¤, a.¤.lr = 4, ¤ = 3 }
variant a {\n ¤.lr = 1\n ¤ = 5\n dataset.¤.files = ¤\n }
stage ¤: train { lr = 1 }
rounds ¤ 6 {\n stage ¤: train { lr = 2 }\n }
rounds a ¤ { }
let ¤ = 3
let b = ¤
let b = {\n ¤ 3\n }
let b = ¤ -> ¤ half_cosine over ¤
a { from = ¤ }
a { from = ¤, lr = 3 }
a { from = ¤ or ¤ }
a { from = b.¤ or ¤.b }
a { from = ¤[1] }
a { from = b.¤[1..¤] }
a { data = { ¤ 50%, b 50% } }
a { data = { b 50%, ¤ 50% } }
a {\n data = {\n b 50%\n ¤ 50%\n }\n }
a {\n data = {\n ¤ ¤\n ¤ ¤\n }\n }
a { data = { ¤.b 50% } }
a { data = { b.¤ 50% } }
a { data = {\n ¤[1] 50%\n b[¤] 3\n ¤.¤[1] 3\n } }
a { data = last with { ¤ 2x } }
a { data = last with {\n b 2x\n ¤ 2x\n } }
a { data = ¤ for 10% then ¤ -> ¤ cosine over ¤ for ¤ then -> ¤ until ¤ }
a {\n data = ¤ for 10%\n then ¤ -> ¤ cosine over ¤ for ¤\n then -> ¤ until ¤\n }
a { on = [¤, ¤] }
a { on = [\n ¤,\n ¤\n ] }
a { lr = ¤ cite ¤ }
a { lr = ¤ assumed ¤ }
a {\n lr = ¤\n batch = ¤\n }
a { checkpoint every ¤ }
a { average = polyak every ¤ over ¤ }
a { gpus = ¤ of ¤ }
expect { ¤.lr at ¤ = ¤ within ¤ because ¤ }
expect { a.lr = 1 within 1% contradicted ¤ }
expect {\n a.lr = 1\n ¤.lr = 1\n }
expect { ¤.¤.lr = 1 }
a { gate x { require loss(¤) >= ¤ of ¤, otherwise extend ¤ at most ¤ } }
a { keep ¤ where ¤.loss > ¤ }
a { keep 10% where ¤ in ¤ }
a { drop similar > ¤ }
a { train = { on ¤ } }
a { train = {\n on [\n ¤,\n ¤\n ]\n } }
a { train = {\n vocab ¤\n on ¤\n } }
a { parallel = { tensor ¤ } }
a { optimizer = adamw { betas = [¤, 1], weight_decay = ¤ } }
""".strip()
    .replace("\\n", "\n ")
    .split("\n")
)
"""Every place in which the grammar lets a name stand, the name as ¤."""


def places() -> list[str]:
    """The texts of `PLACES`; one that goes over lines is one text."""
    found: list[str] = []
    for line in PLACES:
        if line.startswith(" "):
            found[-1] += "\n" + line
        else:
            found.append(line)
    return found


def tree(text: str) -> object:
    """What a text says; None where it cannot be read."""
    report = Report()
    items = parse(Source("<text>", text), report)
    return None if report.errors else shape(items)


def renamed(node: object, name: str) -> object:
    """What a text says with another name in place of the stand-in."""
    if isinstance(node, tuple | list):
        return type(node)(renamed(part, name) for part in node)  # type: ignore[call-arg]
    return name if node == STAND_IN else node


def is_name(word: str) -> bool:
    """Whether a word can be read as a name wherever one may stand."""
    return all(
        tree(text.replace("¤", word)) == renamed(tree(text.replace("¤", STAND_IN)), word)
        for text in places()
    )


def test_the_table_has_the_words_of_the_grammar_and_no_others() -> None:
    used = set(re.findall(r'"([a-z]+)"', RULES)) | {"open"}
    built = {word for form in FORMS.values() for word in form} - {"->"}
    assert used | set(SHAPES) == {*STATEMENTS, *built}
    assert used | set(SHAPES) | set(VALUES) == set(MEANINGS)


def test_lines_continue_where_the_grammar_says_so() -> None:
    (pattern,) = re.findall(r"^CONTINUATION\S*: /.*\(\?=(.*)\)/$", TERMINALS, re.M)
    assert f"(?:{pattern})" == CONTINUATION.replace('\\"', '"')
    assert set(re.findall(r'"([a-z=>-]+)" _NL\?', RULES)) == set(BREAKS_AFTER)
    for word in CONTINUES:
        assert not re.match(CONTINUATION, word + "s")
    for word in CONTINUES_WITH_TEXT:
        assert re.match(CONTINUATION, word + ' "x"')
        assert not re.match(CONTINUATION, word + " = x")


def test_the_table_has_all_kinds_of_stages() -> None:
    assert set(STAGE_KINDS) == set(r.STAGES)


@pytest.mark.parametrize("statement", SNIPPETS)
def test_the_example_of_a_statement_is_one(statement: str) -> None:
    report = Report()
    (item,) = parse(Source("<text>", example(statement)), report)
    assert not report.errors
    assert not isinstance(item, s.Assign | s.Entry | s.Flag)


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("", {"use", "let", "require", "otherwise", "allow"}),
        ("lr = ", {"->", "repeat"}),
        ("lr = repeat 3 times { ", {"->", "repeat"}),
        ("lr = 0 -> 3e-4 for 5% then ", {"->", "repeat"}),
        ("lr = 3e-4 ", {"then", "->", "for", "until", "of", "within", "cite", "assumed"}),
        (
            "lr = 0 -> 3e-4 ",
            {*SHAPES, "in", "over", "then", "for", "until", "within", "cite", "assumed"},
        ),
        ("lr = 0 -> 3e-4 cosine over 3 ", {"then", "for", "until", "within", "cite", "assumed"}),
        ("lr = 0 -> 3e-4 for 5% ", {"then", "within", "cite", "assumed"}),
        ("data = { web 50% } ", {"then", "->", "for", "until", "within", "cite", "assumed"}),
        ("average = polyak every 2 steps ", {"over", "within", "cite", "assumed"}),
        ("keep 10% ", {"where"}),
        ("drop where url ", {"in"}),
        ("otherwise extend 1B tokens ", {"at"}),
        ("otherwise extend 1B tokens at ", {"most"}),
        ("require loss(web) > 2 ", {"of"}),
        ("first.lr = 3 within 1% ", {"because", "contradicted", "cite", "assumed"}),
        ("lr = = ", set()),
    ],
)
def test_the_grammar_tells_which_words_may_follow(before: str, words: set[str]) -> None:
    assert {word for word in following(before) if word in MEANINGS or word == "->"} == words


def test_every_place_of_a_name_can_be_read() -> None:
    assert [text for text in places() if tree(text.replace("¤", STAND_IN)) is None] == []


def test_exactly_the_words_that_the_grammar_needs_cannot_be_names() -> None:
    grammatical = set(MEANINGS) - set(VALUES)
    assert {word for word in grammatical if not is_name(word)} == RESERVED - set(VALUES)
    assert all(is_name(word) for word in (*FREE, *VALUES, *BLOCKS, "gate", "keep", "tokens"))


@pytest.mark.parametrize("word", sorted(RESERVED))
@pytest.mark.parametrize("kind", ["dataset", "model", "stage", "let", "variant"])
def test_a_word_of_the_language_is_refused_by_name_wherever_it_is_declared(
    word: str, kind: str
) -> None:
    texts = {
        "dataset": f"dataset {word} {{ sample = arithmetic }}\n" + stage(data=word),
        "model": f'model {word} {{ family = llama3, size = "8B" }}\n' + stage(model=word),
        "stage": stage(word) if word else "",
        "let": f"let {word} = 1e-3\n" + stage(lr=word),
        "variant": stage() + f"variant {word} {{ first.lr = 1e-4 }}\n",
    }
    found = [d for d in check(HEAD + texts[kind]) if d.code == "E306"]
    assert [d.message for d in found] == [f"`{word}` cannot be a name: it {MEANINGS[word]}"]
    assert found[0].span
    assert found[0].span.text == word
    other = f"{word}_value" if kind == "let" else f"{word}_{kind}"
    assert found[0].help == f"choose another name, such as `{other}`"
    assert not why_no_name(other)


def test_every_wrong_name_of_a_spec_is_reported() -> None:
    text = "".join(f"dataset {word} {{ sample = arithmetic }}\n" for word in ("at", "use", "in"))
    inner = "rounds align 2 { stage of: sft { from = first, data = web, steps = 1 } }\n"
    found = [d for d in check(HEAD + text + stage() + inner) if d.code == "E306"]
    assert [d.span.text for d in found if d.span] == ["at", "use", "in", "of"]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("Books", "books"),
        ("_web", "web"),
        ("2x", "dataset_2x"),
        ("a.b", "a_b"),
        ("drücken", "dr_cken"),
        ("Then", "then_dataset"),
        ("__", ""),
        ("", ""),
        ("数据", ""),
    ],
)
def test_a_name_of_another_form_has_one_of_the_right_form_beside_it(name: str, other: str) -> None:
    assert why_no_name(name)
    assert proposal(name, "dataset") == other
    assert not other or not why_no_name(other)
