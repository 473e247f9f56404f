"""The Dissector and the readers of captures: every frame gives packets or one counted reason.

Run: python tests/fuzz/fuzz_dissect.py [-max_total_time=600] [FOLDER of inputs]; needs atheris.
A folder with captures makes a good start.
"""

from __future__ import annotations

import io
import sys

import atheris

with atheris.instrument_imports():
    from homerd.core import dissect, inputs, pcap
    from homerd.core.dissect import Dissector
    from homerd.core.media import MediaTable
    from homerd.errors import ConfigError
    from homerd.wire import hep


def one_input(data: bytes) -> None:
    """A capture file, or frames of a link type(u8) each behind size(u8) and seconds(u8)."""
    dissector = Dissector(node_name="n", media=MediaTable(report_seconds=2))
    if data[:4] in pcap.PCAP_MAGICS or data[:4] == pcap.PCAPNG_MAGIC:
        stream = inputs._Stream(io.BufferedReader(io.BytesIO(data)), None)
        read = pcap.read_pcapng if data[:4] == pcap.PCAPNG_MAGIC else pcap.read_pcap
        try:
            for record in read(stream, "file"):
                one_frame(dissector, *record)
        except (pcap.CutOff, ConfigError):
            pass
    else:
        linktype, data, now = data[0] if data else 0, data[1:], 1000
        while len(data) > 2:
            size, now = data[0] + 1, now + data[1] % 16
            one_frame(dissector, linktype, now, 0, data[2 : 2 + size])
            data = data[2 + size :]
    shown(dissector.finish())
    assert {*dissector.undecoded} <= {*dissect.REASONS}, dissector.undecoded
    assert {*dissector.notes} <= {*dissect.NOTES}, dissector.notes


def one_frame(dissector: Dissector, linktype: int, seconds: int, micros: int, data: bytes) -> None:
    """fed = gave packets + undecoded."""
    before = dissector.undecoded.total()
    frames = dissector.feed(linktype, seconds, micros, data)
    assert dissector.undecoded.total() == before + (not frames)
    shown(frames)


def shown(frames: list[hep.Frame]) -> None:
    """Whatever is found can be told, and sent on."""
    for frame in frames:
        hep.to_dict(frame)
        if len(frame.payload) < 60_000:
            hep.encode(frame)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
