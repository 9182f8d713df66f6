"""What a request wants mounted -> mount points: docker's grammar of modes, its precedence, its texts. Pure.

A later source wins at the same place, as docker has it: --volumes-from, then -v and --mount (which must not meet), and
the image's VOLUMEs only where nothing else is. --tmpfs is no mount point in docker's sense: compile.mounts reads it
from the request, but here it counts as taken.
"""

from __future__ import annotations

import posixpath

from ...spec.errors import Invalid, Unsupported
from ...spec.mount import BIND, IMAGE, TMPFS, VOLUME, MountPoint, MountRequest, TmpfsOptions, VolumeOptions
from .store import LOCAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import NoReturn

    from ...spec.container import BindRequest, ContainerRequest

PROPAGATIONS = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
PROPAGATION_DEFAULT = "rprivate"
_CONSISTENCIES = frozenset(("default", "consistent", "cached", "delegated"))  # without meaning on Linux
_KINDS = {
    **dict.fromkeys(("ro", "rw"), "access"),
    **dict.fromkeys(PROPAGATIONS, "propagation"),
    **dict.fromkeys(_CONSISTENCIES, "consistency"),
    **dict.fromkeys(("z", "Z"), "label"),
    "nocopy": "copy",
    "idmap": "shown",
}
# Where labels are the machine's own: docker relabels none of them, and we none at all, but who asks for it is told.
_LABELLED = frozenset(
    "/ /bin /boot /dev /etc /etc/passwd /etc/pki /etc/shadow /home /lib /lib64 /media /opt /proc /root /run /sbin /srv "
    "/sys /tmp /usr /var /var/lib /var/log".split()
)
_SHARED = "z"  # what docker tells of volumes without a mode: they would be relabelled for all containers
_SHOWN_AS = "as="
_SHARED = "z"  # what docker tells of volumes without a mode: they would be relabelled for all containers
_MAPPED = "idmap"
_ID_MAX = 2**32 - 2  # (uid_t) -1 is no id
TMPFS_MODE_MAX = 0o7777
_TMPFS_FLAGS = frozenset(
    "ro rw exec noexec suid nosuid dev nodev atime noatime diratime nodiratime relatime norelatime strictatime "
    "nostrictatime sync async".split()
)
_TMPFS_VALUES = frozenset("size mode uid gid nr_inodes nr_blocks mpol huge".split())
TMPFS_HINT = "known are size=, mode=, uid=, gid=, nr_inodes= and flags such as exec, ro, noatime"

# Below /proc nothing may be mounted: whoever writes there would write to a fake (CVE-2019-19921). These are files that
# lxcfs replaces by ones that know the limits; runc makes the same exceptions.
_PROC_FILES = frozenset(
    f"/proc/{name}"
    for name in "cpuinfo diskstats meminfo stat swaps uptime loadavg slabinfo sys/kernel/ns_last_pid".split()
)


class Place:
    """Where an error is: the subject, and what the texts begin with."""

    __slots__ = ("prefix", "subject")

    def __init__(self, subject: str, prefix: str) -> None:
        self.subject = subject
        self.prefix = prefix

    def refuse(self, cause: str, hint: str) -> NoReturn:
        raise Invalid("create", self.subject, f"{self.prefix}{cause}", hint=hint)


def of_request(request: ContainerRequest, subject: str) -> tuple[MountPoint, ...]:
    """Return the mount points of -v and --mount. Volumes without a name have none yet.

    Raises Invalid with docker's texts, Unsupported for a driver that is not there.
    """
    points = [_of_bind(entry, subject) for entry in request.binds]
    _check_driver(request.volume_driver, points, subject)
    points += [_of_mount(entry, subject) for entry in request.mounts]
    tmpfs = [tmpfs_destination(entry.target, subject) for entry in request.tmpfs]
    refuse_duplicates([*(point.destination for point in points), *tmpfs], subject)
    return tuple(points)


def of_image(volumes: Iterable[str], driver: str, taken: set[str], subject: str) -> tuple[MountPoint, ...]:
    """Return a nameless volume for each VOLUME of an image that is not in taken.

    driver: which was asked for. Raises Invalid for a hostile place, Unsupported for a driver that is not there.
    """
    points = {}
    for path in volumes:
        place = Place(subject, f"the image's VOLUME {path[:200]!r}: ")
        target = destination("/" + path.lstrip("/"), place)  # docker takes a relative one from the root, too
        _refuse_proc(target, place)
        if target not in taken:
            points[target] = MountPoint(type=VOLUME, destination=target, driver=LOCAL, anonymous=True)
    _check_driver(driver, points.values(), subject)
    return tuple(points.values())


def lend(points: Iterable[MountPoint], mode: str) -> tuple[MountPoint, ...]:
    """Return what --volumes-from takes of another container's mount points."""
    lent = []
    for point in points:
        read_only = point.read_only or mode == "ro"
        lent.append(point.replace(read_only=read_only, no_copy=True, mode="", create_source=False))
    return tuple(lent)


def lender(text: str, subject: str) -> tuple[str, str]:
    """Return (container, "ro", "rw" or "") of a --volumes-from. Raises Invalid with docker's texts."""
    if not text:
        hint = "name a container"
        raise Invalid("create", subject, "volumes-from specification cannot be an empty string", hint=hint)
    name, _, mode = text.partition(":")
    words = set(mode.split(",")) - {"z", "Z", ""}
    if mode and (not words <= {"ro", "rw"} or len(words) > 1):
        hint = "write CONTAINER, CONTAINER:ro or CONTAINER:rw"
        raise Invalid("create", subject, f"invalid mode: {mode[:100]}", hint=hint, code="E0405")
    return name, "".join(words)


def destination(path: str, place: Place) -> str:
    """Return a mount's destination, clean. Raises Invalid for one that is relative, is "/", or lies below /proc."""
    if not path.startswith("/"):
        cause = f"invalid mount path: '{path[:200]}' mount path must be absolute"
        place.refuse(cause, "write the target from the container's root")
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if clean == "/":
        place.refuse("invalid specification: destination can't be '/'", "mount it at a directory below")
    if clean.startswith("/proc/") and clean not in _PROC_FILES:
        place.refuse(f'"{clean}" cannot be mounted because it is inside /proc', "choose a target outside /proc")
    return clean


def tmpfs_destination(path: str, subject: str, options: Sequence[str] = ()) -> str:
    """Return the destination of a tmpfs. Raises Invalid."""
    place = Place(subject, "")
    target = destination(path, place)
    if target == "/proc":
        place.refuse('"/proc" cannot be a tmpfs', "choose a target outside /proc")
    return target


def refuse_duplicates(destinations: Iterable[str], subject: str) -> None:
    """Raise Invalid when two mounts are to be at one place."""
    seen = set()
    for path in destinations:
        if path in seen:
            raise Invalid("create", subject, f"Duplicate mount point: {path}", hint="mount one of them elsewhere")
        seen.add(path)


def _of_bind(entry: BindRequest, subject: str) -> MountPoint:
    specification = ":".join(part for part in (entry.source, entry.target, ",".join(entry.options)) if part)
    prefix = f"invalid volume specification: '{specification[:300]}': "
    plain = Place(subject, prefix)
    if entry.source.startswith("."):
        cause = f"{entry.source[:100]!r} is no absolute path and no volume's name"
        plain.refuse(cause, "give the directory's absolute path")
    kind = BIND if entry.source.startswith("/") else VOLUME
    place = Place(subject, f'{prefix}invalid mount config for type "{kind}": ')
    target = destination(entry.target, place)
    modes = _modes(entry.options, plain)
    common = MountPoint(
        type=kind,
        destination=target,
        mode=",".join(entry.options) or ("z" if kind == VOLUME and entry.source else ""),  # docker's
        read_only=modes.get("access") == "ro",
        shown_as=_ids(modes["shown"], plain) if modes.get("shown", _MAPPED) != _MAPPED else (),
        mapped=modes.get("shown") == _MAPPED,
    )
    if kind == BIND:
        if "copy" in modes:
            place.refuse("field VolumeOptions must not be specified", "leave nocopy away: nothing is copied there")
        if target == "/proc" and entry.source != "/proc":
            _refuse_proc(target, plain)
        source = posixpath.normpath("/" + entry.source.lstrip("/"))
        if "label" in modes and source in _LABELLED:
            cause = f"error setting label on mount source '{source}': SELinux relabeling of {source} is not allowed"
            raise Invalid(
                "create", subject, cause, hint=f"leave {modes['label']} away, or mount a directory of your own"
            )
        return common.replace(
            source=source,
            propagation=modes.get("propagation", PROPAGATION_DEFAULT),
            create_source=True,
        )
    if "propagation" in modes:
        place.refuse("field BindOptions must not be specified", "a volume has no mounts below it: leave it away")
    _refuse_proc(target, plain)
    return common.replace(
        name=entry.source,
        driver=LOCAL,
        anonymous=not entry.source,
        mode=common.mode or (_SHARED if entry.source else ""),
        no_copy=modes.get("copy") == "nocopy",
    )


def _modes(options: tuple[str, ...], place: Place) -> dict[str, str]:
    modes: dict[str, str] = {}
    for option in options:
        kind = "shown" if option.startswith(_SHOWN_AS) else _KINDS.get(option)
        if kind is None or kind in modes:
            hint = "known are ro, rw, one propagation (rprivate, rshared ...), z, Z, nocopy, as=UID[:GID], idmap"
            place.refuse(f"invalid mode: {','.join(options)[:100]}", hint)
        modes[kind] = option
    return modes


def _ids(option: str, place: Place) -> tuple[int, ...]:
    words = option.removeprefix(_SHOWN_AS).split(":")
    ids = [int(word) for word in words if word.isascii() and word.isdecimal() and len(word) <= 10]
    if len(ids) != len(words) or len(ids) > 2 or any(number > _ID_MAX for number in ids):
        place.refuse(f"invalid mode: {option[:60]}", "write UID or UID:GID, in numbers")
    return tuple(ids)


def _of_mount(entry: MountRequest, subject: str) -> MountPoint:
    place = Place(subject, f'invalid mount config for type "{entry.type[:40]}": ')
    decide = {BIND: _bind, VOLUME: _volume, TMPFS: _tmpfs, IMAGE: _image}.get(entry.type)
    if decide is None:
        place.refuse("mount type unknown", "known are bind, volume, tmpfs and image")
    for name in (BIND, VOLUME, TMPFS, IMAGE):
        if name != entry.type and getattr(entry, name) is not None:
            place.refuse(f"field {name.capitalize()}Options must not be specified", f"leave the {name}- options away")
    if entry.map and entry.type not in (BIND, VOLUME):
        place.refuse("field Map must not be specified", "leave map= away: its owners are what they are")
    point = MountPoint(
        type=entry.type,
        destination=destination(entry.target, place),
        read_only=entry.read_only,
        shown_as=() if entry.map in ("", _MAPPED) else _ids(entry.map, place),
        mapped=entry.map == _MAPPED,
    )
    return decide(entry, point, place)


def _bind(entry: MountRequest, point: MountPoint, place: Place) -> MountPoint:
    if not entry.source:
        place.refuse("field Source must not be empty", "add source=/PATH")
    if not entry.source.startswith("/"):
        cause = f"invalid mount path: '{entry.source[:200]}' mount path must be absolute"
        place.refuse(cause, "write it from /, or begin it with a dot for a place here")
    options = entry.bind
    propagation = options.propagation if options else ""
    if propagation and propagation not in PROPAGATIONS:
        place.refuse(f"invalid propagation mode: {propagation[:60]}", f"known are {', '.join(sorted(PROPAGATIONS))}")
    if options and options.read_only_force_recursive and options.non_recursive:
        place.refuse("mount configured as both recursive and not recursive", "leave one of them away")
    if point.destination == "/proc" and entry.source != "/proc":
        _refuse_proc(point.destination, place)
    return point.replace(
        source=posixpath.normpath("/" + entry.source.lstrip("/")),
        propagation=propagation or PROPAGATION_DEFAULT,
        recursive=not (options and options.non_recursive),
        read_only_recursive=not (options and (options.non_recursive or options.read_only_non_recursive)),
        create_source=bool(options and options.create_mountpoint),
    )


def _volume(entry: MountRequest, point: MountPoint, place: Place) -> MountPoint:
    options = entry.volume or VolumeOptions()
    if options.driver not in ("", LOCAL):
        _refuse_driver(options.driver, place.subject)
    if options.subpath and not _is_local_path(options.subpath):
        place.refuse(f"invalid subpath: {options.subpath[:100]!r}", "write it from the volume's root, without ..")
    if not entry.source and options.subpath:
        place.refuse("must not set Subpath when using anonymous volumes", "name the volume with source=")
    _refuse_proc(point.destination, place)
    return point.replace(
        name=entry.source,
        driver=LOCAL,
        anonymous=not entry.source,
        mode=_SHARED,
        no_copy=options.no_copy,
        subpath=options.subpath,
    )


def _tmpfs(entry: MountRequest, point: MountPoint, place: Place) -> MountPoint:
    if entry.source:
        place.refuse("field Source must not be specified", "a tmpfs has no source: leave it away")
    options = entry.tmpfs or TmpfsOptions()
    if options.size_bytes < 0 or not 0 <= options.mode <= 2**32 - 1:
        place.refuse("invalid tmpfs options", "write tmpfs-size=64m,tmpfs-mode=1777")
    if unknown := unknown_tmpfs_options(options.options):
        place.refuse(f"invalid option: {unknown[0][:60]}", TMPFS_HINT)
    _refuse_proc(point.destination, place)
    words = ["noexec", "nosuid", "nodev"]
    if options.size_bytes:
        words.append(f"size={options.size_bytes}")
    if options.mode:
        words.append(f"mode={options.mode & TMPFS_MODE_MAX:o}")
    return point.replace(device_type=TMPFS, device=TMPFS, options=(*words, *options.options))


def unknown_tmpfs_options(options: Iterable[str]) -> list[str]:
    """Return those that are no options of a tmpfs."""
    pairs = [(option, *option.partition("=")) for option in options]
    return [
        option
        for option, name, equals, value in pairs
        if option not in _TMPFS_FLAGS and not (equals and value and name in _TMPFS_VALUES)
    ]


def _image(entry: MountRequest, point: MountPoint, place: Place) -> MountPoint:
    if not entry.source:
        place.refuse("field Source must not be empty", "add source=IMAGE")
    subpath = entry.image.subpath if entry.image else ""
    if subpath and not _is_local_path(subpath):
        place.refuse(f"invalid subpath: {subpath[:100]!r}", "write it from the image's root, without ..")
    _refuse_proc(point.destination, place)
    return point.replace(name=entry.source, read_only=True, subpath=subpath)


def _is_local_path(path: str) -> bool:
    """Go's filepath.IsLocal: below the root without leaving it on the way."""
    if path.startswith("/"):
        return False
    depth = 0
    for part in path.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            return False
    return True


def _refuse_proc(target: str, place: Place) -> None:
    if target == "/proc":
        cause = '"/proc" cannot be mounted because it is not of type proc'
        place.refuse(cause, "choose a target outside /proc")


def _check_driver(driver: str, points: Iterable[MountPoint], subject: str) -> None:
    """A driver is looked for, as by docker, once there is a volume for it."""
    if driver not in ("", LOCAL) and any(point.type == VOLUME for point in points):
        _refuse_driver(driver, subject)


def _refuse_driver(driver: str, subject: str) -> NoReturn:
    cause = f'error looking up volume plugin {driver[:60]}: plugin "{driver[:60]}" not found'
    raise Unsupported("create", subject, cause, hint="there are no plugins: leave the driver away, it is local")
