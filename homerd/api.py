"""Everything a plugin may import; re-exports only."""

from homerd.core import calls
from homerd.core.archive import Archive, ArchiveColumn, ArchiveEntry, ArchiveError, ArchiveHead
from homerd.core.archive import found as archived_files
from homerd.core.archive import reading as reading_archive
from homerd.core.archive import verify as verify_archive
from homerd.core.sink import BatchSink
from homerd.core.table import Table
from homerd.errors import ConfigError, DecodeError, Place, PluginError, Rejected, RetryLater
from homerd.lang.posix import PosixPattern, Substitution, compile_posix
from homerd.lang.text import Text
from homerd.lang.vocabulary import (
    Const,
    ConstantText,
    Format,
    Kind,
    Parameter,
    ParameterKind,
    Plain,
    PseudoVariable,
    Readable,
    RouteName,
    ScriptFunction,
    TextOrPv,
    Transformation,
    Writable,
)
from homerd.packet import Packet, RunState, Statistics, Value
from homerd.plugin.declare import (
    ModParam,
    Plugin,
    pseudo_variable,
    script_function,
    transformation,
)
from homerd.plugin.exposition import CONTENT_TYPE as METRICS_CONTENT_TYPE
from homerd.plugin.exposition import render as render_metrics
from homerd.plugin.hookspecs import (
    ANY,
    IPIP,
    RAW,
    Capture,
    HttpAnswer,
    HttpRequest,
    Outline,
    PacketPolicy,
    Problem,
    Sample,
    Worker,
    hookimpl,
)
from homerd.wire import (
    hep_batch,
    qos,
    roundtrip,
    rtcp,
    rtcpjson,
    sdp,
    vqrtcpxr,
    vqrtcpxr_text,
)
from homerd.wire.hep import Frame
from homerd.wire.hep import Framer as HepFramer
from homerd.wire.hep import chunk as hep_chunk
from homerd.wire.hep import encode as hep_encode
from homerd.wire.sip import SipMessage
from homerd.wire.sipstream import SipFramer
from homerd.wire.uri import NameAddr, Uri, parse_name_addr, parse_uri

__all__ = [
    "ANY",
    "IPIP",
    "METRICS_CONTENT_TYPE",
    "RAW",
    "Archive",
    "ArchiveColumn",
    "ArchiveEntry",
    "ArchiveError",
    "ArchiveHead",
    "BatchSink",
    "Capture",
    "ConfigError",
    "Const",
    "ConstantText",
    "DecodeError",
    "Format",
    "Frame",
    "HepFramer",
    "HttpAnswer",
    "HttpRequest",
    "Kind",
    "ModParam",
    "NameAddr",
    "Outline",
    "Packet",
    "PacketPolicy",
    "Parameter",
    "ParameterKind",
    "Place",
    "Plain",
    "Plugin",
    "PluginError",
    "PosixPattern",
    "Problem",
    "PseudoVariable",
    "Readable",
    "Rejected",
    "RetryLater",
    "RouteName",
    "RunState",
    "Sample",
    "ScriptFunction",
    "SipFramer",
    "SipMessage",
    "Statistics",
    "Substitution",
    "Table",
    "Text",
    "TextOrPv",
    "Transformation",
    "Uri",
    "Value",
    "Worker",
    "Writable",
    "archived_files",
    "calls",
    "compile_posix",
    "hep_batch",
    "hep_chunk",
    "hep_encode",
    "hookimpl",
    "parse_name_addr",
    "parse_uri",
    "pseudo_variable",
    "qos",
    "reading_archive",
    "render_metrics",
    "roundtrip",
    "rtcp",
    "rtcpjson",
    "script_function",
    "sdp",
    "transformation",
    "verify_archive",
    "vqrtcpxr",
    "vqrtcpxr_text",
]
