"""`homerd flow CALL-ID`: the ladder of one stored call, as text."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from homerd.commands._choice import add_call_options, call_of
from homerd.commands._message import Message, joined
from homerd.commands._shown import printable, shows

WIDTH = 100  # of a file; a terminal tells its own
NARROWEST, WIDEST = 10, 34  # characters from one host's line to the next
_MARGIN = len("00:00:00.000 +000.000s ")
_REPEATS = {"": "", "retransmission": " again", "copy": " copy"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser("flow", help="draws the ladder of one stored call")
    add_call_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the call; one that is not there is no fault."""
    found = call_of(options)
    steps = steps_of(found.messages, options.call_id)
    if options.json:
        for step in steps:
            print(json.dumps(step.as_dict()))
        return found.status
    if steps:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
        can_show = shows(sys.stdout.encoding)
        ladder = Ladder(steps, max(width, 80), FANCY if can_show("".join(FANCY.signs)) else PLAIN)
        for line in ladder.lines():
            print(printable(line, can_show))
    for line in found.remarks():
        print(line)
    return found.status


@dataclass(frozen=True, slots=True)
class Step:
    """A message in its call.

    delta: microseconds since the message before.  leg: number of its Call-ID, from 1.
    repeats: "retransmission", "copy" of another agent, or "".
    """

    message: Message
    delta: int
    leg: int
    has_sdp: bool
    repeats: str

    def as_dict(self) -> dict[str, object]:
        """The step as JSON values."""
        return {
            **self.message.as_dict(),
            "delta_micros": self.delta,
            "leg": self.leg,
            "sdp": self.has_sdp,
            "retransmission": self.repeats == "retransmission",
            "copy": self.repeats == "copy",
        }


def steps_of(messages: Sequence[Message], call_id: str) -> list[Step]:
    """Messages in the order of time, each compared with those before it."""
    legs = {call_id: 1}
    seen: dict[tuple[str, ...], set[str]] = {}
    steps: list[Step] = []
    for message in messages:
        leg = legs.setdefault(message.callid, len(legs) + 1)
        delta = message.micro_ts - steps[-1].message.micro_ts if steps else 0
        ends = (_end(message, True), _end(message, False))
        nodes = seen.setdefault((*ends, message.callid, message.method, message.msg), set())
        repeats = "retransmission" if message.node in nodes else "copy" if nodes else ""
        nodes.add(message.node)
        steps.append(Step(message, delta, leg, _has_sdp(message), repeats))
    return steps


@dataclass(frozen=True, slots=True)
class Signs:
    """What a ladder is drawn with."""

    line: str
    dash: str
    right: str
    left: str
    cut: str

    @property
    def signs(self) -> tuple[str, ...]:
        """All of them."""
        return (self.line, self.dash, self.right, self.left, self.cut)


FANCY = Signs("│", "─", "▶", "◀", "…")
PLAIN = Signs("|", "-", ">", "<", "~")


class Ladder:
    """A call as lines of text: a column for each host, an arrow for each message."""

    def __init__(self, steps: Sequence[Step], width: int, signs: Signs) -> None:
        self.steps = steps
        self.signs = signs
        self.hosts = _hosts(steps)
        self.legs = {step.leg: step.message.callid for step in steps}
        room = (width - _MARGIN) // len(self.hosts)
        self.gap = max(NARROWEST, min(WIDEST, room))

    def lines(self) -> list[str]:
        """The whole ladder."""
        shown = [*self._legend(), *self._head()]
        shown += [self._step(step) for step in self.steps]
        return [line.rstrip() for line in shown]

    def _legend(self) -> list[str]:
        first = self.steps[0].message
        lines = [f"{first.time:%Y-%m-%d} UTC, {_counted(len(self.steps), 'message')}"]
        for leg, call_id in sorted(self.legs.items()):
            lines.append(f"{f'leg {leg}: ' if len(self.legs) > 1 else ''}Call-ID {call_id}")
        names = list(self.hosts.values())
        if not self._names_fit():
            lines += [f"{_letter(place)} = {name}" for place, name in enumerate(names)]
        return [*lines, ""]

    def _head(self) -> list[str]:
        names = list(self.hosts.values())
        if not self._names_fit():
            names = [_letter(place) for place in range(len(names))]
        line = " " * _MARGIN + "".join(name.center(self.gap) for name in names)
        return [line, self._lane("", "")]

    def _names_fit(self) -> bool:
        return all(len(name) < self.gap for name in self.hosts.values())

    def _lane(self, margin: str, arrow: str) -> str:
        """The hosts' lines, with *arrow* laid over them."""
        cells = (self.signs.line.center(self.gap) for _ in self.hosts)
        return margin.ljust(_MARGIN) + (arrow or "".join(cells))

    def _step(self, step: Step) -> str:
        message = step.message
        places = list(self.hosts)
        source = places.index(_host(message, True, self.hosts))
        target = places.index(_host(message, False, self.hosts))
        lane = list("".join(self.signs.line.center(self.gap) for _ in places))
        middle = self.signs.line.center(self.gap).index(self.signs.line)
        if source == target:
            begin = source * self.gap + middle + 1
            to_itself = f"{self.signs.left}{self.signs.right} "
            label = to_itself + self._label(step, max(len(lane) - begin, 20) - len(to_itself))
            lane[begin : begin + len(label)] = label
        else:
            begin = min(source, target) * self.gap + middle + 1
            room = abs(source - target) * self.gap - 1
            body = f" {self._label(step, room - 4)} ".center(room - 1, self.signs.dash)
            arrow = body + self.signs.right if source < target else self.signs.left + body
            lane[begin : begin + room] = arrow
        clock = message.time.strftime("%H:%M:%S.%f")[:-3]
        return f"{clock} {_delta(step.delta):>9} ".ljust(_MARGIN) + "".join(lane)

    def _label(self, step: Step, room: int) -> str:
        """`[2] 200 OK (1 INVITE) SDP again`; where room is short, reason and CSeq give way."""
        message = step.message
        leg = f"[{step.leg}] " if len(self.legs) > 1 else ""
        cseq = message.cseq if message.status is not None else message.cseq.partition(" ")[0]
        answers = f" ({' '.join(cseq.split())})" if cseq else ""
        marks = " SDP" * step.has_sdp + _REPEATS[step.repeats]
        title = leg + message.title
        shortest = len(leg + message.method) + (2 if message.reply_reason else 0)
        for tail in (answers + marks, marks):
            if len(title) + len(tail) <= room:
                return title + tail
            if shortest + len(tail) <= room:
                return self._cut(title, room - len(tail)) + tail
        return self._cut(title + marks, room)

    def _cut(self, text: str, most: int) -> str:
        return text if len(text) <= most else text[: max(most - 1, 0)] + self.signs.cut


def _hosts(steps: Sequence[Step]) -> dict[str, str]:
    """Each host's key and how it is called, in the order they are first seen.

    An address is one host, unless it sends to itself: then each of its ports is one.
    """
    to_itself = {
        step.message.source_ip
        for step in steps
        if step.message.source_ip == step.message.destination_ip
    }
    ports: dict[str, set[int]] = {}
    for step in steps:
        for is_source in (True, False):
            address, port = _end_of(step.message, is_source)
            key = _end(step.message, is_source) if address in to_itself else address
            ports.setdefault(key, set()).add(port)
    named: dict[str, str] = {}
    for key, used in ports.items():
        one = key not in to_itself and len(used) == 1 and key.rpartition(":")[0] not in to_itself
        named[key] = joined(key, *used) if one else key or "?"
    return named


def _host(message: Message, is_source: bool, hosts: dict[str, str]) -> str:
    end = _end(message, is_source)
    return end if end in hosts else _end_of(message, is_source)[0]


def _end_of(message: Message, is_source: bool) -> tuple[str, int]:
    if is_source:
        return message.source_ip, message.source_port
    return message.destination_ip, message.destination_port


def _end(message: Message, is_source: bool) -> str:
    return joined(*_end_of(message, is_source))


def _has_sdp(message: Message) -> bool:
    if "application/sdp" in message.content_type.lower():
        return True
    return "multipart/" in message.content_type.lower() and "application/sdp" in message.msg


def _delta(micros: int) -> str:
    seconds = micros / 1e6
    return f"+{seconds:.3f}s" if abs(seconds) < 1000 else f"+{seconds:.0f}s"


def _letter(place: int) -> str:
    return chr(ord("A") + place) if place < 26 else f"#{place + 1}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
