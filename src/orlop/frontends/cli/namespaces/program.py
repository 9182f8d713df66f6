"""What `unshare` and `nsenter` run at their end: a program or a shell, in this process or in a child of it.

Exit statuses are util-linux's: 126 for a program that can't be executed, 127 for one that is not there, and of a child
its own; a child that a signal ended ends this process by the same signal.
"""

from __future__ import annotations

import errno
import os
import signal
import sys

from .... import frozen
from ....linux import process
from ....spec.errors import CommandFailed, Denied, Invalid, NotFound, OrlopError, Unavailable
from ..flags import EXIT_USAGE, Flag, Kind, UsageError, parse_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

EXIT_CANNOT_EXECUTE, EXIT_NOT_FOUND = 126, 127
ID_MAX = 2**32 - 2
_PATH = "/bin:/usr/bin"  # execvp(3), where the environment has none
# The kinds as util-linux calls them and shows them: (flag, letter, CLONE_NEW*, name below /proc/PID/ns).
KINDS = (
    ("mount", "m", process.CLONE_NEWNS, "mnt"),
    ("uts", "u", process.CLONE_NEWUTS, "uts"),
    ("ipc", "i", process.CLONE_NEWIPC, "ipc"),
    ("net", "n", process.CLONE_NEWNET, "net"),
    ("pid", "p", process.CLONE_NEWPID, "pid"),
    ("user", "U", process.CLONE_NEWUSER, "user"),
    ("cgroup", "C", process.CLONE_NEWCGROUP, "cgroup"),
    ("time", "T", process.CLONE_NEWTIME, "time"),
)
# "" is the flag without a file; None, its default, no flag.
FILE = Kind("file", parse_text, bare="", attached=True)


def namespace_flags(verb: str) -> tuple[Flag, ...]:
    """Return a flag for each kind of namespace. verb: "unshare" or "enter"."""
    return tuple(Flag(name, letter, FILE, f"{verb} the {name} namespace") for name, letter, _, _ in KINDS)


def number(text: str, flag: str) -> int:
    """Return an id of a flag's value. Raises UsageError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= ID_MAX):
        raise UsageError(f"invalid argument {text[:40]!r} for --{flag}", f"write a number up to {ID_MAX}", EXIT_USAGE)
    return int(text)


def refused(verb: str, subject: str, failure: OSError, hint: str = "") -> OrlopError:
    """Return the error of a call that the kernel refused."""
    cause = failure.strerror or str(failure)
    kind = Denied if isinstance(failure, PermissionError) else Unavailable
    return kind(verb, subject, cause, hint=hint)


def become(uid: int | None, gid: int | None, *, groups_are_gone: bool = False) -> None:
    """Take a gid, without other groups, and a uid. groups_are_gone: they may stay. Raises Denied."""
    try:
        if gid is not None:
            if not drop_groups() and not groups_are_gone:
                os.setgroups([])
            os.setresgid(gid, gid, gid)
        if uid is not None:
            os.setresuid(uid, uid, uid)
    except OSError as failure:
        raise refused("become", f"uid {uid}, gid {gid}", failure, "map the ids, or leave the flag away") from None


def drop_groups() -> bool:
    """Give the groups up, where that is allowed: in a user namespace it may not be."""
    try:
        os.setgroups([])
    except OSError:
        return False
    return True


def enter_directory(path: str, verb: str = "enter") -> None:
    """Make a directory the working directory. Raises NotFound, Denied, Unavailable."""
    try:
        os.chdir(path)
    except (FileNotFoundError, NotADirectoryError) as failure:
        raise NotFound(verb, path, f"cannot {verb} {path}: {failure.strerror}") from None
    except OSError as failure:
        raise refused(verb, path, failure) from None


def change_root(path: str) -> None:
    """Make a directory the root directory, and enter it. Raises NotFound, Denied, Unavailable."""
    enter_directory(path, "make the root")
    try:
        os.chroot(".")
    except OSError as failure:
        raise refused("make the root", path, failure) from None


def in_child(stops_together: bool, meanwhile: Callable[[], None] | None = None) -> int | None:
    """Fork: None in the child, which goes on; the status in the parent, once the child has ended.

    meanwhile: what the parent does as soon as the child is there.

    The parent takes no part in what a terminal sends: SIGINT, SIGTERM and SIGQUIT of a terminal reach the child too.
    stops_together: a child that is stopped (job control) stops this process, and they go on together.
    """
    blocked = (signal.SIGINT, signal.SIGTERM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        pid, pidfd = process.clone3(0)
    except OSError as failure:
        hint = "its PID namespace has ended with its first process"
        raise Unavailable("start", "a child", failure.strerror or str(failure), hint=hint) from None
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return None
    os.close(pidfd)
    if meanwhile:
        meanwhile()
    while True:
        _, status = os.waitpid(pid, os.WUNTRACED if stops_together else 0)
        if not os.WIFSTOPPED(status):
            break
        os.kill(os.getpid(), signal.SIGSTOP)
        os.kill(pid, signal.SIGCONT)
    if os.WIFSIGNALED(status):
        _die_by(os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status)


def _die_by(number: int) -> None:
    """End this process by a signal, without a core file of its own."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))
    os.kill(os.getpid(), number)


def seal_imports(verb: str) -> None:
    """Let nothing be imported from here on: what lies at the interpreter's places may be a container's (I5).

    What the rest of the way may need is imported here, and the compiled modules are written here, if they are not yet.
    verb: whose imports they are.
    """
    import resource  # noqa: F401  of a child's end

    from ....spec import catalog  # noqa: F401  of an error's text

    frozen.freeze(verb)
    sys.meta_path.clear()
    sys.path.clear()


def execute(arguments: Sequence[str]) -> NoReturn:
    """Execute a program, or a login shell where none is named. Raises CommandFailed with status 126 or 127."""
    words = list(arguments)
    program = words[0] if words else os.environ.get("SHELL") or "/bin/sh"
    if not words:
        words = [f"-{program.rpartition('/')[2]}"]
    # Python ignores these; a program expects them as they are.
    for one in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(one, signal.SIG_DFL)
    # As execvp(3) does it: what may not be executed is passed over, and told when nothing else is found.
    failed = errno.ENOENT
    for directory in [""] if "/" in program else (os.environ.get("PATH") or _PATH).split(":"):
        path = f"{directory or '.'}/{program}" if "/" not in program else program
        try:
            os.execve(path, words, os.environ)
        except ValueError:
            raise Invalid("execute", repr(program[:100]), "it has a NUL byte") from None
        except OSError as failure:
            if failure.errno == errno.ENOEXEC:
                os.execve("/bin/sh", ["sh", path, *words[1:]], os.environ)
            if failure.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
                failed = failure.errno or errno.EACCES
    status = EXIT_NOT_FOUND if failed == errno.ENOENT else EXIT_CANNOT_EXECUTE
    raise CommandFailed("execute", program[:200], os.strerror(failed), exit_code=status)
