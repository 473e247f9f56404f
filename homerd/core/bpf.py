"""Filters in the syntax of tcpdump, compiled by libpcap, for the kernel and for files.

    instruction: code(u16) jump if true(u8) jump if false(u8) k(u32); linux/filter.h

libpcap is loaded when the first filter asks for it.  What is wrong with a filter is told in its
words.
"""

from __future__ import annotations

import ctypes
import functools
import socket
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_long, c_ubyte, c_uint, c_ushort
from struct import Struct, pack
from typing import Any

from homerd.errors import ConfigError

SNAPLEN = 262_144
SO_ATTACH_FILTER = 26
_LIBRARY = "libpcap.so.0.8"
_NO_NETMASK = 0xFFFFFFFF
_ERROR_SIZE = 256
_RAW_IP, _RAW_HERE = 101, 12  # in files, and as libpcap numbers it on Linux
_instruction = Struct("=HBBI")

# What the kernel says of a packet beside its bytes: linux/filter.h, SKF_AD_OFF and what follows.
_BESIDE = 0xFFFFF000
_PACKET_TYPE, _INTERFACE = _BESIDE + 4, _BESIDE + 8
_OUTGOING = 4
_LOAD_WORD, _LOAD_BYTE, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x30, 0x15, 0x06

Instruction = tuple[int, int, int, int]
NOTHING: tuple[Instruction, ...] = ((_RETURN, 0, 0, 0),)
EVERYTHING: tuple[Instruction, ...] = ((_RETURN, 0, 0, SNAPLEN),)


class NoLibrary(ConfigError):
    """libpcap is not installed."""


class _Insn(Structure):
    _fields_ = (("code", c_ushort), ("jt", c_ubyte), ("jf", c_ubyte), ("k", c_uint))


class _Program(Structure):
    _fields_ = (("length", c_uint), ("instructions", POINTER(_Insn)))


class _PacketHead(Structure):
    _fields_ = (
        ("seconds", c_long),
        ("micros", c_long),
        ("captured", c_uint),
        ("length", c_uint),
    )


def compiled(text: str, linktype: int, interface: str = "") -> tuple[Instruction, ...]:
    """The instructions of *text* for frames of *linktype*; ConfigError with libpcap's reason.

    interface: where the frames will come from.  The kernel takes VLAN tags off them, and libpcap
    knows to ask for the tags beside the bytes when it has seen the interface; that needs the right
    to capture.
    """
    library = _library()
    handle = _opened(library, linktype, interface)
    try:
        program = _compiled(library, handle, text)
        found = tuple(
            (each.code, each.jt, each.jf, each.k) for each in program.instructions[: program.length]
        )
        library.pcap_freecode(byref(program))
    finally:
        library.pcap_close(handle)
    return found


def without_own_echo(program: tuple[Instruction, ...], loopback: int) -> tuple[Instruction, ...]:
    """*program*, which no longer sees what the interface number *loopback* sends.

    The loopback shows each packet twice: as it goes out, and as it comes back in.
    """
    # Jumps count from the instruction behind them, so that any program can follow.
    first: tuple[Instruction, ...] = (
        (_LOAD_WORD, 0, 0, _INTERFACE),
        (_JUMP_IF_EQUAL, 0, 3, loopback),
        (_LOAD_BYTE, 0, 0, _PACKET_TYPE),
        (_JUMP_IF_EQUAL, 0, 1, _OUTGOING),
        (_RETURN, 0, 0, 0),
    )
    return first + program


def attach(opened: socket.socket, program: tuple[Instruction, ...]) -> None:
    """Have the kernel show *opened* only what *program* lets pass."""
    packed = b"".join(_instruction.pack(*each) for each in program)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    told = pack("HP", len(program), ctypes.addressof(buffer))
    opened.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, told)


class Filter:
    """A filter for captured frames of any link type."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._library = _library()
        self._programs: dict[int, _Program] = {}
        self._of(1)  # a mistake is told before the first frame

    def passes(self, linktype: int, data: bytes) -> bool:
        """Whether the frame is wanted."""
        head = _PacketHead(0, 0, len(data), len(data))
        program = self._of(linktype)
        return bool(self._library.pcap_offline_filter(byref(program), byref(head), data))

    def _of(self, linktype: int) -> _Program:
        program = self._programs.get(linktype)
        if program is None:
            handle = _opened(self._library, linktype, "")
            try:
                program = _compiled(self._library, handle, self.text)
            finally:
                self._library.pcap_close(handle)
            self._programs[linktype] = program
        return program


@functools.cache
def _library() -> Any:  # ctypes knows no types of its functions
    try:
        found = ctypes.CDLL(_LIBRARY)
    except OSError:
        raise NoLibrary(
            f"a filter needs libpcap, and there is no {_LIBRARY}: install the package libpcap0.8"
            " or libpcap, or leave the filter out"
        ) from None
    handle = ctypes.c_void_p
    found.pcap_open_dead.restype = handle
    found.pcap_open_dead.argtypes = [c_int, c_int]
    found.pcap_create.restype = handle
    found.pcap_create.argtypes = [c_char_p, c_char_p]
    found.pcap_activate.argtypes = [handle]
    found.pcap_set_snaplen.argtypes = [handle, c_int]
    found.pcap_set_buffer_size.argtypes = [handle, c_int]
    found.pcap_compile.argtypes = [handle, POINTER(_Program), c_char_p, c_int, c_uint]
    found.pcap_geterr.restype = c_char_p
    found.pcap_geterr.argtypes = [handle]
    found.pcap_freecode.argtypes = [POINTER(_Program)]
    found.pcap_freecode.restype = None
    found.pcap_close.argtypes = [handle]
    found.pcap_close.restype = None
    found.pcap_offline_filter.argtypes = [POINTER(_Program), POINTER(_PacketHead), c_char_p]
    return found


def _opened(library: Any, linktype: int, interface: str) -> Any:
    """A handle of libpcap that has seen *interface*, else one that has seen none."""
    if interface:
        errors = ctypes.create_string_buffer(_ERROR_SIZE)
        handle = library.pcap_create(interface.encode(), errors)
        if handle:
            library.pcap_set_snaplen(handle, SNAPLEN)
            library.pcap_set_buffer_size(handle, 1 << 16)
            if library.pcap_activate(handle) >= 0:
                return handle
            library.pcap_close(handle)
    handle = library.pcap_open_dead(_RAW_HERE if linktype == _RAW_IP else linktype, SNAPLEN)
    if not handle:
        raise ConfigError(f"libpcap has no filters for link type {linktype}")
    return handle


def _compiled(library: Any, handle: Any, text: str) -> _Program:
    program = _Program()
    try:
        given = text.encode("ascii")
    except UnicodeEncodeError:
        raise ConfigError(f'filter "{text}": expected the letters of tcpdump\'s syntax') from None
    if library.pcap_compile(handle, byref(program), given, 1, _NO_NETMASK) != 0:
        reason = library.pcap_geterr(handle).decode("utf-8", "replace")
        raise ConfigError(f'filter "{text}": {reason}')
    return program
