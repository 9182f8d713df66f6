"""Frames of WebSockets: whole, in pieces, broken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.frontends.docker import websocket
from orlop.frontends.docker.websocket import Broken, Codec


def frame(kind: int, payload: bytes, mask: bytes = b"\1\2\3\4") -> bytes:
    """Return a client's frame, as RFC 6455, 5.2 draws it."""
    size = len(payload)
    head = bytes((0x80 | kind,))
    if size < 126:
        head += bytes((0x80 | size,))
    elif size < 65536:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 17), st.binary(min_size=4, max_size=4))
def test_payloads_arrive_however_they_are_cut(payloads: list[bytes], step: int, mask: bytes) -> None:
    data = b"".join(frame(2, payload, mask) for payload in payloads)
    codec = Codec()
    found = b"".join(codec.decode(data[at : at + step]) for at in range(0, len(data), step))
    assert found == b"".join(payloads)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, websocket.MESSAGE_BYTES_MAX])
def test_every_form_of_length(size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert Codec().decode(frame(1, payload)) == payload
    sent = Codec().encode(payload)
    assert sent.endswith(payload) and sent[0] == 0x82 and not sent[1] & 0x80


def test_control_frames_are_answered() -> None:
    codec = Codec()
    assert codec.decode(frame(9, b"are you there") + frame(2, b"x") + frame(10, b"")) == b"x"
    assert bytes(codec.replies) == b"\x8a\x0dare you there"
    codec.replies.clear()
    assert codec.decode(frame(8, b"\x03\xe8bye") + frame(2, b"late")) == b""
    assert codec.closed and bytes(codec.replies) == b"\x88\x02\x03\xe8"
    assert Codec().farewell() == b"\x88\x02\x03\xe8"


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\x01x",  # without a mask
        b"\xc2\x81\0\0\0\0x",  # a reserved bit
        b"\x83\x81\0\0\0\0x",  # a kind that there is none of
        b"\x89\xfe\x00\x7e",  # a ping that is too long
        b"\x82\xff" + (1 << 40).to_bytes(8, "big"),
    ],
)
def test_what_is_no_frame_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(Broken):
        Codec().decode(data)
