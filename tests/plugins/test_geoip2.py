"""Modules geoip and geoip2, with a database that is written for the test."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from homerd.errors import ConfigError

MODULES = ("pv", "xlog", "geoip", "geoip2")
CITY = {
    "city": {"names": {"en": "Frankfurt am Main", "de": "Frankfurt"}},
    "continent": {"code": "EU"},
    "country": {"iso_code": "DE"},
    "location": {
        "latitude": 50.1188,
        "longitude": 8.6843,
        "time_zone": "Europe/Berlin",
        "metro_code": 501,
    },
    "postal": {"code": "60313"},
    "subdivisions": [{"iso_code": "HE", "names": {"en": "Hesse"}}],
}
KEYS2 = ["cc", "tz", "zip", "lat", "lon", "city", "regc", "regn", "metro", "nmask", "cidr", "contc"]
KEYS = [
    "cc",
    "tz",
    "zip",
    "lat",
    "lon",
    "dma",
    "ips",
    "ipe",
    "city",
    "area",
    "regc",
    "regn",
    "metro",
    "contc",
]


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    """An .mmdb file with a city, a country that is only registered, a proxy and a network of IPv6."""
    writer = MMDBWriter(6, "GeoLite2-City", ipv4_compatible=True)
    writer.insert_network(IPSet(["192.0.2.0/25"]), CITY)
    writer.insert_network(IPSet(["198.51.100.0/24"]), {"registered_country": {"iso_code": "FR"}})
    writer.insert_network(
        IPSet(["203.0.113.7/32"]),
        {"country": {"iso_code": "US"}, "traits": {"is_anonymous_proxy": True}},
    )
    writer.insert_network(IPSet(["2001:db8::/32"]), {"country": {"iso_code": "SE"}})
    path = tmp_path_factory.mktemp("geoip") / "GeoLite2-City.mmdb"
    writer.to_db_file(str(path))
    return path


@pytest.fixture
def look(script, invite, database):
    """What statements log."""

    def run(statements, path=database):
        text = (
            f'modparam("geoip", "path", "{path}")\nmodparam("geoip2", "path", "{path}")\n'
            f"request_route {{ {statements} }}"
        )
        return script(text, MODULES).feed(invite)

    return run


def test_every_key_of_geoip2(look):
    shown = "|".join(f"$gip2(src=>{key})" for key in KEYS2)
    assert look(f'geoip2_match("192.0.2.9", "src"); xlog("$rc {shown}");') == [
        "1 DE|Europe/Berlin|60313|50.118800|8.684300|Frankfurt am Main|HE|Hesse|501|25|192.0.2.0/25|EU"
    ]


def test_every_key_of_geoip(look):
    shown = "|".join(f"$gip(src=>{key})" for key in KEYS)
    assert look(f'geoip_match("192.0.2.9", "src"); xlog("$rc {shown}");') == [
        "1 DE|Europe/Berlin|60313|50.118800|8.684300|501|192.0.2.0|192.0.2.127|Frankfurt am Main"
        "|<null>|HE|Hesse|501|EU"
    ]


@pytest.mark.parametrize(
    ("address", "country"),
    [
        ("198.51.100.1", "FR"), ("203.0.113.7", "A1"), ("2001:db8::1", "SE"), ("[2001:db8::1]", "SE"),
        ("10.0.0.1", "<null>"), ("nonsense", "<null>"), ("", "<null>"), ("a" * 300, "<null>"),
    ],
)  # fmt: skip
def test_countries(look, address, country):
    assert look(f'geoip2_match("{address}", "a"); xlog("$gip2(a=>cc) $gip2(a=>zip)");') == [
        f"{country} <null>"
    ]


def test_what_is_not_found(look):
    lines = look(
        'geoip2_match("10.0.0.1", "a"); xlog("$rc"); geoip_match("10.0.0.1", "a"); xlog("$rc");'
        f' geoip2_match("{"a" * 256}", "a"); xlog("$rc");'
    )
    assert lines == ["-2", "-1", "-3"]


def test_a_match_is_kept_by_its_name_until_the_next(look):
    lines = look(
        'geoip_match("192.0.2.9", "src"); geoip_match("2001:db8::1", "dst");'
        ' xlog("$gip(src=>cc) $gip(dst=>cc)"); geoip_match("10.0.0.1", "src"); xlog("$gip(src=>cc) $gip(dst=>cc)");'
        ' if ($gip(src=>cc) == $null) xlog("null"); $var(a) = "192.0.2.1"; geoip_match("$var(a)", "src"); xlog("$gip(src=>cc)");'
    )
    assert lines == ["DE SE", "<null> SE", "null", "DE"]


def test_a_file_of_the_old_format_stands_for_todays_beside_it(look, database):
    lines = look(
        'geoip_match("192.0.2.9", "a"); xlog("$gip(a=>cc)");', database.with_name("GeoLiteCity.dat")
    )
    assert lines == ["DE"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "no database"), ("none/GeoIP.mmdb", "No such file"), ("none/GeoIPCountry.dat", "put GeoLite2-Country.mmdb beside it"),
        (__file__, "test_geoip2.py"),
    ],
)  # fmt: skip
def test_a_database_that_cannot_be_read_stops_the_start(look, path, message):
    with pytest.raises(ConfigError, match=message):
        look("exit;", path)


@pytest.mark.parametrize(
    ("variable", "message"),
    [("$gip(src=>nmask)", 'unknown key "nmask"'), ("$gip2(src)", "expected name=>key"), ("$gip2(=>cc)", "expected name=>key")],
)  # fmt: skip
def test_a_key_that_is_none_is_a_diagnostic(refusal, variable, message):
    assert message in refusal(f"request_route {{ if ({variable} == 1) exit; }}", MODULES)
