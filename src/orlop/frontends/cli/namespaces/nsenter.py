"""`orlop nsenter`: a program in namespaces that are there, with nsenter(1)'s flags. Kernel: setns(2).

The target is a process, or a container of the engine's by its name or ID: then it is the container's process 1.
What `orlop exec` sets up beside (limits, capabilities, filters) is left away on purpose: this is for looking around.
"""

from __future__ import annotations

import os

from ....linux import process
from ....spec.errors import Conflict, Invalid, NotFound
from ..command import Command, Invocation
from ..flags import BOOL, EXIT_USAGE, STRING, Flag, Kind, Options, UsageError, parse_text
from .program import (
    FILE,
    KINDS,
    become,
    drop_groups,
    enter_directory,
    execute,
    in_child,
    namespace_flags,
    number,
    refused,
    seal_imports,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ENVIRONMENT_BYTES_MAX = 4 * 1024 * 1024


class Target:
    """The process to enter; pid 0 is none. Its files are its own while the pidfd's process lives."""

    def __init__(self, invocation: Invocation, name: str) -> None:
        self.name = name
        self.pid = 0
        self._pidfd = -1
        if not name:
            return
        is_number = name.isascii() and name.isdigit() and len(name) <= 10
        self.pid = int(name) if is_number else _process_of(invocation, name)
        try:
            self._pidfd = process.pidfd_open(self.pid)
        except (OSError, OverflowError):
            raise self._gone() from None
        if not is_number and _process_of(invocation, name) != self.pid:
            raise self._gone()  # it began again, and the number could be another's

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """Return a descriptor of a file below /proc/PID. Raises NotFound, Denied, Unavailable."""
        try:
            return os.open(f"/proc/{self.pid}/{name}", flags | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            raise self._gone() if process.has_ended(self._pidfd) else _lacks(self.pid, name) from None
        except OSError as failure:
            raise refused("open", f"/proc/{self.pid}/{name}", failure) from None

    def check(self) -> None:
        """Raise NotFound when it has ended: what was opened by its number may be another's then."""
        if self.pid and process.has_ended(self._pidfd):
            raise self._gone()

    def _gone(self) -> NotFound:
        return NotFound("enter", self.name, f"there is no process {self.name[:60]}", hint="ps -e lists them")


def _lacks(pid: int, name: str) -> NotFound:
    return NotFound("enter", f"/proc/{pid}/{name}", f"this kernel has no /proc/{pid}/{name}")


def _process_of(invocation: Invocation, name: str) -> int:
    with invocation.connect(start=False) as engine:
        found: Any = engine.call("containers.inspect", {"container": name, "size": False})
    pid: int = found["State"]["Pid"]
    if not pid:
        raise Conflict(
            "enter", f"container {name}", "it is not running", hint=f"start it first: orlop start {name}", code="E1001"
        )
    return pid


def _nsenter(invocation: Invocation) -> int:
    options = invocation.options
    target = Target(invocation, options["target"])
    uid = None if options["setuid"] is None else number(options["setuid"], "setuid")
    gid = None if options["setgid"] is None else number(options["setgid"], "setgid")
    namespaces = _open_namespaces(options, target)
    root = _open_directory(options["root"], target, "root")
    directory = _open_directory(options["wd"], target, "cwd")
    environment = _environment(target) if options["env"] else None
    target.check()
    if root >= 0 and directory < 0 and options["wdns"] is None:
        directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if "user" in namespaces and not options["preserve-credentials"]:
        uid, gid = uid or 0, gid or 0
    seal_imports("nsenter")
    groups_are_gone = "user" in namespaces and gid is not None and (drop_groups() or _has_no_groups(target))
    _join(namespaces)
    _enter_directories(root, directory, options["wdns"])
    if "pid" in namespaces and not options["no-fork"] and (status := in_child(True)) is not None:
        return status
    become(uid, gid, groups_are_gone=groups_are_gone)
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    return execute(invocation.arguments)


def _open_namespaces(options: Options, target: Target) -> dict[str, tuple[int, int]]:
    """Return kind -> (descriptor, CLONE_NEW*). Raises UsageError, and as `Target.open`."""
    found: dict[str, tuple[int, int]] = {}
    for name, _, flag, file in KINDS:
        path = options[name]
        if path:
            found[name] = (_open_file(path, name, flag), flag)
        elif path is not None or options["all"]:
            if not target.pid:
                raise _no_target("--all" if options["all"] else f"--{name}")
            fd = target.open(f"ns/{file}")
            if path is None and name == "user" and _is_own(fd, file):
                os.close(fd)  # nobody may enter the user namespace that he is in (setns(2))
                continue
            found[name] = (fd, flag)
    return found


def _open_file(path: str, name: str, flag: int) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as failure:
        raise refused("open", path, failure) from None
    try:
        found = process.namespace_type(fd)
    except OSError:
        found = 0
    if found != flag:
        raise Invalid("enter", path, f"it is no {name} namespace", hint="ls -l /proc/self/ns shows what is one")
    return fd


def _is_own(fd: int, file: str) -> bool:
    own, other = os.stat(f"/proc/self/ns/{file}"), os.fstat(fd)
    return (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino)


def _no_target(flag: str) -> UsageError:
    return UsageError(f"{flag} needs a file or a target", "write -t PID", EXIT_USAGE, shows_usage=False)


def _open_directory(value: str | None, target: Target, link: str) -> int:
    if value is None:
        return -1
    if value:
        try:
            return os.open(value, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as failure:
            raise refused("open", value, failure) from None
    if not target.pid:
        raise _no_target("--root" if link == "root" else "--wd")
    return target.open(link, os.O_PATH | os.O_DIRECTORY)


def _has_no_groups(target: Target) -> bool:
    """Tell whether the target's user namespace has given setgroups(2) up: then everybody in it keeps what he had."""
    if not target.pid:
        return False
    with open(target.open("setgroups"), "rb") as file:
        return file.read(16).strip() == b"deny"


def _environment(target: Target) -> dict[str, str]:
    if not target.pid:
        raise _no_target("--env")
    with open(target.open("environ"), "rb") as file:
        data = os.fsdecode(file.read(_ENVIRONMENT_BYTES_MAX))
    pairs = (entry.partition("=") for entry in data.split("\0") if "=" in entry)
    return {name: value for name, _, value in pairs if name}


def _join(namespaces: dict[str, tuple[int, int]]) -> None:
    """Join: the user namespace first, as an ordinary user must; as one who has rights over the others alone, last."""
    order = sorted(namespaces.items(), key=lambda item: item[0] != "user")
    late = []
    for name, (fd, flag) in order:
        try:
            process.setns(fd, flag)
        except OSError:
            late.append((name, fd, flag))
            continue
        os.close(fd)
    for name, fd, flag in late:
        try:
            process.setns(fd, flag)
        except OSError as failure:
            raise refused("enter", f"the {name} namespace", failure) from None
        os.close(fd)


def _enter_directories(root: int, directory: int, inside: str | None) -> None:
    try:
        if root >= 0:
            os.fchdir(root)
            os.chroot(".")
            os.close(root)
        if directory >= 0:
            os.fchdir(directory)
            os.close(directory)
    except OSError as failure:
        raise refused("enter", "the target's directory", failure) from None
    if inside is not None:
        enter_directory(inside)


_ID = Kind("id", parse_text)
_CONTEXT = Kind("", lambda text: _no_selinux(text), bare="true")


def _no_selinux(text: str) -> bool:
    if text != "false":
        message = "--follow-context is SELinux's, which this version of orlop does not set"
        raise UsageError(message, "leave it away", EXIT_USAGE, shows_usage=False)
    return False


# fmt: off
NSENTER = Command(
    _nsenter,
    "Run a program in the namespaces of a process or a container, as nsenter(1) does",
    "[OPTIONS] [PROGRAM [ARG...]]",
    flags=(
        *namespace_flags("enter"),
        Flag("all", "a", BOOL, "Enter all namespaces of the target", default=False),
        Flag("env", "e", BOOL, "Give the program the target's environment", default=False),
        Flag("follow-context", "Z", _CONTEXT, "Take the target's SELinux context", default=False, hidden=True),
        Flag("help", "h", BOOL, "Print usage", default=False),
        Flag("no-fork", "F", BOOL, "Do not fork before the program is executed", default=False),
        Flag("preserve-credentials", "", BOOL, "Leave uids and gids alone", default=False),
        Flag("root", "r", FILE, "Take this root directory, or the target's"),
        Flag("setgid", "G", _ID, "Become this group"),
        Flag("setuid", "S", _ID, "Become this user"),
        Flag("target", "t", STRING, "The process, by its number, or the container that is entered", default=""),
        Flag("wd", "w", FILE, "Take this working directory, or the target's"),
        Flag("wdns", "W", STRING, "Take this working directory, inside the namespaces"),
    ),
    arguments=(0, None),
    interspersed=False,
    passes_command_status=True,
)
# fmt: on
