"""Captured frames, from a file or an interface, to the packets a script sees.

A frame that gives none is counted with its reason: fed = gave packets + undecoded.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from homerd.errors import DecodeError
from homerd.wire import hep, ip
from homerd.wire.frame import IPV4, IPV6, SIP, Frame
from homerd.wire.sip import looks_like_sip

KEEP_ALIVE = "keep_alive"


class Media(Protocol):
    """Who knows of the streams that calls set up."""

    def learn(self, frame: Frame) -> None:
        """A SIP message, which may tell where media will flow."""

    def take(self, packet: ip.IpPacket) -> Frame | None:
        """What is to be said of a UDP datagram that is no SIP; None when nothing is."""


class Dissector:
    """What captured frames hold.

    take_hep: whether HEP that was captured is opened; off where it may be what we send ourselves.
    capture_id, node_name: what frames say they were captured by, for bare messages.
    undecoded: by reason, frames that gave nothing.  reason, offset: why the last one gave nothing.
    """

    def __init__(
        self,
        *,
        take_hep: bool = True,
        capture_id: int | None = None,
        node_name: str | None = None,
        media: Media | None = None,
    ) -> None:
        self.take_hep = take_hep
        self.capture_id = capture_id
        self.node_name = node_name
        self.media = media
        self.undecoded: Counter[str] = Counter()
        self.reason = ""
        self.offset = 0

    def feed(self, linktype: int, seconds: int, micros: int, data: bytes) -> list[Frame]:
        """The packets that are whole with this frame, most often one or none.  Never raises."""
        try:
            packet = ip.decode_linktype(linktype, data)
            frame = self._of_udp(packet)
        except DecodeError as error:
            self.reason, self.offset = error.reason, error.offset
            self.undecoded[error.reason] += 1
            return []
        if not frame.has_time:
            frame.seconds, frame.micros = seconds, micros
        return [frame]

    def _of_udp(self, packet: ip.IpPacket) -> Frame:
        data = packet.payload
        if looks_like_sip(data):
            frame = self._bare(packet)
            if self.media is not None:
                self.media.learn(frame)
            return frame
        if hep.is_hep3(data) or data[:2] == hep.GZIP:
            self._opened()
            return hep.decode(data)
        if data[:1] in (b"\x01", b"\x02"):
            # One byte is a weak sign: RTP, DNS and others may begin so.  1 and 2 carry SIP.
            try:
                frame = hep.decode(data)
            except DecodeError:
                raise DecodeError("not_hep") from None
            if not looks_like_sip(frame.payload):
                raise DecodeError("not_hep")
            self._opened()
            return frame
        if self.media is not None and (told := self.media.take(packet)) is not None:
            return told
        raise DecodeError("not_hep" if data.strip(b"\r\n\0") else KEEP_ALIVE)

    def _opened(self) -> None:
        if not self.take_hep:
            raise DecodeError("hep")

    def _bare(self, packet: ip.IpPacket) -> Frame:
        frame = Frame(
            0,
            IPV4 if len(packet.src) == 4 else IPV6,
            packet.protocol,
            packet.src,
            packet.dst,
            packet.src_port,
            packet.dst_port,
            payload_type=SIP,
            capture_id=self.capture_id,
            payload=packet.payload,
            raw=packet.payload,
        )
        if packet.vlan is not None:
            frame.extra = {"vlan": packet.vlan}
        if self.node_name is not None:
            frame.extra = {**(frame.extra or {}), "node_name": self.node_name}
        return frame
