"""Progress messages of long verbs, as docker's command line shows them.

On a terminal every layer has a line that is written over; elsewhere a line is printed for each change, and none for
mere numbers. Source: docker's jsonmessage package for the texts and the bar's form.
"""

from __future__ import annotations

import os
import sys
import time

from .command import visible
from .units import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

BAR_WIDTH_MAX = 50
COLUMNS_MIN = 110  # less has no room for the bar


class Display:
    """Shows messages on one stream, stdout unless told otherwise."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._lines: dict[str, int] = {}
        self._started: dict[str, float] = {}
        self._below = 0  # lines printed since the first one with an id

    def show(self, message: object) -> None:
        """Show one message: {"status", "id", "progressDetail": {"current", "total"}}, all but status optional."""
        if not isinstance(message, dict):
            return
        status = str(message.get("status", ""))
        identifier = str(message.get("id", ""))
        detail = message.get("progressDetail")
        if not self._terminal:
            if not isinstance(detail, dict) or not detail.get("current"):
                self._write(f"{identifier}: {status}\n" if identifier else f"{status}\n")
            return
        if identifier and isinstance(detail, dict):
            self._rewrite(identifier, status, detail)
            return
        self._lines.clear()
        self._write(f"{visible(identifier)}: {visible(status)}\n" if identifier else f"{visible(status)}\n")

    def show_all(self, messages: Iterator[object]) -> object:
        """Show messages to their end; return the generator's value."""
        while True:
            try:
                message = next(messages)
            except StopIteration as end:
                return end.value
            self.show(message)

    def _rewrite(self, identifier: str, status: str, detail: dict[str, object]) -> None:
        total = len(self._lines)
        if identifier not in self._lines:
            self._lines[identifier] = total
            self._write("\n")
            total += 1
        up = total - self._lines[identifier]
        text = visible(f"{identifier}: {status}{self._bar(identifier + status, detail)}")
        self._write(f"\x1b[{up}A\x1b[2K\r{text}\r\x1b[{up}B")

    def _bar(self, key: str, detail: dict[str, object]) -> str:
        current, total = detail.get("current"), detail.get("total")
        if not isinstance(current, int) or not isinstance(total, int) or current <= 0:
            return ""
        if total <= 0 or current > total:
            return f" {size(current):>8}"
        numbers = f" {size(current):>8}/{size(total)}"
        if _columns() > COLUMNS_MIN:
            filled = current * BAR_WIDTH_MAX // total
            arrow = "=" * filled + (">" if filled < BAR_WIDTH_MAX else "")
            numbers = f" [{arrow:<{BAR_WIDTH_MAX}}] {numbers}"
        return numbers + self._remaining(key, current, total)

    def _remaining(self, key: str, current: int, total: int) -> str:
        """Return how long it will take still, once it has taken a second."""
        elapsed = time.monotonic() - self._started.setdefault(key, time.monotonic())
        if elapsed < 1 or current >= total:
            return ""
        seconds = int(elapsed / current * (total - current))
        return f"  {seconds}s" if seconds < 60 else f"  {seconds // 60}m{seconds % 60}s"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _columns() -> int:
    try:
        return os.get_terminal_size().columns
    except OSError:
        return 200
