"""What a newcomer gets wrong in the first hour, and what is said of it."""

import json
from pathlib import Path

import pytest
from specs import HEAD, stage

from etude.cli.common import analyse_file
from etude.cli.main import main
from etude.spec.findings.diagnostics import Diagnostic

SFT = (
    HEAD + "dataset talk { files = FILES, kind = dialogs }\ntokenizer words { bytes }\n"
    "stage first: train { model = tiny, steps = 2, seq_len = 64, batch = 2 seqs, lr = 1e-3\n"
    "  data = web }\nstage chat: sft { from = first, steps = 2, batch = 2 seqs, lr = 1e-4\n"
    "  data = talk }\n"
)


def checked(folder: Path, text: str, *sets: str, name: str = "spec.etude") -> list[Diagnostic]:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return analyse_file(str(path), sets=sets).report.ordered()


def only(found: list[Diagnostic]) -> Diagnostic:
    errors = [each for each in found if each.severity == "error"]
    assert len(errors) == 1, [each.message for each in errors]
    return errors[0]


@pytest.mark.parametrize(
    ("given", "help"),
    [
        ("first.lr", "write a path and a value: --set first.lr=1e-3"),
        ("first.data", "write a path and a value: --set first.data=…"),
        ("=3", "write a path and a value: --set pretrain.lr=1e-3"),
        ("", "write a path and a value: --set pretrain.lr=1e-3"),
        ("first.lr=", "write a value after it"),
    ],
)
def test_a_change_without_a_path_or_a_value(given: str, help: str, tmp_path: Path) -> None:
    assert only(checked(tmp_path, HEAD + stage(), given)).help == help


@pytest.mark.parametrize(
    ("name", "text", "right"),
    [
        ("spec.etude", '{"etude_spec": 1}', "spec.json"),
        ("spec.json", "# A recipe\n" + HEAD, "spec.etude"),
    ],
)
def test_a_spec_in_a_file_of_the_other_form(
    name: str, text: str, right: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = only(checked(tmp_path, text, name=name))
    assert found.code == "E110"
    assert found.help == f"rename the file to `{right}`"
    assert main(["fmt", str(tmp_path / name)]) == 1
    assert "E110" in capsys.readouterr().err


def test_carriage_returns_end_lines(tmp_path: Path) -> None:
    path = tmp_path / "spec.etude"
    text = HEAD + stage() + "# a comment\nnonsense { }\n"
    line = text[: text.index("nonsense")].count("\n") + 1
    found = []
    for end in (b"\n", b"\r", b"\r\n"):
        path.write_bytes(text.encode().replace(b"\n", end))
        found.append(only(analyse_file(str(path)).report.ordered()))
    assert {(each.code, each.span and each.span.line) for each in found} == {("E302", line)}


@pytest.mark.parametrize(
    ("used", "help"),
    [
        ("parts/dta.etude", "did you mean `data.etude`?"),
        ("~/data.etude", "`~` is not expanded"),
        ("parts/more/data.etude", "data.etude: paths are relative to the file that contains them"),
    ],
)
def test_a_used_file_that_is_elsewhere(used: str, help: str, tmp_path: Path) -> None:
    (tmp_path / "parts" / "more").mkdir(parents=True)
    (tmp_path / "parts" / "data.etude").write_text("let a = 3\n")
    found = only(checked(tmp_path, f'use "{used}"\n{HEAD}{stage()}'))
    assert found.code == "E124"
    assert help in found.help


def test_a_path_in_a_used_file_begins_at_the_main_one(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "talk.jsonl").write_text('{"text": "hello"}\n')
    (tmp_path / "parts" / "data.etude").write_text('dataset talk { files = "talk.jsonl" }\n')
    text = f'use "parts/data.etude"\n{HEAD}' + stage().replace("web", "talk")
    found = [each for each in checked(tmp_path, text) if each.code == "N657"]
    assert 'write `files = "parts/talk.jsonl"`' in found[0].help


@pytest.mark.parametrize(
    "more",
    [
        'dataset mine { files = "~/mine.jsonl" }\n',
        'tokenizer words { file = "~/tokenizer.json" }\n',
        'dialog chat { template = "~/chat.jinja" }\n',
        'model there { size = "8B", weights = "~/w", context = 8k }\n'
        "stage tune: train { from = there, steps = 9, seq_len = 16, batch = 4 seqs, lr = 1e-5\n"
        "  data = web }\n",
    ],
)
def test_only_a_shell_knows_what_a_tilde_is(
    more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = only(checked(tmp_path, HEAD + stage() + more))
    assert found.code == "E494"
    assert "only a shell expands" in found.message
    assert '"/home/me/' in found.help


def previewed(
    folder: Path, record: str, capsys: pytest.CaptureFixture[str], *more: str, file: str = "t.jsonl"
) -> str:
    spec = folder / "spec.etude"
    spec.write_text(SFT.replace("FILES", json.dumps(file)))
    if record:
        (folder / file).write_bytes(record.encode("latin1"))
    main(["preview", str(spec), "talk", *more])
    return " ".join("".join(capsys.readouterr()).split())


def test_what_is_null_is_called_null(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "t.jsonl:1: `messages` is null" in previewed(tmp_path, '{"messages": null}\n', capsys)


def test_a_refusal_without_content_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {"role": "assistant", "content": None, "refusal": "I won't"}
    record = json.dumps({"messages": [{"role": "user", "content": "hi"}, answer]})
    shown = previewed(tmp_path, record, capsys)
    assert "message 2 (assistant) has no `content`, only `refusal`" in shown


def test_where_files_were_looked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = f"there is no file `t.jsonl` in {tmp_path}"
    assert there in previewed(tmp_path, "", capsys)
    shown = previewed(tmp_path, "", capsys, file="/nonexistent/x.jsonl")
    assert "there is no file `/nonexistent/x.jsonl` =" in shown


def test_preview_in_json_has_no_list_beside_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not previewed(tmp_path, "", capsys, "--json").startswith("[")
    shown = previewed(tmp_path, '{"messages": null}\n', capsys, "--json")
    assert shown.startswith("["), "the list of records that could not be read"


def test_a_damaged_file_that_is_the_only_one_is_not_skipped(tmp_path: Path) -> None:
    from etude.runtime.data.bad_lines import BadLines
    from etude.runtime.data.formats import rows
    from etude.runtime.data.readers import find
    from etude.runtime.errors import DataError

    (tmp_path / "x.parquet").write_bytes(b"no table")
    with pytest.raises(DataError) as caught:
        list(rows(find(["x.parquet"], tmp_path)[0], BadLines()))
    assert caught.value.help == (
        "write or download the file again, or if the other files of the data set have enough data, "
        "skip the rest of this one with `bad_lines = 1`"
    )


@pytest.mark.parametrize("place", [".", "artifacts"])
def test_a_file_in_place_of_a_run_folder(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "spec.etude"
    spec.write_text(HEAD + stage() + "tokenizer words { bytes }\n")
    taken = tmp_path / "runs" / place
    taken.parent.mkdir(exist_ok=True)
    taken = tmp_path / "taken" if place == "." else taken
    taken.write_text("")
    folder = taken if place == "." else tmp_path / "runs"
    assert main(["prepare", str(spec), "--folder", str(folder)]) == 1
    err = capsys.readouterr().err
    assert f"{taken} is a file, not a folder" in err
    assert "Errno" not in err


def test_weights_that_are_not_safetensors_say_how_they_become_some(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"")
    text = (
        HEAD
        + stage()
        + (
            'model there { size = "8B", weights = "w", context = 8k }\n'
            "stage tune: train { from = there, steps = 9, seq_len = 16, batch = 4 seqs, lr = 1e-5\n"
            "  data = web }\n"
        )
    )
    found = [each for each in checked(tmp_path, text) if each.code == "E494"]
    assert found[0].message.endswith("lacks model.safetensors; it has pytorch_model.bin")
    where = json.dumps(str(folder))
    assert f"from_pretrained({where}).save_pretrained({where})" in found[0].help


@pytest.mark.parametrize(
    ("statement", "help"),
    [
        ("average every 10 steps", "write `average = polyak every 10 steps`"),
        ("checkpoint = checkpoint every 10 steps", "write `checkpoint every 10 steps`"),
        ("checkpoint = every 10 steps", "write `checkpoint every 10 steps`"),
        ("average = polyak every 5 over 10", "write `10 steps`"),
        ("checkpoint every 10 tokens", "write it in `min` or `h` or `steps`"),
    ],
)
def test_statements_that_are_written_otherwise(statement: str, help: str, tmp_path: Path) -> None:
    assert only(checked(tmp_path, HEAD + stage(body=statement))).help == help
