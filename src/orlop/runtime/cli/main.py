"""The entry of `orlop-runtime`: global flags, one table of verbs, errors told once."""

from __future__ import annotations

import os
import sys

from ... import __version__, frozen
from ...spec.errors import Invalid, OrlopError
from . import flags
from .call import Call
from .flags import Flag, Flags
from .log import Log
from .store import Store

_GLOBAL = (
    Flag("debug", "bool", "write debug messages to the log"),
    Flag("log", "string", "the log file (standard error)"),
    Flag("log-format", "string", "text or json"),
    Flag("root", "string", "where the state of containers is kept"),
    Flag("systemd-cgroup", "bool", "cgroups through systemd (slice:prefix:name)"),
    Flag("rootless", "string", "true, false or auto"),
    Flag("criu", "string", "the CRIU program (criu)"),
    Flag("help h", "bool", "show this text"),
    Flag("version v", "bool", "show the version"),
)
_BUNDLE = Flag("bundle b", "string", "the bundle's directory (.)")
_CREATE = (
    _BUNDLE,
    Flag("console-socket", "string", "a unix socket that gets the terminal"),
    Flag("pidfd-socket", "string", "a unix socket that gets the pidfd of the process"),
    Flag("pid-file", "string", "a file that gets the pid"),
    Flag("no-pivot", "bool", "MS_MOVE instead of pivot_root"),
    Flag("no-new-keyring", "bool", "keep the caller's session keyring"),
    Flag("preserve-fds", "int", "how many descriptors from 3 on the process inherits"),
)
_CRIU = (
    Flag("image-path", "string", "the directory of the checkpoint (./checkpoint)"),
    Flag("work-path", "string", "the directory of CRIU's log and work files (that of the checkpoint)"),
    Flag("tcp-established", "bool", "with open TCP connections"),
    Flag("ext-unix-sk", "bool", "with unix sockets to processes outside"),
    Flag("shell-job", "bool", "with a terminal or session from outside"),
    Flag("lazy-pages", "bool", "memory is fetched when it is used (userfaultfd)"),
    Flag("file-locks", "bool", "with file locks"),
    Flag("manage-cgroups-mode", "string", "soft, full, strict or ignore"),
    Flag("empty-ns", "list", "a namespace whose content is left out (network)"),
    Flag("auto-dedup", "bool", "take out of older images what newer ones have"),
)
_NO_VERB = 3  # the exit status that runc has for it
_FORMAT = Flag("format f", "string", "table or json")


class Verb:
    """One row of the table. place: "module:function", imported when it is called. failed: its exit status then."""

    __slots__ = ("arguments", "failed", "flags", "place", "summary")

    def __init__(
        self, place: str, arguments: str, summary: str, table: tuple[Flag, ...] = (), *, failed: int = 1
    ) -> None:
        self.place = place
        self.arguments = arguments
        self.summary = summary
        self.flags = table
        self.failed = failed


VERBS = {
    "create": Verb("create:create", "CONTAINER", "make a container that waits for start", _CREATE),
    "start": Verb("start:start", "CONTAINER", "execute the command of a created container"),
    "run": Verb(
        "create:run", "CONTAINER", "create and start a container",
        (
            *_CREATE, Flag("detach d", "bool", "return when it is started"),
            Flag("no-subreaper", "bool", "do not adopt its orphans"), Flag("keep", "bool", "keep it after its end"),
        ),
    ),
    "exec": Verb(
        "execute:execute", "CONTAINER COMMAND [ARG...]", "execute one more process in a container",
        (
            Flag("console-socket", "string", "a unix socket that gets the terminal"),
            Flag("pidfd-socket", "string", "a unix socket that gets the pidfd of the process"),
            Flag("cwd", "string", "the working directory"), Flag("env e", "list", "NAME=value"),
            Flag("tty t", "bool", "give it a terminal"), Flag("user u", "string", "uid[:gid]"),
            Flag("additional-gids g", "list", "more group ids"), Flag("process p", "string", "a process.json"),
            Flag("detach d", "bool", "return when it is started"),
            Flag("pid-file", "string", "a file that gets the pid"),
            Flag("process-label", "string", "SELinux label"), Flag("apparmor", "string", "AppArmor profile"),
            Flag("no-new-privs", "bool", "it can't gain privileges"), Flag("cap c", "list", "one more capability"),
            Flag("preserve-fds", "int", "how many descriptors from 3 on the process inherits"),
            Flag("ignore-paused", "bool", "also when the container is paused"),
            Flag("cgroup", "list", "a cgroup below its own"),
        ),
        failed=255,
    ),
    "kill": Verb(
        "lifecycle:kill", "CONTAINER [SIGNAL]", "send a signal",
        (Flag("all a", "bool", "to every process of the container"),),
    ),
    "delete": Verb(
        "lifecycle:delete", "CONTAINER", "remove a container", (Flag("force f", "bool", "kill it first"),)
    ),
    "pause": Verb("lifecycle:pause", "CONTAINER", "freeze every process"),
    "resume": Verb("lifecycle:resume", "CONTAINER", "thaw every process"),
    "state": Verb("inspect:state", "CONTAINER", "print the state document"),
    "list": Verb("inspect:list_", "", "print the containers", (_FORMAT, Flag("quiet q", "bool", "ids only"))),
    "ps": Verb("inspect:ps", "CONTAINER [PS OPTIONS]", "print the processes of a container", (_FORMAT,)),
    "update": Verb(
        "update:update", "CONTAINER", "change the limits of a container",
        (
            Flag("resources r", "string", "a JSON file, - for standard input"),
            Flag("blkio-weight", "string", "10 to 1000"), Flag("cpu-period", "string", "microseconds"),
            Flag("cpu-quota", "string", "microseconds in each period"), Flag("cpu-burst", "string", "microseconds"),
            Flag("cpu-share", "string", "relative weight"), Flag("cpu-rt-period", "string", "microseconds"),
            Flag("cpu-rt-runtime", "string", "microseconds"), Flag("cpu-idle", "string", "1: SCHED_IDLE"),
            Flag("cpuset-cpus", "string", "processors, as 0-2,7"), Flag("cpuset-mems", "string", "memory nodes"),
            Flag("memory", "string", "bytes, or with k, m, g"), Flag("memory-reservation", "string", "bytes"),
            Flag("memory-swap", "string", "memory plus swap in bytes, -1 for no limit"),
            Flag("kernel-memory", "string", "refused: Linux has none since 5.16"),
            Flag("pids-limit", "string", "processes, -1 for no limit"),
            Flag("l3-cache-schema", "string", "refused: no Intel RDT"),
            Flag("mem-bw-schema", "string", "refused: no Intel RDT"),
        ),
    ),
    "checkpoint": Verb(
        "checkpoint:checkpoint", "CONTAINER", "write a running container into files, through CRIU",
        (
            *_CRIU, Flag("parent-path", "string", "the pre-dump before, from the image path on"),
            Flag("leave-running", "bool", "let it run on"), Flag("pre-dump", "bool", "memory only; it runs on"),
            Flag("tcp-skip-in-flight", "bool", "leave connections out that are being made"),
            Flag("link-remap", "bool", "keep unlinked files by a link"),
            Flag("page-server", "string", "ADDRESS:PORT that gets the memory"),
            Flag("status-fd", "int", "a descriptor that gets a byte when --lazy-pages listens"),
        ),
    ),
    "restore": Verb(
        "restore:restore", "CONTAINER", "make a container again from a checkpoint",
        (
            *_CRIU, _BUNDLE, Flag("console-socket", "string", "a unix socket that gets the terminal"),
            Flag("detach d", "bool", "return when it runs"), Flag("pid-file", "string", "a file that gets the pid"),
            Flag("no-subreaper", "bool", "do not adopt its orphans"),
            Flag("no-pivot", "bool", "MS_MOVE instead of pivot_root"),
            Flag("lsm-profile", "string", "TYPE:NAME, in place of the dumped one"),
            Flag("lsm-mount-context", "string", "in place of the dumped one"),
        ),
    ),
    "spec": Verb(
        "document:spec", "", "write a config.json to begin with",
        (_BUNDLE, Flag("rootless", "bool", "for a user who is not root")),
    ),
    "features": Verb("document:features", "", "print what this runtime can do here"),
    "events": Verb(
        "inspect:events", "CONTAINER", "print what a container uses",
        (Flag("interval", "string", "time between two lines (5s)"), Flag("stats", "bool", "one line only")),
    ),
}  # fmt: skip


def entry() -> None:
    """Run the command line and exit."""
    status = main(sys.argv[1:])
    frozen.freeze(next((word for word in sys.argv[1:] if word in VERBS), ""))
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (AttributeError, OSError):  # a stream is closed or full: the interpreter's own end tells it
        sys.exit(status)
    os._exit(status)  # everything is written; tearing the interpreter down costs 3 ms


def main(argv: list[str]) -> int:
    """Run one call; return the exit status: the process's own for run and exec.

    As runc's: 1 for an error of ours, 255 for an exec that came to nothing.
    """
    log, failed = Log(), 1
    try:
        given, rest = flags.parse(argv, _GLOBAL, "")
        if given.on("version"):
            from ...spec.runtime import OCI_VERSION

            print(f"orlop-runtime version {__version__}\nspec: {OCI_VERSION}")
            return 0
        if given.on("help") or not rest or rest[0] in ("help", "h"):
            print(_help())
            return 0
        log = Log(given.text("log"), given.text("log-format"), given.on("debug"))
        verb = VERBS.get(rest[0])
        if verb is None:
            failed = _NO_VERB
            raise Invalid(
                "run", f"orlop-runtime {rest[0]}", f'there is no command "{rest[0]}"', hint="see orlop-runtime --help"
            )
        call = _call(rest[0], verb, rest[1:], Store(_root(given.text("root"))), log, given)
        if call is None:
            return 0
        failed = verb.failed
        module, _, function = verb.place.partition(":")
        status: int = getattr(_import(module), function)(call)
        return status
    except OrlopError as failure:
        log.fatal(_told(failure))
        return failed
    except BrokenPipeError:
        return 1
    except OSError as failure:
        log.fatal((failure.strerror or str(failure)) + (f": {failure.filename!r}" if failure.filename else ""))
        return failed
    except KeyboardInterrupt:
        return 130


def _call(name: str, verb: Verb, argv: list[str], store: Store, log: Log, common: Flags) -> Call | None:
    """Return what the verb gets; None when its help was asked for, and shown."""
    given, arguments = flags.parse(argv, (*verb.flags, Flag("help h", "bool", "show this text")), name)
    if given.on("help"):
        print(flags.usage(name, f"[OPTIONS] {verb.arguments}", verb.summary, verb.flags))
        return None
    if arguments and not verb.arguments:
        raise Invalid("run", f"orlop-runtime {name}", f"it requires exactly 0 arguments, {len(arguments)} given")
    call = Call(store, log, given, arguments, common.text("criu"))
    call.systemd = common.on("systemd-cgroup")
    return call


def _import(name: str) -> object:
    __import__(f"{__package__}.{name}")
    return sys.modules[f"{__package__}.{name}"]


def _root(given: str) -> str:
    """Return where the state is kept: below the runtime directory of root or of the user."""
    if given:
        return os.path.abspath(given)
    if os.geteuid() == 0:
        return "/run/orlop-runtime"
    return os.path.join(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/orlop-runtime-{os.geteuid()}", "orlop-runtime")


def _told(failure: OrlopError) -> str:
    return failure.cause if failure.kind in ("not-found", "conflict", "command") else str(failure)


def _help() -> str:
    lines = ["NAME:\n   orlop-runtime - an OCI runtime with runc's command line\n\nUSAGE:"]
    lines.append("   orlop-runtime [global options] command [command options] [arguments...]\n\nCOMMANDS:")
    lines += [f"   {name:<10} {verb.summary}" for name, verb in VERBS.items()]
    lines.append("\nGLOBAL OPTIONS:")
    lines += [f"   {'--' + flag.names[0]:<18} {flag.help}" for flag in _GLOBAL]
    return "\n".join(lines)
