"""Checkpoint: what is asked of CRIU so that it writes a running container into a directory of images."""

import os

from ...linux.cgroup import Layout
from ...spec import jsonio
from ...spec.errors import Invalid
from ...spec.record import Record
from . import options as opts
from . import service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.protobuf import Message
    from .service import Criu

DESCRIPTORS = "descriptors.json"
_LOG = "dump.log"


class DumpOptions(Record):
    """parent: the images of the pre-dump before, relative to the images. page_server: (address, port)."""

    common: opts.Options
    parent: str = ""
    leave_running: bool = False
    pre_dump: bool = False
    skip_in_flight: bool = False
    link_remap: bool = False
    status_fd: int = -1
    page_server: tuple[str, int] | None = None


def dump(criu: "Criu", container: opts.Container, layout: Layout, options: DumpOptions) -> None:
    """Write the container's processes into a directory, and end them unless they shall go on.

    A pre-dump writes only their memory, so that the dump after it has less to do. Raises Invalid, Unsupported for a
    feature that CRIU lacks here, Unavailable with CRIU's own words; then the container runs on.
    """
    if options.pre_dump:
        criu.require(service.MEM_TRACK, "--pre-dump (memory tracking)")
    if options.common.lazy_pages:
        criu.require(service.LAZY_PAGES, "--lazy-pages")
    _check_parent(options)
    with opts.Directories(options.common, _LOG, make=True) as places:
        fields = (*opts.common(options.common, places, container.spec), *_own(container, layout, options))
        if not options.pre_dump:
            fields += _outside(container, layout)
            _write_descriptors(places.images, container.descriptors)
        kind = service.PRE_DUMP if options.pre_dump else service.DUMP
        try:
            criu.request(kind, fields, notified=lambda script, pid, fd: _notified(script, options))
        except service.Refused as refused:
            raise criu.explain("checkpoint", container.id, refused, places.log) from None


def _own(container: opts.Container, layout: Layout, options: DumpOptions) -> "Message":
    fields: list[tuple[int, int | str | Message]] = [
        (opts.PID, container.pid),
        (opts.LEAVE_RUNNING, options.leave_running),
        (opts.TCP_SKIP_IN_FLIGHT, options.skip_in_flight),
        (opts.LINK_REMAP, options.link_remap),
    ]
    if freezer := layout.v2 or layout.directory("freezer"):  # where pause would freeze it, too
        fields.append((opts.FREEZE_CGROUP, freezer + container.cgroup))
    if options.parent:
        fields += [(opts.PARENT_IMG, options.parent), (opts.TRACK_MEM, True)]
    if options.page_server:
        address, port = options.page_server
        fields.append((opts.PAGE_SERVER, ((1, address), (2, port))))
    return tuple(fields)


def _outside(container: opts.Container, layout: Layout) -> "Message":
    """Return the fields for what CRIU shall find again by name: namespaces that were joined, mounts of the host's."""
    fields: list[tuple[int, int | str | Message]] = []
    for namespace in container.spec.linux.namespaces:
        if namespace.path and namespace.type in opts.EXTERNAL_NAMESPACES:
            kind, key = opts.EXTERNAL_NAMESPACES[namespace.type]
            fields.append((opts.EXTERNAL, f"{kind}[{os.stat(namespace.path).st_ino}]:{key}"))
    points = opts.mount_points(container, layout)
    return (*fields, *(opts.external_mount(point, name) for point, name in points))


def _check_parent(options: DumpOptions) -> None:
    if not options.parent:
        return
    if os.path.isabs(options.parent):
        raise Invalid("read", "--parent-path", "--parent-path must be relative", hint="name it from --image-path on")
    if not os.path.isdir(os.path.join(options.common.images, options.parent)):
        raise Invalid("read", "--parent-path", f"{options.parent} is no directory below {options.common.images}")


def _write_descriptors(images: int, names: tuple[str, ...]) -> None:
    with open(DESCRIPTORS, "wb", opener=lambda path, _: os.open(path, _WRITE, 0o600, dir_fd=images)) as file:
        file.write(jsonio.dump(list(names)))


_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def _notified(script: str, options: DumpOptions) -> None:
    if script == "status-ready" and options.status_fd >= 0:
        os.write(options.status_fd, b"\0")  # the page server of --lazy-pages listens
        os.close(options.status_fd)
