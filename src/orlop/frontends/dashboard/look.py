"""What the pages show, asked of the engine: each call a connection of its own, nothing kept, nothing changed."""

from __future__ import annotations

import time

from ...spec import attach, jsonio
from ...spec.errors import NotFound, OrlopError
from ..native.client import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterator
    from typing import Any

    from ...spec.paths import Paths

    Facts = dict[str, Any]

EVENTS_S, EVENTS_MAX = 3600, 50
LOG_LINES, LOG_BYTES_MAX = 200, 256 * 1024
_LINE_BYTES_MAX = 4 * 1024 * 1024


class Engine:
    """The engine of these directories. Methods raise OrlopError."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def overview(self) -> Facts:
        """Return info, containers (with usage, where they run), images, networks, volumes, df and the last events."""
        with connect(self._paths) as engine:
            facts: Facts = {
                "info": engine.call("engine.info"),
                "containers": engine.call("containers.list", {"all": True, "filters": {}, "size": False}),
                "images": engine.call("images.list"),
                "networks": engine.call("networks.list"),
                "df": engine.call("system.df"),
            }
        facts["usage"] = self._usage()
        facts["events"] = self._events()
        return facts

    def container(self, name: str) -> Facts:
        """Return inspect, why and the end of the log of one container. Raises NotFound."""
        with connect(self._paths) as engine:
            facts: Facts = {
                "inspect": engine.call("containers.inspect", {"container": name, "size": False}),
                "why": engine.call("containers.why", {"container": name}),
            }
        facts["log"], facts["log_wrong"] = self._log(name)
        return facts

    def _usage(self) -> dict[str, Facts]:
        with connect(self._paths) as engine:
            engine.call("containers.stats", {"containers": [], "all": False, "stream": False})
            return {str(one.get("id")): one for line in _lines(engine.stream) for one in line}

    def _events(self) -> list[Facts]:
        until = time.time_ns()
        args: dict[str, object] = {"since_ns": until - EVENTS_S * 10**9, "until_ns": until, "filters": {}}
        with connect(self._paths) as engine:
            engine.call("engine.events", args)
            found: list[Facts] = [one for one in _lines(engine.stream) if "Action" in one]
        return found[-EVENTS_MAX:][::-1]

    def _log(self, name: str) -> tuple[str, str]:
        """Return the last lines, and why there are none."""
        args: dict[str, object] = {"container": name, "follow": False, "tail": LOG_LINES, "timestamps": True}
        decoder, said = attach.Decoder(), bytearray()
        try:
            with connect(self._paths) as engine:
                engine.call("containers.logs", {**args, "since_ns": None, "until_ns": None, "details": False})
                while data := engine.stream.recv(64 * 1024):
                    for kind, payload in decoder.feed(data):
                        if kind in (attach.STDOUT, attach.STDERR):
                            said += payload
                    del said[: max(0, len(said) - LOG_BYTES_MAX)]
        except NotFound:
            raise
        except OrlopError as wrong:  # of a log driver that keeps nothing
            return "", wrong.cause
        return said.decode("utf-8", "replace"), ""


def _lines(stream: socket) -> Iterator[Any]:
    rest = b""
    while data := stream.recv(64 * 1024):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield jsonio.parse(line, "the engine's reply", bytes_max=_LINE_BYTES_MAX)
