"""Calls and where they have their media, as their signalling tells.

A call is there until a minute after BYE or after it was refused or given up, and no longer than
four hours after SDP last told of it.  Two clocks are at work.  What a call is asked for, and what
it is told by, have the time of the packets, so that what comes late or is replayed still fits;
memory is freed by a clock of the keeper's, so that one sender whose clock is wrong ends the calls
of no other.  For who reads one capture both are the same.

At most MAX_ADDRESSES, MAX_SSRCS and MAX_CALLS are remembered, some 33 MB, and 58 with details;
beyond that the calls told longest ago are forgotten, and counted in `counts`, by NOTES.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from homerd.wire import rtp, sdp
from homerd.wire.frame import Frame
from homerd.wire.sdp import Codec, Media
from homerd.wire.sip import SipMessage

NOTES = ("media_no_call_id", "media_forgotten")

MAX_ADDRESSES = 65_536
MAX_SSRCS = 65_536
MAX_CALLS = 65_536
MAX_CALL_ID = 1024  # letters

_LIFETIME = 4 * 3600  # of what SDP told, unless it is told again
_TAIL = 60  # after the end: the last reports are on their way
_MAX_OF_CALL = 64
_MAX_OF_SSRC = 16  # calls; what more of them name is some device's constant
_MAX_SIDES = 8
_MAX_TEXT = 256  # of a user agent or a tag
_REFUSED = (b"3", b"4", b"5", b"6")

_Address = tuple[bytes, int]


class Call:
    """What is known of one call.

    until: second of the packets' clock when it is over.  kept: the same of the keeper's clock.
    ended: whether its end was seen.  sides: None where no details are kept.
    """

    __slots__ = ("answered", "call_id", "ended", "kept", "places", "sides", "until")

    def __init__(self, call_id: str, sides: Sides | None = None) -> None:
        self.call_id = call_id
        self.until = self.kept = 0
        self.answered = self.ended = False
        self.places: list[_Address] = []
        self.sides = sides


class Sides:
    """Who speaks in a call, and what.

    agents: tag of a side -> its user agent.  codecs: by media line.  lines: media line by SSRC.
    """

    __slots__ = ("agents", "codecs", "lines", "ssrcs")

    def __init__(self) -> None:
        self.agents: dict[str, str] = {}
        self.codecs: dict[int, Codec] = {}
        self.lines: dict[int, int] = {}
        self.ssrcs: list[int] = []

    def codec(self, line: int | None, ssrcs: Iterable[int] = ()) -> Codec | None:
        """What media line *line* carries; None for the only one there is.

        Where several lines share an address, the line that SDP says *ssrcs* are of.
        """
        if self.lines:
            line = next((self.lines[ssrc] for ssrc in ssrcs if ssrc in self.lines), line)
        if line is None:
            return next(iter(self.codecs.values())) if len(self.codecs) == 1 else None
        return self.codecs.get(line)

    def agent_beside(self, side: str) -> str | None:
        """The user agent of the other side, the newest where there are several."""
        found = None
        for tag, agent in self.agents.items():
            if tag != side:
                found = agent
        return found

    def add(self, message: SipMessage) -> str:
        """The tag of whose SDP this is; what this side calls itself is kept."""
        tag = message.from_tag if message.status is None else message.to_tag
        side = (tag or "")[:_MAX_TEXT]
        agent = message.user_agent or message.header("Server")
        if agent and (side in self.agents or len(self.agents) < _MAX_SIDES):
            self.agents[side] = agent[:_MAX_TEXT]
        return side

    def carry(self, media: Media, *, agreed: bool) -> None:
        """What an answer puts first is what flows; an offer says what may."""
        if not agreed and media.line in self.codecs:
            return
        for word in media.formats:
            kind = int(word) if word.isdigit() and len(word) < 4 else -1
            codec = media.codecs.get(kind) or rtp.CODECS.get(kind)
            if codec is not None and not rtp.is_beside(codec):
                self.codecs[media.line] = codec
                return


class Place(NamedTuple):
    """An address where a call has media.

    sure: SDP named this very address.  line: the media line.  side: tag of whose SDP it was, ""
    when it is not kept.
    """

    call: Call
    codecs: dict[int, Codec]
    sure: bool
    line: int
    side: str


class Calls:
    """The calls that signalling told of, by address and by SSRC.

    details: whether user agents, SSRCs and what is agreed to be spoken are kept as well.
    counts: by NOTES.
    """

    def __init__(self, *, details: bool = False) -> None:
        self.details = details
        self.counts: Counter[str] = Counter()
        # A dict would look for its first behind all that left.
        self._calls: OrderedDict[str, Call] = OrderedDict()  # the one told longest ago first
        self._ended: OrderedDict[str, Call] = OrderedDict()  # the one that ended first
        self._places: dict[_Address, Place] = {}
        self._ssrcs: dict[int, dict[Call, None]] = {}
        self._named = 0  # pairs of SSRC and call

    def __len__(self) -> int:
        return len(self._calls)

    def learn(
        self, frame: Frame, seconds: int, now: int, message: SipMessage | None = None
    ) -> Call | None:
        """A SIP message: with SDP it tells where media will flow, else whether a call ends.

        Gives the call it told something of; its `ended` says what.  message: the payload, where it
        was read already.
        """
        payload = frame.payload
        at = sdp.find(payload)
        if at >= 0:
            return self._learn(frame, message or SipMessage(payload), at, seconds, now)
        first = payload[:4]
        if first == b"SIP/":
            kind = payload[8:9]
            if b"INVITE" not in payload or (kind not in _REFUSED and kind != b"2"):
                return None
            if kind == b"2":
                # SDP came before it, in a reliable 183.
                return self._answer(message or SipMessage(payload))
            by = "INVITE"
        elif first == b"BYE ":
            by = "BYE"
        elif first == b"CANC":
            by = "CANCEL"
        else:
            return None
        return self._end(message or SipMessage(payload), by, seconds, now)

    def place(self, address: bytes, port: int, seconds: int) -> Place | None:
        """What call has media there."""
        place = self._places.get((address, port))
        return place if place is not None and place.call.until > seconds else None

    def by_id(self, call_id: str, seconds: int) -> Call | None:
        """The call of that Call-ID."""
        call = self._calls.get(call_id)
        return call if call is not None and call.until > seconds else None

    def of_ssrc(self, ssrc: int, seconds: int) -> Call | None:
        """The call in which *ssrc* sends; none when two of them say so at once."""
        calls = self._ssrcs.get(ssrc)
        if calls is None or len(calls) > _MAX_OF_SSRC:
            return None
        found = None
        for call in calls:
            if call.until > seconds:
                if found is not None:
                    return None
                found = call
        return found

    def hear(self, call_id: str, ssrcs: Iterable[int], seconds: int, now: int) -> None:
        """*ssrcs* were told of as the call's, of which nothing else need be known."""
        call = self._calls.get(call_id)
        if call is None:
            if len(call_id) > MAX_CALL_ID:
                self.counts["media_no_call_id"] += 1
                return
            call = self._calls[call_id] = self._new(call_id)
            call.until, call.kept = seconds + _LIFETIME, now + _LIFETIME
        if call.sides is None:
            return
        for ssrc in ssrcs:
            calls = self._ssrcs.get(ssrc)
            if calls is None or call not in calls:
                self._name(call, call.sides, ssrc)
        self._shrink()

    def expire(self, now: int) -> None:
        """Forget what is over at *now* by the keeper's clock."""
        for calls in (self._ended, self._calls):
            while calls:
                call = next(iter(calls.values()))
                if call.kept > now:
                    break
                self._forget(call)

    def _learn(
        self, frame: Frame, message: SipMessage, at: int, seconds: int, now: int
    ) -> Call | None:
        call_id = message.call_id
        if not call_id or len(call_id) > MAX_CALL_ID:
            self.counts["media_no_call_id"] += 1
            return None
        self._ended.pop(call_id, None)
        call = self._calls.pop(call_id, None) or self._new(call_id)
        self._calls[call_id] = call
        call.until, call.kept = seconds + _LIFETIME, now + _LIFETIME
        call.ended = False
        status = message.status
        if status is not None and 200 <= status < 300:
            call.answered = True
        body, sides, side, agreed = frame.payload[at:], call.sides, "", False
        if sides is not None:
            side = sides.add(message)
            agreed = status is not None or message.method in ("ACK", "PRACK")
            for ssrc, line in sdp.ssrcs(body).items():
                self._name(call, sides, ssrc)
                if ssrc in sides.lines or len(sides.lines) < _MAX_OF_CALL:
                    sides.lines[ssrc] = line
        src = frame.src
        shared: dict[_Address, dict[int, Codec]] = {}
        for media in sdp.media(body):
            if sides is not None:
                sides.carry(media, agreed=agreed)
            address, port, rtcp_port = media.address, media.port, media.rtcp_port
            # RFC 8843: payload types of lines in a bundle mean the same in all of them.
            media.codecs.update(shared.get((address, port), {}))
            shared[address, port] = media.codecs
            place = Place(call, media.codecs, True, media.line, side)
            self._put((address, port), place)
            self._put((media.rtcp_address, rtcp_port), place)
            if address != src and _is_private(address):
                # Behind NAT, media come from where the message came from, as far as anybody knows.
                guess = place._replace(sure=False)
                self._put((src, port), guess)
                self._put((src, rtcp_port), guess)
        self._shrink()
        return call

    def _new(self, call_id: str) -> Call:
        return Call(call_id, Sides() if self.details else None)

    def _put(self, where: _Address, place: Place) -> None:
        """The newest wins, but no guess over what SDP said."""
        known = self._places.get(where)
        if known is not None and known.sure and not place.sure:
            return
        call = place.call
        if known is None or known.call is not call:
            if len(call.places) >= _MAX_OF_CALL:
                self.counts["media_forgotten"] += 1
                return
            call.places.append(where)
        self._places[where] = place

    def _name(self, call: Call, sides: Sides, ssrc: int) -> None:
        calls = self._ssrcs.get(ssrc)
        if calls is not None and call in calls:
            return
        if len(sides.ssrcs) >= _MAX_OF_CALL:
            self.counts["media_forgotten"] += 1
            return
        sides.ssrcs.append(ssrc)
        self._named += 1
        self._ssrcs.setdefault(ssrc, {})[call] = None

    def _end(self, message: SipMessage, by: str, seconds: int, now: int) -> Call | None:
        """The call is over; refusal and CANCEL say so only of one that nobody has answered."""
        call = self._calls.get(message.call_id or "")
        if call is None or call.ended or message.method != by:
            return None
        if call.answered and by != "BYE":
            return None
        call.until, call.kept = seconds + _TAIL, now + _TAIL
        call.ended = True
        self._ended[call.call_id] = call
        return call

    def _answer(self, message: SipMessage) -> Call | None:
        """The call is answered, so that nothing but BYE ends it."""
        call = self._calls.get(message.call_id or "") if message.method == "INVITE" else None
        if call is None or call.answered:
            return None
        call.answered = True
        return call

    def _shrink(self) -> None:
        places, calls = self._places, self._calls
        while len(places) > MAX_ADDRESSES or len(calls) > MAX_CALLS or self._named > MAX_SSRCS:
            self.counts["media_forgotten"] += 1
            self._forget(next(iter(calls.values())))

    def _forget(self, call: Call) -> None:
        self._calls.pop(call.call_id, None)
        self._ended.pop(call.call_id, None)
        for where in call.places:
            place = self._places.get(where)
            if place is not None and place.call is call:
                del self._places[where]
        if call.sides is None:
            return
        self._named -= len(call.sides.ssrcs)
        for ssrc in call.sides.ssrcs:
            calls = self._ssrcs[ssrc]
            del calls[call]
            if not calls:
                del self._ssrcs[ssrc]


def _is_private(address: bytes) -> bool:
    """RFC 1918, 6598 and 4193: what means nothing outside its own network."""
    first = address[0]
    if len(address) == 16:
        return first & 0xFE == 0xFC
    second = address[1]
    return (
        first == 10
        or (first == 172 and 16 <= second < 32)
        or (first == 192 and second == 168)
        or (first == 100 and 64 <= second < 128)
    )
