"""Pairs of TCP connections, each end's bytes carried to the other: of relays, and of the passage of names.

Invariants:
1. Nothing is read that can't be passed on: of a stream at most PIECE_BYTES wait in each direction.
2. With a judge, nothing that one end says reaches the other before the judge has let it through.
"""

from __future__ import annotations

import errno
import os
import select
from _socket import SHUT_WR, SO_ERROR, SOL_SOCKET, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Watcher(Protocol):
        """epoll(7), or what stands for it."""

        def register(self, fd: int, events: int, /) -> object: ...
        def modify(self, fd: int, events: int, /) -> object: ...
        def unregister(self, fd: int, /) -> object: ...

    Judge = Callable[[bytes], bytes]

PIECE_BYTES = 256 * 1024


class End:
    """One end of a stream. waiting: what came from the other one and was not taken yet. is_open: more may come.

    judge: given what comes from this end until it says otherwise: returns what may go on now, b"" for nothing yet;
    raises OSError for what may not.
    """

    __slots__ = ("is_connecting", "is_open", "judge", "other", "sock", "waiting", "watched")

    def __init__(self, sock: socket, judge: Judge | None = None) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.judge = judge
        self.waiting = b""
        self.is_open = True
        self.is_connecting = False
        self.watched = 0
        self.other = self

    @property
    def is_ready(self) -> bool:
        """Whether what comes from the other end can be taken."""
        return not self.waiting and not self.is_connecting

    def give(self, data: bytes) -> None:
        """Pass on what the socket takes now; the rest waits. Raises OSError."""
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        self.waiting = data[sent:]
        if not self.waiting and not self.other.is_open:
            self.finish()

    def finish(self) -> None:
        """Tell the peer that nothing more comes."""
        try:
            self.sock.shutdown(SHUT_WR)
        except OSError:
            pass  # it is gone


class Streams:
    """All pairs of one event loop. Needs `handle` to be called for what the watcher tells of."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._ends: dict[int, End] = {}

    @property
    def count(self) -> int:
        """How many pairs there are."""
        return len(self._ends) // 2

    def join(self, client: socket, inner: socket, target: tuple[object, ...], judge: Judge | None = None) -> None:
        """Connect `inner` to its target, for a client that is connected already. Both are this object's from here on.

        judge: of what the client says.
        """
        near, far = End(client, judge), End(inner)
        near.other, far.other = far, near
        far.is_connecting = True
        for end in (near, far):
            self._ends[end.sock.fileno()] = end
        failure = inner.connect_ex(target)
        if failure not in (0, errno.EINPROGRESS):
            self._close(far)
        else:
            self._settle(near)

    def handle(self, fd: int, events: int) -> None:
        """Carry what can be carried. fd: of one of the ends; of another one nothing happens."""
        end = self._ends.get(fd)
        if end is None:
            return  # closed since
        try:
            self._carry(end, events)
        except OSError:
            self._close(end)
            return
        other = end.other
        if not (end.is_open or other.is_open or end.waiting or other.waiting):
            self._close(end)
        else:
            self._settle(end)

    def close(self) -> None:
        """Close all of them."""
        for end in list(self._ends.values()):
            if end.sock.fileno() in self._ends:
                self._close(end)

    def _carry(self, end: End, events: int) -> None:
        if end.is_connecting:
            if failure := end.sock.getsockopt(SOL_SOCKET, SO_ERROR):
                raise OSError(failure, os.strerror(failure))
            end.is_connecting = False
        if end.waiting and events & select.EPOLLOUT:
            end.give(end.waiting)
        if end.is_open and end.other.is_ready and events & ~select.EPOLLOUT:
            try:
                data = end.sock.recv(PIECE_BYTES)
            except BlockingIOError:
                return
            if not data:
                end.is_open = False
                end.other.finish()
            elif data := end.judge(data) if end.judge is not None else data:
                end.other.give(data)

    def _settle(self, end: End) -> None:
        for one in (end, end.other):
            wanted = select.EPOLLIN if one.is_open and one.other.is_ready else 0
            if one.waiting or one.is_connecting:
                wanted |= select.EPOLLOUT
            # Hang-ups are told whatever is asked for: who is waited for by nobody is not watched at all.
            if wanted and not one.watched:
                self._watcher.register(one.sock.fileno(), wanted)
            elif not wanted and one.watched:
                self._watcher.unregister(one.sock.fileno())
            elif wanted != one.watched:
                self._watcher.modify(one.sock.fileno(), wanted)
            one.watched = wanted

    def _close(self, end: End) -> None:
        for one in (end, end.other):
            self._ends.pop(one.sock.fileno(), None)
            if one.watched:
                self._watcher.unregister(one.sock.fileno())
            one.sock.close()
