"""A stand-in for an Elasticsearch node, as strict as one about what it is sent.

For what a real one cannot be made to do when a test wants it: to be busy, to ask for a password, to
be no Elasticsearch at all.  tests/plugins/test_elasticsearch_server.py holds its answers against
those of the real one.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

NDJSON = re.compile(r"application/(vnd\.elasticsearch\+)?(x-nd)?json(; ?compatible-with=8)?")
JSON = re.compile(r"application/(vnd\.elasticsearch\+)?json(; ?compatible-with=8)?")
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
INDEX = re.compile(r"(?![-_+.])[^\\/*?\"<>| ,#:A-Z]{1,255}")


class Node(ThreadingHTTPServer):
    """A node's state; tests say what it does next.

    busy: ids or texts that get 429 so often.  mapping: field -> its type, by the first that comes.
    product: what it says it is.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.clear()

    def clear(self) -> None:
        """Empty, and nothing special ahead."""
        self.documents: dict[tuple[str, str], dict[str, Any]] = {}
        self.templates: dict[str, dict[str, Any]] = {}
        self.mapping: dict[tuple[str, str], str] = {}
        self.busy: Counter[str] = Counter()
        self.answers: list[int] = []  # statuses of the next requests, in place of their own
        self.user = ""
        self.product = "Elasticsearch"
        self.requests: list[tuple[str, int]] = []  # path and number of documents

    def of(self, index: str) -> list[dict[str, Any]]:
        """The documents of an index."""
        return [text for (name, _), text in self.documents.items() if name == index]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Node

    def do_PUT(self) -> None:
        if self.path.partition("?")[0] == "/_bulk":
            self.do_POST()
            return
        body = self._body()
        name = self.path.removeprefix("/_index_template/")
        if not JSON.fullmatch(self.headers["Content-Type"] or "") or name == self.path:
            self._answer(400, {"error": "no template"})
        elif self._admitted():
            template = json.loads(body)
            unknown = template.keys() - {"index_patterns", "priority", "template"}
            if unknown or not isinstance(template["index_patterns"], list):
                self._answer(400, {"error": {"type": "x_content_parse_exception"}})
                return
            self.server.templates[name] = template
            self._answer(200, {"acknowledged": True})

    def do_POST(self) -> None:
        body = self._body()
        if not self._admitted():
            return
        path = self.path.partition("?")[0]
        kind = self.headers["Content-Type"] or ""
        if path != "/_bulk" or not NDJSON.fullmatch(kind):
            self._answer(406, {"error": {"type": "media_type_header_exception"}})
            return
        if "compatible-with" in kind and "compatible-with" not in (self.headers["Accept"] or ""):
            self._answer(400, {"error": {"type": "media_type_header_exception"}})
            return
        try:
            items = self._bulk(body.decode("utf-8"))
        except (ValueError, KeyError) as error:
            reason = {"type": "illegal_argument_exception", "reason": str(error)}
            self._answer(400, {"error": reason, "status": 400})
            return
        self.server.requests.append((path, len(items)))
        errors = any(item["index"]["status"] >= 300 for item in items)
        self._answer(200, {"took": 1, "errors": errors, "items": items})

    def _bulk(self, body: str) -> list[dict[str, Any]]:
        if not body.endswith("\n"):
            raise ValueError("The bulk request must be terminated by a newline [\\n]")
        lines = body[:-1].split("\n")
        if lines == [""]:
            raise ValueError("request body is required")
        return [
            self._index(json.loads(action), document)
            for action, document in zip(lines[::2], lines[1::2], strict=False)
        ]

    def _index(self, action: dict[str, Any], text: str) -> dict[str, Any]:
        if list(action) != ["index"] or action["index"].keys() - {"_index", "_id"}:
            raise ValueError(f"Malformed action/metadata line, found {action}")
        index, id = action["index"]["_index"], action["index"]["_id"]
        if not INDEX.fullmatch(index):
            return self._item(index, id, 400, "invalid_index_name_exception", index)
        for key in (id, text):
            for mark in [mark for mark in self.server.busy if mark in key]:
                if self.server.busy[mark]:
                    self.server.busy[mark] -= 1
                    return self._item(index, id, 429, "es_rejected_execution_exception", "queue")
        try:
            document = json.loads(text, object_pairs_hook=_once, parse_constant=_never)
        except ValueError as error:
            return self._item(index, id, 400, "document_parsing_exception", str(error))
        for name, value in document.items():
            kind = self.server.mapping.get((index, name)) or _kind(name, value)
            if kind is not None and not _fits(kind, value):
                return self._item(index, id, 400, "document_parsing_exception", f"field [{name}]")
            if kind is not None:
                self.server.mapping[index, name] = kind
        there = (index, id) in self.server.documents
        self.server.documents[index, id] = document
        return {"index": {"_index": index, "_id": id, "status": 200 if there else 201}}

    def _item(self, index: str, id: str, status: int, type: str, reason: str) -> dict[str, Any]:
        error = {"type": type, "reason": reason}
        return {"index": {"_index": index, "_id": id, "status": status, "error": error}}

    def _admitted(self) -> bool:
        if self.server.answers:
            self._answer(self.server.answers.pop(0), {"error": {"type": "told_to"}})
            return False
        wanted = "Basic " + base64.b64encode(self.server.user.encode()).decode()
        if self.server.user and self.headers["Authorization"] != wanted:
            self._answer(401, {"error": {"type": "security_exception"}})
            return False
        return True

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        return gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        if self.server.product:
            self.send_header("X-Elastic-Product", self.server.product)
        self.send_header("Content-Type", "application/vnd.elasticsearch+json;compatible-with=8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing on the terminal."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("Duplicate field")
    json.dumps(found, ensure_ascii=False).encode()  # a lone surrogate is no UTF-8
    return found


def _kind(name: str, value: Any) -> str | None:
    """The type that homerd's template gives a field whose first value this is."""
    if name == "host":
        return "keyword"
    if isinstance(value, list):
        return next((kind for each in value if (kind := _kind(name, each))), None)
    if value is None:
        return None
    if isinstance(value, str):
        return "ip" if name.endswith(("_ip", "IP")) else "keyword"
    if isinstance(value, dict):
        return "object"
    return "boolean" if isinstance(value, bool) else "double"


def _fits(kind: str, value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, list):
        return all(_fits(kind, each) for each in value)
    if isinstance(value, dict) or kind == "object":
        return isinstance(value, dict) and kind == "object"
    if kind == "double":
        return not isinstance(value, bool) and NUMBER.fullmatch(str(value)) is not None
    if kind == "boolean":
        return value in (True, False, "true", "false", "") and type(value) in (bool, str)
    return True


def _never(text: str) -> None:
    raise ValueError(f"Non-standard token '{text}'")


@pytest.fixture(scope="session")
def elasticsearch_session() -> Iterator[Node]:
    """The stand-in, for the session."""
    node = Node()
    thread = threading.Thread(target=node.serve_forever, args=(0.05,))
    thread.start()
    yield node
    node.shutdown()
    node.server_close()
    thread.join(10)


@pytest.fixture
def elasticsearch_node(elasticsearch_session: Node) -> Node:
    """The stand-in, empty."""
    elasticsearch_session.clear()
    return elasticsearch_session
