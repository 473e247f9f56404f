"""textops: tests on the message and its text.

Functions that change the message Kamailio would send on are accepted; here nothing is sent on.
"""

from __future__ import annotations

from homerd.api import (
    Packet,
    Plugin,
    PosixPattern,
    Substitution,
    compile_posix,
    script_function,
    transformation,
)
from homerd_plugins import _accepted

METHODS = frozenset(
    {
        "ACK",
        "BYE",
        "CANCEL",
        "DELETE",
        "GET",
        "INFO",
        "INVITE",
        "KDMQ",
        "MESSAGE",
        "NOTIFY",
        "OPTIONS",
        "POST",
        "PRACK",
        "PUBLISH",
        "PUT",
        "REFER",
        "REGISTER",
        "SUBSCRIBE",
        "UPDATE",
    }
)

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


class Methods(frozenset[str]):
    """`INVITE|BYE`: names of standard methods in any case."""

    @staticmethod
    def from_script(value: str | int) -> frozenset[str]:
        names = str(value).split("|")
        for name in names:
            if name.strip().upper() not in METHODS:
                error = ValueError(f'unknown method "{name.strip()}"')
                start = str(value).index(name)
                error.span = (start, start + len(name))  # type: ignore[attr-defined]
                raise error
        return frozenset(name.strip().upper() for name in names)


class LinePattern(PosixPattern):
    """A regular expression in which `.` stops at the ends of lines."""

    @staticmethod
    def from_script(value: str | int) -> PosixPattern:
        return compile_posix(str(value), newline=True)


class MimeType(str):
    """`type/subtype`, in any case."""

    __slots__ = ()

    @staticmethod
    def from_script(value: str | int) -> str:
        text = str(value).strip().lower()
        kind, slash, subtype = text.partition("/")
        if not (kind and slash and subtype):
            raise ValueError(f'expected type/subtype, got "{value}"')
        return text


class Which(str):
    """Which headers to look at: a all, f the first, l the last."""

    __slots__ = ()

    @staticmethod
    def from_script(value: str | int) -> str:
        if value not in ("a", "f", "l"):
            raise ValueError(f'expected "a" (all), "f" (first) or "l" (last), got "{value}"')
        return str(value)


class HeaderName(str):
    """A header's name, without pseudo-variables."""

    __slots__ = ()

    @staticmethod
    def from_script(value: str | int) -> str:
        text = str(value).strip().removesuffix(":").rstrip()
        if not text or "$" in text:
            raise ValueError(f'expected a header\'s name, got "{value}"')
        return text


class TextOps(Plugin):
    """Tests on a message's method, headers, body and text."""

    name = "textops"

    def __init__(self) -> None:
        self.words = _accepted.functions(_CHANGES, "textops")

    @script_function
    def is_method(self, packet: Packet, methods: Methods) -> bool:
        """Whether the method, in a reply that of CSeq, is one of `INVITE|BYE`."""
        return packet.sip.method in methods

    @script_function("has_body")
    def has_body(self, packet: Packet) -> bool:
        """Whether there is a body."""
        return packet.sip.body != ""

    @script_function("has_body")
    def has_body_of(self, packet: Packet, kind: MimeType) -> bool:
        """Whether there is a body of `type/subtype`."""
        sip = packet.sip
        content_type = sip.content_type
        if not sip.body or not content_type:
            return False
        return content_type.partition(";")[0].strip().lower() == kind

    @script_function
    def is_present_hf(self, packet: Packet, name: HeaderName) -> bool:
        """Whether there is a header of that name, in its long or its compact form."""
        return packet.sip.header(name) is not None

    @script_function
    def is_present_hf_pv(self, packet: Packet, name: str) -> bool:
        """The same with pseudo-variables in the name."""
        return packet.sip.header(name) is not None

    @script_function
    def search(self, packet: Packet, pattern: LinePattern) -> bool:
        """Whether the message has a match."""
        return pattern.search(packet.sip.text)

    @script_function
    def search_body(self, packet: Packet, pattern: LinePattern) -> bool:
        """Whether the body has a match."""
        return pattern.search(packet.sip.body)

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

    @transformation("re.subst")
    def re_subst(self, value: str, expression: Substitution) -> str:
        r"""Replace what matches: `/pattern/replacement/flags`, `\1` a group, flags g, i and s."""
        return expression.apply(value)


def _place(found: int) -> int:
    return found + 1 if found >= 0 else -1


def _compare(left: str, right: str) -> int:
    if left == right:
        return 1
    return -1 if left > right else -2
