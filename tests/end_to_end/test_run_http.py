"""HTTP in both directions: `homerd run` asks a server for each packet, and answers requests."""

from __future__ import annotations

import http.client
import http.server
import json
import select
import socket
import subprocess
import sys
import threading
import time

import pytest

SECONDS = 30.0  # a deadline nobody should meet

SCRIPT = """
listen=udp:127.0.0.1:{port} tcp:127.0.0.1:{port}
debug=1
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "htable.so"
loadmodule "http_async_client.so"
loadmodule "xhttp.so"
modparam("htable", "htable", "a=>size=8;")
modparam("http_async_client", "connection_timeout", 20000)
request_route {{ http_async_query("{url}/$ci", "ANSWER"); exit; }}
route[ANSWER] {{ $sht(a=>$http_rb) = $http_rs; xlog("L_NOTICE", "answered $http_rb $http_err\\n"); }}
event_route[xhttp:request] {{
    $var(key) = $(hu{{s.substr,1,0}});
    xhttp_reply("200", "OK", "application/json", "{{\\"$var(key)\\": $sht(a=>$var(key))}}");
}}
"""
PACKET = (
    "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1\r\nFrom: <sip:a@b>;tag=1\r\n"
    "To: <sip:b@b>\r\nCall-ID: {call}\r\nCSeq: 1 OPTIONS\r\n\r\n"
)


class Mirror(http.server.BaseHTTPRequestHandler):
    """Answers with the path it was asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.path.removeprefix("/").encode()
        self.send_response(203)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def mirror():
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=served.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()


def read_until(process, wanted):
    """Read the log until each text of *wanted* is in it."""
    log, until = "", time.monotonic() + SECONDS
    while not all(text in log for text in wanted):
        ready, _, _ = select.select([process.stderr], [], [], until - time.monotonic())
        piece = process.stderr.read(65536) if ready else b""
        assert piece, log
        log += piece.decode()


def test_each_packet_asks_and_each_request_is_answered(tmp_path, mirror, free_port):
    (tmp_path / "homer.cfg").write_text(SCRIPT.format(port=free_port, url=mirror))
    command = [sys.executable, "-m", "homerd", "run", "-f", str(tmp_path / "homer.cfg")]
    command += ["--socket", str(tmp_path / "homerd.sock")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, bufsize=0)
    try:
        read_until(process, ["started script="])
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            for call in ("c1", "c2", "c3"):
                sender.sendto(PACKET.format(call=call).encode(), ("127.0.0.1", free_port))
        read_until(process, [f"answered {call} <null>" for call in ("c1", "c2", "c3")])
        client = http.client.HTTPConnection("127.0.0.1", free_port, timeout=SECONDS)
        for call in ("c2", "c3"):
            client.request("GET", f"/{call}")
            answer = client.getresponse()
            assert (answer.status, json.loads(answer.read())) == (200, {call: 203})
        client.close()
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)
    assert process.returncode == 0
