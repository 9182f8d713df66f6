"""`orlop logs`: what a container wrote, now and as it goes on."""

from __future__ import annotations

import os
import select
import sys
import time

from ....spec import attach
from ....spec.errors import Invalid, Unavailable
from ..command import Command, Invocation
from ..flags import BOOL, STRING, BadValue, Flag
from ..units import epoch_ns
from ..values import parse_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

RECEIVE_BYTES = 256 * 1024


def _logs(invocation: Invocation) -> int:
    options = invocation.options
    (container,) = invocation.arguments
    args = {
        "container": container,
        "follow": options["follow"],
        "tail": _tail(options["tail"]),
        "since_ns": _moment("--since", options["since"]),
        "until_ns": _moment("--until", options["until"]),
        "timestamps": options["timestamps"],
    }
    with invocation.connect() as engine:
        engine.call("containers.logs", args)
        _copy(engine.stream, container)
    return 0


def _copy(stream: socket, container: str) -> None:
    sys.stdout.flush()
    decoder = attach.Decoder()
    while data := stream.recv(RECEIVE_BYTES):
        try:
            frames = decoder.feed(data)
        except ValueError as wrong:
            raise Unavailable("read", f"the log of container {container}", str(wrong)) from None
        for kind, payload in frames:
            if kind in (attach.STDOUT, attach.STDERR):
                _write_all(1 if kind == attach.STDOUT else 2, payload)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # whoever shares our output made it so
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


def _tail(text: str) -> int | None:
    """Return the number of lines, None for all. What is no number means all to docker; it is an error here."""
    if text == "all":
        return None
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    if text.startswith("-") and text[1:].isdigit():
        return None  # docker: a negative number is all
    raise Invalid("read", f"--tail {text}", "it is not a number of lines", hint="write --tail 100, or --tail all")


def _moment(flag: str, text: str) -> int | None:
    """Return nanoseconds since the epoch: a duration back from now, seconds since the epoch, or RFC 3339."""
    if not text:
        return None
    seconds, point, fraction = text.partition(".")
    if seconds.isascii() and seconds.isdigit() and (not point or fraction.isdigit()) and len(text) < 32:
        return int(seconds) * 1_000_000_000 + int((fraction + "0" * 9)[:9])
    try:
        return time.time_ns() - parse_duration(text)
    except BadValue:
        pass
    moment = epoch_ns(text)
    if moment is None:
        raise Invalid(
            "read",
            f"{flag} {text}",
            "it is neither a time nor a duration",
            hint="write 10m, 2026-01-31T12:00:00Z, or seconds since 1970",
        )
    return moment


LOGS = Command(
    _logs,
    "Fetch the logs of a container",
    "[OPTIONS] CONTAINER",
    flags=(
        Flag("follow", "f", BOOL, "Follow log output", default=False),
        Flag("since", "", STRING, 'Show logs since a time ("2026-01-31T12:00:00Z") or a while ago ("42m")', default=""),
        Flag("tail", "n", STRING, "Number of lines to show from the end of the logs", default="all"),
        Flag("timestamps", "t", BOOL, "Show timestamps", default=False),
        Flag(
            "until", "", STRING, 'Show logs before a time ("2026-01-31T12:00:00Z") or a while ago ("42m")', default=""
        ),
    ),
    arguments=(1, 1),
    aliases=("container logs", "logs"),
    refused=frozenset(("details",)),
)
