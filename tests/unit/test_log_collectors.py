"""What a collector of events answers, broken and hostile: the line waits for the next try, and the shipper lives."""

from __future__ import annotations

import socket
import threading

import pytest

from orlop.supervise import logship
from orlop.supervise.logread import Entry

SETTINGS = dict.fromkeys(("token", "gzip", "source", "sourcetype", "index", "tag", "hostname"), "")
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BROKEN = {
    "nothing": b"",
    "noise": b"\x00\xff" * 500,
    "half a line": b"HTTP/1.1 2",
    "no number": b"HTTP/1.1 two OK\r\n\r\n",
    "a number of nothing": b"HTTP/1.1 99 x\r\n\r\n",
    "a long line": b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n",
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"\r\n",
    "a long header": b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000 + b"\r\n\r\n",
    "a broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "a negative chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n",
    "letters of no encoding": b"HTTP/1.1 500 \xff\xfe\x80\r\nContent-Length: 0\r\n\r\n",
}
TAKEN = {
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
    "more than is read": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 200_000,
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
}


@pytest.fixture
def collector():
    """Answers one request on each connection with what is told, and closes it."""
    answers, seen = [], []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while not data.endswith(b"}") and (more := connection.recv(65536)):
                    data += more
                seen.append(data)
                try:
                    connection.sendall(answers.pop(0) if answers else GOOD)
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1)
                except OSError:
                    pass  # it has gone: that was enough for it

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"tcp://127.0.0.1:{listener.getsockname()[1]}", answers, seen
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def sink_of(address):
    return logship.Splunk({**SETTINGS, "address": address, "format": "inline", "level": "-1"})


def entry():
    return Entry(b"a line\n", "stdout", "2023-11-14T22:13:20.000000001Z", 1_700_000_000_000_000_001)


@pytest.mark.parametrize("name", BROKEN)
def test_a_line_waits_for_a_collector_that_speaks_sense(collector, name):
    address, answers, seen = collector
    answers.append(BROKEN[name])
    sink = sink_of(address)
    try:
        with pytest.raises(OSError):
            sink.send(entry(), b"a line")
    finally:
        sink.close()
    sink.send(entry(), b"a line")
    sink.close()
    assert len(seen) == 2 and sink.refused == 0


@pytest.mark.parametrize("name", TAKEN)
def test_what_was_taken_is_not_sent_again_however_much_is_answered(collector, name):
    address, answers, seen = collector
    answers.append(TAKEN[name])
    sink = sink_of(address)
    sink.send(entry(), b"a line")
    sink.close()
    assert len(seen) == 1
