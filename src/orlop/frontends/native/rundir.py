"""The run directory of an engine, held by a descriptor, and the lock that makes its engine the only one.

Invariants: the directory is trusted only after fstat says that it is ours and closed to others, and everything in
it is then reached through that descriptor, so what was checked is what is used. The lock is flock(2) on
ENGINE_LOCK: it belongs to the open file, so the process that starts an engine takes it and the engine inherits it
with the descriptor; it ends with the last of them, however they end.
"""

from __future__ import annotations

import fcntl
import os
import time

from ...spec.errors import Conflict, Denied, Unavailable
from ...spec.paths import ENGINE_LOCK

RELEASE_S_MAX = 3.0
POLL_S = 0.02


def open_private(path: str, *, create: bool) -> int:
    """Return a descriptor (O_DIRECTORY) of a directory that is ours, mode 0700. create makes it and its parents.

    An empty one of ours is closed to others then.

    Raises FileNotFoundError when it is not there and create is false, Denied when it is somebody else's or open
    to others, Unavailable when it can't be made.
    """
    if create:
        _make(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as wrong:
        raise Denied(
            "use", path, wrong.strerror or "", hint="it must be a directory of yours, mode 0700, no symlink"
        ) from None
    found = os.fstat(fd)
    if found.st_uid != os.geteuid():
        os.close(fd)
        raise Denied(
            "use",
            path,
            f"it belongs to uid {found.st_uid}, not to you",
            hint="set ORLOP_RUN and ORLOP_ROOT to directories of yours",
        )
    if found.st_mode & 0o077 and create and not os.listdir(fd):
        os.fchmod(fd, 0o700)  # a volume that was made for us, say: nobody can have left anything in there
    elif found.st_mode & 0o077:
        os.close(fd)
        raise Denied("use", path, f"others may enter it (mode {found.st_mode & 0o7777:04o})", hint=f"chmod 0700 {path}")
    return fd


def socket_path(directory: int, name: str) -> str:
    """Return a path of a socket in this directory that fits into sockaddr_un (108 bytes) whatever the directory is."""
    return f"/proc/self/fd/{directory}/{name}"


def lock_engine(directory: int) -> int | None:
    """Return a descriptor that holds the lock of the engine, None when another process holds it."""
    try:
        fd = os.open(ENGINE_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    except OSError as wrong:
        import errno

        if wrong.errno not in (errno.EISDIR, errno.ELOOP):
            raise
        place = f"{os.readlink(f'/proc/self/fd/{directory}')}/{ENGINE_LOCK}"
        raise Unavailable("lock", place, wrong.strerror or "", hint="remove it: no engine has made it") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def claim(run: str) -> int:
    """Make the run directory and return the lock's descriptor: the caller is then the one engine of this directory.

    Raises Conflict when an engine runs there, and what `open_private` raises.
    """
    directory = open_private(run, create=True)
    try:
        lock = lock_engine(directory)
    finally:
        os.close(directory)
    if lock is None:
        raise Conflict("start", f"an engine in {run}", "one runs there already", hint="stop it with: orlop engine stop")
    return lock


def claim_data(root: str, run: str) -> int:
    """Make the data directory and return a descriptor that is held as long as the engine of run writes there.

    Raises Conflict when an engine of another run directory does, and what `open_private` raises.
    """
    directory = open_private(root, create=True)
    deadline = time.monotonic() + RELEASE_S_MAX
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return directory
        except BlockingIOError:
            # One that was killed has it until the last of its children is somebody else.
            if time.monotonic() < deadline:
                time.sleep(POLL_S)
                continue
            os.close(directory)
            hint = "set ORLOP_RUN to that engine's directory, or ORLOP_ROOT to another one; `orlop engine stop` ends it"
            raise Conflict(
                "start", f"an engine in {run}", f"another engine has {root}", hint=hint, code="E1202"
            ) from None
        except BaseException:
            os.close(directory)
            raise


def _make(path: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as wrong:
        raise Unavailable(
            "make", path, wrong.strerror or "", hint="set ORLOP_RUN and ORLOP_ROOT to directories you can write"
        ) from None
