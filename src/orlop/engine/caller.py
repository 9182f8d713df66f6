"""Who asks for what is being done: known to the doors, told by `why`. One for each thread that serves a request.

`Sent` is what such a one gives us to read: it ends when who gave it has gone, whoever else may still write to it.
"""

from __future__ import annotations

import io
import select
import threading

from ..spec.errors import Unavailable

_LENGTH_MAX = 32
_thread = threading.local()


def note(pid: int, uid: int) -> None:
    """Say for whom this thread works from now on: the process at the other end of a unix socket; pid 0 for nobody."""
    _thread.known = (pid, uid) if pid else None


def describe() -> str:
    """Return "uid 0, process 123 (docker)", "" when nobody is known."""
    known: tuple[int, int] | None = getattr(_thread, "known", None)
    if known is None:
        return ""
    pid, uid = known
    try:
        with open(f"/proc/{pid}/comm", "rb", buffering=0) as file:
            name = file.read(_LENGTH_MAX).decode(errors="replace").strip()
    except OSError:
        return f"uid {uid}"  # it has not waited for the answer
    return f"uid {uid}, process {pid} ({name})" if name.isprintable() else f"uid {uid}, process {pid}"


class Sent(io.FileIO):
    """An archive that is read from a client's descriptor, which stays open.

    hangup: the client's connection, -1 for none. Reading raises Unavailable once that has ended.
    """

    def __init__(self, fd: int, hangup: int) -> None:
        super().__init__(fd, "rb", closefd=False)
        self._poll = select.poll() if hangup >= 0 else None
        self._hangup = hangup
        if self._poll is not None:
            self._poll.register(fd, select.POLLIN)
            self._poll.register(hangup, select.POLLRDHUP)

    @classmethod
    def of(cls, archive: Sent | int) -> Sent:
        """Return what is read: the same, or what a descriptor gives whose sender nobody watches."""
        return archive if isinstance(archive, Sent) else cls(archive, -1)

    def read(self, size: int | None = -1, /) -> bytes:
        self._wait()
        return super().read(size)

    def _wait(self) -> None:
        if self._poll is not None and self._hangup in dict(self._poll.poll()):
            raise Unavailable("read", "the archive", "who sent it has gone", hint="send it again")
