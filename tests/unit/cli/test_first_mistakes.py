"""What a newcomer gets wrong in the first hour, and what is said of it."""

import json
import sys
from pathlib import Path

import pytest
from specs import HEAD, POST_TRAINING, analysed, stage

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
    from etude.runtime.data.reading.bad_lines import BadLines
    from etude.runtime.data.reading.formats import rows
    from etude.runtime.data.reading.readers import find
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


@pytest.mark.parametrize(
    ("ranks", "parallel", "batch", "message", "help"),
    [
        (
            3,
            None,
            "8 seqs",
            "a batch of 8 sequences does not divide among 3 data-parallel ranks",
            "the nearest are 6 sequences (96 tokens) and 9 sequences (144 tokens); "
            "or run it on 1, 2 or 4 ranks",
        ),
        (  # a ramp takes strides that divide among any ranks: its ends count
            6,
            None,
            "8 seqs -> 32 seqs for 50 steps then 32 seqs",
            "a batch of 8 sequences does not divide among 6 data-parallel ranks",
            "the nearest are 6 sequences (96 tokens) and 12 sequences (192 tokens); "
            "or run it on 1, 2, 4 or 8 ranks",
        ),
        (
            3,
            "{ micro_batch 4 }",
            "8 seqs",
            "a batch of 8 sequences does not divide among 3 data-parallel ranks × micro-batches "
            "of 4",
            "the nearest is 12 sequences (192 tokens); or run it on 1 or 2 ranks; "
            "or change `micro_batch 4`",
        ),
        (
            2,
            "{ micro_batch 16 }",
            "40 seqs",
            "a batch of 40 sequences, 20 on each of 2 data-parallel ranks, does not divide into "
            "micro-batches of 16",
            "the nearest are 32 sequences (512 tokens) and 64 sequences (1,024 tokens); "
            "or change `micro_batch 16`",
        ),
        (
            None,
            "{ micro_batch 16 }",
            "8 seqs",
            "a batch of 8 sequences does not divide into micro-batches of 16",
            "the nearest is 16 sequences (256 tokens); or change `micro_batch 16`",
        ),
        (
            6,
            "{ tensor 2 }",
            "8 seqs",
            "a batch of 8 sequences does not divide among 3 data-parallel ranks",
            "the nearest are 6 sequences (96 tokens) and 9 sequences (144 tokens); "
            "or run it on 2, 4 or 8 ranks",
        ),
    ],
)
def test_a_batch_that_the_ranks_do_not_share_is_told_in_what_the_author_wrote(
    ranks: int | None, parallel: str | None, batch: str, message: str, help: str
) -> None:
    text = HEAD + stage(batch=batch, parallel=parallel)
    found = only(analysed(text, ranks=ranks).report.ordered())
    assert (found.code, found.message, found.help) == ("E451", message, help)


def test_a_batch_of_preferences_that_the_ranks_do_not_share_is_one_of_pairs() -> None:
    text = POST_TRAINING.replace("batch = 4 pairs", "batch = 3 pairs", 1)
    (found, *_) = [e for e in analysed(text, ranks=2).report.ordered() if e.code == "E451"]
    assert found.message == "a batch of 3 pairs does not divide among 2 data-parallel ranks"
    assert found.help == "the nearest are 2 pairs and 4 pairs; or run it on 1 or 3 ranks"


def test_tokens_of_preferences_are_a_bound_wherever_they_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, other = tmp_path / "spec.etude", tmp_path / "other.etude"
    path.write_text(POST_TRAINING)
    other.write_text(POST_TRAINING.replace("lr = 1e-5", "lr = 2e-5"))
    assert main(["plan", str(path), "--why", "align.1.dpo.tokens"]) == 0
    assert capsys.readouterr().out.split("\n")[:2] == [
        "          10 steps × 4 pairs × ≤ 16 tokens = ≤ 640 tokens",
        "align.1.dpo: 10 steps, ≤ 640 tokens",
    ]
    assert main(["plan", str(path), "--why", "first.tokens"]) == 0
    assert "100 steps × 4 sequences × 16 tokens = 6,400 tokens" in capsys.readouterr().out
    assert main(["diff", str(path), str(other)]) == 0
    said = capsys.readouterr().out
    assert "~ align.1.dpo: train rerun, 2 of 3 jobs kept, 10 steps, ≤ 640 tokens" in said
    assert "≤ 1,920 tokens, 30 steps" in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "message", "help"),
    [
        ("web.jsonl", "is data, not a spec", 'name it in a spec: dataset mine {{ files = "{}" }}'),
        (
            "web.parquet",
            "is data, not a spec",
            'name it in a spec: dataset mine {{ files = "{}" }}',
        ),
        ("w.txt.gz", "is data, not a spec", 'name it in a spec: dataset mine {{ files = "{}" }}'),
        (
            "sft.yaml",
            "is a configuration of another program, not a spec",
            "`etude import {}` converts one of torchtitan, nanotron or axolotl",
        ),
    ],
)
@pytest.mark.parametrize("command", ["check", "plan", "run", "preview", "fmt", "verify"])
def test_a_file_of_another_kind_in_place_of_a_spec(
    command: str,
    name: str,
    message: str,
    help: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")
    Path(name).write_bytes(b'{"text": "\xe9"}\n{"text": "b"}\n')
    assert main([command, name]) == 1
    said = capsys.readouterr().err
    assert f"error[E110]: {name} {message}\n" in said
    assert f"= help: {help.format(name)}\n" in said
    assert main([command, f"no{name}"]) == 1
    assert f"error[E124]: there is no file no{name}" in capsys.readouterr().err


def test_a_folder_in_place_of_a_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/plan.json").write_text("{}")
    Path("recipes").mkdir()
    Path("recipes/b.etude").write_text(HEAD)
    for command in ("check", "plan", "run", "preview"):
        for folder, help in (
            ("runs/mine", "this is the folder of a run: `etude status runs/mine` shows its prog"),
            ("recipes", "name a spec in it: recipes/b.etude"),
            ("runs", "name a file that has a spec"),
        ):
            assert main([command, folder]) == 1
            said = capsys.readouterr().err
            assert f"error[E124]: {folder} cannot be read: is a directory" in said
            assert f"= help: {help}" in said


def test_a_spec_in_place_of_a_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spec.etude").write_text(HEAD)
    Path("broken.etude").write_text("recipe {")

    def said(command: str, file: str) -> str:
        assert main([command, file]) == 1
        return capsys.readouterr().err

    for command in ("status", "report", "logs", "cancel"):
        assert "is a spec, of which there is no run here: `etude run spec" in said(
            command, "spec.etude"
        )
        assert "name a folder made by `etude run`" in said(command, "broken.etude")
    Path("runs/test").mkdir(parents=True)
    for command in ("status", "report", "logs", "cancel"):
        assert "it is a spec; its run folder here is runs/test" in said(command, "spec.etude")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("spec.etude", "spec.etude is a spec already"),
        ("web.jsonl", "web.jsonl is data, not a configuration"),
    ],
)
def test_what_is_no_configuration_is_not_imported(
    name: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(HEAD)
    assert main(["import", name]) == 1
    assert f"error: {message}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("fmt --check spec.etude", "in the canonical layout: 1 spec\n"),
        ("fmt spec.etude", "spec.etude: in the canonical layout already\n"),
        ("plan spec.etude -o plan.json", "wrote plan.json\n"),
        ("plan spec.etude --html plan.html", "wrote plan.html\n"),
        ("plan spec.etude --emit torchtitan -o made", "wrote 1 file to made\n"),
    ],
)
def test_a_command_that_went_well_tells_so_at_a_terminal_and_is_silent_in_a_script(
    command: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spec.etude").write_text(HEAD + stage(seq_len="64", batch="2 seqs"))
    assert main(["fmt", "spec.etude"]) == 0
    capsys.readouterr()
    assert main(command.split()) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(command.split()) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", told)


def test_a_spec_that_claims_nothing_has_no_empty_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spec.etude"
    path.write_text(HEAD + stage())
    assert main(["verify", str(path)]) == 0
    said = capsys.readouterr().out
    assert "claimed" not in said
    assert said.endswith("0 claims in 1 spec, 0 hold\n")


def test_manifests_show_no_base64_at_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spec.etude").write_text(HEAD + "tokenizer t { bytes }\n" + stage())
    Path("site.toml").write_text('[kubernetes]\nimage = "i"\nvolume = "v"\nnamespace = "n"\n')
    launch = ["launch", "spec.etude", "--on", "kubernetes", "--site", "site.toml", "--dry-run"]
    assert main(launch) == 0
    whole = capsys.readouterr().out
    assert max(map(len, whole.splitlines())) > 1000
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(launch) == 0
    shown = capsys.readouterr().out
    (line,) = [line for line in whole.splitlines() if len(line) > 400]
    key, _, coded = line.partition(": ")
    short = f"{key}: {coded[:40]}… ({len(coded):,} characters, whole in a pipe)"
    assert shown == whole.replace(line, short)
