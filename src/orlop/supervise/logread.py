"""Reading a container's log while its monitor writes and rotates it: whole, since a moment, the last lines, following.

Reads no more than it must: `tail` walks backwards from the end in blocks, `since` searches by bisection.
A line that is no entry (torn by a kill or a power cut) is skipped. Nothing is locked; rotation is seen by inode
numbers, which can't be reused while the file is open here.

The times in a log are those of the wall clock. Where it was set back, `since` finds one of the places that fit.
"""

import os
import select
import stat

from ..linux import inotify
from ..spec import jsonio
from ..spec.errors import Invalid
from .log import COMPRESSED, rotated_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Mapping
    from types import ModuleType

BLOCK_BYTES = 64 * 1024
ENTRY_BYTES_MAX = 1024 * 1024  # the monitor's entries have at most 100 KiB; what is longer is damage
FILES_MAX = 1000
_SNAPSHOT_ATTEMPTS_MAX = 100
_POLL_S = 0.2  # where inotify is used up: /proc/sys/fs/inotify/max_user_instances
_SECOND_NS = 1_000_000_000
_STREAMS = ("stdout", "stderr")
_NONE: "Mapping[str, object]" = {}
_AFTER_TEXT = (b',"stream":"stdout","time":"', b',"stream":"stderr","time":"')


if TYPE_CHECKING:
    Fields = tuple[bytes, str, str, Mapping[str, object]]


class Entry:
    """One entry. data: the text as it was written, with its newline unless more of the line follows or it never ended.

    stream: "stdout" or "stderr". time_ns: since the epoch. time: as it stands in the log (RFC 3339).
    attrs: what the container's log options have every entry show.
    """

    __slots__ = ("attrs", "data", "stream", "time", "time_ns")

    def __init__(
        self, data: bytes, stream: str, time: str, time_ns: int, attrs: "Mapping[str, object]" = _NONE
    ) -> None:
        self.attrs = attrs
        self.data = data
        self.stream = stream
        self.time = time
        self.time_ns = time_ns


_MARK = Entry(b"", "", "", 0)


class Place:
    """How far a log was read: the inode of the file (before it was compressed), and the offset in it."""

    __slots__ = ("inode", "offset")

    def __init__(self, inode: int, offset: int) -> None:
        self.inode = inode
        self.offset = offset


class Follow:
    """How long to wait for more. writer: becomes readable when the log gets no more entries (the monitor's pidfd);
    cancel: becomes readable when nobody wants more (the client's connection), -1 for none. Both are borrowed.
    inode, offset: of the file that the last entry came from (before it was compressed), and how far it was read when
    the entries up to there have been yielded. marks: yield an entry without a stream whenever that is so.
    """

    __slots__ = ("cancel", "inode", "marks", "offset", "writer")

    def __init__(self, writer: int, cancel: int = -1, *, marks: bool = False) -> None:
        self.writer = writer
        self.cancel = cancel
        self.marks = marks
        self.inode = self.offset = 0


def read(
    directory: str,
    *,
    since_ns: int | None = None,
    until_ns: int | None = None,
    tail: "int | Place | None" = None,
    follow: Follow | None = None,
    coarse: bool = False,
) -> "Iterator[Entry]":
    """Yield the entries of the log in a container's directory, oldest first.

    since_ns, until_ns: moments since the epoch, both included. tail: at most that many of the last lines (a long line
    counts once), applied first, as docker does; or all from the place of an earlier follower on.
    follow: go on with what is written until the writer ends.
    coarse: one Entry may hold many whole lines of a stream, with the time of the first.
    A container without a log has no entries. Raises OSError, Invalid never: what can't be read is not an entry.
    """
    wait = _Wait(directory, follow) if follow else None
    segments = _open_segments(directory)
    parser = _Parser()
    try:
        if isinstance(tail, Place):
            _seek_to_place(segments, tail.inode, tail.offset)
        elif tail is not None:
            _seek_to_tail(segments, tail)
        if since_ns is not None:
            _seek_to_time(segments, since_ns)
        for block in (
            _snapshot(segments) if wait is None or follow is None else _followed(directory, segments, wait, follow)
        ):
            if coarse and since_ns is None and until_ns is None and (many := parser.parse_block(block)):
                yield many
            else:
                for line in block[:-1].split(b"\n"):
                    entry = parser.parse(line)
                    if entry is None or (since_ns is not None and entry.time_ns < since_ns):
                        continue
                    if until_ns is not None and entry.time_ns > until_ns:
                        return
                    since_ns = since_ns if not coarse else None  # what was written later is later
                    yield entry
            if follow is not None and follow.marks:
                yield _MARK
    finally:
        for segment in segments:
            segment.close()
        if wait:
            wait.close()


def parse_time(text: str) -> int:
    """Return the moment of an RFC 3339 time in UTC ("...Z"), in nanoseconds since the epoch. Raises ValueError."""
    if len(text) < 20 or text[4] + text[7] + text[10] + text[13] + text[16] + text[-1] != "--T::Z":
        raise ValueError(f"not a time in UTC: {text[:40]!r}")
    year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
    seconds = int(text[11:13]) * 3600 + int(text[14:16]) * 60 + int(text[17:19])
    fraction = text[20:-1] if text[19] == "." else ""
    # Days of the civil calendar, with the year beginning in March so that the leap day is its last.
    year, month = (year - 1, month + 9) if month < 3 else (year, month - 3)
    days = year * 365 + year // 4 - year // 100 + year // 400 + (month * 306 + 5) // 10 + day - 1 - 719468
    return (days * 86400 + seconds) * _SECOND_NS + int(fraction[:9].ljust(9, "0"))


class _Parser:
    """Entries from lines. The entries of one write share their time: it is read once."""

    __slots__ = ("_time", "_time_ns")

    def __init__(self) -> None:
        self._time = ""
        self._time_ns = 0

    def parse(self, line: bytes) -> Entry | None:
        """Return the entry that a line holds, None for a line that is none."""
        try:
            text, stream, time, attrs = _plain_fields(line) or _fields(line)
            if time != self._time:
                self._time_ns = parse_time(time)
                self._time = time
        except (Invalid, ValueError):
            return None
        return Entry(text, stream, time, self._time_ns, attrs)

    def parse_block(self, block: bytes) -> Entry | None:
        """Return the lines of a block as one entry; None unless all are of one stream and without any escape."""
        first, _, _ = block.partition(b"\n")
        entry = self.parse(first)
        if entry is None or entry.attrs or not block.endswith(b'Z"}\n'):
            return None
        stream = entry.stream.encode()
        body = _between(entry.stream).sub(b"\n", block)
        body, end, time = body.rpartition(b'\\n","stream":"%b","time":"' % stream)
        if not end or time.count(b'"') != 1 or b"\\" in body or body.count(b'"') != 3:
            return None
        try:
            body.decode()
        except UnicodeDecodeError:
            return None
        return Entry(body[8:] + b"\n", entry.stream, entry.time, entry.time_ns)


def _between(stream: str) -> "re.Pattern[bytes]":
    """Return what stands between the texts of two entries that each end their line."""
    import re

    return re.compile(rb'\\n","stream":"%b","time":"[0-9T:.-]{19,30}Z"\}\n\{"log":"' % stream.encode())


def _plain_fields(line: bytes) -> "Fields | None":
    """Return (text, stream, time) of a line as our monitor writes it whose text has no escape but the last newline.

    What does not fit exactly is left to the JSON reader: this only saves most lines the way through it.
    """
    if not line.startswith(b'{"log":"') or not line.endswith(b'Z"}'):
        return None
    text, _, rest = line[8:-2].partition(b'"')
    ends = text.endswith(b"\\n")
    body = text[:-2] if ends else text
    if b"\\" in body or not body.isascii() or not rest.startswith(_AFTER_TEXT):
        return None
    return body + b"\n" if ends else body, rest[11:17].decode(), rest[27:].decode("ascii", "replace"), _NONE


def _fields(line: bytes) -> "Fields":
    value = jsonio.parse_object(line, "a log entry", bytes_max=ENTRY_BYTES_MAX)
    text, stream, time = value.get("log", ""), value.get("stream"), value.get("time")
    if not isinstance(text, str) or stream not in _STREAMS or not isinstance(time, str):
        raise ValueError("not a log entry")
    attrs = value.get("attrs")
    return text.encode("utf-8", "replace"), stream, time, attrs if isinstance(attrs, dict) else _NONE


class _Segment:
    """One file of the log: where reading goes on, and the beginning of a line whose end was not there yet.

    A compressed file is unpacked when it is read, into one without a name.
    """

    __slots__ = ("_compressed", "_directory", "_fd", "_inode", "_mtime_ns", "_offset", "_rest")

    def __init__(self, fd: int, compressed_in: str = "") -> None:
        """compressed_in: the directory of a compressed file, "" for a plain one."""
        self._fd = fd
        self._directory = compressed_in
        self._compressed = bool(compressed_in)
        self._inode = _compression().identity(fd) if compressed_in else os.fstat(fd).st_ino
        self._mtime_ns = os.fstat(fd).st_mtime_ns
        self._offset = 0
        self._rest = b""

    @property
    def read_until(self) -> int:
        """Where the last whole line that was read ends."""
        return self._offset - len(self._rest)

    @property
    def inode(self) -> int:
        """Of the file as it was written."""
        return self._inode

    @property
    def fd(self) -> int:
        if self._directory:
            plain = _compression().decompress(self._fd, self._directory)
            os.close(self._fd)
            self._fd, self._directory = plain, ""
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._directory = -1, ""

    def is_same(self, other: "_Segment") -> bool:
        """Tell whether both are what the monitor wrote into one file, compressed since or not."""
        if self._inode != other._inode:
            return False
        if not self._compressed and not other._compressed:
            return True  # both are open: none has the other's recycled number
        return self._written_at() == other._written_at()

    def _written_at(self) -> int:
        return self._mtime_ns if self._compressed else os.fstat(self._fd).st_mtime_ns

    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def end(self) -> int | None:
        """Return where the file ends now, None for a compressed one: nobody writes it any more."""
        return None if self._compressed else self.size()

    def first_time(self) -> int | None:
        """Return the time of the first entry, None without one."""
        block = os.pread(self.fd, 4 * BLOCK_BYTES, 0)
        entry = _Parser().parse(block.partition(b"\n")[0])
        return entry.time_ns if entry else None

    def seek(self, offset: int) -> None:
        """Go on at the beginning of a line."""
        self._offset = offset
        self._rest = b""

    def blocks(self, end: int | None = None) -> "Iterator[bytes]":
        """Yield whole lines up to offset end, or to what is there now, many in one piece.

        A line longer than any entry is dropped.
        """
        while end is None or self._offset < end:
            size = BLOCK_BYTES if end is None else min(BLOCK_BYTES, end - self._offset)
            block = os.pread(self.fd, size, self._offset)
            if not block:
                return
            self._offset += len(block)
            block = self._rest + block
            whole = block.rfind(b"\n") + 1
            self._rest = block[whole:]
            if len(self._rest) > ENTRY_BYTES_MAX:
                self._rest = self._rest[:1]  # still not an entry when its end comes
            if whole:
                yield block[:whole]

    def lines_backwards(self) -> "Iterator[tuple[int, bytes]]":
        """Yield (offset, line) from the last whole line to the first."""
        position = self.size()
        carry = b""
        torn = True  # what follows the last newline is no line
        while position:
            start = max(position - BLOCK_BYTES, 0)
            first, *lines = (os.pread(self.fd, position - start, start) + carry).split(b"\n")
            at = start + len(first) + 1 + sum(len(line) + 1 for line in lines)
            for line in reversed(lines):
                at -= len(line) + 1
                if not torn:
                    yield at, line
                torn = False
            carry = first if len(first) <= ENTRY_BYTES_MAX else first[-1:]
            position = start
        if not torn:
            yield 0, carry

    def seek_time(self, since_ns: int) -> None:
        """Go on not before the present place, and not far before the first entry of that time or later."""
        low, high = self._offset, self.size()
        while high - low > BLOCK_BYTES:
            middle = (low + high) // 2
            at, time_ns = self._entry_after(middle)
            if time_ns is not None and time_ns < since_ns:
                low = at
            else:
                high = middle
        self.seek(low)

    def _entry_after(self, offset: int) -> tuple[int, int | None]:
        """Return the offset and the time of the first entry that begins after offset; (offset, None) without one."""
        block = os.pread(self.fd, 4 * BLOCK_BYTES, offset)
        at = block.find(b"\n") + 1
        while at:
            end = block.find(b"\n", at)
            entry = _Parser().parse(block[at:end]) if end >= 0 else None
            if entry:
                return offset + at, entry.time_ns
            at = end + 1
        return offset, None


def _open_segments(directory: str, newer_than: _Segment | None = None) -> list[_Segment]:
    """Return the files of the log that are newer than this one, or all, oldest first."""
    for _ in range(_SNAPSHOT_ATTEMPTS_MAX):
        segments = _open_each(directory, newer_than)
        # A rotation meanwhile only shows a file twice; after two, an unseen newer one could stand behind an older.
        if not segments or _is_newest(directory, segments[-1]):
            break
        for segment in segments:
            segment.close()
    else:
        segments = _open_each(directory, newer_than)
    return segments


def _open_each(directory: str, newer_than: _Segment | None) -> list[_Segment]:
    """Open the files from the newest on: they move up, so that none is missed."""
    segments: list[_Segment] = []
    missing = 0
    for index in range(FILES_MAX):
        segment = _open_segment(directory, index)
        if segment is None:
            missing += 1
            if missing == 2:
                break
            continue  # a rotation renames one file after the other: there can be one hole
        missing = 0
        if newer_than is not None and segment.is_same(newer_than):
            segment.close()
            break
        if any(segment.is_same(other) for other in segments):
            segment.close()
            continue
        segments.insert(0, segment)
    return segments


def _open_segment(directory: str, index: int) -> _Segment | None:
    for suffix in ("", COMPRESSED):
        try:
            name = f"{directory}/{rotated_name(index)}{suffix}"
            fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return _Segment(fd, directory if suffix else "")
        os.close(fd)  # nothing of ours
    return None


def _is_newest(directory: str, segment: _Segment) -> bool:
    for index in (0, 1):
        if (newest := _open_segment(directory, index)) is not None:
            try:
                return newest.is_same(segment)
            finally:
                newest.close()
    return False


def _compression() -> "ModuleType":
    from . import logcompress  # zlib is 0.4 ms that most logs never need

    return logcompress


def _drop(segments: list[_Segment], count: int) -> None:
    """Leave out the oldest files."""
    for segment in segments[:count]:
        segment.close()
    del segments[:count]


def _seek_to_place(segments: list[_Segment], inode: int, offset: int) -> None:
    """Leave out what somebody has read up to there. A file that was rotated away since was the oldest."""
    for index, segment in enumerate(segments):
        if segment.inode == inode:
            segment.seek(offset)
            _drop(segments, index)
            return


def _seek_to_time(segments: list[_Segment], since_ns: int) -> None:
    """Leave out the files that are older, and put the others to where that time may begin."""
    for index in range(len(segments) - 1, -1, -1):
        segments[index].seek_time(since_ns)
        first_ns = segments[index].first_time()
        if first_ns is not None and first_ns < since_ns:
            _drop(segments, index)
            return


def _seek_to_tail(segments: list[_Segment], count: int) -> None:
    """Put every segment to where the last `count` lines begin."""
    lines = 0
    for index in range(len(segments) - 1, -1, -1):
        for offset, line in segments[index].lines_backwards():
            # Only the very last line may have no end; otherwise an end is where the line before this one ends.
            lines += _ends_line(line) or not lines
            if lines > count:
                segments[index].seek(offset + len(line) + 1)
                _drop(segments, index)
                return


def _ends_line(entry: bytes) -> bool:
    """Tell whether the text of a raw entry ends with a newline, without parsing it."""
    text, found, _ = entry.rpartition(b'","stream":"')
    if not found or not text.endswith(b"n"):
        return False
    # An odd number of backslashes: the last of them makes the n a newline.
    before = text[:-1]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


def _snapshot(segments: list[_Segment]) -> "Iterator[bytes]":
    """Yield what is in the log now: a writer that is faster than we are does not keep us here."""
    ends = [segment.end() for segment in segments]
    for segment, end in zip(segments, ends, strict=True):
        yield from segment.blocks(end)
        segment.close()  # unpacked, it takes room on the disk: never two of them at once


def _followed(directory: str, segments: list[_Segment], wait: "_Wait", follow: Follow) -> "Iterator[bytes]":
    """Yield what is in the log and what comes. Keeps `segments` to what is still to be read."""
    while True:
        ended = wait.ended()
        while segments:
            yield from _told(segments[0], follow)
            if len(segments) == 1:
                segments += _open_segments(directory, segments[0])
                if len(segments) == 1:
                    break
                yield from _told(segments[0], follow)  # it is not written any more: now this is its end
            segments.pop(0).close()
        if not segments:
            segments += _open_segments(directory)
            if segments:
                continue
        if ended or not wait.more():
            return


def _told(segment: _Segment, follow: Follow) -> "Iterator[bytes]":
    for block in segment.blocks():
        follow.inode, follow.offset = segment.inode, segment.read_until
        yield block


class _Wait:
    """Waits until the files may have changed."""

    __slots__ = ("_changes", "_poll", "_watch_cancel", "_writer")

    def __init__(self, directory: str, follow: Follow) -> None:
        self._writer = select.poll()
        self._writer.register(follow.writer, select.POLLIN)
        self._poll = select.poll()
        self._poll.register(follow.writer, select.POLLIN)
        self._watch_cancel = follow.cancel
        if follow.cancel >= 0:
            self._poll.register(follow.cancel, select.POLLIN | select.POLLRDHUP)
        try:
            self._changes = inotify.open_watch(directory, inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO)
            self._poll.register(self._changes, select.POLLIN)
        except OSError:
            self._changes = -1

    def close(self) -> None:
        if self._changes >= 0:
            os.close(self._changes)

    def ended(self) -> bool:
        """Tell whether the writer has ended: what can be read after this is all there ever will be."""
        return bool(self._writer.poll(0))

    def more(self) -> bool:
        """Wait for a change; False when nobody wants more."""
        ready = self._poll.poll(None if self._changes >= 0 else _POLL_S * 1000)
        if self._changes >= 0:
            inotify.discard_events(self._changes)
        return all(fd != self._watch_cancel for fd, _ in ready)
