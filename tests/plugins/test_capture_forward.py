"""sip_capture_forward of module sipcapture, to real sockets."""

import socket
import subprocess
import sys

import pytest

from homerd.wire import hep
from homerd.wire.hep import Frame

OPTIONS = b"OPTIONS sip:b@h SIP/2.0\r\nCall-ID: c1\r\nCSeq: 1 OPTIONS\r\n\r\n"
SENT = hep.encode(
    Frame(
        3, 2, 17, b"\x0a\0\0\x01", b"\x0a\0\0\x02", 5060, 5061, 1700000000, 5,
        payload_type=1, capture_id=7, payload=OPTIONS,
    ),
    3,
)  # fmt: skip


def replay(tmp_path, call):
    (tmp_path / "homer.cfg").write_text(
        'loadmodule "sipcapture.so"\n'
        'modparam("sipcapture", "hep_capture_on", 1)\n'
        f"request_route {{ {call}; drop; }}\n"
    )
    (tmp_path / "one.hep").write_bytes(SENT)
    return subprocess.run(
        [sys.executable, "-m", "homerd", "replay", "-f", "homer.cfg", "one.hep"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_packet_leaves_over_udp_as_it_came(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.settimeout(30)
        port = opened.getsockname()[1]
        done = replay(tmp_path, f'sip_capture_forward("sip:127.0.0.1:{port}")')
        assert (done.returncode, opened.recv(65535)) == (0, SENT)


def test_the_transport_of_the_uri_is_heeded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        port = listener.getsockname()[1]
        script = f'sip_capture_forward("sip:127.0.0.1:{port};transport=tcp")'
        done = replay(tmp_path, script)
        opened, _ = listener.accept()
        with opened:
            opened.settimeout(30)
            came = b""
            while data := opened.recv(65535):
                came += data
    frames = hep.Framer().feed(came)
    assert done.returncode == 0
    assert SENT in frames


@pytest.mark.parametrize("uri", ["here", "sip:192.0.2.2;transport=sctp", "sip::9060"])
def test_another_uri_is_told_where_it_stands(tmp_path, uri):
    done = replay(tmp_path, f'sip_capture_forward("{uri}")')
    assert done.returncode == 1
    assert f'expected sip:HOST:PORT, with ;transport= one of udp, tcp, tls, got "{uri}"' in (
        done.stderr
    )
