"""What is captured live, as the operator writes it.

listen = raw:eth0                    an interface; raw:any for all of them
listen = ipip:0.0.0.0                tunnelled copies (IP in IP) sent to an address of ours
raw_filter = "udp port 5060"         of every interface, in the syntax of tcpdump
raw_filter = "eth0=>udp port 5060"   of one
raw_promiscuous = yes
raw_capture_id = 2001
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from homerd.errors import ConfigError
from homerd.plugin.hookspecs import ANY, IPIP, RAW, Capture

if TYPE_CHECKING:
    from homerd.lang.nodes import Global

SETTINGS = ("raw_filter", "raw_promiscuous", "raw_capture_id")
MAX_NAME = 15  # of an interface

_ETHERNET = 1
_OF_ONE = re.compile(r"\s*(\S+?)\s*=>\s*(.*)", re.DOTALL)


def split(value: str) -> tuple[str, list[Capture]]:
    """The words of a `listen` value that are captures, and the rest of it."""
    rest: list[str] = []
    found: list[Capture] = []
    for word in re.sub(r"(?<!:)\s*:\s*(?!:)", ":", value).split():
        scheme, _, where = word.partition(":")
        if scheme.lower() in (RAW, IPIP) and word != scheme:
            found.append(capture_of(scheme.lower(), where, word))
        else:
            rest.append(word)
    return " ".join(rest) if found else value, found


def capture_of(scheme: str, where: str, text: str) -> Capture:
    """What one word asks for; ValueError says what is wrong with it."""
    if scheme == RAW:
        if not where or len(where) > MAX_NAME or "/" in where or ":" in where:
            raise ValueError(f'"{text}": expected raw:INTERFACE, as raw:eth0, or raw:{ANY}')
        return Capture(RAW, where, text)
    host = "0.0.0.0" if where == "*" else where.strip("[]")
    try:
        ip_address(host)
    except ValueError:
        raise ValueError(f'"{text}": expected ipip:ADDRESS, as ipip:0.0.0.0') from None
    return Capture(IPIP, host, text)


class Assembly:
    """Captures, and the globals that say more of them, in whatever order they come.

    Of several values of one name, or of filters of one interface, the last counts.
    """

    def __init__(self, number: Callable[[str | int, int, int], int]) -> None:
        self._number = number
        self._captures: list[Capture] = []
        self._filters: dict[str, tuple[str, Global]] = {}
        self._promiscuous: Global | None = None
        self._capture_id: int | None = None

    def add(self, captures: Iterable[Capture]) -> None:
        """What a `listen` line named."""
        self._captures += captures

    def set(self, item: Global) -> None:
        """One of SETTINGS; ValueError says what is wrong."""
        name, value = item.name.lower(), item.value
        if name == "raw_promiscuous":
            self._promiscuous = item if self._number(value, 0, 1) else None
            return
        if name == "raw_capture_id":
            self._capture_id = self._number(value, 0, (1 << 32) - 1)
            return
        of_one = _OF_ONE.fullmatch(str(value))
        where, text = (of_one[1], of_one[2]) if of_one else ("", str(value))
        check_filter(text)
        self._filters[where] = text.strip(), item

    def captures(self) -> tuple[Capture, ...]:
        """What is to be opened."""
        return tuple(dict.fromkeys(map(self._completed, self._captures)))

    def unused(self) -> Iterator[tuple[Global, str]]:
        """Lines that say something of what is not captured from."""
        known = {each.where for each in self._captures if each.scheme == RAW}
        for where, (_, item) in self._filters.items():
            if where and where not in known:
                yield item, f"there is no listen=raw:{where} that the filter would be of"
            elif not known:
                yield item, "there is no listen=raw:INTERFACE that the filter would be of"
        if self._promiscuous is not None and not known - {ANY}:
            yield self._promiscuous, f"expected an interface in listen=raw:INTERFACE, not {ANY}"

    def _completed(self, capture: Capture) -> Capture:
        capture = replace(capture, capture_id=self._capture_id)
        if capture.scheme != RAW:
            return capture
        text, _ = self._filters.get(capture.where) or self._filters.get("") or ("", None)
        promiscuous = self._promiscuous is not None and capture.where != ANY
        return replace(capture, filter=text, promiscuous=promiscuous)


def check_filter(text: str) -> None:
    """ValueError with libpcap's words when *text* is no filter; without libpcap none is wrong."""
    from homerd.core import bpf  # only who captures pays for it

    try:
        if text.strip():
            bpf.compiled(text, _ETHERNET)
    except bpf.NoLibrary:  # told when the interface is opened
        return
    except ConfigError as error:
        raise ValueError(str(error)) from None
