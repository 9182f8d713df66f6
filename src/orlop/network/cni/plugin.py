"""One plugin, run once: a request in its environment and on its standard input, a result on its standard output.

CNI specification 1.1.0, section 2. Invariants:
1. A plugin ends within its time or is killed with all that it started; what it says is bounded.
2. Its failure is an OrlopError that names the plugin, what it was asked for, and its own words.
"""

from __future__ import annotations

import os
import select
import signal
import time

from ...spec import jsonio
from ...spec.errors import Internal, Invalid, NotFound, OrlopError, Unavailable, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DIRECTORIES = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
TIMEOUT_S_DEFAULT = 60.0
OUTPUT_BYTES_MAX = 1 << 20
WORDS_SHOWN_MAX = 500
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Section 5: well-known error codes, and what they mean to who asked.
_ERRORS: dict[int, type[OrlopError]] = {
    1: Unsupported,
    2: Unsupported,
    3: NotFound,
    4: Invalid,
    7: Invalid,
    11: Unavailable,
    50: Unavailable,
    51: Unavailable,
}


class Request:
    """What a plugin is asked for. container, netns, interface: "" where the command has none; args: CNI_ARGS."""

    __slots__ = ("args", "command", "container", "interface", "netns")

    def __init__(self, command: str, container: str = "", netns: str = "", interface: str = "", args: str = "") -> None:
        self.command = command
        self.container = container
        self.netns = netns
        self.interface = interface
        self.args = args

    def environment(self, path: str) -> dict[str, str]:
        """Return the whole environment of the plugin."""
        told = {
            "CNI_COMMAND": self.command,
            "CNI_CONTAINERID": self.container,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.interface,
            "CNI_ARGS": self.args,
            "CNI_PATH": path,
            "PATH": os.environ.get("PATH", _PATH),  # they run iptables
        }
        return {key: value for key, value in told.items() if value}


class Plugins:
    """Where plugins lie, and how long one may take. turn: a descriptor that each of them gets, as its 3."""

    __slots__ = ("directories", "timeout_s", "turn")

    def __init__(
        self, directories: tuple[str, ...] = DIRECTORIES, timeout_s: float = TIMEOUT_S_DEFAULT, turn: int = -1
    ) -> None:
        self.directories = directories
        self.timeout_s = timeout_s
        self.turn = turn

    def find(self, kind: str) -> str:
        """Return the program of a type of plugin. Raises NotFound."""
        for directory in self.directories:
            path = f"{directory}/{kind}"
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
        hint = f"install it into one of {', '.join(self.directories)}, or set CNI_PATH"
        raise NotFound("find", f"CNI plugin {kind}", f"CNI plugin {kind} is not installed", hint=hint)

    def run(self, kind: str, request: Request, config: Mapping[str, object]) -> dict[str, object]:
        """Run a plugin; return its result, {} for a command without one.

        Raises NotFound without the program, and what the plugin's own error, its silence or its chatter amounts to.
        """
        program = self.find(kind)
        subject = f"CNI plugin {kind}"
        environment = request.environment(":".join(self.directories))
        pid, streams = _spawn(program, environment, self.turn, subject)
        code, said, complained = _run(pid, streams, jsonio.dump(dict(config)), self.timeout_s, subject)
        if code != 0:
            raise _error(request.command, subject, code, said, complained)
        if not said.strip():
            return {}
        try:
            return jsonio.parse_object(said, f"what {subject} says", bytes_max=OUTPUT_BYTES_MAX)
        except OrlopError as wrong:
            cause = f"its answer to {request.command} can't be understood: {wrong.cause}"
            raise Internal("run", subject, cause, hint="report it to whoever made the plugin") from None


def _spawn(program: str, environment: dict[str, str], turn: int, subject: str) -> tuple[int, tuple[int, int, int]]:
    """Start a plugin; return its id, and what its 0, 1 and 2 are for us. Raises Unavailable."""
    pipes = [os.pipe() for _ in range(3)]
    (stdin, feed), (out, stdout), (err, stderr) = pipes
    theirs = [(stdin, 0), (stdout, 1), (stderr, 2)]
    try:
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in [*theirs, *([(turn, 3)] if turn >= 0 else [])]]
        pid = os.posix_spawn(program, [program], environment, file_actions=actions, setsid=True, setsigmask=())
    except OSError as failure:
        for fd in (feed, out, err):
            os.close(fd)
        raise Unavailable("run", subject, f"{program}: {failure.strerror}") from None
    finally:
        for fd, _ in theirs:
            os.close(fd)
    return pid, (feed, out, err)


def _run(
    pid: int, streams: tuple[int, int, int], config: bytes, timeout_s: float, subject: str
) -> tuple[int, bytes, bytes]:
    """Return (exit code, standard output, standard error). Raises Unavailable, Internal."""
    try:
        told = _converse(pid, streams, config, timeout_s, subject)
    except BaseException:
        _end(pid)
        os.waitpid(pid, 0)
        raise
    _end(pid)  # what it left running has its output, and would keep the namespace
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), *told


def _converse(
    pid: int, streams: tuple[int, int, int], config: bytes, timeout_s: float, subject: str
) -> tuple[bytes, bytes]:
    """Give the plugin its configuration and take what it says, until it has ended. streams: its 0, 1 and 2, closed."""
    feed, out, err = streams
    said = {out: bytearray(), err: bytearray()}
    poll = select.poll()
    pidfd = os.pidfd_open(pid)
    deadline = time.monotonic() + timeout_s
    open_fds = {feed, out, err}
    try:
        for fd in open_fds:
            os.set_blocking(fd, False)
            poll.register(fd, select.POLLOUT if fd == feed else select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        while True:
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                hint = "see what it waits for; network create -o timeout=SECONDS gives it longer"
                raise Unavailable("run", subject, f"it did not end within {timeout_s:g} s, and was killed", hint=hint)
            for fd, _ in ready:
                if fd == feed:
                    config = _write(feed, config)
                    finished = not config
                elif fd in said:
                    finished = not _read(fd, said[fd], subject)
                else:
                    continue
                if finished:
                    poll.unregister(fd)
                    os.close(fd)
                    open_fds.discard(fd)
            if any(fd == pidfd for fd, _ in ready):
                for fd in open_fds & said.keys():
                    while _read(fd, said[fd], subject) is True:
                        pass
                return bytes(said[out]), bytes(said[err])
    finally:
        os.close(pidfd)
        for fd in open_fds:
            os.close(fd)


def _write(fd: int, data: bytes) -> bytes:
    """Write what goes; return what is left. A plugin that does not read needs nothing more."""
    try:
        return data[os.write(fd, data) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return b""


def _read(fd: int, into: bytearray, subject: str) -> bool | None:
    """Take what is there; return False at the end, None when there is nothing now. Raises Internal for too much."""
    try:
        data = os.read(fd, 65536)
    except BlockingIOError:
        return None
    into += data
    if len(into) > OUTPUT_BYTES_MAX:
        raise Internal("run", subject, f"it says more than {OUTPUT_BYTES_MAX} bytes", hint="it was killed")
    return bool(data)


def _end(pid: int) -> None:
    """Kill the plugin's whole session group; it is not reaped yet, so the number is still its own."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _error(command: str, subject: str, code: int, said: bytes, complained: bytes) -> OrlopError:
    words = complained.decode(errors="replace").strip()[-WORDS_SHOWN_MAX:]
    number = -1
    try:
        told = jsonio.parse_object(said, subject, bytes_max=OUTPUT_BYTES_MAX)
        number = told["code"] if isinstance(told.get("code"), int) else -1  # type: ignore[assignment]
        parts = [str(told[key]) for key in ("msg", "details") if told.get(key)]
        words = ": ".join(parts)[:WORDS_SHOWN_MAX] or words
    except OrlopError:
        pass
    kind = _ERRORS.get(number, Unavailable)
    how = f"ended with status {code}" if code >= 0 else f"was killed by signal {-code}"
    told_code = f" (error {number})" if number >= 0 else ""
    return kind("run", subject, f"{command} {how}{told_code}: {words or 'it says nothing'}", hint="")
