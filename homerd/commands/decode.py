"""homerd decode: what capture frames say, as text or as JSON lines."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from homerd.core.inputs import Item, Undecoded, Wait, read_input
from homerd.errors import ConfigError, DecodeError
from homerd.wire import hep
from homerd.wire.hep import Frame

PROTOCOLS = {6: "tcp", 17: "udp", 22: "tls", 132: "sctp"}
PAYLOADS = {1: "SIP", 5: "RTCP", 34: "MOS report", 35: "MOS report", 53: "DNS", 100: "log"}

_BOLD, _RED, _DIM, _PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[2m", "\x1b[0m"

Told = dict[str, Any]  # one object of the JSON output


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "decode",
        help="shows capture frames",
        description="Shows what capture frames say. INPUT is a pcap or pcapng file, HEP frames one"
        " after another, one SIP message, or JSON lines; - is standard input.",
    )
    parser.add_argument("inputs", metavar="INPUT", nargs="*", help="default: standard input")
    parser.add_argument("--json", action="store_true", help="one JSON object a frame")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--hex", action="store_true", help="read one hex datagram a line from standard input"
    )
    form.add_argument(
        "--tcp-hex", action="store_true", help="read one hex stream a line from standard input"
    )
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Print every frame; gives the exit status."""
    if (options.hex or options.tcp_hex) and options.inputs:
        options.parser.error("--hex and --tcp-hex read standard input, not INPUT")
    show = _show_json if options.json else _show_text
    for told in _told(options):
        show(told)
    return 0


def show(frame: Frame, *, as_json: bool) -> None:
    """Print a frame, as JSON or for people."""
    told = hep.to_dict(frame)
    if as_json:
        _show_json(told)
    else:
        _show_text(told)


def _told(options: argparse.Namespace) -> Iterator[Told]:
    if options.hex:
        return (_datagram(data) for data in _hex_lines())
    if options.tcp_hex:
        return (told for data in _hex_lines() for told in _stream(data))
    return (_item(item) for item in _items(options.inputs or ["-"]) if not isinstance(item, Wait))


def _items(paths: Iterable[str]) -> Iterator[Item]:
    for path in paths:
        yield from read_input(path)


def _hex_lines() -> Iterator[bytes]:
    for number, line in enumerate(sys.stdin, 1):
        if not line.strip():
            continue
        try:
            yield bytes.fromhex(line)
        except ValueError as error:
            raise ConfigError(f"standard input:{number}: {error}") from None


def _item(item: Frame | Undecoded) -> Told:
    if isinstance(item, Undecoded):
        return {"error": item.reason, "offset": item.offset}
    return hep.to_dict(item)


def _datagram(data: bytes) -> Told:
    try:
        return hep.to_dict(hep.decode(data))
    except DecodeError as error:
        return {"error": error.reason, "offset": error.offset}


def _stream(data: bytes) -> Iterator[Told]:
    framer = hep.Framer()
    for frame in framer.feed(data):
        yield _datagram(frame)
    if framer.fault is not None:
        yield {"error": framer.fault.reason, "offset": framer.fault.offset}
    else:
        yield {"pending_bytes": framer.pending}


def _show_json(told: Told) -> None:
    print(json.dumps(told))


def _show_text(told: Told) -> None:
    """A line of addresses and time, a line of what else the envelope said, the payload."""
    bold, red, dim, plain = (_BOLD, _RED, _DIM, _PLAIN) if sys.stdout.isatty() else ("", "", "", "")
    if "error" in told:
        print(f"{red}error: {told['error']} at byte {told['offset']}{plain}\n")
        return
    if "pending_bytes" in told:
        print(f"{told['pending_bytes']} bytes pending")
        return
    print(f"{bold}{_first_line(told)}{plain}")
    if rest := _rest(told):
        print(f"{dim}{rest}{plain}")
    if told["warnings"]:
        print(f"{red}warnings: {', '.join(told['warnings'])}{plain}")
    payload = bytes.fromhex(told["payload_hex"] or "")
    print(_payload(payload), end="\n\n")


def _first_line(told: Told) -> str:
    kind = told["proto_type"]
    version = f"HEP{told['version']}" if told["version"] else "bare"
    time = "no time" if told["ts_us"] is None else _time(told["ts_us"])
    protocol = PROTOCOLS.get(told["ip_proto"], str(told["ip_proto"]))
    payload = "no type" if kind is None else PAYLOADS.get(kind, f"type {kind}")
    source = _place(told["src_ip"], told["src_port"])
    target = _place(told["dst_ip"], told["dst_port"])
    return f"{time}  {protocol} {source} > {target}  {payload}  {version}"


def _rest(told: Told) -> str:
    shown = {"version", "warnings", "ip_family", "ip_proto", "src_ip", "dst_ip", "src_port"}
    shown |= {"dst_port", "ts_sec", "ts_usec", "ts_us", "proto_type", "payload_hex"}
    return "  ".join(
        f"{name}={_visible(str(value))}"
        for name, value in told.items()
        if name not in shown and value is not None
    )


def _time(micros: int) -> str:
    try:
        moment = datetime.fromtimestamp(micros // 1_000_000, UTC)
    except (OverflowError, ValueError):
        return str(micros)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{micros % 1_000_000:06d}Z"


def _place(address: str | None, port: int | None) -> str:
    host = f"[{address}]" if address and ":" in address else address or "?"
    return host if port is None else f"{host}:{port}"


def _payload(data: bytes) -> str:
    """The payload as indented text; what could act on a terminal is shown as an escape."""
    text = data.decode("utf-8", "backslashreplace").rstrip("\r\n").replace("\r\n", "\n")
    return "\n".join("    " + _visible(line) for line in text.split("\n"))


def _visible(text: str) -> str:
    return "".join(
        sign if sign.isprintable() or sign == "\t" else sign.encode("unicode_escape").decode()
        for sign in text
    )
