"""The AppArmor profile of containers that name none: its text, pure; and bringing it into the kernel.

The kernel takes profiles in a compiled form (security/apparmor/policy_unpack.c), which apparmor_parser(8) makes:
without that program nothing is loaded, and containers are confined by everything else. A profile belongs to the
running kernel: each engine loads it once, before the first container that wants it starts.

What the profile adds to capabilities, seccomp and masked paths is a second lock on the same doors: no mount, no write
to the kernel's settings, no tracing of processes outside, also where one of the others was taken away.
"""

from __future__ import annotations

import os
from threading import Lock

from ..snapshot.overlay import is_initial_namespace
from ..spec.errors import NotFound, Unavailable

PROFILE = "orlop-default"
NESTING_PROFILE = "orlop-nesting"
OURS = (PROFILE, NESTING_PROFILE)
UNCONFINED = "unconfined"
PARSER = "apparmor_parser"
_SEARCHED = ("/sbin", "/usr/sbin", "/usr/local/sbin", "/usr/bin")
_PROFILES = "/sys/kernel/security/apparmor/profiles"
_CURRENT = "/proc/self/attr/apparmor/current"
_PARSER_OUTPUT_BYTES_MAX = 16 * 1024

# One rule a line: where a container may not write, whoever it is inside. proc(5), sysfs(5).
_KERNELS = (
    "/proc/[^0-9]* w",  # the files beside the processes' directories
    "/proc/sys/[^k]** wklx",
    "/proc/sys/kernel/[^s]** wklx",
    "/proc/sys/kernel/s[^h]** wklx",  # of the kernel's own settings shm* alone are the container's
    "/proc/sysrq-trigger rwklx",
    "/proc/kcore rwklx",
    "/proc/{acpi,bus,fs,irq,scsi,tty}/** wklx",
    "/sys/[^f]*/** wklx",
    "/sys/f[^s]*/** wklx",
    "/sys/fs/[^c]*/** wklx",
    "/sys/firmware/** rwklx",
    "/sys/kernel/security/** rwklx",
    "/sys/devices/virtual/powercap/** rwklx",
)


def text(name: str, engine_label: str = UNCONFINED) -> str:
    """Return a profile in apparmor.d(5)'s language. engine_label: of the engine, whose signals must arrive."""
    peers = dict.fromkeys((engine_label, UNCONFINED))
    rules = ["network,", "capability,", "file,", "umount,", "unix,"]
    rules += [f"signal (receive) peer={peer}," for peer in peers]
    rules += [f"signal (send,receive) peer={name},", f"ptrace (trace,read,tracedby,readby) peer={name},"]
    # Refused writes are told in the kernel's log: nothing does them by accident.
    rules += [f"audit deny {rule}," for rule in _KERNELS]
    rules += ["mount,", "pivot_root,"] if name == NESTING_PROFILE else ["deny mount,"]
    lines = "".join(f"  {rule}\n" for rule in rules)
    return f"profile {name} flags=(attach_disconnected,mediate_deleted) {{\n{lines}}}\n"


def parser() -> str:
    """Return the path of apparmor_parser, "" where there is none."""
    found = (f"{directory}/{PARSER}" for directory in _SEARCHED)
    return next((path for path in found if os.access(path, os.X_OK)), "")


class Profiles:
    """Which of our profiles this engine has loaded. One for an engine."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._loaded: set[str] = set()

    def ensure(self, name: str, subject: str) -> None:
        """See that the kernel has a profile ("" for none): one of OURS is loaded, unless that is done.

        Raises Unavailable with the parser's words, NotFound for somebody else's that is not loaded. To load one, or to
        see which there are, is for the machine's root: an ordinary user's container finds out when it starts.
        """
        if name not in OURS or not is_initial_namespace():
            if name and name not in _loaded_names(name):
                hint = "load it: apparmor_parser --replace FILE; what is loaded: aa-status"
                raise NotFound("confine", subject, f"the kernel has no AppArmor profile {name[:100]!r}", hint=hint)
            return
        with self._lock:
            if name not in self._loaded:
                _load(text(name, _own_label()), name, subject)
                self._loaded.add(name)


def _loaded_names(unknown: str) -> set[str]:
    """Return the names of the profiles in the kernel; `unknown` alone where that can't be seen."""
    try:
        with open(_PROFILES, encoding="utf-8", errors="replace") as file:
            return {line.rpartition(" (")[0] for line in file}  # "NAME (enforce)"
    except OSError:
        return {unknown}


def _own_label() -> str:
    try:
        with open(_CURRENT, encoding="ascii") as file:
            return file.read().partition(" ")[0].strip() or UNCONFINED  # "NAME (enforce)"
    except OSError:
        return UNCONFINED


def _load(profile: str, name: str, subject: str) -> None:
    """Have the parser replace the profile in the kernel. Reads it from standard input and keeps no cache."""
    path = parser()
    if not path:
        cause = f"AppArmor's profile {name} can't be loaded: {PARSER} is not installed"
        hint = "apt-get install apparmor, or --security-opt apparmor=unconfined"
        raise Unavailable("confine", subject, cause, hint=hint)
    profile_read, profile_write = os.pipe2(os.O_CLOEXEC)
    told_read, told_write = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(told_read, "rb") as told, os.fdopen(profile_write, "wb") as source:
        actions = [(os.POSIX_SPAWN_DUP2, profile_read, 0), *((os.POSIX_SPAWN_DUP2, told_write, fd) for fd in (1, 2))]
        try:
            argv = [path, "--replace", "--skip-cache"]
            pid = os.posix_spawn(path, argv, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, file_actions=actions)
        finally:
            os.close(profile_read)
            os.close(told_write)
        source.write(profile.encode())  # less than a pipe holds
        source.close()
        words = told.read(_PARSER_OUTPUT_BYTES_MAX).decode(errors="replace").strip()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        cause = f"{PARSER} did not load the profile {name}: it ended with {code}: {words[:500]}"
        raise Unavailable("confine", subject, cause, hint="try --security-opt apparmor=unconfined, and see: dmesg")
