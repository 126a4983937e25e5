"""How specs are read: layout, comments, texts, and continuing after errors."""

import time

import pytest
from specs import HEAD, after, check, codes, compiled, only, parsed, place, plan, stage

from etude.spec.findings.render import render

RULER = "#" * 80
SPEC = HEAD + stage(lr="0 -> 1e-3 for 10 steps then -> 1e-5 cosine") + after(data="math")


def test_a_spec_has_no_layout_of_its_own() -> None:
    written = plan(SPEC)
    loose = (
        SPEC.replace("{", "{\n\n\t")
        .replace(" = ", "=")
        .replace(" then ", "   # why\n\n # more\n  then\n  ")
        .replace(" -> 1e-5", "\n      -> 1e-5")
        .replace("\n  ", "\n\t\t", 3)
    )
    tight = SPEC.replace("\n  ", ", ").replace("{,", "{").replace("\n}", " }")
    assert loose != SPEC != tight
    assert plan(loose) == written
    assert plan(tight) == written


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n", "\n\n \t\n# the end"])
def test_line_ends_and_the_end_of_the_file_do_not_matter(ending: str, last: str) -> None:
    text = (SPEC.rstrip() + last).replace("\n", ending)
    assert plan(text) == plan(SPEC)


def test_comments_may_stand_anywhere() -> None:
    text = "\n".join(f"# before\n{RULER}\n{line} # {{ [ ( \" '" for line in SPEC.split("\n"))
    assert plan(text) == plan(SPEC)


@pytest.mark.parametrize("filler", [RULER, "# " * 200, "\n" * 5000, " " * 5000, "#\n" * 5000])
def test_rulers_and_blank_space_take_no_time(filler: str) -> None:
    begin = time.monotonic()
    assert compiled(filler + "\n" + SPEC + filler)[0]
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize(
    "word", ["then -> 1e-4 for 3 steps then", "-> 1e-4 cosine over 20 steps for 5 steps then"]
)
def test_a_line_that_begins_with_a_word_of_schedules_goes_on(word: str) -> None:
    one_line = stage(lr=f"1e-3 for 2 steps {word} 1e-5".replace("steps ->", "steps then ->"))
    many_lines = one_line
    for start in ("then", "->", "over", "for"):
        many_lines = many_lines.replace(f" {start}", f"\n    {start}")
    assert plan(HEAD + many_lines) == plan(HEAD + one_line)


def test_texts_have_the_escapes_of_json() -> None:
    text = r'"\"\\\/\n\t\r\b\f\u00e9\ud83d\ude00 # not a comment {"'
    header = parsed(HEAD.replace("seed = 1", f"title = {text}") + stage()).header
    assert header.title == '"\\/\n\t\r\b\fé😀 # not a comment {'


def test_columns_count_characters() -> None:
    found = only(check('recipe test { title = "日本 é 😀", sede = 1 }\n' + SPEC.split("\n", 1)[1]))
    assert place(found) == (1, 33)
    lines = render(found).splitlines()
    column = lines[2].index("sede") + 3  # two wide characters and the emoji before it
    assert lines[3].index("^") == column


def test_carets_stand_below_their_words_behind_tabs() -> None:
    shown = render(only(check(HEAD + stage(body="\tcilp\t= 3")))).splitlines()
    assert shown[3].index("^") == shown[2].index("cilp")
    assert shown[3].count("^") == 4


def test_long_lines_are_cut_around_the_place() -> None:
    data = "{ " + ", ".join(f"web{n} 1" for n in range(200)) + " }"
    shown = render(check(HEAD + stage(data=data))[0])
    assert all(len(line) < 200 for line in shown.splitlines())


def test_nothing_in_a_message_acts_on_the_terminal() -> None:
    for text in ("\x1b[31m", "\x00", "\x07", 'recipe "\x1b[2J" {'):
        for found in check(text + "\n" + SPEC):
            assert all(c.isprintable() or c in "\n\t" for c in render(found))


def test_all_errors_of_a_file_are_found_at_once_and_nothing_else() -> None:
    found = check(
        HEAD
        + """
stage first: train {
  modle = tiny
  steps = 10 setps
  lr =
  seq_len = 8K
  batch == 4 seqs
  data = {
    web 50%
    math 40%
  }
  optimizer = adamw {
    betas = [0.9,
             0.95 0.99,
             3]
    eps = 1e-8
  }
  clip = 1 2
}

stage second train { steps = 3 }

stage third: train {
  steps = ) 5
  tokens = "abc
}
"""
    )
    assert [(d.code, place(d)) for d in found] == [
        ("E308", (7, 3)),
        ("E204", (8, 14)),
        ("E101", (9, 6)),
        ("E111", (10, 13)),
        ("E101", (11, 10)),
        ("E214", (12, 10)),
        ("E105", (18, 19)),
        ("E208", (19, 14)),
        ("E101", (22, 12)),
        ("E305", (25, 1)),
        ("E106", (28, 11)),
        ("E102", (29, 12)),
    ]


@pytest.mark.parametrize("block", ["stage third: train {", "model other {", "x = ["])
def test_an_open_brace_is_one_error_that_names_it(block: str) -> None:
    attributes = "dim = 3\n  heads = 4" if "model" in block else "steps = 3\n  lr = 4e-3"
    found = check(f"{SPEC}{block}\n  {attributes}\n")[0]
    assert found.code == "E106"
    assert found.message == f"this `{block[-1]}` is not closed"
    assert place(found) == (SPEC.count("\n") + 1, len(block))
    assert found.notes[0][0].line == SPEC.count("\n") + 3


@pytest.mark.parametrize("begun", ['files = "texts/', 'files = "', '"'])
def test_a_text_that_is_still_being_typed_at_the_end_of_the_file_is_answered(begun: str) -> None:
    found = check(f"{SPEC}dataset mine {{\n  {begun}")
    assert [d.code for d in found] == ["E106", "E102"]
    assert place(found[1]) == (SPEC.count("\n") + 2, 3 + begun.index('"'))


@pytest.mark.parametrize("extra", ["}", "}}}", "]", ")", "} then"])
def test_a_closing_brace_too_many_hides_nothing_else(extra: str) -> None:
    found = check(SPEC + f"{extra}\n" + "modle x { }\n")
    assert [d.code for d in found] == ["E106", "E302"]
    assert place(found[-1]) == (SPEC.count("\n") + 2, 1)


@pytest.mark.parametrize("text", ["", "\n", "# nothing", " \t\r\n", "\ufeff"[1:]])
def test_an_empty_file_lacks_its_recipe(text: str) -> None:
    found = only(check(text))
    assert (found.code, place(found)) == ("E304", (1, 1))


@pytest.mark.parametrize("brace", ["{", "[", "(", "x {", "x = [", "x = a {"])
def test_ten_thousand_braces_are_one_error(brace: str) -> None:
    begin = time.monotonic()
    found = check(HEAD + "\n" + brace * 10_000)
    assert [d.code for d in found] == ["E103"]
    assert time.monotonic() - begin < 1


def test_at_most_twenty_syntax_errors_are_shown() -> None:
    assert codes(HEAD + "x = )\n" * 1000) == ["E101"] * 20


def test_names_of_things_may_be_words_of_the_grammar_that_are_no_keywords_there() -> None:
    for name in ("tokens", "steps", "extend", "bytes", "train", "x", "then_some", "k"):
        text = HEAD + f"dataset {name} {{ sample = arithmetic }}\n"
        assert plan(text + stage(data=f"{{ web 50%, {name} 50% }}"))


@pytest.mark.parametrize("name", ["linear", "every", "cite", "then", "for", "with", "at", "of"])
def test_names_that_the_grammar_needs_are_refused_with_the_reason(name: str) -> None:
    found = only(check(SPEC + f"dataset {name} {{ sample = arithmetic }}"))
    assert (found.code, place(found)) == ("E306", (SPEC.count("\n") + 1, 9))
    assert f"`{name}` cannot be a name: it " in found.message
    assert f"choose another name, such as `{name}_dataset`" in found.help


def test_a_let_stands_for_a_value_of_any_kind() -> None:
    lets = """
let rate = 1e-3
let curve = 0 -> 1e-3 for 10 steps then -> 1e-5
let mix = { web 70%, math 30% }
let mean = first
let two = [mean, second]
let small = adamw { betas = pair }
let pair = [0.8, 0.9]
"""
    with_lets = (
        HEAD
        + lets
        + (
            stage(
                lr="rate -> 1e-4 for 5 steps then rate", data="mix -> { math 1 }", optimizer="small"
            )
            + stage("second", lr="curve", data="mix")
            + "stage both: average { of = two }"
        )
    )
    mix, small = "{ web 70%, math 30% }", "adamw { betas = [0.8, 0.9] }"
    without = HEAD + (
        stage(
            lr="1e-3 -> 1e-4 for 5 steps then 1e-3", data=f"{mix} -> {{ math 1 }}", optimizer=small
        )
        + stage("second", lr="0 -> 1e-3 for 10 steps then -> 1e-5", data=mix)
        + "stage both: average { of = [first, second] }"
    )
    assert plan(with_lets) == plan(without)


def test_lets_on_top_of_lets_take_no_time_and_no_memory() -> None:
    lets = "let l0 = [web]\n" + "".join(f"let l{n + 1} = [l{n}, l{n}]\n" for n in range(60))
    begin = time.monotonic()
    assert codes(HEAD + lets + stage(optimizer="adamw { betas = l60 }")) == ["E201"]
    assert time.monotonic() - begin < 1


def test_a_circle_of_lets_is_one_error_however_often_it_is_used() -> None:
    lets = "let a = b\nlet b = [a]\n"
    assert codes(lets + HEAD + stage(lr="a", clip="b", steps="a")) == ["E317", "E317"]


def test_a_long_chain_of_stages_in_any_order_is_no_problem() -> None:
    stages = [after(f"s{n}", from_=f"s{n + 1}" if n < 1500 else "first") for n in range(1501)]
    assert len(parsed(HEAD + stage() + "".join(stages)).stages) == 1502
    assert codes(HEAD + stage() + "".join(stages) + after(steps="1.5")) == ["E207"]
