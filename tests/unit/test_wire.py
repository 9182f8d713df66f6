"""The native protocol's framing, and what a hostile peer can send."""

import os
import socket
import struct
import threading

import pytest

from orlop.frontends.native import wire
from orlop.spec import errors
from support.requests import receive_request


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_request_and_its_reply_cross(pair):
    client, server = pair
    wire.send_request(client, "containers.stop", {"container": "web", "timeout_s": 3})
    request = receive_request(server)
    assert request is not None
    assert (request.verb, request.args, request.fds) == ("containers.stop", {"container": "web", "timeout_s": 3}, [])
    wire.send_result(server, {"ä": [1, None]})
    assert wire.receive_reply(client) == ({"ä": [1, None]}, [])


def test_the_end_of_the_stream_between_messages_is_none(pair):
    client, server = pair
    client.close()
    assert receive_request(server) is None


def test_an_error_arrives_as_the_class_it_was(pair):
    client, server = pair
    wire.send_error(server, errors.Conflict("remove", "container web", "it is running", hint="stop it"))
    with pytest.raises(errors.Conflict, match="cannot remove container web: it is running") as caught:
        wire.receive_reply(client)
    assert caught.value.hint == "stop it"


def test_descriptors_ride_along_and_are_close_on_exec(pair):
    client, server = pair
    read_end, write_end = os.pipe()
    args: dict[str, object] = {"filler": "x" * 300_000}  # more than a socket's buffer holds
    sender = threading.Thread(target=wire.send_request, args=(client, "containers.run", args, [write_end]))
    sender.start()
    request = receive_request(server)
    sender.join()
    os.close(write_end)
    assert request is not None
    (received,) = request.fds
    assert not os.get_inheritable(received)
    os.write(received, b"through")
    os.close(received)
    assert os.read(read_end, 100) == b"through"
    os.close(read_end)


def test_nothing_more_is_sent_when_all_went_with_the_descriptors(pair):
    """A peer may have answered and gone by then; asking the kernel to send nothing would fail with EPIPE."""

    class Last(socket.socket):
        def sendall(self, data, flags=0):
            raise AssertionError(f"{len(data)} bytes were left")

    client, _ = pair
    with Last(fileno=client.detach()) as last, open(os.devnull) as null:
        wire.send_request(last, "x", {}, [null.fileno()])


def test_two_messages_in_one_packet_are_two(pair):
    client, server = pair
    one = b'{"verb":"a"}'
    client.sendall((len(one).to_bytes(4, "big") + one) * 2)
    first, second = receive_request(server), receive_request(server)
    assert first is not None and second is not None
    assert (first.verb, second.verb) == ("a", "a")


def test_peer_credentials_are_ours(pair):
    client, _ = pair
    assert wire.peer_credentials(client) == (os.getpid(), os.getuid(), os.getgid())


@pytest.mark.parametrize(
    ("sent", "cause"),
    [
        (b"\0\0", "the stream ended after 2 bytes"),
        (b"\0\0\0\x10{", "the stream ended after 5 bytes"),
        (b"\xff\xff\xff\xff", "it announces 4294967295 bytes, the limit is 4194304"),
        (b"\0\0\0\0", "not valid JSON"),
        (b"\0\0\0\x02\xff\xfe", "not valid JSON"),
        (b"\0\0\0\x02[]", 'not an object with "verb" and "args"'),
        (b'\0\0\0\x14{"verb":1,"args":{}}', 'not an object with "verb" and "args"'),
        (b'\0\0\0\x16{"verb":"x","args":[]}', 'not an object with "verb" and "args"'),
        (b'\0\0\0\x15{"verb":"x","verb":1}', "stands twice"),
        (b"\0\0\xc3\x50" + b"[" * 50_000, "nested too deeply"),
    ],
)
def test_a_malformed_request_is_refused(pair, sent, cause):
    client, server = pair
    client.sendall(sent)
    client.close()
    with pytest.raises(errors.Invalid, match="cannot read the request") as caught:
        receive_request(server)
    assert cause in caught.value.cause


@pytest.mark.parametrize(
    ("sent", "cause"),
    [
        (b"\0\0\0\x02{}", "neither a result nor an error"),
        (b"\0\0\0\x04null", "neither a result nor an error"),
        (b'\0\0\0\x0b{"other":12}', "not valid JSON"),
        (b"\0\0", "the stream ended after 0 of 2 bytes"),
        (b"\0\0\0\x10{", "the stream ended after 1 of 16 bytes"),
        (b"\xff\xff\xff\xff", "it announces 4294967295 bytes, the limit is 67108864"),
    ],
)
def test_a_malformed_reply_is_refused(pair, sent, cause):
    client, server = pair
    server.sendall(sent)
    server.close()
    with pytest.raises(wire.Malformed, match="the engine's reply") as caught:
        wire.receive_reply(client)
    assert cause in caught.value.cause


def test_descriptors_of_a_refused_reply_are_closed(pair):
    client, server = pair
    before = open_fds()
    with open(os.devnull) as null:
        for count, sent in ((1, b"\0\0\0\x02{}"), (1, b"\0\0\0\x02[}"), (30, b"\0\0\0\x02{}")):
            fds = struct.pack(f"{count}i", *[null.fileno()] * count)
            server.sendmsg([sent], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            with pytest.raises(wire.Malformed):
                wire.receive_reply(client)
    assert open_fds() == before


def test_an_engine_that_dies_before_its_reply_is_unavailable(pair):
    client, server = pair
    server.close()
    with pytest.raises(errors.Unavailable, match="the engine closed the connection"):
        wire.receive_reply(client)


def test_descriptors_of_a_refused_message_are_closed(pair):
    client, server = pair
    before = open_fds()
    with open(os.devnull) as null:
        fds = struct.pack("2i", null.fileno(), null.fileno())
        client.sendmsg([b"\0\0\0\x02[]"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    with pytest.raises(errors.Invalid):
        receive_request(server)
    assert open_fds() == before


def test_more_descriptors_than_the_bound_are_refused_and_closed(pair):
    client, server = pair
    before = open_fds()
    with open(os.devnull) as null:
        fds = struct.pack("30i", *[null.fileno()] * 30)
        client.sendmsg([b"\0\0\0\x02{}"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    with pytest.raises(errors.Invalid, match="more than 4 file descriptors"):
        receive_request(server)
    assert open_fds() == before
