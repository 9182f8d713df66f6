"""What log drivers send, by the letter of each format; compressed files and the budget beside them."""

from __future__ import annotations

import gzip
import json
import os
import select
import socket
import threading
from pathlib import Path

import pytest

from orlop.supervise import logbudget, logcompress, logformats, logread, logship
from orlop.supervise.log import Log
from orlop.supervise.logread import Entry

TIME_NS = 1_700_000_000_123_456_789
FIELDS = {
    "tag": "t", "hostname": "h", "id": "i" * 12, "full_id": "i" * 64, "name": "web", "image": "img",
    "image_id": "sha256:x", "command": "sh", "created": "then",
}  # fmt: skip


def entry(stream: str = "stdout", **attrs: object) -> Entry:
    return Entry(b"", stream, "", TIME_NS, attrs)


# -- formats --------------------------------------------------------------------------------------------------------


def test_rfc_5424_is_spelled_out() -> None:
    settings = FIELDS | {"format": "rfc5424micro", "facility": "16", "pid": "5"}
    message = logformats.syslog(entry("stderr"), b"text \xff", settings)
    assert message == b"<131>1 2023-11-14T22:13:20.123456Z h t 5 t - text \xff\n"
    assert logformats.with_length(b"abc") == b"3 abc"


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"), (127, "7f"), (128, "cc80"), (65535, "cdffff"), (2**32 - 1, "ceffffffff"),
        (2**32, "cf0000000100000000"),
        ("", "a0"), ("a" * 31, "bf" + "61" * 31), ("a" * 32, "d920" + "61" * 32), ("a" * 256, "da0100" + "61" * 256),
        (b"\xff", "a1ff"), ({}, "80"), ({"a": 1}, "81a16101"), ({str(n): 0 for n in range(16)}, None),
    ],
)  # fmt: skip
def test_messagepack_is_the_specifications(value: object, encoded: str | None) -> None:
    data = logformats.msgpack(value)
    assert data.hex() == encoded if encoded is not None else data.startswith(b"\xde\x00\x10")


def test_a_value_without_a_form_is_a_defect() -> None:
    with pytest.raises(TypeError):
        logformats.msgpack(1.5)


def test_gelf_has_its_required_fields_and_chunks() -> None:
    message = json.loads(logformats.gelf(entry(team="red"), b"x" * 5000, FIELDS))
    assert message["version"] == "1.1" and message["_team"] == "red" and message["timestamp"] == 1_700_000_000.123
    pieces = list(logformats.chunks(b"y" * 5000))
    assert [piece[10:12] for piece in pieces] == [bytes((n, 4)) for n in range(4)]
    assert b"".join(piece[12:] for piece in pieces) == b"y" * 5000 and len({piece[2:10] for piece in pieces}) == 1
    with pytest.raises(ValueError, match="does not fit"):
        list(logformats.chunks(b"z" * 200_000))


@pytest.mark.parametrize(
    ("form", "text", "event"),
    [
        ("inline", b"a \xff", {"line": "a \ufffd", "source": "stderr", "tag": "t", "attrs": {"team": "red"}}),
        ("json", b'{"a": [1]}', {"line": {"a": [1]}, "source": "stderr", "tag": "t", "attrs": {"team": "red"}}),
        ("json", b'{"a": [1', {"line": '{"a": [1', "source": "stderr", "tag": "t", "attrs": {"team": "red"}}),
        ("raw", b"a b", "t team=red a b"),
    ],
)
def test_an_event_of_splunk_has_dockers_fields(form: str, text: bytes, event: object) -> None:
    settings = FIELDS | {"format": form, "source": "s", "sourcetype": "", "index": "main"}
    message = json.loads(logformats.splunk(entry("stderr", team="red"), text, settings))
    wanted = {"event": event, "time": "1700000000.123457", "host": "h", "source": "s", "index": "main"}
    assert message == wanted
    assert bool(logformats.splunk(entry(), b" ", settings)) == (form != "raw"), "no collector takes an empty event"


def journal_fields(data: bytes) -> dict[str, bytes]:
    out = {}
    while data:
        head, _, rest = data.partition(b"\n")
        if b"=" in head:
            name, _, value = head.partition(b"=")
            data = rest
        else:
            name, size = head, int.from_bytes(rest[:8], "little")
            value, data = rest[8 : 8 + size], rest[9 + size :]
        out[name.decode()] = value
    return out


@pytest.mark.parametrize("text", [b"one line", b"two\nlines = hard", b"x" * 1_000_000], ids=["short", "lines", "huge"])
def test_journald_gets_every_message_whole(tmp_path: Path, text: bytes) -> None:
    """Through the real socket; one that fits into no datagram comes as a sealed file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "j"))
        receiver.settimeout(20)
        sink = logship.Journal(FIELDS | {"address": f"unixgram://{tmp_path}/j"})
        sink.send(entry("stderr", **{"com.example-Label": "v", "9": "dropped"}), text)
        sink.close()
        data, fds, _, _ = socket.recv_fds(receiver, 4_000_000, 1)
        if fds:
            with open(fds[0], "rb") as file:
                file.seek(0)
                data = file.read()
    fields = journal_fields(data)
    assert fields["MESSAGE"] == text and fields["PRIORITY"] == b"3" and fields["CONTAINER_NAME"] == b"web"
    assert fields["COM_EXAMPLE_LABEL"] == b"v" and fields["SYSLOG_TIMESTAMP"] == b"2023-11-14T22:13:20.123456789Z"


# -- the shipper ----------------------------------------------------------------------------------------------------


class Flaky(logship.Sink):
    """A receiver that refuses every second time."""

    def __init__(self) -> None:
        super().__init__({})
        self.got: list[bytes] = []
        self.calls = 0

    def send(self, entry: Entry, text: bytes) -> None:
        self.calls += 1
        if self.calls % 2:
            raise ConnectionRefusedError
        self.got.append(text)


def progress_file(directory: Path) -> tuple[int, str]:
    return os.open(directory / "log.shipped", os.O_RDWR | os.O_CREAT), "2026-01-02T03:04:05Z"


class Counting(logship.Sink):
    """A receiver that takes so many lines and then nothing more."""

    def __init__(self, most: int = 10**9) -> None:
        super().__init__({})
        self.got: list[bytes] = []
        self.most = most

    def send(self, entry: Entry, text: bytes) -> None:
        if len(self.got) >= self.most:
            raise ConnectionRefusedError(111, "Connection refused")
        self.got.append(text)


def ended_writer() -> int:
    read, write = os.pipe()
    os.close(write)
    return read


def ship(directory: Path, sink: logship.Sink) -> logship.Progress:
    progress = logship.Progress(*progress_file(directory))
    logship.Shipper(sink, logread.Follow(ended_writer()), progress).run(str(directory), 0)
    return progress


def test_what_was_rotated_away_is_counted_and_said(tmp_path: Path) -> None:
    log = Log(os.open(tmp_path, os.O_RDONLY), 1000, 2)
    log.number()
    for number in range(100):
        log.write(1, b"line %d\n" % number)
    log.finish()
    sink = Counting()
    assert ship(tmp_path, sink).missing == 100 - (len(sink.got) - 1)
    told, *lines = sink.got
    assert told == b"orlop: %d lines are missing here: the log was rotated away before they could be sent" % (
        100 - len(lines)
    )
    assert lines == [b"line %d" % number for number in range(100 - len(lines), 100)]
    following = Log(os.open(tmp_path, os.O_RDONLY), 1000, 2)
    following.number(log)  # a restart: the numbers go on
    for number in range(100, 150):
        following.write(1, b"line %d\n" % number)
    following.finish()
    sink = Counting()
    again = ship(tmp_path, sink)
    assert again.position == 150 and sink.got[-1] == b"line 149"
    assert sink.got[0].startswith(b"orlop: %d lines are missing" % (50 - len(sink.got) + 1))


def test_a_shipper_goes_on_where_the_one_before_it_was_killed(tmp_path: Path) -> None:
    log = Log(os.open(tmp_path, os.O_RDONLY), 0, 2)
    log.number()
    log.write(1, b"".join(b"line %d\n" % number for number in range(10)))  # all of one moment
    log.write(1, b"line 10\nline 11\n")
    log.finish()

    class Killed(Counting):
        def send(self, entry: Entry, text: bytes) -> None:
            if len(self.got) == 4:
                raise KeyboardInterrupt
            super().send(entry, text)

    first, second = Killed(), Counting()
    with pytest.raises(KeyboardInterrupt):
        ship(tmp_path, first)
    assert ship(tmp_path, second).position == 12
    assert first.got + second.got == [b"line %d" % number for number in range(12)]


def test_what_nobody_takes_is_counted_with_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logship, "GIVE_UP_S", 0.1)
    log = Log(os.open(tmp_path, os.O_RDONLY), 0, 2)
    log.write(1, b"a\nb\nc\n")
    log.finish()
    progress = ship(tmp_path, Counting(most=1))
    assert (progress.undelivered, progress.cause) == (2, "Connection refused")
    read = logship.Progress(*progress_file(tmp_path))
    assert (read.position, read.undelivered) == (1, 2)


@pytest.mark.parametrize("data", [b"", b"\0" * 600, b"2026-01-02T03:04:05Z 1 2", b"2026-01-02T03:04:05Z -1 2 3 4 5 x"])
def test_a_damaged_record_of_progress_means_from_the_beginning(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "log.shipped").write_bytes(data)
    progress = logship.Progress(*progress_file(tmp_path))
    assert (progress.time_ns, progress.position) == (0, 0)


def test_lines_arrive_whole_and_in_order_whatever_the_receiver_does(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    log = Log(directory, 0, 2)
    read, write = os.pipe()
    sink = Flaky()
    shipper = logship.Shipper(sink, logread.Follow(read), logship.Progress(*progress_file(tmp_path)))
    thread = threading.Thread(target=shipper.run, args=(str(tmp_path), 0))
    thread.start()
    long = b"x" * 50_000
    log.write(1, b"one\n" + long[:20_000])
    log.write(1, long[20_000:] + b"\nlast")
    log.finish()
    os.write(write, b"!")
    thread.join(30)
    assert not thread.is_alive() and sink.got == [b"one", long, b"last"]
    for fd in (directory, read, write):
        os.close(fd)


# -- files ----------------------------------------------------------------------------------------------------------


def test_a_compressed_file_is_gzip_and_knows_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log.json.1"
    path.write_bytes(b"entry\n" * 100_000)
    os.utime(path, ns=(1, 2 * 10**9))
    inode = path.stat().st_ino
    directory = os.open(tmp_path, os.O_RDONLY)
    logcompress.compress(directory, "log.json.1", "log.json.1.gz")
    assert not path.exists() and gzip.decompress((tmp_path / "log.json.1.gz").read_bytes()) == b"entry\n" * 100_000
    assert (tmp_path / "log.json.1.gz").stat().st_mtime_ns == 2 * 10**9
    fd = os.open(tmp_path / "log.json.1.gz", os.O_RDONLY)
    assert logcompress.identity(fd) == inode
    plain = logcompress.decompress(fd, str(tmp_path))
    assert os.pread(plain, 12, 0) == b"entry\nentry\n" and os.fstat(plain).st_size == 600_000
    for each in (plain, fd, directory):
        os.close(each)


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b", b"no gzip at all", gzip.compress(b"x" * 100_000, mtime=0)[:50]])
def test_a_damaged_compressed_file_is_read_as_far_as_it_goes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "log.json.1.gz").write_bytes(data)
    assert list(logread.read(str(tmp_path))) == []


def test_the_budget_leaves_every_live_file_and_the_newest(tmp_path: Path) -> None:
    for index, name in enumerate(("a", "b", "c")):
        (tmp_path / name).mkdir()
        for number, file in enumerate(("log.json", "log.json.1", "log.json.2.gz", "exit.json")):
            path = tmp_path / name / file
            path.write_bytes(bytes(1000))
            os.utime(path, (1000 + 10 * index - number, 1000 + 10 * index - number))
    directory = os.open(tmp_path / "b", os.O_RDONLY)
    told: list[tuple[str, int]] = []
    assert logbudget.enforce(directory, 6000, lambda *one: told.append(one)) == 3000
    assert sum(size for _, size in told) == 3000 and {name for name, _ in told} <= set(os.listdir(tmp_path))
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("log.json*"))
    assert left == ["a/log.json", "b/log.json", "b/log.json.1", "c/log.json", "c/log.json.1", "c/log.json.2.gz"]
    assert logbudget.enforce(directory, 0, lambda *_: None) == 3000 and (tmp_path / "a/exit.json").exists()
    os.close(directory)


def test_a_follower_sees_each_entry_once_across_compressed_rotations(tmp_path: Path) -> None:
    writer = os.fork()
    if writer == 0:
        try:
            log = Log(os.open(tmp_path, os.O_RDONLY), 2000, 1000, 1)
            for number in range(500):
                log.write(1, b"%d\n" % number)
                if number % 50 == 0:
                    select.select([], [], [], 0.01)
            log.finish()
        finally:
            os._exit(0)
    pidfd = os.pidfd_open(writer)
    got = [one.data for one in logread.read(str(tmp_path), follow=logread.Follow(pidfd))]
    os.waitpid(writer, 0)
    os.close(pidfd)
    assert got == [b"%d\n" % number for number in range(500)]
    assert list(tmp_path.glob("log.json.*.gz"))
