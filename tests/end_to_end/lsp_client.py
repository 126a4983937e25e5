"""A client for the language server: pygls' own, on the command that editors start."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from etude_cli import environment
from lsprotocol import types
from pygls.lsp.client import LanguageClient

COMMAND = [sys.executable, "-m", "etude.cli.main", "lsp"]
SECONDS = 30


class Client(LanguageClient):
    """Sends texts and takes findings.

    Attributes:
        published: findings in the order of their arrival.
    """

    def __init__(self) -> None:
        super().__init__("tests", "1")
        self.published: asyncio.Queue[types.PublishDiagnosticsParams] = asyncio.Queue()
        self.versions: dict[str, int] = {}

        @self.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
        def _(given: types.PublishDiagnosticsParams) -> None:
            self.published.put_nowait(given)

    @property
    def process(self) -> Any:
        return self._server

    def open(self, path: Path, text: str) -> types.TextDocumentIdentifier:
        uri = path.as_uri()
        self.versions[uri] = 1
        item = types.TextDocumentItem(uri, "etude", 1, text)
        self.text_document_did_open(types.DidOpenTextDocumentParams(item))
        return types.TextDocumentIdentifier(uri)

    def change(self, path: Path, text: str) -> int:
        uri = path.as_uri()
        self.versions[uri] += 1
        document = types.VersionedTextDocumentIdentifier(self.versions[uri], uri)
        whole = types.TextDocumentContentChangeWholeDocument(text)
        self.text_document_did_change(types.DidChangeTextDocumentParams(document, [whole]))
        return self.versions[uri]

    async def findings(self, path: Path, version: int | None = None) -> list[types.Diagnostic]:
        """The next findings of a file; of a version, if one is given."""
        while True:
            found = await asyncio.wait_for(self.published.get(), SECONDS)
            if found.uri == path.as_uri() and version in (None, found.version):
                return list(found.diagnostics)

    async def both(self, first: Path, second: Path) -> list[list[types.Diagnostic]]:
        """The next findings of two files of a spec, which come in any order."""
        found: dict[str, list[types.Diagnostic]] = {}
        uris = [first.as_uri(), second.as_uri()]
        while not set(uris) <= found.keys():
            given = await asyncio.wait_for(self.published.get(), SECONDS)
            found[given.uri] = list(given.diagnostics)
        return [found[uri] for uri in uris]


@asynccontextmanager
async def client(
    folder: Path, encodings: list[types.PositionEncodingKind | str] | None = None
) -> AsyncIterator[Client]:
    """A client with a server that it has started; the server ends with it, with exit code 0."""
    made = Client()
    await made.start_io(*COMMAND, cwd=folder, env=environment())
    general = types.GeneralClientCapabilities(position_encodings=encodings)
    await made.initialize_async(
        types.InitializeParams(
            capabilities=types.ClientCapabilities(general=general),
            workspace_folders=[types.WorkspaceFolder(folder.as_uri(), folder.name)],
        )
    )
    made.initialized(types.InitializedParams())
    try:
        yield made
    finally:
        await asyncio.wait_for(made.shutdown_async(None), SECONDS)
        made.exit(None)
        code = await asyncio.wait_for(made.process.wait(), SECONDS)
        await made.stop()
        assert code == 0
