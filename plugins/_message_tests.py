"""What textops and sipmsgops both test a message for: method, body, headers, text."""

from __future__ import annotations

from homerd.api import (
    Packet,
    PosixPattern,
    Substitution,
    compile_posix,
    script_function,
    transformation,
)

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


class HeaderName(str):
    """A header's name, without pseudo-variables."""

    __slots__ = ()

    @staticmethod
    def from_script(value: str | int) -> str:
        text = str(value).strip().removesuffix(":").rstrip()
        if not text or "$" in text:
            raise ValueError(f'expected a header\'s name, got "{value}"')
        return text


class MessageTests:
    """Mixed into the modules that offer them."""

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
    def search(self, packet: Packet, pattern: LinePattern) -> bool:
        """Whether the message has a match."""
        return pattern.search(packet.sip.text)

    @script_function
    def search_body(self, packet: Packet, pattern: LinePattern) -> bool:
        """Whether the body has a match."""
        return pattern.search(packet.sip.body)

    @transformation("re.subst")
    def re_subst(self, value: str, expression: Substitution) -> str:
        r"""Replace what matches: `/pattern/replacement/flags`, `\1` a group, flags g, i and s."""
        return expression.apply(value)
