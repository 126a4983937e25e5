"""The server: passes messages to pure functions and returns their answers; survives all errors."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from . import actions, completion, diagnostics, hover, inlay, navigation, outline
from .project import Analysis, Project

log = logging.getLogger(__name__)
DEBOUNCE = 0.002
"""Seconds to wait for another edit before a text is analysed, so that a burst is analysed once."""
Answer = TypeVar("Answer")


class EtudeServer(LanguageServer):
    """Keeps the open texts; analyses them in a thread separate from the one that takes messages."""

    def __init__(self) -> None:
        super().__init__(
            "etude",
            version("etude"),
            text_document_sync_kind=types.TextDocumentSyncKind.Full,
            max_workers=2,
        )
        self.project = Project()
        self.versions: dict[Path, int | None] = {}
        self.published: dict[Path, tuple[int | None, list[types.Diagnostic]]] = {}
        self.changes: list[Callable[[Project], None]] = []
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="etude")
        self.pending: asyncio.Task[None] | None = None

    async def ask(
        self, uri: str, answer: Callable[[Analysis, Path], Answer], otherwise: Answer
    ) -> Answer:
        """What a function returns for the file; `otherwise` without an analysis or after an error.

        Raises: JsonRpcInvalidParams: the function refused, with a message for the user.
        """
        path = path_of(uri)
        if path is None:
            return otherwise

        def work() -> Answer:
            analysis = self.project.analysis(path)
            return answer(analysis, path) if analysis and path in analysis.trees else otherwise

        try:
            return await self.work(work)
        except navigation.Refused as refusal:
            raise JsonRpcInvalidParams(str(refusal)) from refusal
        except Exception:
            log.exception("no answer")
            return otherwise

    async def work(self, task: Callable[[], Answer]) -> Answer:
        """Runs a task on the current texts; tasks run one after another.

        A task that is cancelled before its turn is skipped.
        """

        def run() -> Answer:
            while self.changes:
                self.changes.pop(0)(self.project)
            return task()

        return await asyncio.get_running_loop().run_in_executor(self.worker, run)

    def take(self, uri: str, number: int | None, text: str) -> None:
        """Takes a text from the editor, to be analysed soon."""
        path = path_of(uri)
        if path is None:
            return
        self.versions[path] = number
        self.change(lambda project: project.open(path, text))

    def change(self, how: Callable[[Project], None]) -> None:
        """Changes the texts before the next task, and schedules an analysis."""
        self.changes.append(how)
        self.look()

    def look(self) -> None:
        """Schedules an analysis of the open texts, once no more edits arrive."""
        if self.pending:
            self.pending.cancel()
        self.pending = asyncio.ensure_future(self._look())

    async def _look(self) -> None:
        await asyncio.sleep(DEBOUNCE)
        versions = dict(self.versions)
        try:
            found = await self.work(lambda: self._findings(list(versions)))
        except Exception:
            log.exception("no diagnostics")
            return
        if any(self.versions.get(path) != number for path, number in versions.items()):
            return  # the later edit has scheduled its own analysis
        found |= {path: [] for path in self.published.keys() - found.keys()}
        for path, of in found.items():
            shown = (versions.get(path), of)
            if shown != self.published.get(path, (None, [])):
                self.text_document_publish_diagnostics(
                    types.PublishDiagnosticsParams(path.as_uri(), of, version=versions.get(path))
                )
                self.published[path] = shown

    def _findings(self, paths: list[Path]) -> dict[Path, list[types.Diagnostic]]:
        """The findings of the specs that open files are part of, each once."""
        by_file: dict[Path, list[types.Diagnostic]] = {}
        mains: set[Path] = set()
        for path in paths:
            for analysis in self.project.analyses(path):
                if analysis.main in mains:
                    continue
                mains.add(analysis.main)
                for file, of in diagnostics.diagnostics(analysis).items():
                    own = by_file.setdefault(file, [])
                    own += [each for each in of if each not in own]
        return by_file


def path_of(uri: str) -> Path | None:
    """The file of a document, resolved; None if it is in no file system."""
    name = to_fs_path(uri) if uri.startswith("file:") else None
    try:
        return Path(name).resolve() if name else None
    except (OSError, ValueError, RuntimeError):
        return None


def server() -> EtudeServer:
    """A server with all its features."""
    language_server = EtudeServer()
    _texts(language_server)
    _reading(language_server)
    _names(language_server)
    _editing(language_server)
    return language_server


def _texts(server: EtudeServer) -> None:
    @server.feature(types.INITIALIZED)
    def _(_: types.InitializedParams) -> None:
        encoding = server.workspace.position_encoding
        server.project.encoding = str(getattr(encoding, "value", encoding) or "utf-16")
        folders = [path_of(uri) for uri in server.workspace.folders]
        server.project.folders = [folder for folder in folders if folder]

    @server.feature(types.SHUTDOWN)
    def _(_: None) -> None:
        server.worker.shutdown(wait=False, cancel_futures=True)

    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def _(given: types.DidOpenTextDocumentParams) -> None:
        document = given.text_document
        server.take(document.uri, document.version, document.text)

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    def _(given: types.DidChangeTextDocumentParams) -> None:
        document = given.text_document
        text = server.workspace.get_text_document(document.uri).source
        server.take(document.uri, document.version, text)

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def _(given: types.DidCloseTextDocumentParams) -> None:
        path = path_of(given.text_document.uri)
        if path is None:
            return
        server.versions.pop(path, None)
        server.change(lambda project: project.close(path))

    @server.feature(types.TEXT_DOCUMENT_DID_SAVE)
    def _(_: types.DidSaveTextDocumentParams) -> None:
        server.change(Project.forget)

    @server.feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES)
    def _(_: types.DidChangeWatchedFilesParams) -> None:
        server.change(Project.forget)


def _reading(server: EtudeServer) -> None:
    @server.feature(types.TEXT_DOCUMENT_HOVER)
    async def _(given: types.HoverParams) -> types.Hover | None:
        return await server.ask(given.text_document.uri, _there(given, hover.hover), None)

    @server.feature(
        types.TEXT_DOCUMENT_COMPLETION,
        types.CompletionOptions(trigger_characters=[".", "=", '"', "[", "{", ":", " "]),
    )
    async def _(given: types.CompletionParams) -> types.CompletionList:
        found = await server.ask(given.text_document.uri, _there(given, completion.completion), [])
        return types.CompletionList(is_incomplete=False, items=found)

    @server.feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
    async def _(given: types.DocumentSymbolParams) -> list[types.DocumentSymbol]:
        return await server.ask(given.text_document.uri, outline.symbols, [])

    @server.feature(types.TEXT_DOCUMENT_FOLDING_RANGE)
    async def _(given: types.FoldingRangeParams) -> list[types.FoldingRange]:
        return await server.ask(given.text_document.uri, outline.folding, [])

    @server.feature(types.TEXT_DOCUMENT_INLAY_HINT)
    async def _(given: types.InlayHintParams) -> list[types.InlayHint]:
        return await server.ask(given.text_document.uri, _stretch(given.range, inlay.hints), [])


def _names(server: EtudeServer) -> None:
    @server.feature(types.TEXT_DOCUMENT_DEFINITION)
    async def _(given: types.DefinitionParams) -> types.Location | None:
        return await server.ask(given.text_document.uri, _there(given, navigation.definition), None)

    @server.feature(types.TEXT_DOCUMENT_REFERENCES)
    async def _(given: types.ReferenceParams) -> list[types.Location]:
        def answer(analysis: Analysis, path: Path) -> list[types.Location]:
            offset = analysis.lines(path).offset(given.position)
            own = given.context.include_declaration
            return navigation.references(analysis, path, offset, declaration=own)

        return await server.ask(given.text_document.uri, answer, [])

    @server.feature(types.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT)
    async def _(given: types.DocumentHighlightParams) -> list[types.DocumentHighlight]:
        return await server.ask(given.text_document.uri, _there(given, navigation.highlights), [])

    @server.feature(types.TEXT_DOCUMENT_PREPARE_RENAME)
    async def _(given: types.PrepareRenameParams) -> types.PrepareRenamePlaceholder | None:
        return await server.ask(given.text_document.uri, _there(given, navigation.renameable), None)

    @server.feature(types.TEXT_DOCUMENT_RENAME, types.RenameOptions(prepare_provider=True))
    async def _(given: types.RenameParams) -> types.WorkspaceEdit | None:
        def answer(analysis: Analysis, path: Path) -> types.WorkspaceEdit | None:
            offset = analysis.lines(path).offset(given.position)
            analyses = server.project.analyses(path)
            edits = navigation.rename(analyses, path, offset, given.new_name)
            return types.WorkspaceEdit(changes=edits)

        return await server.ask(given.text_document.uri, answer, None)


def _editing(server: EtudeServer) -> None:
    @server.feature(
        types.TEXT_DOCUMENT_CODE_ACTION,
        types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix]),
    )
    async def _(given: types.CodeActionParams) -> list[types.CodeAction]:
        return await server.ask(given.text_document.uri, _stretch(given.range, actions.actions), [])

    @server.feature(types.TEXT_DOCUMENT_FORMATTING)
    async def _(given: types.DocumentFormattingParams) -> list[types.TextEdit]:
        return await server.ask(given.text_document.uri, actions.layout, [])


def _there(
    given: Any, function: Callable[[Analysis, Path, int], Answer]
) -> Callable[[Analysis, Path], Answer]:
    """Applies the function at the position of a request."""
    return lambda analysis, path: function(
        analysis, path, analysis.lines(path).offset(given.position)
    )


def _stretch(
    place: types.Range, function: Callable[[Analysis, Path, int, int], Answer]
) -> Callable[[Analysis, Path], Answer]:
    """Applies the function to the range of a request."""

    def answer(analysis: Analysis, path: Path) -> Answer:
        lines = analysis.lines(path)
        return function(analysis, path, lines.offset(place.start), lines.offset(place.end))

    return answer
