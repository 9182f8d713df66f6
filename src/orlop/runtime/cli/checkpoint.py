"""checkpoint: a running container becomes a directory of images, through CRIU."""

from __future__ import annotations

import os

from ...spec.errors import Conflict, Invalid
from .. import host
from ..criu.dump import DumpOptions, dump
from ..criu.options import CGROUP_MODES, EMPTY_NAMESPACES, Container, Options
from ..criu.service import Criu
from .call import Call
from .create import destroy

_IMAGES_DEFAULT = "checkpoint"
_PORT_MAX = 65535


def checkpoint(call: Call) -> int:
    """Checkpoint a container; unless it is to go on, it is removed then."""
    entry = call.store.load(call.container())
    status = call.store.status(entry)
    if status in ("created", "stopped"):
        raise Conflict("checkpoint", f"container {entry.id}", f"Container cannot be checkpointed in {status} state")
    spec = call.store.spec(entry.id)
    wanted = DumpOptions(
        common=shared(call),
        parent=call.flags.text("parent-path"),
        leave_running=call.flags.on("leave-running"),
        pre_dump=call.flags.on("pre-dump"),
        skip_in_flight=call.flags.on("tcp-skip-in-flight"),
        link_remap=call.flags.on("link-remap"),
        status_fd=call.flags.number("status-fd") if call.flags.given("status-fd") else -1,
        page_server=_page_server(call.flags.text("page-server")),
    )
    container = Container(
        id=entry.id, spec=spec, bundle=entry.bundle, cgroup=entry.cgroup, pid=entry.pid, descriptors=entry.descriptors
    )
    dump(Criu(call.criu), container, host.facts().layout, wanted)
    if not (wanted.leave_running or wanted.pre_dump):
        destroy(call, entry)
    return 0


def shared(call: Call) -> Options:
    """Return the options that checkpoint and restore have in common. Raises Invalid."""
    mode = call.flags.text("manage-cgroups-mode")
    if mode not in CGROUP_MODES:
        raise Invalid(
            "read", "--manage-cgroups-mode", "Invalid manage cgroups mode", hint="soft, full, strict or ignore"
        )
    empty = 0
    for name in call.flags.all("empty-ns"):
        if name not in EMPTY_NAMESPACES:
            raise Invalid(
                "read", "--empty-ns", f'namespace "{name[:40]}" is not supported', hint="network is", code="E1301"
            )
        empty |= EMPTY_NAMESPACES[name]
    work = call.flags.text("work-path")
    return Options(
        images=os.path.abspath(call.flags.text("image-path") or _IMAGES_DEFAULT),
        work=os.path.abspath(work) if work else "",
        shell_job=call.flags.on("shell-job"),
        tcp_established=call.flags.on("tcp-established"),
        external_sockets=call.flags.on("ext-unix-sk"),
        file_locks=call.flags.on("file-locks"),
        auto_dedup=call.flags.on("auto-dedup"),
        lazy_pages=call.flags.on("lazy-pages"),
        cgroup_mode=mode,
        empty_namespaces=empty,
    )


def _page_server(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    address, colon, port = text.rpartition(":")
    if not (colon and address and port.isascii() and port.isdigit() and 0 < int(port[:6]) <= _PORT_MAX):
        raise Invalid("read", "--page-server", "Use --page-server ADDRESS:PORT to specify page server")
    return address, int(port)
