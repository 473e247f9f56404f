import datetime
import logging
import ssl

import pytest
import trustme
from listeners import FRAME, OPTIONS_REQUEST

from homerd.core.program import load
from homerd.errors import ConfigError, ScriptErrors

FUTURE = datetime.datetime(2200, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def certificate(authority, tmp_path):
    """Files of a certificate that 127.0.0.1 has, in the working folder of a listener."""

    def make(name="server", **options):
        issued = authority.issue_cert("127.0.0.1", common_name="homer01", **options)
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        return tmp_path

    make()
    return make


@pytest.fixture
def listening(listener_for, certificate, tmp_path):
    """A worker that listens on TLS, with further globals."""

    def make(more=""):
        return listener_for("tls", settings_for(tmp_path, more))

    return make


def settings_for(folder, more=""):
    return f'tls_certificate = "{folder}/server.pem"\ntls_private_key = "{folder}/server.key"\n{more}\n'


def client_context(authority, **versions):
    context = ssl.create_default_context()
    for name, version in versions.items():
        setattr(context, name, version)
    authority.configure_trust(context)
    return context


def connected(listener, context):
    return context.wrap_socket(listener.connect(), server_hostname="127.0.0.1")


def test_frames_over_tls_are_routed(listening, authority):
    listener = listening()
    with connected(listener, client_context(authority)) as client:
        client.sendall(FRAME + b"\r\n" + FRAME)
        listener.wait_for(lambda: listener.worker.engine.routed == {"request_route": 2})
        for byte in FRAME:  # a record of each
            client.sendall(bytes([byte]))
        listener.wait_for(lambda: listener.worker.engine.routed == {"request_route": 3})
        client.unwrap().close()
    listener.wait_for(lambda: listener.source.closed == {"ended": 1})
    assert listener.source.name.startswith("tls:127.0.0.1:")


def test_a_large_frame_comes_in_many_records(listening, authority):
    listener = listening()
    with connected(listener, client_context(authority)) as client:
        client.sendall(FRAME * 500)
        listener.wait_for(lambda: listener.worker.engine.received == 500)


def test_http_is_answered_over_tls(listening, authority):
    listener = listening()
    with connected(listener, client_context(authority)) as client:
        client.sendall(b"GET /stats HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert client.recv(4096) == b""  # told that this was all
    listener.wait_for(lambda: listener.source.closed == {"ended": 1})


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (FRAME, "not_tls"),
        (b"GET / HTTP/1.1\r\n\r\n", "not_tls"),
        (b"\x16\x02", "not_tls"),
        (b"\x16\x03\x01\x00\x05hello", "tls_failed"),
        (b"\x16\x03\x01\xff\xff" + b"A" * 65535, "tls_failed"),
    ],
)
def test_what_is_not_tls_is_closed_once(listening, sent, reason):
    listener = listening()
    client = listener.connect()
    client.sendall(sent)
    listener.wait_for(lambda: sum(listener.source.closed.values()) == 1)
    assert listener.source.closed == {reason: 1}
    assert listener.source.connections == set()
    assert listener.worker.engine.received == 0


def test_hep_is_refused_at_its_first_byte(listening):
    listener = listening()
    listener.connect().sendall(b"H")
    listener.wait_for(lambda: listener.source.closed == {"not_tls": 1})


def test_a_handshake_that_does_not_end_is_closed(listening):
    listener = listening("tls_handshake_timeout = 7")
    listener.connect().sendall(b"\x16\x03")
    listener.wait_for(lambda: listener.source.connections)
    (connection,) = listener.source.connections
    listener.call(listener.source.tick, connection.opened_at + 6)
    assert listener.source.closed == {}
    listener.call(listener.source.tick, connection.opened_at + 8)
    assert listener.source.closed == {"handshake": 1}


def test_a_record_may_not_stay_half_sent(listening, authority):
    listener = listening()
    raw = listener.connect()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(authority).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    while not tls.version() or not listener.established():
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            raw.sendall(outgoing.read())
            incoming.write(raw.recv(65536))
        else:
            raw.sendall(outgoing.read())
            listener.wait_for(listener.established)
    tls.write(FRAME)
    raw.sendall(outgoing.read()[:20])
    (connection,) = listener.source.connections
    listener.wait_for(lambda: connection.pending)
    listener.call(listener.source.tick, connection.whole_at + 61)
    assert listener.source.closed == {"half_sent": 1}


@pytest.mark.parametrize("method", ["TLSv1.3", "TLSv1.3+", "TLSv1_3-", "1.3"])
def test_a_version_below_the_least_is_refused(listening, authority, method):
    listener = listening(f'tls_method = "{method}"')
    old = client_context(authority, maximum_version=ssl.TLSVersion.TLSv1_2)
    with pytest.raises(ssl.SSLError, match="alert protocol version"):
        connected(listener, old)
    listener.wait_for(lambda: listener.source.closed == {"tls_version": 1})
    assert connected(listener, client_context(authority)).version() == "TLSv1.3"


def test_tls_1_2_is_the_least_without_a_word(listening, authority):
    listener = listening()
    second = client_context(authority, maximum_version=ssl.TLSVersion.TLSv1_2)
    assert connected(listener, second).version() == "TLSv1.2"


def test_an_agent_that_does_not_trust_us_is_counted(listening):
    listener = listening()
    with pytest.raises(ssl.SSLCertVerificationError):
        connected(listener, ssl.create_default_context())
    listener.wait_for(lambda: listener.source.closed == {"tls_refused": 1})


def test_only_certificates_of_the_authority_are_taken_where_one_is_required(
    listening, authority, tmp_path
):
    listener = listening(f'tls_ca_list = "{tmp_path}/ca.pem"\ntls_require_certificate = yes')
    # With TLS 1.3 a client learns of the refusal only when it reads.
    none = client_context(authority)
    with connected(listener, none) as client, pytest.raises(ssl.SSLError, match="certificate"):
        client.recv(1)
    foreign = client_context(authority)
    trustme.CA().issue_cert("sbc1").configure_cert(foreign)
    with connected(listener, foreign) as client, pytest.raises(ssl.SSLError, match="unknown ca"):
        client.recv(1)
    known = client_context(authority)
    authority.issue_cert("sbc1.example.com", common_name="sbc1").configure_cert(known)
    with connected(listener, known) as client:
        client.sendall(FRAME)
        listener.wait_for(lambda: listener.worker.engine.received == 1)
        (connection,) = listener.source.connections
        assert connection.tls.certificate_names() == ["sbc1", "sbc1.example.com"]
    expected = {"no_certificate": 1, "bad_certificate": 1}
    assert {key: listener.source.closed[key] for key in expected} == expected


def test_new_files_serve_new_connections_and_old_ones_stay(listening, authority, certificate):
    listener = listening()
    with connected(listener, client_context(authority)) as first:
        before = first.getpeercert(binary_form=True)
        certificate()
        listener.call(listener.source.tick, 0.0)
        with connected(listener, client_context(authority)) as second:
            assert second.getpeercert(binary_form=True) != before
        first.sendall(FRAME)
        listener.wait_for(lambda: listener.worker.engine.received == 1)


def test_bad_new_files_leave_the_old_ones_in_place(listening, authority, tmp_path, caplog):
    listener = listening()
    (tmp_path / "server.pem").write_text("half a file")
    with caplog.at_level(logging.ERROR, "homerd.tls"):
        listener.call(listener.source.tick, 0.0)
    assert "the old ones stay" in caplog.text
    connected(listener, client_context(authority)).close()


def test_a_key_in_the_file_of_the_certificate_will_do(listener_for, authority, tmp_path):
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    listener = listener_for("tls", f'tls_certificate = "{tmp_path}/both.pem"\n')
    connected(listener, client_context(authority)).close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "server.pem").unlink(), "No such file or directory"),
        (lambda folder: (folder / "server.key").unlink(), "No such file or directory"),
        (lambda folder: (folder / "server.key").write_text("x"), "in PEM form"),
        (
            lambda folder: trustme.CA().private_key_pem.write_to_path(folder / "server.key"),
            "the key does not belong to tls_certificate",
        ),
    ],
)
def test_files_that_cannot_serve_are_named(listening, tmp_path, change, message):
    change(tmp_path)
    with pytest.raises(ConfigError, match=message) as told:
        listening()
    assert "server." in str(told.value)


def test_an_encrypted_key_is_refused_without_asking(listening, tmp_path):
    from cryptography.hazmat.primitives import serialization

    file = tmp_path / "server.key"
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    coded = serialization.BestAvailableEncryption(b"secret")
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    file.write_bytes(key.private_bytes(pem, form, coded))
    with pytest.raises(ConfigError, match="the key is encrypted"):
        listening()


def test_a_list_of_authorities_that_holds_none_is_told(listening, tmp_path):
    (tmp_path / "none.pem").write_text("nothing")
    with pytest.raises(ConfigError, match=r"tls_ca_list .*none\.pem"):
        listening(f'tls_ca_list = "{tmp_path}/none.pem"\ntls_verify_certificate = 1')


def test_a_certificate_out_of_date_serves_and_is_spoken_of(listening, certificate, caplog):
    now = datetime.datetime.now(datetime.UTC)
    certificate(not_after=now - datetime.timedelta(days=1))
    with caplog.at_level(logging.WARNING, "homerd.tls"):
        listening()
    assert "certificate has expired" in caplog.text


def test_a_certificate_that_ends_soon_is_spoken_of(listening, certificate, caplog):
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)
    certificate(not_after=ends)
    with caplog.at_level(logging.WARNING, "homerd.tls"):
        listening()
    assert f"certificate expires on {ends:%Y-%m-%d}" in caplog.text


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("listen=tls:127.0.0.1:9061", "TLS needs tls_certificate"),
        (
            'listen=hep_tls:127.0.0.1:9061\ntls_certificate="a"\ntls_require_certificate=yes',
            "tls_require_certificate needs tls_ca_list",
        ),
        ('tls_method="SSLv3"', 'expected the lowest version of TLS, such as "TLSv1.2"'),
    ],
)
def test_settings_that_cannot_be_are_diagnostics(tmp_path, script, message):
    with pytest.raises(ScriptErrors) as told:
        load(tmp_path / "homer.cfg", text=f"{script}\nrequest_route {{ drop; }}\n")
    assert message in told.value.diagnostics[0].message


def test_what_came_is_in_the_ledger(listening, authority):
    listener = listening()
    with connected(listener, client_context(authority)) as client:
        client.sendall(FRAME + OPTIONS_REQUEST)
        listener.wait_for(lambda: listener.source.closed == {"bad_magic": 1})
    assert listener.ledger()["difference"] == 0


def test_stopping_takes_what_has_arrived(listening, authority):
    listener = listening()
    client = connected(listener, client_context(authority))
    listener.wait_for(listener.established)
    (connection,) = listener.source.connections
    listener.call(listener.leave_unread, connection)
    client.sendall(FRAME * 100)
    listener.wait_for(lambda: connection.waiting() > 100 * len(FRAME))
    listener.call(listener.source.finish)
    assert listener.worker.engine.received == 100
