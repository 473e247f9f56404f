"""jsonrpcs: commands over HTTP, as JSON-RPC 2.0, in `event_route[xhttp:request]`.

Of Kamailio's commands those are there that mean something here: core.version, core.uptime,
core.info, core.echo and system.listMethods.  Every other one is "Method Not Found".
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from typing import Any

from homerd.api import HttpAnswer, ModParam, Packet, Plugin, Worker, hookimpl, script_function

NAME = "homerd"
INVALID_REQUEST, NOT_FOUND, PARSE_ERROR = -32600, -32601, -32700


class Jsonrpcs(Plugin):
    """Answers JSON-RPC requests."""

    name = "jsonrpcs"

    pretty_format = ModParam(int, 0, reloadable=True, help="1: answers are indented")
    transport = ModParam(int, 0, help="accepted; HTTP is the only way in")
    fifo_name = ModParam(str, "", help="accepted; there is no fifo")
    fifo_mode = ModParam(int, 0, help="accepted")
    fifo_user = ModParam(str, "", help="accepted")
    fifo_group = ModParam(str, "", help="accepted")
    fifo_reply_dir = ModParam(str, "", help="accepted")
    dgram_socket = ModParam(str, "", help="accepted; there is no such socket")
    dgram_mode = ModParam(int, 0, help="accepted")
    dgram_user = ModParam(str, "", help="accepted")
    dgram_group = ModParam(str, "", help="accepted")
    dgram_timeout = ModParam(int, 2000, help="accepted")
    dgram_workers = ModParam(int, 1, help="accepted")
    tcp_socket = ModParam(str, "", help="accepted; there is no such socket")

    def __init__(self) -> None:
        self.answered = 0
        self._started = time.time()
        self._worker: Worker | None = None

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Uptime counts from here."""
        self._worker = worker
        self._started = worker.now()

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Requests that were answered."""
        yield "homerd_jsonrpcs_requests_total", {}, self.answered

    @script_function
    def jsonrpc_dispatch(self, packet: Packet) -> bool:
        """Answer the HTTP request's body as JSON-RPC; False outside of its event route."""
        exchange = packet.scratch.get("xhttp")
        if exchange is None:
            return False
        told = self.call(exchange.request.body)
        indent = 4 if self.pretty_format else None
        body = json.dumps(told, indent=indent).encode()
        status = 200 if "result" in told else 500
        reason = "OK" if status == 200 else told["error"]["message"]
        exchange.answer = HttpAnswer(status, reason, (("Content-Type", "application/json"),), body)
        self.answered += 1
        return True

    @script_function
    def jsonrpc_exec(self, packet: Packet, command: str) -> bool:
        """Run a JSON-RPC command; whether it is known."""
        return "result" in self.call(command.encode("utf-8", "surrogateescape"))

    def call(self, body: bytes) -> dict[str, Any]:
        """The answer to one request."""
        try:
            request = json.loads(body)
        except (ValueError, RecursionError):
            return _failed(PARSE_ERROR, "Parse Error", None)
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _failed(INVALID_REQUEST, "Invalid Request", None)
        number = request.get("id")
        known = {
            "core.version": lambda: f"{NAME} (kamailio 5.6.3)",
            "core.uptime": self._uptime,
            "core.info": lambda: {"version": NAME, "pid": os.getpid()},
            "core.echo": lambda: request.get("params", []),
            "system.listMethods": lambda: sorted(known),
        }
        found = known.get(request["method"])
        if found is None:
            return _failed(NOT_FOUND, "Method Not Found", number)
        return {"jsonrpc": "2.0", "result": found(), "id": number}

    def _uptime(self) -> dict[str, Any]:
        now = time.time() if self._worker is None else self._worker.now()
        return {
            "now": time.ctime(now),
            "up_since": time.ctime(self._started),
            "uptime": int(now - self._started),
        }


def _failed(code: int, message: str, number: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": {"code": code, "message": message}, "id": number}
