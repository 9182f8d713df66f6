"""The output of several containers on one terminal: whole lines, each with the name of its container before it."""

from __future__ import annotations

import os
import sys
import threading

from ....spec import attach
from ....spec.errors import NotFound
from ...native.client import Lost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ...compose.observed import Container
    from ...native.client import Engine

RECEIVE_BYTES = 256 * 1024
_COLORS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)


class Lines:
    """Prints lines of several writers. ansi: when to colour their names, as --ansi says it."""

    def __init__(self, names: Iterable[str], *, prefix: bool, color: bool, ansi: str = "auto") -> None:
        self._names = list(names)
        self._width = max(map(len, self._names), default=0) if prefix else 0
        may_color = ansi == "always" or (ansi == "auto" and sys.stdout.isatty() and "NO_COLOR" not in os.environ)
        self._color = color and may_color
        self._lock = threading.Lock()

    def add(self, name: str) -> None:
        """Make room for one more name."""
        with self._lock:
            self._names.append(name)
            if self._width:
                self._width = max(self._width, len(name))

    def write(self, name: str, line: bytes) -> None:
        with self._lock:
            head = f"{name.ljust(self._width)}  | " if self._width else ""
            if head and self._color:
                number = _COLORS[self._names.index(name) % len(_COLORS)] if name in self._names else _COLORS[0]
                head = f"\033[{number}m{head}\033[0m"
            sys.stdout.buffer.write(head.encode() + line + b"\n")
            sys.stdout.buffer.flush()


def short_name(project: str, container: Container) -> str:
    """Return a container's name without the project's: web-1."""
    return container.name.removeprefix(f"{project}-").removeprefix(f"{project}_")


def copy(engine: Engine, container: str, wanted: dict[str, object], write: Callable[[bytes], None]) -> None:
    """Pass the lines of a container's log to `write` until it ends. Gone containers and engines end it too."""
    try:
        engine.call("containers.logs", {"container": container, "details": False, **wanted})
    except (NotFound, Lost):
        return
    decoder = attach.Decoder()
    rest = {attach.STDOUT: b"", attach.STDERR: b""}
    while data := engine.stream.recv(RECEIVE_BYTES):
        for kind, payload in decoder.feed(data):
            if kind in rest:
                *lines, rest[kind] = (rest[kind] + payload).split(b"\n")
                for line in lines:
                    write(line)
    for last in filter(None, rest.values()):
        write(last)
