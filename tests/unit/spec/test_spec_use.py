"""`use`: specs in several files, all in one folder."""

from pathlib import Path

import pytest
from specs import HEAD, after, stage

from etude.spec.findings.diagnostics import Diagnostic, Report
from etude.spec.load import MAX_DEPTH, load
from etude.spec.schema.recipe import Recipe

HEADER, REST = HEAD.split("\n", 1)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "main.etude"


def read(folder: Path, files: dict[str, str]) -> tuple[Recipe | None, list[Diagnostic]]:
    report = Report()
    return load(write(folder, files), report), report.ordered()


def test_a_used_file_brings_its_declarations_in(tmp_path: Path) -> None:
    files = {
        "main.etude": f'use "parts/models.etude"\n{HEADER}\n' + stage() + after(),
        "parts/models.etude": 'use "../data.etude"\n' + REST.split("\n")[0],
        "data.etude": "let n = 3\n" + "\n".join(REST.split("\n")[1:]),
    }
    recipe, found = read(tmp_path, files)
    assert recipe, found
    assert (list(recipe.models), list(recipe.datasets)) == (["tiny"], ["web", "math"])


def test_a_file_used_twice_is_read_once(tmp_path: Path) -> None:
    files = {
        "main.etude": f'use "a.etude"\nuse "b.etude"\nuse "./sub/../b.etude"\n{HEADER}\n' + stage(),
        "a.etude": 'use "b.etude"',
        "b.etude": REST,
        "sub/x": "",
    }
    recipe, found = read(tmp_path, files)
    assert recipe, found


def test_errors_stand_in_the_file_that_they_are_in(tmp_path: Path) -> None:
    files = {"main.etude": f'{HEADER}\nuse "b.etude"\nx = 3\n', "b.etude": "\n\n  y = )\nz = 1"}
    recipe, found = read(tmp_path, files)
    assert recipe is None
    places = {(Path(d.span.source.name).name, d.span.line) for d in found if d.span}
    assert places == {("main.etude", 3), ("b.etude", 3), ("b.etude", 4)}


def test_a_circle_is_shown_as_a_whole(tmp_path: Path) -> None:
    files = {
        "main.etude": f'{HEADER}\nuse "a.etude"',
        "a.etude": 'use "b.etude"',
        "b.etude": '# here\nuse "a.etude"',
    }
    _, found = read(tmp_path, files)
    assert [d.message for d in found if d.code == "E123"] == [
        "these files use each other: a.etude → b.etude → a.etude"
    ]


def test_a_long_chain_of_files_ends_with_an_error(tmp_path: Path) -> None:
    files = {f"f{n}.etude": f'use "f{n + 1}.etude"' for n in range(500)}
    _, found = read(tmp_path, files | {"main.etude": f'{HEADER}\nuse "f0.etude"'})
    assert f"more than {MAX_DEPTH} deep" in next(d.message for d in found if d.code == "E123")


def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    outside, inside = tmp_path / "secret.etude", tmp_path / "specs"
    outside.write_text(REST)
    inside.mkdir()
    (inside / "link.etude").symlink_to(outside)
    _, found = read(inside, {"main.etude": f'{HEADER}\nuse "link.etude"\n'})
    assert [d.code for d in found if d.span and d.span.line == 2] == ["E122"]


def test_a_link_to_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "loop.etude").symlink_to(tmp_path / "loop.etude")
    _, found = read(tmp_path, {"main.etude": f'{HEADER}\nuse "loop.etude"\n'})
    assert "E124" in [d.code for d in found]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    text = HEAD + stage()
    main = write(tmp_path, {"main.etude": ""})
    main.write_bytes(text.encode("utf-8-sig"))
    assert load(main, Report()) == load(write(tmp_path, {"main.etude": text}), Report())


@pytest.mark.parametrize("data", [b"\xff\xfer\0e\0", b"recipe \x80", "recipe é".encode("latin-1")])
def test_other_encodings_are_refused(data: bytes, tmp_path: Path) -> None:
    main = write(tmp_path, {"main.etude": ""})
    main.write_bytes(data)
    report = Report()
    assert load(main, report) is None
    assert report.errors[0].code == "E126"


def test_after_an_unreadable_part_nothing_is_reported_as_missing(tmp_path: Path) -> None:
    _, found = read(tmp_path, {"main.etude": 'use "missing.etude"\n' + stage()})
    assert [d.code for d in found] == ["E124"]
