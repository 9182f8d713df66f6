"""The attach protocol's frames: cut anywhere, they come back whole and in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.spec import attach

frames = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=10)


@given(frames, st.lists(st.integers(1, 50), min_size=1))
def test_frames_survive_any_cut(sent, sizes):
    stream = b"".join(attach.frame(kind, payload) for kind, payload in sent)
    decoder, got, at, turn = attach.Decoder(), [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        got += decoder.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert got == sent


def test_output_frames_are_dockers_multiplexed_stream():
    assert attach.frame(attach.STDERR, b"hi\n") == b"\x02\0\0\0\0\0\0\x03hi\n"


@pytest.mark.parametrize(
    "header", [b"\x01\x01\0\0\0\0\0\0", b"\x01\0\0\0\xff\xff\xff\xff", b"\x01\0\0\0\0\x01\0\x01", b"GET / HT"]
)
def test_a_header_of_no_peer_of_ours_ends_the_connection(header):
    with pytest.raises(ValueError, match="not a frame"):
        attach.Decoder().feed(header)
