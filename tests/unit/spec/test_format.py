"""The canonical layout of specs."""

from pathlib import Path
from textwrap import dedent

import pytest
from specs import HEAD, POST_TRAINING

from etude.spec.findings.diagnostics import Report
from etude.spec.source import Source
from etude.spec.text.format import WIDTH, format_text

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.etude"))


def laid_out(text: str) -> str:
    made = format_text(Source("spec.etude", text), Report())
    assert made is not None
    return made


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_laid_out(path: Path) -> None:
    assert laid_out(path.read_text()) == path.read_text()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("let a=1,let bcd =2", "let a = 1, let bcd = 2\n"),
        ("let a=1\nlet bcd =2", "let a   = 1\nlet bcd = 2\n"),
        ("\n\n\nlet a = 1\n\n\n\nlet bcd = 2\n\n", "let a = 1\n\nlet bcd = 2\n"),
        ("let a = 1\r\nlet b = 2\r\n", "let a = 1\nlet b = 2\n"),
        ("model  m{layers=2 ,dim=64,}", "model m { layers = 2, dim = 64 }\n"),
        ("model m { }", "model m {}\n"),
        ("model m {\n\n  layers = 2\n\n}", "model m {\n  layers = 2\n}\n"),
        ("model m { layers = 2\ndim = 4 }", "model m {\n  layers = 2\n  dim    = 4\n}\n"),
        ("model m {\nlayers = 2,\n,dim = 4 }", "model m {\n  layers = 2\n  dim    = 4\n}\n"),
        (
            "dataset a { bytes }\ndataset bcd { bytes }\nmodel e { bytes }",
            "dataset a   { bytes }\ndataset bcd { bytes }\nmodel e { bytes }\n",
        ),
        ("stage a:train{}", "stage a: train {}\n"),
        ("let a = [ 1 ,2, ]", "let a = [1, 2]\n"),
        ("let a = [\n1,\n2]", "let a = [\n  1,\n  2,\n]\n"),
        ("let a = [1, # one\n2]", "let a = [\n  1,  # one\n  2,\n]\n"),
        ("let a = { x [1 .. 2]  50%, y[3] 50% }", "let a = { x [1..2] 50%, y[3] 50% }\n"),
        ("let a = b . c or d[ 1 ]", "let a = b.c or d[1]\n"),
        ("let a =\n  1", "let a = 1\n"),
        ("let a = # why\n  1", "let a =  # why\n        1\n"),
        (
            "stage s: train {\nlr = 1\nthen 2\n  # up\n  then ->\n3\nseq_len = 4\n}",
            "stage s: train {\n  lr      = 1\n            then 2\n            # up\n"
            "            then -> 3\n  seq_len = 4\n}\n",
        ),
        (
            "let a = 1 # one\nlet bcd = 22# two\n\nlet e = 3 # three",
            "let a   = 1   # one\nlet bcd = 22  # two\n\nlet e = 3  # three\n",
        ),
        (
            "stage s: train {\n# first\n\n  # second\n  lr = 1\n\n\n # last\n}\n# end",
            "stage s: train {\n  # first\n\n  # second\n  lr = 1\n\n  # last\n}\n# end\n",
        ),
        ("model m { # small\n layers = 2 }", "model m {  # small\n  layers = 2\n}\n"),
        (
            "stage s: train { gate seq_len {\nrequire loss( short )<=100% of start\n} }",
            "stage s: train {\n  gate seq_len {\n    require loss(short) <= 100% of start\n"
            "  }\n}\n",
        ),
        (
            "stage s: train {\nparallel = { tensor 8 } until 4\nthen {\ntensor 8\ncontext 16\n}\n"
            "x = 1 }",
            "stage s: train {\n  parallel = { tensor 8 } until 4\n             then {\n"
            "               tensor 8\n               context 16\n             }\n  x = 1\n}\n",
        ),
        ('let a = "é \\" # {" # yes', 'let a = "é \\" # {"  # yes\n'),
        ("let a = { b 1,\nthen 2 }", "let a = {\n  b 1,\n  then 2\n}\n"),
        ("", ""),
        ("# only this", "# only this\n"),
    ],
)
def test_layout(given: str, wanted: str) -> None:
    assert laid_out(given) == wanted
    assert laid_out(wanted) == wanted


def test_long_lines_break_before_then_or_in_their_last_bracket() -> None:
    segments = " then ".join(f"{number}e-4 for 1000 steps" for number in range(1, 8))
    made = laid_out(f"stage s: train {{\n  lr = {segments}\n}}")
    assert made.splitlines()[1:3] == [
        "  lr = 1e-4 for 1000 steps",
        "       then 2e-4 for 1000 steps",
    ]
    shares = ", ".join(f"source_{number} 10%" for number in range(10))
    made = laid_out(f"stage s: train {{\n  data = {{ {shares} }}\n}}")
    assert made.splitlines()[1:4] == ["  data = {", "    source_0 10%", "    source_1 10%"]
    assert all(len(line) <= WIDTH for line in made.splitlines())
    assert laid_out(made) == made


def test_numbers_and_texts_stay_as_they_were_written() -> None:
    text = 'let a = 15.6T\nlet b = 1_200_000\nlet c = 4Mi tokens\nlet d = "\\u00e9"\n'
    assert laid_out(text) == text


def test_what_cannot_be_read_is_reported() -> None:
    report = Report()
    assert format_text(Source("spec.etude", "let a = \nmodel {"), report) is None
    assert report.errors


def test_posts_are_laid_out_to_the_same_plan() -> None:
    from specs import compiled

    for text in (HEAD, POST_TRAINING):
        squeezed = "\n".join(line.strip() for line in text.splitlines())
        before, _ = compiled(squeezed)
        after, _ = compiled(laid_out(squeezed))
        assert before == after


def test_a_nested_block_stands_deeper() -> None:
    given = "rounds r 2 {\nstage s: sft {\nfrom = a\nbatch = 8 seqs\n}\n}\n"
    assert laid_out(given) == dedent("""\
        rounds r 2 {
          stage s: sft {
            from  = a
            batch = 8 seqs
          }
        }
        """)
