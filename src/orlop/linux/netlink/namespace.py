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


def current() -> int:
    """Return a descriptor of the calling thread's own namespace."""
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def _on_own_thread(work: Callable[[], T]) -> T:
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

    start_new_thread(run, ())
    done.acquire()
    if failure:
        raise failure.pop()
    return result.pop()
