"""The engine's own log: $ORLOP_ROOT/engine.log, bounded, one line a message.

A background engine has this file as its standard error too, so that what Python itself says at a crash lands there.
"""

from __future__ import annotations

import os
import threading

from ..linux.path import open_file
from ..spec.errors import Unavailable
from .containers.record import timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

SIZE_BYTES_MAX = 1024 * 1024
LINE_BYTES_MAX = 8 * 1024


class Log:
    """Writes lines. Never raises: a full disk does not stop a container."""

    def __init__(self, path: str) -> None:
        """Raises Unavailable when there is something else in its place: a pipe that nobody reads would hang us."""
        self._path = path
        self._lock = threading.Lock()
        try:
            self._fd = self._open()
        except OSError as wrong:
            cause = wrong.strerror or str(wrong)
            raise Unavailable("write to", path, cause, hint="remove it: the engine makes its own") from None
        self._is_stderr = _same_file(self._fd, 2)

    def write(self, text: str) -> None:
        """Write one message; line breaks in it are shown as such, so that none can be forged."""
        line = f"{timestamp()} {text}".replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        data = line.encode("utf-8", "backslashreplace")[:LINE_BYTES_MAX] + b"\n"
        with self._lock:
            try:
                self._rotate_if_full()
                os.write(self._fd, data)
                if not self._is_stderr:
                    os.write(2, data)
            except OSError:
                pass

    def exception(self, what: str, error: BaseException) -> str:
        """Write a traceback and return the id under which it stands in the log."""
        import traceback

        reference = os.urandom(4).hex()
        self.write(f"error {reference}: {what}: {error!r}")
        for line in traceback.format_exception(error):
            self.write(f"error {reference}: {line.rstrip()}")
        return reference

    def catch_threads(self) -> None:
        """Write what ends a thread by surprise."""

        def hook(args: threading.ExceptHookArgs) -> None:
            if args.exc_value is not None:
                self.exception(f"thread {args.thread.name if args.thread else ''} ended", args.exc_value)

        threading.excepthook = hook

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> int:
        return open_file(self._path, flags=os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def _rotate_if_full(self) -> None:
        if os.fstat(self._fd).st_size < SIZE_BYTES_MAX:
            return
        os.rename(self._path, f"{self._path}.1")
        fd = self._open()
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)
        if self._is_stderr:
            os.dup2(self._fd, 1)
            os.dup2(self._fd, 2)


def _same_file(one: int, other: int) -> bool:
    try:
        return os.path.samestat(os.fstat(one), os.fstat(other))
    except OSError:
        return False
