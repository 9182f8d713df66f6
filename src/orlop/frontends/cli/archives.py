"""Archives that the engine writes to a stream: passed on to standard output, or to a file that is whole or absent."""

from __future__ import annotations

import os
import stat
from _socket import AF_UNIX, SOCK_STREAM, socketpair

from ...spec.errors import Invalid, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..native.client import Engine

STREAM_BYTES = 256 * 1024


def fetch(engine: Engine, verb: str, args: dict[str, object], fd: int) -> None:
    """Write to a descriptor what a verb writes to the stream that goes with it. Raises the verb's error."""
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    try:
        try:
            engine.send(verb, args, [theirs.fileno()])
        finally:
            theirs.close()
        while data := ours.recv(STREAM_BYTES):
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
        engine.receive()  # the archive is whole only when the engine says so
    finally:
        ours.close()


def output_path(path: str, verb: str) -> str:
    """Return where an archive is to be moved when it is whole: behind links, for a link stays what it is.

    Raises Invalid, with docker's text for a device, where something else than a file stands: the archive would take the
    place of the machine's own /dev/null, or of a pipe that others read.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return path
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        found = "a device" if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) else "an irregular file"
        cause = f'invalid output path: "{path}" must be a directory or a regular file: got {found}'
        raise Invalid(verb, path, cause, hint="name a file, or write to standard output")
    return os.path.realpath(path)


def write_whole(path: str, write: Callable[[int], object], verb: str = "write") -> None:
    """Have a file written beside its place, and move it there when it is whole.

    Raises as `output_path`, Invalid for a directory, Unavailable where no file can be made.
    """
    path = output_path(path, verb)
    if os.path.isdir(path):
        raise Invalid(verb, path, "it is a directory", hint="name a file")
    temporary = f"{path}.{os.urandom(4).hex()}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as wrong:
        raise Unavailable(verb, path, wrong.strerror or str(wrong), hint="name a file that can be written") from None
    try:
        write(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)
