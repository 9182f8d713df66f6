"""Finding, starting and distrusting an engine: stale sockets, foreign directories, a dying engine, hostile replies."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.frontends.cli.command import Invocation
from orlop.frontends.cli.containers import lifecycle
from orlop.frontends.cli.flags import Options
from orlop.frontends.native import client, rundir, start, wire
from orlop.spec import errors, jsonio
from orlop.spec.paths import ENGINE_SOCKET, Paths, from_environment
from support.fake_engine import FakeEngine, HangUp

# -- directories -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "uid", "root", "run"),
    [
        ({}, 0, "/var/lib/orlop", "/run/orlop"),
        ({"XDG_RUNTIME_DIR": "/x", "HOME": "/root"}, 0, "/var/lib/orlop", "/run/orlop"),
        ({"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/7"}, 7, "/home/u/.local/share/orlop", "/run/user/7/orlop"),
        ({"XDG_DATA_HOME": "/d/", "XDG_RUNTIME_DIR": "/r/"}, 7, "/d/orlop", "/r/orlop"),
        ({"XDG_DATA_HOME": "rel", "HOME": "/h", "XDG_RUNTIME_DIR": "/r"}, 7, "/h/.local/share/orlop", "/r/orlop"),
        ({"ORLOP_ROOT": "/a/", "ORLOP_RUN": "/b"}, 7, "/a", "/b"),
        # Nobody has so large a number, so nobody has a session.
        ({"HOME": "/h"}, 4294967294, "/h/.local/share/orlop", "/tmp/orlop-4294967294"),
        ({"HOME": "/h", "XDG_RUNTIME_DIR": "rel"}, 4294967294, "/h/.local/share/orlop", "/tmp/orlop-4294967294"),
    ],
)
def test_directories_of_a_user(environ, uid, root, run):
    paths = from_environment(environ, uid)
    assert (paths.root, paths.run) == (root, run)
    assert paths.engine_socket == f"{run}/engine.sock"


@pytest.mark.parametrize(
    ("environ", "uid", "told"),
    [
        ({"ORLOP_ROOT": "a", "ORLOP_RUN": "/b"}, 0, "ORLOP_ROOT=a: it is not an absolute path"),
        ({"ORLOP_RUN": "../b"}, 0, "ORLOP_RUN=../b: it is not an absolute path"),
        ({"XDG_RUNTIME_DIR": "/r"}, 7, "neither XDG_DATA_HOME nor HOME is set"),
    ],
)
def test_directories_that_nobody_can_tell(environ, uid, told):
    with pytest.raises(errors.OrlopError) as caught:
        from_environment(environ, uid)
    assert told in str(caught.value) and caught.value.hint


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(str(tmp_path / "root"), str(tmp_path / "run"))


def test_a_private_directory_is_made_with_its_parents(tmp_path):
    fd = rundir.open_private(str(tmp_path / "a/b/run"), create=True)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o700
    os.close(fd)


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o777, 0o1777])
def test_a_directory_that_others_may_enter_is_refused(paths, mode):
    os.mkdir(paths.run)
    os.chmod(paths.run, mode)
    with pytest.raises(errors.Denied, match="others may enter it") as caught:
        client.connect(paths)
    assert caught.value.hint == f"chmod 0700 {paths.run}"


@pytest.mark.parametrize("kind", ["symlink", "file"])
def test_what_is_no_directory_is_refused(paths, tmp_path, kind):
    if kind == "symlink":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        os.symlink("elsewhere", paths.run)
    else:
        Path(paths.run).touch()
    with pytest.raises(errors.OrlopError, match=paths.run):
        client.connect(paths)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs: root")
def test_a_directory_of_somebody_else_is_refused(paths):
    os.mkdir(paths.run, 0o700)
    os.chown(paths.run, 65534, 65534)
    with pytest.raises(errors.Denied, match="it belongs to uid 65534"):
        client.connect(paths)


def test_a_directory_that_can_not_be_made_is_told():
    with pytest.raises(errors.Unavailable, match="cannot make /proc/nothing") as caught:
        client.connect(Paths("/proc/nothing", "/proc/nothing"))
    assert "ORLOP_RUN" in caught.value.hint


# -- connecting ------------------------------------------------------------------------------------------------------


def test_no_engine_is_told_when_none_shall_be_started(paths):
    with pytest.raises(errors.Unavailable, match="none runs in") as caught:
        client.connect(paths, start=False)
    assert caught.value.hint == "start one with: orlop serve"
    assert not os.path.exists(paths.run)


def test_a_stale_socket_is_no_engine(paths):
    os.mkdir(paths.run, 0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(paths.engine_socket)
    with pytest.raises(errors.Unavailable, match="none runs in"):
        client.connect(paths, start=False)


def test_a_long_path_is_no_obstacle(tmp_path):
    run = tmp_path / ("d" * 120)
    run.mkdir(mode=0o700)
    directory = rundir.open_private(str(run), create=False)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(rundir.socket_path(directory, ENGINE_SOCKET))
        listener.listen()
        client.connect(Paths(str(tmp_path), str(run)), start=False).close()
    os.close(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs: root")
def test_a_listener_of_another_user_is_refused(paths):
    os.mkdir(paths.run, 0o700)
    script = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.setuid(65534); s.listen()\n"
        "print('listening', flush=True); sys.stdin.read()\n"
    )
    argv = ["/usr/bin/python3", "-I", "-S", "-c", script, paths.engine_socket]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"listening\n"
        with pytest.raises(errors.Denied, match="it runs as uid 65534, you are 0"):
            client.connect(paths, start=False)
        other.communicate()


# -- the lock --------------------------------------------------------------------------------------------------------


def test_the_lock_is_one_and_ends_with_its_last_descriptor(paths):
    lock = rundir.claim(paths.run)
    kept = os.dup(lock)
    with pytest.raises(errors.Conflict, match="one runs there already"):
        rundir.claim(paths.run)
    os.close(lock)
    with pytest.raises(errors.Conflict):
        rundir.claim(paths.run)
    os.close(kept)
    os.close(rundir.claim(paths.run))


# -- starting --------------------------------------------------------------------------------------------------------

LISTEN = """
import os, socket, sys
run, ready, lock = sys.argv[1:]
s = socket.socket(socket.AF_UNIX)
try: os.unlink(run + "/engine.sock")
except FileNotFoundError: pass
s.bind(run + "/engine.sock"); s.listen()
os.write(int(ready), b"\\n"); os.close(int(ready))
open(run + "/starts", "a").write("x")
s.accept()[0].recv(1)
"""


@pytest.fixture
def engine_script(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """`engine_script(code)`: what is started as the engine is this Python code; argv: run, report and lock fds."""

    def arrange(code: str) -> None:
        def command(*args: str) -> list[str]:
            ready, lock = args[args.index("--ready-fd") + 1], args[args.index("--lock-fd") + 1]
            return ["/usr/bin/python3", "-I", "-S", "-c", code, paths.run, ready, lock]

        monkeypatch.setattr(start, "command", command)

    yield arrange
    # Whatever was started ends with its lock released.
    if os.path.isdir(paths.run):
        directory = rundir.open_private(paths.run, create=False)
        while (lock := rundir.lock_engine(directory)) is None:
            pass
        os.close(lock)
        os.close(directory)
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break


def test_an_engine_is_started_and_a_stale_socket_replaced(paths, engine_script):
    engine_script(LISTEN)
    os.mkdir(paths.run, 0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(paths.engine_socket)
    client.connect(paths).close()
    assert stat.S_IMODE(os.stat(paths.root).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(paths.engine_log).st_mode) == 0o600


def test_of_many_first_commands_one_starts_the_engine(paths, engine_script):
    engine_script(LISTEN.replace("s.accept()[0].recv(1)", "all = [s.accept()[0] for _ in range(8)]; all[0].recv(1)"))
    found: list[client.Engine] = []
    threads = [threading.Thread(target=lambda: found.append(client.connect(paths))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for engine in found:
        engine.close()
    assert Path(paths.run, "starts").read_text() == "x"


def test_an_engine_that_says_why_it_can_not_start_is_quoted(paths, engine_script):
    error = jsonio.dump(errors.Unavailable("read", "the store", "it is damaged", hint="repair it").to_json())
    engine_script(f"import os, sys; os.write(int(sys.argv[2]), {error!r}); sys.exit(1)")
    with pytest.raises(errors.Unavailable, match="cannot read the store: it is damaged") as caught:
        client.connect(paths)
    assert caught.value.hint == "repair it"


def test_an_engine_that_dies_at_once_is_told_with_the_end_of_its_log(paths, engine_script):
    engine_script("import sys; sys.stderr.write('first\\n' * 500 + 'the last words\\n'); sys.exit(1)")
    with pytest.raises(errors.Unavailable, match="it died at once") as caught:
        client.connect(paths)
    assert "the last words" in caught.value.cause and len(caught.value.cause) < 4096
    assert "orlop serve" in caught.value.hint


@pytest.mark.parametrize("said", [b"garbage", b"{", b"\n\n\n", b"{}", b"x" * 200_000])
def test_an_engine_that_reports_nonsense_is_not_believed(paths, engine_script, said):
    engine_script(f"import os, sys; os.write(int(sys.argv[2]), {said!r}[:60000]); sys.exit(0)")
    with pytest.raises(errors.OrlopError):
        client.connect(paths)


def test_an_engine_that_claims_to_listen_and_does_not(paths, engine_script):
    engine_script("import os, sys; os.write(int(sys.argv[2]), b'\\n')")
    with pytest.raises(errors.Unavailable, match="its socket is not there"):
        client.connect(paths)


def test_an_engine_that_says_nothing_is_given_up(paths, engine_script, monkeypatch):
    monkeypatch.setattr(start, "START_S_MAX", 0.3)
    engine_script("import os, sys, select; select.select([], [], [], 1.0)")
    with pytest.raises(errors.Unavailable, match="it said nothing"):
        client.connect(paths)


def test_a_lock_without_a_listener_is_given_up(paths, monkeypatch):
    monkeypatch.setattr(start, "START_S_MAX", 0.2)
    lock = rundir.claim(paths.run)
    with pytest.raises(errors.Unavailable, match=r"holds .*engine\.lock, but nothing listens"):
        client.connect(paths)
    os.close(lock)


def test_the_engine_inherits_nothing_of_ours(paths, engine_script):
    """What a shell leaves inheritable the real engine closes by itself: tests/security/test_escapes.py."""
    links = "[os.path.realpath('/proc/self/fd/' + fd) for fd in os.listdir('/proc/self/fd')]"
    engine_script(LISTEN.replace("os.write(", f"open(run + '/fds', 'w').write(' '.join({links})); os.write("))
    with socket.socket() as ours:
        client.connect(paths).close()
        inherited = Path(paths.run, "fds").read_text()
        assert os.readlink(f"/proc/self/fd/{ours.fileno()}") not in inherited
    assert str(paths.engine_log) in inherited, "the list is not what it should be"


# -- hostile replies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0",
        b"\0\0\0",
        b"\0\0\0\x05{",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff" + b"x" * 100,
        b"\0\0\0\0",
        b"\0\0\0\x04oops",
        b"\0\0\0\x02[]",
        b"\0\0\0\x02{}",
        b"\0\0\0\x04null",
        b"\0\0\x27\x10" + b"[" * 10_000,
        b"\0\0\0\x03\xff\xfe\xfd",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
@pytest.mark.parametrize("words", [["ps"], ["run", "x"], ["stop", "c"], ["logs", "c"]], ids=" ".join)
def test_a_reply_that_is_none_is_told_once_and_ends_the_command(raw, words):
    with FakeEngine(raw=raw) as engine:
        done = engine(*words)
    assert done.code == (125 if words[0] == "run" else 1)
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first.startswith("orlop: cannot read the engine's reply: ")
    assert second.startswith(f"Next: read {engine.paths.engine_log}, then try again (E")


@pytest.mark.parametrize("result", [None, 7, "text", [], {}, [None, 7, {"Id": 7, "Names": "x", "Created": "never"}]])
@pytest.mark.parametrize(
    "words", [["ps"], ["ps", "--format", "json"], ["images"], ["info"], ["wait", "c"], ["inspect", "c"]]
)
def test_a_result_of_another_shape_crashes_nothing(result, words):
    verbs = ["containers.list", "images.list", "engine.info", "containers.wait", "containers.inspect"]
    with FakeEngine(dict.fromkeys(verbs, result)) as engine:
        done = engine(*words)
    assert done.code in (0, 1)
    assert "Traceback" not in done.stderr


def test_text_that_no_encoding_knows_is_refused():
    # JSON can spell half of a surrogate pair; UTF-8 can't.
    value = b'{"result":[{"Id":"f","Names":["/\\ud800"],"Created":0,"Status":"Up"}]}'
    with FakeEngine(raw=len(value).to_bytes(4, "big") + value) as engine:
        done = engine("ps", "--format", "{{.Names}}")
    assert (done.code, done.stdout) == (1, "")
    assert "half a surrogate pair" in done.stderr


def test_descriptors_that_nobody_asked_for_are_closed(tmp_path):
    ours, theirs = socket.socketpair()
    with ours, theirs, open(os.devnull) as null:
        engine = client.Engine(ours, "log")
        before = set(os.listdir("/proc/self/fd"))
        wire.send_result(theirs, {}, [null.fileno()] * 3)
        assert engine.call("engine.ping") == {}
        assert set(os.listdir("/proc/self/fd")) == before


def dying_at_first(answer: object) -> Callable[[dict[str, Any], list[int]], object]:
    """Return an answer of which the first asker sees the engine die."""
    deaths = iter([True])

    def reply(_args: dict[str, Any], fds: list[int]) -> object:
        for fd in fds:
            os.close(fd)
        if next(deaths, False):
            raise HangUp
        return answer

    return reply


def test_a_question_over_which_the_engine_dies_is_put_to_the_next():
    with FakeEngine({"containers.inspect": dying_at_first({"Id": "f" * 64})}) as engine:
        done = engine("inspect", "--type", "container", "-f", "{{.Id}}", "c")
    assert (done.code, done.stdout) == (0, "f" * 64 + "\n")
    assert [verb for verb, _ in engine.calls] == ["containers.inspect"] * 2


def test_an_order_is_not_repeated_when_it_may_have_been_carried_out():
    with FakeEngine({"containers.kill": dying_at_first({})}) as engine:
        done = engine("kill", "c")
    assert done.code == 1 and "the engine closed the connection" in done.stderr
    assert len(engine.calls) == 1


def test_an_order_that_no_engine_has_heard_is_repeated():
    with FakeEngine({"containers.kill": {}}) as engine:
        ours, theirs = socket.socketpair()
        theirs.close()
        connection = client.Engine(ours, "log", lambda: client.connect(engine.paths)._socket)
        assert connection.call("containers.kill", {"container": "c"}) == {}
        connection.close()
    assert len(engine.calls) == 1


def test_an_order_sent_apart_from_its_reply_goes_to_the_next_engine_too():
    """As `kill a b` sends them, and `run` and `cp`: all requests first, then all replies."""
    with FakeEngine({"containers.kill": {}}) as engine:
        ours, theirs = socket.socketpair()
        theirs.close()
        connection = client.Engine(ours, "log", lambda: client.connect(engine.paths)._socket)
        connection.send("containers.kill", {"container": "c"})
        assert connection.receive() == ({}, [])
        connection.close()
    assert len(engine.calls) == 1


def test_an_order_of_several_that_lay_unread_in_a_dying_engine_is_repeated(tmp_path: Path):
    """`update a b` has sent its requests when the engine dies before it accepts: nothing was carried out."""
    with socket.socket(socket.AF_UNIX) as dying, socket.socket(socket.AF_UNIX) as ours:
        dying.bind(str(tmp_path / "dying.sock"))
        dying.listen(1)
        ours.connect(dying.getsockname())
        connection = client.Engine(ours, "log")
        connection.send("containers.update", {"container": "c"})
        dying.close()
        with FakeEngine({"containers.update": {"Warnings": []}}) as engine:
            invocation = Invocation(Options([]), ["c"], engine.paths)
            reply = lifecycle._reply(invocation, connection, "containers.update", {"container": "c"})
    assert reply == {"Warnings": []} and len(engine.calls) == 1


@pytest.mark.parametrize("taken", [None, 0, 4], ids=["in the queue", "accepted", "read in part"])
def test_an_order_that_a_dying_engine_left_unread_was_not_carried_out(taken: int | None, tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as dying, socket.socket(socket.AF_UNIX) as ours:
        dying.bind(str(tmp_path / "dying.sock"))
        dying.listen(1)
        ours.connect(dying.getsockname())
        connection = client.Engine(ours, "log")
        connection.send("containers.kill", {"container": "c"})
        if taken is not None:
            with dying.accept()[0] as accepted:
                assert len(accepted.recv(taken)) == taken
        dying.close()
        with pytest.raises(client.Unsent):
            connection.receive()


def test_an_engine_that_dies_again_and_again_is_told():
    def die(_args: dict[str, Any], _fds: list[int]) -> object:
        raise HangUp

    with FakeEngine({"containers.list": die}) as engine:
        done = engine("ps")
    assert done.code == 1 and "the engine closed the connection" in done.stderr
    assert len(engine.calls) == client.ATTEMPTS_MAX
