"""One open cgroup directory: everything below a hierarchy is reached from here, by descriptor and single name.

Invariants:
1. No name with a slash is taken and no symbolic link followed (O_NOFOLLOW): the path in `Directory.path` is for
   error texts only and is never opened again.
2. Files are opened without O_CREAT and O_TRUNC: a control file that does not exist is an error, never a new file.

Source: cgroups(7), Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PATH_BYTES_MAX = 1024
NAME_BYTES_MAX = 255
_READ_BYTES = 64 * 1024
_MADE = "user.orlop"  # an attribute of cgroups that were made as parents of one: kernfs has them since 5.7


def split_path(path: str) -> tuple[str, ...]:
    """Return the names of an absolute cgroup path ("/orlop/web" -> ("orlop", "web")).

    Raises OSError EINVAL for everything that could name another cgroup than the one it shows (SEC-23): a relative
    path, the root, empty names, "." and "..", control characters, anything outside ASCII (the unicode dots), and
    ENAMETOOLONG beyond PATH_BYTES_MAX or NAME_BYTES_MAX.
    """
    if not path.isascii() or not path.isprintable():
        raise OSError(errno.EINVAL, "a cgroup path has printable ASCII characters only", ascii(path[:NAME_BYTES_MAX]))
    if len(path) > PATH_BYTES_MAX:
        raise OSError(errno.ENAMETOOLONG, f"a cgroup path has at most {PATH_BYTES_MAX} bytes", path[:64] + "...")
    if not path.startswith("/") or path == "/":
        raise OSError(errno.EINVAL, "a cgroup path starts with / and names a cgroup below the root", path)
    names = tuple(path[1:].split("/"))
    for name in names:
        if name in ("", ".", ".."):
            raise OSError(errno.EINVAL, "a cgroup path has no empty name, no . and no ..", path)
        if len(name) > NAME_BYTES_MAX:
            raise OSError(errno.ENAMETOOLONG, f"a cgroup name has at most {NAME_BYTES_MAX} bytes", path[:64] + "...")
    return names


class Directory:
    """An open cgroup directory. `fd` is closed at the end of the `with` block; `path` is what errors show."""

    __slots__ = ("fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)

    def __truediv__(self, name: str) -> Directory:
        """Return the child directory, opened."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return Directory(self._openat(name, flags), f"{self.path}/{name}")

    def parent(self) -> Directory:
        """Return the directory above, opened."""
        above = self / ".."
        above.path = os.path.dirname(self.path)
        return above

    def make(self, name: str) -> None:
        """mkdir: a new child cgroup."""
        try:
            os.mkdir(name, 0o755, dir_fd=self.fd)
        except OSError as error:
            raise self._error(error, name) from None

    def mark(self) -> None:
        """Mark the cgroup as one that was made only for one below it. Where it can't be marked it stays for good."""
        try:
            os.setxattr(self.fd, _MADE, b"1")
        except OSError:
            pass

    def holds_marked(self, name: str) -> bool:
        """Tell whether a child was made only for one below it. Raises FileNotFoundError when there is none."""
        with self / name as child:
            try:
                return bool(os.getxattr(child.fd, _MADE))
            except OSError:
                return False

    def remove(self, name: str) -> None:
        """rmdir: EBUSY while the child holds processes or children."""
        try:
            os.rmdir(name, dir_fd=self.fd)
        except OSError as error:
            raise self._error(error, name) from None

    def children(self) -> list[str]:
        """Return the names of the child cgroups."""
        with os.scandir(self.fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def read(self, name: str) -> str:
        """Return the text of a control file."""
        fd = self._openat(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            chunks = []
            while chunk := os.read(fd, _READ_BYTES):
                chunks.append(chunk)
        except OSError as error:
            raise self._error(error, name) from None
        finally:
            os.close(fd)
        return b"".join(chunks).decode("ascii", "replace")

    def write(self, name: str, value: str) -> None:
        """Write a control file in one write(2); the error names the file and the value it refused."""
        try:
            fd = self._openat(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.write(fd, value.encode("ascii", "backslashreplace"))
            finally:
                os.close(fd)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror} (writing {value!r})", f"{self.path}/{name}") from None

    def _openat(self, name: str, flags: int) -> int:
        if "/" in name:
            raise OSError(errno.EINVAL, "the name of a control file has no slash", name)
        try:
            return os.open(name, flags, dir_fd=self.fd)
        except OSError as error:
            raise self._error(error, name) from None

    def _error(self, error: OSError, name: str) -> OSError:
        """Return the same error with the whole path as its filename."""
        return OSError(error.errno, error.strerror, f"{self.path}/{name}")


def open_directory(mount: str, names: Sequence[str] = ()) -> Directory:
    """Return the directory of a cgroup below the mount point of its hierarchy."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    directory = Directory(os.open(mount, flags), mount)
    for name in names:
        with directory:
            directory = directory / name
    return directory
