"""The documentation against the code: tables, specs, links, commands, codes."""

import argparse
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from weights_folders import write_folder
from whole_spec import problems, spec

from etude.cli.main import main, parser
from etude.compiler.driver import analyse, compile
from etude.compiler.plan import measures
from etude.compiler.plan import plan as plans
from etude.spec.convert_form import to_text
from etude.spec.findings.codes import known
from etude.spec.findings.diagnostics import Report
from etude.spec.findings.render import render_all
from etude.spec.json import json_form as form
from etude.spec.json.json_text import laid_out, read
from etude.spec.load import loads, reads
from etude.spec.quantity import UNITS
from etude.spec.schema import recipe as r
from etude.spec.schema.convert_schedule import DEGREES
from etude.spec.schema.group_kinds import Nested
from etude.spec.source import Source
from etude.spec.syntax import Assign
from etude.spec.text.keywords import BLOCKS, SHAPES
from etude.spec.text.parse import SUFFIXES, parse

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *DOCS.glob("*.md"),
        DOCS / "errors" / "index.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
    ]
)

REFERENCE = runpy.run_path(str(DOCS / "reference.py"))
ATTRIBUTES: dict[str, type[r.Declaration]] = REFERENCE["TABLES"]
"""Heading in docs/language.md → the model whose attributes its table lists."""
# Written as sentences, such as `require needle >= 90%`, or holding other models.
SENTENCES = {
    r.Declaration,
    r.Stage,
    r.Recipe,
    r.Polyak,
    r.Gate,
    r.Requirement,
    r.Expectation,
    r.Training,
    r.DialogTraining,
    r.PreferenceTraining,
    r.Filter,
    r.Rounds,
}


def language() -> str:
    return (DOCS / "language.md").read_text(encoding="utf-8")


def sections(page: str) -> dict[str, str]:
    """Heading → text up to the next heading."""
    parts = re.split(r"^#+ (.+)$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    heads = {0} | {i - 1 for i, row in enumerate(cells) if set("".join(row)) <= set("-| ")}
    return [row for i, row in enumerate(cells) if i not in heads and set("".join(row)) - set("-| ")]


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def blocks(page: Path, kind: str) -> Iterator[str]:
    text = page.read_text(encoding="utf-8")
    yield from re.findall(rf"^```{kind}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def specs() -> list[Any]:
    return [
        pytest.param(text, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, text in enumerate(blocks(page, "etude"))
    ]


def test_the_tables_of_attributes_are_those_of_the_schema() -> None:
    assert language() == REFERENCE["text"](), "run: python docs/reference.py"
    for heading in ATTRIBUTES:
        documented = [row[0].strip("`") for row in rows(sections(language())[heading])]
        assert documented == list(REFERENCE["own"](ATTRIBUTES[heading]))


@pytest.mark.parametrize("model", ATTRIBUTES.values(), ids=lambda model: model.__name__)
def test_no_words_hide_a_default(model: type[r.Declaration]) -> None:
    for name, of in r.attributes(model).items():
        if of.otherwise:
            assert of.default is None or isinstance(of.default, r.Declaration), name


def statements() -> Iterator[tuple[str, str]]:
    """Statements that the reference shows, each with a block that it stands in."""
    page = sections(language())
    for example, where, _ in rows(page["Statements"]):
        for block in re.findall(r"`([a-z]+)`", where):
            yield example.strip("`"), block
    for heading, model in ATTRIBUTES.items():
        words = heading.strip("`").split()
        block = words[-1] if words[0] in ("stage", *BLOCKS) and len(words) in (1, 3) else ""
        for name, value, *_ in rows(page[heading]) if block else ():
            name = name.strip("`")
            kind = r.attributes(model)[name].kind
            if kind.statement or isinstance(kind, Nested):
                yield from (
                    (shown, block) for shown in quoted(value) if re.match(rf"{name}( |$)", shown)
                )


@pytest.mark.parametrize(("example", "block"), sorted({*statements()}))
def test_every_statement_of_the_reference_can_be_read(example: str, block: str) -> None:
    if block == "gate":
        block, example = "train", f"gate seq_len {{\n require needle >= 90%\n {example}\n }}"
    text = spec(block, example).replace("data = [web]", "data = [web, other]")  # what is scored
    assert example in text
    assert [of.code for of in problems(text)] == ["E335"] * example.startswith("open ")


def test_every_statement_is_in_the_reference() -> None:
    """The rules of the grammar that are statements of blocks, and the flags, have an example."""
    grammar = (ROOT / "spec" / "text" / "grammar.lark").read_text()
    (found,) = re.findall(r"^_item:(.*)$", grammar, flags=re.MULTILINE)
    shown = {
        type(item).__name__.lower()
        for example, _ in statements()
        for item in parse(Source("example", example), Report())
    }
    assert {*found.replace(" ", "").split("|")} - {"use", "let", "assign", "entry"} <= shown
    examples = {example.split()[0] for example, _ in statements()}
    stated = {
        name
        for model in ATTRIBUTES.values()
        for name, of in r.attributes(model).items()
        if of.kind.statement
    }
    assert {"bytes", "awaited", "checkpoint", "gate", "keep"} == stated
    assert {*stated, "average"} <= examples
    assert ("average = polyak every 10 steps over 50%", "train") in set(statements())
    for example, *_ in rows(sections(language())["Statements"]):
        (item,) = parse(Source("example", example.strip("`")), Report())
        assert not isinstance(item, Assign), example


def test_every_model_of_the_language_has_its_section() -> None:
    models = {m for m in vars(r).values() if isinstance(m, type) and issubclass(m, r.Declaration)}
    assert models == {*ATTRIBUTES.values(), *SENTENCES}
    for words in (
        ["polyak", "every", "over"],
        ["require", "otherwise extend", "at most"],
        ["needle", "loss(short)", "loss(DATASET)", "of start"],
        ["within", "cite"],
        ["keep", "drop", "where", "similar"],
        ["previous", "round", "drafts.pairs"],
    ):
        text = " ".join(quoted(language())) + " ".join(blocks(DOCS / "language.md", "etude"))
        assert all(word in text for word in words)


def test_every_block_and_kind_of_stage_is_in_the_reference() -> None:
    page = sections(language())
    assert {form for row in rows(page["Blocks"]) for form in quoted(row[0])} == set(BLOCKS.values())
    kinds = {h.removeprefix("`stage NAME: ").rstrip("`") for h in page if "stage NAME" in h}
    assert kinds == set(r.STAGES)


def test_units_suffixes_degrees_and_shapes_are_those_of_the_code() -> None:
    text = sections(language())["Text"]
    assert set(UNITS) <= quoted(text)
    assert set(SUFFIXES) - {""} <= quoted(text)
    degrees = [row[0].strip("`") for row in rows(sections(language())["Placements"])]
    assert sorted(degrees) == sorted(DEGREES)
    (shapes,) = re.findall(r"^shape +=([a-z_ |]+)", language(), flags=re.MULTILINE)
    assert tuple(shape.strip() for shape in shapes.split("|")) == SHAPES


@pytest.mark.parametrize("text", specs())
def test_the_specs_are_right(text: str, tmp_path: Path) -> None:
    """Whole recipes have no errors; fragments can at least be read."""
    report = Report()
    if re.search(r"^recipe ", text, flags=re.MULTILINE):
        for folder in re.findall(r'weights = "(weights/[^"]+)"', text):
            write_folder(tmp_path / folder, {"max_position_embeddings": 8192})
        sources = reads(text)._replace(folder=tmp_path)
        report = analyse(sources, each_variant="always").report
    else:
        assert parse(Source("fragment", text), report)
    assert all(d.severity == "note" for d in report.diagnostics), render_all(report.ordered())


def test_the_error_in_the_tutorial_is_what_check_says() -> None:
    page = DOCS / "tutorial.md"
    spec = next(blocks(page, "etude")).replace("{ docs 60%", "{ docs 50%")
    report = Report()
    loads(spec, report, name="small.etude")
    assert render_all(report.ordered()) in page.read_text(encoding="utf-8")


def test_the_spec_in_json_is_right_and_its_error_is_what_check_says() -> None:
    page = DOCS / "json.md"
    spec = next(blocks(page, "json"))
    report = analyse(reads(spec), each_variant="always").report
    assert all(d.severity == "note" for d in report.diagnostics), render_all(report.ordered())
    assert to_text(Source("<text>", spec), report)
    node = read(Source("<text>", spec), report)
    assert laid_out(node) == spec
    loads(spec.replace("20 steps", "20 setps"), report := Report(), name="small.json")
    assert render_all(report.ordered()[:1]).partition("\n\n")[0] in page.read_text(encoding="utf-8")


def test_every_key_of_the_form_is_described() -> None:
    assert set(form.TOP) <= quoted((DOCS / "json.md").read_text(encoding="utf-8"))


def test_the_plan_in_the_tutorial_is_what_plan_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = DOCS / "tutorial.md"
    spec = tmp_path / "small.etude"
    spec.write_text(next(blocks(page, "etude")))
    assert main(["plan", str(spec)]) == 0
    shown = capsys.readouterr().out
    excerpts = list(blocks(page, "text"))
    assert excerpts
    assert [excerpt for excerpt in excerpts if excerpt not in shown] == []


def test_the_excerpt_of_the_plan_is_real() -> None:
    page = DOCS / "plan.md"
    made = compile(analyse(reads(next(blocks(page, "etude")))))
    assert made
    jobs = {job["id"]: job for job in json.loads(made.plan.to_json())["jobs"]}
    excerpt = json.loads(next(blocks(page, "json")))
    assert_within(excerpt, jobs[excerpt["id"]])


def assert_within(part: Any, whole: Any) -> None:
    if isinstance(part, dict):
        for name, value in part.items():
            assert_within(value, whole[name])
    elif isinstance(part, list):
        assert len(part) == len(whole)
        for one, other in zip(part, whole, strict=True):
            assert_within(one, other)
    else:
        assert part == whole


def test_every_field_of_the_plan_is_described() -> None:
    text = (DOCS / "plan.md").read_text(encoding="utf-8")
    words = {word for words in quoted(text) for word in re.split(r"[^a-z_]+", words)}
    known = [*vars(plans).values(), *vars(measures).values()]
    models = [m for m in known if isinstance(m, type) and issubclass(m, plans.Value)]
    names = {field.alias or name for m in models for name, field in m.model_fields.items()}
    assert names - words == set()
    kinds = {
        m.model_fields["kind"].default
        for m in models
        if "kind" in m.model_fields and issubclass(m, plans.Job)
    }
    assert kinds == {row[0].strip("`") for row in rows(sections(text)["Jobs"])}


def test_every_command_and_option_is_described_and_no_other() -> None:
    page = sections((DOCS / "commands.md").read_text(encoding="utf-8"))
    (choices,) = (a.choices for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    described = {re.sub("`|etude ", "", heading): text for heading, text in page.items()}
    assert set(choices) == set(described) - {"Commands"}
    for name, command in choices.items():
        options = {o for a in command._actions for o in a.option_strings} - {"-h", "--help"}
        listed = {
            word
            for row in rows(described[name])
            for word in row[0].replace("`", "").split()
            if word.startswith("-")
        }
        assert {option.rstrip(",") for option in listed} == options, name


def test_the_pages_of_codes_are_up_to_date() -> None:
    made = runpy.run_path(str(DOCS / "generate.py"))["pages"]()
    shown = {page.name: page.read_text(encoding="utf-8") for page in (DOCS / "errors").iterdir()}
    assert shown == made, "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_codes_links_and_tests_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"\b[EWN]\d{3}\b", text)) <= set(known())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), target
        if anchor:
            headings = sections(linked.read_text(encoding="utf-8"))
            assert anchor in {slug(heading) for heading in headings}, target
    for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), test


def slug(heading: str) -> str:
    """The anchor that Markdown viewers give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_modules_that_contributors_are_sent_to_are_there(page: str) -> None:
    folders = ("spec", "compiler", "runtime", "authoring", "lsp", "pages", "cli", "etude")
    folders += ("tests", "docs", "benchmarks", "editors")
    paths = [
        str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*.py")
    ]
    named = set(re.findall(r"`([\w/]+\.py)\b", (ROOT / page).read_text(encoding="utf-8")))
    missing = {
        name
        for name in named
        if "NAME" not in name and not any(f"/{path}".endswith(f"/{name}") for path in paths)
    }
    assert named
    assert missing == set()


def test_terms_of_other_programs_are_answered_as_check_answers_them() -> None:
    made = runpy.run_path(str(DOCS / "coming.py"))["text"]()
    assert (DOCS / "coming.md").read_text(encoding="utf-8") == made, "run: python docs/coming.py"
    assert "there is `" not in made, "a term that no row of spec/foreign answers"


def test_the_lists_of_published_models_are_those_that_are_read() -> None:
    text = (DOCS / "decoders.md").read_text(encoding="utf-8")
    made = runpy.run_path(str(DOCS / "decoders.py"))["page"](text)
    assert text == made, "run: python docs/decoders.py"
