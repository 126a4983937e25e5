"""What `check` says of the files beside a spec, and that no plan depends on them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from specs import HEAD, after, compiled, only, place, stage

from etude.compiler.driver import analyse, compile
from etude.compiler.files.data_files import ENDINGS, refused, way_out
from etude.lsp.project import Project
from etude.runtime.data.reading.formats import SUFFIXES
from etude.spec.findings.diagnostics import Diagnostic
from etude.spec.load import read

READS = "stage second: train { steps = 10, data = books }\n"
WEIGHTS = (
    'model there { size = "8B", weights = "w", context = 8k }\n'
    "stage tune: train { from = there, steps = 10, seq_len = 16, batch = 4 seqs, lr = 1e-5\n"
    "  data = web }\n"
)


def found(folder: Path, more: str, *codes: str) -> list[Diagnostic]:
    """Findings of the given codes, or all errors, in a spec in a folder."""
    file = folder / "spec.etude"
    file.write_text(HEAD + stage() + more)
    analysis = analyse(read(file), root=folder, each_variant="always")
    report = analysis.report
    assert analysis.recipe, [d.message for d in report.ordered()]
    wanted = codes or tuple(d.code for d in report.errors)
    return [d for d in report.ordered() if d.code in wanted]


def books(attributes: str) -> str:
    return f"dataset books {{ {attributes} }}\n{READS}"


FILLED = """tokenizer t { file = "t.json" }
dataset code { sample = python_docs, fim = { rate = 10% MORE } }
stage second: train { steps = 10, data = { code 50%, web 50% } }
stage third: train { steps = 10, data = code }
"""


@pytest.mark.parametrize(
    "model",
    [{"vocab": {"a": 0, "<PRE>": 1, "<SUF>": 2}}, {"vocab": [["<PRE>", 0.0], ["<SUF>", -1.0]]}],
)
def test_a_tokenizer_without_tokens_for_the_middle_is_reported_once(
    model: dict[str, Any], tmp_path: Path
) -> None:
    added = [{"content": "<fim_prefix>"}, {"content": "<fim_suffix>"}, {"content": "<MID>"}]
    (tmp_path / "t.json").write_text(json.dumps({"model": model, "added_tokens": added}))
    error = only(found(tmp_path, FILLED.replace("MORE", "")))
    assert (error.code, error.message) == (
        "E550",
        "the tokenizer in `t.json` lacks `<fim_middle>`; it has `<fim_prefix>`, `<fim_suffix>`",
    )
    assert found(tmp_path, FILLED.replace("MORE", ', middle = "<MID>"')) == []
    named = ', prefix = "<PRE>", suffix = "<SUF>", middle = "<MID>"'
    assert found(tmp_path, FILLED.replace("MORE", named)) == []


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": {"vocab": 3}}'])
def test_a_tokenizer_that_cannot_be_read_says_nothing_of_its_tokens(
    content: str, tmp_path: Path
) -> None:
    (tmp_path / "t.json").write_text(content)
    assert found(tmp_path, FILLED.replace("MORE", "")) == []


MISSING = [
    (books('files = "a.jsonl"'), "there is no file `a.jsonl` of the data set `books`"),
    (books('files = ["a/*.txt", "b.txt"]'), "no file matches `a/*.txt`"),
    (
        books('sample = python_docs\n drop where url in "list.txt"').replace(
            "sample = python_docs", 'files = "there.jsonl"'
        ),
        "`list.txt` of a filter of `books`",
    ),
    ('tokenizer t { file = "t.json" }\n', "`t.json` of the tokenizer `t`"),
    ('dialog d { template = "d.jinja" }\n', "`d.jinja` of the dialog `d`"),
    ('stage exam: evaluate { suites = { math ["a"] }, tasks = "tasks" }\n', "no folder `tasks`"),
    (WEIGHTS, "no folder `w` of the model `there`"),
]


@pytest.mark.parametrize(("more", "words"), MISSING)
def test_a_missing_file_is_a_note_at_its_place_with_the_path_that_was_looked_for(
    more: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "there.jsonl").write_text("{}\n")
    notes = found(tmp_path, more, "N657")
    assert words in notes[0].message
    assert str(tmp_path) in notes[0].help
    assert notes[0].span
    assert notes[0].span.source.name.endswith("spec.etude")


def test_every_missing_file_is_told_at_once(tmp_path: Path) -> None:
    more = books('files = ["a.jsonl", "b.jsonl"]') + 'tokenizer t { file = "t.json" }\n'
    assert len(found(tmp_path, more, "N657")) == 3


def test_what_is_awaited_or_elsewhere_or_there_is_not_missed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl.gz").touch()
    assert not found(tmp_path, books('files = "data/**/*.jsonl.gz"'), "N657")
    assert not found(tmp_path, books('files = "s3://bucket/a.jsonl"'), "N657")
    late = 'dataset late { files = "late.jsonl", kind = preferences, awaited }\n'
    rm = "stage rm: reward { data = late, steps = 5, lr = 1e-4, batch = 4 pairs }\n"
    assert not found(tmp_path, late + rm, "N657")


def test_files_of_a_used_spec_are_looked_for_where_the_run_looks(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "parts" / "data.etude").write_text('dataset books { files = "a.jsonl" }\n')
    assert not found(tmp_path, 'use "parts/data.etude"\n' + READS, "N657")


WRONG = [
    (books('files = "folder"'), "is a folder, not a file"),
    (books('files = "dangling.jsonl"'), "cannot be read"),
    ('tokenizer t { file = "folder" }\n', "is a folder, not a file"),
    ('stage exam: evaluate { suites = { m ["a"] }, tasks = "file" }\n', "is a file, not a folder"),
    (WEIGHTS.replace('"w"', '"file"'), "is a file, not a folder"),
    (WEIGHTS.replace('"w"', '"folder"'), "lacks config.json"),
    (WEIGHTS.replace('"w"', '"bin"'), "lacks model.safetensors; it has pytorch_model.bin"),
]


@pytest.mark.parametrize(("more", "words"), WRONG)
def test_a_path_that_is_of_no_use_is_an_error(more: str, words: str, tmp_path: Path) -> None:
    for name in ("folder", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin" / "config.json").write_text("{}")
    (tmp_path / "bin" / "pytorch_model.bin").touch()
    (tmp_path / "file").touch()
    (tmp_path / "dangling.jsonl").symlink_to("nowhere")
    wrong, *others = found(tmp_path, more)
    assert {each.code for each in others} <= {"E543"}  # the configuration in `bin` says nothing
    assert (wrong.code, words in wrong.message) == ("E494", True), wrong.message


REFUSED = [
    ("a.xlsx", ".xlsx"),
    ("a.PKL", ".pkl"),
    ("d/*.bin", ".bin"),
    ("d/**/*.npy", ".npy"),
    ("a.jsonl.bz2", ".bz2"),
    ("a.parquet.gz", ".gz"),
    ("a[0-9].xml", ".xml"),
    ("s3://b/a.xz", ".xz"),
    ("a.jsonl", ""),
    ("A.JSONL.GZ", ""),
    ("d/*", ""),
    ("d/*gz", ""),
    ("d/*.gz", ""),
    ("d/part-*", ""),
    ("d/*.json*", ""),
    ("v1.0/part-*-x", ""),
    (".hidden", ""),
    ("folder", ""),
]


@pytest.mark.parametrize(("pattern", "ending"), REFUSED)
def test_an_ending_that_no_run_reads_is_known_by_the_name(pattern: str, ending: str) -> None:
    assert refused(pattern) == ending


def test_records_are_not_read_from_plain_texts() -> None:
    assert refused("a.txt.gz", records=True) == ".txt.gz"
    assert not refused("a.txt.gz")
    assert not any(refused(f"a{each}") for each in ENDINGS)


def test_a_format_that_cannot_be_read_is_an_error_of_the_spec_alone() -> None:
    _, report = compiled(
        HEAD + stage() + books('files = "data/*.xlsx"').replace(READS, after(data="books"))
    )
    wrong = only(report.errors)
    assert (wrong.code, (place(wrong) or (0, 0))[1]) == ("E493", 25)
    assert "save it as `data/*.csv`" in wrong.help


def test_a_file_of_another_format_among_those_of_a_pattern_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a.jsonl", "notes.md"):
        (tmp_path / "data" / name).touch()
    wrong = only(found(tmp_path, books('files = "data/*"')))
    assert wrong.code == "E493"
    assert "`data/notes.md`, which `data/*` matches" in wrong.message


def test_the_way_out_is_for_the_file() -> None:
    assert "`xzcat d/a.jsonl.xz | zstd > d/a.jsonl.zst`" in way_out("d/a.jsonl.xz", ".xz")
    assert "write `tokenized` instead of `files`" in way_out("train.bin", ".bin")


def test_what_checks_know_of_formats_is_what_runs_read() -> None:
    assert SUFFIXES == ENDINGS


def test_a_note_can_be_allowed_where_it_is_found_and_where_it_is_not(tmp_path: Path) -> None:
    more = books('files = "a.jsonl", allow N657 "made by the cluster\'s own job"')
    assert not found(tmp_path, more, "N657", "W651")
    (tmp_path / "a.jsonl").touch()
    assert not found(tmp_path, more, "N657", "W651")


def test_no_plan_depends_on_what_is_beside_the_spec(tmp_path: Path) -> None:
    file = tmp_path / "spec.etude"
    file.write_text(HEAD + stage() + books('files = "a.jsonl", allow N657 "later"'))
    plain = compile(analyse(read(file)))
    without = compile(analyse(read(file), root=tmp_path))
    (tmp_path / "a.jsonl").touch()
    beside = compile(analyse(read(file), root=tmp_path))
    texts = {made.plan.to_json() for made in (plain, without, beside) if made}
    assert None not in (plain, without, beside)
    assert len(texts) == 1


def test_files_of_a_variant_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    more = books('files = "a.jsonl"') + 'variant other { dataset.books.files = "b.jsonl" }\n'
    note = only(found(tmp_path, more, "N657"))
    assert note.message.startswith("variant `other`: there is no file `b.jsonl`")


def test_files_are_looked_for_beside_errors_elsewhere(tmp_path: Path) -> None:
    more = books('files = "a.jsonl"') + "stage broken: train { from = nowhere, steps = 1 }\n"
    assert only(found(tmp_path, more, "N657"))


def test_the_editor_shows_them_and_looks_again_when_files_change(tmp_path: Path) -> None:
    file = tmp_path / "spec.etude"
    file.write_text(HEAD + stage() + books('files = "*.jsonl"'))
    project = Project()

    def codes() -> set[str]:
        return {d.code for d in project.whole(file).diagnostics}

    assert "N657" in codes()
    (tmp_path / "a.jsonl").touch()
    project.forget()
    assert "N657" not in codes()


def test_a_path_that_no_disk_takes_is_missing(tmp_path: Path) -> None:
    for path in ("a" * 5000, r"a\u0000b"):
        assert only(found(tmp_path, f'tokenizer t {{ file = "{path}" }}\n', "N657"))


URLS = [
    (
        WEIGHTS.replace('"w"', '"https://host/w"'),
        "`https://host/w` of the model `there` is a URL",
        "download the weights, and write their folder",
    ),
    (
        WEIGHTS.replace('"w"', '"https://huggingface.co/some/model"'),
        "but must be a local path",
        'write `hub = "some/model"`',
    ),
    (
        WEIGHTS.replace("weights", "hub").replace(
            '"w"', '"https://huggingface.co/some/model/tree/main"'
        ),
        "of the model `there` is a URL, not a repository",
        'write `hub = "some/model"`',
    ),
    (
        books('hub = "https://huggingface.co/datasets/some/data"'),
        "of the dataset `books`",
        'write `hub = "some/data"`',
    ),
    (
        books('hub = "s3://bucket/data"'),
        "is a URL, not a repository",
        'write its name: `hub = "OWNER/NAME"`',
    ),
    (
        'tokenizer t { file = "gs://bucket/t.json" }\n',
        "of the tokenizer `t` is a URL",
        "download it, and write a path such as `tokenizer/tokenizer.json`",
    ),
    (
        'dialog d { template = "s3://bucket/d.jinja" }\n',
        "of the dialog `d` is a URL",
        "download it, and write a path such as `chat.jinja`",
    ),
    (
        books('files = "there.jsonl"\n drop where url in "s3://bucket/list.txt"'),
        "of a filter of `books` is a URL",
        "download it, and write a path such as `sites.txt`",
    ),
]


@pytest.mark.parametrize(("more", "words", "help"), URLS)
def test_a_url_is_an_error_where_only_this_machine_is_read(
    more: str, words: str, help: str, tmp_path: Path
) -> None:
    (tmp_path / "there.jsonl").write_text("{}\n")
    (error,) = found(tmp_path, more)
    assert (error.code, error.help) == ("E494", help)
    assert words in error.message
    assert found(tmp_path, more, "N657") == []


def test_urls_of_data_files_are_fine(tmp_path: Path) -> None:
    assert found(tmp_path, books('files = "s3://bucket/*.jsonl"'), "E494", "N657") == []


def test_a_folder_that_looks_like_a_repository_is_asked_about(tmp_path: Path) -> None:
    (note,) = found(tmp_path, WEIGHTS.replace('"w"', '"some/model"'), "N657")
    assert 'for the repository on the Hub write `hub = "some/model"`' in note.help


def test_one_compressed_file_that_is_most_of_the_data(tmp_path):
    (tmp_path / "data").mkdir()
    for name, size in (("a.jsonl.gz", 2**32), ("b.jsonl", 2**30), ("c.parquet", 2**30)):
        with (tmp_path / "data" / name).open("wb") as file:
            file.truncate(size)  # sparse: it takes no room
    more = books('files = "data/*"')
    (warning,) = found(tmp_path, more, "W678")
    assert "`data/a.jsonl.gz` is 66% of the data set `books`" in warning.message
    for name, size in (("b.jsonl", 2**32), ("a.jsonl.gz", 2**31)):
        os.truncate(tmp_path / "data" / name, size)
        assert not found(tmp_path, more, "W678")
    allowed = books('files = "data/*", allow W678 "there is one core"')
    assert not found(tmp_path, allowed, "W678", "W651")
