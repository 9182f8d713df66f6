"""Files of our own making that the kernel reads: FUSE, as far as a flat directory of read-only files needs it.

    device = fuse.mount(path); Server(device, files).run()

A request is answered by whichever thread took it; a reader that waits for a file's bytes keeps no other one waiting.
What was not asked for here (writing, locks, attributes) is refused with ENOSYS, which the kernel remembers.
When the last descriptor of the device is closed, everything that waits or comes later fails with ENOTCONN: a server
that was killed gives no bytes, never wrong ones. Where another process has the device too, it may serve the same files
on; `resend` gives it what the killed one had taken and not answered.
Source: kernel, include/uapi/linux/fuse.h, Documentation/filesystems/fuse/fuse.rst.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from .. import mount as linux_mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    class File(Protocol):
        """One file. size in bytes; it never changes."""

        @property
        def size(self) -> int: ...
        def read(self, offset: int, count: int, /) -> Sequence[bytes | bytearray]:
            """Return exactly the bytes from offset on, count of them or up to the end. Raises OSError."""


_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _STATFS, _RELEASE = 1, 2, 3, 14, 15, 17, 18
_INIT, _OPENDIR, _READDIR, _RELEASEDIR, _ACCESS, _INTERRUPT, _DESTROY, _BATCH_FORGET = 26, 27, 28, 29, 34, 36, 38, 42
_NOTIFY_RESEND = 7
_SILENT = frozenset((_FORGET, _BATCH_FORGET, _INTERRUPT))  # not answered: a reader that was killed waits for its bytes
_HEADER = struct.Struct("<IIQQIIIHH")
_ANSWER = struct.Struct("<IiQ")
_INIT_IN = struct.Struct("<IIII")
_INIT_OUT = struct.Struct("<IIIIHHIIHHIIH22x")
_READ_IN = struct.Struct("<QQII")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_ENTRY_OUT = struct.Struct("<QQQQII")
_ATTR_OUT = struct.Struct("<QII")
_OPEN_OUT = struct.Struct("<QIi")
_MAJOR, _MINOR = 7, 31
_ASYNC_READ, _MAX_PAGES = 1 << 0, 1 << 22
_KEEP_CACHE = 1 << 1
_ROOT = 1
_VALID_S = 24 * 3600
READ_BYTES_MAX = 1024 * 1024  # of one request
_REQUEST_BYTES = READ_BYTES_MAX + 8192  # the kernel wants room for a write, which never comes
_BACKGROUND = 32
DEVICE = "/dev/fuse"
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8


def mount(path: str) -> int:
    """Mount a file system whose server the caller is to be, at a directory; return the device. Raises OSError."""
    device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        data = f"fd={device},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()},allow_other"
        flags = linux_mount.MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        linux_mount.mount("orlop", path, "fuse.orlop", flags, data)
    except BaseException:
        os.close(device)
        raise
    return device


def resend(device: int) -> None:
    """Have the kernel ask again for what was taken from the device and not answered (Linux 6.9). Raises OSError."""
    os.write(device, _ANSWER.pack(_ANSWER.size, _NOTIFY_RESEND, 0))


class Server:
    """Serves files by their names until the file system is unmounted."""

    def __init__(self, device: int, files: Mapping[str, File]) -> None:
        self._device = device
        self._names = {os.fsencode(name): number for number, name in enumerate(files, _ROOT + 1)}
        self._files = dict(enumerate(files.values(), _ROOT + 1))

    def run(self) -> None:
        """Answer requests, one after the other, until the file system is gone; on as many threads as are wanted."""
        buffer = bytearray(_REQUEST_BYTES)
        while True:
            try:
                count = os.readv(self._device, (buffer,))
            except OSError as wrong:
                if wrong.errno == errno.ENODEV:
                    return  # unmounted
                if wrong.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue  # ENOENT: the request was withdrawn
                raise
            self._answer(memoryview(buffer)[:count])

    def _answer(self, request: memoryview) -> None:
        _, opcode, unique, node, *_ = _HEADER.unpack_from(request)
        if opcode in _SILENT:
            return
        try:
            parts = self._do(opcode, node, request[_HEADER.size :])
            code = 0
        except OSError as wrong:
            parts, code = (), -(wrong.errno or errno.EIO)
        except Exception:
            parts, code = (), -errno.EIO
        head = _ANSWER.pack(_ANSWER.size + sum(map(len, parts)), code, unique)
        try:
            os.writev(self._device, (head, *parts))
        except OSError as wrong:
            if wrong.errno not in (errno.ENOENT, errno.ENODEV):  # whoever asked is gone
                raise

    def _do(self, opcode: int, node: int, body: memoryview) -> Sequence[bytes | bytearray]:
        if opcode == _READ:
            _, offset, count, _ = _READ_IN.unpack_from(body)
            return self._file(node).read(offset, min(count, READ_BYTES_MAX))
        if opcode == _LOOKUP:
            found = self._names.get(bytes(body).rstrip(b"\0"))
            if found is None:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            return (_ENTRY_OUT.pack(found, 0, _VALID_S, _VALID_S, 0, 0), self._attributes(found))
        if opcode == _GETATTR:
            return (_ATTR_OUT.pack(_VALID_S, 0, 0), self._attributes(node))
        if opcode == _OPEN:
            self._file(node)
            return (_OPEN_OUT.pack(0, _KEEP_CACHE, 0),)
        if opcode == _INIT:
            return (_init(body),)
        if opcode == _OPENDIR:
            return (_OPEN_OUT.pack(0, 0, 0),)
        if opcode in (_RELEASE, _RELEASEDIR, _ACCESS, _DESTROY, _READDIR):  # the directory shows no names
            return ()
        if opcode == _STATFS:
            return (bytes(80),)
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def _file(self, node: int) -> File:
        found = self._files.get(node)
        if found is None:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        return found

    def _attributes(self, node: int) -> bytes:
        if node == _ROOT:
            return _ATTR.pack(node, 0, 0, 0, 0, 0, 0, 0, 0, stat.S_IFDIR | 0o500, 2, 0, 0, 0, 4096, 0)
        size = self._file(node).size
        blocks = -(-size // 512)
        return _ATTR.pack(node, size, blocks, 0, 0, 0, 0, 0, 0, stat.S_IFREG | 0o400, 1, 0, 0, 0, 4096, 0)


def _init(body: memoryview) -> bytes:
    _, _, read_ahead, flags = _INIT_IN.unpack_from(body)
    flags &= _ASYNC_READ | _MAX_PAGES
    pages = READ_BYTES_MAX // 4096
    return _INIT_OUT.pack(
        _MAJOR, _MINOR, read_ahead, flags, _BACKGROUND, _BACKGROUND * 3 // 4, READ_BYTES_MAX, 1, pages, 0, 0, 0, 0
    )
