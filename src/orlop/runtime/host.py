"""What the plan must know about the machine, gathered once: the compiler itself asks nobody."""

import os
import resource

from ..linux import abi, capability
from ..linux.cgroup import Layout, detect, usable
from ..spec.record import Record
from ..spec.runtime import IdMapping

_UNLIMITED = 2**64 - 1
_EVERY_ID = (IdMapping(container_id=0, host_id=0, size=2**32 - 1),)


class HostFacts(Record):
    """The machine as this process may use it.

    kernel: (major, minor). cap_last: the highest capability number. cap_bounding, cap_effective: masks of this
    process. rlimits_hard: RLIMIT_* name -> hard limit, 2**64-1 for none. initial_user_namespace: whether this process
    is in it, so that it may make device nodes. lsms: the active Linux security modules. uids, gids: the ids that there
    are, where this is another user namespace; the initial one has all. may_set_groups: setgroups(2) is not given up.
    landlock: the version that the kernel has, 0 for none.
    """

    machine: str
    kernel: tuple[int, ...]
    cap_last: int
    cap_bounding: int
    cap_effective: int
    rlimits_hard: dict[str, int] = {}
    layout: Layout = Layout("none")
    initial_user_namespace: bool = True
    lsms: tuple[str, ...] = ()
    uids: tuple[IdMapping, ...] = ()
    gids: tuple[IdMapping, ...] = ()
    may_set_groups: bool = True
    landlock: int = 0


def facts() -> HostFacts:
    """Read the facts from the running kernel: once, in the process that will call `create`. Raises OSError."""
    last = capability.last()
    effective, _, _ = capability.get_sets()
    limits = {name: getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
    hard = {name: resource.getrlimit(number)[1] for name, number in limits.items()}
    uids, gids = own_ids()
    return HostFacts(
        machine=abi.MACHINE,
        kernel=kernel_version(os.uname().release),
        cap_last=last,
        cap_bounding=capability.bounding_set(last),
        cap_effective=effective,
        rlimits_hard={name: _UNLIMITED if value == resource.RLIM_INFINITY else value for name, value in hard.items()},
        layout=usable(detect()),
        initial_user_namespace=uids == _EVERY_ID,
        lsms=_security_modules(),
        uids=() if uids == _EVERY_ID else uids,
        gids=() if gids == _EVERY_ID else gids,
        may_set_groups=_read("/proc/self/setgroups").strip() != "deny",
        landlock=_landlock_version(),
    )


def _security_modules() -> tuple[str, ...]:
    """Return the active security modules; where securityfs is not mounted, those two that label processes."""
    if told := _read("/sys/kernel/security/lsm").strip():
        return tuple(told.split(","))
    apparmor = _read("/sys/module/apparmor/parameters/enabled").strip() == "Y"
    return (*(["apparmor"] if apparmor else []), *(["selinux"] if _read("/sys/fs/selinux/enforce") else []))


def _landlock_version() -> int:
    """As `orlop.linux.landlock.version`, without that import for the many that restrict nothing."""
    try:
        return abi.syscall("landlock_create_ruleset", None, 0, 1)
    except OSError:
        return 0


def own_ids() -> tuple[tuple[IdMapping, ...], tuple[IdMapping, ...]]:
    """Return the maps of our own user namespace, of uids and of gids. host_id: what the one above calls them."""
    return _ids("/proc/self/uid_map"), _ids("/proc/self/gid_map")


def _ids(path: str) -> tuple[IdMapping, ...]:
    """Return the map of our own user namespace (user_namespaces(7))."""
    lines = (line.split() for line in _read(path).splitlines())
    return tuple(IdMapping(container_id=int(own), host_id=int(outer), size=int(size)) for own, outer, size in lines)


def kernel_version(release: str) -> tuple[int, ...]:
    """Return (major, minor) of "6.18.44-fc" and the like."""
    numbers = []
    for part in release.split(".")[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits or 0))
    return tuple(numbers)


def _read(path: str) -> str:
    """Return the text of a kernel file, "" where this kernel or this container does not have it."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""
