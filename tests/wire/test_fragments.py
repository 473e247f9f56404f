"""Fragments of IP datagrams put together again."""

from __future__ import annotations

import pytest
from frames import DST4, DST6, SRC4, SRC6, ipv4, ipv6, piece4, piece6, udp
from hypothesis import given
from hypothesis import strategies as st

from homerd.errors import DecodeError
from homerd.wire import fragments, ip
from homerd.wire.fragments import Fragments
from homerd.wire.ip import IpPacket

DATAGRAM = udp(bytes(range(256)) * 10)
OTHER = udp(bytes(2000))


def add(table: Fragments, data: bytes, seconds: int = 1000) -> IpPacket | str:
    """The whole packet, or the reason why there is none."""
    try:
        return table.add(ip.decode(data), seconds)
    except DecodeError as error:
        return error.reason


@pytest.mark.parametrize(
    ("piece", "ends"), [(piece4, (SRC4, DST4)), (piece6, (SRC6, DST6))], ids=["IPv4", "IPv6"]
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_pieces_in_any_order_make_the_datagram(piece, ends, order):
    table = Fragments()
    cuts = [(0, 800), (800, 1600), (1600, len(DATAGRAM))]
    first, second, third = (add(table, piece(DATAGRAM, *cuts[at])) for at in order)
    assert (first, second) == ("fragment", "fragment")
    assert (third.src, third.dst, third.protocol) == (*ends, 17)
    assert (third.payload, third.fragment) == (DATAGRAM, None)
    assert (len(table), table.held, table.counts) == (0, 0, {})


def test_datagrams_that_come_mixed_are_kept_apart():
    table = Fragments()
    add(table, piece4(DATAGRAM, 0, 800, 1))
    add(table, piece4(OTHER, 0, 800, 2))
    assert add(table, piece4(OTHER, 800, len(OTHER), 2)).payload == OTHER
    assert add(table, piece4(DATAGRAM, 800, len(DATAGRAM), 1)).payload == DATAGRAM


def test_the_protocol_of_ipv6_is_that_of_the_first_piece():
    table = Fragments()
    add(table, piece6(DATAGRAM, 800, len(DATAGRAM), kind=99))
    assert add(table, piece6(DATAGRAM, 0, 800, kind=17)).protocol == 17


def test_extension_headers_of_ipv6_inside_of_the_pieces_are_walked_over():
    table = Fragments()
    body = b"\x11\x00" + bytes(6) + DATAGRAM
    add(table, piece6(body, 0, 800, kind=60))
    whole = add(table, piece6(body, 800, len(body), kind=60))
    assert (whole.protocol, whole.payload) == (17, DATAGRAM)


def test_a_piece_that_came_twice_is_told_and_harms_nothing():
    for piece in (piece4, piece6):
        table = Fragments()
        add(table, piece(DATAGRAM, 0, 800))
        assert add(table, piece(DATAGRAM, 0, 800)) == "fragment_duplicate"
        assert add(table, piece(DATAGRAM, 800, len(DATAGRAM))).payload == DATAGRAM


def test_where_pieces_of_ipv4_overlap_what_came_first_stays():
    table = Fragments()
    add(table, piece4(DATAGRAM, 800, 1600))
    add(table, piece4(b"\xff" * len(DATAGRAM), 0, 1200, more=True))
    whole = add(table, piece4(DATAGRAM, 1600, len(DATAGRAM)))
    assert whole.payload == b"\xff" * 800 + DATAGRAM[800:]
    assert table.counts == {"fragments_overlapping": 1}


def test_a_datagram_of_ipv6_with_an_overlap_is_dropped_with_all_its_pieces():
    table = Fragments()
    add(table, piece6(DATAGRAM, 0, 800))
    assert add(table, piece6(DATAGRAM, 792, 1600)) == "fragment_overlap"
    assert add(table, piece6(DATAGRAM, 800, 1600)) == "fragment_overlap"
    assert add(table, piece6(DATAGRAM, 1600, len(DATAGRAM))) == "fragment_overlap"


def test_a_piece_cut_by_the_capture_is_of_no_use():
    assert add(Fragments(), piece4(DATAGRAM, 0, 800)[:-1]) == "fragment_cut"


@pytest.mark.parametrize(
    "pieces",
    [
        [ipv4(bytes(7), fragment=0x2000)],
        [ipv4(b"", fragment=0x0003)],
        [ipv4(bytes(100), fragment=0x1FFF)],
        [piece4(DATAGRAM, 1600, len(DATAGRAM)), piece4(DATAGRAM + bytes(800), 2000, 3200, more=True)],
        [piece4(DATAGRAM, 800, 1600), ipv4(bytes(8), fragment=50)],
        [piece4(DATAGRAM, 1600, len(DATAGRAM)), ipv4(bytes(8), fragment=50)],
    ],
    ids=[
        "no multiple of eight", "empty", "beyond 64 KiB", "behind the last one",
        "a last one before others", "two last ones",
    ],
)  # fmt: skip
def test_lengths_that_cannot_be_are_refused(pieces):
    table = Fragments()
    assert [add(table, piece) for piece in pieces][-1] == "fragment_length"


def test_what_does_not_become_whole_is_forgotten_and_counted():
    table = Fragments()
    add(table, piece4(DATAGRAM, 0, 800), 1000)
    add(table, piece4(OTHER, 0, 800, 8), 1030)
    assert (len(table), table.counts) == (2, {})
    add(table, piece4(OTHER, 0, 800, 9), 1031)
    assert (len(table), table.counts) == (2, {"fragments_expired": 1})
    assert add(table, piece4(DATAGRAM, 800, len(DATAGRAM)), 1031) == "fragment"


def test_pieces_of_ipv6_are_waited_for_a_minute():
    table = Fragments()
    add(table, piece6(DATAGRAM, 0, 800), 1000)
    assert add(table, piece6(DATAGRAM, 800, len(DATAGRAM)), 1060).payload == DATAGRAM


def test_a_clock_that_is_set_back_forgets_what_is_held():
    table = Fragments()
    add(table, piece4(DATAGRAM, 0, 800), 100_000)
    add(table, piece4(OTHER, 0, 800, 8), 1000)
    assert (len(table), table.counts) == (1, {"fragments_expired": 1})


def test_the_end_of_a_capture_counts_what_is_left():
    table = Fragments()
    add(table, piece4(DATAGRAM, 0, 800))
    table.finish()
    assert (len(table), table.held, table.counts) == (0, 0, {"fragments_expired": 1})


def test_a_flood_of_first_pieces_keeps_to_its_bounds():
    table = Fragments()
    big = bytes(1480)
    for number in range(20_000):
        add(table, ipv4(big, fragment=0x2000, identification=number))
        assert table.held <= fragments.MAX_BYTES
    assert len(table) <= fragments.MAX_DATAGRAMS
    assert table.counts == {"fragments_evicted": 20_000 - len(table)}


def test_a_flood_of_second_pieces_keeps_to_its_bounds():
    table = Fragments()
    for number in range(fragments.MAX_DATAGRAMS):
        add(table, ipv4(bytes(8), fragment=0x2000, identification=number))
    for number in range(fragments.MAX_DATAGRAMS):
        add(table, ipv4(bytes(8000), fragment=0x2001, identification=number))
        assert table.held <= fragments.MAX_BYTES
    assert table.counts["fragments_evicted"] > 0


def test_a_datagram_in_too_many_pieces_is_dropped():
    table = Fragments()
    for at in range(fragments.MAX_PIECES):
        assert add(table, piece4(bytes(65_000), at * 16, at * 16 + 8)) == "fragment"
    assert add(table, piece4(bytes(65_000), 8000, 8008)) == "fragment_pieces"
    assert table.held == fragments.PIECE_COST


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 10), st.booleans(), st.integers(0, 2)),
        max_size=30,
    )
)  # fmt: skip
def test_any_pieces_give_a_datagram_or_a_listed_reason(pieces):
    table = Fragments()
    for number, (six, offset, eighths, more, identification) in enumerate(pieces):
        body = bytes([number]) * (eighths * 8)
        if six:
            head = (
                b"\x11\x00"
                + (offset * 8 | more).to_bytes(2, "big")
                + bytes([0, 0, 0, identification])
            )
            told = add(table, ipv6(head + body, 44))
        else:
            told = add(
                table, ipv4(body, fragment=more << 13 | offset, identification=identification)
            )
        assert isinstance(told, IpPacket) or told in fragments.REASONS
        assert table.held == sum(each.held for each in table._datagrams.values())


@given(st.permutations(range(8)), st.sampled_from([piece4, piece6]))
def test_any_order_of_pieces_gives_the_same_datagram(order, piece):
    table = Fragments()
    told = [
        add(table, piece(DATAGRAM, at * 328, min(at * 328 + 328, len(DATAGRAM)))) for at in order
    ]
    assert told[:-1] == ["fragment"] * 7
    assert told[-1].payload == DATAGRAM
