"""`orlop unshare`: a program in new namespaces, with unshare(1)'s flags. Kernel: unshare(2), namespaces(7)."""

from __future__ import annotations

import os

from ....linux import capability, mount, process
from ....spec import signals
from ....spec.errors import OrlopError, Unsupported
from ....spec.runtime import IdMapping
from .. import command as frame
from ..command import Command, Invocation
from ..flags import BOOL, EXIT_USAGE, LIST, STRING, BadValue, Flag, Kind, Options, UsageError, parse_text
from . import idmaps
from .outside import Helper, signal_with_parent
from .program import (
    KINDS,
    become,
    change_root,
    enter_directory,
    execute,
    in_child,
    namespace_flags,
    number,
    refused,
    seal_imports,
)

_CLOCKS = ("monotonic", "boottime")
_PROPAGATION = {
    "private": mount.MS_REC | mount.MS_PRIVATE,
    "slave": mount.MS_REC | mount.MS_SLAVE,
    "shared": mount.MS_REC | mount.MS_SHARED,
    "unchanged": 0,
}
_MAPPING = ("map-user", "map-group", "map-root-user", "map-current-user", "map-auto", "map-users", "map-groups")
# Namespaces that their maker is not in itself: its children are.
_FOR_CHILDREN = {"pid": "pid_for_children", "time": "time_for_children"}
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8


class Wanted:
    """What the flags ask for. flags: CLONE_NEW*. keeps: as `Helper` has them."""

    __slots__ = ("flags", "forks", "keeps", "maps", "options")

    def __init__(self, options: Options) -> None:
        self.options = options
        self.flags = sum(flag for name, _, flag, _ in KINDS if options[name] is not None)
        if options["mount-proc"] is not None:
            self.flags |= process.CLONE_NEWNS
        if options.given.intersection(_MAPPING):
            self.flags |= process.CLONE_NEWUSER
        self.forks = options["fork"] or options["kill-child"] is not None
        self.keeps = tuple(
            (_FOR_CHILDREN.get(name, file), options[name]) for name, _, _, file in KINDS if options[name]
        )
        self.maps = _maps(options)
        if not self.flags & process.CLONE_NEWTIME and options.given.intersection(_CLOCKS):
            raise _usage("--monotonic and --boottime need a new time namespace", "write -T beside them")
        if options["pid"] and not self.forks:
            raise _usage("a PID namespace can be kept only once a process is in it", "write --fork beside it")


def _usage(message: str, hint: str) -> UsageError:
    return UsageError(message, hint, EXIT_USAGE, shows_usage=False)


def _maps(options: Options) -> idmaps.IdMaps:
    uid = gid = None
    if options["map-root-user"]:
        uid = gid = 0
    if options["map-current-user"]:
        uid, gid = os.geteuid(), os.getegid()
    if options["map-user"] is not None:
        uid = idmaps.id_of(options["map-user"], "map-user")
    if options["map-group"] is not None:
        gid = idmaps.id_of(options["map-group"], "map-group")
    auto = (idmaps.AUTO,) if options["map-auto"] else ()
    own = os.geteuid()
    users = idmaps.ranges_of((*auto, *options["map-users"]), "map-users", own)
    groups = idmaps.ranges_of((*auto, *options["map-groups"]), "map-groups", own)
    # Since Linux 3.19 one's own gid alone can be mapped only by who gives setgroups(2) up (CVE-2014-8989).
    alone = gid is not None and not groups
    if alone and options["setgroups"] == "allow":
        raise _usage("--setgroups allow and --map-group exclude each other", "leave one of them away")
    return idmaps.IdMaps(
        idmaps.together(None if uid is None else IdMapping(container_id=uid, host_id=own, size=1), users),
        idmaps.together(None if gid is None else IdMapping(container_id=gid, host_id=os.getegid(), size=1), groups),
        alone or options["setgroups"] == "deny",
    )


def _unshare(invocation: Invocation) -> int:
    options = invocation.options
    wanted = Wanted(options)
    kill = signals.parse(options["kill-child"], "the child") if options["kill-child"] else 0
    uid = None if options["setuid"] is None else number(options["setuid"], "setuid")
    gid = None if options["setgid"] is None else number(options["setgid"], "setgid")
    offsets = {clock: _offset(options[clock], clock) for clock in _CLOCKS if options[clock] is not None}
    needs_helper = bool(wanted.maps.uids or wanted.maps.gids or wanted.maps.deny or wanted.keeps)
    helper = Helper(wanted.maps, wanted.keeps) if needs_helper else None
    _make(wanted)
    if helper and (wanted.maps.uids or wanted.maps.gids or wanted.maps.deny):
        helper.map_ids()
    _shift_clocks(offsets)
    seal_imports("unshare")
    if not wanted.forks:
        _warn_of_pid(wanted)
        _keep(helper, wanted)
    elif (status := _fork(helper, wanted, kill)) is not None:
        return status
    _set_up(options, wanted)
    become(uid, gid, groups_are_gone=wanted.maps.deny)
    if options["keep-caps"] and wanted.flags & process.CLONE_NEWUSER:
        _keep_capabilities()
    return execute(invocation.arguments)


def _make(wanted: Wanted) -> None:
    try:
        process.unshare(wanted.flags)
    except OSError as failure:
        names = ", ".join(name for name, _, flag, _ in KINDS if wanted.flags & flag)
        hint = "root may, and who makes a user namespace first: write -r beside it"
        if not isinstance(failure, PermissionError):
            hint = "see lsns(8) and /proc/sys/user for how many there may be"
        raise refused("make", f"new namespaces ({names})", failure, hint) from None


def _offset(text: str, clock: str) -> int:
    digits = text.removeprefix("-").removeprefix("+")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise _usage(f"invalid argument {text[:40]!r} for --{clock}", "write a number of seconds, below 0 too")
    return int(text)


def _shift_clocks(offsets: dict[str, int]) -> None:
    if not offsets:
        return
    try:
        fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, "".join(f"{clock} {seconds} 0\n" for clock, seconds in offsets.items()).encode())
        finally:
            os.close(fd)
    except OSError as failure:
        hint = "the clock would stand before 0 or too far ahead" if failure.errno == 34 else ""
        raise refused("shift", "the clocks of the time namespace", failure, hint) from None


def _warn_of_pid(wanted: Wanted) -> None:
    # For people only: who calls unshare from a script knows, or has what it wants.
    if wanted.flags & process.CLONE_NEWPID and os.isatty(2):
        frame.warn(
            "orlop: without --fork the first child is process 1 of the new namespace; after its end none can start"
        )


def _keep(helper: Helper | None, wanted: Wanted) -> None:
    if helper:
        if wanted.keeps:
            helper.keep()
        helper.close()


def _fork(helper: Helper | None, wanted: Wanted, kill: int) -> int | None:
    """Go on as the child (None); return the child's status in the parent. The child waits until all is kept."""
    ready, tell = os.pipe2(os.O_CLOEXEC)
    failures: list[OrlopError] = []

    def keep() -> None:
        os.close(ready)
        try:
            _keep(helper, wanted)
            os.write(tell, b"G")
        except OrlopError as failure:
            failures.append(failure)
        os.close(tell)

    status = in_child(False, keep)
    if status is not None:
        if failures:
            raise failures[0]
        return status
    os.close(tell)
    if helper:
        helper.release()
    if kill:
        signal_with_parent(kill)
    if not os.read(ready, 1):
        os._exit(EXIT_USAGE)
    os.close(ready)
    return None


def _set_up(options: Options, wanted: Wanted) -> None:
    propagation = options["propagation"]
    if wanted.flags & process.CLONE_NEWNS and _PROPAGATION[propagation]:
        _mount("none", "/", "", _PROPAGATION[propagation])
    root, directory, proc = options["root"], options["wd"], options["mount-proc"]
    if root is not None:
        change_root(root)
    if directory is not None:
        enter_directory(directory)
    if proc is not None:
        if root is None and propagation != "private":
            # A procfs in a mount that others see would be theirs, too.
            _mount("none", proc, "", mount.MS_REC | mount.MS_PRIVATE)
        _mount("proc", proc, "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def _mount(source: str, target: str, fstype: str, flags: int) -> None:
    try:
        mount.mount(source, target, fstype, flags)
    except OSError as failure:
        raise refused("mount", target, failure) from None


def _keep_capabilities() -> None:
    try:
        _, permitted, _ = capability.get_sets()
        capability.set_sets(permitted, permitted, permitted)
        capability.set_ambient(permitted)
    except OSError as failure:
        raise Unsupported("keep", "the capabilities", failure.strerror or str(failure)) from None


def _choice(*names: str) -> Kind:
    def parse(text: str) -> str:
        if text not in names:
            raise BadValue("it is not known", f"known are {', '.join(names)}")
        return text

    return Kind("|".join(names), parse)


_ID = Kind("id", parse_text)
_DIRECTORY = Kind("dir", parse_text)
_SIGNAL = Kind("signal", parse_text, bare="KILL")

# fmt: off
UNSHARE = Command(
    _unshare,
    "Run a program in new namespaces, as unshare(1) does",
    "[OPTIONS] [PROGRAM [ARG...]]",
    flags=(
        *namespace_flags("unshare"),
        Flag("boottime", "", STRING, "Shift the clock BOOTTIME by so many seconds"),
        Flag("fork", "f", BOOL, "Run the program as a child", default=False),
        Flag("help", "h", BOOL, "Print usage", default=False),
        Flag("keep-caps", "", BOOL, "Let the program keep its capabilities of the user namespace", default=False),
        Flag("kill-child", "", _SIGNAL, "Signal the child at our death (implies --fork)"),
        Flag("map-auto", "", BOOL, "Map your subordinate ids from 0 on (implies --user)", default=False),
        Flag("map-current-user", "c", BOOL, "Map you to yourself (implies --user)", default=False),
        Flag("map-group", "", _ID, "Map your group to this one (implies --user)"),
        Flag("map-groups", "", LIST, "Map groups: INNER:OUTER:COUNT, OUTER,INNER,COUNT or auto (implies --user)"),
        Flag("map-root-user", "r", BOOL, "Map you to root (implies --user)", default=False),
        Flag("map-user", "", _ID, "Map you to this user (implies --user)"),
        Flag("map-users", "", LIST, "Map users: INNER:OUTER:COUNT, OUTER,INNER,COUNT or auto (implies --user)"),
        Flag("monotonic", "", STRING, "Shift the clock MONOTONIC by so many seconds"),
        Flag("mount-proc", "", Kind("dir", parse_text, bare="/proc"), "Mount a new procfs first (implies --mount)"),
        Flag("propagation", "", _choice(*_PROPAGATION), "Propagation of the new mounts", default="private"),
        Flag("root", "R", _DIRECTORY, "Run the program with this root directory"),
        Flag("setgid", "G", _ID, "Become this group"),
        Flag("setgroups", "", _choice("allow", "deny"), "Whether setgroups(2) may be called inside", default=""),
        Flag("setuid", "S", _ID, "Become this user"),
        Flag("wd", "w", _DIRECTORY, "Change the working directory"),
    ),
    arguments=(0, None),
    interspersed=False,
    passes_command_status=True,
)
# fmt: on
