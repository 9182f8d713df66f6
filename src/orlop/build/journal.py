"""What a build tells while it works: steps that begin and end, their output, pulls. One queue, any number of writers.

The messages are this module's; doors translate them. A step is known by its number, in the order of the graph:

    {"plan": [{"text": "RUN make", "step": 3 or 0}]}      the Dockerfile's instructions that are built, in their order
    {"step": 3, "name": "[build 2/4] RUN make", "state": "started" | "done" | "cached" | "failed", "seconds", "error"}
    {"step": 3, "stream": 1 | 2, "log": "text"}
    {"step": 1, "pull": docker's message}
    {"warning": {...}}
"""

from __future__ import annotations

import codecs
import os
import queue
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Message = dict[str, object]

LOG_BYTES_SHOWN_MAX = 64 * 1024  # one message
QUEUED_MAX = 10_000  # a step waits for a client that does not read; its log is on disk all the same


class Journal:
    """directory: where the steps' whole output is kept, one file for each: <number>.log."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._queue: queue.Queue[Message | None] = queue.Queue(QUEUED_MAX)
        self._closed = threading.Event()

    def tell(self, message: Message) -> None:
        """Add a message. One that nobody reads any more is dropped."""
        while not self._closed.is_set():
            try:
                self._queue.put(message, timeout=1.0)
                return
            except queue.Full:
                continue

    def end(self) -> None:
        """There is no more to come."""
        self._closed.set()
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            pass

    def messages(self) -> Iterator[Message]:
        """Yield what is told until `end`."""
        while True:
            try:
                message = self._queue.get(timeout=1.0)
            except queue.Empty:
                if self._closed.is_set():
                    return
                continue
            if message is None:
                return
            yield message

    def step(self, number: int, name: str) -> StepLog:
        """Return the log of a step that begins."""
        return StepLog(self, number, name, f"{self._directory}/{number}.log")


class StepLog:
    """One step on its way."""

    def __init__(self, journal: Journal, number: int, name: str, path: str) -> None:
        self._journal = journal
        self._began = time.monotonic()
        self._path = path
        self._file = -1
        self._decoders = {stream: codecs.getincrementaldecoder("utf-8")(errors="replace") for stream in (1, 2)}
        self.number = number
        self.name = name
        self.log_bytes = 0
        journal.tell({"step": number, "name": name, "state": "started"})

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self._began, 3)

    def write(self, stream: int, data: bytes) -> None:
        """Take output of the step: 1 is standard output, 2 standard error."""
        if self._file < 0:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.write(self._file, data)
        self.log_bytes += len(data)
        for at in range(0, len(data), LOG_BYTES_SHOWN_MAX):
            text = self._decoders[stream].decode(data[at : at + LOG_BYTES_SHOWN_MAX])
            if text:
                self._journal.tell({"step": self.number, "stream": stream, "log": text})

    def note(self, message: Message) -> None:
        """Tell something about the step."""
        self._journal.tell({"step": self.number, **message})

    def end(self, state: str, error: str = "", tree: str = "") -> None:
        """The step is over: "done", "cached" or "failed". tree: the ChainID of what it left."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        message: Message = {"step": self.number, "name": self.name, "state": state, "seconds": self.seconds}
        if error:
            message["error"] = error
        if tree:
            message["tree"] = tree
        self._journal.tell(message)

    def tail(self, lines: int) -> list[str]:
        """Return the last lines of the output."""
        try:
            with open(self._path, "rb") as file:
                file.seek(max(0, self.log_bytes - 256 * lines))
                return file.read().decode(errors="replace").splitlines()[-lines:]
        except OSError:
            return []
