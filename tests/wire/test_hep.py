"""HEP 1 to 3: the byte-level vectors, the framer, and that nothing but DecodeError comes out."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homerd.errors import DecodeError
from homerd.wire import hep
from homerd.wire.hep import Frame

VECTORS = json.loads(Path(__file__).parent.parent.joinpath("data/hep-vectors.json").read_text())
DATAGRAMS = [v for v in VECTORS["vectors"] if v.get("transport") != "tcp"]
STREAMS = [v for v in VECTORS["vectors"] if v.get("transport") == "tcp"]

EXAMPLE = bytes.fromhex(
    "48455033009e 00000001000702 00000002000711 00000003000ac000020a 00000004000ac6336407"
    "00000007000813c4 00000008000813c5 00000009000a6553f100 0000000a000a0001e240 0000000b000701"
    "0000000c000a000007d1 00000011000a63314068 0000000e000b6d79486570 00000013000b6e6f646531"
    "0000000f00214f5054494f4e53207369703a614062205349502f322e300d0a0d0a"
)
CHUNKS = [
    (0, 1, b"\x02"),
    (0, 2, b"\x11"),
    (0, 3, b"\xc0\x00\x02\x0a"),
    (0, 4, b"\xc6\x33\x64\x07"),
    (0, 7, b"\x13\xc4"),
    (0, 8, b"\x13\xc5"),
    (0, 9, b"\x65\x53\xf1\x00"),
    (0, 10, b"\x00\x01\xe2\x40"),
    (0, 11, b"\x01"),
    (0, 12, b"\x00\x00\x07\xd1"),
    (0, 15, b"OPTIONS sip:a@b SIP/2.0\r\n\r\n"),
]


def decoded(data: bytes) -> dict[str, object]:
    try:
        return hep.to_dict(hep.decode(data))
    except DecodeError as error:
        return {"error": error.reason}


def differences(expect: dict[str, object], got: dict[str, object]) -> dict[str, object]:
    if "error" in expect:
        return {} if got == expect else got
    got = {**got, "warnings": sorted(got.get("warnings", []))}
    expect = {**expect, "warnings": sorted(expect["warnings"])}
    return {
        name: (value, got.get(name)) for name, value in expect.items() if value != got.get(name)
    }


@pytest.mark.parametrize("vector", DATAGRAMS, ids=lambda v: v["name"])
def test_a_datagram_of_the_vectors_decodes_as_it_says(vector):
    expect = vector.get("expect") or {"error": vector["error"]}
    assert differences(expect, decoded(bytes.fromhex(vector["hex"]))) == {}


@pytest.mark.parametrize("vector", STREAMS, ids=lambda v: v["name"])
def test_a_stream_of_the_vectors_is_cut_into_its_frames(vector):
    data, at, framer, frames = bytes.fromhex(vector["hex"]), 0, hep.Framer(), []
    for size in vector["splits"] if "splits" in vector else [len(data)]:
        frames += framer.feed(data[at : at + size])
        at += size
    wanted = vector["expect_messages"]
    assert len(frames) == len(wanted)
    for want, frame in zip(wanted, frames, strict=True):
        assert differences(want, decoded(frame)) == {}
    assert (framer.fault.reason if framer.fault else None) == vector.get("error")
    assert framer.pending == vector.get("expect_pending_bytes", 0)


@pytest.mark.parametrize("vector", DATAGRAMS, ids=lambda v: v["name"])
def test_every_beginning_of_a_vector_gives_a_frame_or_a_listed_error(vector):
    data = bytes.fromhex(vector["hex"])
    for cut in range(len(data)):
        assert decoded(data[:cut]).get("error") in {None, *hep.REASONS}


@pytest.mark.parametrize("cut", range(len(EXAMPLE)))
def test_a_truncated_hep3_datagram_is_truncated(cut):
    with pytest.raises(DecodeError) as caught:
        hep.decode(EXAMPLE[:cut])
    assert caught.value.reason == "truncated"


def test_the_specifications_example_reads_as_printed():
    frame = hep.decode(EXAMPLE)
    assert (frame.src_ip, frame.src_port) == ("192.0.2.10", 5060)
    assert (frame.dst_ip, frame.dst_port) == ("198.51.100.7", 5061)
    assert (frame.family, frame.protocol) == (2, 17)
    assert (frame.seconds, frame.micros, frame.has_time) == (1700000000, 123456, True)
    assert (frame.payload_type, frame.capture_id) == (1, 2001)
    assert (frame.auth_key, frame.correlation_id) == ("myHep", "c1@h")
    assert frame.extra == {"node_name": "node1"}
    assert frame.payload == b"OPTIONS sip:a@b SIP/2.0\r\n\r\n"
    assert frame.raw == EXAMPLE
    assert list(frame.warnings) == []


@given(st.permutations(CHUNKS))
def test_the_order_of_chunks_does_not_matter(chunks):
    assert decoded(hep.assemble(chunks)) == decoded(hep.assemble(CHUNKS))


ADDRESSES_LAST = [CHUNKS[i] for i in (0, 1, 4, 5, 6, 7, 8, 9, 2, 3, 10)]
IPV6 = [(0, 1, b"\x0a"), CHUNKS[1], (0, 5, bytes(15) + b"\x01"), (0, 6, bytes(15) + b"\x02")]


@pytest.mark.parametrize(
    ("chunks", "src", "dst"),
    [
        (CHUNKS, "192.0.2.10", "198.51.100.7"),
        (ADDRESSES_LAST, "192.0.2.10", "198.51.100.7"),
        ([*IPV6, *CHUNKS[4:]], "::1", "::2"),
        ([*IPV6[:2], *CHUNKS[4:10], *IPV6[2:], CHUNKS[10]], "::1", "::2"),
    ],
    ids=["as numbered", "addresses last", "as numbered, IPv6", "addresses last, IPv6"],
)
def test_the_layouts_agents_use_are_read_like_any_other(chunks, src, dst):
    usual, other = hep.decode(hep.assemble(chunks)), hep.decode(hep.assemble(chunks[::-1]))
    assert hep.to_dict(usual) == hep.to_dict(other)
    assert (usual.src_ip, usual.dst_ip) == (src, dst)


def test_a_usual_layout_that_goes_beyond_the_total_length_is_no_frame():
    data = hep.assemble(CHUNKS)
    short = data[:4] + (63).to_bytes(2, "big") + data[6:]
    assert decoded(short)["error"] == "chunk_overrun"


def test_a_chunk_that_comes_again_behind_a_usual_layout_counts():
    assert hep.decode(hep.assemble([*CHUNKS, (0, 12, b"\x00\x00\x00\x05")])).capture_id == 5


@pytest.mark.parametrize(
    ("chunks", "family", "src", "told"),
    [
        ([(0, 1, b"\x1c"), *IPV6[2:]], 10, "::1", 28),
        ([(0, 1, b"\x02"), *IPV6[2:]], 10, "::1", 2),
        ([(0, 1, b"\x07"), *CHUNKS[2:4]], 2, "192.0.2.10", 7),
        ([(0, 1, b"\x0a"), *CHUNKS[2:4], *IPV6[2:]], 10, "::1", 10),
        (IPV6[2:], 10, "::1", 10),
    ],
    ids=["FreeBSD", "wrong family", "unknown family", "both pairs", "no family"],
)
def test_the_address_pair_that_is_there_decides_when_the_family_cannot(chunks, family, src, told):
    frame = hep.decode(hep.assemble(chunks))
    assert (frame.family, frame.src_ip, hep.to_dict(frame)["ip_family"]) == (family, src, told)


def test_a_chunk_is_given_as_the_script_sees_it():
    frame = hep.decode(EXAMPLE)
    asked = (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 17, 19, 0x65)
    assert {kind: hep.chunk(frame, kind) for kind in asked} == {
        1: 2,
        2: 17,
        3: "192.0.2.10",
        4: "198.51.100.7",
        5: None,
        6: None,
        7: 5060,
        9: 1700000000,
        10: 123456,
        11: 1,
        12: 2001,
        13: None,
        14: "myHep",
        15: "OPTIONS sip:a@b SIP/2.0\r\n\r\n",
        17: "c1@h",
        19: "node1",
        0x65: None,
    }


def test_a_chunk_that_says_0_differs_from_one_that_is_absent():
    told, untold = hep.assemble([(0, 7, b"\x00\x00")]), hep.assemble([])
    assert hep.chunk(hep.decode(told), 7) == 0
    assert hep.chunk(hep.decode(untold), 7) is None
    assert hep.chunk(hep.decode(gzip.compress(told)), 7) == 0


def test_text_that_is_no_utf8_is_read_as_latin_1_and_ends_before_its_nuls():
    frame = hep.decode(hep.assemble([(0, 17, b"caf\xe9\x00\x00"), (0, 19, "é".encode())]))
    assert (frame.correlation_id, frame.extra) == ("café", {"node_name": "é"})


def test_a_gzip_envelope_keeps_the_datagram_as_it_came():
    packed = gzip.compress(EXAMPLE)
    frame = hep.decode(packed)
    assert (frame.correlation_id, list(frame.warnings)) == ("c1@h", ["gzip_envelope"])
    assert frame.raw == packed


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (gzip.compress(gzip.compress(EXAMPLE)), "not_hep"),
        (gzip.compress(EXAMPLE)[:-1], "decompress_failed"),
        (gzip.compress(bytes(2 << 20)), "decompress_too_large"),
        (hep.assemble([(0, 16, b"")]), "decompress_failed"),
        (hep.assemble([(0, 16, zlib.compress(b"OPTIONS")[:-1])]), "decompress_failed"),
        (b"", "truncated"),
        (b"HE", "truncated"),
        (b"\x02", "truncated"),
        (b"\x03", "not_hep"),
        (b"HEPX", "not_hep"),
    ],
)
def test_what_is_no_frame_says_why(data, reason):
    assert decoded(data) == {"error": reason}


@pytest.mark.parametrize("window", [31, 15, -15], ids=["gzip", "zlib", "deflate"])
@pytest.mark.parametrize("envelope", [False, True])
def test_a_payload_that_unpacks_to_60_megabytes_costs_no_more_than_the_limit(window, envelope):
    packer = zlib.compressobj(9, wbits=window)
    data = hep.assemble([(0, 16, packer.compress(bytes(60 << 20)) + packer.flush())])
    if envelope:
        data = gzip.compress(data)
    tracemalloc.start()
    try:
        assert decoded(data) == {"error": "decompress_too_large"}
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * hep.INFLATE_LIMIT


def test_a_payload_as_large_as_the_limit_is_unpacked():
    body = bytes(hep.INFLATE_LIMIT)
    assert hep.decode(hep.assemble([(0, 16, zlib.compress(body))])).payload == body


def test_of_many_compressed_payloads_only_the_last_is_unpacked():
    broken, whole = (0, 16, b"no stream"), (0, 16, zlib.compress(b"packed"))
    assert hep.decode(hep.assemble([broken] * 50 + [whole])).payload == b"packed"


def test_what_follows_a_complete_compressed_stream_is_ignored():
    frame = hep.decode(hep.assemble([(0, 16, zlib.compress(b"OPTIONS") + b"more")]))
    assert (frame.payload, frame.compressed) == (b"OPTIONS", "zlib")


def test_of_a_plain_and_a_compressed_payload_the_last_one_counts():
    plain, packed = (0, 15, b"plain"), (0, 16, zlib.compress(b"packed"))
    assert hep.decode(hep.assemble([plain, packed])).payload == b"packed"
    assert hep.decode(hep.assemble([packed, plain])).payload == b"plain"


def test_one_frame_after_another_is_cut_wherever_the_reads_fall():
    stream = EXAMPLE + b"\r\n\r\n" + hep.assemble(CHUNKS) + b"\n" + EXAMPLE
    whole = [EXAMPLE, hep.assemble(CHUNKS), EXAMPLE]
    for size in (1, 2, 5, 7, 157, 158, 159, len(stream)):
        framer = hep.Framer()
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert [frame for piece in pieces for frame in framer.feed(piece)] == whole
        assert (framer.pending, framer.fault) == (0, None)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"G", "bad_magic"), (b"HEQ", "bad_magic"), (b"HEP3\x00\x05", "bad_total_length")],
)
def test_a_stream_that_cannot_be_followed_is_left_after_what_came_before(data, reason):
    framer = hep.Framer()
    assert framer.feed(EXAMPLE + data) == [EXAMPLE]
    assert framer.fault.reason == reason
    assert framer.feed(EXAMPLE) == []


TEXTS = st.none() | st.text().map(lambda text: text.rstrip("\0"))
EXTRAS = st.fixed_dictionaries(
    {},
    optional={
        "vlan": st.integers(0, 0xFFFF),
        "mos": st.integers(0, 0xFFFF),
        "src_mac": st.integers(0, 2**64 - 1),
        "node_name": st.text().map(lambda text: text.rstrip("\0")),
        "vendor_chunks": st.lists(
            st.tuples(st.integers(1, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=20)),
            min_size=1,
        ),
    },
)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    width = draw(st.sampled_from([4, 16]))
    return Frame(
        3,
        2 if width == 4 else 10,
        draw(st.integers(0, 255)),
        draw(st.binary(min_size=width, max_size=width)),
        draw(st.binary(min_size=width, max_size=width)),
        draw(st.integers(0, 0xFFFF)),
        draw(st.integers(0, 0xFFFF)),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.none() | st.integers(0, 255)),
        draw(st.none() | st.integers(0, 2**32 - 1)),
        draw(TEXTS),
        draw(TEXTS),
        draw(st.binary(max_size=2000)),
        extra=draw(EXTRAS) or None,
    )


def fields(frame: Frame) -> dict[str, object]:
    skipped = {"raw", "warnings"}
    return {name: getattr(frame, name) for name in Frame.__slots__ if name not in skipped}


@given(frames())
def test_what_is_encoded_decodes_to_the_same(frame):
    assert fields(hep.decode(hep.encode(frame))) == fields(frame)


@given(frames(), st.sampled_from([1, 2]))
def test_the_old_versions_keep_what_they_can_carry(frame, version):
    frame.payload = b"INVITE sip:a@b SIP/2.0\r\n\r\n"
    frame.seconds, frame.micros = 1_700_000_000, 999_999
    got = hep.decode(hep.encode(frame, version))
    kept = ["family", "protocol", "src", "dst", "src_port", "dst_port", "payload"]
    assert [getattr(got, name) for name in kept] == [getattr(frame, name) for name in kept]
    if version == 2:
        assert (got.seconds, got.micros) == (1_700_000_000, 999_999)
        assert got.capture_id == (frame.capture_id or 0) & 0xFFFF


STARTS = st.sampled_from([b"", b"\x01", b"\x02\x10\x02", b"HEP3", b"HEP3\x00\x40", b"\x1f\x8b"])


@given(STARTS, st.binary(max_size=200))
def test_any_bytes_give_a_frame_or_a_decode_error(start, data):
    told = decoded(start + data)
    assert told.get("error") in {None, *hep.REASONS}
    assert json.loads(json.dumps(told)) == told
    if "error" not in told:
        frame = hep.decode(start + data)
        assert [hep.chunk(frame, kind) for kind in (9, 10, 12)] == [
            told["ts_sec"],
            told["ts_usec"],
            told["capture_id"],
        ]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 0x30), st.binary(max_size=20))))
def test_any_chunks_give_a_frame_or_a_decode_error(chunks):
    error = decoded(hep.assemble(chunks)).get("error")
    assert error in {None, "bad_chunk_size", "decompress_failed"}


@given(st.lists(st.binary(max_size=30)))
def test_any_stream_is_cut_or_left(pieces):
    framer = hep.Framer()
    for piece in pieces:
        framer.feed(piece)
        assert framer.fault is None or framer.fault.reason in {"bad_magic", "bad_total_length"}
