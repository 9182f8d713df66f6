"""Netlink messages, and what of them is broken: nothing is read beyond its end, nothing foreign is believed."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable

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


class Scripted:
    """The kernel's end of a socket, with answers that no kernel gives on demand. Each turn: datagrams, or an error."""

    def __init__(self, *turns: Turn) -> None:
        self._turns = list(turns)
        self._waiting: list[bytes | OSError] = []
        self.asked = 0

    def sendto(self, data: bytes, _to: tuple[int, int]) -> None:
        self.asked += 1
        sequence = wire.HEADER.unpack_from(data)[3]
        self._waiting = [one if isinstance(one, OSError) else one(sequence) for one in self._turns.pop(0)]

    def recvmsg(self, *_: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        if not self._waiting:
            raise BlockingIOError
        found = self._waiting.pop(0)
        if isinstance(found, OSError):
            raise found
        return found, [], 0, (0, 0)

    def close(self) -> None: ...


def says(kind: int, payload: bytes = b"", flags: int = 0, ahead: int = 0) -> Answer:
    return lambda sequence: wire.message(kind, flags, sequence + ahead, payload)


Answer = Callable[[int], bytes]
Turn = list[Answer | OSError]
LINK = rtnetlink._IFINFO.pack(0, 0, 7, 0, 0) + wire.text(3, "seven")
ONE, DONE, INTERRUPTED = says(16, LINK), says(3, bytes(4)), 0x10
GOOD: Turn = [ONE, DONE]


def ask(script: Scripted) -> list[rtnetlink.Link]:
    netlink = wire.Socket(wire.ROUTE, made=script)  # type: ignore[arg-type]
    return [rtnetlink.Link(one.payload) for one in netlink.dump(rtnetlink.GETLINK, b"", "RTM_GETLINK")]


@pytest.mark.parametrize(
    "first",
    [
        [says(16, LINK, flags=INTERRUPTED), DONE],
        [ONE, says(3, bytes(4), flags=INTERRUPTED)],
        [ONE, says(4), ONE, DONE],  # NLMSG_OVERRUN
        [ONE, OSError(errno.ENOBUFS, "lost"), ONE, DONE],
    ],
)
def test_half_of_a_dump_is_asked_for_again(first: Turn) -> None:
    script = Scripted(first, first, GOOD)
    assert [link.name for link in ask(script)] == ["seven"]
    assert script.asked == 3


def test_a_dump_that_never_stands_still_is_an_error() -> None:
    with pytest.raises(OSError, match="it never stood still") as refused:
        half: Turn = [says(16, LINK, flags=INTERRUPTED), DONE]
        ask(Scripted(*[half] * 99))
    assert refused.value.errno == errno.EINTR


def test_answers_to_other_questions_are_passed_over() -> None:
    other = wire.text(3, "other")
    stray = [says(16, rtnetlink._IFINFO.pack(0, 0, 8, 0, 0) + other, ahead=number) for number in (-1, 1, 1 << 16)]
    assert [link.name for link in ask(Scripted([*stray, says(3, bytes(4), ahead=1), says(1), ONE, DONE]))] == ["seven"]


@pytest.mark.parametrize(
    "data",
    [
        lambda sequence: wire.message(16, 0, sequence, LINK)[:-5],  # cut short
        lambda sequence: struct.pack("=LHHLL", 4096, 16, 0, sequence, 0) + LINK,  # longer than it is
        lambda sequence: wire.message(16, 0, sequence, LINK[:7]),  # half of its header
        # An attribute within another that is longer than this one: linkinfo, kind.
        lambda sequence: wire.message(16, 0, sequence, LINK + wire.attribute(18, struct.pack("=HH", 64, 1) + b"veth")),
        lambda sequence: wire.message(16, 0, sequence, LINK + struct.pack("=HH", 2, 3)),  # shorter than its own header
        lambda sequence: wire.message(2, 0, sequence, struct.pack("=l", -1)),  # an error without whose
    ],
)
def test_what_contradicts_itself_is_refused(data: Answer) -> None:
    with pytest.raises(OSError) as refused:
        ask(Scripted([data, DONE]))
    assert refused.value.errno == errno.EBADMSG


def test_a_kernel_that_says_nothing_is_not_waited_for_without_end() -> None:
    with pytest.raises(OSError) as refused:
        ask(Scripted([ONE]))
    assert refused.value.errno == errno.ETIMEDOUT
