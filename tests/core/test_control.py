import asyncio
import socket
import threading

import pytest

from homerd.core import control
from homerd.core.control import ControlSocket
from homerd.errors import ConfigError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "homerd.sock"


@pytest.fixture
def server(path):
    """A control socket that answers "status" and fails at "reload", served by a thread."""

    def refuse():
        raise ConfigError("not now")

    made = ControlSocket(path, {"status": lambda: {"received": 7}, "reload": refuse})
    made.bind()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(made.serve())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield made
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    made.close()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def test_a_question_is_answered(server, path):
    assert control.ask(path, "status") == {"received": 7}
    assert control.ask(path, "status") == {"received": 7}


def test_what_cannot_be_done_is_told(server, path):
    with pytest.raises(ConfigError, match="not now"):
        control.ask(path, "reload")
    with pytest.raises(ConfigError, match="expected one of status, reload"):
        control.ask(path, "dance")


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"7\n", b"not json\n", b'{"ask": []}\n'])
def test_any_line_is_answered_with_a_line(server, path, line):
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(10)
        link.connect(str(path))
        link.sendall(line)
        assert link.makefile("rb").readline().startswith(b'{"error"')
    assert control.ask(path, "status") == {"received": 7}


def test_without_a_daemon_it_says_so(path):
    with pytest.raises(ConfigError, match=f"no homerd is running at {path}"):
        control.ask(path, "status")


def test_a_socket_nobody_answers_on_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with pytest.raises(ConfigError, match="no homerd is running"):
        control.ask(path, "status")
    made = ControlSocket(path, {})
    made.bind()
    made.close()
    assert not path.exists()


def test_a_socket_somebody_answers_on_is_left_alone(server, path):
    with pytest.raises(ConfigError, match=f"another homerd answers at {path}"):
        ControlSocket(path, {}).bind()
    assert control.ask(path, "status") == {"received": 7}


def test_something_else_at_the_path_is_left_alone(path):
    path.write_text("mine")
    with pytest.raises(ConfigError, match="something else is there"):
        ControlSocket(path, {}).bind()
    assert path.read_text() == "mine"


def test_only_the_user_may_ask(server, path):
    assert path.stat().st_mode & 0o777 == 0o600
