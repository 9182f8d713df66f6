"""Network namespaces without a process in them. network_namespaces(7).

unshare(2) and setns(2) of CLONE_NEWNET concern the calling thread alone, so each of these works on a thread of its own
that ends with the call; nothing else of the process ever leaves its namespace. A socket belongs to the namespace in
which it was made, so what is to be done in another one is done through a socket that was made there.
"""

from __future__ import annotations

import os
from _thread import allocate_lock, start_new_thread

from .. import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

# The thread's own: /proc/self/ns is that of the thread group's leader.
_OWN = "/proc/thread-self/ns/net"


def new(prepare: Callable[[], T]) -> tuple[int, T]:
    """Return a descriptor of a new namespace, and what `prepare` returns when it is called in there.

    The namespace lives as long as a descriptor, a socket or a process in it. Raises OSError and what prepare raises.
    """

    def make() -> tuple[int, T]:
        process.unshare(process.CLONE_NEWNET)
        fd = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return fd, prepare()
        except BaseException:
            os.close(fd)
            raise

    return _on_own_thread(make)


def inside(fd: int, work: Callable[[], T]) -> T:
    """Return what `work` returns in the namespace that fd names. Raises OSError and what work raises."""

    def enter() -> T:
        process.setns(fd, process.CLONE_NEWNET)
        return work()

    return _on_own_thread(enter)


class _Stayed:
    """The thread that stayed in the namespace where this process began. orders: what it is to start threads for."""

    __slots__ = ("_order", "_orders", "_waiting")

    def __init__(self) -> None:
        self._orders: list[Callable[[], None]] = []
        self._order = allocate_lock()
        self._waiting = allocate_lock()
        self._waiting.acquire()
        start_new_thread(self._serve, ())

    def run(self, work: Callable[[], T]) -> T:
        return _result(work, self._start)

    def _start(self, run: Callable[[], None]) -> None:
        with self._order:
            self._orders.append(run)
            if len(self._orders) == 1:
                self._waiting.release()

    def _serve(self) -> None:
        while True:
            self._waiting.acquire()
            with self._order:
                orders, self._orders = self._orders, []
            for run in orders:
                start_new_thread(run, ())


_stayed: list[_Stayed] = []  # at most one: which namespaces a process has threads in is a fact of the process


def leave(fd: int) -> None:
    """Move the calling thread, and all that it starts from now on, to the namespace that fd names; one thread stays.

    For a process with one thread, once. Raises OSError.
    """
    stayed = _Stayed()
    process.setns(fd, process.CLONE_NEWNET)
    _stayed.append(stayed)


def has_left() -> bool:
    """Tell whether this process left the namespace where it began."""
    return bool(_stayed)


def outside(work: Callable[[], T]) -> T:
    """Return what `work` returns in the namespace where this process began: the machine's. Raises what work raises.

    Processes and sockets that it makes there stay there. Where nobody has left, it is simply called.
    """
    return _stayed[0].run(work) if _stayed else work()


def current() -> int:
    """Return a descriptor of the calling thread's own namespace."""
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def _on_own_thread(work: Callable[[], T]) -> T:
    return _result(work, lambda run: start_new_thread(run, ()))


def _result(work: Callable[[], T], start: Callable[[Callable[[], None]], object]) -> T:
    """Return what `work` returns on the thread that `start` starts."""
    result: list[T] = []
    failure: list[BaseException] = []
    done = allocate_lock()
    done.acquire()

    def run() -> None:
        try:
            result.append(work())
        except BaseException as wrong:
            failure.append(wrong)
        finally:
            done.release()

    start(run)
    done.acquire()
    if failure:
        raise failure.pop()
    return result.pop()
