"""RTP headers, and loss and jitter of a stream."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homerd.errors import DecodeError
from homerd.wire import rtp
from homerd.wire.rtp import Reception
from homerd.wire.sdp import Codec

PCMU = Codec("PCMU", 8000)
EVENT = Codec("telephone-event", 8000)
CN = Codec("CN", 8000)


def packet(
    sequence: int, timestamp: int, kind: int = 0, *, marker: bool = False, payload: bytes = b"x" * 8
) -> bytes:
    return pack(">BBHII", 0x80, kind | marker << 7, sequence, timestamp, 7) + payload


def receive(*arrivals: tuple[int, int], codec: Codec | None = PCMU) -> Reception:
    """Packets of 20 ms, told as (sequence, arrival in ms)."""
    reception = Reception()
    for sequence, arrival in arrivals:
        header = rtp.decode(packet(sequence & 0xFFFF, sequence * 160 & 0xFFFFFFFF))
        reception.add(header, 1_000_000 + arrival * 1000, codec)
    return reception


def test_the_header_is_read_with_csrc_extension_and_padding():
    data = (
        pack(">BBHII", 0x80 | 0x20 | 0x10 | 2, 0x80 | 96, 65535, 5, 7)
        + pack(">II", 8, 9)
        + pack(">HHI", 0xBEDE, 1, 0)
        + b"payload\0\2"
    )
    assert rtp.decode(data) == rtp.Header(96, True, 65535, 5, 7, (8, 9), 28, len(data) - 2)
    assert data[28 : len(data) - 2] == b"payload"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (packet(1, 1)[:11], "rtp_truncated"),
        (b"\x40" + packet(1, 1)[1:], "rtp_version"),
        (b"\x8f" + packet(1, 1)[1:], "rtp_truncated"),
        (b"\x90" + packet(1, 1, payload=b"\0\0\0")[1:], "rtp_truncated"),
        (b"\x90" + packet(1, 1, payload=b"\0\0\0\1")[1:], "rtp_truncated"),
        (b"\xa0" + packet(1, 1, payload=b"\x02")[1:], "rtp_padding"),
        (b"\xa0" + packet(1, 1, payload=b"\x00")[1:], "rtp_padding"),
    ],
)
def test_what_is_no_rtp_has_a_reason(data, reason):
    with pytest.raises(DecodeError) as told:
        rtp.decode(data)
    assert told.value.reason == reason


@given(st.binary(max_size=120))
def test_any_bytes_give_a_header_or_a_reason(data):
    for each in (data, b"\xbf" + data):
        header, reason = None, ""
        try:
            header = rtp.decode(each)
        except DecodeError as error:
            reason = error.reason
        if header is None:
            assert reason in rtp.REASONS
        else:
            assert 12 <= header.start <= header.end <= len(each)


def test_an_even_stream_has_no_jitter_and_no_loss():
    told = receive((1, 0), (2, 20), (3, 40))
    assert (told.packets, told.expected, told.lost, told.octets) == (3, 3, 0, 24)
    assert (told.jitter, told.delta, told.skew) == (0.0, 20.0, 0.0)


def test_jitter_is_that_of_the_rfc():
    # D: 16 then -16 ms.  J = 0 + 16/16 = 1, then 1 + (16 - 1)/16
    told = receive((1, 0), (2, 36), (3, 40))
    assert told.jitter == 1.9375
    assert told.max_jitter == 1.9375
    assert told.mean_jitter == (1 + 1.9375) / 2
    assert (told.max_delta, told.max_skew) == (36.0, -16.0)


def test_lost_packets_are_the_numbers_that_did_not_come():
    told = receive((1, 0), (5, 80), (6, 100))
    assert (told.packets, told.expected, told.lost) == (3, 6, 3)
    assert told.jitter == 0.0


def test_numbers_wrap():
    told = receive((65534, 0), (65535, 20), (65536, 40), (65537, 60))
    assert (told.expected, told.lost, told.highest, told.jitter) == (4, 0, 65537, 0.0)


def test_a_late_packet_is_out_of_order_and_not_lost():
    told = receive((1, 0), (3, 40), (2, 45))
    assert (told.expected, told.lost, told.out_of_order) == (3, 0, 1)


def test_a_packet_that_comes_twice_makes_loss_less():
    told = receive((1, 0), (2, 20), (2, 21))
    assert (told.lost, told.out_of_order) == (-1, 0)


def test_a_sender_that_begins_anew_has_lost_nothing():
    told = receive((1, 0), (2, 20), (30000, 40), (30001, 60))
    assert (told.packets, told.expected, told.lost) == (4, 4, 0)


def test_silence_before_a_talkspurt_is_no_delay():
    told = Reception()
    told.add(rtp.decode(packet(1, 0)), 1_000_000, PCMU)
    told.add(rtp.decode(packet(2, 160, 13)), 1_020_000, CN)
    told.add(rtp.decode(packet(3, 8160, marker=True)), 2_020_000, PCMU)
    told.add(rtp.decode(packet(4, 8320)), 2_041_000, PCMU)
    assert (told.max_delta, told.jitter) == (21.0, 0.0625)


def test_packets_of_one_tone_have_one_time_stamp_which_is_no_jitter():
    told = Reception()
    for number, (stamp, codec) in enumerate([(0, PCMU), (160, EVENT), (160, EVENT), (480, PCMU)]):
        told.add(rtp.decode(packet(number, stamp)), 1_000_000 + number * 20_000, codec)
    assert told.jitter == 0.0 or told.jitter is None


def test_a_codec_whose_clock_is_not_known_has_no_jitter():
    assert receive((1, 0), (2, 36), codec=None).jitter is None
    assert receive((1, 0), (2, 36), codec=None).delta == 36.0
