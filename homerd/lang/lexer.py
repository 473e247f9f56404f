"""Characters to tokens: patterns, reserved words, strings.  Source: Kamailio 5.6, core/cfg.lex.

What a token means next to others, and everything that begins with `#!`, is preprocess.py's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from homerd.lang.dialect import Dialect

BLANK = re.compile(r"(?:[ \t\r\b\f\n]+|\\\r?\n)+")
LINE_COMMENT = re.compile(r"(?:#|//)[^\n]*")
COMMENT_EDGE = re.compile(r"/\*|\*/")
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
EVENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*(?::[A-Za-z0-9][A-Za-z0-9_.-]*)+")
NUMBER = re.compile(r"0x[0-9a-fA-F]+|[01]+b|[0-9]+")
DIGIT_WORD = re.compile(r"[0-9][A-Za-z0-9_]*")
IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9.])")
IPV6 = re.compile(
    r"\[[0-9a-fA-F]*:[0-9a-fA-F:.]*\]"
    r"|(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}"
    r"|(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4})*)?::(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4})*)?"
)
DOUBLE_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
SINGLE_QUOTED = re.compile(r"'([^']*)'")
SELECT = re.compile(r"@[A-Za-z_][A-Za-z0-9_]*(?:\[[^\]\n]*\]|\.[A-Za-z_][A-Za-z0-9_]*)*")
CAST = re.compile(r"\([ \t]*(int|str)[ \t]*\)")

SYMBOLS = {
    "==": "EQUAL", "!=": "UNEQUAL", "=~": "MATCH", ">=": "GREATER_EQUAL", "<=": "LESS_EQUAL",
    "&&": "AND", "||": "OR", "<<": "SHIFT_LEFT", ">>": "SHIFT_RIGHT",
    "=": "ASSIGN", "<": "LESS", ">": "GREATER", "!": "NOT", "~": "TILDE", "&": "BIT_AND",
    "|": "BIT_OR", "^": "BIT_XOR", "+": "PLUS", "-": "MINUS", "*": "STAR", "/": "SLASH",
    "(": "LPAR", ")": "RPAR", "{": "LBRACE", "}": "RBRACE", "[": "LSQB", "]": "RSQB",
    ",": "COMMA", ";": "SEMICOLON", ":": "COLON", ".": "DOT",
}  # fmt: skip
_OPENSIPS_SYMBOLS = {
    **SYMBOLS, "%": "MOD", "!~": "NOT_MATCH", ".": "CONCAT",
    **dict.fromkeys((":=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^="), "ASSIGN_WITH"),
}  # fmt: skip

KEYWORDS = {
    "if": "IF", "else": "ELSE", "while": "WHILE", "switch": "SWITCH", "case": "CASE",
    "default": "DEFAULT", "break": "BREAK", "return": "RETURN", "exit": "EXIT", "drop": "DROP",
    "route": "ROUTE", "request_route": "REQUEST_ROUTE", "onreply_route": "REPLY_ROUTE",
    "reply_route": "REPLY_ROUTE", "failure_route": "OTHER_ROUTE", "branch_route": "OTHER_ROUTE",
    "onsend_route": "OTHER_ROUTE", "event_route": "EVENT_ROUTE",
    "loadmodule": "LOADMODULE", "loadmodulex": "LOADMODULE", "modparam": "MODPARAM",
    "modparamx": "MODPARAM", "mpath": "MPATH", "loadpath": "MPATH", "cfgengine": "CFGENGINE",
    "flags": "FLAGS", "bool": "FLAGS", "avpflags": "FLAGS",
    "or": "OR", "and": "AND", "not": "NOT", "mod": "MOD", "eq": "STR_EQUAL", "ne": "STR_UNEQUAL",
    "ieq": "INT_EQUAL", "ine": "INT_UNEQUAL", "defined": "DEFINED", "strlen": "STRLEN",
    "strempty": "STREMPTY", "selval": "SELVAL", "desc": "DESC", "descr": "DESC",
    "description": "DESC",
    "method": "KEYWORD", "uri": "KEYWORD", "status": "KEYWORD", "from_uri": "KEYWORD",
    "to_uri": "KEYWORD", "src_ip": "KEYWORD", "dst_ip": "KEYWORD", "src_port": "KEYWORD",
    "dst_port": "KEYWORD", "proto": "KEYWORD", "af": "KEYWORD", "snd_ip": "KEYWORD",
    "snd_port": "KEYWORD", "to_ip": "KEYWORD", "to_port": "KEYWORD", "max_len": "KEYWORD",
    "myself": "MYSELF",
}  # fmt: skip
_OPENSIPS_KEYWORDS = {
    **KEYWORDS, "timer_route": "TIMER_ROUTE", "startup_route": "STARTUP_ROUTE",
    "error_route": "OTHER_ROUTE", "local_route": "OTHER_ROUTE",
}  # fmt: skip
_PLAN_SYMBOLS = {**SYMBOLS, "&": "AND", "|": "OR"}
_PLAN_KEYWORDS = {
    "capture": "CAPTURE", "method": "KEYWORD",
    **{word: KEYWORDS[word] for word in (
        "if", "else", "while", "drop", "break", "or", "and", "not",
        "loadmodule", "modparam", "mpath", "loadpath",
    )},
}  # fmt: skip
MESSAGE_LENGTH = re.compile(r"msg:len\b")

SWITCH_WORDS = {
    **dict.fromkeys(("yes", "true", "on", "enable"), 1),
    **dict.fromkeys(("no", "false", "off", "disable"), 0),
}

# Words of the original lexer that cannot be the field of a custom global or a #!define.
_CORE_WORDS = """
    name advertise alias children debug fork listen port udp tcp tls sctp ws wss inet inet6 ipv4
    ipv6 forward forward_tcp setflag resetflag isflagset log error exec prefix strip strip_tail
    rewritehost rewriteuser rewriteport rewriteuri sethost setuser setport seturi userphone
    revert_uri avpflag strict rport add_rport force_rport user group mhomed tos workdir null
    virtual any proxy cleanup verbose import_file include_file
"""
RESERVED = frozenset(KEYWORDS) | frozenset(SWITCH_WORDS) | frozenset(_CORE_WORDS.split())


@dataclass(frozen=True, slots=True)
class Words:
    """What a dialect's lexer knows: symbols by text, the pattern of them all, keywords."""

    symbols: Mapping[str, str]
    symbol: re.Pattern[str]
    keywords: Mapping[str, str]


def _words(symbols: Mapping[str, str], keywords: Mapping[str, str]) -> Words:
    longest_first = sorted(symbols, key=len, reverse=True)
    return Words(symbols, re.compile("|".join(map(re.escape, longest_first))), keywords)


WORDS = {
    Dialect.KAMAILIO: _words(SYMBOLS, KEYWORDS),
    Dialect.OPENSIPS: _words(_OPENSIPS_SYMBOLS, _OPENSIPS_KEYWORDS),
    Dialect.PLAN: _words(_PLAN_SYMBOLS, _PLAN_KEYWORDS),
}
NULL_WORDS = ("NULL", "null")  # of OpenSIPS; Kamailio has $null

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", '"': '"', "\\": "\\"}
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{1,2}|[0-7]{2,3}|\r?\n|.)", re.DOTALL)


def unescape(raw: str) -> str:
    """The value of what stands between double quotes; an unknown escape keeps its backslash."""
    if "\\" not in raw:
        return raw
    value = _ESCAPE.sub(_unescaped, raw)
    if value.isascii():
        return value
    # Escaped bytes above 0x7f are bytes; those that make UTF-8 together are its characters.
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def unescape_offsets(raw: str) -> list[int]:
    """For each character of `unescape(raw)`, and the end, its offset in *raw*."""
    offsets: list[int] = []
    position = 0
    for found in _ESCAPE.finditer(raw):
        offsets.extend(range(position, found.start()))
        offsets.extend([found.start()] * len(_unescaped(found)))
        position = found.end()
    offsets.extend(range(position, len(raw) + 1))
    return offsets


def _unescaped(found: re.Match[str]) -> str:
    escape = found.group()[1:]
    if escape in _ESCAPES:
        return _ESCAPES[escape]
    if escape[0] == "x" and len(escape) > 1:
        return _byte(int(escape[1:], 16))
    if escape[0] in "01234567" and len(escape) > 1:
        return _byte(int(escape, 8) & 0xFF)
    if escape in ("\n", "\r\n"):
        return ""
    return "\\" + escape


def _byte(number: int) -> str:
    return chr(number) if number < 0x80 else chr(0xDC00 + number)


def number(text: str) -> int:
    """The value of a NUMBER: decimal, 0x hexadecimal, 0 octal, …b binary."""
    if text.startswith("0x"):
        return int(text, 16)
    if text.endswith("b"):
        return int(text[:-1], 2)
    if len(text) > 1 and text[0] == "0" and text.isdigit() and not set("89") & set(text):
        return int(text, 8)
    return int(text)


def matching(text: str, start: int, stop: int | None = None) -> int:
    """Offset of the bracket that closes the one at *start*; -1 when none does.

    Only brackets of that kind count; quotes and backslashes mean nothing.
    """
    opening = text[start]
    closing = {"(": ")", "[": "]", "{": "}"}[opening]
    depth = 0
    for offset in range(start, len(text) if stop is None else stop):
        if text[offset] == opening:
            depth += 1
        elif text[offset] == closing:
            depth -= 1
            if not depth:
                return offset
    return -1
