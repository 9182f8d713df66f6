"""The json-file log: docker's bytes, whole lines, capped files, loss that is told, and a reader that keeps up."""

import contextlib
import json
import os
import resource
import signal
import threading
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.spec import attach
from orlop.spec.task import LogOptions
from orlop.supervise import log, logcompress, logread

STAMP = b"2026-01-02T03:04:05.123456789Z"
UNLIMITED = LogOptions(max_size_bytes=0)
PIECE = log.PIECE_BYTES_MAX


@pytest.fixture
def directory(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield tmp_path, fd
    os.close(fd)


def write(fd, *outputs, options=UNLIMITED):
    writer = log.Log(fd, options.max_size_bytes, options.max_files)
    for data in outputs:
        writer.write(attach.STDOUT, data)
    writer.finish()


def text_of(directory, **selection):
    return b"".join(entry.data for entry in logread.read(str(directory), **selection))


def raw_entries(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# -- the format -------------------------------------------------------------------------------------------------------


def go_string(text):
    """What dockerd's encoder makes of a text: written from its rules, one character after the other."""
    out, at = "", 0
    while at < len(text):
        for size in (1, 2, 3, 4):
            with contextlib.suppress(UnicodeDecodeError):
                character = text[at : at + size].decode()
                break
        else:
            character, size = None, 1
        at += size
        if character is None:
            out += "\\ufffd"
        elif character in '"\\':
            out += "\\" + character
        elif character in "\n\r":
            out += {"\n": "\\n", "\r": "\\r"}[character]
        elif character < " " or character in "<>&\u2028\u2029":
            out += f"\\u{ord(character):04x}"
        else:
            out += character
    return f'"{out}"'.encode()


def go_entry(text):
    return b'{"log":' + go_string(text) + b',"stream":"stdout","time":"' + STAMP + b'"}\n'


# Bytes that meet every rule of the encoder, and cut and broken characters.
NASTY = st.lists(
    st.sampled_from([b"a", b" ", b'"', b"\\", b"<&>", b"\r\n", b"\t", b"\0", b"\x1f", b"\x7f", b"\n"])
    | st.sampled_from(
        [b"\xe2\x80\xa8", b"\xe2\x80", b"\xc3\xbc", b"\xc3", b"\xff", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80"]
    )
    | st.sampled_from([b"\xf0\x9f\x98", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\xef\xbf\xbd"])
    | st.binary(max_size=8)
).map(b"".join)


@given(NASTY)
def test_each_line_is_the_entry_that_dockerd_writes(text):
    framer = log.Framer(attach.STDOUT)
    got = framer.feed(text, STAMP) + framer.finish(STAMP)
    assert got == b"".join(go_entry(line) for line in _lines(text))


def _lines(text):
    *whole, last = text.split(b"\n")
    return [line + b"\n" for line in whole] + ([last] if last else [])


@given(NASTY, st.lists(st.integers(1, 9), min_size=1))
def test_how_the_output_is_cut_into_reads_does_not_show(text, sizes):
    framer, got, at, turn = log.Framer(attach.STDERR), b"", 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        got += framer.feed(text[at : at + size], STAMP)
        at, turn = at + size, turn + 1
    whole = log.Framer(attach.STDERR)
    assert got + framer.finish(STAMP) == whole.feed(text, STAMP) + whole.finish(STAMP)


@given(st.lists(st.integers(0, 3 * PIECE), max_size=6), st.lists(st.integers(1, 70_000), min_size=1))
@settings(deadline=None)
def test_long_lines_come_in_pieces_that_join(lengths, sizes):
    text = b"".join(b"x" * length + b"\n" for length in lengths)
    framer, entries, at, turn = log.Framer(attach.STDOUT), [], 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        entries += [json.loads(line)["log"] for line in framer.feed(text[at : at + size], STAMP).splitlines()]
        at, turn = at + size, turn + 1
    assert framer.finish(STAMP) == b""
    assert "".join(entries).encode() == text
    assert all(len(entry) <= PIECE for entry in entries)
    # dockerd's buffer has 16 KiB: it is written out as soon as it is full, even if the next byte ends the line.
    assert len(entries) == sum(length // PIECE + 1 for length in lengths)


@pytest.mark.parametrize("shift", range(4))
@pytest.mark.parametrize("character", ["ü", "☃", "😀"])
def test_a_piece_ends_between_characters(shift, character):
    text = b"a" * shift + character.encode() * PIECE + b"\n"
    framer = log.Framer(attach.STDOUT)
    entries = [json.loads(line)["log"] for line in framer.feed(text, STAMP).splitlines()]
    assert "".join(entries).encode() == text
    assert all(len(entry.encode()) > PIECE - 4 for entry in entries[:-1])


def test_a_time_has_the_digits_that_go_prints():
    assert log.timestamp(0) == b"1970-01-01T00:00:00Z"
    assert log.timestamp(1_767_323_045_120_000_000) == b"2026-01-02T03:04:05.12Z"
    assert log.timestamp(1_767_323_045_000_000_001) == b"2026-01-02T03:04:05.000000001Z"


@given(st.integers(0, 4_102_444_800 * 10**9))
def test_a_time_is_read_as_it_was_written(time_ns):
    assert logread.parse_time(log.timestamp(time_ns).decode()) == time_ns


@pytest.mark.parametrize(
    "text", ["", "Z", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02T03:04:05+01:00", "xxxx-01-02T03:04:05Z"]
)
def test_what_is_no_time_in_utc_is_refused(text):
    with pytest.raises(ValueError):
        logread.parse_time(text)


# -- files ------------------------------------------------------------------------------------------------------------


def test_both_streams_are_named_and_a_last_line_without_end_is_kept(directory):
    path, fd = directory
    writer = log.Log(fd, 0, 2)
    writer.write(attach.STDOUT, b"out\npart")
    writer.write(attach.STDERR, b"err\n")
    writer.write(attach.STDOUT, b"ial")
    writer.finish()
    entries = [(entry["log"], entry["stream"]) for entry in raw_entries(path / "log.json")]
    assert entries == [("out\n", "stdout"), ("err\n", "stderr"), ("partial", "stdout")]
    assert (path / "log.json").stat().st_mode & 0o777 == 0o600


@given(
    lines=st.lists(st.text('ab\\"', max_size=40).map(str.encode), max_size=60),
    size_max=st.integers(1, 700),
    files_max=st.integers(0, 4),
    batch=st.integers(1, 9),
)
@settings(deadline=None)
def test_files_stay_within_their_cap_and_hold_the_newest_lines(tmp_path_factory, lines, size_max, files_max, batch):
    path = tmp_path_factory.mktemp("log")
    fd = os.open(path, os.O_RDONLY)
    lines = [line + b"\n" for line in lines]
    batches = [b"".join(lines[at : at + batch]) for at in range(0, len(lines), batch)]
    write(fd, *batches, options=LogOptions(max_size_bytes=size_max, max_files=files_max))
    os.close(fd)
    names = sorted(os.listdir(path))
    assert names == sorted(log.rotated_name(index) for index in range(len(names)))
    assert len(names) <= max(files_max, 1)
    for name in names:
        size = (path / name).stat().st_size
        assert size <= size_max or (path / name).read_bytes().count(b"\n") == 1
    kept = text_of(path)
    assert b"".join(lines).endswith(kept)
    assert bool(kept) == bool(lines)


def test_a_torn_last_line_is_skipped_by_readers_and_cut_off_by_the_next_writer(directory):
    path, fd = directory
    write(fd, b"one\ntwo\n")
    whole = (path / "log.json").read_bytes()
    torn = whole + whole[:25]
    (path / "log.json").write_bytes(torn)
    assert text_of(path) == b"one\ntwo\n"
    assert text_of(path, tail=1) == b"two\n"
    write(fd, b"three\n")
    assert text_of(path) == b"one\ntwo\nthree\n"
    assert (path / "log.json").read_bytes().startswith(whole + b'{"log":"three')


def test_a_file_that_is_one_torn_line_is_begun_anew(directory):
    path, fd = directory
    (path / "log.json").write_bytes(b"x" * 10_000)
    assert text_of(path) == text_of(path, tail=3) == b""
    write(fd, b"a\n")
    assert text_of(path) == b"a\n"


def test_a_log_that_is_a_symbolic_link_is_not_followed(directory, tmp_path_factory):
    path, fd = directory
    victim = tmp_path_factory.mktemp("host") / "victim"
    victim.write_text("")
    (path / "log.json").symlink_to(victim)
    write(fd, b"a\n")
    assert victim.read_text() == ""
    with pytest.raises(OSError):
        text_of(path)


# -- a full disk: a limit on file sizes fails in the same place, without a file system of its own ---------------------


@contextlib.contextmanager
def file_size_limit(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_the_file_system_refuses_is_counted_and_told_later(directory):
    path, fd = directory
    writer = log.Log(fd, 0, 2)
    writer.write(attach.STDOUT, b"first\n")
    size = (path / "log.json").stat().st_size
    with file_size_limit(size + 40):  # the next entry is torn in its middle
        writer.write(attach.STDOUT, b"lost\nlost\n")
        writer.write(attach.STDOUT, b"lost too\n")
        assert (path / "log.json").stat().st_size == size
    writer.write(attach.STDOUT, b"last\n")
    writer.finish()
    note = b"orlop: 3 lines of output could not be logged here: File too large\n"
    assert text_of(path) == b"first\n" + note + b"last\n"


def test_a_loss_is_told_at_the_end_when_nothing_comes_after_it(directory):
    path, fd = directory
    writer = log.Log(fd, 0, 2)
    with file_size_limit(10):
        writer.write(attach.STDOUT, b"lost\n")
    writer.finish()
    assert text_of(path) == b"orlop: 1 line of output could not be logged here: File too large\n"


def test_a_log_that_can_not_be_rotated_loses_lines_and_does_not_grow(directory):
    path, fd = directory
    (path / "log.json.1").mkdir()
    (path / "log.json.1" / "in the way").touch()
    writer = log.Log(fd, 100, 2)
    for _ in range(5):
        writer.write(attach.STDOUT, b"a line\n")
    assert (path / "log.json").stat().st_size <= 100
    (path / "log.json.1" / "in the way").unlink()
    (path / "log.json.1").rmdir()
    writer.write(attach.STDOUT, b"last\n")
    writer.finish()
    assert b"4 lines of output could not be logged here: " in text_of(path)
    assert text_of(path, tail=1) == b"last\n"


def test_a_log_whose_directory_is_gone_raises_nothing(directory, tmp_path):
    path, fd = directory
    os.rename(path, gone := tmp_path.parent / f"{tmp_path.name}-gone")
    os.rmdir(gone)
    write(fd, b"a\n", b"b\n", options=LogOptions(max_size_bytes=10))
    os.mkdir(path)


# -- selecting --------------------------------------------------------------------------------------------------------


def numbered(count, start=0):
    return [b"%d\n" % number for number in range(start, start + count)]


@given(st.integers(0, 70), st.integers(0, 80), st.integers(0, 400))
@settings(deadline=None)
def test_the_last_lines_are_found_over_rotated_files(tmp_path_factory, count, tail, size_max):
    path = tmp_path_factory.mktemp("log")
    fd = os.open(path, os.O_RDONLY)
    write(fd, *numbered(count), options=LogOptions(max_size_bytes=size_max, max_files=100))
    os.close(fd)
    assert text_of(path, tail=tail) == b"".join(numbered(count)[max(count - tail, 0) :])


def test_a_long_line_counts_once_and_an_unfinished_one_too(directory):
    path, fd = directory
    long = b"x" * (5 * PIECE) + b"\n"
    write(fd, b"a\n", b"literal \\n\n", long, b"unfinished")
    assert text_of(path, tail=1) == b"unfinished"
    assert text_of(path, tail=2) == long + b"unfinished"
    assert text_of(path, tail=3) == b"literal \\n\n" + long + b"unfinished"


@given(st.lists(st.sampled_from([b"\\", b"n", b"\n", b"x", b'"']), max_size=9).map(b"".join))
def test_whether_a_raw_entry_ends_its_line_is_seen_without_parsing(text):
    framer = log.Framer(attach.STDOUT)
    for entry in (framer.feed(text, STAMP) + framer.finish(STAMP)).splitlines():
        assert logread._ends_line(entry) == json.loads(entry)["log"].endswith("\n")


def entry_at(time_ns, text=b"x\n"):
    framer = log.Framer(attach.STDOUT)
    return framer.feed(text, log.timestamp(time_ns))


def test_since_and_until_include_their_moments(directory):
    path, _ = directory
    with open(path / "log.json", "wb") as file:
        for second in range(20_000):
            file.write(entry_at(second * 10**9, b"%d\n" % second))
    for since in (0, 1, 9_999, 19_999):
        assert text_of(path, since_ns=since * 10**9, until_ns=(since + 1) * 10**9) == b"".join(
            numbered(min(2, 20_000 - since), since)
        )
    assert text_of(path, since_ns=19_998 * 10**9 + 1) == b"19999\n"
    assert text_of(path, since_ns=20_000 * 10**9) == b""
    assert text_of(path, since_ns=19_990 * 10**9, tail=5) == b"".join(numbered(5, 19_995))


def test_little_of_a_large_log_is_read(directory, monkeypatch):
    path, _ = directory
    with open(path / "log.json", "wb") as file:
        for second in range(200_000):
            file.write(entry_at(second * 10**9))
    read_bytes = 0
    pread = os.pread

    def counting(fd, size, offset):
        nonlocal read_bytes
        read_bytes += size
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", counting)
    assert len(list(logread.read(str(path), tail=10))) == 10
    assert len(list(logread.read(str(path), since_ns=199_000 * 10**9))) == 1000
    assert read_bytes < 8 * 1024 * 1024 < (path / "log.json").stat().st_size


@given(st.lists(st.binary(max_size=200), max_size=20))
@settings(deadline=None)
def test_damage_hides_nothing_but_itself(tmp_path_factory, damage):
    path = tmp_path_factory.mktemp("log")
    lines = [b"%d\n" % number for number in range(len(damage))]
    with open(path / "log.json", "wb") as file:
        for line, junk in zip(lines, damage, strict=True):
            file.write(entry_at(0, line) + junk.replace(b"\n", b"") + b"\n")
    assert text_of(path) == b"".join(lines)
    assert text_of(path, tail=1000) == b"".join(lines)


@pytest.mark.parametrize(
    "line",
    [
        b'{"log":"a\\n","stream":"stdout"}',
        b'{"log":"a\\n","stream":"stdout","time":"yesterday"}',
        b'{"log":"a\\n","stream":"stdout","time":"2026-01-02T03:04:05+01:00"}',
        b'{"log":1,"stream":"stdout","time":"2026-01-02T03:04:05Z"}',
        b'{"log":"a\\n","stream":null,"time":"2026-01-02T03:04:05Z"}',
        b'{"log":"a\\n","stream":"stdlog","time":"2026-01-02T03:04:05Z"}',
        b'{"log":"\\ud8","stream":"stdout","time":"2026-01-02T03:04:05Z"}',
        b"[" * 50_000,
        b"\0" * 4096,
        b"x" * (logread.ENTRY_BYTES_MAX + 1),
        b'{"log":"' + b"x" * (3 * logread.ENTRY_BYTES_MAX),
    ],
    ids=range(11),
)
def test_a_line_that_is_no_entry_is_skipped(directory, line):
    path, _ = directory
    (path / "log.json").write_bytes(entry_at(0, b"1\n") + line + b"\n" + entry_at(0, b"2\n") + line)
    assert text_of(path) == b"1\n2\n"
    assert text_of(path, tail=1) == b"2\n"


def test_entries_of_dockerd_itself_are_read(directory):
    path, _ = directory
    (path / "log.json").write_bytes(
        b'{"log":"a \\u003cb\\u003e \\ud83d\\ude00\\n","stream":"stderr","attrs":{"tag":"x"},'
        b'"time":"2026-01-02T03:04:05.5Z"}\n'
        b'{"stream":"stdout","time":"2026-01-02T03:04:05.5Z"}\n'
    )
    entries = list(logread.read(str(path)))
    assert [(entry.data, entry.stream, entry.time) for entry in entries] == [
        ("a <b> 😀\n".encode(), "stderr", "2026-01-02T03:04:05.5Z"),
        (b"", "stdout", "2026-01-02T03:04:05.5Z"),
    ]
    assert entries[0].time_ns == 1_767_323_045_500_000_000


def test_a_container_without_a_log_has_no_entries(tmp_path):
    assert text_of(tmp_path) == text_of(tmp_path, tail=5, since_ns=1) == b""


# -- following --------------------------------------------------------------------------------------------------------


class Writer:
    """A log that is written by a thread, and the pipe whose end says that it is complete."""

    def __init__(self, fd, options):
        self.ended, self._alive = os.pipe()
        self._log = log.Log(fd, options.max_size_bytes, options.max_files)

    def write(self, *outputs):
        for data in outputs:
            self._log.write(attach.STDOUT, data)

    def end(self):
        self._log.finish()
        os.close(self._alive)

    def follow(self, path, **selection):
        return logread.read(str(path), follow=logread.Follow(self.ended), **selection)


@pytest.fixture
def writer(directory):
    made = []

    def make(options=UNLIMITED):
        made.append(Writer(directory[1], options))
        return made[-1]

    yield make
    for each in made:
        os.close(each.ended)


def test_what_comes_is_followed_until_the_writer_ends(directory, writer):
    path, _ = directory
    source = writer()
    source.write(b"old\n")
    entries = source.follow(path)
    assert next(entries).data == b"old\n"
    source.write(b"new\n")
    assert next(entries).data == b"new\n"
    source.write(b"unfinished")
    source.end()
    assert [entry.data for entry in entries] == [b"unfinished"]


def test_a_log_that_is_not_there_yet_is_waited_for(directory, writer):
    path, _ = directory
    source = writer()
    thread = threading.Timer(0.05, lambda: (source.write(b"a\n"), source.end()))
    thread.start()
    assert [entry.data for entry in source.follow(path, tail=0)] == [b"a\n"]
    thread.join()


@pytest.mark.parametrize("instances", ["inotify", "no inotify"])
def test_no_line_is_lost_over_rotations(directory, writer, monkeypatch, instances):
    path, _ = directory
    if instances == "no inotify":

        def used_up(path, mask):
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(logread.inotify, "open_watch", used_up)
        monkeypatch.setattr(logread, "_POLL_S", 0.001)
    # Never more than max_files behind: the writer waits for the reader after every 20 rotations.
    source = writer(LogOptions(max_size_bytes=200, max_files=50))
    lines = numbered(2000)
    seen = []
    turn = threading.Semaphore(0)

    def write():
        for at in range(0, len(lines), 50):
            source.write(*lines[at : at + 50])
            turn.acquire(timeout=10)
        source.end()

    thread = threading.Thread(target=write)
    thread.start()
    for entry in source.follow(path):
        seen.append(entry.data)
        if len(seen) % 50 == 0:
            turn.release()
    thread.join()
    assert seen == lines


def test_a_follower_that_fell_behind_goes_on_with_the_oldest_line_there_is(directory, writer):
    path, _ = directory
    source = writer(LogOptions(max_size_bytes=300, max_files=3))
    source.write(b"first\n")
    entries = source.follow(path)
    assert next(entries).data == b"first\n"
    source.write(*numbered(500))
    source.end()
    rest = [int(entry.data) for entry in entries]
    assert rest == sorted(rest)
    assert rest[-5:] == list(range(495, 500))


def test_nobody_wants_more(directory, writer):
    path, _ = directory
    source = writer()
    source.write(b"a\n")
    cancel, client = os.pipe()
    entries = logread.read(str(path), follow=logread.Follow(source.ended, cancel))
    assert next(entries).data == b"a\n"
    os.close(client)
    assert list(entries) == []
    os.close(cancel)
    source.end()


def test_a_follower_leaves_no_descriptor_behind(directory, writer):
    path, _ = directory
    source = writer(LogOptions(max_size_bytes=100, max_files=10))
    source.write(*numbered(20))
    before = len(os.listdir("/proc/self/fd"))
    entries = source.follow(path)
    next(entries)
    entries.close()
    source.end()
    assert len(os.listdir("/proc/self/fd")) == before - 2  # the log's file, and the writing end of the pipe


def test_a_snapshot_has_nothing_that_came_after_it(directory, writer):
    path, _ = directory
    source = writer()
    source.write(b"1\n", b"2\n")
    entries = logread.read(str(path))
    assert next(entries).data == b"1\n"
    source.write(b"3\n")
    assert [entry.data for entry in entries] == [b"2\n"]
    source.end()


def test_lines_that_come_right_before_a_rotation_are_not_missed(directory, writer, monkeypatch):
    path, _ = directory
    source = writer(LogOptions(max_size_bytes=200, max_files=50))
    source.write(b"first\n")
    open_segments = logread._open_segments

    def raced(directory, newer_than=-1):
        if newer_than != -1 and not raced.done:
            raced.done = True
            source.write(*numbered(30))  # into the file that was just read to its end, and ten more
        return open_segments(directory, newer_than)

    raced.done = False
    entries = source.follow(path)
    assert next(entries).data == b"first\n"
    monkeypatch.setattr(logread, "_open_segments", raced)
    source_end = threading.Timer(0.1, source.end)
    source_end.start()
    assert [entry.data for entry in entries] == numbered(30)
    source_end.join()


def test_two_rotations_while_the_files_are_opened_mix_up_nothing(directory, writer, monkeypatch):
    path, _ = directory
    source = writer(LogOptions(max_size_bytes=200, max_files=50))
    source.write(*numbered(9))
    name = logread.rotated_name

    def raced(index):
        if index == 1 and not raced.done:
            raced.done = True
            source.write(*numbered(6, 9))
        return name(index)

    raced.done = False
    monkeypatch.setattr(logread, "rotated_name", raced)
    assert text_of(path) == b"".join(numbered(15))
    source.end()


def test_a_snapshot_ends_although_the_writer_does_not(directory, writer):
    path, _ = directory
    source = writer()
    stop = threading.Event()

    def write():
        while not stop.is_set():
            source.write(b"x" * 1000 + b"\n")

    thread = threading.Thread(target=write)
    thread.start()
    while not (path / "log.json").exists():
        time.sleep(0.001)
    for _ in logread.read(str(path)):
        pass
    stop.set()
    thread.join()
    source.end()


PARTS = st.sampled_from(
    [b"plain", b"two words", b"\n", b"\n\n", b'a "quoted" \\ <b>&', "grün".encode(), b"\xff\xfe", b"x" * 20_000]
)


@settings(max_examples=60)
@given(outputs=st.lists(st.tuples(st.sampled_from([attach.STDOUT, attach.STDERR]), PARTS), max_size=30))
def test_many_lines_in_one_entry_are_the_same_text(tmp_path_factory, outputs):
    path = tmp_path_factory.mktemp("log")
    fd = os.open(path, os.O_RDONLY)
    writer = log.Log(fd, 0, 2)
    for stream, data in outputs:
        writer.write(stream, data)
    writer.finish()
    os.close(fd)

    def texts(**selection):
        found = {"stdout": b"", "stderr": b""}
        for entry in logread.read(str(path), **selection):
            found[entry.stream] += entry.data
        return found

    assert texts(coarse=True) == texts()
    moments = [entry.time_ns for entry in logread.read(str(path))]
    for moment in moments[:3]:
        assert texts(coarse=True, since_ns=moment) == texts(since_ns=moment)
        assert texts(coarse=True, until_ns=moment) == texts(until_ns=moment)


def test_plain_lines_come_many_at_once(directory):
    path, fd = directory
    write(fd, *(b"line %d\n" % number for number in range(5000)))
    entries = list(logread.read(str(path), coarse=True))
    assert len(entries) < 20 and b"".join(entry.data for entry in entries) == text_of(path)


# -- compressed files -------------------------------------------------------------------------------------------------

COMPRESSED_FILE_BYTES = 24 * 1024 * 1024
READING_BYTES_MAX = 4 * 1024 * 1024


@pytest.fixture
def compressed(directory):
    """Three rotated files, compressed, and the one that is written; returns the directory and the number of lines."""
    path, fd = directory
    entry = b'{"log":"%s\\n","stream":"stdout","time":"' % (b"x" * 1000) + STAMP + b'"}\n'
    count = COMPRESSED_FILE_BYTES // len(entry)
    for index in (3, 2, 1):
        (path / f"log.json.{index}").write_bytes(entry * count)
        logcompress.compress(fd, f"log.json.{index}", f"log.json.{index}.gz")
    (path / "log.json").write_bytes(entry)
    return path, 3 * count + 1


@pytest.mark.parametrize("selection", [{}, {"tail": 50_000}, {"since_ns": 0}, {"coarse": True}], ids=str)
def test_compressed_files_are_read_in_bounded_memory_and_room(compressed, selection):
    path, count = compressed

    def unpacked():
        names = []
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                names.append(os.readlink(f"/proc/self/fd/{name}"))
        return sum(name.endswith("(deleted)") and name.startswith(str(path)) for name in names)

    lines = most = 0
    tracemalloc.start()
    try:
        for number, entry in enumerate(logread.read(str(path), **selection)):
            lines += entry.data.count(b"\n")
            if number % 5000 == 0:
                most = max(most, unpacked())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert lines == min(count, selection.get("tail", count))
    assert peak < READING_BYTES_MAX < COMPRESSED_FILE_BYTES
    assert most <= 1 or "tail" in selection or "since_ns" in selection
