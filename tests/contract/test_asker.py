"""The asker's machine code against the assembler, and what it does with an engine: it carries, or leaves all be."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from orlop.frontends.native import asker, wire
from orlop.spec import attach
from support import assembled
from support.engine import CHECKOUT, COMMAND, Environment
from support.requests import receive_request

SOURCES = Path(asker.__file__).parent
REQUEST = '{"verb":"containers.exec","args":{"container":"web","request":{"args":["true"]}}}'
READER = """
import socket, sys
number = next(word for word in sys.argv if word.startswith("-Xasked="))[8:]
print(number, sys.argv[3:])
if number[0] != "-":
    engine, stream, error = map(int, number.split(","))
    print(socket.socket(fileno=engine).recv(999), socket.socket(fileno=stream).recv(999))
"""
ENDED = attach.frame(attach.EXIT, b'{"exitCode":7,"startedAt":"2026-01-02T03:04:05Z"}')
STARTED = {"exec_id": "f" * 64, "pid": 7}


@pytest.mark.parametrize("machine", asker.PROGRAM.machines())
def test_the_code_is_what_the_assembler_makes_of_the_source(
    machine: str, peer: Callable[[str], Path], tmp_path: Path
) -> None:
    code = assembled.text(SOURCES / f"{machine}.S", peer, tmp_path)
    assert asker.PROGRAM.image(machine).endswith(code)


@pytest.fixture(params=asker.PROGRAM.machines())
def program(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The words that execute the program: by itself, or that of another machine in an emulator."""
    return assembled.words(asker.PROGRAM, request.param, request.getfixturevalue("peer"), tmp_path / "asker")


@pytest.fixture
def interpreter(tmp_path: Path) -> list[str]:
    return [assembled.interpreter(READER, tmp_path), "-Xasked=---,---,---", "exec", "web", "true"]


class Engine:
    """An engine that replies so to the first request, and a monitor that says these bytes; requests: what was asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.requests: list[wire.Request] = []

    @contextmanager
    def saying(self, reply: object, *said: bytes) -> Iterator[None]:
        """reply: None closes the connection."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(self.directory / "engine.sock"))
            listener.listen(1)
            thread = threading.Thread(target=self._serve, args=(listener, reply, said))
            thread.start()
            yield
            thread.join()

    def _serve(self, listener: socket.socket, reply: object, said: tuple[bytes, ...]) -> None:
        with listener.accept()[0] as client:
            asked = receive_request(client)
            assert asked is not None
            self.requests.append(asked)
            if reply is not None:
                wire.send(client, reply)
            with socket.socket(fileno=asked.fds[0]) as stream:
                for data in said:
                    try:
                        stream.sendall(data)
                    except BrokenPipeError:
                        return
            if reply is None:
                return
            with suppress(ConnectionResetError):  # what was only looked at is never received
                client.recv(1)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    return Engine(directory)


def run(argv: list[str], **more: object) -> subprocess.CompletedProcess[str]:
    kept = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    return subprocess.run(argv, text=True, timeout=60, check=False, **kept)  # type: ignore[call-overload,no-any-return]


def frames(count: int) -> bytes:
    return b"".join(attach.frame(1 + number % 2, b"%d\n" % number) for number in range(count))


def test_it_carries_both_streams_and_the_status(program: list[str], interpreter: list[str], engine: Engine) -> None:
    whole = frames(1000)
    large = attach.frame(attach.STDOUT, b"x" * attach.PAYLOAD_BYTES_MAX)
    # Cut where no frame ends: a stream has no borders.
    with engine.saying({"result": STARTED}, whole[:3], whole[3:12], whole[12:], large, attach.frame(2), ENDED):
        done = run([*program, str(engine.directory), REQUEST, *interpreter])
    assert done.returncode == 7, done
    assert done.stdout == "".join(f"{number}\n" for number in range(0, 1000, 2)) + "x" * attach.PAYLOAD_BYTES_MAX
    assert done.stderr == "".join(f"{number}\n" for number in range(1, 1000, 2))
    (asked,) = engine.requests
    assert (asked.verb, asked.args["container"], len(asked.fds)) == ("containers.exec", "web", 1)


@pytest.mark.parametrize(("written", "status"), [(b'{"exitCode":0}', 0), (b'{"exitCode":255,"a":1}', 255)])
def test_a_record_may_hold_more_or_less(
    program: list[str], interpreter: list[str], engine: Engine, written: bytes, status: int
) -> None:
    with engine.saying({"result": STARTED}, attach.frame(attach.EXIT, written)):
        assert run([*program, str(engine.directory), REQUEST, *interpreter]).returncode == status


LEFT: dict[str, tuple[object, list[bytes], bytes]] = {
    "an error": ({"error": {"kind": "not_found"}}, [], b""),
    "a dead engine": (None, [b"the stream's first bytes"], b"the stream's first bytes"),
    "a dead monitor": ({"result": STARTED}, [attach.frame(attach.STDOUT, b"")], b""),
    "half a frame": ({"result": STARTED}, [attach.frame(attach.STDOUT, b"abc")[:9]], b""),
    "no frame": ({"result": STARTED}, [b"\1\0\0\0\xff\xff\xff\xff", b"rest"], b"rest"),
    "another kind": ({"result": STARTED}, [attach.frame(attach.TAKEN, b"abcd"), b"rest"], b"rest"),
    "no status": ({"result": STARTED}, [attach.frame(attach.EXIT, b'{"exitCode":null,"a":1}')], b""),
    "a negative status": ({"result": STARTED}, [attach.frame(attach.EXIT, b'{"exitCode":-1,"a":1}')], b""),
    "an empty record": ({"result": STARTED}, [attach.frame(attach.EXIT)], b""),
}


@pytest.mark.parametrize("what", LEFT)
def test_only_a_success_is_its_own(program: list[str], interpreter: list[str], engine: Engine, what: str) -> None:
    reply, said, rest = LEFT[what]
    with engine.saying(reply, *said):
        done = run([*program, str(engine.directory), REQUEST, *interpreter])
    assert done.returncode == 0, done
    first, second = done.stdout.splitlines()
    assert first.endswith(",000 ['exec', 'web', 'true']"), "the call is given on as it was"
    whole = b"" if reply is None else wire.pack(reply)
    assert second == f"{whole!r} {rest!r}", "the reply is whole, and of the stream no more is gone than was looked at"


def test_output_that_can_not_be_written_is_told_with_the_errno(
    program: list[str], interpreter: list[str], engine: Engine, tmp_path: Path
) -> None:
    with (
        engine.saying({"result": STARTED}, attach.frame(attach.STDERR, b"lost"), ENDED),
        open("/dev/full", "w") as full,
    ):
        done = run([*program, str(engine.directory), REQUEST, *interpreter], stderr=full)
    assert done.stdout.splitlines()[0].split()[0].endswith(",028"), done  # ENOSPC


def test_a_reader_that_does_not_wait_is_waited_for(program: list[str], interpreter: list[str], engine: Engine) -> None:
    """Standard output may be somebody's non-blocking pipe: EAGAIN is no end."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    size = 4 * 1024 * 1024
    said = attach.frame(attach.STDOUT, b"y" * 32768) * (size // 32768)
    with engine.saying({"result": STARTED}, said, ENDED):
        process = subprocess.Popen([*program, str(engine.directory), REQUEST, *interpreter], stdout=write)
        os.close(write)
        with os.fdopen(read, "rb") as file:
            assert len(file.read()) == size
        assert process.wait(60) == 7


def _others_may_enter(engine: Engine) -> list[str]:
    engine.directory.chmod(0o711)
    return [str(engine.directory)]


def _a_link(engine: Engine) -> list[str]:
    link = engine.directory.with_name("link")
    link.symlink_to(engine.directory)
    return [str(link)]


def _somebody_elses(engine: Engine) -> list[str]:
    os.chown(engine.directory, 65534, 65534)
    return [str(engine.directory)]


@pytest.mark.parametrize("place", [_others_may_enter, _a_link, _somebody_elses, lambda _: ["/proc"], lambda _: ["x"]])
def test_a_run_directory_that_is_not_ours_alone_is_left_to_the_interpreter(
    program: list[str], interpreter: list[str], engine: Engine, place: Callable[[Engine], list[str]]
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(engine.directory / "engine.sock"))
        listener.listen(1)
        done = run([*program, *place(engine), REQUEST, *interpreter])
        assert done.stdout == "---,---,--- ['exec', 'web', 'true']\n", done
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_an_engine_of_somebody_else_is_asked_nothing(
    program: list[str], interpreter: list[str], engine: Engine
) -> None:
    """Who listens may differ from whose directory it is; what is compared is the uid at listen(2)."""
    code = """
import os, socket
s = socket.socket(socket.AF_UNIX)
s.bind("engine.sock")
os.setresuid(65534, 65534, 0)
s.listen(1)
os.setresuid(0, 0, 0)
print(flush=True)
print(s.accept()[0].recv(99))
"""
    with subprocess.Popen(["python3", "-c", code], cwd=engine.directory, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None and listener.stdout.readline() == "\n"
        done = run([*program, str(engine.directory), REQUEST, *interpreter])
        assert done.stdout.startswith("---,---,--- ["), done
        assert listener.stdout.read() == "b''\n"


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_missing_standard_descriptor_is_left_to_the_interpreter(
    program: list[str], interpreter: list[str], engine: Engine, tmp_path: Path, closed: int
) -> None:
    # The interpreter here writes beside, as its output may be what is missing.
    Path(interpreter[0]).write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/told\n')
    words = " ".join(f"'{word}'" for word in (*program, str(engine.directory), REQUEST, *interpreter))
    run(["sh", "-c", f"exec {words} {closed}>&-"])
    assert (tmp_path / "told").read_text() == "-Xasked=---,---,---\n"


def test_numbers_of_three_digits(program: list[str], interpreter: list[str], engine: Engine) -> None:
    code = "import os, sys; [os.dup2(0, n) for n in range(3, 150)]; os.execv(sys.argv[1], sys.argv[1:])"
    with engine.saying({"error": {}}):
        done = run(["python3", "-c", code, *program, str(engine.directory), REQUEST, *interpreter])
    numbers = done.stdout.split()[0].split(",")
    assert all(len(number) == 3 for number in numbers) and 150 <= int(numbers[0]) < int(numbers[1]), done


def test_too_few_words_are_an_error(program: list[str]) -> None:
    assert run([*program, "a", "b", "c"]).returncode == 127


LINES = {
    "a command": (["exec", "web", "true"], True),
    "a script": (["exec", "web", "sh", "-c", "echo $HOME; f() { :; }; [ 1 -lt 2 ] && exit 3 # 'a' ~"], True),
    "flags of the command": (["exec", "web", "ls", "-l", "--all"], True),
    "a number of words": (["exec", "web", *(str(number) for number in range(300))], True),
    "an empty word": (["exec", "web", "echo", ""], True),
    "a flag": (["exec", "-i", "web", "true"], False),
    "a container like a verb": (["exec", "ls", "true"], False),
    "no command": (["exec", "web"], False),
    "another verb": (["run", "web", "true"], False),
    "its long name": (["container", "exec", "web", "true"], False),
    "a quote": (["exec", "web", "echo", 'say "it"'], False),
    "a backslash": (["exec", "web", "echo", "a\\b"], False),
    "a line break": (["exec", "web", "echo", "a\nb"], False),
    "not ASCII": (["exec", "web", "echo", "\u00e4"], False),
    "a quote in the name": (["exec", 'we"b', "true"], False),
}


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_script_writes_the_request_that_the_interpreter_would(tmp_path: Path, line: str, shell: str) -> None:
    """red: where a word needs escaping that the script does not know, JSON would break, or say something else."""
    words, known = LINES[line]
    clone, place = tmp_path / "a clone's; $HOME", tmp_path / "run"
    (clone / ".cache").mkdir(parents=True)
    place.mkdir(0o700)
    shutil.copy(COMMAND, clone / "orlop")
    (clone / "src").symlink_to(CHECKOUT / "src")
    told = clone / ".cache" / asker.PROGRAM.file
    told.write_text("#!/bin/sh\nexec printf '%s\\0' \"$@\"\n")
    told.chmod(0o755)
    engine = Engine(place)
    variables = os.environ | {"ORLOP_RUN": str(place), "ORLOP_ROOT": str(tmp_path / "root")}

    def call(argv: list[str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(argv, capture_output=True, timeout=60, check=False, cwd=tmp_path, env=variables)

    with engine.saying({"result": STARTED}, ENDED):
        done = call([shell, str(clone / "orlop"), *words]) if known else None
        told.unlink()
        # What an interpreter asks for, or what it is in vain to ask of this engine.
        call([str(clone / "orlop"), "exec", "web", "true"] if not known else [str(clone / "orlop"), *words])
    if done is None:
        told.write_text("#!/bin/sh\necho the asker\n")
        with socket.socket(socket.AF_UNIX) as gone:
            (place / "engine.sock").unlink()
            gone.bind(os.path.relpath(place / "engine.sock"))
        place.chmod(0o777)  # our command starts no engine in what others can write to
        assert b"the asker" not in call([shell, str(clone / "orlop"), *words]).stdout
        return
    run_directory, request, interpreter, option, *_ = (found := done.stdout.split(b"\0")[:-1])
    assert (run_directory, option) == (str(place).encode(), b"-Xasked=---,---,---")
    assert os.access(interpreter, os.X_OK) and found[-len(words) :] == [word.encode() for word in words]
    (asked,) = engine.requests
    assert request == wire.pack({"verb": asked.verb, "args": asked.args})[4:]


def test_an_exec_of_an_engine_goes_through_it(orlop: Environment) -> None:
    """What is left of a whole exec when the interpreter is away: everything but failures."""
    orlop("run", "-d", "--name", "web", "host", "sleep", "1000")
    orlop("exec", "web", "true")
    assert (CHECKOUT / ".cache" / asker.PROGRAM.file).read_bytes() == asker.PROGRAM.image()
    assert asker.PROGRAM.file in COMMAND.read_text()
    done = orlop("exec", "web", "sh", "-c", "echo out; echo err >&2; exit 5", check=False)
    assert (done.code, done.stdout, done.stderr) == (5, "out\n", "err\n")
    assert orlop("exec", "web", "/no/such", check=False).code == 127
    assert orlop("exec", "other", "true", check=False).code == 1
    orlop("rm", "-f", "web")
