"""Alarms by mail, to an SMTP server on loopback."""

from __future__ import annotations

import pytest
from alarm_peers import CERTIFICATE, INVITE, event, events, mail_server, opened, records, server_tls
from servers import free_port

from homerd.errors import Rejected, RetryLater
from homerd_plugins._notify import Target

LONG = 20.0
PEOPLE = "from=homer@example.org&to=noc@example.org,voice+alarms@example.org"


@pytest.fixture
def box():
    with mail_server() as server:
        yield server


def plain(box, people=PEOPLE):
    return f"mail=>smtp://127.0.0.1:{box.port}/?{people}&tls=none"


def test_a_mail_says_what_happened_and_brings_the_packets(box):
    with opened(plain(box)) as sink:
        sink.write(records(event()))
    (message,) = box.messages
    assert box.recipients == [["noc@example.org", "voice+alarms@example.org"]]
    assert message["Subject"] == "[homerd] critical: scanner raised for 192.0.2.66"
    assert (message["From"], message["Auto-Submitted"]) == ("homer@example.org", "auto-generated")
    text, attached = message.iter_parts()
    assert text.get_content().splitlines() == [
        "critical: scanner raised for 192.0.2.66: 20 in 60 s, threshold 20, node capture1: known user agents",
        "",
        "  alarm        scanner",
        "  key          192.0.2.66",
        "  state        raised, critical",
        "  value        20, threshold 20",
        "  counted      20 since 2023-11-14 22:13:21.000",
        "  time         2023-11-14 22:13:21.500",
        "  source       192.0.2.66",
        "  description  known user agents",
        "  node         capture1",
        "  id           a1",
        "",
        "  time (UTC)               from                to                 what    Call-ID  agent",
        "  2023-11-14 22:13:20.250  192.0.2.66:5060     198.51.100.1:5060  INVITE  call-1   2001",
        "  2023-11-14 22:13:21.000  [2001:db8::1]:5060  198.51.100.1:5060  404     call-2   2001",
    ]
    assert attached.get_filename() == "packets.txt"
    assert attached.get_content() == (
        "--- scanner 192.0.2.66 2023-11-14 22:13:20.250 192.0.2.66:5060 -> 198.51.100.1:5060\n"
        + INVITE.rstrip().replace("\r\n", "\n")
        + "\n\n"
    )


def test_events_that_come_together_are_one_mail(box):
    sink = Target.from_script(plain(box)).sink()
    sink.start()
    for each in events(3):
        sink.add(each.as_record())
    assert sink.flush(LONG)
    sink.stop()
    (message,) = box.messages
    assert message["Subject"] == "[homerd] critical: scanner raised for 192.0.2.0 and 2 more"
    assert message["Message-ID"].endswith("@example.org>")
    text = message.get_body().get_content()
    assert [text.count(f"for 192.0.2.{number}:") for number in range(3)] == [1, 1, 1]
    assert (sink.notifications, sink.written) == (1, 3)


def test_what_the_network_sent_cannot_become_a_header_or_break_the_mail(box):
    payload = (
        "SIP/2.0 200 \x00 OK\r\n.\r\nQUIT\r\n"
        + "x" * 3000
        + b"\xff".decode("utf-8", "surrogateescape")
    )
    awkward = event(key="a\r\nBcc: x@example.org\n\ud800é", evidence=(event().evidence[0],))
    record = awkward.as_record()
    record["evidence"][0]["payload"] = payload
    with opened(plain(box)) as sink:
        sink.write([record])
    (message,) = box.messages
    assert message["Bcc"] is None
    assert " ".join(message["Subject"].split()) == (
        "[homerd] critical: scanner raised for a Bcc: x@example.org \ufffdé"
    )
    attached = next(message.iter_attachments()).get_content()
    assert "\n.\nQUIT\n" + "x" * 3000 + "\ufffd" in attached


def test_the_limit_counts_mails(box):
    with opened(f"{plain(box)};rate=2") as sink:
        for batch in range(4):
            sink.write(records(event(id=f"b{batch}"), event(id=f"c{batch}")))
    assert (len(box.messages), sink.notifications, sink.summarised) == (2, 2, 4)


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_password_goes_over_tls(scheme):
    options = (
        {"tls_context": server_tls(), "auth_require_tls": True}
        if scheme == "smtp"
        else {"ssl_context": server_tls(), "auth_require_tls": False}
    )
    with mail_server(**options) as box:
        target = f"mail=>{scheme}://homer:right@localhost:{box.port}/?{PEOPLE}&ca={CERTIFICATE}"
        with opened(target) as sink:
            sink.write(records(event()))
    assert len(box.messages) == 1
    assert box.logins[0][:2] == ("homer", "right")


def test_a_certificate_nobody_vouches_for_is_refused_unless_it_is_not_to_be_checked():
    with mail_server(tls_context=server_tls()) as box:
        target = f"mail=>smtp://localhost:{box.port}/?{PEOPLE}"
        with opened(target) as sink, pytest.raises(RetryLater, match="CERTIFICATE_VERIFY_FAILED"):
            sink.write(records(event()))
        with opened(f"{target}&verify=0") as sink:
            sink.write(records(event()))
    assert len(box.messages) == 1


def test_a_server_without_tls_is_not_told_the_password(box):
    target = f"mail=>smtp://homer:secret99@127.0.0.1:{box.port}/?{PEOPLE}"
    with (
        opened(target) as sink,
        pytest.raises(RetryLater, match=r"STARTTLS .*: tls=none does without"),
    ):
        sink.write(records(event()))
    assert box.logins == []


def test_a_wrong_password_is_waited_for_and_not_shown():
    with mail_server(auth_require_tls=False) as box:
        target = f"mail=>smtp://homer:secret99@127.0.0.1:{box.port}/?{PEOPLE}&tls=none"
        with (
            opened(target) as sink,
            pytest.raises(RetryLater, match="the user is refused: 535") as raised,
        ):
            sink.write(records(event()))
    assert "secret99" not in str(raised.value)


def test_a_message_that_is_refused_for_good_is_rejected(box):
    box.data = "554 no alarms here"
    with opened(plain(box)) as sink, pytest.raises(Rejected, match="554 no alarms here") as raised:
        sink.write(records(*events(2)))
    assert raised.value.indices == [0, 1]


@pytest.mark.parametrize("answer", ["451 later", "452 full"])
def test_a_message_that_is_refused_for_now_is_waited_for(box, answer):
    box.data = answer
    with opened(plain(box)) as sink, pytest.raises(RetryLater, match=answer):
        sink.write(records(event()))


def test_recipients_that_are_refused_are_said_and_counted_while_the_others_get_the_mail(
    box, caplog
):
    box.refused = {"noc@example.org": "550 no such user"}
    with opened(plain(box)) as sink:
        sink.write(records(event()))
    assert box.recipients == [["voice+alarms@example.org"]]
    assert sink.refused_recipients == 1
    assert (
        'recipients refused sink=alarm_mail error="noc@example.org: 550 no such user"'
        in caplog.text
    )


@pytest.mark.parametrize(
    ("answer", "error"), [("550 no such user", Rejected), ("450 greylisted", RetryLater)]
)
def test_without_a_recipient_left_it_depends_on_why(box, answer, error):
    box.refused = {"noc@example.org": answer, "voice+alarms@example.org": answer}
    with opened(plain(box)) as sink, pytest.raises(error, match=answer):
        sink.write(records(event()))


def test_a_server_that_is_away_is_waited_for_by_its_address_alone():
    port = free_port()
    target = f"mail=>smtp://homer:secret99@127.0.0.1:{port}/?{PEOPLE}"
    with (
        opened(target) as sink,
        pytest.raises(RetryLater, match=f"smtp://127.0.0.1:{port}/.*refused") as raised,
    ):
        sink.write(records(event()))
    assert "secret99" not in str(raised.value)


def test_mails_wait_for_a_server_that_comes_back(tmp_path):
    with mail_server() as box:
        port = box.port
    target = Target.from_script(f"mail=>smtp://127.0.0.1:{port}/?{PEOPLE}&tls=none")
    sink = target.sink(first_delay=0.001)
    sink.spool_into(tmp_path, 1 << 20)
    sink.start()
    sink.add(event().as_record())
    sink.stop(0.0)
    assert sink.spooled == 1
    with mail_server(port=port) as box:
        again = target.sink()
        again.spool_into(tmp_path, 1 << 20)
        again.start()
        assert again.flush(LONG)
        again.stop()
    assert [message["Subject"] for message in box.messages] == [
        "[homerd] critical: scanner raised for 192.0.2.66"
    ]
