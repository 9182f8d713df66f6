"""What a container says: its log, and a connection to its monitor. The engine stands between no bytes of an attach."""

from __future__ import annotations

import os
import socket
from urllib.parse import quote

from ...spec import attach as frames
from ...spec.errors import Conflict, Invalid, Unavailable, Unsupported
from ...spec.task import ATTACH_SOCKET
from ...supervise import logread
from ...supervise.attach import connect
from .. import events
from ..compile import logging
from . import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..engine import Engine
    from .record import ContainerRecord

BATCH_BYTES = 32 * 1024
_KINDS = {"stdout": frames.STDOUT, "stderr": frames.STDERR}


class LogRequest:
    """What of a log is wanted. Moments in nanoseconds since 1970; tail None is everything.

    marks: tell by PLACE frames how far a followed log was sent. place: such a one, where it goes on.
    """

    __slots__ = ("details", "follow", "marks", "place", "since_ns", "tail", "timestamps", "until_ns")

    def __init__(
        self,
        *,
        follow: bool = False,
        tail: int | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        timestamps: bool = False,
        details: bool = False,
        marks: bool = False,
        place: tuple[int, int] | None = None,
    ) -> None:
        self.details = details
        self.marks = marks
        self.place = place
        self.follow = follow
        self.tail = tail
        self.since_ns = since_ns
        self.until_ns = until_ns
        self.timestamps = timestamps


def logs(engine: Engine, reference: str, wanted: LogRequest, hangup: int) -> Iterator[bytes]:
    """Return the log as attach frames, many in one piece. hangup: the client's connection.

    Raises NotFound, Unsupported for a container without a log, at once, before anything is read.
    """
    record = engine.records.find(reference)
    if not logging.is_readable(record.request):
        cause = "configured logging driver does not support reading"
        raise Unsupported("read the log of", record.subject, cause, hint="run it with another --log-driver")
    return _frames(engine, record, wanted, hangup)


def attach(engine: Engine, reference: str) -> tuple[dict[str, object], int]:
    """Return what the client must know, and a connected attach stream: the caller's to close.

    Raises NotFound, Conflict when the container does not run, Unavailable when its monitor does not answer.
    """
    record = engine.records.find(reference)
    state.step(engine.observe(record.id), "attach", record)
    facts: dict[str, object] = {"terminal": record.request.terminal, "open_stdin": record.request.open_stdin}
    stream = _connect(engine, record)
    events.publish_container(engine, record, "attach")
    return facts, stream


def resize(engine: Engine, reference: str, rows: int, columns: int) -> None:
    """Give a container's terminal a size. Raises NotFound, Conflict when it does not run, Unavailable."""
    record = engine.records.find(reference)
    if not engine.observe(record.id).lives:
        cause = f"Container {record.id} is not running"
        raise Conflict("resize", record.subject, cause, hint=f"start it first: orlop start {record.name}")
    with socket.socket(fileno=_connect(engine, record)) as monitor:
        monitor.sendall(frames.frame(frames.RESIZE, frames.size(rows, columns)))
    events.publish_container(engine, record, "resize", {"height": str(rows), "width": str(columns)})


def told(engine: Engine, reference: str, did: str, exec_id: str = "", size: tuple[int, int] | None = None) -> None:
    """Tell of what an attached client did at its terminal: it spoke with the monitor, so the engine has not seen it.

    did: "detach", from an exec if that is named; or "resize", to size: rows and columns. Raises NotFound, Invalid.
    """
    record = engine.records.find(reference)
    if did == "detach":
        action, attributes = ("exec_detach", {"execID": exec_id}) if exec_id else (did, {})
    elif did == "resize" and size is not None:
        action, attributes = did, {"height": str(size[0]), "width": str(size[1])}
    else:
        raise Invalid("tell of", record.subject, f"no client does {did[:40]!r}", hint="known are detach, resize")
    events.publish_container(engine, record, action, attributes)


def _frames(engine: Engine, record: ContainerRecord, wanted: LogRequest, hangup: int) -> Iterator[bytes]:
    monitor = _monitor(engine, record) if wanted.follow else None
    follow = logread.Follow(monitor, hangup, marks=True) if monitor is not None else None
    try:
        entries = logread.read(
            engine.records.path(record.id),
            since_ns=wanted.since_ns,
            until_ns=wanted.until_ns,
            tail=_beginning(wanted),
            follow=follow,
            coarse=not (wanted.timestamps or wanted.details),
        )
        batch = bytearray()
        starts = dict.fromkeys(_KINDS, True)
        for entry in entries:
            if entry.stream:
                data = entry.data
                if starts[entry.stream]:  # of a line that goes on, the first entry says it all
                    data = _prefix(entry, wanted) + data
                starts[entry.stream] = data.endswith(b"\n")
                batch += frames.frame(_KINDS[entry.stream], data)
            elif follow is not None and wanted.marks:
                batch += frames.frame(frames.PLACE, frames.place(follow.inode, follow.offset))
            # Who follows wants what there is now; a whole log goes out in large pieces.
            if batch and (not entry.stream or len(batch) >= BATCH_BYTES):
                yield bytes(batch)
                batch.clear()
        if wanted.marks:
            batch += frames.frame(frames.PLACE)
        if batch:
            yield bytes(batch)
    finally:
        if monitor is not None:
            os.close(monitor)


def _beginning(wanted: LogRequest) -> int | logread.Place | None:
    if wanted.place is not None:
        return logread.Place(*wanted.place)
    return None if wanted.tail is None else max(0, wanted.tail)


def _prefix(entry: logread.Entry, wanted: LogRequest) -> bytes:
    """Return what stands before a line: its time with nine digits, its details sorted by name, as docker has them."""
    prefix = ""
    if wanted.timestamps:
        prefix = f"{entry.time[:19]}.{entry.time_ns % 10**9:09d}Z "
    if wanted.details:
        pairs = sorted((quote(key, safe=""), quote(str(value), safe="")) for key, value in entry.attrs.items())
        prefix += ",".join(f"{key}={value}" for key, value in pairs) + " "
    return prefix.encode()


def _monitor(engine: Engine, record: ContainerRecord) -> int | None:
    task = engine.observe(record.id)
    if not task.lives or task.status is None:
        return None
    return state.open_monitor(task.status, engine.boot_id)


def _connect(engine: Engine, record: ContainerRecord) -> int:
    try:
        return connect(engine.task_directory(record.id)).detach()
    except OSError as wrong:
        cause = f"its monitor does not answer at {engine.task_directory(record.id)}/{ATTACH_SOCKET}: {wrong.strerror}"
        raise Unavailable(
            "attach to", record.subject, cause, hint="it may have ended just now: orlop ps -a", code="E1106"
        ) from None
