"""Lines that `homerd send` reads: what a line means, and files that are followed."""

from __future__ import annotations

import json
import os
import re
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from ipaddress import ip_address

from homerd.core.inputs import Undecoded, Wait, item_of
from homerd.errors import ConfigError
from homerd.wire.hep import IPV4, IPV6, Frame

# Longer is no frame, however it is written.
LONGEST_LINE = 1 << 18
LOG_TYPE = 100
READ_SIZE = 1 << 16
LOOK_SECONDS = 0.25
_FIELDS = re.compile(
    rb"(\d+);(\d+);([^;]*);([0-9A-Fa-f.:]+);(\d+);([0-9A-Fa-f.:]+);(\d+);(.*)", re.DOTALL
)


class Refused(Exception):
    """A line that is no packet, and why."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the options say of packets; None where they say nothing."""

    type: int | None
    capture_id: int | None
    key: str | None
    node: str | None
    correlation_id: str | None
    find_id: re.Pattern[str] | None
    source: tuple[bytes, int]
    target: tuple[bytes, int]


def packet_of(line: bytes, form: str, given: Given) -> Frame:
    """The packet of a line; form "hepipe", "json" or "log".  Raises Refused."""
    if form == "json":
        frame = _from_json(line)
    elif form == "hepipe":
        frame = _from_fields(line)
    else:
        frame = _from_log(line, given)
    return with_given(frame, given)


def with_given(frame: Frame, given: Given) -> Frame:
    """The packet with what the options say of it."""
    if given.type is not None:
        frame.payload_type = given.type
    if given.capture_id is not None:
        frame.capture_id = given.capture_id
    if given.key is not None:
        frame.auth_key = given.key
    if given.node is not None:
        frame.extra = {**(frame.extra or {}), "node_name": given.node}
    if not frame.correlation_id:
        frame.correlation_id = given.correlation_id
    if not frame.seconds:
        frame.seconds, frame.micros = divmod(int(time.time() * 1_000_000), 1_000_000)
    return frame


def end_of(text: str) -> tuple[bytes, int]:
    """`ADDRESS:PORT` as a frame has it; ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'expected ADDRESS:PORT, got "{text}"')
    return ip_address(host.strip("[]")).packed, int(port)


class Lines:
    """Lines of a file, with their numbers.

    follow: told to wait for more; a file that was moved away is read to its end and then its
    successor, one that was made shorter from its beginning.
    idle: called while nothing comes.  progress: told of the bytes read.
    """

    def __init__(
        self,
        path: str,
        *,
        follow: bool = False,
        idle: Callable[[], object] = lambda: None,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        self.path = path
        self.follow = follow
        self.idle = idle
        self.progress = progress

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        """(number, line); None for a line that is longer than any packet."""
        number, rest, too_long = 0, b"", False
        file = self._open()
        while True:
            data = self._read(file)
            if data:
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    number += 1
                    yield number, None if too_long else line.removesuffix(b"\r")
                    too_long = False
                if len(rest) > LONGEST_LINE:
                    rest, too_long = b"", True
                continue
            following = self._next(file) if self.follow else None
            if following is file:
                continue
            if rest or too_long:
                number += 1
                yield number, None if too_long else rest
            rest, too_long = b"", False
            file.close()
            if following is None:
                return
            file = following

    def _open(self) -> FileIO:
        try:
            return FileIO(os.dup(0) if self.path == "-" else self.path)
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}") from error

    def _read(self, file: FileIO) -> bytes:
        """What is there; of a pipe once something is."""
        while self.path == "-" and not select.select([file], [], [], LOOK_SECONDS)[0]:
            self.idle()
        data = file.read(READ_SIZE) or b""
        if self.progress is not None:
            self.progress(len(data))
        return data

    def _next(self, file: FileIO) -> FileIO | None:
        """The file to read on from, once more may be there; None at the end of standard input."""
        if self.path == "-":
            return None
        self.idle()
        time.sleep(LOOK_SECONDS)
        ours = os.fstat(file.fileno())
        try:
            there = os.stat(self.path)
        except OSError:  # between two names
            return file
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            # What was written to the old one since we looked comes first.
            return self._open() if ours.st_size <= file.tell() else file
        return self._open() if there.st_size < file.tell() else file


def _from_fields(line: bytes) -> Frame:
    """seconds;micros;correlation id;source;port;destination;port;payload"""
    found = _FIELDS.fullmatch(line)
    if found is None:
        raise Refused("expected sec;usec;id;src_ip;src_port;dst_ip;dst_port;payload")
    seconds, micros, id, source, source_port, target, target_port, payload = found.groups()
    try:
        ends = [
            end_of(f"{ip.decode()}:{port.decode()}")
            for ip, port in ((source, source_port), (target, target_port))
        ]
    except ValueError as error:
        raise Refused(str(error)) from None
    if int(seconds) >= 1 << 32 or int(micros) >= 1 << 32:
        raise Refused(f"no time: {seconds.decode()};{micros.decode()}")
    frame = _frame(ends[0], ends[1], payload)
    frame.seconds, frame.micros = int(seconds), int(micros)
    frame.correlation_id = id.decode("utf-8", "surrogateescape")
    return frame


def _from_log(line: bytes, given: Given) -> Frame:
    frame = _frame(given.source, given.target, line)
    if given.find_id is not None:
        found = given.find_id.search(line.decode("utf-8", "surrogateescape"))
        if found is None:
            raise Refused("--find-id finds nothing in it")
        frame.correlation_id = found[1] if found.re.groups else found[0]
    return frame


def _from_json(line: bytes) -> Frame:
    try:
        told = json.loads(line)
        if isinstance(told, dict) and not told.keys() & {"sip", "hep", "hex", "wait"}:
            told = {"hep": told}
        item = item_of(told, "line")
    except (ValueError, RecursionError) as error:
        raise Refused(f"not JSON: {error}") from None
    except ConfigError as error:
        raise Refused(str(error).removeprefix("line: ")) from None
    if isinstance(item, Undecoded):
        raise Refused(f"no packet: {item.reason}")
    if isinstance(item, Wait):
        raise Refused("a pause is no packet")
    return item


def _frame(source: tuple[bytes, int], target: tuple[bytes, int], payload: bytes) -> Frame:
    if len(source[0]) != len(target[0]):
        raise Refused("source and destination are of different families")
    if not payload:
        raise Refused("it has no payload")
    frame = Frame(3, IPV4 if len(source[0]) == 4 else IPV6, 17, source[0], target[0])
    frame.src_port, frame.dst_port = source[1], target[1]
    frame.payload, frame.payload_type = payload, LOG_TYPE
    return frame
