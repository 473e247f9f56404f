"""Transformations, as Kamailio 5.6.3 carries them out."""

from __future__ import annotations

import pytest

from homerd.errors import ScriptErrors

TEXTS = (
    '$var(b) = "bob"; $var(e) = ""; $var(blank) = "  a b  "; $var(q) = "\\"x\\\\y\'z\\"";'
    ' $var(n) = "a1b22c"; $var(i) = -42; $var(c) = "a,b,,d"; $var(ci) = "cid-1@test";'
    ' $var(u) = "\u00fcber"; $var(k) = 1;'
    ' $var(p) = "a=1;B=\\"two;x\\";c;d=4"; $var(ps) = "PS=207;OS=9; PR = 314 ;PL=3,4;";'
    ' $var(l) = "a1\\nb22\\nc333"; $var(crlf) = "x\\r\\ny\\n";'
    ' $var(sips) = "sips:al:pw@[::1]:5090;lr;transport=TCP;x=y?h=v"; $var(tel) = "tel:+123;ext=x";'
    ' $var(bad) = "notauri"; $var(na) = "\\"Al, B\\" <sip:a@b;x=1>;q=1";'
    ' $var(bare) = "sip:a@b;tag=9";'
)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("$(var(b){s.len}) $(var(i){s.len}) $(var(e){s.len}) $(var(u){s.len})", "3 3 0 5"),
        ("$(var(i){s.int}) [$(var(n){s.int})] [$(var(e){s.int})]", "-42 [] []"),
        ("$(var(b){s.substr,1,0}) $(var(b){s.substr,-2,1}) $(var(b){s.substr,0,50})", "ob o bob"),
        (
            "[$(var(b){s.substr,3,0})] [$(var(b){s.substr,-4,0})] [$(var(e){s.substr,0,0})]",
            "[] [] []",
        ),
        ("$(var(b){s.substr,$var(k),$var(k)}) $(var(u){s.substr,2,0})", "o ber"),
        ("$(var(c){s.select,1,,}) $(var(c){s.select,-1,,}) $(var(c){s.select,-4,,})", "b d a"),
        (
            "[$(var(c){s.select,2,,})] [$(var(c){s.select,9,,})] [$(var(c){s.select,-5,,})]",
            "[] [] []",
        ),
        ("$(var(c){s.select,$var(k),,}) $(var(c){s.select,0,|})", "b a,b,,d"),
        ("$(var(b){s.strip,1}) [$(var(b){s.strip,9})] $(var(b){s.strip,0})", "ob [] bob"),
        ("$(var(b){s.striptail,1}) [$(var(b){s.striptail,9})]", "bo []"),
        ("$(var(b){s.prefixes}) $(var(b){s.prefixes,2})", "b,bo,bob b,bo"),
        ("$(var(b){s.prefixes.quoted,2})", "'b','bo'"),
        ("$(var(b){s.count,b}) $(var(e){s.count,b})", "2 0"),
        ("$(var(b){s.rm,o}) $(var(b){s.replace,b,XX}) $(var(b){s.replace,o,})", "bb XXoXX bb"),
        ("$(var(ci){s.before,-}) $(var(ci){s.before,#})", "cid cid-1@test"),
        ("$(var(ci){s.after,-}) [$(var(ci){s.after,#})]", "1@test []"),
        (
            "[$(var(blank){s.trim})] [$(var(blank){s.ltrim})] [$(var(blank){s.rtrim})]",
            "[a b] [a b  ] [  a b]",
        ),
        ("[$(var(blank){s.rmws})]", "[ab]"),
        (
            "$(var(b){s.toupper}) $(var(b){s.toupper}{s.tolower}) $(var(u){s.toupper})",
            "BOB bob \u00fcBER",
        ),
        ("$(var(n){s.numeric}) [$(var(b){s.numeric})] $(var(i){s.numeric})", "122 [] 42"),
        ("$(var(q){s.unquote})", "x\\y'z"),
        ("$(hdr(To){s.unbracket}) $(var(b){s.unbracket})", "sip:bob@biloxi.example bob"),
        ("$(var(b){s.md5})", "9f9d51bc70ef21ca5c14f307980a29d8"),
        (
            "$(var(b){s.sha256})",
            "81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9",
        ),
        ("$(var(b){s.corehash}) $(var(b){s.corehash,16})", "7222211 3"),
        ("$(var(b){s.encode.hexa}) [$(var(b){s.decode.hexa})]", "626f62 []"),
        ("$(var(b){s.encode.hexa}{s.decode.hexa})", "bob"),
        ("$(var(b){s.encode.base64}) [$(var(b){s.decode.base64})]", "Ym9i []"),
        ("$(var(u){s.encode.base64}{s.decode.base64})", "\u00fcber"),
        ("$(var(u){s.encode.base64t}{s.decode.base64t})", "\u00fcber"),
        ("$(var(b){s.encode.base58}) $(var(b){s.encode.base58}{s.decode.base58})", "a4fs bob"),
        ("$(var(b){s.encode.7bit}) $(var(b){s.encode.7bit}{s.decode.7bit})", "E2B718 bob"),
        ("$(var(q){s.escape.common})", '\\"x\\\\y\\\'z\\"'),
        ("$(var(q){s.escape.common}{s.unescape.common})", '"x\\y\'z"'),
        ("$(var(q){s.escape.user}) $(var(q){s.escape.param})", "%22x%5cy'z%22 %22x%5cy'z%22"),
        ("$(var(q){s.escape.user}{s.unescape.user})", '"x\\y\'z"'),
        ("$(var(q){s.escape.csv})", '"""x\\y\'z"""'),
        ("$(var(i){s.ftime,%Y}) [$(var(b){s.ftime,%Y})]", "1969 []"),
    ],
)
def test_strings(show, text, printed):
    assert show(text.replace("'", "\\'") if "'" in text else text, before=TEXTS) == printed


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("$(var(p){param.value,a}) $(var(p){param.value,A}) $(var(p){param.value,b})", "1 1 two;x"),
        ("[$(var(p){param.value,c})] [$(var(p){param.value,z})]", "[] []"),
        ("$(var(p){param.count}) $(var(p){param.name,1}) $(var(p){param.name,-1})", "4 B d"),
        ("[$(var(p){param.name,9})] $(var(p){param.valueat,-1})", "[] 4"),
        ("$(var(p){param.in,c}) $(var(p){param.in,z})", "1 0"),
        (
            "$(var(ps){param.value,PR}) $(var(ps){param.value,PL}) $(var(ps){param.count})",
            "314 3,4 4",
        ),
        ("$(hdr(Reason){param.value,cause}) $(hdr(Reason){param.value,text})", "16 Normal"),
        ("[$(hdr(From){param.value,tag})] [$(var(e){param.count})]", "[] []"),
        ("$(var(sips){uri.user}) $(var(sips){uri.passwd}) $(var(sips){uri.host})", "al pw [::1]"),
        (
            "$(var(sips){uri.port}) $(var(sips){uri.scheme}) $(var(sips){uri.params})",
            "5090 sips lr;transport=TCP;x=y",
        ),
        ("$(var(sips){uri.param,x}) [$(var(sips){uri.param,lr})]", "y []"),
        ("$(var(sips){uri.transport}) $(var(sips){uri.tosocket})", "TCP tcp:[::1]:5090"),
        (
            "$(ru{uri.tosocket}) [$(fu{uri.tosocket})] [$(ru{uri.port})]",
            "udp:example.com:5060 [] []",
        ),
        ("$(var(tel){uri.user}) [$(var(bad){uri.user})]", "+123 []"),
        ("$(var(na){nameaddr.uri}) [$(var(na){nameaddr.name})]", 'sip:a@b;x=1 ["Al, B" ]'),
        ("$(var(na){nameaddr.len}) $(var(bare){nameaddr.len})", "21 13"),
        ("$(var(bare){nameaddr.uri}) [$(var(bare){nameaddr.name})]", "sip:a@b;tag=9 []"),
        ("$(var(bad){nameaddr.uri})", "notauri"),
        (
            "$(hdr(From){tobody.uri}) $(hdr(From){tobody.user}) $(hdr(From){tobody.host})",
            "sip:alice@atlanta.example alice atlanta.example",
        ),
        ("$(hdr(From){tobody.display}) $(hdr(From){tobody.params})", '"Alice A." tag=ft1'),
        ("$(hdr(From){tobody.tag}) [$(hdr(To){tobody.tag})] $(var(bare){tobody.tag})", "ft1 [] 9"),
        ("$(var(l){line.count}) $(var(l){line.at,0}) $(var(l){line.at,-1})", "3 a1 c333"),
        ("[$(var(l){line.at,9})] $(var(l){line.sw,b}) [$(var(l){line.sw,z})]", "[] b22 []"),
        (
            "$(var(crlf){line.count}) $(var(crlf){line.at,0}{s.len}) $(var(crlf){line.at,1})",
            "2 1 y",
        ),
        ("$(hdr(Nope){val.n0}) [$(hdr(Nope){val.ne})] $(hdr(Nope){val.json})", "0 [] null"),
        ("$(var(p){val.json})", 'a=1;B=\\"two;x\\";c;d=4'),
    ],
)
def test_parameters_addresses_lines_and_values(show, text, printed):
    assert show(text, before=TEXTS) == printed


@pytest.mark.parametrize(
    "value",
    [
        "$(hdr(Nope){s.len})",
        "$(rU{s.int})",
        "$(rU{s.substr,9,0})",
        "$(rU{uri.user})",
        "$(hdr(From){param.value,q})",
    ],
)
def test_what_cannot_be_read_is_null(log, value):
    assert log(f'if ({value} == $null) xlog("null");') == ["null"]


@pytest.mark.parametrize(
    "value",
    [
        "$(ru{uri.port})",
        "$(rU{s.select,9,:})",
        "$(ci{s.after,#})",
        "$(hdr(Reason){param.value,nope})",
        "$(hdr(To){tobody.tag})",
        "$(rb{line.at,9})",
    ],
)
def test_what_is_only_absent_is_the_empty_text(log, value):
    assert log(f'if ({value} == $null) xlog("null"); else xlog("[$_s({value})]");') == ["[]"]


@pytest.mark.parametrize(
    ("value", "sum_"),
    [("$(rU{s.len})", "4"), ("$(hdr(X-Num){s.int})", "43"), ("$(rU{s.corehash})", "72222111")],
)
def test_lengths_and_ints_are_numbers_and_hashes_are_text(log, value, sum_):
    assert log(f'$var(x) = {value} + 1; xlog("$var(x)");') == [sum_]


@pytest.mark.parametrize(
    "text",
    [
        "$(ci{s.select,1,@t})",
        "$(ci{s.nope})",
        "$(ci{s.count,ab})",
        "$(ci{s.strip,x})",
    ],
)
def test_a_wrong_argument_is_an_error(show, text):
    with pytest.raises(ScriptErrors):
        show(text)


@pytest.mark.parametrize("size", range(20))
def test_seven_bit_text_comes_back(show, size):
    text = "abcdefghijklmnopqrst"[:size]
    assert show("$(var(x){s.encode.7bit}{s.decode.7bit})", before=f'$var(x) = "{text}";') == text
