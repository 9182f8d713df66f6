"""inotify(7): be told that files of a directory changed, instead of asking again and again."""

from __future__ import annotations

import os
import struct

from . import abi, ffi

IN_MODIFY = 0x00000002
IN_MOVED_FROM = 0x00000040
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200
IN_DELETE_SELF = 0x00000400
IN_MOVE_SELF = 0x00000800
IN_Q_OVERFLOW = 0x00004000
IN_IGNORED = 0x00008000
IN_ONESHOT = 0x80000000  # the watch ends with its first event

_EVENTS_BYTES = 64 * 1024


def open_watch(path: str, mask: int) -> int:
    """Return a non-blocking descriptor that becomes readable when an event of `mask` happens at path or in it.

    Raises OSError; EMFILE and ENOSPC are limits for all programs of the user (/proc/sys/fs/inotify).
    """
    fd: int = abi.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise abi.error("inotify_init1", ffi.get_errno())
    if abi.libc.inotify_add_watch(fd, os.fsencode(path), ffi.c_uint32(mask)) < 0:
        failure = abi.error("inotify_add_watch", ffi.get_errno(), path)
        os.close(fd)
        raise failure
    return fd


def init() -> int:
    """Return a non-blocking inotify instance without a watch. inotify_init1(2). Raises OSError."""
    fd: int = abi.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise abi.error("inotify_init1", ffi.get_errno())
    return fd


def add_watch(fd: int, path: str, mask: int) -> int:
    """Watch one more path; return its number. inotify_add_watch(2). Raises OSError."""
    number: int = abi.libc.inotify_add_watch(fd, os.fsencode(path), ffi.c_uint32(mask))
    if number < 0:
        raise abi.error("inotify_add_watch", ffi.get_errno(), path)
    return number


def remove_watch(fd: int, number: int) -> None:
    """Take a path off. Nothing is wrong when it is gone already. inotify_rm_watch(2)."""
    abi.libc.inotify_rm_watch(fd, number)


def read_events(fd: int) -> list[tuple[int, int, bytes]]:
    """Return (watch, mask, name) of every event that waits. inotify(7): struct inotify_event.

    The kernel drops events when nobody reads: then one has the watch -1 and IN_Q_OVERFLOW.
    """
    found: list[tuple[int, int, bytes]] = []
    while True:
        try:
            data = os.read(fd, _EVENTS_BYTES)
        except BlockingIOError:
            return found
        at = 0
        while at < len(data):
            number, mask, _, length = struct.unpack_from("iIII", data, at)
            found.append((number, mask, data[at + 16 : at + 16 + length].rstrip(b"\0")))
            at += 16 + length


def discard_events(fd: int) -> None:
    """Take every event that waits, for a reader that looks at the files themselves."""
    try:
        while os.read(fd, _EVENTS_BYTES):
            pass
    except BlockingIOError:
        pass
