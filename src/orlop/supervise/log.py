"""The container's log: docker's json-file format, written by the monitor, capped and rotated.

One entry is one line of JSON; "attrs" is there when the container's log options ask for it:

    {"log":"text\n","stream":"stdout","attrs":{"tag":"web"},"time":"2026-01-02T03:04:05.123456789Z"}

A line of output longer than PIECE_BYTES_MAX becomes several entries, and only the last of them ends with \n: readers
that put the texts behind one another get the line back whole. Output that ended without \n has none in its last entry.

Invariants:
1. log.json and log.json.1[.gz] .. log.json.<max_files - 1>[.gz], newest first, hold whole entries; only the last line
   of log.json can be torn (the monitor was killed inside write(2), the machine lost power). `Log` cuts a torn line off
   when it opens the file, readers skip it.
2. No file grows beyond max_size_bytes, except by one entry that is larger than that by itself.
3. Writing never raises and never waits: entries that the file system refuses are counted, and said in the log as
   soon as it takes bytes again.
4. Rotated files are compressed by a child of ours; no rotation happens while it is at work. A rotation also looks at
   the logs of all containers, and removes the oldest rotated files where there are too many of them (logbudget).

5. Where entries are sent on, `log.numbers` says for each file (by its inode number, a line each) which number its
   first entry has, counted from the monitor's first: what is rotated away before it was sent is counted by that.

Writer: the monitor. Readers: `orlop.supervise.logread`, and whoever reads docker's logs.
Source for the format: what dockerd 20 to 28 write, byte by byte (the JSON escapes of Go's encoder, RFC3339Nano).
"""

import codecs
import errno
import os
import time

from ..spec import attach
from ..spec.task import LOG_FILE, LOG_NUMBERS_FILE
from . import logbudget, record

PIECE_BYTES_MAX = 16 * 1024
COMPRESSED = ".gz"

_HEAD = b'{"log":"'
_MIDDLE = {attach.STDOUT: b'","stream":"stdout",', attach.STDERR: b'","stream":"stderr",'}
_TIME = b'"time":"'
_END = b'"}\n'
_NEWLINE = b"\\n"

# Go's encoder escapes these so that the text may stand inside HTML. The backslash is first: the others bring new ones.
_ESCAPES = (
    (b"\\", b"\\\\"),
    (b'"', b'\\"'),
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    (b"\r", b"\\r"),
    (b"\t", b"\\u0009"),
)
_RARE_CONTROLS = bytes(code for code in range(0x20) if code not in b"\n\r\t")
_INVALID = "orlop-json-invalid"


def _replace_invalid(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    # Go replaces each byte that belongs to no character; str.decode's "replace" would join those of a cut one.
    return "\\ufffd" * (error.end - error.start), error.end


codecs.register_error(_INVALID, _replace_invalid)


def timestamp(time_ns: int) -> bytes:
    """Return a moment as Go's RFC3339Nano does: UTC, without trailing zeros in the fraction."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{whole}{fraction}Z".encode()


class Framer:
    """Turns the bytes of one stream into entries. Holds back the beginning of a line whose end has not come yet."""

    __slots__ = ("_middle", "_pending")

    def __init__(self, stream: int, attrs: str = "") -> None:
        """attrs: a JSON object that every entry shows, "" for none."""
        self._middle = _MIDDLE[stream] + (b'"attrs":%b,' % attrs.encode() if attrs else b"") + _TIME
        self._pending = b""

    def feed(self, data: bytes, stamp: bytes) -> bytes:
        """Return the entries that are complete now, each with this time."""
        text = self._pending + data
        framed = []
        lines_from = start = 0
        while len(text) - start >= PIECE_BYTES_MAX:
            newline = text.rfind(b"\n", start, start + PIECE_BYTES_MAX)
            if newline >= 0:
                start = newline + 1
                continue
            framed.append(self._lines(text[lines_from:start], stamp))
            piece = _whole_characters(text[start : start + PIECE_BYTES_MAX])
            framed.append(self._piece(piece, stamp))
            lines_from = start = start + len(piece)
        end = max(start, text.rfind(b"\n", start) + 1)
        framed.append(self._lines(text[lines_from:end], stamp))
        self._pending = text[end:]
        return b"".join(framed)

    def finish(self, stamp: bytes) -> bytes:
        """Return the entry of a last line that has no end; b"" when there is none."""
        text, self._pending = self._pending, b""
        return self._piece(text, stamp) if text else b""

    def _lines(self, text: bytes, stamp: bytes) -> bytes:
        """Frame whole lines: each newline becomes everything between two texts, in one pass over the batch."""
        if not text:
            return b""
        close = _NEWLINE + self._middle + stamp + _END
        return _HEAD + _escape(text[:-1]).replace(b"\n", close + _HEAD) + close

    def _piece(self, text: bytes, stamp: bytes) -> bytes:
        return _HEAD + _escape(text) + self._middle + stamp + _END


def _escape(text: bytes) -> bytes:
    """Return the text as the inside of a JSON string, but for newlines, which stay."""
    for raw, escaped in _ESCAPES:
        text = text.replace(raw, escaped)
    if len(text.translate(None, _RARE_CONTROLS)) != len(text):
        for code in _RARE_CONTROLS:
            text = text.replace(bytes((code,)), b"\\u%04x" % code)
    return text if text.isascii() else _escape_beyond_ascii(text)


def _escape_beyond_ascii(text: bytes) -> bytes:
    # U+2028 and U+2029 end a line in JavaScript: Go's encoder escapes them.
    if b"\xe2\x80" in text:
        text = text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    try:
        text.decode()
        return text
    except UnicodeDecodeError:
        return text.decode("utf-8", _INVALID).encode()


def _whole_characters(piece: bytes) -> bytes:
    """Return the piece without a character that is cut at its end; dockerd cuts it and ruins both halves."""
    for length in (1, 2, 3):
        lead = piece[-length]
        if lead < 0x80:
            return piece
        if lead >= 0xC0:
            wanted = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return piece[:-length] if wanted > length else piece
    return piece


class Log:
    """log.json and its rotated files in one directory."""

    __slots__ = (
        "_budget",
        "_compress",
        "_compressor",
        "_directory",
        "_entries",
        "_fd",
        "_files_max",
        "_framers",
        "_lost_cause",
        "_lost_lines",
        "_numbers",
        "_size",
        "_size_max",
        "_trims",
    )

    def __init__(
        self,
        directory_fd: int,
        max_size_bytes: int,
        max_files: int,
        compress: int = 0,
        budget_bytes: int = 0,
        attrs: str = "",
    ) -> None:
        """directory_fd: borrowed, it must outlive the log. The others: see `spec.task.LogOptions`; attrs as JSON."""
        self._directory = directory_fd
        self._compress = compress
        self._compressor = 0  # the process that compresses the file that was rotated last
        self._budget = budget_bytes
        self._size_max = max_size_bytes
        self._files_max = max_files
        self._framers = {stream: Framer(stream, attrs) for stream in _MIDDLE}
        self._fd = -1
        self._size = 0
        self._lost_lines = 0
        self._lost_cause = ""
        self._trims = logbudget.Trims(directory_fd)
        self._entries = 0
        self._numbers: dict[int, int] | None = None  # inode number: the number of the first entry

    def number(self, before: "Log | None" = None) -> None:
        """Keep `log.numbers`. before: the log of this container's run before this one, whose numbers go on."""
        self._entries = before._entries if before else 0
        self._numbers = (before._numbers if before else None) or {}

    def write(self, stream: int, data: bytes) -> None:
        """Take output of a stream (attach.STDOUT or STDERR)."""
        self._append(self._framers[stream].feed(data, timestamp(time.time_ns())))

    def finish(self) -> None:
        """Write what waits for the end of its line, and close the file. A later write opens it again."""
        stamp = timestamp(time.time_ns())
        self._append(b"".join(framer.finish(stamp) for framer in self._framers.values()))
        if self._lost_lines:
            self._append_part(b"")
        self._close()
        self._reap()
        self._trims.tell(last=True)

    def _append(self, framed: bytes) -> None:
        """Write entries, cut at the borders of files."""
        while framed:
            try:
                self._open()
                if self._size and not self._fitting(framed):
                    self._rotate()
                    self._open()
                part = self._fitting(framed) or _first_entry(framed)
            except OSError as refused:
                self._lose(framed, refused)
                return
            self._append_part(part)
            framed = framed[len(part) :]

    def _fitting(self, framed: bytes) -> bytes:
        """Return the entries that log.json has room for."""
        if not self._size_max or self._size + len(framed) <= self._size_max:
            return framed
        return framed[: framed.rfind(b"\n", 0, max(self._size_max - self._size, 0)) + 1]

    def _append_part(self, part: bytes) -> None:
        """Write whole entries by one write(2), so that a kill of the monitor tears at most the last of them."""
        note = self._loss_note() if self._lost_lines else b""
        batch = note + part
        written = 0
        try:
            self._open()
            written = os.write(self._fd, batch)
            if written < len(batch):
                # Short: out of space, or a limit on file sizes. A second write gives the reason.
                written += os.write(self._fd, batch[written:])
                if written < len(batch):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as refused:
            kept = batch.rfind(b"\n", 0, written) + 1
            self._entries += batch.count(b"\n", 0, kept)
            self._cut_back(self._size + kept)
            if kept >= len(note):
                self._lost_lines = 0
            self._lose(batch[max(kept, len(note)) :], refused)
            return
        self._size += len(batch)
        self._entries += batch.count(b"\n")
        self._lost_lines = 0

    def _lose(self, framed: bytes, refused: OSError) -> None:
        self._lost_lines += framed.count(b"\n")
        self._lost_cause = refused.strerror or type(refused).__name__

    def _loss_note(self) -> bytes:
        lines = f"{self._lost_lines} lines" if self._lost_lines > 1 else "1 line"
        text = f"orlop: {lines} of output could not be logged here: {self._lost_cause}\n"
        return Framer(attach.STDERR).feed(text.encode(), timestamp(time.time_ns()))

    def _cut_back(self, size: int) -> None:
        """Cut off the torn end of a write. Where even that fails, the next open does it."""
        if self._fd >= 0:
            try:
                os.ftruncate(self._fd, size)
                self._size = size
            except OSError:
                self._close()

    def _open(self) -> None:
        """Open log.json where it is not open. Raises OSError."""
        if self._fd >= 0:
            return
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(LOG_FILE, flags, 0o600, dir_fd=self._directory)
        try:
            self._size = _cut_torn_line(self._fd)
        except OSError:
            self._close()
            raise
        if self._numbers is not None:
            self._tell_number(self._numbers)

    def _tell_number(self, numbers: dict[int, int]) -> None:
        """Say which number the next entry has, where the file is a new one."""
        inode = os.fstat(self._fd).st_ino
        if self._size and inode in numbers:
            return
        numbers.pop(inode, None)  # of a file that is gone
        numbers[inode] = self._entries
        for gone in list(numbers)[: -self._files_max - 1]:
            del numbers[gone]
        text = "".join(f"{inode} {number}\n" for inode, number in numbers.items())
        try:
            record.replace(self._directory, LOG_NUMBERS_FILE, text.encode())
        except OSError:
            pass  # a full disk: then a gap is not counted

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._size = 0

    def _rotate(self) -> None:
        """Make room for a new log.json: the oldest file goes, the others move up by one. Raises OSError."""
        self._close()
        self._reap()
        last = self._files_max - 1
        gone = (rotated_name(max(last, 0)), rotated_name(max(last, 0)) + COMPRESSED)
        self._trims.add("", sum(_size_of(self._directory, name) for name in gone))
        if last < 1:
            os.unlink(LOG_FILE, dir_fd=self._directory)
        for index in range(last, 0, -1):
            for suffix in ("", COMPRESSED):
                # A file that is not compressed and one that is: only one of them takes the place.
                if _rename(self._directory, rotated_name(index - 1) + suffix, rotated_name(index) + suffix):
                    other = COMPRESSED if not suffix else ""
                    _unlink(self._directory, rotated_name(index) + other)
        if self._compress and last:
            self._start_compressor()
        if self._budget:
            logbudget.enforce(self._directory, self._budget, self._trims.add)
        self._trims.tell()

    def _start_compressor(self) -> None:
        try:
            pid = os.fork()
        except OSError:
            return  # then it stays as it is
        if pid:
            self._compressor = pid
            return
        try:
            from . import logcompress

            logcompress.compress(self._directory, rotated_name(1), rotated_name(1) + COMPRESSED)
        finally:
            os._exit(0)

    def _reap(self) -> None:
        """Wait for the compressor, if there is one: it works on a file that is about to get another name."""
        if self._compressor:
            try:
                os.waitpid(self._compressor, 0)
            except ChildProcessError:
                pass
            self._compressor = 0


def _first_entry(framed: bytes) -> bytes:
    return framed[: framed.index(b"\n") + 1]


def rotated_name(index: int) -> str:
    """Return the name of the index-th file, 0 being the live one."""
    return f"{LOG_FILE}.{index}" if index else LOG_FILE


def _rename(directory: int, source: str, target: str) -> bool:
    try:
        os.rename(source, target, src_dir_fd=directory, dst_dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def _size_of(directory: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    except OSError:
        return 0


def _unlink(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


def _cut_torn_line(fd: int) -> int:
    """Cut off what follows the last newline and return the size that is left."""
    end = size = os.fstat(fd).st_size
    while end:
        start = max(end - 4096, 0)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end != size:
        os.ftruncate(fd, end)
    return end
