"""`homerd send`: lines of a file or of standard input as HEP to a server, as hepipe does."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import entry_points
from typing import Any

from tqdm import tqdm

from homerd.commands._sent_lines import Given, Lines, Refused, end_of, packet_of, with_given
from homerd.core import log
from homerd.core.inputs import Undecoded, input_size, is_capture, read_input
from homerd.errors import ConfigError
from homerd.wire import hep
from homerd.wire.hep import Frame

SHOWN_REFUSALS = 20
WAIT_ABOVE_PENDING = 20_000
_WAIT_SECONDS = 0.02
_FORMS = ("auto", "hepipe", "json", "log", "capture")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser(
        "send", help="lines of a log, of hepipe or of JSON, or a capture, to a HEP server"
    )
    add = parser.add_argument
    add(
        "--to",
        required=True,
        metavar="TARGET",
        help="udp:HOST:PORT, tcp:HOST:PORT or tls:HOST:PORT; several with commas: the next when one"
        " is away",
    )
    add(
        "--format",
        choices=_FORMS,
        default="auto",
        help="hepipe: sec;usec;id;src_ip;src_port;dst_ip;dst_port;payload, json: as INPUT of"
        " replay, log: the line is the payload, capture: pcap and all that replay reads (auto:"
        " a capture by its first bytes, else hepipe or json, line by line)",
    )
    add(
        "--type",
        type=_number(255),
        metavar="N",
        help="payload type (hepipe, log: 100, a log; json, capture: the packet's)",
    )
    add("--id", type=_number((1 << 32) - 1), metavar="N", help="capture id")
    add("--key", metavar="TEXT", help="authentication key; HOMERD_KEY in the environment as well")
    add("--node", metavar="NAME", help="name of the capturing node")
    add("--correlation-id", metavar="ID", help="where a line or a packet has none")
    add(
        "--find-id",
        type=_pattern,
        metavar="REGEX",
        help="log: the correlation id in each line, its first group; lines without are refused",
    )
    add("--src", type=_end, default="127.0.0.1:0", metavar="IP:PORT", help="log: the source")
    add("--dst", type=_end, default="127.0.0.1:0", metavar="IP:PORT", help="log: the destination")
    add("--hep", type=int, choices=(1, 2, 3), default=3, help="version (3)")
    add("--compress", action="store_true", help="payloads packed with zlib")
    add("--follow", action="store_true", help="wait for more lines, also when the file is rotated")
    add("--tls-ca", default="", metavar="FILE", help="who signs the server's certificate")
    add("--tls-name", default="", metavar="NAME", help="the name the certificate must have")
    add(
        "--acknowledge",
        choices=("auto", "yes", "no"),
        default="auto",
        help="tcp and tls: homerd tells what it has stored; yes: nobody else will do",
    )
    add(
        "--wait",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="at the end, for a server that is away (30)",
    )
    add("inputs", nargs="*", default=["-"], metavar="FILE", help='"-" is standard input (-)')
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Send everything; 1 when a line was refused or something was not taken."""
    if options.follow and (options.format == "capture" or len(options.inputs) > 1):
        raise ConfigError("--follow takes one file, of lines")
    log.start()
    sending = Sending(options)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):  # how --follow ends
            for path in options.inputs:
                sending.send(path)
        return sending.finish(options.wait)
    finally:
        signal.signal(signal.SIGTERM, before)


class Sending:
    """A way out, and what became of the lines."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.sent = 0
        self.refused = 0
        self.given = Given(
            options.type,
            options.id,
            options.key if options.key is not None else os.environ.get("HOMERD_KEY"),
            options.node,
            options.correlation_id,
            options.find_id,
            options.src,
            options.dst,
        )
        self.sink = _sink(options)
        self.sink.start()

    def send(self, path: str) -> None:
        """All packets of one input."""
        size = 0 if self.options.follow else input_size(path)
        hidden = not size or not sys.stderr.isatty()
        with tqdm(total=size, unit="B", unit_scale=True, disable=hidden) as bar:
            if self._is_capture(path):
                self._send_capture(path, bar.update)
            else:
                self._send_lines(path, bar.update)

    def finish(self, seconds: float) -> int:
        """Wait until all is taken; the exit status."""
        self.sink.flush(seconds)
        self.sink.stop(0.0)
        left = self.sent - self.sink.written
        done = f"{self.sink.written} sent, {self.refused} refused"
        print(f"{done}, {left} not taken by {self.sink.where}", file=sys.stderr)
        return 1 if left or self.refused else 0

    def _send_lines(self, path: str, progress: Callable[[int], object]) -> None:
        lines = Lines(path, follow=self.options.follow, idle=self._tick, progress=progress)
        for number, line in lines:
            if line is None:
                self._refuse(path, number, "longer than any packet")
            elif line.strip():
                try:
                    self._add(packet_of(line, self._form(line), self.given))
                except (Refused, ValueError) as error:
                    self._refuse(path, number, str(error))

    def _send_capture(self, path: str, progress: Callable[[int], object]) -> None:
        for number, item in enumerate(_packets(path, progress), 1):
            if isinstance(item, Undecoded):
                self._refuse(path, number, f"no packet: {item.reason}")
                continue
            try:
                self._add(with_given(item, self.given))
            except ValueError as error:
                self._refuse(path, number, str(error))

    def _add(self, frame: Frame) -> None:
        options = self.options
        data = hep.encode(frame, options.hep, compress=options.compress)
        self.sink.add((data, frame.correlation_id or ""))
        self.sent += 1
        if self.sent % 1000 == 0:
            self._tick()
            while self.sink.pending > WAIT_ABOVE_PENDING:
                time.sleep(_WAIT_SECONDS)

    def _is_capture(self, path: str) -> bool:
        form = self.options.format
        return form == "capture" or (
            form == "auto" and not self.options.follow and path != "-" and is_capture(path)
        )

    def _form(self, line: bytes) -> str:
        form: str = self.options.format
        if form != "auto":
            return form
        return "json" if line.lstrip()[:1] == b"{" else "hepipe"

    def _tick(self) -> None:
        self.sink.tick(time.monotonic())

    def _refuse(self, path: str, number: int, why: str) -> None:
        self.refused += 1
        if self.refused <= SHOWN_REFUSALS:
            print(f"{'standard input' if path == '-' else path}:{number}: {why}", file=sys.stderr)
        elif self.refused == SHOWN_REFUSALS + 1:
            print("more lines were refused, they are counted", file=sys.stderr)


def _packets(path: str, progress: Callable[[int], object]) -> Iterator[Frame | Undecoded]:
    for item in read_input(path, progress):
        if isinstance(item, Frame | Undecoded):
            yield item


def _sink(options: argparse.Namespace) -> Any:  # the module's own; commands import no module
    (found,) = entry_points(group="homerd", name="hep")
    module = found.load()
    pieces = {
        "target": options.to,
        "version": options.hep,
        "acknowledge": options.acknowledge,
        "tls_ca": options.tls_ca,
        "tls_name": options.tls_name,
        "compress": "yes" if options.compress else "no",
    }
    if any(";" in str(each) for each in pieces.values()):
        raise ConfigError("no address and no name of a file may have a semicolon here")
    text = ";".join(f"{name}={value}" for name, value in pieces.items())
    try:
        profile = module.profile.kind.from_script(f"send=>{text}")
    except ValueError as error:
        raise ConfigError(str(error).removeprefix('profile "send": ')) from None
    plugin = module()
    plugin.set_mod_param("profile", profile)
    return plugin.sinks["send"]


def _number(most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdigit() or int(text) > most:
            raise argparse.ArgumentTypeError(f'expected a number from 0 to {most}, got "{text}"')
        return int(text)

    return read


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{error}: {text}") from None


def _end(text: str) -> tuple[bytes, int]:
    try:
        return end_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
