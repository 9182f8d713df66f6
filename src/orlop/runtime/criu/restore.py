"""Restore: what is asked of CRIU so that it makes a container's processes again from a directory of images.

CRIU works in a mount namespace of its own, in which the root file system is attached: the host's table never shows it.
The restored process 1 is a child of ours (rst_sibling), in the container's cgroup, as CRIU itself was.
"""

import os

from ...linux import mount, process
from ...linux import path as linux_path
from ...linux.cgroup import Cgroup, Layout
from ...linux.signals import SIGKILL
from ...spec import jsonio, protobuf
from ...spec.errors import Conflict, Invalid, NotFound, Unavailable, Unsupported
from ...spec.record import Record
from ...spec.runtime import Spec
from ..plan import CgroupPlan
from . import options as opts
from . import service
from .dump import DESCRIPTORS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...spec.protobuf import Message
    from .service import Criu

    Notified = Callable[[str, int], None]

_LOG = "restore.log"
_DESCRIPTORS_BYTES_MAX = 64 * 1024
# CRIU makes these again with all that is in them, and a bind mount's source has what is mounted on it.
_MADE_BY_CRIU = ("tmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "bind")
_RESTORED_PID = 4  # field of criu_resp: criu_restore_resp, whose field 1 is the pid


class RestoreOptions(Record):
    """Labels are those of AppArmor or SELinux, "" for the dumped ones."""

    common: opts.Options
    lsm_profile: str = ""
    lsm_mount_context: str = ""


class Ground(Record):
    """Where a container is restored. root: its detached root file system. point: an empty directory to attach it at."""

    root: int
    point: str
    layout: Layout
    cgroup: CgroupPlan | None = None


class Restored(Record):
    """The restored process 1, a running child of the caller. console: the terminal's master, None without one."""

    pid: int
    pidfd: int
    console: int | None = None
    cgroup: Cgroup | None = None
    wanted: CgroupPlan | None = None


def restore(
    criu: "Criu", container: opts.Container, ground: Ground, options: RestoreOptions, notified: "Notified"
) -> Restored:
    """Make the processes again; they run when this returns.

    notified(script, pid): called at CRIU's points with the first process's pid; an error of its own ends the restore.
    The caller's process leaves the host's mount namespace. Raises OrlopError after undoing everything.
    """
    if not os.path.isdir(options.common.images):
        raise NotFound("restore", f"container {container.id}", f"the checkpoint {options.common.images} does not exist")
    consoles: list[int] = []

    def heard(script: str, pid: int, fd: int) -> None:
        if fd >= 0:
            consoles.append(fd)
        notified(script, pid)

    _make_mount_points(ground.root, container)
    cgroup = _make_cgroup(ground.cgroup)
    extra: list[int] = []
    try:
        # The directories are opened in that namespace: CRIU mounts below where it works.
        with _Attached(ground), opts.Directories(options.common, _LOG, make=False) as places:
            fields = (*opts.common(options.common, places, container.spec), *_own(container, ground, places, options))
            fields += _namespaces(container.spec, extra)
            try:
                response = criu.request(
                    service.RESTORE, fields, notified=heard, descriptors=extra,
                    started=lambda worker: _enter(cgroup, ground.cgroup, container.id, worker),
                )  # fmt: skip
            except service.Refused as refused:
                raise criu.explain("restore", container.id, refused, places.log) from None
        pid = protobuf.number(protobuf.decode(protobuf.inner(response, _RESTORED_PID)), 1)
        console = consoles[0] if consoles else None
        pidfd = process.pidfd_open(pid)
        return Restored(pid=pid, pidfd=pidfd, console=console, cgroup=cgroup, wanted=ground.cgroup)
    except BaseException as failure:
        try:
            _undo(cgroup, ground.cgroup, consoles)
        except OSError as left:
            failure.add_note(f"left behind: {left}")
        raise
    finally:
        for fd in extra:
            os.close(fd)


def kill(restored: Restored) -> None:
    """End what `restore` made and remove its cgroup."""
    process.pidfd_send_signal(restored.pidfd, SIGKILL)
    process.wait_pidfd(restored.pidfd)
    os.close(restored.pidfd)
    _undo(restored.cgroup, restored.wanted, [restored.console] if restored.console is not None else [])


class _Attached:
    """The time in which the root file system is attached at the ground's point, in a mount namespace of our own."""

    __slots__ = ("_ground",)

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def __enter__(self) -> None:
        try:
            process.unshare(process.CLONE_NEWNS)
            mount.mount("", "/", flags=mount.MS_REC | mount.MS_SLAVE)
            os.mkdir(self._ground.point, 0o700)
            target = os.open(self._ground.point, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                mount.move_mount(self._ground.root, target)
            finally:
                os.close(target)
        except OSError as failure:
            raise Unavailable("attach", "the root file system", failure.strerror or str(failure)) from None

    def __exit__(self, *_: object) -> None:
        mount.umount2(self._ground.point, mount.MNT_DETACH)
        os.rmdir(self._ground.point)


def _own(container: opts.Container, ground: Ground, places: opts.Directories, options: RestoreOptions) -> "Message":
    fields: list[tuple[int, int | str | Message]] = [
        (opts.ROOT, ground.point),
        (opts.RST_SIBLING, True),
        (opts.EVASIVE_DEVICES, True),
    ]
    if options.lsm_profile:
        fields.append((opts.LSM_PROFILE, options.lsm_profile))
    if options.lsm_mount_context:
        fields.append((opts.LSM_MOUNT_CONTEXT, options.lsm_mount_context))
    fields += [opts.external_mount(name, source) for name, source in opts.shown(container, ground.layout)]
    if container.spec.linux.masked_paths:
        fields.append(opts.external_mount(opts.NULL, opts.NULL))
    for number, name in enumerate(_read_descriptors(places.images)):
        if name.startswith("pipe:"):  # what held the other end is gone: it gets ours
            fields.append((opts.INHERIT_FD, ((1, name), (2, number))))
    return tuple(fields)


def _namespaces(spec: Spec, extra: list[int]) -> "Message":
    """Return the fields for namespaces that are joined; descriptors that CRIU needs are added to `extra`."""
    fields: list[tuple[int, int | str | Message]] = []
    for namespace in spec.linux.namespaces:
        if not namespace.path:
            continue
        if namespace.type in ("cgroup", "time", "mount"):
            raise Unsupported(
                "restore with", f"the {namespace.type} namespace {namespace.path}", "CRIU can't join one of this type",
                hint="restore into a new one",
            )  # fmt: skip
        if namespace.type not in opts.EXTERNAL_NAMESPACES:
            fields.append((opts.JOIN_NS, ((1, namespace.type), (2, namespace.path))))
            continue
        try:
            extra.append(os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as failure:
            raise NotFound(
                "join", namespace.path, f"the {namespace.type} namespace {namespace.path}: {failure.strerror}"
            ) from None
        _, key = opts.EXTERNAL_NAMESPACES[namespace.type]
        fields.append((opts.INHERIT_FD, ((1, key), (2, service.FIRST_EXTRA_FD + len(extra) - 1))))
    return tuple(fields)


def _read_descriptors(images: int) -> tuple[str, ...]:
    """Return what the standard streams were. A checkpoint is data: anything but a few names is refused (SEC-48)."""
    try:
        data = linux_path.read_in_root(images, DESCRIPTORS, _DESCRIPTORS_BYTES_MAX)
    except OSError as failure:
        raise Invalid("read", DESCRIPTORS, failure.strerror or str(failure)) from None
    if data is None:
        return ()
    names = jsonio.parse(data, DESCRIPTORS)
    if not isinstance(names, list) or len(names) > 3 or not all(isinstance(name, str) for name in names):
        raise Invalid("read", DESCRIPTORS, "it is not a list of three names")
    return tuple(names)


def _make_mount_points(root: int, container: opts.Container) -> None:
    """Make the places of mounts where the root file system lacks them, as a start would."""
    covered: list[str] = []
    for row in container.spec.mounts:
        where = os.path.normpath("/" + row.destination)
        if not any(where.startswith(f"{above}/") for above in covered):
            make = linux_path.mkdir_in_root
            if opts.is_bind(row) and not os.path.isdir(os.path.join(container.bundle, row.source)):
                make = linux_path.make_file_in_root
            try:
                os.close(make(root, where))
            except OSError as failure:
                raise Unavailable("make the mount point", row.destination, failure.strerror or str(failure)) from None
        if row.type in _MADE_BY_CRIU or opts.is_bind(row):
            covered.append(where)


def _make_cgroup(wanted: CgroupPlan | None) -> Cgroup | None:
    if wanted is None:
        return None
    cgroup = Cgroup(wanted.layout, wanted.path)
    if wanted.unit:
        from ..systemd import scope

        scope.check_booted()
        return cgroup  # systemd makes it around the worker
    try:
        cgroup.create()
    except OSError as failure:
        cause = f"the cgroup {wanted.path}: {failure.strerror or failure}"
        hint = "another container's processes are in it: end them, or change linux.cgroupsPath"
        raise Conflict("make", f"the cgroup {wanted.path}", cause, hint=hint) from None
    return cgroup


def _enter(cgroup: Cgroup | None, wanted: CgroupPlan | None, container: str, worker: int) -> "Message":
    """Move the worker into the cgroup; return the fields that say where CRIU shall put what it restores."""
    if cgroup is None or wanted is None:
        return ()
    try:
        if wanted.unit:
            from ..systemd import scope

            scope.start(wanted, worker, container)
            cgroup.adopt()
        else:
            cgroup.add(worker)
        cgroup.apply(wanted.settings)
    except OSError as failure:
        told = (failure.strerror or str(failure)) + (f" ({failure.filename})" if failure.filename else "")
        raise Unavailable("limit", f"the cgroup {cgroup.path}", told) from None
    with open(f"/proc/{worker}/cgroup", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split(":", 2) for line in file]
    names = [(controller, path) for _, controllers, path in rows for controller in controllers.split(",")]
    return tuple((opts.CG_ROOT, ((1, controller), (2, path))) for controller, path in names)


def _undo(cgroup: Cgroup | None, wanted: CgroupPlan | None, consoles: list[int]) -> None:
    for fd in consoles:
        os.close(fd)
    if cgroup is not None:
        cgroup.kill()
        if wanted and wanted.unit:
            from ..systemd import scope

            scope.stop(wanted.unit.name)
        cgroup.remove()
