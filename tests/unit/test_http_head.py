"""The head of a request, beside Python's own server and h11: what we read is what they read, or less.

The column of Python's server is asked for in the test; that of h11 was recorded from 0.16.0.
"""

from __future__ import annotations

import io
import socket
import threading
from http.server import BaseHTTPRequestHandler

import pytest

from orlop.frontends.http import Exchange, Refused, Server, head

HOST = b"Host: d\r\n"


def get(more: bytes = b"", first: bytes = b"GET /a HTTP/1.1\r\n", host: bytes = HOST) -> bytes:
    return first + host + more + b"\r\n"


def post(more: bytes) -> bytes:
    return b"POST /a HTTP/1.1\r\n" + HOST + more + b"\r\n"


# What is sent; the status of ours, 200 for what is read; whether Python's server and h11 read it.
HEADS = {
    "plain": (get(), 200, True, True),
    "the old version": (b"GET /a HTTP/1.0\r\n\r\n", 200, True, True),
    "spaces around a value": (get(b"A: \t b c \t\r\n"), 200, True, True),
    "bytes above 127 in a value": (get(b"A: \xc3\xbc\r\n"), 200, True, True),
    "a value that is empty": (get(b"A:\r\n"), 200, True, True),
    "asked as a proxy is": (get(first=b"GET http://d/a?b=c HTTP/1.1\r\n"), 200, True, True),
    "an empty line before it": (b"\r\n" + get(), 400, False, False),
    "lines end in LF": (b"GET /a HTTP/1.1\nHost: d\n\n", 400, True, True),
    "one line ends in LF": (get(b"A: b\nContent-Length: 3\r\n"), 400, True, True),
    "a CR in a value": (get(b"A: b\rContent-Length: 3\r\n"), 400, True, False),
    "a CR in the first line": (get(first=b"GET /a\rb HTTP/1.1\r\n"), 400, False, False),
    "a line that goes on": (get(b"A: b\r\n c\r\n"), 400, True, True),
    "a first field that goes on": (get(b" A: b\r\n", host=b""), 400, True, False),
    "space before the colon": (get(b"Content-Length : 3\r\n"), 400, True, False),
    "a name with a space": (get(b"A b: c\r\n"), 400, True, False),
    "a field without a colon": (get(b"A\r\n"), 400, True, False),
    "a field without a name": (get(b": a\r\n"), 400, True, False),
    "a NUL in a value": (get(b"A: b\0c\r\n"), 400, True, False),
    "a NUL in a name": (get(b"A\0: b\r\n"), 400, True, False),
    "an escape in a value": (get(b"A: \x1b[2J\r\n"), 400, True, True),
    "no host": (get(host=b""), 400, True, False),
    "two hosts": (get(b"Host: e\r\n"), 400, True, False),
    "a host with a path": (get(host=b"Host: d/e\r\n"), 400, True, True),
    "one length": (post(b"Content-Length: 3\r\n"), 200, True, True),
    "two lengths": (post(b"Content-Length: 3\r\nContent-Length: 4\r\n"), 400, True, False),
    "one length twice": (post(b"Content-Length: 3\r\nContent-Length: 3\r\n"), 400, True, True),
    "a list of lengths": (post(b"Content-Length: 3, 3\r\n"), 400, True, True),
    "a length with a sign": (post(b"Content-Length: +3\r\n"), 400, True, False),
    "a length in another script": (post("Content-Length: ٣\r\n".encode()), 400, True, False),
    "a length of twenty digits": (post(b"Content-Length: 99999999999999999999\r\n"), 400, True, True),
    "chunks": (post(b"Transfer-Encoding: chunked\r\n"), 200, True, True),
    "chunks in capitals": (post(b"Transfer-Encoding: CHUNKED\r\n"), 200, True, True),
    "a length and chunks": (post(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), 400, True, True),
    "chunks twice": (post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400, True, False),
    "another coding": (post(b"Transfer-Encoding: gzip, chunked\r\n"), 400, True, False),
    "a coding with a tail": (post(b"Transfer-Encoding: chunked;a=b\r\n"), 400, True, False),
    "chunks of the old version": (b"POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, True, True),
    "two spaces": (get(first=b"GET  /a HTTP/1.1\r\n"), 400, True, False),
    "a tab": (get(first=b"GET\t/a HTTP/1.1\r\n"), 400, True, False),
    "no version": (b"GET /a\r\n\r\n", 400, True, False),
    "a space in the target": (get(first=b"GET /a b HTTP/1.1\r\n"), 400, False, False),
    "a NUL in the target": (get(first=b"GET /a\0 HTTP/1.1\r\n"), 400, True, False),
    "bytes above 127 in the target": (get(first=b"GET /\xc3\xbc HTTP/1.1\r\n"), 400, True, False),
    "a target that is no path": (get(first=b"GET a HTTP/1.1\r\n"), 400, True, True),
    "a fragment": (get(first=b"GET /a#b HTTP/1.1\r\n"), 400, True, True),
    "a method that is none": (get(first=b"G@T /a HTTP/1.1\r\n"), 400, True, False),
    "version 2.0": (get(first=b"GET /a HTTP/2.0\r\n"), 505, False, True),
    "version 1.2": (get(first=b"GET /a HTTP/1.2\r\n"), 505, True, True),
    "a version that is none": (get(first=b"GET /a HTTP/1.1x\r\n"), 400, False, False),
    "a version with zeros": (get(first=b"GET /a HTTP/01.1\r\n"), 400, True, False),
    "101 fields": (get(b"A: b\r\n" * 100), 431, False, True),
    "a long field": (get(b"A: " + b"b" * 70_000 + b"\r\n"), 431, False, True),
    "many long fields": (get((b"A: " + b"b" * 60_000 + b"\r\n") * 5), 431, True, True),
    "a long target": (get(first=b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n"), 414, False, True),
}  # fmt: skip


def ours(data: bytes) -> int:
    try:
        found = head.read(io.BufferedReader(io.BytesIO(data)))
    except Refused as wrong:
        assert wrong.why
        return wrong.status
    assert found is not None
    return 200


class _Python(BaseHTTPRequestHandler):
    """Python's reader of heads without a connection."""

    def __init__(self, data: bytes) -> None:
        self.rfile, self.wfile = io.BytesIO(data), io.BytesIO()
        self.client_address = ("", 0)
        self.raw_requestline = self.rfile.readline(65537)
        self.reads = len(self.raw_requestline) < 65537 and self.parse_request()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_read_as_others_read_it_or_refused(name: str) -> None:
    """red: with any part of head.py's two expressions wider, and without each of its checks (length, host, chunks)."""
    data, status, python, h11 = HEADS[name]
    assert ours(data) == status
    assert _Python(data).reads is python
    assert status != 200 or h11, "we read nothing that h11 refuses"


def test_what_is_read_says_what_was_sent() -> None:
    fields = b"hOST: y\r\nX-A: 1 \r\nx-a: 2,\t3\r\nConnection: a, Close\r\n"
    data = b"GET http://x:80/v1.50//a%2Fb?c=%20d&e HTTP/1.1\r\n" + fields + b"\r\n"
    found = head.read(io.BufferedReader(io.BytesIO(data)))
    assert found is not None
    assert (found.method, found.path, found.query, found.authority) == ("GET", "/v1.50//a%2Fb", "c=%20d&e", "x:80")
    assert (found.headers.get("X-a"), found.headers.get_all("x-A")) == ("1", ["1", "2,\t3"])
    assert list(found.headers.tokens("X-A")) == ["1", "2", "3"]
    assert "HOST" in found.headers and "Origin" not in found.headers and found.headers.get("Origin") == ""
    assert (found.length, found.stays) == (0, False)
    assert head.read(io.BufferedReader(io.BytesIO(b""))) is None


@pytest.mark.parametrize("cut", range(1, len(get(b"A: b\r\n"))))
def test_a_head_that_ends_early_is_no_request(cut: int) -> None:
    assert ours(get(b"A: b\r\n")[:cut]) == 400


class _Echo(Exchange):
    def handle_request(self) -> None:
        if self.place == "/broken":
            self.answer(200, {"Location": "/a\r\nSet-Cookie: b"})
        elif self.place == "/stream":
            self.stream(200, {}, iter([b"a", b"", b"bc"]))
        elif self.place == "/none":
            self.answer(204)
        else:
            self.answer_json(200, {"place": self.place, "query": self.query, "body": len(self.body(1000))})


def asked(data: bytes) -> bytes:
    """Send bytes to a server, end the sending side, and return all that comes back."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = Server(listener, _Echo, None)
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stream:
                stream.sendall(data)
                stream.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: stream.recv(65536), b""))
        finally:
            server.stop()
            thread.join()


CHUNKED = post(b"Transfer-Encoding: chunked\r\n")


@pytest.mark.parametrize(
    "body",
    [
        b"3\nabc\r\n0\r\n\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"0\r\nContent-Length 5\r\n\r\n",
        b"0\r\n" + b"A: b\r\n" * 101 + b"\r\n",
        b"0\r\nA: b\n\r\n",
    ],
)
def test_chunks_are_read_as_strictly(body: bytes) -> None:
    """red: with the reader of before, which took LF for an end, space around a length, and trailers for ever."""
    answer = asked(CHUNKED + body + get())
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))


def test_requests_follow_each_other_on_a_connection() -> None:
    sent = CHUNKED + b"2;a=b\r\nab\r\n0\r\nA: b\r\n\r\n" + post(b"Content-Length: 3\r\n") + b"abc" + get()
    answers = asked(sent + get(first=b"HEAD /stream HTTP/1.1\r\n") + get(first=b"GET /none HTTP/1.1\r\n") + get())
    assert [part[:3] for part in answers.split(b"HTTP/1.1 ")[1:]] == [b"200"] * 4 + [b"204", b"200"]
    assert [size in answers for size in (b'"body":2', b'"body":3', b'"body":0')] == [True] * 3
    assert b"0\r\n\r\nHTTP/1.1 204" not in answers, "an answer to HEAD has no body, not even an empty one in chunks"
    assert b"Content-Length" not in answers.split(b"HTTP/1.1 204")[1].partition(b"\r\n\r\n")[0]


def test_a_header_of_an_answer_is_one_line() -> None:
    answer = asked(get(first=b"GET /broken HTTP/1.1\r\n"))
    assert answer.startswith(b"HTTP/1.1 400 ") and b"Set-Cookie" not in answer


def test_who_asks_with_the_old_version_gets_what_he_can_read() -> None:
    answer = asked(b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nabc") and b"Connection: close\r\n" in answer and b"chunked" not in answer
