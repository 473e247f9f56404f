"""Captured frames, from a file or an interface, to the packets a script sees.

Link layer, IP, fragments and tunnels are walked to the innermost UDP, TCP or SCTP; what that
carries is told by content.  A frame that gives no packet is counted with its reason:
fed = gave packets + undecoded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from struct import Struct
from typing import Any

from homerd.core import media as media_of_calls
from homerd.core.media import MediaTable
from homerd.errors import DecodeError
from homerd.wire import fragments, hep, ip, link, rtcp, sctp, streams, tunnel
from homerd.wire.frame import IPV4, IPV6, SIP, Frame
from homerd.wire.ip import Datagram, IpPacket
from homerd.wire.sip import looks_like_sip

KEEP_ALIVE = "keep_alive"
SNAPPED = "snapped"  # also the warning on a packet of which less was captured than was sent
MAX_TUNNELS = 4

# Why a captured frame gives no packet.
REASONS = tuple(
    dict.fromkeys(
        (
            "filtered",
            *link.REASONS,
            *ip.REASONS,
            *fragments.REASONS,
            *tunnel.REASONS,
            "tunnel_too_deep",
            "icmp",
            "esp",
            "ip_protocol",
            "tcp_header",
            "tcp_no_data",
            "tcp_segment",
            *sctp.REASONS,
            "sctp_payload",
            KEEP_ALIVE,
            "media",
            *media_of_calls.REASONS,
            "stun",
            "dns",
            "hep",
            *hep.REASONS,
        )
    )
)
# What else is counted, of datagrams, streams and messages rather than frames.
NOTES = (
    *fragments.NOTES,
    *streams.REASONS,
    *streams.NOTES,
    *sctp.NOTES,
    *hep.REASONS,
    *media_of_calls.NOTES,
    SNAPPED,
)

# What no SIP message, and no HEP of any version, begins with is not looked at further.
_TEXT = frozenset(b"\r\n!%'*+-.`_~0123456789" + bytes(range(65, 91)) + bytes(range(97, 123)))
_OLD_HEP = (1, 2)
_BEGINNINGS = _TEXT | {*_OLD_HEP, hep.GZIP[0]}
_UNREAD = {**dict.fromkeys(ip.ICMP, "icmp"), ip.ESP: "esp"}
_DNS = 53
_STUN_COOKIE = b"\x21\x12\xa4\x42"
_KEEP_ALIVES = frozenset({b"", b"jaK"})

_OPENS_OR_ENDS = streams.SYN | streams.FIN | streams.RST

# SCTP payload protocols that captures of SS7 bring -> payload types of HEP: M2UA, M3UA, M2PA.
_SS7 = {2: 8, 3: 9, 5: 13}

# Frames that give nothing by these reasons may end the wait of what came before.
_OF_STREAMS = frozenset({"tcp_segment", "tcp_no_data", "media"})

# Version and header length, piece, protocol, destination port and two bytes of payload, where UDP
# stands in IPv4 without options.
_PLAIN = 29  # where the last of them is
_plain = Struct(">B5xHxB12xH4xBB").unpack_from
_udp = Struct(">HHH").unpack_from
_tcp = Struct(">HHIxxxxBB").unpack_from


class Dissector:
    """What captured frames hold.

    take_hep: whether HEP that was captured is opened; off where it may be what we send ourselves.
    capture_id, node_name: what bare messages say they were captured by.
    media: where calls have their media; sources that see one network share it.
    wanted: of frames, by link type and bytes, those that are looked at; by default all.
    undecoded: by REASONS, frames that gave nothing.  reason, offset: why the last one gave nothing.
    """

    def __init__(
        self,
        *,
        take_hep: bool = True,
        capture_id: int | None = None,
        node_name: str | None = None,
        media: MediaTable | None = None,
        wanted: Callable[[int, bytes], bool] | None = None,
    ) -> None:
        self.take_hep = take_hep
        self.capture_id = capture_id
        self.node_name = node_name
        self.media = MediaTable() if media is None else media
        self.wanted = wanted
        self.undecoded: Counter[str] = Counter()
        self.reason = ""
        self.offset = 0
        self._notes: Counter[str] = Counter()
        self._fragments = fragments.Fragments()
        self._streams = streams.TcpStreams(take_hep=take_hep)
        self._sctp = sctp.Sctp()

    @property
    def notes(self) -> Counter[str]:
        """By NOTES, what was met or lost on the way, of datagrams, streams and messages."""
        counts = (
            self._fragments.counts,
            self._streams.counts,
            self._sctp.counts,
            self.media.counts,
        )
        return sum(counts, self._notes.copy())

    def feed(self, linktype: int, seconds: int, micros: int, data: bytes) -> list[Frame]:
        """The packets that are whole with this frame, most often one or none.  Never raises."""
        try:
            if self.wanted is not None and not self.wanted(linktype, data):
                raise DecodeError("filtered")
            at, vlan = link.ip_at(linktype, data)
            # Hot path: most of what a mirror port brings is RTP.  It is told by one unpack, 1.3 µs
            # where the walk through the headers takes 6.
            if len(data) > at + _PLAIN:
                head, piece, protocol, dst_port, first, second = _plain(data, at)
                if (
                    first & 0xC0 == 0x80
                    and head == 0x45
                    and protocol == ip.UDP
                    and not piece & 0x3FFF
                    and not rtcp.SR <= second <= rtcp.XR
                    and dst_port not in tunnel.PORTS
                    and not self.media.report_seconds
                ):
                    self.reason, self.offset = "media", at
                    self.undecoded["media"] += 1
                    return []
            macs = data[:12] if linktype == link.ETHERNET else b""
            frames = self._found(data, at, vlan, macs, seconds, micros)
        except DecodeError as error:
            frames = self._nothing(error.reason, error.offset)
        if frames or self.reason in _OF_STREAMS:
            frames = [*self._late(), *frames]
        if not frames:
            self.undecoded[self.reason] += 1
        return frames

    def _nothing(self, reason: str, offset: int) -> list[Frame]:
        # Hot path: to raise for what is expected costs 1.5 µs more.
        self.reason, self.offset = reason, offset
        return []

    def expire(self, seconds: int) -> list[Frame]:
        """What need not wait for the rest any longer, at *seconds* of the capture's clock."""
        self._fragments.expire(seconds)
        self._streams.expire(seconds)
        self.media.expire(seconds)
        return self._late()

    def finish(self) -> list[Frame]:
        """What is left when nothing more will come."""
        self._fragments.finish()
        self._sctp.finish()
        self._streams.finish()
        self.media.finish()
        return self._late()

    def _found(
        self, data: bytes, at: int, vlan: int | None, macs: bytes, seconds: int, micros: int
    ) -> list[Frame]:
        """Walk from IP at *at* to the innermost transport header, and read what is behind it."""
        packet = self._whole(ip.decode(data, at), seconds)
        depth = 0
        while (inner := tunnel.inner(packet)) is not None:
            linktype, start = inner
            if depth == MAX_TUNNELS:
                raise DecodeError("tunnel_too_deep", start)
            depth += 1
            data, end = packet.data, packet.end
            at, tag = link.ip_at(linktype, data, start)
            if vlan is None:
                vlan = tag
            macs = data[start : start + 12] if linktype == link.ETHERNET else b""
            packet = self._whole(ip.decode(data, at, end), seconds)
        protocol = packet.protocol
        if protocol == ip.UDP:
            frames = self._of_udp(packet, seconds, micros)
        elif protocol == ip.TCP:
            frames = self._of_tcp(packet, seconds, micros)
        elif protocol == ip.SCTP:
            frames = self._of_sctp(packet, seconds, micros)
        else:
            return self._nothing(_UNREAD.get(protocol, "ip_protocol"), packet.start)
        if not frames:
            return frames
        extra = _extra(packet, vlan, macs)
        for frame in frames:
            self._mark(frame, extra)
        return frames

    def _whole(self, packet: IpPacket, seconds: int) -> IpPacket:
        return packet if packet.fragment is None else self._fragments.add(packet, seconds)

    def _of_udp(self, packet: IpPacket, seconds: int, micros: int) -> list[Frame]:
        """source(u16) destination(u16) length(u16) checksum(u16)."""
        data, start, end = packet.data, packet.start, packet.end
        if end < start + 8:
            raise DecodeError("truncated", end)
        src_port, dst_port, length = _udp(data, start)
        # A length that cannot be is not believed; what the IP packet holds is taken.
        stop = start + length if 8 <= length <= end - start else end
        start += 8
        first = data[start] if start < stop else 0
        told = None
        # RTP, RTCP and DNS are most of what comes along, and no SIP begins as they do.
        version_2 = first & 0xC0 == 0x80
        if first in _BEGINNINGS or (version_2 and self._is_asked_for(data, start, stop)):
            datagram = Datagram(
                packet.src, packet.dst, ip.UDP, src_port, dst_port, data[start:stop],
                seconds, micros, packet.cut,
            )  # fmt: skip
            told = self.media.take(datagram) if version_2 else self._told(datagram)
        if told is None:
            return self._nothing(_noise(data[start:stop], src_port, dst_port), start)
        return [told]

    def _of_tcp(self, packet: IpPacket, seconds: int, micros: int) -> list[Frame]:
        """source(u16) destination(u16) sequence(u32) acknowledgement(u32) size(u8) flags(u8)."""
        data, start, end = packet.data, packet.start, packet.end
        if end < start + 20:
            raise DecodeError("truncated", end)
        src_port, dst_port, sequence, size, flags = _tcp(data, start)
        head = start + (size >> 4) * 4
        if not start + 20 <= head <= end:
            raise DecodeError("tcp_header", start + 12)
        if head == end and not flags & _OPENS_OR_ENDS:
            return self._nothing("tcp_no_data", head)
        src, dst = packet.src, packet.dst
        messages = self._streams.feed(
            src, src_port, dst, dst_port, sequence, flags, data[head:end], seconds, micros
        )
        if not messages:
            return self._nothing("tcp_segment" if head < end else "tcp_no_data", head)
        ends = src, dst, ip.TCP, src_port, dst_port
        return self._each([Datagram(*ends, one, seconds, micros) for one in messages])

    def _of_sctp(self, packet: IpPacket, seconds: int, micros: int) -> list[Frame]:
        src_port, dst_port, messages = self._sctp.feed(packet)
        ends = packet.src, packet.dst, ip.SCTP, src_port, dst_port
        frames = []
        for message in messages:
            datagram = Datagram(*ends, message.data, seconds, micros)
            if message.protocol in _SS7:
                frames.append(_bare(datagram, _SS7[message.protocol]))
            else:
                frames += self._each([datagram])
        if not frames:
            raise DecodeError("sctp_payload", packet.start)
        return frames

    def _each(self, datagrams: list[Datagram]) -> list[Frame]:
        """Messages that came together: one that cannot be read takes no other with it."""
        frames = []
        for datagram in datagrams:
            try:
                told = self._told(datagram)
            except DecodeError as error:
                self._notes[error.reason] += 1
                continue
            if told is not None:
                frames.append(told)
        return frames

    def _told(self, datagram: Datagram) -> Frame | None:
        """SIP, HEP, or what is said of media; None for everything else."""
        data = datagram.payload
        first = data[0]
        if looks_like_sip(data):
            frame = _bare(datagram, SIP)
            if datagram.cut:
                frame.warnings = (SNAPPED,)
                self._notes[SNAPPED] += 1
            self.media.learn(frame)
            return frame
        if hep.is_hep3(data) or first in _OLD_HEP or data[:2] == hep.GZIP:
            return self._opened(datagram)
        return None

    def _is_asked_for(self, data: bytes, start: int, stop: int) -> bool:
        """Whether what may be RTP or RTCP is looked at; RTCP always is."""
        if self.media.report_seconds:
            return True
        return stop > start + 1 and rtcp.SR <= data[start + 1] <= rtcp.XR

    def _opened(self, datagram: Datagram) -> Frame | None:
        """HEP as it was captured; without a time of its own it has that of the capture."""
        data = datagram.payload
        try:
            frame = hep.decode(data)
        except DecodeError:
            # One byte is a weak sign: DNS and others may begin as versions 1 and 2 do.
            if data[0] in _OLD_HEP:
                return None
            raise
        if data[0] in _OLD_HEP and not looks_like_sip(frame.payload):
            return None
        if not self.take_hep:
            raise DecodeError("hep")
        if not frame.has_time:
            frame.seconds, frame.micros = datagram.seconds, datagram.micros
        return frame

    def _late(self) -> list[Frame]:
        """Messages that waited for a segment which never came; reports of streams that ended."""
        late = self._streams.take_late()
        told = self.media.take_late()
        if not late and not told:
            return []
        frames = self._each(
            [
                Datagram(
                    one.src, one.dst, ip.TCP, one.src_port, one.dst_port, one.message,
                    one.seconds, one.micros,
                )
                for one in late
            ]
        )  # fmt: skip
        frames += told
        for frame in frames:
            self._mark(frame, {})
        return frames

    def _mark(self, frame: Frame, extra: dict[str, Any]) -> None:
        """Say of a frame without an envelope what one would have told."""
        if frame.version:
            return
        if frame.capture_id is None:
            frame.capture_id = self.capture_id
        if self.node_name is not None:
            extra = {**extra, "node_name": self.node_name}
        frame.extra = {**extra, **frame.extra} if frame.extra else extra or None


def _bare(datagram: Datagram, kind: int) -> Frame:
    """A frame for what came without an envelope."""
    return Frame(
        0,
        IPV4 if len(datagram.src) == 4 else IPV6,
        datagram.protocol,
        datagram.src,
        datagram.dst,
        datagram.src_port,
        datagram.dst_port,
        datagram.seconds,
        datagram.micros,
        kind,
        payload=datagram.payload,
        raw=datagram.payload,
    )


def _extra(packet: IpPacket, vlan: int | None, macs: bytes) -> dict[str, Any]:
    """What the headers below say, by the names of HEP's chunks."""
    extra: dict[str, Any] = {}
    if vlan is not None:
        extra["vlan"] = vlan
    if macs:
        extra["src_mac"] = int.from_bytes(macs[6:12], "big")
        extra["dst_mac"] = int.from_bytes(macs[:6], "big")
    extra["ip_tos"] = packet.tos
    if packet.protocol == ip.TCP:
        extra["tcp_flags"] = packet.data[packet.start + 13]
    return extra


def _noise(data: bytes, src_port: int, dst_port: int) -> str:
    """What a UDP datagram that is nothing for us is by its first bytes."""
    first = data[0] if data else 0
    if first & 0xC0 == 0x80:  # version 2 of RTP and RTCP
        return "media"
    if data[4:8] == _STUN_COOKIE and first & 0xC0 == 0:
        return "stun"
    if _DNS in (src_port, dst_port):
        return "dns"
    return KEEP_ALIVE if data.strip(b"\r\n\0") in _KEEP_ALIVES else "not_hep"
