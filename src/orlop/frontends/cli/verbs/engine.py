"""`orlop serve`, `engine stop`, `engine status`: the engine itself."""

from __future__ import annotations

import os
import select
import sys

from ....spec import jsonio
from ....spec.errors import OrlopError, Unavailable
from ..command import Command, Invocation, for_output, write_line
from ..flags import BOOL, EXIT_USAGE, INT, LIST, STRING, Flag, UsageError
from ..values import DURATION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....spec.paths import Paths
    from ...native.client import Engine
    from ...native.hosts import Hosts


def _serve(invocation: Invocation) -> int:
    from ....linux import process
    from ...native import activation, rundir
    from ...native.hosts import Hosts

    options, paths = invocation.options, invocation.paths
    ready: int | None = options["ready-fd"]
    lock: int | None = options["lock-fd"]
    for fd in (ready, lock):
        if fd is not None:
            os.set_inheritable(fd, False)  # in a child of ours the lock would outlive us
    if ready is not None:
        # A command started us: whatever its caller had open (a script's pipe, a terminal) is none of ours (SEC-04),
        # and kept open it would keep somebody waiting for its end.
        process.close_all_except({fd for fd in (ready, lock) if fd is not None})
    names, texts = _settings(invocation)
    hosts = Hosts(names, _certificates(texts), activation.take(os.environ))
    if lock is None:
        lock = rundir.claim(paths.run)
        os.close(rundir.open_private(paths.root, create=True))
    os.chdir("/")
    os.umask(0o077)
    if remap := texts["userns-remap"]:
        os.environ["ORLOP_USERNS"] = f"remap={remap}"
    if driver := texts["storage-driver"]:
        os.environ["ORLOP_STORAGE_DRIVER"] = driver
    idle_ns: int = options["idle-timeout"]
    return _serve_as_user(paths, lock, ready, idle_ns / 1e9 if idle_ns > 0 else None, hosts)


def _serve_as_user(paths: Paths, lock: int, ready: int | None, idle_s: float | None, hosts: Hosts) -> int:
    from ....engine.rootless import enter

    if not enter.is_needed():
        from ...native.server import serve

        return serve(paths, lock, ready, idle_s, hosts)
    try:
        # Before the engine is imported: the process that is forked here stays, and has copies of what was there.
        warning = enter.enter(paths.run)
    except OrlopError as wrong:
        if ready is not None:
            os.write(ready, jsonio.dump(wrong.to_json()))
        raise
    from ...native.server import serve

    if warning:
        sys.stderr.write(f"{warning}\n")
    try:
        return serve(paths, lock, ready, idle_s, hosts)
    finally:
        enter.leave(paths)


def _settings(invocation: Invocation) -> tuple[list[str], dict[str, str]]:
    """Return hosts and texts, of the flags and of dockerd's file."""
    options = invocation.options
    names = list(options["host"])
    texts = {name: options[name] for name in ("tlscacert", "tlscert", "tlskey", "userns-remap", "storage-driver")}
    if place := options["config-file"]:
        from . import daemonfile

        settings = daemonfile.read(place)
        for name, value in (("host", settings.hosts), *settings.texts.items()):
            if value and options[name]:
                cause = f"--{name} is given, and {place} says it too"
                raise UsageError(cause, "say it in one place", EXIT_USAGE)
        names += settings.hosts
        texts |= settings.texts
    return names, texts


def _certificates(texts: dict[str, str]) -> tuple[str, str, str] | None:
    given = [texts[name] for name in ("tlscacert", "tlscert", "tlskey")]
    if not any(given):
        return None
    if not all(given):
        cause = "an authority, a certificate and its key belong together"
        raise UsageError(cause, "give --tlscacert, --tlscert and --tlskey", EXIT_USAGE)
    authority, certificate, key = (os.path.abspath(one) for one in given)
    return authority, certificate, key


def _stop(invocation: Invocation) -> int:
    try:
        engine = invocation.connect(start=False)
    except Unavailable as error:
        sys.stderr.write(f"{error}\n")
        return 0
    with engine:
        pidfd = _pidfd(engine)
        engine.call("engine.stop")
        while engine.stream.recv(1):  # its end: nobody is served any more
            pass
    if pidfd >= 0:
        select.select([pidfd], [], [])  # and only then its locks are free for the next engine
        os.close(pidfd)
    return 0


def _pidfd(engine: Engine) -> int:
    """Return a pidfd of the engine, which answers and so lives; -1 where it has no process that we see."""
    found = engine.call("engine.ping")
    try:
        return os.pidfd_open(found["pid"]) if isinstance(found, dict) else -1
    except OSError:
        return -1


def _status(invocation: Invocation) -> int:
    with invocation.connect(start=False) as engine:
        found = engine.call("engine.ping")
    facts = found if isinstance(found, dict) else {}
    write_line(f"running, pid {facts.get('pid', '?')}, version {for_output(str(facts.get('version', '?')))}")
    return 0


SERVE = Command(
    _serve,
    "Run the engine in the foreground",
    "[OPTIONS]",
    flags=(
        Flag("config-file", "", STRING, "dockerd's daemon.json; what is not honoured is refused by name", default=""),
        Flag("host", "H", LIST, "Where to serve docker's API too: unix:///path, tcp://address:port"),
        Flag("idle-timeout", "", DURATION, "Leave when nothing runs and nobody asks for so long (0: never)", default=0),
        Flag("lock-fd", "", INT, "A descriptor that holds the engine's lock", hidden=True),
        Flag(
            "userns-remap", "", STRING, "User whose subordinate ids containers get ('default': dockremap)", default=""
        ),
        Flag("ready-fd", "", INT, "A descriptor to report on that the engine listens", hidden=True),
        Flag(
            "storage-driver", "s", STRING, "How new containers get their files (overlay2, vfs, btrfs, ...)", default=""
        ),
        Flag("tlscacert", "", STRING, "Whose certificates clients on TCP have to show (PEM)", default=""),
        Flag("tlscert", "", STRING, "The certificate to serve TCP with (PEM)", default=""),
        Flag("tlskey", "", STRING, "The key of that certificate (PEM)", default=""),
        Flag("tlsverify", "", BOOL, "Accepted for docker's users: TCP is never served without", default=True),
    ),
)
ENGINE_STOP = Command(_stop, "Stop the engine; its containers run on", "")
STATUS = Command(_status, "Tell whether the engine runs, without starting it", "")
