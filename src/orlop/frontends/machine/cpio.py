"""An initial file system for a kernel: a cpio archive of the "newc" format, from files, trees and bytes.

The kernel unpacks several archives one behind the other, later ones over earlier ones.
Source: kernel, Documentation/driver-api/early-userspace/buffer-format.rst; cpio(5).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from collections.abc import Iterable


class Archive:
    """An archive under construction. Paths are absolute, as they will be; everything is root's."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[int, int, bytes | Path, int]] = {}  # path -> mode, mtime, content, device

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory and those above it."""
        if path in ("", "/") or path in self.entries:
            return
        self.directory(os.path.dirname(path))
        self.entries[path] = (stat.S_IFDIR | mode, 0, b"", 0)

    def file(self, path: str, content: bytes | Path, mode: int = 0o644, mtime: int = 0) -> None:
        """Add a regular file; a Path is read when the archive is written."""
        self.directory(os.path.dirname(path))
        self.entries[path] = (stat.S_IFREG | mode, mtime, content, 0)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self.directory(os.path.dirname(path))
        self.entries[path] = (stat.S_IFLNK | 0o777, 0, target.encode(), 0)

    def device(self, path: str, major: int, minor: int) -> None:
        """Add a character device."""
        self.directory(os.path.dirname(path))
        self.entries[path] = (stat.S_IFCHR | 0o600, 0, b"", os.makedev(major, minor))

    def tree(self, source: Path, path: str, skip: Iterable[str] = ()) -> None:
        """Add a directory of this machine with all below it, but for names of its own that begin with one of skip."""
        for where, directories, files in os.walk(source):
            if Path(where) == source:
                directories[:] = [name for name in directories if not name.startswith(tuple(skip))]
                files = [name for name in files if not name.startswith(tuple(skip))]
            target = os.path.normpath(f"{path}/{os.path.relpath(where, source)}")
            self.directory(target)
            for name in (*files, *directories):
                found = Path(where, name)
                if found.is_symlink():
                    self.link(f"{target}/{name}", os.readlink(found))
                elif found.is_file():
                    info = found.stat()
                    # Python trusts compiled files by their source's modification time: it is kept.
                    self.file(f"{target}/{name}", found, stat.S_IMODE(info.st_mode), int(info.st_mtime))

    def write(self, file: io.BufferedIOBase) -> None:
        """Write the archive."""
        for number, (path, (mode, mtime, content, device)) in enumerate(self.entries.items(), 1):
            data = content.read_bytes() if isinstance(content, Path) else content
            _write_entry(file, path[1:], data, (number, mode, 0, 0, 1, mtime), device)
        _write_entry(file, "TRAILER!!!", b"", (0, 0, 0, 0, 1, 0), 0)


def _write_entry(file: io.BufferedIOBase, name: str, data: bytes, head: tuple[int, ...], device: int) -> None:
    encoded = name.encode() + b"\0"
    fields = (*head, len(data), 0, 0, os.major(device), os.minor(device), len(encoded), 0)
    file.write(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
    file.write(b"\0" * (-(110 + len(encoded)) % 4) + data + b"\0" * (-len(data) % 4))
