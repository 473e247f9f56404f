"""TLS on a stream listener: the certificates, and one connection's records to and from plain bytes.

Nothing here reads a socket.  A TlsStream keeps no more than a record that is not whole, and in the
handshake what OpenSSL allows for one (some 100 KiB).  OpenSSL does the work, by way of `ssl`.
"""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path
from typing import Any

from homerd.core.settings import TLS_VERSIONS, Tls
from homerd.errors import ConfigError

log = logging.getLogger("homerd.tls")

HANDSHAKE = b"\x16\x03"  # a record of type handshake, version 3.x: RFC 8446 5.1
SOON_SECONDS = 14 * 86_400.0  # before it expires a certificate is spoken of
_PLAIN_SIZE = 1 << 14
_EXPIRED, _NOT_YET = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED and its opposite, openssl/x509_vfy.h

# OpenSSL's reason -> ours; what is not here is "tls_failed".
_REASONS = {
    "UNSUPPORTED_PROTOCOL": "tls_version",
    "VERSION_TOO_LOW": "tls_version",
    "TLSV1_ALERT_PROTOCOL_VERSION": "tls_version",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    "CERTIFICATE_VERIFY_FAILED": "bad_certificate",
    "WRONG_VERSION_NUMBER": "not_tls",
}


class TlsFailure(Exception):
    """The connection cannot go on.

    reason: "not_tls", "tls_version", "no_certificate", "bad_certificate", "tls_refused" (the other
    side did not want our certificate or our ciphers), "tls_failed".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TlsStream:
    """One connection, seen from the server.

    established: whether the handshake is done.  pending: whether it is not, or what came last gave
    no plain byte yet.  ended: whether the other side has said that it
    sends nothing more.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._records = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._first = b""
        self._begun = False
        self.established = False
        self.pending = True
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """Take what was received; gives what it says.  TlsFailure when it says nothing."""
        if not self._begun:
            data = self._first + data
            if data[:2] != HANDSHAKE[: len(data)]:
                raise TlsFailure("not_tls")
            self._begun, self._first = len(data) > 1, data
            if not self._begun:
                return b""
        self._incoming.write(data)
        found: list[bytes] = []
        try:
            self.pending = True
            if not self.established:
                self._records.do_handshake()
                self.established = True
                self.pending = False
            while piece := self._records.read(_PLAIN_SIZE):
                found.append(piece)
            self.ended, self.pending = True, False
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended, self.pending = True, False
        except ssl.SSLError as error:
            raise TlsFailure(_reason(error)) from error
        if found:
            self.pending = False
        return b"".join(found)

    def send(self, plain: bytes) -> None:
        """Have *plain* among what is to be sent."""
        if plain:
            self._records.write(plain)

    def close(self) -> None:
        """Say that nothing more is sent."""
        try:
            self._records.unwrap()
        except ssl.SSLError:  # it waits for the other side to say the same, and we do not
            pass

    def outgoing(self) -> bytes:
        """What is to be sent; each byte is given once."""
        return self._outgoing.read()

    def certificate_names(self) -> list[str]:
        """Common name and alternative names of the client's certificate, [] without one."""
        told: dict[str, Any] = dict(self._records.getpeercert() or {})  # as `ssl` has it
        subject = [pair for part in told.get("subject", ()) for pair in part]
        names = [value for name, value in subject if name == "commonName"]
        names += [value for _, value in told.get("subjectAltName", ())]
        return list(dict.fromkeys(names))


class Certificates:
    """The files of *tls* as what new connections are opened with.

    ConfigError when they cannot serve; `look` takes files that have changed, and keeps what there
    was when the new ones cannot serve.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._state = _state(tls)
        self.context = _context(tls)
        _tell_expiry(tls)

    def look(self) -> None:
        """Take the files again if one of them is another than before."""
        state = _state(self._tls)
        if state != self._state:
            self._state = state
            self.reload()

    def reload(self) -> None:
        """Take the files as they are; connections that are open keep what they began with."""
        try:
            self.context = _context(self._tls)
        except ConfigError as error:
            log.error('certificates not loaded, the old ones stay error="%s"', error)
            return
        log.info("certificates loaded file=%s", self._tls.certificate)
        _tell_expiry(self._tls)


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Neither serves an agent that sends for days, and both are work that a client can ask for.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    # Tickets lie unread at an agent that only sends; its close then is a reset.
    context.num_tickets = 0
    if tls.least < "1.2":
        # OpenSSL 3 refuses the signatures of these versions at every higher level.
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        log.warning("tls_method allows TLS %s, which is broken", tls.least)
    context.minimum_version = TLS_VERSIONS[tls.least]
    _load_chain(context, tls)
    if tls.verify or tls.require:
        context.verify_mode = ssl.CERT_REQUIRED if tls.require else ssl.CERT_OPTIONAL
        _readable("tls_ca_list", tls.ca_list)
        try:
            context.load_verify_locations(tls.ca_list)
        except ssl.SSLError as error:
            raise ConfigError(
                f'tls_ca_list "{tls.ca_list}": expected certificates in PEM form: '
                f"{error.reason or error}"
            ) from error
    return context


def _load_chain(context: ssl.SSLContext, tls: Tls) -> None:
    key = tls.private_key or tls.certificate
    key_name = "tls_private_key" if tls.private_key else "tls_certificate"
    _readable("tls_certificate", tls.certificate)
    _readable(key_name, key)

    def asked() -> str:  # otherwise OpenSSL asks on the terminal
        raise ConfigError(f'{key_name} "{key}": the key is encrypted; expected one without')

    try:
        context.load_cert_chain(tls.certificate, key, asked)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f'{key_name} "{key}": the key does not belong to tls_certificate'
                f' "{tls.certificate}"'
            ) from error
        raise ConfigError(
            f'tls_certificate "{tls.certificate}", {key_name} "{key}": expected a certificate and'
            f" its key in PEM form: {error.reason or error}"
        ) from error


def _readable(name: str, file: str) -> None:
    try:
        Path(file).open("rb").close()
    except OSError as error:
        raise ConfigError(f'{name} "{file}": {error.strerror}') from error


def _tell_expiry(tls: Tls) -> None:
    """Warn when the certificate has expired, or will soon."""
    try:
        expires = _expires(tls)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in (_EXPIRED, _NOT_YET):
            what = "has expired" if error.verify_code == _EXPIRED else "is not valid yet"
            log.warning('certificate %s tls_certificate="%s"', what, tls.certificate)
        return
    except ssl.SSLError:  # such as a purpose that is not a server's: agents will tell
        return
    if expires - time.time() < SOON_SECONDS:
        day = time.strftime("%Y-%m-%d", time.gmtime(expires))
        log.warning('certificate expires on %s tls_certificate="%s"', day, tls.certificate)


def _expires(tls: Tls) -> float:
    """When the certificate expires: seen over a connection to ourselves.

    Only there does `ssl` show a certificate that is not an authority's.
    """
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_chain(ours, tls)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname = False
    theirs.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    theirs.load_verify_locations(tls.certificate)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = ours.wrap_bio(there, back, server_side=True)
    client = theirs.wrap_bio(back, there)
    while True:
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            try:
                server.do_handshake()
            except ssl.SSLWantReadError:
                pass
    told = client.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(told["notAfter"])))


def _state(tls: Tls) -> tuple[object, ...]:
    """What tells that a file is another: inode, size, time of change."""
    files = [
        tls.certificate,
        tls.private_key,
        *([tls.ca_list] if tls.verify or tls.require else []),
    ]
    return tuple(map(_stamp, filter(None, files)))


def _stamp(file: str) -> object:
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _reason(error: ssl.SSLError) -> str:
    reason = error.reason or ""
    if reason in _REASONS:
        return _REASONS[reason]
    return "tls_refused" if "ALERT" in reason else "tls_failed"
