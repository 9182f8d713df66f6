"""What the doctor looks at: files of the kernel and of the machine, read once, nothing decided and nothing changed."""

import os
import shutil

from ...linux import capability
from ...linux.cgroup import Layout, detect, usable
from ...runtime.host import facts, kernel_version
from ...snapshot.overlay import is_initial_namespace
from ...spec import paths
from ...spec.errors import NotFound, OrlopError
from ...spec.record import Record
from ..rootless import subids
from ..rootless.enter import user_name
from ..rootless.uplink import TUN
from ..userns.modes import POOL_USERS

PROGRAMS = ("newuidmap", "newgidmap", "pasta", "slirp4netns", "criu", "git", "apparmor_parser")
SYSCTLS = (
    "user/max_user_namespaces",
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv4/ping_group_range",
)
_MAPPERS = ("newuidmap", "newgidmap")
_SETUID = 0o4000


class Facts(Record):
    """uid, user: for whom. is_root: has what root's engine needs. may_fix: this process is root's. raises_limits: may
    give more than it has itself.

    programs: name -> path of those that are there; unprivileged_mappers: those of newuidmap and newgidmap that may not
    map. subuids, subgids: how many; pool_ids: how many --userns auto has for root's containers. sysctls: name -> value
    of those that are there. layout, usable: the cgroups of the machine, and those that this user may use; delegated_to:
    the unit of systemd that has them, below which an engine has to be started. run_directory: where sockets go, "" for
    nowhere; run_trouble: why it can't be used. data_directory: where images and containers go; data_trouble: why
    nothing can be written there; data_free_bytes. group_ids: the primary group and the others. has_systemd: as
    process 1.
    """

    uid: int
    user: str
    is_root: bool
    may_fix: bool = False
    raises_limits: bool = False
    kernel: tuple[int, ...]
    programs: dict[str, str] = {}
    unprivileged_mappers: tuple[str, ...] = ()
    subuids: int = 0
    subgids: int = 0
    pool_ids: int = 0
    sysctls: dict[str, str] = {}
    filesystems: tuple[str, ...] = ()
    seccomp_actions: tuple[str, ...] = ()
    lsms: tuple[str, ...] = ()
    layout: Layout = Layout("none")
    usable: Layout = Layout("none")
    delegated_to: str = ""
    has_tun: bool = True
    run_directory: str = ""
    run_trouble: str = ""
    data_directory: str = ""
    data_trouble: str = ""
    data_free_bytes: int = 0
    group_ids: tuple[int, ...] = ()
    has_systemd: bool = False
    lingers: bool = False


def look(environ: "dict[str, str]", user: str = "") -> Facts:
    """Return the facts for the user of this process, or for another one. Raises NotFound for no user, OSError."""
    uid = _uid_of(user) if user else os.geteuid()
    is_other = uid != os.geteuid()
    user = user or user_name(uid)
    if is_other:
        environ = {"XDG_RUNTIME_DIR": f"/run/user/{uid}", "HOME": _home_of(uid)}
    programs = {name: path for name in PROGRAMS if (path := shutil.which(name))}
    run_directory, trouble = _run_directory(environ, uid)
    data_directory, data_trouble, data_free = _data_directory(environ, uid)
    sysctls = {name: _read(f"/proc/sys/{name}").strip() for name in SYSCTLS}
    layout = detect()
    unit, delegated = _delegated(layout, uid)
    return Facts(
        uid=uid,
        user=user,
        is_root=_has("CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SETUID", "CAP_CHOWN") and not is_other,
        may_fix=os.geteuid() == 0,
        raises_limits=_has("CAP_SYS_RESOURCE") and is_initial_namespace() and not is_other,
        kernel=kernel_version(os.uname().release),
        programs=programs,
        unprivileged_mappers=tuple(name for name in _MAPPERS if name in programs and not _may_map(programs[name])),
        subuids=_count(subids.SUBUID, user, uid),
        subgids=_count(subids.SUBGID, user, uid),
        pool_ids=min(sum(_count(path, name) for name in POOL_USERS) for path in (subids.SUBUID, subids.SUBGID)),
        sysctls={name: value for name, value in sysctls.items() if value},
        filesystems=_filesystems(),
        seccomp_actions=tuple(_read("/proc/sys/kernel/seccomp/actions_avail").split()),
        lsms=tuple(name for name in facts().lsms if name in ("apparmor", "selinux")),
        layout=layout,
        usable=delegated if delegated.hierarchies() else (Layout("none") if is_other else usable(layout)),
        delegated_to=unit if delegated.hierarchies() else "",
        has_tun=_opens(TUN, uid),
        run_directory=run_directory,
        run_trouble=trouble,
        data_directory=data_directory,
        data_trouble=data_trouble,
        data_free_bytes=data_free,
        group_ids=tuple(_groups_of(user)) if is_other else (os.getegid(), *os.getgroups()),
        has_systemd=os.path.isdir("/run/systemd/system"),
        lingers=os.path.exists(f"/var/lib/systemd/linger/{user}"),
    )


def _delegated(layout: Layout, uid: int) -> tuple[str, Layout]:
    """Return the unit below which systemd runs a user's services, and the cgroups that are delegated to it."""
    unit = f"user@{uid}.service"
    directory = f"{layout.v2}/user.slice/user-{uid}.slice/{unit}"
    if uid == 0 or layout.mode != "unified":
        return unit, Layout("none")
    try:
        if os.stat(f"{directory}/cgroup.procs").st_uid != uid:
            return unit, Layout("none")
    except OSError:
        return unit, Layout("none")
    return unit, Layout("unified", {}, directory, frozenset(_read(f"{directory}/cgroup.controllers").split()))


def _count(path: str, user: str, uid: int = -1) -> int:
    return sum(each.count for each in subids.read(path, user, uid))


def _filesystems() -> tuple[str, ...]:
    """Return the file systems that the kernel has, and of those that it would load the one that we need."""
    names = [line.split()[-1] for line in _read("/proc/filesystems").splitlines() if line.split()]
    modules = f"/lib/modules/{os.uname().release}/modules.dep"
    if "overlay" not in names and "/overlay.ko" in _read(modules):
        names.append("overlay")  # whoever mounts one has it loaded, also in a user namespace (get_fs_type)
    return tuple(names)


def _uid_of(user: str) -> int:
    import pwd

    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        cause = f"there is no user {user[:100]}"
        raise NotFound("look for", "the user", cause, hint="see who there is: getent passwd") from None


def _home_of(uid: int) -> str:
    import pwd

    return pwd.getpwuid(uid).pw_dir


def _groups_of(user: str) -> list[int]:
    import pwd

    return os.getgrouplist(user, pwd.getpwnam(user).pw_gid)


def _data_directory(environ: "dict[str, str]", uid: int) -> tuple[str, str, int]:
    """Return where data goes, what keeps the user from writing there ("" for nothing), and how much is free."""
    try:
        path = paths.data_directory(environ, uid)
    except OrlopError as wrong:
        return "", wrong.cause, 0
    there = path
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    try:
        status, space = os.stat(there), os.statvfs(there)
    except OSError as failure:
        return path, f"{there}: {failure.strerror}", 0
    if space.f_flag & os.ST_RDONLY:
        return path, f"{there} lies on a file system that is mounted read-only", 0
    if there == path and status.st_uid != uid:
        return path, f"{path} belongs to uid {status.st_uid}", 0
    if uid == os.geteuid() and not os.access(there, os.W_OK | os.X_OK):
        return path, f"{there} can't be written", 0
    if space.f_files and not space.f_favail:
        return path, f"the disk of {there} has no inode left", 0
    return path, "", space.f_bavail * space.f_frsize


def _opens(path: str, uid: int) -> bool:
    if uid == os.geteuid():
        return os.access(path, os.R_OK | os.W_OK)
    return bool(os.path.exists(path) and os.stat(path).st_mode & 0o006 == 0o006)


def _has(*names: str) -> bool:
    effective, _, _ = capability.get_sets()
    needed = capability.mask(names)
    return effective & needed == needed


def _may_map(path: str) -> bool:
    """Tell whether a program may write maps: it is setuid root, or has a file capability (capabilities(7))."""
    try:
        info = os.stat(path)
        return bool(info.st_mode & _SETUID and info.st_uid == 0) or "security.capability" in os.listxattr(path)
    except OSError:
        return False


def _run_directory(environ: "dict[str, str]", uid: int) -> tuple[str, str]:
    if environ.get("ORLOP_RUN") or uid == 0:
        return environ.get("ORLOP_RUN", "/run/orlop"), ""
    own = paths.run_of_user(environ, uid)
    path = environ.get("XDG_RUNTIME_DIR", "") or (own if own.startswith("/tmp/") else os.path.dirname(own))
    if path == own and not os.path.lexists(path):
        return path, ""
    try:
        info = os.stat(path)
    except OSError as failure:
        return path, f"{path}: {failure.strerror}"
    if info.st_uid != uid:
        return path, f"{path} belongs to uid {info.st_uid}"
    return path, "" if os.access(path, os.W_OK | os.X_OK) else f"{path} can't be written"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
