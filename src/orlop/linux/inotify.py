"""inotify(7): be told that files of a directory changed, instead of asking again and again."""

from __future__ import annotations

import ctypes
import os

from . import abi

IN_MODIFY = 0x00000002
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200

_EVENTS_BYTES = 64 * 1024


def open_watch(path: str, mask: int) -> int:
    """Return a non-blocking descriptor that becomes readable when an event of `mask` happens at path or in it.

    Raises OSError; EMFILE and ENOSPC are limits for all programs of the user (/proc/sys/fs/inotify).
    """
    fd: int = abi.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise abi.error("inotify_init1", ctypes.get_errno())
    if abi.libc.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(mask)) < 0:
        failure = abi.error("inotify_add_watch", ctypes.get_errno(), path)
        os.close(fd)
        raise failure
    return fd


def discard_events(fd: int) -> None:
    """Take every event that waits, for a reader that looks at the files themselves."""
    try:
        while os.read(fd, _EVENTS_BYTES):
            pass
    except BlockingIOError:
        pass
