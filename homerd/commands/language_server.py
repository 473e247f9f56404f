"""The Language Server Protocol for scripts: pygls on one side, `editor` on the other.

A file is compiled when it is opened and saved, and a moment after it was last changed, as the
editor has it.  A file that a homer.cfg above it includes is compiled with that script, as it is on
the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lsprotocol import types
from pygls.lsp.server import LanguageServer

import homerd
from homerd.commands import editor

REST_SECONDS = 0.2  # how long typing must rest before the script is compiled

_KINDS = {
    editor.FUNCTION: types.CompletionItemKind.Function,
    editor.VARIABLE: types.CompletionItemKind.Variable,
    editor.TRANSFORMATION: types.CompletionItemKind.Method,
    editor.PARAMETER: types.CompletionItemKind.Property,
    editor.MODULE: types.CompletionItemKind.Module,
    editor.ROUTE: types.CompletionItemKind.Event,
}


class ScriptServer(LanguageServer):
    """A language server and what it remembers of the scripts it was shown."""

    def __init__(self) -> None:
        super().__init__("homerd", homerd.__version__)
        self.scripts: dict[str, Path] = {}  # the script that a document belongs to
        self.shown: dict[Path, set[Path]] = {}  # files that a script's faults were shown in
        self.resting: dict[str, asyncio.TimerHandle] = {}

    def check(self, uri: str, *, saved: bool) -> None:
        """Compile the script that *uri* belongs to and show what is wrong."""
        path = path_of(uri)
        if uri not in self.scripts or saved:
            self.scripts[uri] = editor.script_of(path)
        script = self.scripts[uri]
        if script != path and not saved:
            return
        text = self.workspace.get_text_document(uri).source if script == path else None
        found = editor.faults(script, text)
        for file in self.shown.get(script, set()) - found.keys():
            found[file] = []
        self.shown[script] = {file for file, faults in found.items() if faults}
        for file, faults in found.items():
            shown = uri if file == path.resolve() else file.as_uri()
            self.text_document_publish_diagnostics(
                types.PublishDiagnosticsParams(shown, [self.diagnostic(shown, f) for f in faults])
            )

    def check_soon(self, uri: str) -> None:
        """Check when typing rests."""
        if uri in self.resting:
            self.resting[uri].cancel()
        loop = asyncio.get_running_loop()
        self.resting[uri] = loop.call_later(REST_SECONDS, lambda: self.check(uri, saved=False))

    def diagnostic(self, uri: str, fault: editor.Fault) -> types.Diagnostic:
        """A fault as the protocol has it."""
        document = self.workspace.get_text_document(uri)
        place = types.Range(
            types.Position(fault.line, fault.column),
            types.Position(fault.end_line, fault.end_column),
        )
        item = fault.diagnostic
        warning = item.severity == "warning"
        return types.Diagnostic(
            range=document.position_codec.range_to_client_units(document.lines, place),
            message="\n".join([item.message, *(f"help: {text}" for text in item.help)]),
            severity=types.DiagnosticSeverity(2 if warning else 1),
            code=item.code,
            source="homerd",
        )

    def line_to(self, uri: str, position: types.Position) -> tuple[str, int, str]:
        """The line at a position, the column in it, and the whole text."""
        document = self.workspace.get_text_document(uri)
        lines: Sequence[str] = document.lines
        at = document.position_codec.position_from_client_units(lines, position)
        line = lines[at.line] if at.line < len(lines) else ""
        return line, at.character, document.source


def path_of(uri: str) -> Path:
    """The file that a URI names."""
    return Path(unquote(urlsplit(uri).path))


def make() -> ScriptServer:
    """A server that answers; start_io runs it."""
    server = ScriptServer()

    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: types.DidOpenTextDocumentParams) -> None:
        server.check(params.text_document.uri, saved=True)

    @server.feature(types.TEXT_DOCUMENT_DID_SAVE)
    def saved(params: types.DidSaveTextDocumentParams) -> None:
        server.check(params.text_document.uri, saved=True)

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: types.DidChangeTextDocumentParams) -> None:
        server.check_soon(params.text_document.uri)

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        uri = params.text_document.uri
        if uri in server.resting:
            server.resting.pop(uri).cancel()

    @server.feature(
        types.TEXT_DOCUMENT_COMPLETION,
        types.CompletionOptions(trigger_characters=["$", "{", '"', "(", "."]),
    )
    def complete(params: types.CompletionParams) -> list[types.CompletionItem]:
        line, column, text = server.line_to(params.text_document.uri, params.position)
        return [
            types.CompletionItem(
                label=item.label,
                kind=_KINDS[item.kind],
                detail=item.detail,
                documentation=types.MarkupContent(types.MarkupKind.Markdown, item.text),
            )
            for item in editor.proposals(line[:column], text)
        ]

    @server.feature(types.TEXT_DOCUMENT_HOVER)
    def hover(params: types.HoverParams) -> types.Hover | None:
        line, column, _ = server.line_to(params.text_document.uri, params.position)
        text = editor.meaning(line, column)
        if text is None:
            return None
        return types.Hover(types.MarkupContent(types.MarkupKind.Markdown, text))

    return server
