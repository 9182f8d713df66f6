"""What a build tells while it works: steps that begin and end, their output, pulls. One queue, any number of writers.

The messages are this module's; doors translate them. A step is known by its number, in the order of the graph:

    {"plan": [{"text": "RUN make", "step": 3 or 0}]}      the Dockerfile's instructions that are built, in their order
    {"step": 3, "name": "[build 2/4] RUN make", "state": "started" | "done" | "cached" | "failed", "seconds", "error"}
    {"step": 3, "stream": 1 | 2, "log": "text"}
    {"step": 3, "container": the id under which its command runs}
    {"step": 1, "pull": docker's message}
    {"step": 0, "name", "status": "writing image sha256:..."}            something that a step has done
    {"at": {"file", "lines": [first, last], "text": the whole file}}      where it is wrong, or a step of it failed
    {"warning": {...}}

Steps of number 0 are what no instruction asks for; they are known by their names, which their messages tell.
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
    from typing import BinaryIO

    from orlop.linux.zstd import Compressor

    Message = dict[str, object]

METADATA = "[internal] load metadata for "  # and an image's name: a step's name
LOG_BYTES_SHOWN_MAX = 64 * 1024  # one message
PLAIN_BYTES_MAX = 64 * 1024  # of output that is kept as it is; what is longer is compressed
PACKED_SUFFIX = ".zst"
PACKED_LEVEL = 1  # as fast as a disk; lines of a program that compiles become a tenth
TAIL_BYTES = 16 * 1024
QUEUED_MAX = 10_000  # a step waits for a client that does not read; its log is on disk all the same


class Journal:
    """directory: where the steps' whole output is kept, one file for each: <number>.log, or <number>.log.zst."""

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
        self._kept = _Kept(path)
        self._decoders = {stream: codecs.getincrementaldecoder("utf-8")(errors="replace") for stream in (1, 2)}
        self.number = number
        self.name = name
        self.log_bytes = 0
        self._known_as: Message = {"step": number} if number else {"step": 0, "name": name}
        journal.tell({"step": number, "name": name, "state": "started"})

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self._began, 3)

    def write(self, stream: int, data: bytes) -> None:
        """Take output of the step: 1 is standard output, 2 standard error."""
        self._kept.write(data)
        self.log_bytes += len(data)
        for at in range(0, len(data), LOG_BYTES_SHOWN_MAX):
            text = self._decoders[stream].decode(data[at : at + LOG_BYTES_SHOWN_MAX])
            if text:
                self._journal.tell({**self._known_as, "stream": stream, "log": text})

    def note(self, message: Message) -> None:
        """Tell something about the step."""
        self._journal.tell({**self._known_as, **message})

    def end(self, state: str, error: str = "", tree: str = "") -> None:
        """The step is over: "done", "cached" or "failed". tree: the ChainID of what it left."""
        try:
            self._kept.close()
        except OSError:
            if state != "failed":  # else it has an error already, which says more
                raise
        message: Message = {"step": self.number, "name": self.name, "state": state, "seconds": self.seconds}
        if error:
            message["error"] = error
        if tree:
            message["tree"] = tree
        self._journal.tell(message)

    def tail(self, lines: int) -> list[str]:
        """Return the last lines of the output, as far as they have TAIL_BYTES."""
        return self._kept.last.decode(errors="replace").splitlines()[-lines:]


class _Kept:
    """A step's output on disk, and the last of it at hand. It is whole once this is closed."""

    def __init__(self, path: str) -> None:
        self.last = b""
        self._path = path
        self._pending = bytearray()
        self._file: BinaryIO | None = None
        self._compressor: Compressor | None = None

    def write(self, data: bytes) -> None:
        self.last = (self.last + data)[-TAIL_BYTES:] if len(data) < TAIL_BYTES else data[-TAIL_BYTES:]
        self._pending += data
        if len(self._pending) >= PLAIN_BYTES_MAX:
            if self._file is None:
                self._compressor = _compressor()
                self._file = self._open(packed=self._compressor is not None)
            self._put()

    def close(self) -> None:
        if self._pending and self._file is None:
            self._file = self._open(packed=False)
        if self._file is not None:
            with self._file as file:
                self._put()
                if self._compressor is not None:
                    file.write(self._compressor.flush())
        self._file = self._compressor = None

    def _put(self) -> None:
        assert self._file is not None
        data = bytes(self._pending)
        self._pending.clear()
        self._file.write(self._compressor.compress(data) if self._compressor is not None else data)

    def _open(self, *, packed: bool) -> BinaryIO:
        """Begin the file anew: a step may be made twice (--verify, a cache that has lost what it had promised)."""
        paths = {False: self._path, True: self._path + PACKED_SUFFIX}
        try:
            os.unlink(paths[not packed])
        except FileNotFoundError:
            pass
        return open(os.open(paths[packed], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")


def _compressor() -> Compressor | None:
    """Return what compresses, None on a machine without libzstd."""
    from orlop.linux import zstd

    try:
        return zstd.Compressor(zstd.load(), PACKED_LEVEL)
    except OSError:
        return None
