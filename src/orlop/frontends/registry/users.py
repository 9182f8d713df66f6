"""The users of a registry: lines of an htpasswd file, which `registry serve` and Apache's own tools read as well.

A change writes a new file and renames it over the old one, under a lock beside it: a server that reads meanwhile sees
the one or the other. Lines that are not ours to change stay as they are.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager

from ...linux import crypt
from ...spec.errors import Invalid, NotFound, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

BCRYPT, BCRYPT_COST = b"$2b$", 10
PASSWORD_BYTES_MAX = 72  # what bcrypt looks at
NAME_CHARACTERS_MAX = 255
_FILE_BYTES_MAX = 16 * 1024 * 1024


def add(path: str, name: str, password: str) -> bool:
    """Give a user a password; tell whether the user is new. Raises Invalid, Unavailable."""
    if not name or ":" in name or not name.isprintable() or len(name) > NAME_CHARACTERS_MAX:
        raise Invalid(
            "add", f"user {name[:40]!r}", "a name has no colon and no control characters", hint="choose another"
        )
    data = password.encode()
    if not 0 < len(data) <= PASSWORD_BYTES_MAX or b"\0" in data:
        raise Invalid("add", f"user {name}", f"a password has 1 to {PASSWORD_BYTES_MAX} bytes", hint="choose another")
    try:
        hashed = crypt.crypt(data, crypt.salt(BCRYPT, BCRYPT_COST))
    except (OSError, AttributeError):  # there is no libcrypt, or an old one
        hashed = None
    if hashed is None:
        raise Unavailable("add", f"user {name}", "this machine can't hash with bcrypt", hint="install libcrypt1")
    line = name.encode() + b":" + hashed
    with _changed(path) as lines:
        known = [number for number, one in enumerate(lines) if _is_of(one, name)]
        for number in known:
            lines[number] = line
        if not known:
            lines.append(line)
    return not known


def remove(path: str, name: str) -> None:
    """Remove a user. Raises NotFound, Unavailable."""
    with _changed(path) as lines:
        left = [line for line in lines if not _is_of(line, name)]
        if len(left) == len(lines):
            raise NotFound("remove", f"user {name}", f"{path} has no user {name}")
        lines[:] = left


def names(path: str) -> list[str]:
    """Return the users in the order of the file. Raises Unavailable."""
    lines = (line.strip() for line in _read(path))
    return [line.partition(b":")[0].decode(errors="replace") for line in lines if line and not line.startswith(b"#")]


def _is_of(line: bytes, name: str) -> bool:
    return line.strip().partition(b":")[0] == name.encode()


def _read(path: str) -> list[bytes]:
    try:
        with open_users(path) as file:
            return read_users(file, path).splitlines()
    except FileNotFoundError:
        return []
    except OSError as wrong:
        raise Unavailable("read", path, wrong.strerror or str(wrong)) from None


def open_users(path: str) -> BufferedReader:
    """Open such a file: also by a link to where people keep theirs, but nothing that is waited for. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return open(fd, "rb")
    os.close(fd)
    raise OSError(errno.EINVAL, "it is not a regular file", path)


def read_users(file: BufferedReader, path: str) -> bytes:
    """Return what is in such a file. Raises OSError, Invalid for one that is too large."""
    data = file.read(_FILE_BYTES_MAX + 1)
    if len(data) > _FILE_BYTES_MAX:
        raise Invalid("read", path, f"it has more than {_FILE_BYTES_MAX} bytes", code="E0212")
    return data


@contextmanager
def _changed(path: str) -> Iterator[list[bytes]]:
    """Lend the lines, and write them when the context ends well."""
    try:
        os.makedirs(os.path.dirname(path) or ".", 0o700, exist_ok=True)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as wrong:
        raise Unavailable("write", path, wrong.strerror or str(wrong)) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines = _read(path)
        yield lines
        _write(path, b"".join(line + b"\n" for line in lines))
    finally:
        os.close(lock)


def _write(path: str, data: bytes) -> None:
    temporary = f"{path}.{os.urandom(8).hex()}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except OSError as wrong:
        if os.path.exists(temporary):
            os.unlink(temporary)
        hint = "free some space there" if wrong.errno == errno.ENOSPC else ""
        raise Unavailable("write", path, wrong.strerror or str(wrong), hint=hint) from None
