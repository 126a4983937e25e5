"""Response times of the language server, over its standard streams, as seen by an editor.

    python -m benchmarks.language_server [edits]

Edits cycle through a spec of 500 lines: something is typed in one place after another, and removed
again. Each is sent once the previous answer has arrived. Writes the section "Language server" of
benchmarks/RESULTS.md.
"""

import asyncio
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from lsprotocol import types
from pygls.lsp.client import LanguageClient

from etude.lsp.server import DEBOUNCE

from .results import write_section

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "llama3_405b.etude"
LINES = 500
LIMIT_MS = 50
COMMAND = [sys.executable, "-m", "etude.cli.main", "lsp"]


def spec() -> str:
    """The example with many stages added after its first, each continuing from the previous one."""
    head, _, rest = EXAMPLE.read_text(encoding="utf-8").partition("stage long_context")
    long_context, _, end = ("stage long_context" + rest).partition("stage anneal")
    end = "stage anneal" + end
    gate = re.compile(r"  gate seq_len \{.*?\n  \}\n", re.DOTALL)
    text, before = head + long_context, "long_context"
    number = 0
    while (text + end).count("\n") < LINES:
        number += 1
        name = f"more_{number}"
        text += (
            f"stage {name}: train {{\n  from     = {before}\n  tokens   = 800B\n"
            "  lr       = last -> 8e-7 cosine for 400B tokens\n             then 8e-7\n"
            "  data     = { general 40%, reasoning 30%, code 20%, multilingual 10% }\n"
            "             for 100B tokens\n"
            "             then { general 30%, reasoning 40%, code 20%, multilingual 10% }\n"
            "}\n\n"
        )
        before = name
    return gate.sub("", text) + end.replace("long_context", before)


def edits(text: str, count: int) -> list[str]:
    """The texts after each edit: something is typed in one stage after another and then removed;
    every fourth insertion makes the text invalid."""
    places = [match.end() for match in re.finditer(r"tokens +=.*?(?=\d0?B)", text)]
    found = []
    for number in range((count + 1) // 2):
        place = places[number * 7 % len(places)]
        typed = "1" if number % 4 else "x ="
        found += [text[:place] + typed + text[place:], text]
    return found[:count]


class Client(LanguageClient):
    def __init__(self) -> None:
        super().__init__("benchmark", "1")
        self.published: asyncio.Queue[types.PublishDiagnosticsParams] = asyncio.Queue()

        @self.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
        def _(given: types.PublishDiagnosticsParams) -> None:
            self.published.put_nowait(given)


def cpu(process: int) -> float:
    """CPU seconds of a process, in Linux's resolution of hundredths."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(text: str, count: int) -> dict[str, list[float]]:
    """Milliseconds per answer, by the kind of request."""
    found: dict[str, list[float]] = {name: [] for name in ("edit", "hover", "completion", "cpu")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve() / "spec.etude"
        uri = path.as_uri()
        client = Client()
        await client.start_io(*COMMAND, cwd=folder)
        await client.initialize_async(types.InitializeParams(types.ClientCapabilities()))
        client.initialized(types.InitializedParams())
        document = types.TextDocumentItem(uri, "etude", 0, text)
        client.text_document_did_open(types.DidOpenTextDocumentParams(document))
        await client.published.get()
        assert client._server
        process = client._server.pid
        asked = types.TextDocumentIdentifier(uri)

        async def took(what: str, ask: Callable[[], Awaitable[Any]]) -> None:
            start = time.perf_counter()
            await ask()
            found[what].append((time.perf_counter() - start) * 1e3)

        for number, changed in enumerate(edits(text, count), 1):

            async def edit(number: int = number, changed: str = changed) -> None:
                client.text_document_did_change(
                    types.DidChangeTextDocumentParams(
                        types.VersionedTextDocumentIdentifier(number, uri),
                        [types.TextDocumentContentChangeWholeDocument(changed)],
                    )
                )
                while (await client.published.get()).version != number:
                    pass

            before = cpu(process)
            await took("edit", edit)
            found["cpu"].append((cpu(process) - before) * 1e3)
            lines = changed.splitlines()
            line = next(n for n in range(number * 11 % len(lines), len(lines)) if "=" in lines[n])
            place = types.Position(line, len(lines[line]) - len(lines[line].lstrip()) + 1)
            hover = types.HoverParams(asked, place)
            await took("hover", lambda p=hover: client.text_document_hover_async(p))
            completion = types.CompletionParams(asked, place)
            await took("completion", lambda p=completion: client.text_document_completion_async(p))
        await client.shutdown_async(None)
        client.exit(None)
        await client.stop()
    return found


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    text = spec()
    found = asyncio.run(measure(text, count))
    rows = ""
    computed = sum(found["cpu"]) / count
    for name, title in (
        ("edit", "an edit, to its findings"),
        ("hover", "hover"),
        ("completion", "completion"),
    ):
        of = found[name]
        rows += f"| {title} | {median(of):.1f} | {quantiles(of, n=20)[-1]:.1f} | {max(of):.1f} |\n"
    write_section(
        "Language server",
        f"`python -m benchmarks.language_server {count}` on {platform.machine()}, "
        f"Python {platform.python_version()}, pygls {version('pygls')}, "
        f"etude {version('etude')}; a spec of {len(text.splitlines())} lines, {count} edits, "
        f"milliseconds over the server's standard streams, "
        f"{DEBOUNCE * 1e3:.0f} of each edit's waited for another. Load average "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; the "
        f"server itself computed {computed:.1f} ms an edit.\n\n"
        f"| | median | 19 of 20 below | most |\n| --- | --- | --- | --- |\n{rows}",
    )
    return 0 if median(found["edit"]) <= LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
