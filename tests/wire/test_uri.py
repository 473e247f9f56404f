"""URIs, name-addr values and parameters, input and outcome side by side."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homerd.wire.uri import NameAddr, Uri, parameters, parse_name_addr, parse_uri, split_list


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("sip:bob@h.example", Uri("sip", "bob", "", "h.example", "", "", "")),
        (
            "sip:bob:pw@h.example:5070;x=1;lr?Subject=a%20b",
            Uri("sip", "bob", "pw", "h.example", "5070", "x=1;lr", "Subject=a%20b"),
        ),
        ("sips:h.example:5061", Uri("sips", "", "", "h.example", "5061", "", "")),
        ("SIP:Bob@H.example", Uri("sip", "Bob", "", "H.example", "", "", "")),
        ("sip:a@[2001:db8::1]:5060;lr", Uri("sip", "a", "", "[2001:db8::1]", "5060", "lr", "")),
        ("sip:[2001:db8::1]", Uri("sip", "", "", "[2001:db8::1]", "", "", "")),
        ("sip:a%40b;p=1@h", Uri("sip", "a%40b;p=1", "", "h", "", "", "")),
        ("sip:u@h?to=sip:x@y", Uri("sip", "u", "", "h", "", "", "to=sip:x@y")),
        ("tel:+3130;phone-context=x", Uri("tel", "+3130", "", "", "", "phone-context=x", "")),
        ("urn:service:sos", Uri("urn", "service", "", "sos", "", "", "")),
    ],
)
def test_a_uri_is_read_into_its_parts(text, uri):
    assert parse_uri(text) == uri


@pytest.mark.parametrize(
    "text",
    ["", "sip", "sip:", "sip:u@", "bob@h", "im:bob@h", "sip:u@h:port", "sip:u@[::1", "sip:u@a@b"],
)
def test_what_is_no_uri_is_none(text):
    assert parse_uri(text) is None


@pytest.mark.parametrize(
    ("text", "display", "uri", "params"),
    [
        ("<sip:a@b>;tag=x", "", "sip:a@b", ";tag=x"),
        ('"A" <sip:a@b>;tag=x', '"A"', "sip:a@b", ";tag=x"),
        ('"A <x>; \\" ," <sip:a@b>', '"A <x>; \\" ,"', "sip:a@b", ""),
        ("Alice Doe <sip:a@b>", "Alice Doe", "sip:a@b", ""),
        ("sip:a@b;tag=x;y", "", "sip:a@b", ";tag=x;y"),
        ('"open <sip:a@b>', '"open', "sip:a@b", ""),
        ("<sip:a@b", "", "sip:a@b", ""),
        ("", "", "", ""),
    ],
)
def test_an_address_is_read_leniently(text, display, uri, params):
    assert parse_name_addr(text) == NameAddr(display, uri, params)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("<sip:a@b>", ["<sip:a@b>"]),
        ('"x, y" <sip:1@c>;q=1, <sip:2,3@d>', ['"x, y" <sip:1@c>;q=1', "<sip:2,3@d>"]),
        ("a,,b,", ["a", "b"]),
        ('"open, a', ['"open, a']),
        ("", [""]),
    ],
)
def test_a_list_is_parted_at_its_own_commas(text, pieces):
    assert split_list(text) == pieces


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (";a=1;B=2;a=3;c", {"a": "1", "b": "2", "c": ""}),
        ('x="1;2" ; y = z', {"x": "1;2", "y": "z"}),
        (";;a=", {"a": ""}),
        ("", {}),
    ],
)
def test_parameters_are_found_by_lower_case_name(text, found):
    assert parameters(text) == found


@given(st.text(alphabet=st.sampled_from('sip:telurn@[]<>";,?= \\\tab1')))
def test_any_text_is_read(text):
    parse_uri(text)
    parse_name_addr(text)
    split_list(text)
    parameters(text)
