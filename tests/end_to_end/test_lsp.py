"""The language server as editors talk to it: a process, messages on its standard streams."""

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from etude_cli import TINY, etude
from lsp_client import COMMAND, SECONDS, Client, client
from lsprotocol import types
from pygls.exceptions import JsonRpcException

BAD = TINY.replace("docs 80%", "dogs 80%")


def place(text: str, marked: str) -> types.Position:
    """Where ¦ stands in a part of a text, in UTF-16."""
    before = text[: text.index(marked.replace("¦", "")) + marked.index("¦")]
    last = before.rpartition("\n")[2]
    return types.Position(before.count("\n"), len(last.encode("utf-16-le")) // 2)


def talk(folder: Path, session: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with client(folder.resolve()) as made:
            await session(made)

    asyncio.run(run())


def test_findings_follow_the_text(tmp_path: Path) -> None:
    path = tmp_path.resolve() / "spec.etude"

    async def session(made: Client) -> None:
        made.open(path, TINY)
        assert [of for of in await made.findings(path) if of.severity == 1] == []
        version = made.change(path, BAD)
        (found,) = await made.findings(path, version)
        assert (found.code, found.severity) == ("E402", types.DiagnosticSeverity.Error)
        # Of a burst of edits the last one counts; no findings of another text are left behind.
        for text in ("stage", BAD, TINY.replace("steps   = 24", "steps = "), TINY):
            version = made.change(path, text)
        found = await made.findings(path, version)
        assert [of for of in found if of.severity == 1] == []
        document = types.TextDocumentIdentifier(path.as_uri())
        version = made.change(path, BAD)
        await made.findings(path, version)
        made.text_document_did_close(types.DidCloseTextDocumentParams(document))
        assert await made.findings(path) == []

    talk(tmp_path, session)


def test_everything_can_be_asked(tmp_path: Path) -> None:
    path = tmp_path.resolve() / "spec.etude"
    text = "# 🎼𝔘\n" + TINY

    async def session(made: Client) -> None:
        document = made.open(path, text)
        hover = await made.text_document_hover_async(
            types.HoverParams(document, place(text, "l¦r      ="))
        )
        assert hover
        assert isinstance(hover.contents, types.MarkupContent)
        assert "0 → 0.003 linear — steps 0 to 4" in hover.contents.value
        found = await made.text_document_definition_async(
            types.DefinitionParams(document, place(text, "model   = t¦iny"))
        )
        assert isinstance(found, types.Location)
        assert found.range.start == place(text, "model ¦tiny")
        context = types.ReferenceContext(include_declaration=True)
        references = await made.text_document_references_async(
            types.ReferenceParams(context, document, place(text, "dataset d¦ocs"))
        )
        assert references
        assert len(references) == 6
        prepared = await made.text_document_prepare_rename_async(
            types.PrepareRenameParams(document, place(text, "dataset d¦ocs"))
        )
        assert isinstance(prepared, types.PrepareRenamePlaceholder)
        edit = await made.text_document_rename_async(
            types.RenameParams(document, place(text, "dataset d¦ocs"), "pages")
        )
        assert edit
        assert edit.changes
        assert len(edit.changes[path.as_uri()]) == 6
        with pytest.raises(JsonRpcException, match="already"):
            await made.text_document_rename_async(
                types.RenameParams(document, place(text, "dataset d¦ocs"), "sums")
            )
        symbols = await made.text_document_document_symbol_async(
            types.DocumentSymbolParams(document)
        )
        assert symbols
        assert [of.name for of in symbols][-1] == "report"
        folds = await made.text_document_folding_range_async(types.FoldingRangeParams(document))
        assert folds
        whole = types.Range(types.Position(0, 0), types.Position(99, 0))
        hints = await made.text_document_inlay_hint_async(types.InlayHintParams(document, whole))
        assert hints
        marks = await made.text_document_document_highlight_async(
            types.DocumentHighlightParams(document, place(text, "dataset d¦ocs"))
        )
        assert marks
        version = made.change(path, BAD)
        (finding,) = await made.findings(path, version)
        fixes = await made.text_document_code_action_async(
            types.CodeActionParams(
                document, finding.range, types.CodeActionContext(diagnostics=[finding])
            )
        )
        assert fixes
        assert isinstance(fixes[0], types.CodeAction)
        assert fixes[0].title == "Replace with `docs`"
        made.change(path, BAD + "stage x: ")
        completion = await made.text_document_completion_async(
            types.CompletionParams(document, types.Position(BAD.count("\n"), 9))
        )
        assert isinstance(completion, types.CompletionList)
        assert "train" in [item.label for item in completion.items]

    talk(tmp_path, session)


def test_unsaved_parts_and_those_on_the_disk_are_one_spec(tmp_path: Path) -> None:
    main, part = tmp_path.resolve() / "main.etude", tmp_path.resolve() / "data.etude"
    data = [line for line in TINY.splitlines() if line.startswith("dataset")]
    text = 'use "data.etude"\n' + "\n".join(li for li in TINY.splitlines() if li not in data)
    main.write_text(text)
    part.write_text("\n".join(data))

    async def session(made: Client) -> None:
        made.open(part, "\n".join(data))
        shown = await made.both(main, part)
        assert [of for file in shown for of in file if of.severity == 1] == []
        made.change(part, "\n".join(data).replace("dataset docs", "dataset pages"))
        # The main file is not open: what is wrong with it is shown all the same.
        broken, _ = await made.both(main, part)
        assert {of.code for of in broken} == {"E402"}
        made.change(part, "\n".join(data))
        shown = await made.both(main, part)
        assert [of for file in shown for of in file if of.severity == 1] == []

    talk(tmp_path, session)


def test_nothing_that_is_sent_ends_the_server(tmp_path: Path) -> None:
    path = tmp_path.resolve() / "spec.etude"
    texts = [
        "",
        "\0",
        "{" * 200,
        '"' * 99,
        "stage " * 500,
        "\ud7ff🎼{",
        'use "\0"\n',
        "}" * 9,
        "let a = a\n",
        'use "spec.etude"\n',
        "recipe",
        "x" * 10_000,
    ]

    async def session(made: Client) -> None:
        document = made.open(path, TINY)
        far = types.Position(10**6, 10**6)
        for text in texts:
            version = made.change(path, text)
            await made.text_document_hover_async(types.HoverParams(document, far))
            await made.text_document_completion_async(types.CompletionParams(document, far))
            await made.findings(path, version)
        elsewhere = types.TextDocumentIdentifier("untitled:Untitled-1")
        assert await made.text_document_hover_async(types.HoverParams(elsewhere, far)) is None
        missing = types.TextDocumentIdentifier((tmp_path / "no.etude").as_uri())
        assert await made.text_document_hover_async(types.HoverParams(missing, far)) is None
        version = made.change(path, TINY)
        assert [of for of in await made.findings(path, version) if of.severity == 1] == []

    talk(tmp_path, session)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-32"])
def test_columns_are_in_the_units_that_the_editor_asks_for(encoding: str, tmp_path: Path) -> None:
    path = tmp_path.resolve() / "spec.etude"
    text = 'recipe a { title = "🎼é", seeed = 1 }\n'
    before = text[: text.index("seeed")]
    columns = {"utf-8": len(before.encode()), "utf-32": len(before)}

    async def run() -> None:
        async with client(tmp_path.resolve(), [encoding]) as made:
            made.open(path, text)
            found = [of for of in await made.findings(path) if of.code == "E308"]
            assert found[0].range.start.character == columns[encoding]

    asyncio.run(run())


def test_a_client_that_goes_away_leaves_no_server(tmp_path: Path) -> None:
    process = subprocess.Popen(
        COMMAND,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = process.communicate(b"", timeout=SECONDS)
    assert out == b""
    assert b"Traceback" not in err


def test_without_pygls_the_command_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "pygls.py").write_text("raise ImportError('no pygls')\n")
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = etude("lsp", cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: the language server needs pygls, which is not installed\n"
        "  = help: pip install 'etude[lsp]'\n"
    )
