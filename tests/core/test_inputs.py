"""INPUT in all its forms, told by content."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from pathlib import Path
from struct import pack

import pytest
from frames import ethernet, ipv4, tcp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homerd.core.dissect import Dissector
from homerd.core.inputs import Undecoded, Wait, input_size, read_input
from homerd.errors import ConfigError
from homerd.wire import hep
from homerd.wire.hep import Frame

SIP = b"OPTIONS sip:a@b SIP/2.0\r\nCall-ID: 7\r\n\r\n"
HEP = hep.assemble([(0, 1, b"\x02"), (0, 11, b"\x01"), (0, 12, bytes(4)), (0, 15, SIP)])
SRC, DST = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])


def udp(payload: bytes, protocol: int = 17) -> bytes:
    """*payload* from 192.0.2.1:5060 to 192.0.2.2:5062, as Ethernet carries it."""
    datagram = pack(">HHHH", 5060, 5062, 8 + len(payload), 0) + payload
    head = pack(">BBHHHBBH", 0x45, 0, 20 + len(datagram), 1, 0, 64, protocol, 0)
    return bytes(12) + b"\x08\x00" + head + SRC + DST + datagram


def pcap(*frames: bytes, order: str = "<", magic: int = 0xA1B2C3D4, linktype: int = 1) -> bytes:
    """A capture file; frame n was captured at second 1700000000 + n, fraction 123456."""
    records = b"".join(
        pack(order + "IIII", 1_700_000_000 + at, 123_456, len(frame), len(frame)) + frame
        for at, frame in enumerate(frames)
    )
    return pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, linktype) + records


def modified_pcap(frame: bytes, order: str) -> bytes:
    """The same as a patched libpcap wrote it: each record tells interface, protocol and type."""
    record = pack(order + "IIIIIHBx", 1_700_000_000, 123_456, len(frame), len(frame), 2, 8, 0)
    return pack(order + "IHHiIII", 0xA1B2CD34, 2, 4, 0, 0, 65535, 1) + record + frame


def block(kind: int, body: bytes, order: str) -> bytes:
    length = 12 + len(body)
    return pack(order + "II", kind, length) + body + pack(order + "I", length)


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(linktype: int, order: str = "<", options: bytes = b"") -> bytes:
    return block(1, pack(order + "HHI", linktype, 0, 65535) + options, order)


def captured(number: int, ticks: int, frame: bytes, order: str = "<") -> bytes:
    head = pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(6, head + frame + bytes(-len(frame) % 4), order)


@pytest.fixture
def read(tmp_path: Path):
    def read_bytes(data: bytes) -> list[Frame | Wait | Undecoded]:
        path = tmp_path / "input"
        path.write_bytes(data)
        return list(read_input(str(path)))

    return read_bytes


def lines(*told: object) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in told).encode()


def test_nothing_is_no_packet(read):
    assert read(b"") == read(b"\n \n") == []


@pytest.mark.parametrize(
    ("data", "micros"),
    [
        (pcap(udp(SIP)), 123_456),
        (pcap(udp(SIP), order=">"), 123_456),
        (pcap(udp(SIP), magic=0xA1B23C4D), 123),
        (pcap(udp(SIP), order=">", magic=0xA1B23C4D), 123),
        (pcap(udp(SIP), linktype=0xF4000001), 123_456),
        (gzip.compress(pcap(udp(SIP)), mtime=0), 123_456),
        (bz2.compress(pcap(udp(SIP))), 123_456),
        (lzma.compress(pcap(udp(SIP))), 123_456),
        (modified_pcap(udp(SIP), "<"), 123_456),
        (modified_pcap(udp(SIP), ">"), 123_456),
        (section() + interface(1) + captured(0, 1_700_000_000_123_456, udp(SIP)), 123_456),
        (
            section(">") + interface(1, ">") + captured(0, 1_700_000_000_123_456, udp(SIP), ">"),
            123_456,
        ),
        (
            section()
            + interface(1, options=pack("<HHBxxx", 9, 1, 9) + bytes(4))
            + captured(0, 1_700_000_000_123_456_999, udp(SIP)),
            123_456,
        ),
        (
            section() + interface(101) + interface(1, options=pack("<HHq", 14, 8, 1000) + bytes(4))
            + captured(1, 1_699_999_000_123_456, udp(SIP)),
            123_456,
        ),
        (
            section(">") + interface(101, ">") + section() + interface(1)
            + captured(0, 1_700_000_000_123_456, udp(SIP)),
            123_456,
        ),
    ],
    ids=[
        "pcap",
        "pcap, big endian",
        "pcap, nanoseconds",
        "pcap, big endian nanoseconds",
        "pcap with frame check sequence",
        "pcap in gzip",
        "pcap in bzip2",
        "pcap in xz",
        "pcap, modified",
        "pcap, modified, big endian",
        "pcapng",
        "pcapng, big endian",
        "pcapng, nanoseconds",
        "pcapng, second interface and an offset",
        "pcapng, second section in another byte order",
    ],
)  # fmt: skip
def test_a_bare_message_in_a_capture_file(read, data, micros):
    (frame,) = read(data)
    assert (frame.version, frame.payload_type, frame.family, frame.protocol) == (0, 1, 2, 17)
    assert (frame.src_ip, frame.src_port) == ("192.0.2.1", 5060)
    assert (frame.dst_ip, frame.dst_port) == ("192.0.2.2", 5062)
    assert (frame.seconds, frame.micros) == (1_700_000_000, micros)
    assert (frame.payload, frame.raw) == (SIP, SIP)


HEP1 = hep.encode(Frame(1, 2, 17, SRC, DST, 1, 2, payload=SIP), 1)
HEP2 = hep.encode(Frame(2, 2, 17, SRC, DST, 1, 2, 1_600_000_000, 5, payload=SIP), 2)
HEP_WITH_TIME = hep.assemble([(0, 9, pack(">I", 7)), (0, 15, SIP)])


@pytest.mark.parametrize(
    ("datagram", "version", "seconds"),
    [
        (HEP, 3, 1_700_000_000),
        (HEP_WITH_TIME, 3, 7),
        (HEP1, 1, 1_700_000_000),
        (HEP2, 2, 1_600_000_000),
        (gzip.compress(HEP, mtime=0), 3, 1_700_000_000),
    ],
)
def test_hep_in_a_capture_file_has_its_own_time_or_that_of_the_capture(
    read, datagram, version, seconds
):
    (frame,) = read(pcap(udp(datagram)))
    assert (frame.version, frame.seconds, frame.payload) == (version, seconds, SIP)
    assert frame.raw == datagram


def test_what_is_no_message_in_a_capture_is_told_by_its_reason(read):
    frames = [
        udp(b"\r\n\r\n"),
        udp(b"\0\0\0\0"),
        udp(b"\x80\x00 some RTP"),
        udp(b"\x01\x00 some DNS, which is no HEP of version 1"),
        udp(HEP1.replace(b"SIP/2.0", b"nothing")),
        udp(b"HEP3\x00\x07\x00"),
        udp(b"", protocol=88),
        bytes(12) + b"\x08\x06" + bytes(28),
        b"",
    ]
    assert [item.reason for item in read(pcap(*frames))] == [
        "keep_alive",
        "keep_alive",
        "media",
        "not_hep",
        "not_hep",
        "truncated_chunk_header",
        "ip_protocol",
        "not_ip",
        "truncated",
    ]


def test_an_unknown_link_type_is_told_for_each_frame(read):
    items = read(pcap(b"x", b"y", linktype=147))
    assert [item.reason for item in items] == ["link_type", "link_type"]


@pytest.mark.parametrize("cut", [1, len(udp(SIP)), len(udp(SIP)) + 1, len(udp(SIP)) + 15])
def test_a_capture_that_is_cut_off_keeps_what_came_before(read, cut):
    first, last = read(pcap(udp(SIP), udp(SIP))[:-cut])
    assert (first.payload, last.reason) == (SIP, "truncated_file")


def test_a_capture_with_an_impossible_length_names_the_record(read, tmp_path):
    data = pcap(udp(SIP)) + pack("<IIII", 1, 2, 1 << 31, 1 << 31) + SIP
    with pytest.raises(ConfigError, match=r"input: record 2: a length of 2147483648 bytes"):
        read(data)


def test_the_longest_record_a_file_announces_is_read(read):
    long = udp(SIP) + bytes(300_000)
    head = pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 400_000, 1)
    record = pack("<IIII", 1, 2, len(long), len(long)) + long
    (frame,) = read(head + record)
    assert frame.payload == SIP
    with pytest.raises(ConfigError, match="record 1: a length of 300081"):
        read(pcap() + record)


def test_the_rarer_blocks_of_pcapng(read):
    frame = udp(SIP)
    old = pack("<HHIIII", 0, 7, 0, 5_000_000, len(frame), len(frame)) + frame
    simple = pack("<I", len(frame)) + frame
    padding = bytes(-len(frame) % 4)
    blocks = [block(kind, body + padding, "<") for kind, body in ((2, old), (3, simple))]
    skipped = [block(kind, b"12345678", "<") for kind in (4, 5, 10, 0x0BAD, 0x40000BAD, 99)]
    first, second = read(b"".join([section(), interface(1), *skipped, *blocks]))
    assert (first.payload, first.seconds) == (SIP, 5)
    assert (second.payload, second.seconds) == (SIP, 5)


@pytest.mark.parametrize(
    ("resolution", "ticks"), [(0, 1_700_000_000), (3, 1_700_000_000_000), (0x80 | 10, 1_700_000_000 << 10)]
)  # fmt: skip
def test_the_resolution_of_time_in_pcapng(read, resolution, ticks):
    options = pack("<HHBxxx", 9, 1, resolution) + bytes(4)
    (frame,) = read(section() + interface(1, options=options) + captured(0, ticks, udp(SIP)))
    assert (frame.seconds, frame.micros) == (1_700_000_000, 0)


@pytest.mark.parametrize("offset", [-2_000_000_000, 1 << 62])
def test_a_time_that_no_envelope_can_tell_is_none(read, offset):
    options = pack("<HHq", 14, 8, offset) + bytes(4)
    (frame,) = read(section() + interface(1, options=options) + captured(0, 5, udp(SIP)))
    assert (frame.has_time, frame.micros) == (False, 0)


def test_a_pcapng_block_that_tells_two_lengths_is_refused(read):
    bad = captured(0, 0, udp(SIP))[:-4] + pack("<I", 12)
    with pytest.raises(ConfigError, match="input: after block 2: two block lengths that differ"):
        read(section() + interface(1) + bad)


@pytest.mark.parametrize("cut", [1, 4, 30])
def test_a_pcapng_file_that_is_cut_off_keeps_what_came_before(read, cut):
    packet = captured(0, 0, udp(SIP))
    first, last = read((section() + interface(1) + packet * 2)[:-cut])
    assert (first.payload, last.reason) == (SIP, "truncated_file")


@pytest.mark.parametrize("length", [0, 8, 13, 0xFFFFFFF0])
def test_a_pcapng_block_with_an_impossible_length_is_refused(read, length):
    with pytest.raises(ConfigError, match=r"input: after block 1: a (block )?length of"):
        read(section() + pack("<II", 6, length) + bytes(40))


def test_a_pcapng_packet_of_an_unknown_interface_is_passed_over(read):
    good = captured(0, 0, udp(SIP))
    (frame,) = read(section() + interface(1) + captured(5, 0, udp(SIP)) + good)
    assert frame.payload == SIP


def test_hep_frames_one_after_another(read):
    items = read(HEP + b"\r\n" + hep.assemble([(0, 1, b"\x02\x02")]) + HEP + b"HEP3\x00")
    assert [getattr(item, "reason", "frame") for item in items] == [
        "frame",
        "bad_chunk_size",
        "frame",
        "truncated",
    ]


def test_a_hep_stream_ends_where_it_cannot_be_followed(read):
    frame, fault = read(HEP + b"GET / HTTP/1.1")
    assert (frame.payload, fault.reason) == (SIP, "bad_magic")


def test_the_old_versions_fill_a_file_with_one_datagram(read):
    assert [frame.version for frame in read(HEP1) + read(HEP2)] == [1, 2]


@pytest.mark.parametrize("start", [b"", b"\r\n", b"\n\n"])
def test_one_message_as_text(read, start):
    (frame,) = read(start + SIP + b"body\n")
    assert (frame.version, frame.payload) == (0, start + SIP + b"body\n")
    assert (frame.src_ip, frame.src_port, frame.has_time) == ("127.0.0.1", 5060, False)


def test_a_message_told_as_json(read):
    told = {"sip": SIP.decode(), "src_ip": "2001:db8::1", "src_port": 1, "dst_ip": "2001:db8::2"}
    (frame,) = read(lines(told))
    assert (frame.version, frame.family, frame.protocol, frame.payload_type) == (0, 10, 17, 1)
    assert (frame.src_ip, frame.src_port) == ("2001:db8::1", 1)
    assert (frame.dst_ip, frame.dst_port) == ("2001:db8::2", 5060)
    assert (frame.payload, frame.raw, frame.seconds) == (SIP, SIP, 0)


def test_a_hep_packet_told_as_json(read):
    told = {
        "family": 2,
        "proto": 17,
        "src_ip": "192.0.2.1",
        "src_port": 5060,
        "dst_ip": "192.0.2.2",
        "dst_port": 5062,
        "time_sec": 1_500_000_000,
        "time_usec": 42,
        "proto_type": 5,
        "capture_id": 2001,
        "correlation_id": "c1",
        "auth_key": "k",
        "node_name": "n",
        "payload": '{"type":200}',
    }
    (frame,) = read(lines({"hep": told}))
    assert (frame.src_ip, frame.dst_ip, frame.dst_port) == ("192.0.2.1", "192.0.2.2", 5062)
    assert (frame.seconds, frame.micros, frame.payload_type) == (1_500_000_000, 42, 5)
    assert (frame.capture_id, frame.correlation_id, frame.auth_key) == (2001, "c1", "k")
    assert (frame.payload, frame.extra) == (b'{"type":200}', {"node_name": "n"})
    assert hep.to_dict(hep.decode(frame.raw)) == hep.to_dict(frame)


def test_what_json_does_not_tell_of_a_hep_packet_stays_absent(read):
    (frame,) = read(lines({"hep": {"proto_type": 1, "capture_id": None, "payload": "x"}}))
    assert (frame.capture_id, frame.correlation_id, frame.auth_key) == (None, None, None)
    assert [hep.chunk(frame, kind) for kind in (1, 2, 7, 9, 11)] == [None, None, None, None, 1]


def test_datagrams_in_hex_are_told_by_their_first_bytes(read):
    told = [{"hex": data.hex()} for data in (HEP, SIP, b"what")]
    first, second, third = read(b"\n" + lines(*told, {"wait": 2.5})[:-14])
    assert (first.version, first.raw) == (3, HEP)
    assert (second.version, second.payload) == (0, SIP)
    assert third.reason == "not_hep"


def test_a_wait_passes_time(read):
    assert read(lines({"wait": 2.5}, {"wait": 1})) == [Wait(2.5), Wait(1.0)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "input:2: not JSON"),
        ("[1]", "input:2: expected an object"),
        ('{"a": 1}', "input:2: expected one of the keys"),
        ('{"sip": 5}', "input:2: expected text, got 5"),
        ('{"sip": "x", "src_ip": "y"}', "input:2: 'y' does not appear to be"),
        ('{"sip": "x", "src_port": 65536}', "input:2: no port: 65536"),
        ('{"hep": []}', "input:2: "),
        ('{"hep": {"x": 1}}', 'input:2: unknown key "x" in "hep"'),
        ('{"hep": {"family": 256}}', "input:2: int too big"),
        ('{"hep": {"family": "x"}}', "input:2: invalid literal"),
        ('{"hex": "4x"}', "input:2: non-hexadecimal"),
        ('{"hex": 4}', "input:2: "),
        ('{"wait": "soon"}', "input:2: could not convert"),
    ],
)
def test_a_bad_line_is_named(read, line, message):
    with pytest.raises(ConfigError, match=message):
        read(lines({"wait": 1}) + line.encode())


def test_a_payload_too_long_for_hep_is_refused(read):
    with pytest.raises(ConfigError, match="input:1: "):
        read(lines({"hep": {"payload": "x" * 66_000}}))


@pytest.mark.parametrize("data", [b"some text\n", b"\n\nGET / HTTP/1.1\r\n\r\n", bytes(100)])
def test_a_file_of_another_kind_is_refused(read, data):
    with pytest.raises(ConfigError, match=r"input: neither pcap, pcapng, HEP frames, a SIP"):
        read(data)


@pytest.mark.parametrize(
    "data", [gzip.compress(SIP, mtime=0)[:-9], b"\x1f\x8b\x08\x00 not gzip at all"]
)
def test_a_damaged_gzip_file_is_refused(read, data):
    with pytest.raises(ConfigError, match=r"cannot read .*input"):
        read(data)


@pytest.mark.parametrize(("magic", "packer"), [("28b52ffd", "zstd"), ("04224d18", "lz4")])
def test_a_file_only_others_unpack_is_told_how(read, magic, packer):
    with pytest.raises(ConfigError, match=f"input is packed: unpack it first, as {packer} -dc"):
        read(bytes.fromhex(magic) + bytes(20))


def test_a_file_packed_again_and_again_is_refused(read):
    data = pcap(udp(SIP))
    for _ in range(4):
        data = gzip.compress(data)
    assert read(data)[0].payload == SIP
    with pytest.raises(ConfigError, match="packed more than 4 times"):
        read(gzip.compress(data))


def test_a_pipe_is_followed_as_it_is_written(monkeypatch):
    reader, writer = os.pipe()
    with os.fdopen(reader) as stream, os.fdopen(writer, "wb", buffering=0) as tcpdump:
        monkeypatch.setattr("sys.stdin", stream)
        data = pcap(udp(SIP), udp(SIP))
        tcpdump.write(data[: 24 + 16 + len(udp(SIP))])
        items = read_input("-")
        assert next(items).payload == SIP
        tcpdump.write(data[24 + 16 + len(udp(SIP)) :])
        assert next(items).payload == SIP
        tcpdump.close()
        assert list(items) == []


def test_a_stream_goes_on_in_the_next_file_of_one_dissector(tmp_path):
    dissector = Dissector()
    half = len(SIP) // 2
    parts = [tcp(SIP[:half], 1), tcp(SIP[half:], 1 + half)]
    for number, part in enumerate(parts):
        (tmp_path / str(number)).write_bytes(pcap(ethernet(ipv4(part, 6))))
    (first,) = read_input(str(tmp_path / "0"), dissector=dissector)
    (second,) = read_input(str(tmp_path / "1"), dissector=dissector)
    assert (first.reason, second.payload) == ("tcp_segment", SIP)


def test_a_file_that_is_not_there_is_named(tmp_path):
    path = str(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"cannot read .*absent: No such file"):
        list(read_input(path))
    assert input_size(path) == 0


def test_progress_tells_every_byte_that_was_read(tmp_path):
    for number, data in enumerate((pcap(udp(SIP)), HEP * 3, SIP, lines({"wait": 1}))):
        path, told = tmp_path / str(number), []
        path.write_bytes(data)
        list(read_input(str(path), told.append))
        assert sum(told) == input_size(str(path)) == len(data)


def test_standard_input_is_read_like_a_file(monkeypatch):
    reader, writer = os.pipe()
    os.write(writer, lines({"wait": 1}))
    os.close(writer)
    with os.fdopen(reader) as stream:
        monkeypatch.setattr("sys.stdin", stream)
        assert list(read_input("-")) == [Wait(1.0)]


PIECES = st.sampled_from(
    [
        *(HEP, SIP, pcap(), pcap(udp(SIP)), pcap()[:4], b"\x1f\x8b\x08", b"\x01"),
        *(section(), interface(1), captured(0, 9, udp(SIP))),
        *(b'{"sip": "x"}\n', b'{"hep": {"family": 2}}\n', b'{"wait"', b"\n"),
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(PIECES | st.binary(max_size=12), max_size=5).map(b"".join))
def test_any_bytes_give_items_or_a_config_error(read, data):
    try:
        items = read(data)
    except ConfigError:
        return
    assert all(isinstance(item, (Frame, Wait, Undecoded)) for item in items)
