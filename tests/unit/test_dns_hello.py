"""Whom a client means to speak to, by its first bytes; the hellos are those of Python's own TLS."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.network.dns import hello


def client_hello(name: str | None) -> bytes:
    """Return the first bytes that OpenSSL says to a server of this name."""
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def in_records(data: bytes, size: int) -> bytes:
    """Return one record of TLS as several, with `size` bytes each."""
    body = data[5:]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@pytest.mark.parametrize("size", [1, 3, 100, 16384])
def test_the_server_name_of_tls_is_read_however_it_comes(size: int) -> None:
    whole = in_records(client_hello("Api.Example.test"), size)
    for end in range(len(whole)):
        assert hello.read(whole[:end]) is None
    told = hello.read(whole)
    assert told is not None
    assert (told.protocol, told.name) == ("tls", "api.example.test")


def test_tls_without_a_name() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    told = hello.read(outgoing.read())
    assert told is not None
    assert (told.protocol, told.name) == ("tls", "")


def _with_names(*names: bytes) -> bytes:
    def sized(data: bytes, size: int) -> bytes:
        return len(data).to_bytes(size, "big") + data

    listed = [sized(b"\0" + sized(name, 2), 2) for name in names]
    extensions = b"".join(b"\0\0" + sized(one, 2) for one in listed)
    body = b"\3\3" + bytes(32) + b"\0" + sized(b"\x13\1", 2) + b"\1\0" + sized(extensions, 2)
    message = b"\1" + sized(body, 3)
    return b"\x16\3\1" + sized(message, 2)


def test_a_made_hello_is_read() -> None:
    told = hello.read(_with_names(b"a.test"))
    assert told is not None
    assert told.name == "a.test"


@pytest.mark.parametrize(
    "data",
    [
        _with_names(b"a.test", b"b.test"),
        _with_names(b"\xc3\xa4.test"),
        _with_names(b"a.test")[:-3] + b"\xff\xff\xff",
        b"\x16\3\1\0\5\2\0\0\1\0",  # a ServerHello
        b"\x16\2\1\0\5",
        b"\x16\3\1\0\0",
        b"\x16\3\1\0\4\1\xff\xff\xff",  # of 16 MB
        b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        b"GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"GET http://a.test@b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"CONNECT b.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\n b.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\rHost: b.test\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /" + b"a" * hello.BYTES_MAX,
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        hello.read(data)


@pytest.mark.parametrize(
    ("data", "protocol", "name"),
    [
        (b"GET / HTTP/1.1\r\nAccept: */*\r\nhOST:  A.Test.:8080 \r\n\r\n", "http", "a.test"),
        (b"POST http://a.test:80/x?y HTTP/1.1\nHost: a.test\n\nbody", "http", "a.test"),
        (b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", "http", "a.test"),
        (b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", "http", "a.test"),
        (b"GET / HTTP/1.0\r\n\r\n", "http", ""),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "", ""),
        (b"EHLO me\r\n", "", ""),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", "", ""),  # PostgreSQL asks for TLS
        (b"A" * 30, "", ""),
    ],
)
def test_hosts_and_others(data: bytes, protocol: str, name: str) -> None:
    told = hello.read(data)
    assert told is not None
    assert (told.protocol, told.name) == (protocol, name)


@pytest.mark.parametrize(
    "data", [b"", b"G", b"GET", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: a.test\r\n", b"\x16", b"\x16\3\1"]
)
def test_half_a_message_is_waited_for(data: bytes) -> None:
    assert hello.read(data) is None


@given(st.binary(max_size=400), st.integers(0, 600), st.binary(max_size=8))
def test_any_bytes_are_read_or_refused(tail: bytes, at: int, inside: bytes) -> None:
    good = _with_names(b"a.test")
    for data in (tail, b"\x16\3\1" + tail, b"GET " + tail, good[:at] + inside + good[at:]):
        try:
            found = hello.read(data)
        except ValueError:
            continue
        assert found is None or found.protocol in ("tls", "http", "")
