"""What is asked of CRIU, as a record, and its field numbers in CRIU's criu_opts (rpc.proto)."""

import os
import stat

from ...linux import path as linux_path
from ...linux import process
from ...spec.errors import Invalid
from ...spec.record import Record
from ...spec.runtime import Spec
from ..operations.devices import DEFAULT_DEVICES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...linux.cgroup import Layout
    from ...spec.protobuf import Message
    from ...spec.runtime import Mount

IMAGES_DIR_FD, PID, LEAVE_RUNNING, EXT_UNIX_SK, TCP_ESTABLISHED, EVASIVE_DEVICES = 1, 2, 3, 4, 5, 6
SHELL_JOB, FILE_LOCKS, LOG_LEVEL, LOG_FILE, PAGE_SERVER, NOTIFY_SCRIPTS, ROOT = 7, 8, 9, 10, 11, 12, 13
PARENT_IMG, TRACK_MEM, AUTO_DEDUP, WORK_DIR_FD, LINK_REMAP, EXT_MNT = 14, 15, 16, 17, 18, 23
MANAGE_CGROUPS, CG_ROOT, RST_SIBLING, INHERIT_FD, MANAGE_CGROUPS_MODE, EXTERNAL, EMPTY_NS = 24, 25, 26, 27, 34, 37, 38
JOIN_NS, FREEZE_CGROUP, TCP_SKIP_IN_FLIGHT, LAZY_PAGES, ORPHAN_PTS_MASTER, CONFIG_FILE = 39, 44, 46, 48, 50, 51
LSM_PROFILE, LSM_MOUNT_CONTEXT = 53, 63

CGROUP_MODES = {"": 6, "soft": 3, "full": 4, "strict": 5, "ignore": 0}  # enum criu_cg_mode
EMPTY_NAMESPACES = {"network": process.CLONE_NEWNET}
EXTERNAL_NAMESPACES = {"network": ("net", "extRootNetNS"), "pid": ("pid", "extRootPidNS")}  # the keys that runc uses
CONFIG_ANNOTATION = "org.criu.config"
CONFIG_DEFAULT = "/etc/criu/runc.conf"
NULL = "/dev/null"
_LOG_EVERYTHING = 4


class Options(Record):
    """What checkpoint and restore have in common. Paths are absolute; empty_namespaces holds CLONE_NEW* flags."""

    images: str
    work: str = ""
    shell_job: bool = False
    tcp_established: bool = False
    external_sockets: bool = False
    file_locks: bool = False
    auto_dedup: bool = False
    lazy_pages: bool = False
    cgroup_mode: str = ""
    empty_namespaces: int = 0


class Container(Record):
    """A container as CRIU's requests need it.

    bundle: what sources are relative to. cgroup: its path. descriptors: what 0, 1 and 2 were when it was made
    ("pipe:[7]").
    """

    id: str
    spec: Spec
    bundle: str
    cgroup: str = ""
    pid: int = 0
    descriptors: tuple[str, ...] = ()


class Directories:
    """The directories of images and of the log, opened for the time of a request. A context manager."""

    __slots__ = ("images", "log", "work")

    def __init__(self, options: Options, log: str, *, make: bool) -> None:
        """make: a missing images directory is made. Raises Invalid for one that is none."""
        self.images = self.work = -1
        try:
            self.images = _directory(options.images, make=make)
            self.work = _directory(options.work, make=True) if options.work else -1
        except BaseException:
            self.__exit__()
            raise
        self.log = os.path.join(options.work or options.images, log)

    def __enter__(self) -> "Directories":
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self.images, self.work):
            if fd >= 0:
                os.close(fd)


def common(options: Options, places: Directories, spec: Spec) -> "Message":
    """Return the fields that both requests begin with."""
    config = spec.annotations.get(CONFIG_ANNOTATION, CONFIG_DEFAULT)
    return (
        (IMAGES_DIR_FD, places.images),
        *(((WORK_DIR_FD, places.work),) if places.work >= 0 else ()),
        (LOG_LEVEL, _LOG_EVERYTHING),
        (LOG_FILE, os.path.basename(places.log)),
        (NOTIFY_SCRIPTS, True),
        (SHELL_JOB, options.shell_job),
        (TCP_ESTABLISHED, options.tcp_established),
        (EXT_UNIX_SK, options.external_sockets),
        (FILE_LOCKS, options.file_locks),
        (AUTO_DEDUP, options.auto_dedup),
        (LAZY_PAGES, options.lazy_pages),
        (ORPHAN_PTS_MASTER, True),
        (EMPTY_NS, options.empty_namespaces),
        (MANAGE_CGROUPS, True),
        (MANAGE_CGROUPS_MODE, CGROUP_MODES[options.cgroup_mode]),
        *(((CONFIG_FILE, config),) if config else ()),
    )


def external_mount(key: str, value: str) -> "tuple[int, Message]":
    """Return the field of a mount that CRIU neither dumps nor makes, but finds by name."""
    return EXT_MNT, ((1, key), (2, value))


def is_bind(mount: "Mount") -> bool:
    """Return whether something of the host's is shown there."""
    return mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options


def shown(container: Container, layout: "Layout") -> "Iterator[tuple[str, str]]":
    """Yield (place in the container, source on the host) of what the host shows there."""
    own_cgroups = any(namespace.type == "cgroup" for namespace in container.spec.linux.namespaces)
    for mount in container.spec.mounts:
        if is_bind(mount):
            yield mount.destination, os.path.join(container.bundle, mount.source)
        elif mount.type == "cgroup" and layout.v1 and not own_cgroups:
            # The hierarchies of v1 are bind mounts then.
            for directory in layout.hierarchies():
                yield f"{mount.destination}/{os.path.basename(directory)}", f"{directory}{container.cgroup}"
    # In a user namespace nodes can't be made: they are the host's, bound.
    for device in (*DEFAULT_DEVICES, *container.spec.linux.devices):
        yield device.path, device.path


def mount_points(container: Container, layout: "Layout") -> "Iterator[tuple[str, str]]":
    """Yield (mount point, name) of what is mounted in a container from outside.

    A mount point is as the container's own table has it, links on the way resolved; the name is the place that the
    spec gives it, by which a restore finds it again.
    """
    table = _mount_table(container.pid)
    root = os.open(f"/proc/{container.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for place, _ in shown(container, layout):
            if point := _point(root, place, table, files_only=False):
                yield point, place
        for place in container.spec.linux.masked_paths:  # what hides a directory is a tmpfs, which CRIU makes anew
            if point := _point(root, place, table, files_only=True):
                yield point, NULL
    finally:
        os.close(root)


def _mount_table(pid: int) -> dict[int, str]:
    """Return the mount points of a process's namespace by mount id (proc_pid_mountinfo(5))."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        rows = [line.split() for line in file]
    return {int(row[0]): row[4].encode("latin-1", "replace").decode("unicode_escape") for row in rows}


def _point(root: int, place: str, table: dict[int, str], *, files_only: bool) -> str:
    """Return the mount point at a place in the container, "" when nothing is mounted exactly there."""
    try:
        fd = linux_path.open_in_root(root, place)
    except OSError:
        return ""
    try:
        if files_only and stat.S_ISDIR(os.fstat(fd).st_mode):
            return ""
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            number = next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))
        found = os.readlink(f"/proc/self/fd/{fd}")  # from the top of the container's mount namespace (d_path)
    finally:
        os.close(fd)
    return found if table.get(number) == found else ""


def _directory(path: str, *, make: bool) -> int:
    try:
        if make:
            os.makedirs(path, 0o700, exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as failure:
        raise Invalid("open", path, failure.strerror or str(failure), hint="give another directory") from None
