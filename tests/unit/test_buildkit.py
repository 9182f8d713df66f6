"""BuildKit's wire: calls over HTTP/2 between two of ours, folders of hostile clients, progress in its messages."""

from __future__ import annotations

import os
import select
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orlop.build.request import BuildRequest
from orlop.frontends.buildkit import control, filesync, frontend, grpc, http2, outputs, session, status
from orlop.frontends.buildkit.frames import Frames
from orlop.frontends.buildkit.http2 import Broken, Connection
from orlop.spec import protobuf
from orlop.spec.errors import Invalid, OrlopError, Unavailable

Method = Callable[[grpc.Call], None]


@contextmanager
def served(methods: dict[str, Method]) -> Iterator[Connection]:
    """Yield a client's connection to a server with these methods."""
    one, other = socket.socketpair()
    server = Connection(one, is_client=False, handle=lambda stream: grpc.serve(stream, methods))
    client = Connection(other, is_client=True)
    threads = [threading.Thread(target=end.run, daemon=True) for end in (server, client)]
    for thread in threads:
        thread.start()
    try:
        yield client
    finally:
        client.close()
        server.close()
        for thread in threads:
            thread.join(60)
        one.close()
        other.close()


def echo(call: grpc.Call) -> None:
    for message in call.messages():
        call.send(message)


def refuse(call: grpc.Call) -> None:
    list(call.messages())
    raise grpc.Failed(grpc.NOT_FOUND, "no ü % here")


def test_messages_of_any_size_come_back() -> None:
    with served({"/s/Echo": echo}) as connection:
        for size in (0, 1, 16384, 65536, 20 << 20):
            assert grpc.call(connection, "/s/Echo", b"x" * size) == b"x" * size


def test_a_defect_of_a_method_is_an_answer_too() -> None:
    def broken(call: grpc.Call) -> None:
        raise KeyError("x")

    with served({"/s/Broken": broken}) as connection, pytest.raises(grpc.Failed) as caught:
        grpc.call(connection, "/s/Broken", b"")
    assert caught.value.code == grpc.INTERNAL and "KeyError" in caught.value.text


def test_many_calls_at_once() -> None:
    found: list[bytes] = []
    with served({"/s/Echo": echo}) as connection:
        threads = [
            threading.Thread(target=lambda n=n: found.append(grpc.call(connection, "/s/Echo", b"%d" % n)))
            for n in range(50)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(map(int, found)) == list(range(50))


def test_a_status_comes_with_its_text() -> None:
    with served({"/s/Refuse": refuse}) as connection:
        with pytest.raises(grpc.Failed) as caught:
            grpc.call(connection, "/s/Refuse", b"x")
        assert (caught.value.code, caught.value.text) == (grpc.NOT_FOUND, "no ü % here")
        with pytest.raises(grpc.Failed) as caught:
            grpc.call(connection, "/s/None", b"x")
        assert caught.value.code == grpc.UNIMPLEMENTED


def test_a_lost_connection_ends_every_call() -> None:
    waiting = threading.Event()

    def hang(call: grpc.Call) -> None:
        waiting.set()
        list(call.messages())

    with served({"/s/Hang": hang}) as connection:
        call = grpc.begin(connection, "/s/Hang")
        assert waiting.wait(60)
        connection.close()
        with pytest.raises(Broken):
            list(call.messages())
        with pytest.raises(Broken):
            grpc.begin(connection, "/s/Hang")


@pytest.mark.parametrize("way", ["reset", "connection", "before"])
def test_a_build_hears_that_its_client_has_gone(way: str) -> None:
    begun, gone, heard = threading.Event(), threading.Event(), threading.Event()

    def build(call: grpc.Call) -> None:
        begun.set()
        if way == "before":
            assert gone.wait(60)
            call.stream.closed.wait(60)
        with control._hangup(call.stream) as hangup:
            begun.set()
            if select.select([hangup], [], [], 60)[0]:
                heard.set()

    with served({"/s/Build": build}) as connection:
        call = grpc.begin(connection, "/s/Build")
        assert begun.wait(60)
        connection.close() if way == "connection" else call.stream.reset()
        gone.set()
        assert heard.wait(60)


def test_the_end_of_a_build_waits_for_no_watch_over_its_client() -> None:
    def build(call: grpc.Call) -> None:
        list(call.messages())
        before = set(threading.enumerate())
        with control._hangup(call.stream) as hangup:
            assert set(threading.enumerate()) == before
            assert not select.select([hangup], [], [], 0)[0]
        call.send(str(len(call.stream._at_end)).encode())

    with served({"/s/Build": build}) as connection:
        assert grpc.call(connection, "/s/Build", b"") == b"0"


def test_broken_frames_are_refused() -> None:
    def broken(call: grpc.Call) -> None:
        list(call.messages())
        call.send(b"")
        call.stream.send(b"\x00\xff\xff\xff\xff")

    with served({"/s/Broken": broken}) as connection, pytest.raises(grpc.Failed):
        grpc.call(connection, "/s/Broken", b"")


# -- frames ----------------------------------------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return len(content).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + content


def test_frames_are_the_same_wherever_what_comes_is_cut() -> None:
    rest = [PREFACE, frame(4, 0, 0, b""), frame(1, 4, 3, b"h"), frame(0, 1, 3, b"last"), frame(0, 0, 5, b"not plain")]
    rest += [frame(0, 0, 3, b""), frame(1, 0, 3, b"h"), frame(0, 0, 3, b"amid headers"), frame(9, 4, 3, b"h")]
    whole = b"".join(rest[:3]) + frame(0, 0, 3, b"one") + frame(0, 0, 3, b"two") + b"".join(rest[3:])
    whole += frame(0, 0, 3, b"three") + frame(0, 0, 3, b"x" * 16385) + frame(0, 0, 3, b"behind what is too long")
    told = b"".join(rest) + whole[whole.index(frame(0, 0, 3, b"x" * 16385)) :]
    for size in (1, 2, 3, 5, 9, 10, 23, 24, 25, 100, len(whole)):
        frames = Frames(lambda number: number == 3, preface=True)
        found = [one for at in range(0, len(whole), size) for one in frames.cut(whole[at : at + size])]
        assert b"".join(data for number, data in found if number) == b"onetwothree"
        assert b"".join(data for number, data in found if not number) == told


def test_who_sends_more_than_the_window_holds_is_cut_off() -> None:
    waiting = threading.Event()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server = Connection(ours, is_client=False, handle=lambda stream: bool(waiting.wait(60)))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        headers = b"\x83\x86\x84\x41\x01a"  # POST, http, /, and an authority
        theirs.sendall(PREFACE + frame(4, 0, 0, b"") + frame(1, 4, 1, headers))
        drain = threading.Thread(target=lambda: list(iter(lambda: theirs.recv(65536), b"")), daemon=True)
        drain.start()
        sent = 0
        with pytest.raises(OSError):
            while sent < 3 * http2.UNREAD_BYTES_MAX:
                theirs.sendall(frame(0, 0, 1, bytes(16384)))
                sent += 16384
        thread.join(60)
        assert server.is_over and not thread.is_alive()
        waiting.set()
        drain.join(60)


# -- folders ---------------------------------------------------------------------------------------------------------

DIRECTORY, LINK = 1 << 31 | 0o755, 1 << 27 | 0o777


def stat_of(path: str, mode: int = 0o644, size: int = 0, link: str = "", mtime: int = 5) -> protobuf.Message:
    return ((1, filesync.STAT), (2, ((1, path), (2, mode), (5, size), (6, mtime), (7, link))))


def sender(stats: list[protobuf.Message], content: dict[int, bytes]) -> Method:
    """A client's DiffCopy that sends these, then what is asked for."""

    def send(call: grpc.Call) -> None:
        for one in (*stats, ((1, filesync.STAT),)):
            call.send(protobuf.encode(one))
        for message in call.messages():
            fields = protobuf.decode(message)
            if protobuf.number(fields, 1) == filesync.FIN:
                call.send(protobuf.encode(((1, filesync.FIN),)))
                return
            number = protobuf.number(fields, 3)
            asked.append(number)
            call.send(protobuf.encode(((1, filesync.DATA), (3, number), (4, content.get(number, b"")))))
            if content.get(number):
                call.send(protobuf.encode(((1, filesync.DATA), (3, number))))

    asked: list[int] = []
    send.asked = asked  # type: ignore[attr-defined]
    return send


def receive(method: Method, directory: Path) -> None:
    with served({session.FILE_SYNC: method}) as connection:
        filesync.receive(session.Session("s", "k", (session.FILE_SYNC,), connection), "context", str(directory))


def test_a_folder_is_received_and_then_only_what_changed(tmp_path: Path) -> None:
    stats = [
        stat_of("a", 0o640, 3),
        stat_of("d", DIRECTORY),
        stat_of("d/b", 0o755 | 1 << 23, 2, mtime=7),
        stat_of("d/same", 0o640, 3, link="a"),
        stat_of("l", LINK, link="d/b"),
        stat_of("m", LINK, link="d"),
    ]
    first = sender(stats, {0: b"one", 2: b"bb"})
    receive(first, tmp_path / "t")
    place = tmp_path / "t"
    assert (place / "a").read_bytes() == b"one" and stat.S_IMODE((place / "a").stat().st_mode) == 0o640
    assert (place / "d/b").stat().st_mtime_ns == 7 and stat.S_IMODE((place / "d/b").stat().st_mode) == 0o4755
    assert os.readlink(place / "l") == "d/b" and os.readlink(place / "m") == "d"
    assert (place / "d/same").samefile(place / "a")
    second = sender(
        [stat_of("d", DIRECTORY), stat_of("d/b", 0o755 | 1 << 23, 2, mtime=7), stat_of("n", 0o644, 1)], {2: b"n"}
    )
    receive(second, place)
    assert second.asked == [2]  # type: ignore[attr-defined]
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*")) == ["d", "d/b", "n"]


@pytest.mark.parametrize(
    "stats",
    [
        [stat_of("../out")],
        [stat_of("/out")],
        [stat_of("a/../../out")],
        [stat_of("")],
        [stat_of("a//b")],
        [stat_of("missing/b")],
        [stat_of("l", LINK, link="/tmp"), stat_of("l/out")],
        [stat_of("a"), stat_of("a")],
        [stat_of("a", DIRECTORY), stat_of("a/b", link="../../out")],
        [stat_of("a\0b")],
        [((1, 9),)],
        [((1, filesync.DATA), (3, 7), (4, b"x"))],
    ],
)
def test_hostile_folders_change_nothing_outside(tmp_path: Path, stats: list[protobuf.Message]) -> None:
    with pytest.raises(Invalid):
        receive(sender(stats, {}), tmp_path / "t")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t"]


def test_a_link_that_was_here_is_not_followed(tmp_path: Path) -> None:
    place = tmp_path / "t"
    place.mkdir()
    (tmp_path / "victim").write_text("safe")
    (place / "a").symlink_to(tmp_path / "victim")
    receive(sender([stat_of("a", 0o600, 2)], {0: b"no"}), place)
    assert (tmp_path / "victim").read_text() == "safe" and (place / "a").read_text() == "no"


def test_a_client_without_folders_is_told(tmp_path: Path) -> None:
    with served({}) as connection, pytest.raises(Unavailable):
        filesync.receive(session.Session("s", "k", (), connection), "context", str(tmp_path / "t"))


def test_a_folder_is_sent_as_it_is_received(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "d").mkdir(parents=True)
    (source / "d/f").write_bytes(b"x" * 100_000)
    (source / "d/empty").touch()
    (source / "l").symlink_to("d/f")
    wrong: list[BaseException] = []

    def send(call: grpc.Call) -> None:
        outputs._Sender(call, str(source)).run()  # type: ignore[arg-type]
        try:
            list(call.messages())
        except BaseException as error:
            wrong.append(error)

    receive(send, target)
    assert (target / "d/f").read_bytes() == b"x" * 100_000 and (target / "d/empty").read_bytes() == b""
    assert os.readlink(target / "l") == "d/f" and not wrong


# -- sessions and progress -------------------------------------------------------------------------------------------


def test_a_secret_and_its_absence() -> None:
    def secret(call: grpc.Call) -> None:
        (message,) = call.messages()
        if protobuf.text(protobuf.decode(message), 1) != "known":
            raise grpc.Failed(grpc.NOT_FOUND, "no such secret")
        call.send(protobuf.encode(((1, b"\x00value"),)))

    method = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
    with served({method: secret}) as connection:
        own = session.Session("s", "", (method,), connection)
        assert own.secret("known") == b"\x00value" and own.secret("other") is None
        assert session.Session("s", "", (), connection).secret("known") is None


def test_progress_is_read_from_the_beginning_by_anybody() -> None:
    progress = status.Progress("b")
    progress.tell({"step": 1, "name": "RUN a", "state": "started", "seconds": 0})
    progress.tell({"step": 1, "stream": 1, "log": "text"})
    progress.tell({"step": 1, "name": "RUN a", "state": "failed", "seconds": 1, "error": "why"})
    progress.tell({"plan": []})
    progress.end()
    for _ in range(2):
        begun, log, ended = (protobuf.decode(message) for message in progress.read())
        vertex = protobuf.decode(protobuf.inner(begun, 1))
        assert protobuf.text(vertex, 3) == "RUN a" and 6 not in vertex
        assert protobuf.text(protobuf.decode(protobuf.inner(log, 3)), 4) == "text"
        last = protobuf.decode(protobuf.inner(ended, 1))
        assert protobuf.text(last, 7) == "why" and protobuf.text(last, 1) == protobuf.text(vertex, 1)


def test_output_is_held_for_those_who_read_it_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "OUTPUT_BYTES_MAX", 10_000)
    progress = status.Progress("b")
    progress.tell({"step": 1, "name": "RUN x", "state": "started"})
    reading = progress.read()
    first = next(reading)
    told = threading.Thread(target=lambda: [progress.tell(_log(number)) for number in range(1000)], daemon=True)
    told.start()
    told.join(0.2)
    assert told.is_alive(), "the build is ahead of who reads, by more than may be kept"
    numbers = [_output(next(reading)) for _ in range(1000)]
    assert numbers == [f"{number}\n" for number in range(1000)]
    told.join(60)
    assert not told.is_alive()
    progress.end()
    assert list(reading) == []

    late = list(progress.read())
    assert late[0] == first, "states are told to whoever comes late"
    assert 0 < len(late) < 1000 and _output(late[-1]) == "999\n"


def test_a_build_is_not_answered_before_its_output_is_read() -> None:
    progress = status.Progress("b")
    for number in range(300):
        progress.tell(_log(number))
    reading = progress.read()
    next(reading)
    progress.end()
    answered = threading.Thread(target=lambda: progress.wait_for_readers(lambda: False), daemon=True)
    answered.start()
    answered.join(0.2)
    assert answered.is_alive()
    assert len(list(reading)) == 299
    answered.join(60)
    assert not answered.is_alive()

    left = progress.read()
    next(left)
    progress.wait_for_readers(lambda: True)  # who asked has gone
    left.close()
    progress.wait_for_readers(lambda: False)


def _log(number: int) -> dict[str, object]:
    return {"step": 1, "stream": 1, "log": f"{number}\n"}


def _output(message: bytes) -> str:
    return protobuf.text(protobuf.decode(protobuf.inner(protobuf.decode(message), 3)), 4)


class _Engine:
    """Nothing of an engine: no build comes as far as it."""


def test_who_asks_late_hears_of_a_build_that_is_over_and_garbage_is_forgotten() -> None:
    own = control.Control(_Engine(), session.Sessions())  # type: ignore[arg-type]
    service = "/moby.buildkit.v1.Control"
    methods = own._methods
    with served(methods) as connection:
        with pytest.raises(grpc.Failed):  # a frontend that there is not
            grpc.call(connection, f"{service}/Solve", protobuf.encode(((1, "b"), (6, "other.v0"))))
        late = grpc.begin(connection, f"{service}/Status")
        late.send(protobuf.encode(((1, "b"),)))
        late.end()
        assert list(late.messages()) == []
        late.check()
        never = grpc.begin(connection, f"{service}/Status")
        never.send(protobuf.encode(((1, "never"),)))
        never.end()
        deadline = time.monotonic() + 60
        while "never" not in own._builds:
            assert time.monotonic() < deadline
        never.stream.reset()
        while own._builds:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_session_that_never_comes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "WAIT_S_MAX", 0.01)
    with pytest.raises(OrlopError, match="no active session for nobody"):
        session.Sessions().find("nobody")


# -- what a client says of its build ---------------------------------------------------------------------------------


class _Folders(_Engine):
    """An engine's directory."""

    def __init__(self, root: Path) -> None:
        self.paths = self
        self.root = str(root)


def asked(tmp_path: Path, stats: list[protobuf.Message], content: dict[int, bytes], **options: str) -> object:
    """Return what is made of options, for a client whose every folder is these files."""
    with served({session.FILE_SYNC: sender(stats, content)}) as connection:
        own = session.Session("s", "k", (session.FILE_SYNC,), connection)
        wished = {name.replace("__", ":").replace("_", "-"): value for name, value in options.items()}
        return frontend.request_of(_Folders(tmp_path), own, wished, BuildRequest())  # type: ignore[arg-type]


def test_options_are_a_request(tmp_path: Path) -> None:
    made = asked(tmp_path, [stat_of("Dockerfile", size=9)], {0: b"FROM host"}, target="t", build_arg__A="1")
    assert (made.dockerfile_text, made.target, made.build_args) == ("FROM host", "t", {"A": "1"})  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("link", "name"),
    [("/etc", "sub/passwd"), ("../../../../../../../etc", "sub/passwd"), ("/etc/passwd", "sub"), ("sub", "sub")],
)
def test_a_dockerfile_behind_a_link_is_none_of_this_machine(tmp_path: Path, link: str, name: str) -> None:
    with pytest.raises(OrlopError) as caught:
        asked(tmp_path, [stat_of("sub", LINK, link=link)], {}, filename=name)
    assert "root:" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"filename": "../../etc/passwd"},
        {"filename": "/etc/passwd"},
        {"filename": "x" * 5000},
        {"filename": "a\0b"},
        {"shm_size": "lots"},
        {"ulimit": "nofile"},
        {"ulimit": "nofile=1:2:3"},
        {"context__x": "input:y"},
        {"context__x": "oci-layout://y"},
        {"context": "http://buildkit-session/none"},
    ],
)
def test_broken_options_are_refused(tmp_path: Path, options: dict[str, str]) -> None:
    stats = [stat_of("Dockerfile", size=9)]
    with served({session.FILE_SYNC: sender(stats, {0: b"FROM host"})}) as connection:
        own = session.Session("s", "k", (session.FILE_SYNC,), connection)
        wished = {name.replace("__", ":").replace("_", "-"): value for name, value in options.items()}
        engine = _Folders(tmp_path)
        with pytest.raises(OrlopError), frontend.upload(engine, own, wished):  # type: ignore[arg-type]
            frontend.request_of(engine, own, wished, BuildRequest())  # type: ignore[arg-type]


BROKEN = (
    b"",
    b"\xff",
    b"\x0a\x05ab",
    b"\x0a\x00",
    protobuf.encode(((1, "x" * 300),)),
    protobuf.encode(((1, 5),)),
    protobuf.encode(((1, "b"), (6, "dockerfile.v0"), (4, 7))),
    protobuf.encode(((1, "b"), (13, 1), (6, "dockerfile.v0"))),
    protobuf.encode(((1, "b"), (6, "dockerfile.v0"), (7, b"\xff\xff"))),
    bytes(range(256)),
)


@pytest.mark.parametrize("message", BROKEN)
@pytest.mark.parametrize("method", ["Solve", "Status"])
def test_broken_messages_get_a_status_and_leave_nothing(
    message: bytes, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "WAIT_S_MAX", 0.2)  # for the session, which never begins
    own = control.Control(_Engine(), session.Sessions())  # type: ignore[arg-type]
    with served(own._methods) as connection:
        call = grpc.begin(connection, f"/moby.buildkit.v1.Control/{method}")
        call.send(message)
        call.end()
        if method == "Status":
            call.stream.reset()
        else:
            with pytest.raises(grpc.Failed):
                list(call.messages())
                call.check()
        deadline = time.monotonic() + 60
        while own._builds:
            assert time.monotonic() < deadline
            time.sleep(0.01)
