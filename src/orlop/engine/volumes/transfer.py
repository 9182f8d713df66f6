"""What docker has no verbs for: a volume gets a copy, goes into an archive and comes out of one; who uses
it, and how much it occupies.

A volume is made whole or not at all: what fills it works in a directory on its way (store.Volumes.make).
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

from ...content.compression import Decompressed
from ...runtime import copyup
from ...snapshot.extract import Extraction, Rules
from ...snapshot.pack import Packer
from ...spec.errors import Conflict, Unavailable, Unsupported
from ...spec.mount import VOLUME
from ...spec.tar import Limits, Reader
from .. import events
from ..containers.record import timestamp
from . import verbs
from .store import VolumeRecord, check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..engine import Engine

LIMITS = Limits(entries=2**40, total_bytes=2**60)  # what a user imports is his own, and the stream ends when he likes
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def clone(engine: Engine, source: str, name: str) -> None:
    """Make a volume with the content of another; where the file system shares extents, none is copied.

    Raises NotFound, Invalid, Conflict when there is one of that name.
    """
    original = own_directory(engine, source, "clone")
    record = VolumeRecord(name=name, created_at=timestamp(), labels=original.labels, options=original.options)
    make_filled(engine, record, copying(engine, source))


def copying(engine: Engine, source: str) -> Callable[[int], None]:
    """Return what fills a directory, of a descriptor, with the content of a volume."""

    def fill(directory: int) -> None:
        with engine.volumes.contents(source) as place:
            data = os.open(place, _DIRECTORY)
            try:
                copyup.copy_tree(data, directory, f"volume {source}")
            finally:
                os.close(data)

    return fill


def export(engine: Engine, name: str, stream: int) -> None:
    """Write an archive of what a volume holds to a stream socket (borrowed), and end its data.

    Raises NotFound, Unavailable when the client goes.
    """
    own_directory(engine, name, "export")
    with socket.socket(fileno=os.dup(stream)) as peer, _Told("export", name), engine.volumes.contents(name) as place:
        peer.settimeout(None)
        data = os.open(place, _DIRECTORY)
        try:
            packer = Packer(peer.sendall)
            packer.add(data, b".")
            packer.finish()
            peer.shutdown(socket.SHUT_WR)
        finally:
            os.close(data)


def import_archive(engine: Engine, name: str, stream: int) -> None:
    """Make a volume of the archive that comes on a stream socket (borrowed).

    Raises Invalid for a broken or hostile archive, Conflict when there is a volume of that name.
    """
    subject = f"the archive for volume {name[:100]}"

    def fill(directory: int) -> None:
        with socket.socket(fileno=os.dup(stream)) as peer:
            peer.settimeout(None)
            reader = Reader(Decompressed(peer.recv, subject).read, subject, LIMITS)
            Extraction(directory, -1, subject, rules=Rules(layer=False)).run(reader)

    make_filled(engine, VolumeRecord(name=name, created_at=timestamp()), fill)


def extract(engine: Engine, name: str, stream: int) -> None:
    """Put what an archive on a stream socket (borrowed) has into a volume that is there; what it lacks stays.

    Raises NotFound, Unsupported for one of elsewhere, Invalid for a broken or hostile archive, Unavailable.
    """
    subject = f"the archive for volume {name[:100]}"
    own_directory(engine, name, "import")
    with ExitStack() as held, _Told("import", name), socket.socket(fileno=os.dup(stream)) as peer:
        peer.settimeout(None)
        held.enter_context(engine.volumes.held((name,)))
        data = os.open(held.enter_context(engine.volumes.contents(name)), _DIRECTORY)
        try:
            reader = Reader(Decompressed(peer.recv, subject).read, subject, LIMITS)
            Extraction(data, -1, subject, rules=Rules(layer=False)).run(reader)
        finally:
            os.close(data)


def usage(engine: Engine) -> list[dict[str, object]]:
    """Return for every volume what it occupies and who mounts it, by name."""
    users: dict[str, list[dict[str, object]]] = {}
    for record in engine.records.all():
        for point in record.mounts:
            if point.type == VOLUME:
                shown = {
                    "id": record.id,
                    "name": record.name,
                    "state": engine.observe(record.id).state,
                    "destination": point.destination,
                    "rw": not point.read_only,
                }
                users.setdefault(point.name, []).append(shown)
    return [
        {"name": record.name, "size_bytes": verbs.usage(engine, record.name), "users": users.get(record.name, [])}
        for record in sorted(engine.volumes.all(), key=lambda record: record.name)
    ]


class _Told:
    """Turns what a stream or a disk refuses into Unavailable."""

    def __init__(self, verb: str, name: str) -> None:
        self.verb = verb
        self.name = name

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, failure: BaseException | None, _: object) -> None:
        if isinstance(failure, BrokenPipeError | ConnectionResetError):
            raise Unavailable(self.verb, f"volume {self.name}", "the client is gone") from None
        if isinstance(failure, OSError):
            cause = failure.strerror or str(failure)
            raise Unavailable(self.verb, f"volume {self.name}", cause, hint="look at the space (df)") from None


def own_directory(engine: Engine, name: str, verb: str) -> VolumeRecord:
    """Return the record of a volume whose content lies here. Raises NotFound, Unsupported."""
    record = engine.volumes.load(name)
    if record.options.get("type"):
        cause = f"it is a {record.options['type']} of elsewhere: {record.options.get('device', '')[:100]}"
        raise Unsupported(verb, record.subject, cause, hint="do it from a container that mounts it")
    return record


def make_filled(engine: Engine, record: VolumeRecord, fill: Callable[[int], None]) -> None:
    """Make a volume that begins with some content. Raises Invalid, Conflict when there is one, Unavailable."""
    check_name(record.name)
    with engine.volumes.held((record.name,)), _Told("create", record.name):
        if engine.volumes.find(record.name) is not None or not engine.volumes.make(record, fill):
            hint = f"choose another name, or remove it: orlop volume rm {record.name}"
            raise Conflict("create", record.subject, "there is a volume of that name", hint=hint)
    events.publish(engine, events.VOLUME, "create", record.name, {"driver": record.driver})
