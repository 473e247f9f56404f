"""The pseudo-variables of module pv, as Kamailio 5.6.3 prints them."""

from __future__ import annotations

import os
import time

import pytest

from homerd.errors import ScriptErrors

CREDENTIALS = (
    'Authorization: Digest username="www", realm="r1", uri="sip:w", algorithm=MD5\r\n',
    'Proxy-Authorization: Digest username="prx@d2", realm="r2", uri="sip:p"\r\n',
)
IDENTITIES = (
    "Diversion: <sip:d@v>;reason=unconditional;privacy=full\r\n"
    "P-Asserted-Identity: <sip:pai@h>\r\n"
    "Remote-Party-ID: <sip:rpi@h>\r\n"
    'P-Preferred-Identity: "P N" <sip:ppi@h>\r\n'
    "Refer-To: <sip:target@h>\r\n"
)


@pytest.fixture
def with_headers(invite):
    return lambda *lines: invite.replace("Subject: ", "".join(lines) + "Subject: ")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (
            "$rm $rU $rd $rp $rP $ru",
            "INVITE bob example.com 5060 udp sip:bob@example.com;transport=udp",
        ),
        ("$oU $od $op $oP", "bob example.com 5060 udp"),
        ("$fu $fU $fd $fn $ft", 'sip:alice@atlanta.example alice atlanta.example "Alice A." ft1'),
        ("$tu $tU $td [$tn] [$tt]", "sip:bob@biloxi.example bob biloxi.example [<null>] [<null>]"),
        ("$ci $cs $csb $cT $cl $bs $mt", "cid-1@test 7 7 INVITE application/sdp 5 5 1"),
        ("[$rs] [$rr] $ua $rv", "[<null>] [<null>] UA/1.0 (x) SIP/2.0"),
        ("$si:$sp $Ri:$Rp", "10.0.0.1:5060 10.0.0.2:5061"),
        ("$siz $sas", "10.0.0.1 udp:10.0.0.1:5060"),
        ("$su $sut", "sip:10.0.0.1:5060 sip:10.0.0.1:5060;transport=udp"),
        ("$Ru $Rut", "sip:10.0.0.2:5061 sip:10.0.0.2:5061;transport=udp"),
        ("$pr $proto $prid", "udp udp 1"),
        ("[$du] [$dd] [$br] [$null]", "[<null>] [<null>] [<null>] [<null>]"),
        ("$mf $mF $sf $sF $bf $bF", "0 00000000 0 00000000 0 00000000"),
        ("$version(num)", "5.6.3"),
    ],
)
def test_pseudo_variables_of_a_request(show, text, printed):
    assert show(text) == printed


def test_pseudo_variables_of_a_reply(show, reply):
    assert show("$rm $rs $rr $mt [$ru] [$rp] [$ua] $tt", reply) == (
        "INVITE 200 OK 2 [<null>] [<null>] [<null>] tt1"
    )


def test_the_received_address_of_a_hep_packet_is_its_captured_source(script, invite):
    runner = script('request_route { xlog("$si:$sp $Ri:$Rp"); }')
    assert runner.feed(invite, version=3) == ["10.0.0.1:5060 10.0.0.1:5060"]


def test_lengths_count_bytes_of_the_sip_message(show, invite):
    message = invite.replace("v=0\r\n", "ü\n")
    assert show("$bs $ml", message) == f"3 {len(message.encode())}"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("$hdr(x-num) $hdr(s) $hdr(Subject)", "42 hello hello"),
        ("$hdr(X-Multi) $(hdr(X-Multi)[1]) $(hdr(X-Multi)[-1])", "one two two"),
        ("[$(hdr(X-Multi)[*])] [$(hdr(X-Multi)[5])] [$hdr(Nope)]", "[one,two] [<null>] [<null>]"),
        ("$hdrc(X-Multi) $hdrc(v) $hdrc(Nope)", "2 2 0"),
        ("$(hdr(X-Multi)[$var(i)]) $hdr($var(name))", "two 42"),
        ("$(hfl(Record-Route)[1]) [$(hfl(Via)[-1])]", "<sip:10.9.9.2;lr;ftag=ft1> [<null>]"),
        ("$hfl(Via)", "SIP/2.0/UDP 10.1.1.1:5070;branch=z9hG4bKaaa1;rport"),
        ("$(hfl(Contact)[1]) $hfl(X-List)", "<sip:alice@10.1.1.1:5070> a, b, c"),
    ],
)
def test_headers(show, text, printed):
    assert show(text, before='$var(i) = 1; $var(name) = "X-Num";') == printed


def test_proxy_credentials_come_before_those_of_the_server(show, with_headers):
    text = "$au $aU $ad $ar $adu [$aa]"
    assert show(text, with_headers(*CREDENTIALS)) == "prx prx@d2 d2 r2 sip:p []"
    assert show(text, with_headers(CREDENTIALS[0])) == "www www  r1 sip:w [MD5]"


def test_there_are_no_credentials_in_an_ack_or_in_another_scheme(show, with_headers):
    ack = with_headers(*CREDENTIALS).replace("INVITE", "ACK")
    assert show("[$au] [$aa]", ack) == "[<null>] [<null>]"
    assert show("[$au] [$aa]", with_headers("Authorization: Basic abc=\r\n")) == "[<null>] [<null>]"


def test_identities(show, with_headers):
    text = "$ai $re $pu $pU $pd $pn $di $dir [$dic] $rt"
    assert show(text, with_headers(IDENTITIES)) == (
        'sip:pai@h sip:rpi@h sip:ppi@h ppi h "P N" sip:d@v unconditional [<null>] sip:target@h'
    )
    assert show("[$ai] [$pU] [$di] [$rt]") == "[<null>] [<null>] [<null>] [<null>]"


def test_numbers_are_numbers_and_cseq_is_text(log):
    assert log(
        "$var(a) = $cs + 1; $var(b) = $cl + 1; $var(c) = $hdrc(Via) + 1;"
        " xlog('$var(a) $var(b) $var(c)');"
    ) == ["71 6 3"]


@pytest.mark.parametrize(
    ("select", "printed"),
    [
        ("via[1].host", "10.1.1.1"),
        ("@v[2].received", "192.0.2.9"),
        ("via[-1].host", "10.2.2.2"),
        ("via.port", "5070"),
        ("via[2].transport", "TCP"),
        ("via[1].version", "2.0"),
        ("via[1].rport", "<null>"),
        ("via[9].host", "<null>"),
        ("via", "SIP/2.0/UDP 10.1.1.1:5070;branch=z9hG4bKaaa1;rport"),
        ("contact.uri", "sip:alice@10.1.1.1:5070"),
        ("m.uri.port", "5070"),
        ("contact.uri.params", "<null>"),
        ("from.uri.user", "alice"),
        ("from.uri.hostport", "atlanta.example:5060"),
        ("from.name", '"Alice A."'),
        ("f.tag", "ft1"),
        ("to.tag", "<null>"),
        ("rr.uri", "sip:10.9.9.1;lr"),
        ("cseq.method", "INVITE"),
        ("cseq.num", "7"),
        ("call_id", "cid-1@test"),
        ("ruri.params.transport", "udp"),
        ("ruri.type", "sip"),
        ("msg.header.x_num", "42"),
        ("msg.first_line", "INVITE sip:bob@example.com;transport=udp SIP/2.0"),
        ("msg.type", "1"),
        ("msg.response.status", "<null>"),
        ("src.ip_port", "10.0.0.1:5060"),
        ("user_agent", "UA/1.0 (x)"),
        ("cfg_get.stats.min", "5"),
        ("cfg_get.stats.nope", "<null>"),
        ("cfg_get.core.debug", "2"),
    ],
)
def test_selects(show, select, printed):
    assert show(f"$sel({select})", extra='stats.min = 5 desc "minutes"\n') == printed


@pytest.mark.parametrize(
    "select", ["via[1].nope", "contact[1].uri", "callid", "nope", "from.uri.nope"]
)
def test_an_unknown_select_is_an_error(show, select):
    with pytest.raises(ScriptErrors):
        show(f"$sel({select})")


def test_a_select_stands_by_itself_too(log):
    assert log('$var(b) = @v[1].branch; if (@via[1].host == "10.1.1.1") xlog("$var(b)");') == [
        "z9hG4bKaaa1"
    ]


def test_time_is_one_moment_for_each_packet(script, invite):
    runner = script('request_route { xlog("$TS $TV(s) $Ts|$timef(%s)|$TV(u)|$TV(u)"); }')
    line = runner.feed(invite)[0]
    seconds, formatted, micros, again = line.split("|")
    assert len(set(seconds.split())) == 1
    assert formatted == seconds.split()[0]
    assert micros == again


def test_time_in_parts_and_formats(show):
    now = time.gmtime()
    assert show("$utime(year) $utimef(%Y)") == f"{now.tm_year} {now.tm_year}"
    assert int(show("$utime(wday)")) == (time.gmtime().tm_wday + 1) % 7 + 1
    assert int(show("$time(yday)")) == time.localtime().tm_yday


@pytest.mark.parametrize("text", ["$time(nope)", "$TV(x)", "$time", "$version(x)", "$var", "$hdr"])
def test_an_unknown_argument_is_an_error(show, text):
    with pytest.raises(ScriptErrors):
        show(text)


def test_process_and_message_number(script, invite):
    runner = script('request_route { xlog("$pp $mi $mi"); }')
    assert runner.feed(invite) == [f"{os.getpid()} 1 1"]
    assert runner.feed(invite) == [f"{os.getpid()} 2 2"]


def test_variables_outlive_the_packet_and_avps_do_not(script, invite):
    runner = script(
        'request_route { xlog("$var(n) [$vn(n)] $vz(n) $shv(n) [$avp(n)] [$xavp(n=>a)]");'
        " $var(n) = 1; $vn(n) = 2; $vz(n) = 3; $shv(n) = 4; $avp(n) = 5; $xavp(n=>a) = 6; }"
    )
    assert runner.feed(invite) == ["0 [<null>] 0 0 [<null>] [<null>]"]
    assert runner.feed(invite) == ["1 [2] 3 4 [<null>] [<null>]"]


def test_null_becomes_zero_in_var_and_null_in_vn(log):
    assert log('$var(a) = $hdr(Nope); $vn(a) = 1; $vn(a) = $null; xlog("$var(a) [$vn(a)]");') == [
        "0 [<null>]"
    ]


def test_shared_variables_can_be_set_by_modparam(show):
    extra = 'modparam("pv", "shvset", "debug=i:1")\nmodparam("pv", "shvset", "node=s:x")\n'
    assert show("$shv(debug) $shv(node)", extra=extra) == "1 x"


def test_blanks_belong_to_a_variables_name(show):
    assert show("[$var(a)] [$var( a )]", before="$var( a ) = 1;") == "[0] [1]"


# What follows was read off Kamailio 5.6.3.


@pytest.mark.parametrize(
    ("statements", "printed"),
    [
        ("$avp(x) = 1; $avp(x) = 2; $avp(x) = 3;", "3 2 <null> 3, 2, 1"),
        ("$(avp(x)[0]) = 1; $(avp(x)[1]) = 2;", "2 1 <null> 2, 1"),
        ("$avp(x) = 1; $avp(x) = 2; $avp(x) = $null;", "1 <null> <null> 1"),
        ("$avp(x) = 1; $avp(x) = 2; $(avp(x)[1]) = $null;", "1 <null> <null> 1"),
        ("$avp(x) = 1; $avp(x) = 2; $(avp(x)[*]) = 3;", "3 <null> <null> 3"),
        ("$avp(x) = 1; $avp(x) = 2; $(avp(x)[*]) = $null;", "<null> <null> <null> <null>"),
        ("$avp(s:x) = 1;", "1 <null> <null> 1"),
        ('$var(k) = "x"; $avp($var(k)) = 1;', "1 <null> <null> 1"),
    ],
)
def test_an_avp_is_a_stack(show, statements, printed):
    assert show("$avp(x) $(avp(x)[1]) $(avp(x)[7]) $(avp(x)[*])", before=statements) == printed


def test_numbered_avps_are_their_own(show):
    assert show("$avp(i:5) $avp(5) $avp(s:5)", before='$avp(i:5) = "b"; $avp(5) = "c";') == "b c c"


def test_an_avp_may_be_empty_or_a_number(log):
    assert log('$avp(e) = ""; $avp(i) = 5; $var(t) = $avp(i) + 1; xlog("[$avp(e)] $var(t)");') == [
        "[] 6"
    ]


@pytest.mark.parametrize(
    ("statements", "text", "printed"),
    [
        (
            '$xavp(x=>a) = "1"; $xavp(x=>b) = "2"; $xavp(x=>a) = "3";',
            "$xavp(x=>a) $xavp(x=>b) $xavp(x[1]=>b) $xavp(x[2]=>a)",
            "3 <null> 2 1",
        ),
        (
            '$xavp(x=>a) = "1"; $xavp(x[0]=>c) = "4"; $xavp(x[0]=>c) = "5";',
            "$xavp(x=>a) $xavp(x=>c) $xavp(x[0]=>c[1]) $xavp(x=>c[*])",
            "1 5 4 5, 4",
        ),
        ('$xavp(z) = "p"; $xavp(z) = "q";', "$xavp(z) $xavp(z[1])", "q p"),
        (
            '$xavp(p=>a) = "1"; $xavp(p=>a) = "2"; $xavp(p=>a) = $null;',
            "$xavp(p=>a) $xavp(p[1]=>a)",
            "<null> 1",
        ),
        (
            '$xavp(p=>a) = "1"; $xavp(p=>a) = "2"; $xavp(p) = $null;',
            "$xavp(p=>a) $xavp(p[1]=>a)",
            "1 <null>",
        ),
        ('$xavp(q[0]=>a) = "1";', "$xavp(q=>a)", "<null>"),
        ('$xavp(x=>a) = "1"; $xavp(x=>a) = "2"; $xavp(x[*]) = $null;', "$xavp(x=>a)", "<null>"),
        ('$xavu(u=>a) = "1"; $xavu(u=>a) = "2";', "$xavu(u=>a)", "2"),
    ],
)
def test_an_xavp_is_a_stack_of_records(show, statements, text, printed):
    assert show(text, before=statements) == printed


# Assignments.  Each line is what Kamailio 5.6.3 printed.


@pytest.mark.parametrize(
    ("statements", "text", "printed"),
    [
        ('$rU = "carol";', "$ru|$rU", "sip:carol@example.com;transport=udp|carol"),
        ('$rd = "h.example";', "$ru|$rd", "sip:bob@h.example;transport=udp|h.example"),
        ("$rp = 5099;", "$ru|$rp", "sip:bob@example.com:5099;transport=udp|5099"),
        ('$rp = "1"; $rp = $null;', "$ru|$rp", "sip:bob@example.com;transport=udp|5060"),
        ("$rU = $null;", "$ru|$rU", "sip:example.com;transport=udp|<null>"),
        ('$rU = "";', "$ru|$rU", "sip:example.com;transport=udp|<null>"),
        ("$rU = 5;", "$ru", "sip:bob@example.com;transport=udp"),
        ("$rd = $null;", "$ru", "sip:bob@example.com;transport=udp"),
        ("$ru = $null;", "$ru", "sip:bob@example.com;transport=udp"),
        ("$ru = 5;", "$ru", "sip:bob@example.com;transport=udp"),
        (
            '$ru = "sip:x:pw@y.z:99;transport=tls;a=b?h=1"; $rU = "n"; $rd = "d.d"; $rp = 1;',
            "$ru|$rU|$rd|$rp|$rP",
            "sip:n:pw@d.d:1;transport=tls;a=b?h=1|n|d.d|1|tls",
        ),
        ('$ru = "sip:a@b";', "$ru|$rU|$rp|$rP", "sip:a@b|a|5060|UDP"),
        ('$ru = "sip:a@b";', "$ou|$oU|$od", "sip:bob@example.com;transport=udp|bob|example.com"),
        ('$ru = "sip:a@b";', "$sel(ruri.user)|$sel(next_hop)", "a|sip:a@b"),
        ('$ru = "sip:a@b";', "$sel(msg.request.uri)", "sip:bob@example.com;transport=udp"),
        (
            '$du = "sip:1.2.3.4:5;transport=tcp";',
            "$du|$dd|$dp|$dP|$nh(u)|$nh(d)|$sel(dst_uri)",
            "sip:1.2.3.4:5;transport=tcp|1.2.3.4|5|tcp|"
            "sip:1.2.3.4:5;transport=tcp|1.2.3.4|sip:1.2.3.4:5;transport=tcp",
        ),
        ('$du = "sip:1.2.3.4"; $du = $null;', "$du|$dd", "<null>|<null>"),
        ('$du = "x";', "$du|$dd", "x|<null>"),
        ("", "$nh(u) $nh(d) $nh(P)", "sip:bob@example.com;transport=udp example.com udp"),
        ('$fU = "zed"; $fu = "sip:q@w"; $fn = "N";', "$fU|$fn", 'alice|"Alice A."'),
        ('$tu = "sip:t@w"; $td = "d"; $tn = "N";', "$tu|$tn", "sip:bob@biloxi.example|<null>"),
        ("$mf = 5;", "$mf $mF", "5 00000005"),
        ('$mf = 5; $mf = "0x10";', "$mf", "5"),
        ("$mf = 5; $mf = $null;", "$mf", "0"),
        ("$sf = 3; $bf = 9;", "$sF $bF", "00000003 00000009"),
        ('$fs = "udp:127.0.0.1:5060"; $br = "sip:b@r";', "$fs $br", "udp:127.0.0.1:5060 sip:b@r"),
        ("$xavi(WhatEver=>FoO) = 2;", "$xavi(whatever=>foo)", "2"),
        ("$xavi(a[0]=>b) = 1;", "$xavi(a=>b)", "<null>"),
    ],
)
def test_what_is_assigned_to_a_variable_of_the_message_is_read_back(
    show, statements, text, printed
):
    assert show(text, before=statements) == printed


def test_a_reply_has_no_request_uri_to_assign_to(show, reply):
    assert show("[$ru] [$rU]", reply, before='$ru = "sip:a@b"; $rU = "x";') == "[<null>] [<null>]"


def test_the_keyword_uri_is_the_one_assigned(log):
    assert log('$ru = "sip:n@w"; if (uri == "sip:n@w") xinfo("new");') == ["new"]


def test_an_assignment_ends_with_its_packet(script, invite):
    runner = script('request_route { xinfo("$rU $du"); $rU = "x"; $du = "sip:y"; }')
    assert [runner.feed(invite), runner.feed(invite)] == [["bob <null>"]] * 2


@pytest.mark.parametrize("name", ["rP", "ou", "dd", "ds", "ft", "ci", "ua", "si", "rm", "mb"])
def test_these_can_only_be_read(refusal, name):
    assert f"${name} can only be read" in refusal(f"request_route {{ ${name} = 1; }}")


@pytest.mark.parametrize(
    ("transport", "printed"), [(";transport=TcP", "TcP TcP"), ("", "UDP UDP"), (";lr", "UDP UDP")]
)
def test_the_transport_of_the_request_uri_is_given_as_it_is_named(show, invite, transport, printed):
    assert show("$rP $oP", invite.replace(";transport=udp", transport, 1)) == printed


def test_varset_gives_a_variable_its_first_value(script, invite):
    runner = script(
        'modparam("pv", "varset", "a=i:1") modparam("pv", "varset", "b=s:text")\n'
        'request_route { xinfo("$var(a) $var(b) $var(c)"); $var(a) = 7; }'
    )
    assert [runner.feed(invite), runner.feed(invite)] == [["1 text 0"], ["7 text 0"]]


def test_varset_counts_for_timer_routes_too(script):
    runner = script('modparam("pv", "varset", "a=i:1") request_route { exit; }')
    assert runner.worker.new_state().variables["a"] == 1


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("$msg(fline)", "INVITE sip:bob@example.com;transport=udp SIP/2.0"),
        ("$(msg(lpart){s.substr,0,3}) $(msg(hdrs){s.substr,0,3})", "Via Via"),
        ("$(msg(body){s.rtrim}) $mts $sid", "v=0 rq 0"),
        ("$K(IPv4) $K(INET6) $K(UDP) $K(WSS)", "2 10 1 6"),
        ("[$err.class] [$snd(ip)] [$rcv(proto)]", "[<null>] [<null>] [<null>]"),
        ("$expires(min) $expires(max)", "<null> <null>"),
        ("$RAu $RAut", "sip:10.0.0.2:5061 sip:10.0.0.2:5061;transport=udp"),
    ],
)
def test_further_pseudo_variables(show, text, printed):
    assert show(text) == printed


def test_expires_is_that_of_the_contacts_then_that_of_the_header(show, invite):
    contacts = invite.replace("q=0.5", "expires=20").replace("5070>", "5070>;expires=90")
    assert show("$expires(min) $expires(max)", contacts) == "20 90"
    header = invite.replace("Subject:", "Expires: 60\r\nSubject:")
    assert show("$expires(min) $expires(max)", header) == "60 60"


# Statistics


def test_received_packets_are_counted_with_the_one_that_asks(script, invite, reply):
    runner = script(
        'request_route { xinfo("$stat(rcv_requests) $stat(rcv_replies)"); }\n'
        'onreply_route { xinfo("$stat(rcv_requests) $stat(core:rcv_replies)"); }'
    )
    runs = [runner.feed(message) for message in (invite, invite, reply, invite)]
    assert runs == [["1 0"], ["2 0"], ["2 1"], ["3 1"]]


def test_what_is_never_sent_is_zero_and_what_has_no_meaning_is_null(show):
    text = "$stat(fwd_requests) $stat(err_replies) [$stat(shmem:used_size)] [$stat(nope)]"
    assert show(text) == "0 0 [<null>] [<null>]"


def test_refused_packets_are_the_dropped_requests(script, invite):
    runner = script('request_route { xinfo("$stat(drop_requests)"); }')
    runner.feed("junk")
    assert runner.feed(invite) == ["1"]


def test_requests_are_counted_by_method_and_replies_by_status(script, invite, reply):
    runner = script(
        'request_route { xinfo("$stat(rcv_requests_invite) $stat(rcv_requests_bye)"); }\n'
        'onreply_route { xinfo("$stat(rcv_replies_2xx) $stat(rcv_replies_2xx_invite)'
        ' $stat(rcv_replies_18x) $stat(rcv_replies_404) $stat(core:rcv_requests_invite)"); }'
    )
    bye = invite.replace("INVITE", "BYE")
    ringing = reply.replace("200 OK", "180 Ringing")
    runs = [runner.feed(message) for message in (invite, bye, invite, reply, reply, ringing)]
    assert runs == [["1 0"], ["1 1"], ["2 1"], ["1 1 0 0 2"], ["2 2 0 0 2"], ["2 2 1 0 2"]]


def test_a_statistic_named_at_run_time_is_counted_from_then_on(script, invite):
    runner = script('request_route { $var(n) = "invite"; xinfo("$stat(rcv_requests_$var(n))"); }')
    assert [runner.feed(invite) for _ in range(3)] == [["1"], ["2"], ["3"]]


def test_nothing_is_counted_by_method_when_no_script_asks(script, invite):
    runner = script('request_route { xinfo("$stat(rcv_requests)"); }')
    runner.feed(invite)
    assert not runner.worker.engine.tally.requests


@pytest.mark.parametrize(
    ("before", "text", "printed"),
    [
        ("", "$(hdr(Via)[9]) [$(avp(x)[*])]", "<null> [<null>]"),
        ("$avp(x) = 1; $avp(x) = 2;", "[$(avp(x)[*])] [$(avp(x)[5])]", "[2, 1] [<null>]"),
        ("$avp(x) = 1;", "[$(avp(x)[-1])]", "[<null>]"),
        ("", "[$(var(nope){s.len})] [$(null{s.len})]", "[1] []"),
        ("", "[$(ft{s.substr,1,0})] [$(ft{s.substr,-2,1})]", "[t1] [t]"),
        ("", "$timef(%Q)", "%Q"),
        ('$var(a) = "a,b,,c";', "[$(var(a){s.select,-1,,})] [$(var(a){s.select,2,,})]", "[c] []"),
        ('$var(a) = "a,b,,c";', "[$(var(a){s.select,9,,})] [$(var(a){s.count,,})]", "[] [3]"),
        ('$var(a) = "a,b,,c";', "[$(var(a){s.rm,b})] [$(var(a){s.numeric})]", "[a,,,c] []"),
        ('$var(a) = "a,b,,c";', "[$(var(a){s.before,,})] [$(var(a){s.after,,})]", "[a] [b,,c]"),
        ("", "[$(fu{uri.user})] [$(fu{uri.port})] [$(fu{uri.transport})]", "[alice] [] []"),
        ('$ru = "sip:a@b";', "[$(ru{uri.scheme})] [$(ru{uri.host})]", "[sip] [b]"),
    ],
)
def test_what_kamailio_printed(show, before, text, printed):
    assert show(text, before=before) == printed
