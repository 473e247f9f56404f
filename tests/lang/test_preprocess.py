"""Directives, defines, substitutions, includes: what is left for the parser."""

from __future__ import annotations

import pytest

from homerd.lang.diagnostics import Diagnostics
from homerd.lang.preprocess import preprocess
from homerd.lang.source import SourceMap


def said(compiled, head, body, **options):
    script = compiled(f"{head}\nrequest_route {{\n{body}\n}}\n", **options)
    return script.said()


@pytest.mark.parametrize(
    ("head", "body", "expected"),
    [
        ("#!define NUM 42", '$var(a) = NUM; say("NUM $var(a)");', ["NUM 42"]),
        ('#!define WORD "w"', "say(WORD);", ["w"]),
        ("#!define DO say(\"x\"); say(\"y\")", "DO;", ["x", "y"]),
        ("#!define VAL 5 # five", '$var(a) = VAL\n; say("$var(a)");', ["5"]),
        ("#!define LONG say(\\\n\"x\");", "LONG", ["x"]),
        ("#!define A\n#!ifdef A\n#!define X 1\n#!else\n#!define X 2\n#!endif", '$var(x) = X; say("$var(x)");', ["1"]),
        ("#!ifndef A\n#!define X 1\n#!endif", '$var(x) = X; say("$var(x)");', ["1"]),
        ("#!define X 1\n#!trydef X 2\n#!define Z 4\n#!redef Z 5", '$var(x) = X; $var(z) = Z; say("$var(x)$var(z)");', ["15"]),
        ("#!define X 1\n#!undef X\n#!ifdef X\n#!define Y 1\n#!else\n#!define Y 2\n#!endif", '$var(y) = Y; say("$var(y)");', ["2"]),
        ('#!substdef "!TOK!val!g"', 'say("aTOKb TOK"); $var(TOK) = 1; say("$var(val)");', ["avalb val", "1"]),
        ('#!substdef "!AAA!x!"', 'say("AAA AAA");', ["x AAA"]),
        ('#!substdefs "!QTK!qv!g"', "say(QTK); say(\"QTK\");", ["qv", "qv"]),
        ('#!substdef "!TOK!val!g"\n#!subst "!XTOKX!zz!g"', 'say("XvalX");', ["zz"]),
        ("#!defenv HOMERD_TEST", '$var(x) = HOMERD_TEST; say("$var(x)");', ["7"]),
        ("#!defenvs NAME=HOMERD_TEST", "say(NAME);", ["7"]),
        ("#!trydefenv MISSING_FOR_SURE", 'say("on");', ["on"]),
        ("!!define NUM 3", '$var(a) = NUM; say("$var(a)");', ["3"]),
        ("#!ifexp 1 + 1 == 2 && !NOPE\n#!define X 1\n#!else\n#!define X 0\n#!endif", '$var(x) = X; say("$var(x)");', ["1"]),
        ("#!defexp SUM 40 + 2", '$var(x) = SUM; say("$var(x)");', ["42"]),
        ("/* a /* b */ still */ # c\n// d", 'say("# no // comment /* here */");', ["# no // comment /* here */"]),
        ("", 'say("a" "b"\n "c");', ["abc"]),
        ("", "say('x\\ty');", ["x\\ty"]),
        ("", r'say("\x41\101\d\.\1");', [r"AA\d\.\1"]),
        ("", r'say("\xc3\xa4 \x80");', ["ä \udc80"]),
        ("#!ifdef KAMAILIO_4_3\n#!define OLD 1\n#!else\n#!define OLD 0\n#!endif", '$var(x) = OLD; say("$var(x)");', ["0"]),
        ("#!ifdef KAMAILIO_5_6\n#!define NEW 1\n#!endif", '$var(x) = NEW; say("$var(x)");', ["1"]),
    ],
)  # fmt: skip
def test_what_a_directive_leaves_of_the_text(compiled, head, body, expected):
    options = {"environment": {"HOMERD_TEST": "7"}}
    assert said(compiled, head, body, **options) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [("0x1F", 31), ("010", 8), ("101b", 5), ("yes", 1), ("off", 0), ("enable", 1), ("42", 42)],
)
def test_a_number_may_be_written_so(compiled, text, value):
    assert said(compiled, "", f'$var(x) = {text}; say("$var(x)");') == [str(value)]


def test_a_skipped_block_may_hold_anything(compiled):
    body = '#!ifdef NOPE\nelse if ( { xlog("unbalanced " quotes ");\n#!endif\nsay("ok");'
    assert said(compiled, "", body) == ["ok"]


def test_a_commented_directive_counts_inside_a_skipped_block_only(compiled):
    assert compiled("#!ifdef NOPE\n##!ifdef X\n#!endif\n").diagnostics.errors
    assert not compiled("##!ifdef X\nrequest_route { exit; }\n").diagnostics.errors


def test_an_include_is_found_beside_the_file_that_names_it(compiled, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "one.cfg").write_text(
        'route[ONE] { say("one"); include_file "two.cfg"\n}\n'
    )
    (tmp_path / "sub" / "two.cfg").write_text('say("two");\n')
    script = compiled(
        'include_file "sub/one.cfg"\nimport_file "not-there.cfg"\nrequest_route { route(ONE); }\n'
    )
    assert script.said() == ["one", "two"]
    assert [path.name for path in script.tokens.files] == ["test.cfg", "one.cfg", "two.cfg"]


def test_files_that_include_each_other_are_stopped(compiled, tmp_path):
    (tmp_path / "loop.cfg").write_text('include_file "loop.cfg"\n')
    assert "E104" in [d.code for d in compiled('include_file "loop.cfg"\n').diagnostics.errors]


def test_a_definition_of_itself_is_stopped(compiled):
    assert "E103" in [
        d.code for d in compiled("#!define A A A\nrequest_route { A; }").diagnostics.errors
    ]


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("debug=2", "debug", 2),
        ("debug=-2", "debug", -2),
        ("fork=yes", "fork", 1),
        ('log_name="homer"', "log_name", "homer"),
        ("listen=udp:127.0.0.1:9060", "listen", "udp:127.0.0.1:9060"),
        ("listen=udp:[::1]:9060", "listen", "udp:[::1]:9060"),
        ("listen = tcp:eth0:9060 # comment", "listen", "tcp:eth0:9060"),
        ('listen="udp:1.2.3.4:9060"', "listen", "udp:1.2.3.4:9060"),
        ("listen=udp:*:9060", "listen", "udp:*:9060"),
        ("listen=udp:10.0.0.1:5060 advertise 1.2.3.4:5060", "listen", "udp:10.0.0.1:5060 advertise 1.2.3.4:5060"),
    ],
)  # fmt: skip
def test_a_global_is_read_to_the_end_of_its_line(compiled, line, name, value):
    script = compiled(f"{line}\nchildren=1\nrequest_route {{ exit; }}\n")
    assert [(item.name, item.value) for item in script.tree.items[:2]] == [
        (name, value),
        ("children", 1),
    ]


def test_a_file_that_is_no_text_is_one_error(tmp_path):
    path = tmp_path / "homer.cfg"
    path.write_bytes(b"\x7fELF\0\1\2\3" * 100)
    diagnostics = Diagnostics(SourceMap())
    preprocess(path, diagnostics)
    assert [(each.code, each.message) for each in diagnostics.found] == [
        ("E104", f"{path}: not a text file")
    ]
