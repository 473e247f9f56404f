"""A line to one receiver of HEP: UDP, TCP or TLS.

Over a stream a receiver may acknowledge batches (wire/hep_batch.py): `send` returns when it has
told that no kill of it can lose the batch any more, and a batch that comes twice it takes once.
HEP itself acknowledges nothing: to other receivers `send` returns when their host has taken every
byte, and what their process had not read when it ended is lost.

Everything here raises RetryLater for a receiver that is away, whose reason names it.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import ssl
import struct
import termios
import time
from collections.abc import Sequence
from typing import Protocol

from homerd.api import ConfigError, HepFramer, RetryLater, hep_batch
from homerd_plugins._hep_profile import Profile, Target

HELLO_SECONDS = 2.0
LARGEST_DATAGRAM = 65507  # 65535 less the headers of IPv4 and UDP
_PIECE = 1 << 16
_BATCH_PIECE = 4 << 20
_LOOK_SECONDS = 0.002


class Progress:
    """How much of a batch has arrived, kept from one try to the next.

    sent: frames that need not be sent again.  refused: datagrams that a closed port sent back.
    """

    __slots__ = ("refused", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.refused = 0


class Line(Protocol):
    """An open way to a receiver."""

    acknowledges: bool

    def send(self, id: str, frames: Sequence[bytes], progress: Progress) -> None:
        """Send what *progress* has not; raises RetryLater."""

    def close(self) -> None:
        """Let go of it."""


def open_line(target: Target, profile: Profile, context: ssl.SSLContext | None, told: bool) -> Line:
    """Connect.  told: whether this receiver has acknowledged before, and so must again."""
    try:
        if target.scheme == "udp":
            return UdpLine(target)
        return _open_stream(target, profile, context, told)
    except ssl.SSLCertVerificationError as error:
        raise RetryLater(
            f"{target}: its certificate is not accepted: {error.verify_message}; tls_ca=FILE names"
            " who signed it, tls_name=NAME what it is issued to"
        ) from error
    except TimeoutError as error:
        raise RetryLater(f"{target}: no answer within {profile.timeout:g} s") from error
    except socket.gaierror as error:
        raise RetryLater(f"{target}: {error.strerror}") from error
    except OSError as error:
        raise RetryLater(f"{target}: {_said(error)}") from error


def tls_context(profile: Profile) -> ssl.SSLContext | None:
    """What TLS targets are met with; ConfigError for files that cannot be used."""
    if not any(target.scheme == "tls" for target in profile.targets):
        return None
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    asked = ""
    try:
        if profile.tls_ca:
            asked = f"tls_ca={profile.tls_ca}"
            context.load_verify_locations(profile.tls_ca)
        if profile.tls_certificate:
            asked = f"tls_certificate={profile.tls_certificate}"
            context.load_cert_chain(profile.tls_certificate, profile.tls_key or None, _no_password)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f'hep: profile "{profile.name}": {asked}: {_said(error)}') from error
    if not profile.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class UdpLine:
    """Datagrams.  A closed port is heard of late: what was sent before that is sent again."""

    acknowledges = False

    def __init__(self, target: Target) -> None:
        self.target = target
        family, kind, protocol, _, place = socket.getaddrinfo(
            target.host, target.port, type=socket.SOCK_DGRAM
        )[0]
        self.socket = socket.socket(family, kind, protocol)
        self.socket.connect(place)

    def send(self, id: str, frames: Sequence[bytes], progress: Progress) -> None:
        """One datagram a frame."""
        send = self.socket.send
        try:
            while progress.sent < len(frames):
                send(frames[progress.sent])
                progress.sent += 1
            # What came back for the last datagram, if its host is as near as that.
            if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise ConnectionRefusedError
        except ConnectionRefusedError as error:
            progress.sent = max(0, progress.sent - 1)
            progress.refused += 1
            raise RetryLater(f"{self.target}: nobody listens on the port") from error
        except OSError as error:
            raise RetryLater(f"{self.target}: {_said(error)}") from error

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class StreamLine:
    """TCP or TLS."""

    def __init__(self, target: Target, opened: socket.socket, timeout: float) -> None:
        self.target = target
        self.socket = opened
        self.timeout = timeout
        self.acknowledges = False
        self._framer = HepFramer()
        self._answers: list[bytes] = []

    def ask(self, seconds: float) -> bool:
        """Whether the receiver acknowledges.  Raises EOFError when it hangs up instead."""
        self.socket.sendall(hep_batch.message(hep_batch.HELLO))
        try:
            kind, _ = self._answer(time.monotonic() + seconds)
        except TimeoutError:
            return False
        self.acknowledges = kind == hep_batch.WELCOME
        return self.acknowledges

    def send(self, id: str, frames: Sequence[bytes], progress: Progress) -> None:
        """The frames, and wait until they are taken."""
        try:
            if self.acknowledges:
                self._send_batch(id, frames, progress)
            else:
                self._send_frames(frames, progress)
        except EOFError as error:
            raise RetryLater(f"{self.target}: it closed the connection") from error
        except TimeoutError as error:
            raise RetryLater(
                f"{self.target}: has not taken a batch within {self.timeout:g} s"
            ) from error
        except OSError as error:
            raise RetryLater(f"{self.target}: {_said(error)}") from error

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            self.socket.close()

    def _send_batch(self, id: str, frames: Sequence[bytes], progress: Progress) -> None:
        """In pieces of a size that the receiver takes, the same ones in each try."""
        while (first := progress.sent) < len(frames):
            size, last = 0, first
            while last < len(frames) and size < _BATCH_PIECE:
                size += len(frames[last])
                last += 1
            piece_id = id if not first else f"{id}@{first}"
            self.socket.settimeout(self.timeout)
            self.socket.sendall(
                b"".join(frames[first:last]) + hep_batch.end(last - first, piece_id)
            )
            until = time.monotonic() + self.timeout
            while self._answer(until) != (hep_batch.TAKEN, piece_id.encode()):
                pass
            progress.sent = last

    def _send_frames(self, frames: Sequence[bytes], progress: Progress) -> None:
        """In pieces; those the other host has taken are not sent again."""
        self._look_for_end()
        sent = progress.sent
        while sent < len(frames):
            piece = bytearray()
            while sent < len(frames) and len(piece) < _PIECE:
                piece += frames[sent]
                sent += 1
            self.socket.settimeout(self.timeout)
            self.socket.sendall(piece)
            if not self._untaken():
                progress.sent = sent
        until = time.monotonic() + self.timeout
        while self._untaken():
            if time.monotonic() > until:
                raise TimeoutError
            time.sleep(_LOOK_SECONDS)
        self._look_for_end()
        progress.sent = sent

    def _untaken(self) -> int:
        """Bytes that the other host's kernel has not acknowledged."""
        if error := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, "the connection broke")
        answer = fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0" * 4)
        size: int = struct.unpack("=i", answer)[0]
        return size

    def _look_for_end(self) -> None:
        """Raise EOFError when the receiver has hung up, as far as we know."""
        self.socket.settimeout(0.0)
        try:
            while self.socket.recv(4096):
                pass  # no plain receiver answers; whatever it says is not asked for
            raise EOFError
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        finally:
            self.socket.settimeout(self.timeout)

    def _answer(self, until: float) -> tuple[int, bytes]:
        while not self._answers:
            self.socket.settimeout(max(0.001, until - time.monotonic()))
            data = self.socket.recv(4096)
            if not data:
                raise EOFError
            self._answers += self._framer.feed(data)
            if self._framer.fault is not None:
                raise ConnectionError("it answers with something that is no HEP")
        return hep_batch.read(self._answers.pop(0))


def _open_stream(
    target: Target, profile: Profile, context: ssl.SSLContext | None, told: bool
) -> StreamLine:
    line = _connected(target, profile, context)
    if profile.acknowledge == "no":
        return line
    required = told or profile.acknowledge == "yes"
    try:
        seconds = profile.timeout if required else min(HELLO_SECONDS, profile.timeout)
        if line.ask(seconds) or not required:
            return line
    except (EOFError, ConnectionResetError, BrokenPipeError) as error:
        line.close()
        if required:
            raise RetryLater(f"{target}: it closed the connection") from error
        return _connected(target, profile, context)
    except BaseException:
        line.close()
        raise
    line.close()
    raise RetryLater(
        f"{target}: it does not acknowledge batches within {seconds:g} s, as homerd does;"
        " acknowledge=no sends to any receiver"
    )


def _connected(target: Target, profile: Profile, context: ssl.SSLContext | None) -> StreamLine:
    opened = socket.create_connection((target.host, target.port), profile.timeout)
    try:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if target.scheme == "tls":
            assert context is not None  # a profile with such a target has one
            opened = context.wrap_socket(opened, server_hostname=profile.tls_name or target.host)
    except BaseException:
        opened.close()
        raise
    return StreamLine(target, opened, profile.timeout)


def _no_password() -> str:
    """A key with a password would have OpenSSL ask on the terminal."""
    return ""


def _said(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
