"""`homerd show CALL-ID`: the messages of one stored call, whole."""

from __future__ import annotations

import argparse
import json
import sys

from homerd.commands._choice import add_call_options, call_of
from homerd.commands._message import Message
from homerd.commands._shown import printable, shows

_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser("show", help="prints one stored call's messages whole")
    add_call_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the call's messages; one that is not there is no fault."""
    call = call_of(options)
    if options.json:
        for message in call.messages:
            print(json.dumps(message.as_dict()))
        return call.status
    can_show = shows(sys.stdout.encoding)
    bold, plain = (_BOLD, _PLAIN) if sys.stdout.isatty() else ("", "")
    for message in call.messages:
        print(f"{bold}{printable(head_of(message), can_show)}{plain}\n")
        for line in message.msg.replace("\r\n", "\n").rstrip("\n").split("\n"):
            print(printable(line, can_show))
        print()
    for line in call.remarks():
        print(line)
    return call.status


def head_of(message: Message) -> str:
    """The line above a message, as homer-app writes it."""
    time = message.time.isoformat(timespec="microseconds").replace("+00:00", "Z")
    protocol = f"proto:{message.protocol.upper() or '?'}"
    return f"{protocol} {time}  {message.source} ---> {message.destination}"
