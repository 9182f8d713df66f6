"""How a build is shown: like BuildKit's on a terminal, line by line elsewhere, as JSON lines, or not at all.

All of it goes to standard error, as buildx's: standard output is for what the build is asked to print.
"""

from __future__ import annotations

import os
import sys
import time

from ..command import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    Message = dict[str, object]

TAIL_SHOWN = 6  # lines of a running step's output on a terminal
REDRAW_S = 0.1
LINE_CHARACTERS_MAX = 128 * 1024  # of a line whose end does not come
MODES = ("auto", "plain", "tty", "quiet", "rawjson")


def display(mode: str, stream: TextIO | None = None, title: str = "") -> Plain:
    """Return what shows messages. mode: of --progress; auto is tty on a terminal.

    title: of a build that is not alone: it stands before each line, and nothing is drawn over.
    """
    stream = stream or sys.stderr
    if title and mode in ("auto", "tty", "plain"):
        return Plain(Titled(stream, title))  # type: ignore[arg-type]  # what of a stream is used here
    if mode == "quiet":
        return Quiet(stream)
    if mode == "rawjson":
        return RawJson(stream)
    if mode == "tty" or (mode == "auto" and stream.isatty()):
        return Terminal(stream)
    return Plain(stream)


class Titled:
    """A stream whose lines begin with a title, each written whole: builds beside each other write to one terminal."""

    def __init__(self, stream: TextIO, title: str) -> None:
        self._stream = stream
        self._title = title
        self._rest = ""

    def write(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        self._stream.write("".join(f"{self._title} {line}\n" for line in lines if line))

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()


class Plain:
    """A line for each thing that happens, with the number of its step."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.steps: dict[int, str] = {}  # number -> name
        self.warnings: list[Message] = []
        self.failed: Message | None = None
        self.excerpt = ""
        self.build = ""
        self._partial: dict[int, str] = {}
        self._began = time.monotonic()

    def show(self, message: object) -> None:
        """Show one message of the builder."""
        if not isinstance(message, dict):
            return
        if "build" in message:
            self.build = str(message["build"])
        elif isinstance(message.get("warning"), dict):
            self.warnings.append(message["warning"])
        elif "failed" in message:
            self.failed = message
        elif "excerpt" in message:
            self.excerpt = str(message["excerpt"])
        elif "step" in message:
            number = message["step"] if isinstance(message["step"], int) else 0
            if "log" in message:
                self.log(number, str(message["log"]))
            elif "missed" in message:
                self.missed(number, message["missed"])
            elif isinstance(message.get("pull"), dict):
                self.pull(number, message["pull"])
            elif "status" in message:
                self.status(number, str(message["status"]))
            elif "state" in message:
                self.state(number, message)

    def close(self) -> None:
        """Show what waits still, then the warnings."""
        for number in list(self._partial):
            self._flush(number)
        shown = [warning for warning in self.warnings if warning.get("detail")]
        if shown:
            self._write(f"\n {len(shown)} warning{'s' if len(shown) > 1 else ''} found:\n")
        for warning in shown:
            rule = f"{warning['rule']}: " if warning.get("rule") else ""
            lines = warning.get("lines")
            line = f" (line {lines[0]})" if isinstance(lines, list) and lines else ""
            self._write(f" - {rule}{warning['detail']}{line}\n")

    def state(self, number: int, message: Message) -> None:
        state = message.get("state")
        if state == "started":
            self.steps[number] = str(message.get("name", ""))
            self._write(f"#{number} {self.steps[number]}\n")
            return
        self._flush(number)
        if state == "cached":
            self._write(f"#{number} CACHED\n\n")
        elif state == "failed":
            self._write(f"#{number} ERROR: {message.get('error', '')}\n\n")
        else:
            self._write(f"#{number} DONE {message.get('seconds', 0):.1f}s\n\n")

    def log(self, number: int, text: str) -> None:
        *lines, rest = (self._partial.pop(number, "") + text).split("\n")
        if len(rest) > LINE_CHARACTERS_MAX:
            lines, rest = [*lines, rest], ""
        if lines:
            head = f"#{number} {time.monotonic() - self._began:.3f} "
            self._write("".join([f"{head}{line}\n" for line in lines]))
        if rest:
            self._partial[number] = rest

    def status(self, number: int, text: str) -> None:
        self._write(f"#{number} {text} done\n")

    def missed(self, number: int, reasons: object) -> None:
        """Why a step is made anew: shown only where it is asked for."""

    def pull(self, number: int, message: Message) -> None:
        detail = message.get("progressDetail")
        if not (isinstance(detail, dict) and detail.get("current")):
            name = f"{message['id']}: " if message.get("id") else ""
            self._write(f"#{number} {name}{message.get('status', '')}\n")

    def _flush(self, number: int) -> None:
        if rest := self._partial.pop(number, ""):
            self._write(f"#{number} {time.monotonic() - self._began:.3f} {rest}\n")

    def _write(self, text: str) -> None:
        self.stream.write(visible(text) if self.stream.isatty() else text)
        self.stream.flush()


class Quiet(Plain):
    """Nothing, but for what went wrong."""

    def show(self, message: object) -> None:
        if isinstance(message, dict) and not {"failed", "excerpt", "build"}.isdisjoint(message):
            super().show(message)

    def close(self) -> None:
        return


class RawJson(Plain):
    """The messages as they come, one a line."""

    def show(self, message: object) -> None:
        from ....spec import jsonio

        super().show(message)
        self.stream.write(jsonio.dump(message).decode() + "\n")
        self.stream.flush()

    def close(self) -> None:
        return

    def _write(self, text: str) -> None:
        return


class Terminal(Plain):
    """Finished steps scroll by; those that run are drawn below them, with the last lines of their output."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._running: dict[int, tuple[str, float]] = {}
        self._tails: dict[int, list[str]] = {}
        self._drawn = 0
        self._drawn_at = 0.0
        self._done = 0

    def state(self, number: int, message: Message) -> None:
        state = message.get("state")
        name = str(message.get("name", ""))
        if state == "started":
            self.steps[number] = name
            self._running[number] = (name, time.monotonic())
            self._redraw()
            return
        self._running.pop(number, None)
        self._tails.pop(number, None)
        self._done += 1
        self._erase()
        mark = {"cached": "CACHED ", "failed": "ERROR "}.get(str(state), "")
        took = f"{message.get('seconds', 0):.1f}s"
        self._line(f" => {mark}{name}", took)
        self._redraw(now=True)

    def log(self, number: int, text: str) -> None:
        tail = self._tails.setdefault(number, [""])
        *lines, rest = (tail.pop() + text).replace("\r", "\n").split("\n")
        tail += [*lines, rest[:LINE_CHARACTERS_MAX]]
        del tail[: -TAIL_SHOWN - 1]
        self._redraw()

    def pull(self, number: int, message: Message) -> None:
        self._tails[number] = [f"{message.get('id', '')} {message.get('status', '')}".strip(), ""]
        self._redraw()

    def status(self, number: int, text: str) -> None:
        self._tails[number] = [text, ""]
        self._redraw()

    def close(self) -> None:
        self._erase()
        super().close()

    def _redraw(self, *, now: bool = False) -> None:
        if not now and time.monotonic() - self._drawn_at < REDRAW_S:
            return
        self._erase()
        elapsed = time.monotonic() - self._began
        head = f"[+] Building {elapsed:.1f}s ({self._done}/{len(self.steps)})"
        lines = [(head, "")]
        for number, (name, began) in self._running.items():
            lines.append((f" => {name}", f"{time.monotonic() - began:.1f}s"))
            lines += [(f" => => # {line}", "") for line in self._tails.get(number, [])[-TAIL_SHOWN:] if line]
        for text, right in lines:
            self._line(text, right)
        self._drawn = len(lines)
        self._drawn_at = time.monotonic()

    def _erase(self) -> None:
        if self._drawn:
            self.stream.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0

    def _line(self, text: str, right: str) -> None:
        width = _columns() - 1
        text = visible(text)[: max(0, width - len(right) - 1)]
        self.stream.write(f"{text}{' ' * max(1, width - len(text) - len(right))}{right}\n".replace(" \n", "\n"))
        self.stream.flush()


class Why(Plain):
    """Of each step that was made anew: which of its inputs had changed."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.reasons: dict[int, list[str]] = {}

    def missed(self, number: int, reasons: object) -> None:
        if isinstance(reasons, list):
            self.reasons[number] = [str(reason) for reason in reasons]

    def _write(self, text: str) -> None:
        return


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80
