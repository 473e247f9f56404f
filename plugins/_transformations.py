"""Transformations of the classes s, param, uri, nameaddr, tobody, line and val.

Lengths and offsets count bytes, as in Kamailio.  What cannot be read gives null.
"""

from __future__ import annotations

import binascii
import functools
import hashlib
import json
import re
import time
import urllib.parse
from collections.abc import Callable

from homerd.api import Uri, Value, parse_name_addr, parse_uri, transformation

_BLANKS = " \t\r\n"
_INTEGER = re.compile(r"[+-]?[0-9]+")
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_HEXADECIMAL = re.compile(rb"(?:[0-9A-Fa-f]{2})*")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

# RFC 3261 25.1: user = 1*( unreserved / escaped / user-unreserved ), and the same for paramchar.
_UNRESERVED = "-_.!~*'()"
_IN_USER = _UNRESERVED + "&=+$,;?/"
_IN_PARAM = _UNRESERVED + "[]/:&+$"

_ESCAPED = str.maketrans({"'": "\\'", '"': '\\"', "\\": "\\\\", "\0": "\\0"})
_UNESCAPED = re.compile(r"""\\(['"\\0])""")


class Character:
    """A parameter of exactly one character, taken as it is written."""

    @staticmethod
    def from_script(value: str | int) -> str:
        text = str(value)
        if len(text) != 1:
            raise ValueError(f'expected one character, got "{text}"')
        return text


class Transformations:
    """Mixed into the module pv."""

    # {s.…}

    @transformation("s.len")
    def s_len(self, value: str) -> int:
        """Length in bytes."""
        return len(value) if value.isascii() else len(_bytes(value))

    @transformation("s.int")
    def s_int(self, value: str) -> int | None:
        """The number a text is; null when it is none."""
        if _INTEGER.fullmatch(value) is None:
            return None
        number = int(value)
        return number if _INT_MIN <= number <= _INT_MAX else None

    @transformation("s.substr")
    def s_substr(self, value: str, offset: int, length: int) -> str | None:
        """*length* bytes from *offset*, 0 for all; a negative offset counts from the end."""
        size = self.s_len(value)
        if offset < 0:
            offset += size
        if not 0 <= offset < size or length < 0:
            return None
        return _slice(value, offset, offset + length if length else size)

    @transformation("s.select")
    def s_select(self, value: str, index: int, separator: Character) -> str:
        """The field *index* between separators, negative from the end; empty when there is none."""
        fields = value.split(separator)
        return fields[index] if -len(fields) <= index < len(fields) else ""

    @transformation("s.strip")
    def s_strip(self, value: str, count: int) -> str:
        """Without the first *count* bytes."""
        return _slice(value, count, None) if count > 0 else value

    @transformation("s.striptail")
    def s_striptail(self, value: str, count: int) -> str:
        """Without the last *count* bytes."""
        return _slice(value, 0, max(0, self.s_len(value) - count)) if count > 0 else value

    @transformation("s.prefixes")
    def s_prefixes(self, value: str, longest: int = 0) -> str:
        """All prefixes joined by commas, at most *longest* of them."""
        return ",".join(_prefixes(value, longest))

    @transformation("s.prefixes.quoted")
    def s_prefixes_quoted(self, value: str, longest: int = 0) -> str:
        """All prefixes in single quotes joined by commas."""
        return ",".join(f"'{prefix}'" for prefix in _prefixes(value, longest))

    @transformation("s.count")
    def s_count(self, value: str, character: Character) -> int:
        """How often *character* occurs."""
        return value.count(character)

    @transformation("s.rm")
    def s_rm(self, value: str, text: str) -> str:
        """Without any *text*."""
        return value.replace(text, "") if text else value

    @transformation("s.replace")
    def s_replace(self, value: str, text: str, replacement: str) -> str:
        """With each *text* replaced."""
        return value.replace(text, replacement) if text else value

    @transformation("s.before")
    def s_before(self, value: str, character: Character) -> str:
        """What stands before the first *character*; everything when it does not occur."""
        return value.partition(character)[0]

    @transformation("s.after")
    def s_after(self, value: str, character: Character) -> str:
        """What stands behind the first *character*; nothing when it does not occur."""
        return value.partition(character)[2]

    @transformation("s.rbefore")
    def s_rbefore(self, value: str, character: Character) -> str:
        """What stands before the last *character*; everything when it does not occur."""
        return value.rpartition(character)[0] if character in value else value

    @transformation("s.rafter")
    def s_rafter(self, value: str, character: Character) -> str:
        """What stands behind the last *character*; nothing when it does not occur."""
        return value.rpartition(character)[2] if character in value else ""

    @transformation("s.trim")
    def s_trim(self, value: str) -> str:
        """Without blanks at both ends."""
        return value.strip(_BLANKS)

    @transformation("s.ltrim")
    def s_ltrim(self, value: str) -> str:
        """Without blanks at the beginning."""
        return value.lstrip(_BLANKS)

    @transformation("s.rtrim")
    def s_rtrim(self, value: str) -> str:
        """Without blanks at the end."""
        return value.rstrip(_BLANKS)

    @transformation("s.rmws")
    def s_rmws(self, value: str) -> str:
        """Without any blank."""
        return value.translate({ord(blank): None for blank in _BLANKS})

    @transformation("s.tolower")
    def s_tolower(self, value: str) -> str:
        """ASCII letters in lower case."""
        return value.lower() if value.isascii() else _text(_bytes(value).lower())

    @transformation("s.toupper")
    def s_toupper(self, value: str) -> str:
        """ASCII letters in upper case."""
        return value.upper() if value.isascii() else _text(_bytes(value).upper())

    @transformation("s.numeric")
    def s_numeric(self, value: str) -> str:
        """Its digits only."""
        return "".join(character for character in value if "0" <= character <= "9")

    @transformation("s.unquote")
    def s_unquote(self, value: str) -> str:
        """Without the quotes around it."""
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        return value[1:-1] if quoted else value

    @transformation("s.unbracket")
    def s_unbracket(self, value: str) -> str:
        """Without the angle brackets around it."""
        return value[1:-1] if len(value) > 1 and value[0] == "<" and value[-1] == ">" else value

    @transformation("s.ftime")
    def s_ftime(self, value: str, form: str) -> str | None:
        """Seconds since 1970 as local time, with strftime."""
        if _INTEGER.fullmatch(value) is None:
            return None
        try:
            return time.strftime(form, time.localtime(int(value)))
        except (OverflowError, OSError, ValueError):
            return None

    @transformation("s.md5")
    def s_md5(self, value: str) -> str:
        """MD5 in hexadecimal."""
        return hashlib.md5(_bytes(value), usedforsecurity=False).hexdigest()

    @transformation("s.sha256")
    def s_sha256(self, value: str) -> str:
        """SHA-256 in hexadecimal."""
        return hashlib.sha256(_bytes(value)).hexdigest()

    @transformation("s.sha384")
    def s_sha384(self, value: str) -> str:
        """SHA-384 in hexadecimal."""
        return hashlib.sha384(_bytes(value)).hexdigest()

    @transformation("s.sha512")
    def s_sha512(self, value: str) -> str:
        """SHA-512 in hexadecimal."""
        return hashlib.sha512(_bytes(value)).hexdigest()

    @transformation("s.corehash")
    def s_corehash(self, value: str, slots: int = 0) -> str:
        """Kamailio's core hash, modulo *slots* when it is a power of two."""
        number = _core_hash(_bytes(value))
        return str(number & (slots - 1) if slots > 0 else number)

    @transformation("s.encode.hexa")
    def s_encode_hexa(self, value: str) -> str:
        """Each byte as two hexadecimal digits."""
        return _bytes(value).hex()

    @transformation("s.decode.hexa")
    def s_decode_hexa(self, value: str) -> str | None:
        """Hexadecimal digits as bytes; an odd last digit is left out."""
        data = _bytes(value)
        data = data[: len(data) & ~1]
        return _text(binascii.unhexlify(data)) if _HEXADECIMAL.fullmatch(data) else None

    @transformation("s.encode.base64")
    def s_encode_base64(self, value: str) -> str:
        """Base64 with its padding."""
        return _text(binascii.b2a_base64(_bytes(value), newline=False))

    @transformation("s.decode.base64")
    def s_decode_base64(self, value: str) -> str | None:
        """Base64 as bytes."""
        return _from_base64(value)

    @transformation("s.encode.base64t")
    def s_encode_base64t(self, value: str) -> str:
        """Base64 without padding."""
        return self.s_encode_base64(value).rstrip("=")

    @transformation("s.decode.base64t")
    def s_decode_base64t(self, value: str) -> str | None:
        """Base64 without padding as bytes."""
        return _from_base64(value + "=" * (-len(value) % 4))

    @transformation("s.encode.base58")
    def s_encode_base58(self, value: str) -> str:
        """Base58, the alphabet of Bitcoin."""
        data = _bytes(value)
        number = int.from_bytes(data)
        digits = ""
        while number:
            number, digit = divmod(number, 58)
            digits = _BASE58[digit] + digits
        return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits

    @transformation("s.decode.base58")
    def s_decode_base58(self, value: str) -> str | None:
        """Base58 as bytes."""
        number = 0
        for character in value:
            digit = _BASE58.find(character)
            if digit < 0:
                return None
            number = number * 58 + digit
        zeros = len(value) - len(value.lstrip("1"))
        return _text(bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8))

    @transformation("s.encode.7bit")
    def s_encode_7bit(self, value: str) -> str:
        """Seven bits a character, packed as in an SMS, in hexadecimal."""
        data = _bytes(value)
        packed = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(data))
        return packed.to_bytes((7 * len(data) + 7) // 8, "little").hex().upper()

    @transformation("s.decode.7bit")
    def s_decode_7bit(self, value: str) -> str | None:
        """The reverse of s.encode.7bit."""
        data = _bytes(value)
        if _HEXADECIMAL.fullmatch(data) is None:
            return None
        packed = int.from_bytes(binascii.unhexlify(data), "little")
        count = len(data) // 2 * 8 // 7
        found = bytes(packed >> 7 * place & 0x7F for place in range(count))
        # Eight characters fill seven bytes; seven leave seven bits over that look like a NUL.
        return _text(found[:-1] if count % 8 == 0 and found[-1:] == b"\0" else found)

    @transformation("s.escape.common")
    def s_escape_common(self, value: str) -> str:
        r"""A backslash before ' " \ and NUL."""
        return value.translate(_ESCAPED)

    @transformation("s.unescape.common")
    def s_unescape_common(self, value: str) -> str:
        """The reverse of s.escape.common."""
        return _UNESCAPED.sub(lambda found: "\0" if found[1] == "0" else found[1], value)

    @transformation("s.escape.user")
    def s_escape_user(self, value: str) -> str:
        """%xx for what may not stand in the user part of a URI."""
        return _percent(value, _IN_USER)

    @transformation("s.unescape.user")
    def s_unescape_user(self, value: str) -> str:
        """%xx as bytes."""
        return _text(urllib.parse.unquote_to_bytes(_bytes(value)))

    @transformation("s.escape.param")
    def s_escape_param(self, value: str) -> str:
        """%xx for what may not stand in a parameter of a URI."""
        return _percent(value, _IN_PARAM)

    @transformation("s.unescape.param")
    def s_unescape_param(self, value: str) -> str:
        """%xx as bytes."""
        return _text(urllib.parse.unquote_to_bytes(_bytes(value)))

    @transformation("s.escape.csv")
    def s_escape_csv(self, value: str) -> str:
        """In double quotes, those inside doubled."""
        return '"' + value.replace('"', '""') + '"'

    @transformation("s.urlencode.param")
    def s_urlencode_param(self, value: str) -> str:
        """As the value of a query parameter."""
        return urllib.parse.quote_plus(_bytes(value))

    @transformation("s.urldecode.param")
    def s_urldecode_param(self, value: str) -> str:
        """The reverse of s.urlencode.param."""
        return _text(urllib.parse.unquote_to_bytes(_bytes(value.replace("+", " "))))

    # {param.…}

    @transformation("param.value")
    def param_value(self, value: str, name: str, delimiter: Character = ";") -> str | None:
        """The value of parameter *name*; empty when it is absent or has none."""
        wanted = name.lower()
        found = _parameters(value, delimiter)
        if found is None:
            return None
        return next((text for key, text in found if key.lower() == wanted), "")

    @transformation("param.in")
    def param_in(self, value: str, name: str, delimiter: Character = ";") -> int | None:
        """1 when there is a parameter *name*, else 0."""
        wanted = name.lower()
        found = _parameters(value, delimiter)
        return None if found is None else int(any(key.lower() == wanted for key, _ in found))

    @transformation("param.valueat")
    def param_valueat(self, value: str, index: int, delimiter: Character = ";") -> str | None:
        """The value of the parameter *index*, negative from the end."""
        found = _parameters(value, delimiter)
        if found is None:
            return None
        return found[index][1] if -len(found) <= index < len(found) else ""

    @transformation("param.name")
    def param_name(self, value: str, index: int, delimiter: Character = ";") -> str | None:
        """The name of the parameter *index*, negative from the end."""
        found = _parameters(value, delimiter)
        if found is None:
            return None
        return found[index][0] if -len(found) <= index < len(found) else ""

    @transformation("param.count")
    def param_count(self, value: str, delimiter: Character = ";") -> int | None:
        """How many parameters there are."""
        found = _parameters(value, delimiter)
        return None if found is None else len(found)

    # {uri.…}

    @transformation("uri.scheme")
    def uri_scheme(self, value: str) -> str | None:
        """sip, sips, tel or urn."""
        return _uri(value, lambda uri: uri.scheme)

    @transformation("uri.user")
    def uri_user(self, value: str) -> str | None:
        """User part."""
        return _uri(value, lambda uri: uri.user)

    @transformation("uri.passwd")
    def uri_passwd(self, value: str) -> str | None:
        """Password."""
        return _uri(value, lambda uri: uri.password)

    @transformation("uri.host")
    def uri_host(self, value: str) -> str | None:
        """Host, an IPv6 address in its brackets."""
        return _uri(value, lambda uri: uri.host)

    @transformation("uri.port")
    def uri_port(self, value: str) -> str | None:
        """Port as text, empty when there is none."""
        return _uri(value, lambda uri: uri.port)

    @transformation("uri.params")
    def uri_params(self, value: str) -> str | None:
        """All parameters."""
        return _uri(value, lambda uri: uri.params)

    @transformation("uri.param")
    def uri_param(self, value: str, name: str) -> str | None:
        """The value of parameter *name*, empty when it is absent."""
        return _uri(value, lambda uri: self.param_value(uri.params, name) or "")

    @transformation("uri.transport")
    def uri_transport(self, value: str) -> str | None:
        """The parameter transport."""
        return self.uri_param(value, "transport")

    @transformation("uri.tosocket")
    def uri_tosocket(self, value: str) -> str | None:
        """`proto:host:port`; null when the URI names no transport."""
        uri = parse_uri(value)
        transport = (self.uri_transport(value) or "").lower()
        if uri is None or not transport:
            return None
        return f"{transport}:{uri.host}:{uri.port or '5060'}"

    # {nameaddr.…} and {tobody.…}

    @transformation("nameaddr.uri")
    def nameaddr_uri(self, value: str) -> str:
        """The URI in angle brackets; all of a text without them."""
        return parse_name_addr(value).uri if "<" in value else value

    @transformation("nameaddr.name")
    def nameaddr_name(self, value: str) -> str:
        """The display name, with its quotes and the blank behind them."""
        display = parse_name_addr(value).display
        start = value.find(display)
        return value[start : value.find("<", start + len(display))] if display else ""

    @transformation("nameaddr.len")
    def nameaddr_len(self, value: str) -> int:
        """Length of name and URI with its brackets."""
        if "<" not in value:
            return self.s_len(value)
        start = value.find(">", len(parse_name_addr(value).display))
        return self.s_len(value[: start + 1] if start >= 0 else value)

    @transformation("tobody.uri")
    def tobody_uri(self, value: str) -> str:
        """URI of a From or To body."""
        return parse_name_addr(value).uri

    @transformation("tobody.tag")
    def tobody_tag(self, value: str) -> str:
        """Its tag, empty when there is none."""
        return parse_name_addr(value).parameter("tag") or ""

    @transformation("tobody.user")
    def tobody_user(self, value: str) -> str | None:
        """User part of its URI."""
        return self.uri_user(parse_name_addr(value).uri)

    @transformation("tobody.host")
    def tobody_host(self, value: str) -> str | None:
        """Host part of its URI."""
        return self.uri_host(parse_name_addr(value).uri)

    @transformation("tobody.display")
    def tobody_display(self, value: str) -> str:
        """Its display name, with quotes."""
        return parse_name_addr(value).display

    @transformation("tobody.params")
    def tobody_params(self, value: str) -> str:
        """Its parameters, without the first semicolon."""
        return parse_name_addr(value).params.removeprefix(";")

    # {line.…}

    @transformation("line.count")
    def line_count(self, value: str) -> int | None:
        """How many lines there are; null for the empty text."""
        return len(_lines(value)) if value else None

    @transformation("line.at")
    def line_at(self, value: str, index: int) -> str:
        """The line *index*, negative from the end; empty when there is none."""
        lines = _lines(value)
        return lines[index] if -len(lines) <= index < len(lines) else ""

    @transformation("line.sw")
    def line_sw(self, value: str, text: str) -> str:
        """The first line that begins with *text*; empty when there is none."""
        return next((line for line in _lines(value) if line.startswith(text)), "")

    # {val.…}

    @transformation("val.n0", takes_any=True)
    def val_n0(self, value: Value) -> Value:
        """Null as 0."""
        return 0 if value is None else value

    @transformation("val.ne", takes_any=True)
    def val_ne(self, value: Value) -> Value:
        """Null as the empty text."""
        return "" if value is None else value

    @transformation("val.json", takes_any=True)
    def val_json(self, value: Value) -> str:
        """Text as it stands between the quotes of a JSON string; null as `null`."""
        return "null" if value is None else json.dumps(str(value), ensure_ascii=False)[1:-1]

    @transformation("val.jsonqe", takes_any=True)
    def val_jsonqe(self, value: Value) -> str:
        """A JSON string with its quotes; null as the empty one."""
        return json.dumps("" if value is None else str(value), ensure_ascii=False)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _slice(value: str, start: int, end: int | None) -> str:
    return value[start:end] if value.isascii() else _text(_bytes(value)[start:end])


def _prefixes(value: str, longest: int) -> list[str]:
    size = len(value)
    return [value[:end] for end in range(1, (min(longest, size) if longest > 0 else size) + 1)]


def _percent(value: str, allowed: str) -> str:
    return "".join(
        chr(byte)
        if byte < 128 and (chr(byte).isalnum() or chr(byte) in allowed)
        else f"%{byte:02x}"
        for byte in _bytes(value)
    )


def _from_base64(value: str) -> str | None:
    try:
        return _text(binascii.a2b_base64(_bytes(value), strict_mode=True)) if value else ""
    except binascii.Error:
        return None


def _core_hash(data: bytes) -> int:
    """hashes.h of Kamailio: words of four bytes, each folded by three bits, then the sum folded."""
    total = 0
    cut = len(data) & ~3
    for start in range(0, cut, 4):
        word = int.from_bytes(data[start : start + 4])
        total += word ^ word >> 3
    word = int.from_bytes(data[cut:])
    total = (total + (word ^ word >> 3)) & 0xFFFFFFFF
    return (total + (total >> 11) + (total >> 13) + (total >> 23)) & 0xFFFFFFFF


def _uri(value: str, part: Callable[[Uri], str]) -> str | None:
    uri = parse_uri(value)
    return None if uri is None else part(uri)


def _lines(value: str) -> list[str]:
    lines = [line.removesuffix("\r") for line in value.split("\n")]
    return lines[:-1] if len(lines) > 1 and not lines[-1] else lines


@functools.lru_cache(maxsize=16)
def _parameter_pattern(delimiter: str) -> re.Pattern[str]:
    # name [ "=" ( quoted / token ) ] up to the delimiter, blanks allowed around each
    end = re.escape(delimiter)
    return re.compile(
        rf"""\s*([^\s={end}]*)\s*(?:=\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s{end}]*))?\s*(?:{end}|$)""",
        re.DOTALL,
    )


def _parameters(text: str, delimiter: str) -> list[tuple[str, str]] | None:
    """Names and values without quotes, in order; None when the text is no list of parameters."""
    pattern = _parameter_pattern(delimiter)
    found = []
    position = 0
    while position < len(text):
        match = pattern.match(text, position)
        if match is None:
            return None
        name, value = match[1], match[2] or ""
        if name:
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            found.append((name, value[1:-1] if quoted else value))
        position = match.end()
    return found or None
