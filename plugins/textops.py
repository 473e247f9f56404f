"""textops: tests on the message and its text.

Functions that change the message Kamailio would send on are accepted; here nothing is sent on.
"""

from __future__ import annotations

from homerd.api import (
    Packet,
    Plugin,
    script_function,
)
from homerd_plugins import _accepted
from homerd_plugins._message_tests import HeaderName, LinePattern, MessageTests

_CHANGES = (
    "append_hf/1-2 insert_hf/1-2 append_urihf/2 remove_hf/1 remove_hf_re/1 remove_hf_exp/2"
    " remove_hf_exp_pv/2 append_to_reply/1 append_time/0 append_time_to_request/0"
    " subst/1 subst_body/1 subst_hf/3 subst_uri/1 subst_user/1 subst_v/1"
    " replace/2 replace_all/2 replace_body/2 replace_body_all/2 replace_body_atonce/2"
    " replace_body_str/3 replace_hdrs/2 replace_hdrs_str/3 replace_str/3 set_body/2"
    " set_reply_body/2 filter_body/1 set_multibody/0-4 append_multibody/2-3"
    " append_body_part/2-3 append_body_part_hex/2-3 remove_body_part/1 get_body_part/2=-1"
    " search_append/2 search_append_body/2 regex_substring/5=-1"
    " is_audio_on_hold/0=-1 is_privacy/1=-1"
)


class Which(str):
    """Which headers to look at: a all, f the first, l the last."""

    __slots__ = ()

    @staticmethod
    def from_script(value: str | int) -> str:
        if value not in ("a", "f", "l"):
            raise ValueError(f'expected "a" (all), "f" (first) or "l" (last), got "{value}"')
        return str(value)


class TextOps(Plugin, MessageTests):
    """Tests on a message's method, headers, body and text."""

    name = "textops"

    def __init__(self) -> None:
        self.words = _accepted.functions(_CHANGES, "textops")

    @script_function
    def is_present_hf_pv(self, packet: Packet, name: str) -> bool:
        """The same with pseudo-variables in the name."""
        return packet.sip.header(name) is not None

    @script_function
    def search_hf(
        self, packet: Packet, name: HeaderName, pattern: LinePattern, which: Which = "a"
    ) -> bool:
        """Whether a header has a match: any (`a`), the first (`f`) or the last (`l`)."""
        bodies = packet.sip.headers(name)
        if which == "f":
            bodies = bodies[:1]
        elif which == "l":
            bodies = bodies[-1:]
        return any(map(pattern.search, bodies))

    @script_function
    def starts_with(self, packet: Packet, text: str, prefix: str) -> bool:
        """Whether *text* begins with *prefix*; nothing does with an empty text."""
        return bool(text) and text.startswith(prefix)

    @script_function
    def ends_with(self, packet: Packet, text: str, suffix: str) -> bool:
        """Whether *text* ends with *suffix*."""
        return text.endswith(suffix)

    @script_function
    def str_find(self, packet: Packet, text: str, part: str) -> int:
        """Where *part* stands in *text*, from 1; -1 when it does not."""
        return _place(text.find(part))

    @script_function
    def str_ifind(self, packet: Packet, text: str, part: str) -> int:
        """The same in any case."""
        return _place(text.lower().find(part.lower()))

    @script_function
    def str_any_in(self, packet: Packet, text: str, characters: str) -> bool:
        """Whether any of *characters* is in *text*."""
        return any(character in text for character in characters)

    @script_function
    def cmp_str(self, packet: Packet, left: str, right: str) -> int:
        """1 when both are equal, -1 when *left* sorts behind *right*, else -2."""
        return _compare(left, right)

    @script_function
    def cmp_istr(self, packet: Packet, left: str, right: str) -> int:
        """The same in any case."""
        return _compare(left.lower(), right.lower())

    @script_function
    def in_list(self, packet: Packet, text: str, items: str, separator: str) -> bool:
        """Whether *text* is one of *items*, blanks around them left out."""
        return text in (item.strip(" \t\r\n") for item in items.split(separator or ","))

    @script_function
    def in_list_prefix(self, packet: Packet, text: str, items: str, separator: str) -> bool:
        """Whether *text* begins with one of *items*."""
        found = (item.strip(" \t\r\n") for item in items.split(separator or ","))
        return any(item and text.startswith(item) for item in found)


def _place(found: int) -> int:
    return found + 1 if found >= 0 else -1


def _compare(left: str, right: str) -> int:
    if left == right:
        return 1
    return -1 if left > right else -2
