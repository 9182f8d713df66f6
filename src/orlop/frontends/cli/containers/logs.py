"""`orlop logs`: what a container wrote, now and as it goes on."""

from __future__ import annotations

import os
import select
import sys

from ....spec import attach
from ....spec.errors import Invalid, Unavailable
from ..command import Command, Invocation
from ..flags import BOOL, LIST, STRING, Flag
from ..units import moment_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from ..flags import Options
    from .logfilter import Filter

RECEIVE_BYTES = 256 * 1024
SILENT_MAX = 5
_COLORS = (36, 33, 32, 35, 34)


def _logs(invocation: Invocation) -> int:
    options = invocation.options
    (container,) = invocation.arguments
    args = {
        "container": container,
        "follow": options["follow"],
        "tail": tail_lines(options["tail"]),
        "since_ns": moment_ns("--since", options["since"]),
        "until_ns": moment_ns("--until", options["until"]),
        "timestamps": options["timestamps"],
        "details": options["details"],
        "marks": options["follow"],
    }
    named = _Named(container, in_color=options["color"]) if options["names"] else None
    shown = _Shown(_filter(options), named)
    place: list[int] | None = None
    silent = 0
    while silent < SILENT_MAX:
        before = place
        with invocation.connect() as engine:
            engine.call("containers.logs", {**args, "place": place})
            place, has_ended = _copy(engine.stream, container, place, shown)
        # An engine that was killed leaves its socket behind: the container runs on, and the next engine tells what it
        # says. One that was stopped does not, and is not started again by who follows a log.
        if has_ended or not options["follow"] or not os.path.exists(invocation.paths.engine_socket):
            shown.end()
            return 0
        silent = silent + 1 if place == before else 0
    cause = f"{SILENT_MAX} engines ended before they told anything"
    raise Unavailable(
        "follow", f"the log of container {container}", cause, hint="look at their log: orlop engine status"
    )


def _filter(options: Options) -> Filter | None:
    """Return what chooses lines, None for all of them. Raises Invalid for what is no pattern."""
    if not options["grep"] and not options["json"]:
        return None
    from . import logfilter

    tests = [logfilter.matching(one) for one in options["grep"]]
    tests += [logfilter.with_field(one) for one in options["json"]]
    return logfilter.Filter(tests, options["timestamps"] + options["details"])


class _Shown:
    """What is done with output: lines are chosen, named and printed."""

    __slots__ = ("_chosen", "_named")

    def __init__(self, chosen: Filter | None, named: _Named | None) -> None:
        self._chosen = chosen
        self._named = named

    def __call__(self, fd: int, data: bytes) -> None:
        self._print(fd, self._chosen(fd, data) if self._chosen else data)

    def end(self) -> None:
        for fd in (1, 2) if self._chosen else ():
            self._print(fd, self._chosen.rest(fd) if self._chosen else b"")

    def _print(self, fd: int, data: bytes) -> None:
        if data:
            _write_all(fd, self._named(fd, data) if self._named else data)


class _Named:
    """Puts the container's name in front of each line, in a colour if asked, as podman's --names and --color do."""

    def __init__(self, name: str, *, in_color: bool) -> None:
        color = sum(name.encode()) % len(_COLORS)
        self._name = f"\x1b[{_COLORS[color]}m{name}\x1b[0m ".encode() if in_color else f"{name} ".encode()
        self._inside = [False, False, False]  # by descriptor: whether a line has begun

    def __call__(self, fd: int, data: bytes) -> bytes:
        out = b"".join(self._name + line for line in data.splitlines(keepends=True))
        out = out[len(self._name) :] if self._inside[fd] else out
        self._inside[fd] = not data.endswith(b"\n")
        return out


def _copy(stream: socket, container: str, place: list[int] | None, shown: _Shown) -> tuple[list[int] | None, bool]:
    """Print what comes; return up to which place of the log that was, and whether the log has ended."""
    sys.stdout.flush()
    decoder = attach.Decoder()
    while data := _receive(stream):
        try:
            frames = decoder.feed(data)
        except ValueError as wrong:
            raise Unavailable("read", f"the log of container {container}", str(wrong)) from None
        for kind, payload in frames:
            if kind in (attach.STDOUT, attach.STDERR):
                shown(1 if kind == attach.STDOUT else 2, payload)
            elif kind == attach.PLACE and not payload:
                return place, True
            elif kind == attach.PLACE:
                place = [int.from_bytes(payload[:8], "big"), int.from_bytes(payload[8:], "big")]
    return place, False


def _receive(stream: socket) -> bytes:
    try:
        return stream.recv(RECEIVE_BYTES)
    except ConnectionResetError:
        return b""


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # whoever shares our output made it so
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


def tail_lines(text: str) -> int | None:
    """Return the number of lines, None for all. What is no number means all to docker; it is an error here."""
    if text == "all":
        return None
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    if text.startswith("-") and text[1:].isdigit():
        return None  # docker: a negative number is all
    raise Invalid("read", f"--tail {text}", "it is not a number of lines", hint="write --tail 100, or --tail all")


LOGS = Command(
    _logs,
    "Fetch the logs of a container",
    "[OPTIONS] CONTAINER",
    flags=(
        Flag("color", "", BOOL, "With --names: the name in a colour", default=False),
        Flag("details", "", BOOL, "Show extra details provided to logs", default=False),
        Flag("follow", "f", BOOL, "Follow log output", default=False),
        Flag("grep", "", LIST, "Only lines that a regular expression is found in; of those that --tail leaves"),
        Flag("json", "", LIST, "Only lines that are JSON objects with this value: level=error, user.id=7"),
        Flag("names", "", BOOL, "The container's name in front of each line", default=False),
        Flag("since", "", STRING, 'Show logs since a time ("2026-01-31T12:00:00Z") or a while ago ("42m")', default=""),
        Flag("tail", "n", STRING, "Number of lines to show from the end of the logs", default="all"),
        Flag("timestamps", "t", BOOL, "Show timestamps", default=False),
        Flag(
            "until", "", STRING, 'Show logs before a time ("2026-01-31T12:00:00Z") or a while ago ("42m")', default=""
        ),
    ),
    arguments=(1, 1),
    aliases=("container logs", "logs"),
)
