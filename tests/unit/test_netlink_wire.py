"""Netlink messages, and what of them is broken: nothing is read beyond its end, nothing foreign is believed."""

from __future__ import annotations

import errno
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.linux.netlink import nftables, rtnetlink, wire


def test_attributes_come_back() -> None:
    data = wire.u32(1, 7) + wire.text(2, "orlop0") + wire.nested(3, wire.be16(1, 80), wire.u8(2, 9))
    found = wire.attributes(data)
    assert wire.number(found[1]) == 7
    assert wire.string(found[2]) == "orlop0"
    assert wire.attributes(found[3]) == {1: b"\0\x50", 2: b"\x09"}


@pytest.mark.parametrize(
    "data",
    [
        b"\x03\0\1\0",  # shorter than its own header
        b"\x08\0\1\0abc",  # longer than what is there
        b"\xff\xff\1\0abcd",
        wire.u32(1, 7) + b"\1\2",  # rubbish behind the last
    ],
)
def test_broken_attributes_are_refused(data: bytes) -> None:
    with pytest.raises(OSError) as refused:
        wire.attributes(data)
    assert refused.value.errno == errno.EBADMSG


@pytest.mark.parametrize("length", [0, 15, 17, 0xFFFFFFFF])
def test_a_message_with_a_wrong_length_is_refused(length: int) -> None:
    data = wire.HEADER.pack(length, 2, 0, 1, 0)
    with pytest.raises(OSError) as refused:
        list(wire.split(data))
    assert refused.value.errno == errno.EBADMSG


def test_messages_of_one_datagram_come_apart() -> None:
    data = wire.message(16, 2, 5, b"abc") + wire.message(3, 0, 5, b"")
    assert [(found.kind, found.sequence, found.payload) for found in wire.split(data)] == [(16, 5, b"abc"), (3, 5, b"")]


def test_a_refusal_has_the_kernels_words() -> None:
    words = wire.text(1, "Nexthop has invalid gateway")
    body = struct.pack("=l", -errno.ENETUNREACH) + wire.HEADER.pack(16, 24, 5, 1, 0) + words
    refused = wire.Refusal(wire.Message(2, 0x100 | 0x200, 1, body))
    assert (refused.errno, refused.words) == (errno.ENETUNREACH, "Nexthop has invalid gateway")


def test_a_refusal_with_the_whole_request_skips_it() -> None:
    request = wire.HEADER.pack(20, 24, 5, 1, 0) + b"\xff\xff\xff\xff"
    body = struct.pack("=l", -errno.EINVAL) + request + wire.text(1, "no")
    assert wire.Refusal(wire.Message(2, 0x200, 1, body)).words == "no"


@pytest.mark.parametrize("body", [b"", b"\0\0", struct.pack("=l", 5) + bytes(16)])
def test_a_broken_refusal_is_refused(body: bytes) -> None:
    with pytest.raises(OSError):
        wire.Refusal(wire.Message(2, 0, 1, body))


def test_an_attribute_has_a_largest_size() -> None:
    with pytest.raises(OverflowError):
        wire.attribute(1, bytes(70000))


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (wire.attributes, lambda data: list(wire.split(data)), *_OBJECTS):
        try:
            read(data)
        except OSError as refused:
            assert refused.errno == errno.EBADMSG


_OBJECTS = (
    rtnetlink.Link,
    rtnetlink.Address,
    rtnetlink.Route,
    rtnetlink.Neighbour,
    rtnetlink.Rule,
    nftables.Chain,
    lambda data: wire.Refusal(wire.Message(2, 0x200, 1, data)),
)


def test_what_another_process_sends_is_not_an_answer() -> None:
    # AF_NETLINK lets any process send to any port; only port 0 is the kernel.
    with wire.Socket(wire.ROUTE) as ours, wire.Socket(wire.ROUTE) as theirs:
        port = ours._socket.getsockname()[0]
        forged = wire.message(16, 0, ours._sequence + 1 & 0xFFFFFFFF, b"forged")
        try:
            theirs._socket.sendto(forged, (port, 0))
        except PermissionError:
            pass  # the kernel itself refuses it to whoever lacks CAP_NET_ADMIN
        found = ours.request(rtnetlink.GETLINK, 0, rtnetlink._IFINFO.pack(0, 0, 1, 0, 0), "RTM_GETLINK", "lo")
        assert all(answer.payload != b"forged" for answer in found)
        assert found


def test_a_name_that_is_no_address_is_an_error() -> None:
    with pytest.raises(OSError):
        rtnetlink.packed("10.0.0.256")
    with pytest.raises(ValueError, match="invalid literal"):
        rtnetlink.mac("zz:00")


def test_types_of_concatenations() -> None:
    assert nftables._type_of(["ipv4_addr", "inet_proto", "inet_service"]) == ((7 << 6 | 12) << 6 | 13, 12)
    assert len(nftables.fields(os.urandom(4), b"\6", b"\0\x50")) == 12
