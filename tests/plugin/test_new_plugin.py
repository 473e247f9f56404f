"""`homerd new-plugin` and the example: they install, their tests pass, a server runs with them."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from homerd import testing
from homerd.cli import main
from homerd.commands.new_plugin import project
from homerd.wire import hep

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/webhook-plugin"
SECONDS = 60.0


def python(*arguments, folder, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def installed(source, folder):
    """Build and install *source* as a wheel, without a network; where to."""
    copy, target = folder / "source", folder / "installed"
    shutil.copytree(
        source, copy, ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__")
    )
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", target)
    done = python("-m", "pip", "install", *options, copy, folder=folder)
    assert done.returncode == 0, done.stderr
    return target


def test_the_example_is_what_new_plugin_writes():
    files = {
        str(path.relative_to(EXAMPLE)): path.read_text()
        for path in EXAMPLE.rglob("*")
        if path.is_file() and not {"__pycache__", ".pytest_cache"} & set(path.parts)
    }
    assert files == project("webhook"), "homerd new-plugin webhook --folder examples/webhook-plugin"


def test_what_it_says_to_do_next_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new-plugin", "ticket_log"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line[:2] == "  "]
    assert lines[0] == "cd homerd-ticket_log"
    folder = tmp_path / "homerd-ticket_log"
    environment = {
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it the wrong way round: off
        "PIP_NO_DEPS": "1",
        "PIP_TARGET": str(tmp_path / "installed"),
        "PYTHONPATH": str(tmp_path / "installed"),
    }
    for line in lines[1:]:
        command = shlex.split(line.replace("--editable", ""))  # --target takes no editable one
        assert command[0] == sys.executable
        done = python(*command[1:], folder=folder, **environment)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    listed = python("-m", "homerd", "plugins", "ticket_log", folder=folder, **environment)
    assert "ticket_log(text)" in listed.stdout


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Web-Hook", 'write "web_hook"'),
        ("1st", "a letter first"),
        ("../x", "a letter first"),
        ("ü", "a letter first"),
        ("x" * 41, "40 at most"),
        ("", "a letter first"),
        ("class", "a word of Python"),
        ("pv", 'a module "pv" already'),
        ("tm", 'a module "tm" already'),
    ],
)
def test_a_name_that_no_module_can_have_is_refused(tmp_path, monkeypatch, capsys, name, told):
    monkeypatch.chdir(tmp_path)
    assert main(["new-plugin", name]) == 1
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/README.md").write_text("mine")
    assert main(["new-plugin", "webhook", "--folder", "mine"]) == 1
    assert capsys.readouterr().err == (
        "homerd: mine is there already: name another one with --folder\n"
    )
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["README.md"]


def test_an_empty_folder_is_taken_and_a_file_is_not(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert main(["new-plugin", "webhook", "--folder", str(tmp_path / "empty")]) == 0
    assert main(["new-plugin", "webhook", "--folder", str(tmp_path / "file")]) == 1
    assert main(["new-plugin", "webhook", "--folder", str(tmp_path / "file/x")]) == 1
    assert "Traceback" not in capsys.readouterr().err


class Endpoint:
    """A real HTTP server that keeps what it is sent."""

    def __init__(self):
        self.bodies = []
        came = self.came = threading.Event()
        bodies = self.bodies

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self):
                bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.send_response(200)
                self.end_headers()
                came.set()

            def log_message(self, *arguments):
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Answer)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def endpoint():
    made = Endpoint()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_the_example_installs_and_a_server_posts_with_it(tmp_path, endpoint, free_port):
    target = installed(EXAMPLE, tmp_path)
    script = (EXAMPLE / "homer.cfg").read_text()
    script = script.replace("127.0.0.1:9060", f"127.0.0.1:{free_port}")
    (tmp_path / "homer.cfg").write_text(script.replace(":8080/", f":{endpoint.port}/"))
    command = [sys.executable, "-m", "homerd", "run", "--no-watch", "--socket", "sock"]
    daemon = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = daemon.stderr.readline()
        while "started script=" not in line:
            assert line, "it ended before it was started"
            line = daemon.stderr.readline()
        assert f"webhook:http://127.0.0.1:{endpoint.port}/calls" in line
        data = hep.encode(testing.frame(testing.request("INVITE", call_id="c1")))
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            sender.sendto(data, ("127.0.0.1", free_port))
        assert endpoint.came.wait(SECONDS)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(SECONDS) == 0
    finally:
        daemon.kill()
        daemon.communicate()
    expected = '{"text": "call from alice to bob", "source": "192.0.2.1", "call_id": "c1"}\n'
    assert endpoint.bodies == [expected]
