"""`diff` and `export`: what a container changed in its root file system, and all of it as one archive.

Both read the layers on disk, without a mount and without the container: it may run, be stopped or be frozen. Volumes
are no part of either.
"""

from __future__ import annotations

import os
import socket
from contextlib import nullcontext

from ...snapshot.difference import Difference, compare
from ...snapshot.layered import open_layers
from ...snapshot.pack import Packer
from ...spec.errors import OrlopError, Unavailable, Unsupported
from .. import events
from ..userns import kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from ..containers.record import ContainerRecord
    from ..engine import Engine


def changes(engine: Engine, reference: str) -> list[dict[str, str]]:
    """Return [{kind, path}] in the order of the paths; kind is A, C or D. Raises NotFound, Unsupported for --rootfs."""
    found = difference(engine, engine.records.find(reference))
    return [{"kind": kind, "path": "/" + os.fsdecode(path)} for kind, path in found.changes]


def difference(engine: Engine, record: ContainerRecord) -> Difference:
    """Return what a container changed. Raises NotFound, Unavailable, Unsupported for --rootfs."""
    if record.request.rootfs:
        cause = f"it runs in {record.request.rootfs} itself, which nothing is kept to compare with"
        raise Unsupported("compare", record.subject, cause, hint="make an image of the directory, and run that")
    try:
        with engine.layer(record).layers() as trees:
            return of_trees(engine, record, trees)
    except OSError as wrong:
        raise unreadable("compare", record, wrong) from None


def of_trees(engine: Engine, record: ContainerRecord, trees: Sequence[str]) -> Difference:
    """Return the same where the trees of the container are held already. Raises OSError."""
    mounts = engine.records.spec(record.id).mounts
    return compare(trees[0], trees[1:], {os.fsencode(mount.destination.strip("/")) for mount in mounts})


def export(engine: Engine, reference: str, stream: int) -> None:
    """Write the whole root file system as an archive to a stream socket (borrowed), and end its data.

    Raises NotFound, Unavailable when the client goes.
    """
    record = engine.records.find(reference)
    with socket.socket(fileno=os.dup(stream)) as peer:
        peer.settimeout(None)
        try:
            with _trees(engine, record) as trees:
                packer = Packer(peer.sendall, shift=kept.on_disk(record, engine.host.runtime))
                packer.add_directory(open_layers(trees, plain=len(trees) == 1), b".")
                packer.finish()
            peer.shutdown(socket.SHUT_WR)
        except OSError as wrong:
            raise unreadable("export", record, wrong) from None
    events.publish_container(engine, record, "export")


def _trees(engine: Engine, record: ContainerRecord) -> AbstractContextManager[tuple[str, ...]]:
    if record.request.rootfs:
        return nullcontext((record.request.rootfs,))
    return engine.snapshots.writable(record.id).layers()


def unreadable(verb: str, record: ContainerRecord, wrong: OSError) -> OrlopError:
    """Return the error for what the file system, or the client's socket, did not do."""
    if isinstance(wrong, BrokenPipeError | ConnectionResetError):
        return Unavailable(verb, record.subject, "the client has gone")
    where = f"{wrong.filename}: " if wrong.filename else ""
    return Unavailable(verb, record.subject, f"{where}{wrong.strerror or wrong}", hint="was it removed meanwhile?")
