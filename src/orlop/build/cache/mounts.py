"""Cache mounts in an artifact of the OCI: what `RUN --mount=type=cache` holds, carried to another engine.

    manifest   an OCI image manifest whose artifactType says what it is; its layers are the pieces of all mounts
    document   its configuration: which mounts there are, and which pieces make the archive of each

A mount is an archive of its files (snapshot.pack: the same files, the same bytes), cut by its content (`chunks`). A
piece that a place has is not sent again, and what two mounts have in common is there once. No step uses a mount while
it is written or made, and a mount is made whole or not at all.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager

from orlop.content.store import READ_BYTES
from orlop.engine.containers.record import timestamp
from orlop.engine.volumes import preparation, transfer
from orlop.engine.volumes.store import VolumeRecord
from orlop.image import collection
from orlop.snapshot.extract import Extraction, Rules
from orlop.snapshot.pack import Packer
from orlop.spec import jsonio
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, NotFound, Unavailable
from orlop.spec.image import OCI_MANIFEST, Descriptor, Manifest
from orlop.spec.tar import Reader

from ..solver import cachemounts
from .carried import ARTIFACT, DOCUMENT, DOCUMENT_BYTES_MAX, PIECE, Carried, CarriedMount, Told, parse
from .carrier import Carrier
from .chunks import Cutter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from orlop.engine.engine import Engine
    from orlop.spec.reference import Reference
    from orlop.spec.registry import Credentials

    from .carrier import Found
    from .places import CachePlace

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Access:
    """How places are reached. credentials: what the client has for a repository. check: raises what has ended the work.

    given_up: is set then.
    """

    def __init__(
        self,
        credentials: Callable[[Reference], Credentials | None],
        check: Callable[[], None],
        given_up: threading.Event,
    ) -> None:
        self.credentials = credentials
        self.check = check
        self.given_up = given_up


def here(engine: Engine) -> list[str]:
    """Return the ids of the mounts that are here; what was made beside one for private use is not meant."""
    return sorted(mount for volume, mount, _ in cachemounts.mounts(engine) if volume == cachemounts.name_of(mount))


def write(engine: Engine, access: Access, place: CachePlace, wanted: Collection[str]) -> list[Told]:
    """Write mounts into a folder or a registry. wanted: their ids, none is all.

    Raises NotFound for one that is not here, Unavailable, Denied.
    """
    known = here(engine)
    check_known(wanted, known, "list them with: orlop builder cache ls")
    carried: list[CarriedMount] = []
    pieces: dict[Digest, Descriptor] = {}
    with _carrying(engine, access) as (carrier, behind):
        for mount in sorted(wanted) or known:
            made = _packed(engine, mount, access.check)
            pieces.update((piece.digest, piece) for piece in made)
            size = sum(piece.size for piece in made)
            carried.append(CarriedMount(id=mount, size=size, pieces=tuple(piece.digest for piece in made)))
        data = jsonio.dump(Carried(mounts=tuple(carried)).to_json())
        config = engine.store.ingest(data, media_type=DOCUMENT)
        layers = tuple(pieces.values())
        manifest = Manifest(
            schema_version=2, media_type=OCI_MANIFEST, artifact_type=ARTIFACT, config=config, layers=layers
        )
        described = engine.store.ingest(jsonio.dump(manifest.to_json()), media_type=OCI_MANIFEST)
        behind.blobs |= {*pieces, config.digest, described.digest}
        carrier.give(place, described)
    return [_told(one, "written") for one in carried]


def read(engine: Engine, access: Access, place: CachePlace, wanted: Collection[str], *, replaces: bool) -> list[Told]:
    """Make the mounts that a place has. wanted: those that matter, none is all. replaces: those that are here, too.

    Raises Invalid for what is none of ours or hostile, NotFound for one that is not there, Unavailable.
    """
    told = []
    with _carrying(engine, access) as (carrier, behind):
        offered = _offered(carrier, place)
        check_known(wanted, offered, f"there are: {', '.join(offered)[:200] or 'none'}")
        for mount in wanted or offered:
            with cachemounts.claimed(engine, mount, access.check) as volume:
                is_here = engine.volumes.find(volume) is not None
                if not is_here or replaces:
                    _make(engine, _Pieces(engine, *offered[mount], access.check), volume, behind, replaces=is_here)
                told.append(_told(offered[mount][0], "kept" if is_here and not replaces else "read"))
    return told


def make(engine: Engine, access: Access, place: CachePlace, mount: str, volume: str) -> bool:
    """Make the volume of one mount that is not here, where a place has it. The caller has claimed it.

    Raises as `read`.
    """
    with _carrying(engine, access) as (carrier, behind):
        offered = _offered(carrier, place)
        if mount in offered:
            _make(engine, _Pieces(engine, *offered[mount], access.check), volume, behind, replaces=False)
    return mount in offered


def check_known(wanted: Collection[str], known: Collection[str], hint: str) -> None:
    """Raise NotFound for a mount that nobody knows."""
    for name in wanted:
        if name not in known:
            raise NotFound("carry", f"cache mount {name[:60]}", f"there is no cache mount {name[:60]}", hint=hint)


@contextmanager
def _carrying(engine: Engine, access: Access) -> Iterator[tuple[Carrier, collection.Marked]]:
    """Hold what carries, and what is left behind then: it goes from our store in the end, unless somebody needs it."""
    behind = collection.Marked()
    try:
        with engine.store.leases.hold() as lease:
            yield Carrier(engine, lease, access.credentials, access.check, access.given_up), behind
    finally:
        if behind.blobs:
            collection.collect(engine.store, engine.snapshots, behind)


def _told(carried: CarriedMount, state: str) -> Told:
    volume = cachemounts.name_of(carried.id)
    return Told(id=carried.id, volume=volume, state=state, bytes=carried.size, pieces=len(set(carried.pieces)))


def _packed(engine: Engine, mount: str, check: Callable[[], None]) -> list[Descriptor]:
    """Put the archive of a mount into our store, piece by piece; return the pieces in their order."""
    made: list[Descriptor] = []

    def put(piece: bytes) -> None:
        check()
        made.append(engine.store.ingest(piece, media_type=PIECE))

    cutter = Cutter(put)
    with cachemounts.claimed(engine, mount, check) as volume:
        try:
            data = os.open(engine.volumes.data(volume), _DIRECTORY)
        except OSError as wrong:
            raise Unavailable("write", f"cache mount {mount[:60]}", wrong.strerror or str(wrong)) from None
        try:
            packer = Packer(cutter.write)
            packer.add(data, b".")
            packer.finish()
        finally:
            os.close(data)
    cutter.finish()
    return made


def _make(engine: Engine, pieces: _Pieces, volume: str, behind: collection.Marked, *, replaces: bool) -> None:
    """Make the volume of a mount, whole or not at all."""
    subject = f"cache mount {pieces.mount[:60]}"
    behind.blobs |= pieces.digests
    pieces.fetch_all()  # before anything of what is here goes
    if replaces:
        preparation.remove(engine, volume)

    def fill(directory: int) -> None:
        reader = Reader(pieces.read, subject, transfer.LIMITS)
        Extraction(directory, -1, subject, rules=Rules(layer=False)).run(reader)

    record = VolumeRecord(name=volume, created_at=timestamp(), labels={cachemounts.LABEL: pieces.mount})
    transfer.make_filled(engine, record, fill)


class _Pieces:
    """The archive of one mount. Raises Invalid where its manifest lacks a piece."""

    def __init__(self, engine: Engine, carried: CarriedMount, found: Found, check: Callable[[], None]) -> None:
        self.mount = carried.id
        self.digests = set(carried.pieces)
        self._check = check
        self._engine = engine
        self._fetch = found.fetch
        self._left = memoryview(b"")
        layers = {layer.digest: layer for layer in found.manifest.layers}
        for digest in carried.pieces:
            if digest not in layers:
                cause = f"its manifest does not name the piece {digest}"
                raise Invalid("read", f"cache mount {carried.id[:60]}", cause, hint="write it anew")
        self._pieces = [layers[digest] for digest in carried.pieces]
        self._data = self._all()

    def fetch_all(self) -> None:
        """Bring all of it into our store."""
        for piece in self._pieces:
            self._check()
            self._engine.store.leases.committed(piece.digest)
            if self._engine.store.stat(piece.digest) is None:
                self._fetch(piece)

    def read(self, count: int) -> bytes:
        """Return up to so many bytes of the archive, b"" at its end."""
        while not self._left:
            found = next(self._data, None)
            if found is None:
                return b""
            self._left = memoryview(found)
        data, self._left = bytes(self._left[:count]), self._left[count:]
        return data

    def _all(self) -> Iterator[bytes]:
        for piece in self._pieces:
            with self._engine.store.open(piece.digest) as file:
                while data := file.read(READ_BYTES):
                    yield data


def _offered(carrier: Carrier, place: CachePlace) -> dict[str, tuple[CarriedMount, Found]]:
    """Return the mounts that a place has, by id, in its order."""
    offered: dict[str, tuple[CarriedMount, Found]] = {}
    for found in carrier.find(place, DOCUMENT_BYTES_MAX):
        for one in parse(found.manifest.config.media_type, found.config, f"cache mounts of {place}").mounts:
            offered.setdefault(one.id, (one, found))
    return offered
