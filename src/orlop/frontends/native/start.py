"""Start an engine in the background and wait until it listens.

    client  --posix_spawn, new session-->  python -I -S -c BOOTSTRAP ... serve --ready-fd N --lock-fd M

The client takes the engine's lock and the child inherits it: of many first commands at once one starts the
engine, the others wait for its socket. The child reports on a pipe: one byte READY when it listens, or its error
as JSON; end of file without either means that it died, and its log says why.
"""

from __future__ import annotations

import os
import select
import sys
import time

from ...linux import path
from ...spec import errors, jsonio
from . import rundir
from .client import try_connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from ...spec.paths import Paths

START_S_MAX = 60.0  # a bound for a hang: an emulated machine under load takes 20 s to import the engine
POLL_S = 0.02
IDLE_TIMEOUT = "5m"
LOG_TAIL_BYTES = 2048
REPORT_BYTES_MAX = 64 * 1024
READY = b"\n"

# argv[1] is the directory that holds the package, so that it is found without PYTHONPATH, which -I ignores.
BOOTSTRAP = (
    "import sys; sys.path.append(sys.argv.pop(1)); from orlop import frozen; frozen.thaw('engine'); "
    "from orlop.frontends.cli.main import entry; entry()"
)


def start_engine(paths: Paths) -> socket:
    """Return a socket connected to a newly started engine, or to one that another process started meanwhile.

    Raises the engine's own error when it says why it can't start, Unavailable when it dies or is silent.
    """
    directory = rundir.open_private(paths.run, create=True)
    try:
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline:
            lock = rundir.lock_engine(directory)
            if lock is not None:
                try:
                    # Whoever held the lock a moment ago may have ended a whole engine's life: look again.
                    return try_connect(directory) or _start(paths, directory, lock)
                finally:
                    os.close(lock)
            if sock := try_connect(directory):
                return sock
            time.sleep(POLL_S)
        raise _silent(paths, f"another process holds {paths.engine_lock}, but nothing listens")
    finally:
        os.close(directory)


def command(*args: str) -> list[str]:
    """Return the argv that runs this very installation's command line with these arguments."""
    return interpreter(BOOTSTRAP, *args)


def interpreter(code: str, *args: str) -> list[str]:
    """Return the argv that runs code with this interpreter; its sys.argv[1] is where the package orlop lies."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    cache = ["-X", f"pycache_prefix={sys.pycache_prefix}"] if sys.pycache_prefix else []
    return [sys.executable, "-I", "-S", "-X", "utf8", *cache, "-c", code, os.path.dirname(package), *args]


def _start(paths: Paths, directory: int, lock: int) -> socket:
    ready, report = os.pipe()
    try:
        _spawn(paths, lock, report)
    finally:
        os.close(report)
    try:
        said = _read_report(paths, ready)
    finally:
        os.close(ready)
    if said != READY:
        raise _failure(paths, said)
    sock = try_connect(directory)
    if sock is None:
        raise _silent(paths, "it reported that it listens, but its socket is not there")
    return sock


def _spawn(paths: Paths, lock: int, report: int) -> int:
    os.close(rundir.open_private(paths.root, create=True))
    log = _open_log(paths.engine_log)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
        # A descriptor dup2'ed onto itself loses close-on-exec in the child (glibc 2.29).
        (os.POSIX_SPAWN_DUP2, lock, lock),
        (os.POSIX_SPAWN_DUP2, report, report),
    ]
    argv = command("serve", "--idle-timeout", IDLE_TIMEOUT, "--ready-fd", str(report), "--lock-fd", str(lock))
    # Whoever asks for an engine of other directories than the environment's (the library) gets that one.
    environment = {**os.environ, "ORLOP_ROOT": paths.root, "ORLOP_RUN": paths.run}
    try:
        return os.posix_spawn(argv[0], argv, environment, file_actions=actions, setsid=True, setsigmask=())
    except OSError as wrong:
        raise errors.Unavailable("start", "the engine", f"{argv[0]}: {wrong.strerror}") from None
    finally:
        os.close(log)


def _open_log(place: str) -> int:
    try:
        return path.open_file(place, flags=os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except OSError as wrong:  # a pipe, say, which would be waited for
        cause = wrong.strerror or str(wrong)
        raise errors.Unavailable("write to", place, cause, hint="remove it: the engine makes its own") from None


def _read_report(paths: Paths, ready: int) -> bytes:
    said = b""
    deadline = time.monotonic() + START_S_MAX
    poll = select.poll()
    poll.register(ready, select.POLLIN)
    while len(said) < REPORT_BYTES_MAX:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise _silent(paths, f"it said nothing for {START_S_MAX:.0f} s")
        part = os.read(ready, 4096)
        said += part
        if not part or said == READY:
            break
    return said


def _failure(paths: Paths, said: bytes) -> errors.OrlopError:
    if said:
        try:
            return errors.from_json(jsonio.parse(said, "the engine's report"))
        except errors.Invalid:
            pass
    return _silent(paths, "it died at once")


def _silent(paths: Paths, cause: str) -> errors.Unavailable:
    tail = _log_tail(paths.engine_log)
    told = f"{cause}; the end of its log:\n{tail}" if tail else cause
    return errors.Unavailable("start", "the engine", told, hint="run it in the foreground to see why: orlop serve")


def _log_tail(place: str) -> str:
    try:
        with open(path.open_file(place), "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_TAIL_BYTES))
            lines = log.read(LOG_TAIL_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"  {line}" for line in lines[-8:])
