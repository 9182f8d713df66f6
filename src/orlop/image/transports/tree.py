"""Blobs in a directory of files: what an OCI layout and skopeo's `dir:` have in common.

Invariants:
1. Nothing outside the directory is read: names are resolved in it, and what is opened is a regular file (SEC-49).
2. A file that is written is there whole or not at all: written beside, synced, renamed.
"""

from __future__ import annotations

import os
import stat

from orlop.linux.path import open_in_root
from orlop.spec.errors import Invalid, NotFound, Unavailable
from orlop.spec.jsonio import DOCUMENT_BYTES_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from collections.abc import Callable

    from orlop.content import Store
    from orlop.content.leases import Lease
    from orlop.spec.digest import Digest
    from orlop.spec.image import Descriptor

READ_BYTES = 1024 * 1024


class Tree:
    """One directory. subject names it in errors. Close it."""

    def __init__(self, path: str, *, make: bool = False) -> None:
        self.path = path
        try:
            if make:
                os.makedirs(path, 0o755, exist_ok=True)
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as wrong:
            raise self.unavailable("open", wrong) from None

    def close(self) -> None:
        os.close(self._root)

    def open(self, name: str) -> io.FileIO:
        """Return a file below the directory. Raises NotFound, Invalid for what is no file, Unavailable."""
        try:
            fd = open_in_root(self._root, name, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            raise NotFound("read", f"{self.path}/{name}", f"{self.path} has no {name}: it is incomplete") from None
        except OSError as wrong:
            raise self.unavailable("read", wrong) from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise Invalid("read", f"{self.path}/{name}", "it is not a regular file")
        return open(fd, "rb", buffering=0)

    def document(self, name: str, bytes_max: int = DOCUMENT_BYTES_MAX) -> bytes:
        """Return a small file. Raises NotFound, Invalid when it is larger than any document."""
        with self.open(name) as file:
            data = bytearray()
            while len(data) <= bytes_max and (more := file.read(READ_BYTES)):
                data += more
        if len(data) > bytes_max:
            raise Invalid("read", f"{self.path}/{name}", f"it has more than {bytes_max} bytes", code="E0212")
        return bytes(data)

    def has(self, name: str, size: int) -> bool:
        """Tell whether a file of this size is there."""
        try:
            with self.open(name) as file:
                return os.fstat(file.fileno()).st_size == size
        except (NotFound, Invalid):
            return False

    def take(self, name: str, store: Store, descriptor: Descriptor, lease: Lease) -> None:
        """Take a blob into the store, proven. Raises Invalid, NotFound, Unavailable."""
        lease.add(descriptor.digest)
        if store.stat(descriptor.digest) == descriptor.size:
            return
        with self.open(name) as file:
            store.ingest(file, descriptor)

    def give(self, name: str, store: Store, digest: Digest) -> None:
        """Write a blob of the store. Raises NotFound, Unavailable."""
        with store.open(digest) as blob:
            if self.has(name, os.fstat(blob.fileno()).st_size):
                return
            self._write(name, lambda fd: _send(blob.fileno(), fd))

    def write(self, name: str, data: bytes) -> None:
        """Write a small file. Raises Unavailable."""
        self._write(name, lambda fd: _write_all(fd, data))

    def _write(self, name: str, fill: Callable[[int], None]) -> None:
        temporary = f".{os.urandom(8).hex()}"
        try:
            if "/" in name:
                os.makedirs(f"{self.path}/{os.path.dirname(name)}", 0o755, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fd = os.open(temporary, flags, 0o644, dir_fd=self._root)
            try:
                fill(fd)
                os.fsync(fd)
                os.rename(temporary, name, src_dir_fd=self._root, dst_dir_fd=self._root)
            except BaseException:
                os.unlink(temporary, dir_fd=self._root)
                raise
            finally:
                os.close(fd)
        except OSError as wrong:
            raise self.unavailable("write", wrong) from None

    def unavailable(self, verb: str, wrong: OSError) -> Unavailable:
        return Unavailable(verb, self.path, os.strerror(wrong.errno or 0), hint="look at the path and its permissions")


def _send(source: int, target: int) -> None:
    offset = 0
    while sent := os.sendfile(target, source, offset, 8 * READ_BYTES):
        offset += sent


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
