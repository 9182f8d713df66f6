"""The monitor's one loop: epoll(7), one callback for each descriptor, and no timer: nothing happens, nothing wakes."""

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT


class Loop:
    """Calls back with the events of watched descriptors, level-triggered.

    Every watched descriptor is non-blocking: a callback may be called for a descriptor that was closed and reused in
    the same turn, and then finds nothing to do.
    """

    __slots__ = ("_callbacks", "_epoll", "_events")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], object]] = {}
        self._events: dict[int, int] = {}

    def watch(self, fd: int, events: int, callback: "Callable[[int], object]") -> None:
        """Call back when one of the events happens, or the other end hangs up. 0 events: `unwatch`."""
        if not events:
            self.unwatch(fd)
            return
        before = self._events.get(fd)
        if before is None:
            self._epoll.register(fd, events)
        elif before != events:
            self._epoll.modify(fd, events)
        self._events[fd] = events
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop watching; before the descriptor is closed. A hang-up would be reported whatever is asked for."""
        if self._events.pop(fd, None) is not None:
            del self._callbacks[fd]
            self._epoll.unregister(fd)

    def turn(self, timeout_s: float | None = None) -> None:
        """Wait for events, for ever or for so long, and call back for each."""
        for fd, events in self._epoll.poll(timeout_s):
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(events)

    def close(self) -> None:
        """Forget everything."""
        self._epoll.close()
        self._callbacks.clear()
        self._events.clear()
