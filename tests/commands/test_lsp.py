"""`homerd lsp`, spoken to as an editor does: JSON-RPC over its standard input and output."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys

import pytest

from homerd.cli import main
from homerd.commands import editor

SCRIPT = """\
loadmodule "pv"
loadmodule "xlog"
loadmodule "htable"
modparam("htable", "htable", "calls=>size=8;")
request_route {
    xlog("$(fU{s.len})\\n");
    route(STORE);
}
route[STORE] { drop; }
"""


class Editor:
    """The client's side: sends requests, keeps what the server says in between."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "homerd", "lsp", "--stdio"]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.number = 0
        self.told = []

    def send(self, method, params, **more):
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more}).encode()
        self.server.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.server.stdin.flush()

    def read(self):
        length = 0
        while (line := self.server.stdout.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        assert length, "the server ended"
        return json.loads(self.server.stdout.read(length))

    def ask(self, method, params):
        self.number += 1
        self.send(method, params, id=self.number)
        while (message := self.read()).get("id") != self.number:
            self.told.append(message)
        assert "error" not in message, message
        return message["result"]

    def diagnostics(self, uri):
        """The next that are published for *uri*."""
        while True:
            message = self.told.pop(0) if self.told else self.read()
            published = message.get("method") == "textDocument/publishDiagnostics"
            if published and message["params"]["uri"] == uri:
                return message["params"]["diagnostics"]


@pytest.fixture
def client():
    client = Editor()
    client.ask("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
    client.send("initialized", {})
    yield client
    client.ask("shutdown", None)
    client.send("exit", None)
    client.server.stdin.close()
    assert client.server.wait(timeout=20) == 0
    client.server.stdout.close()


def opened(client, path, text):
    path.write_text(text)
    document = {"uri": path.as_uri(), "languageId": "kamailio", "version": 1, "text": text}
    client.send("textDocument/didOpen", {"textDocument": document})
    return path.as_uri()


def test_mistakes_are_shown_on_opening_changing_and_saving(client, tmp_path):
    uri = opened(client, tmp_path / "homer.cfg", SCRIPT)
    assert client.diagnostics(uri) == []
    changes = [{"text": SCRIPT.replace("xlog(", "xlogg(")}]
    client.send(
        "textDocument/didChange",
        {"textDocument": {"uri": uri, "version": 2}, "contentChanges": changes},
    )
    (fault,) = client.diagnostics(uri)
    assert (fault["code"], fault["severity"], fault["source"]) == ("E201", 1, "homerd")
    assert fault["message"] == 'unknown function "xlogg"\nhelp: did you mean "xlog"?'
    assert fault["range"] == {
        "start": {"line": 5, "character": 4},
        "end": {"line": 5, "character": 9},
    }
    client.send(
        "textDocument/didChange",
        {"textDocument": {"uri": uri, "version": 3}, "contentChanges": [{"text": SCRIPT}]},
    )
    client.send("textDocument/didSave", {"textDocument": {"uri": uri}})
    assert client.diagnostics(uri) == []


def test_a_column_counts_as_the_editor_counts(client, tmp_path):
    text = 'loadmodule "xlog"\nrequest_route { /* \U0001f600 */ xlogg("x"); }\n'
    (fault,) = client.diagnostics(opened(client, tmp_path / "homer.cfg", text))
    assert fault["range"]["start"] == {"line": 1, "character": 25}


def test_a_mistake_in_an_included_file_is_shown_there(client, tmp_path):
    part = tmp_path / "routes" / "store.cfg"
    part.parent.mkdir()
    part.write_text("route[STORE] {\n    nope();\n}\n")
    uri = opened(
        client,
        tmp_path / "homer.cfg",
        'include_file "routes/store.cfg"\nrequest_route { route(STORE); }\n',
    )
    assert client.diagnostics(uri) == []
    assert [item["code"] for item in client.diagnostics(part.as_uri())] == ["E201"]
    opened(client, part, "route[STORE] {\n    drop;\n}\n")
    assert client.diagnostics(part.as_uri()) == []


def test_completion_and_hover(client, tmp_path):
    uri = opened(client, tmp_path / "homer.cfg", SCRIPT)
    place = {"textDocument": {"uri": uri}, "position": {"line": 5, "character": 6}}
    found = {item["label"]: item for item in client.ask("textDocument/completion", place)}
    assert found["xlog"]["detail"].endswith("(xlog)")
    hover = client.ask("textDocument/hover", place)
    assert "Module `xlog`" in hover["contents"]["value"]
    place["position"] = {"line": 4, "character": 0}
    assert client.ask("textDocument/hover", place) is None


@pytest.mark.parametrize(
    ("before", "among"),
    [
        ("    sip_cap", "sip_capture"),
        ("if ($r", "rm"),
        ('xlog("$(fU{s.', "s.len"),
        ("    $(fU{s.len}{", "s.tolower"),
        ('modparam("', "htable"),
        ('modparam("htable", "', "timer_interval"),
        ('loadmodule "si', "sipcapture"),
        ("    route(", "STORE"),
        ('    route("ST', "STORE"),
    ],
)
def test_what_may_stand_at_a_place(before, among):
    assert among in [item.label for item in editor.proposals(before, SCRIPT)]


@pytest.mark.parametrize("before", ["# sip_cap", 'xlog("sip_cap', "", "5"])
def test_nothing_is_proposed_in_comments_and_texts(before):
    assert editor.proposals(before, SCRIPT) == []


@pytest.mark.parametrize(
    ("line", "column", "told"),
    [
        ("    sip_capture(", 8, "sip_capture("),
        ('xlog("$(fU{s.len})\\n")', 9, "User of From"),
        ('xlog("$(fU{s.len})\\n")', 13, "{s.len}"),
        ('modparam("htable", "timer_interval", 5)', 22, "seconds between looks"),
    ],
)
def test_a_word_under_the_cursor_is_told(line, column, told):
    assert told in editor.meaning(line, column)


def test_a_script_that_a_module_refuses_is_one_fault_at_its_top(tmp_path):
    script = tmp_path / "homer.cfg"
    script.write_text(
        'loadmodule "statsd"\nmodparam("statsd", "port", "x")\nrequest_route { drop; }\n'
    )
    (fault,) = editor.faults(script)[script]
    assert (fault.line, fault.diagnostic.severity) == (0, "error")


def test_without_pygls_it_says_what_to_install(monkeypatch, capsys):
    real = builtins.__import__

    def without(name, *arguments, **more):
        if name.startswith(("pygls", "lsprotocol")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])
        return real(name, *arguments, **more)

    for name in [name for name in sys.modules if name.startswith("homerd.commands.language")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["lsp"]) == 1
    assert capsys.readouterr().err == 'homerd: homerd lsp needs pygls: pip install "pygls>=2"\n'
