from collections import Counter

import pytest

from homerd.core.http import MAX_BODY, HttpStream, looks_like_http
from homerd.plugin.hookspecs import HttpAnswer

GET = b"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"


@pytest.fixture
def stream():
    """A connection whose requests are kept; each is answered with what stands in `answers`."""

    class Stream(HttpStream):
        def __init__(self):
            self.requests = []
            self.answers = [HttpAnswer(200, "OK", (("Content-Type", "text/plain"),), b"hi")]
            self.counts = Counter()
            ends = (2, b"\x7f\0\0\1", 1111, b"\x7f\0\0\2", 80)
            super().__init__(ends, self.answer, self.counts)

        def answer(self, request):
            self.requests.append(request)
            return self.answers[0], "answered"

    return Stream()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"GET / HTTP/1.1", True), (b"HEAD /", True), (b"H", None), (b"HE", None), (b"HEP3", False), (b"HEA", None),
        (b"OPTION", None), (b"\x02\x10", False), (b"garbage", False), (b"", None),
    ],
)  # fmt: skip
def test_the_first_bytes_tell_http_from_hep(data, found):
    assert looks_like_http(data) is found


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_requests_are_answered_wherever_the_stream_is_cut(stream, size):
    data = POST + GET
    sent = b"".join(stream.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert sent == b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi" * 2
    first, second = stream.requests
    assert (first.method, first.target, first.body) == ("POST", "/p", b"abc")
    assert first.headers == (("Host", "h"), ("Content-Length", "3"))
    assert (first.src, first.src_port) == (b"\x7f\0\0\1", 1111)
    assert (second.method, second.target, second.body) == ("GET", "/a?b", b"")
    assert not stream.pending
    assert not stream.closing


def test_a_request_is_pending_until_it_is_whole(stream):
    assert stream.feed(POST[:20]) == b""
    assert stream.pending
    stream.feed(POST[20:])
    assert not stream.pending


@pytest.mark.parametrize(
    ("data", "status", "counted"),
    [
        (b"GET nonsense\r\n\r\n", b"400", "bad_request"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400", "bad_request"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000, b"431", "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", b"400", "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\n\r\n" + b"a" * (MAX_BODY + 1), b"413", "too_large"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_and_ends_the_connection(stream, data, status, counted):
    assert stream.feed(data).startswith(b"HTTP/1.1 " + status)
    assert stream.closing
    assert stream.counts == {counted: 1}
    assert stream.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        HttpAnswer(99), HttpAnswer(2000), HttpAnswer(200, "OK", (("A b", "c"),)), HttpAnswer(200, "OK", (("A", "b\r\nC: d"),)),
    ],
)  # fmt: skip
def test_an_answer_that_http_has_no_place_for_becomes_500(stream, answer):
    stream.answers[0] = answer
    assert stream.feed(GET).startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert stream.counts["bad_answer"] == 1


def test_a_reason_cannot_carry_headers(stream):
    stream.answers[0] = HttpAnswer(200, "OK\r\nSet-Cookie: a")
    assert stream.feed(GET).startswith(b"HTTP/1.1 200 OK  Set-Cookie: a\r\n")


@pytest.mark.parametrize(
    ("request_line", "status"), [(b"HEAD / HTTP/1.1", 200), (b"GET / HTTP/1.1", 204)]
)
def test_where_no_body_may_stand_none_is_sent(stream, request_line, status):
    stream.answers[0] = HttpAnswer(status, "Fine", (), b"body")
    assert stream.feed(request_line + b"\r\nHost: h\r\n\r\n").endswith(b"\r\n\r\n")
    assert not stream.closing


def test_who_asks_whether_to_go_on_is_told_so(stream):
    sent = stream.feed(
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
    )
    assert sent.startswith(b"HTTP/1.1 100")
    assert stream.feed(b"a").startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"]
)
def test_a_connection_ends_when_its_client_wants_that(stream, data):
    assert b"hi" in stream.feed(data)
    assert stream.closing


@pytest.mark.parametrize("cut", range(len(POST)))
def test_no_byte_that_changes_makes_it_raise(stream, cut):
    stream.feed(POST[:cut] + b"\0" + POST[cut:])
