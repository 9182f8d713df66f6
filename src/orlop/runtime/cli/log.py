"""runc's log: lines of text or JSON, which conmon, containerd and docker read to learn why a call failed."""

from __future__ import annotations

import os
import sys
import time

from ...spec import jsonio
from ...spec.errors import Invalid


class Log:
    """Where messages go: standard error, or the file that `--log` names."""

    __slots__ = ("_debug", "_format", "_path")

    def __init__(self, path: str = "", format: str = "text", debug: bool = False) -> None:
        if format not in ("", "text", "json"):
            raise Invalid("open", "the log", f"unknown log-format {format!r}", hint="use text or json")
        self._path = path
        self._format = format
        self._debug = debug

    def write(self, level: str, message: str) -> None:
        """Append one message."""
        if level == "debug" and not self._debug:
            return
        line = self._line(level, message)
        if not self._path:
            sys.stderr.write(line)
            return
        # O_NONBLOCK for the open alone: a FIFO without a reader is an error then, and no wait.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = os.open(self._path, flags, 0o644)
        try:
            os.set_blocking(fd, True)
            os.write(fd, line.encode("utf-8", "surrogateescape"))
        finally:
            os.close(fd)

    def fatal(self, message: str) -> None:
        """Append an error and show it, too, when the log is a file."""
        try:
            self.write("error", message)
        except OSError as failure:
            sys.stderr.write(f"cannot write the log {self._path}: {failure.strerror}\n")
        if self._path:
            sys.stderr.write(message + "\n")

    def _line(self, level: str, message: str) -> str:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._format == "json":
            return jsonio.dump({"level": level, "msg": message, "time": now}).decode() + "\n"
        quoted = jsonio.dump(message).decode()
        return f'time="{now}" level={level} msg={quoted}\n'
