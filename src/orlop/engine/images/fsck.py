"""`system fsck`: every blob, image, layer and writable layer looked at; what is wrong is told and, if asked, put right.

kind     damaged      a blob whose content is not its digest's: repair removes it
                      what is written of a layer: repair writes it anew, as the images have it
                      a record of a container, volume, secret ... that can't be read: it is told and left alone
         incomplete   an image that lacks a blob: repair takes its name away
         leftover     what a killed engine had not finished and nobody needs: repair removes it
         unknown      what is none of ours: it is told and left alone

Safe beside everything else: what is leased, or has a writer, is no leftover.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time

from ...content.store import sweep
from ...image import collection
from ...linux.path import read_file
from ...spec import jsonio
from ...spec.digest import Digest
from ...spec.errors import Invalid, NotFound, OrlopError, Unavailable
from ...spec.image import INDEXES, Index, parse_manifest
from .. import images
from ..containers import names
from .disk import PLACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...spec.image import Descriptor
    from ..engine import Engine

DAMAGED, INCOMPLETE, LEFTOVER, UNKNOWN = "damaged", "incomplete", "leftover", "unknown"
READ_BYTES = 1024 * 1024
_RECORDS = (
    ("containers", "container.json"),
    ("networks", "network.json"),
    ("volumes", "volume.json"),
    ("secrets", "record.json"),
    ("configs", "record.json"),
    ("sockets", "socket.json"),
)
TRASH_S_MIN = 60.0  # what a removal that goes on now has in the trash is younger


class Problem:
    """One thing that is wrong. repaired: it is no more."""

    def __init__(self, kind: str, subject: str, cause: str) -> None:
        self.kind, self.subject, self.cause = kind, subject, cause
        self.repaired = False

    def to_json(self) -> dict[str, object]:
        return {"kind": self.kind, "subject": self.subject, "cause": self.cause, "repaired": self.repaired}


def check(engine: Engine, *, repair: bool = False) -> list[dict[str, object]]:
    """Return what is wrong, as {"kind", "subject", "cause", "repaired"}."""
    problems: list[Problem] = []
    for look in (_blobs, _images, _layers, _ingest, _garbage, _writable, _trash, _places, _records):
        try:
            problems += look(engine, repair)
        except (Invalid, Unavailable) as wrong:  # the rest is looked at all the same
            if not any(one.subject == wrong.subject for one in problems):
                problems.append(Problem(DAMAGED, wrong.subject, wrong.cause))
    return [problem.to_json() for problem in problems]


def _blobs(engine: Engine, repair: bool) -> Iterator[Problem]:
    for digest in engine.store.digests():
        cause = _wrong_content(engine, digest)
        if cause:
            problem = Problem(DAMAGED, f"blob {digest}", cause)
            if repair:
                engine.store.remove(digest)
                problem.repaired = True
            yield problem


def _wrong_content(engine: Engine, digest: Digest) -> str:
    found = hashlib.new(digest.algorithm)
    try:
        with engine.store.open(digest) as file:
            while data := file.read(READ_BYTES):
                found.update(data)
    except NotFound:
        return ""  # it was collected meanwhile
    except OrlopError as wrong:
        return wrong.cause
    except OSError as wrong:
        return f"it can't be read: {wrong.strerror}"
    return (
        "" if found.hexdigest() == digest.hex else f"its content has the digest {digest.algorithm}:{found.hexdigest()}"
    )


def _images(engine: Engine, repair: bool) -> Iterator[Problem]:
    """Look at every entry of the index: its documents and the blobs they name."""
    seen: dict[Digest, str] = {}
    for name, target in engine.store.names.entries():
        if target.digest not in seen:
            seen[target.digest] = _missing(engine, target)
        cause = seen[target.digest]
        if cause:
            shown = name.familiar if name is not None else str(target.digest)
            problem = Problem(INCOMPLETE, f"image {shown}", cause)
            if repair:
                engine.store.names.forget(target.digest)
                problem.repaired = True
            yield problem


def _missing(engine: Engine, target: Descriptor) -> str:
    """Return what an image lacks, "" for nothing. Of an index the images of other platforms may be absent."""
    try:
        if target.media_type in INDEXES:
            index = parse_manifest(engine.store.get(target.digest), target.media_type, f"index {target.digest}")
            assert isinstance(index, Index)  # by its media type
            here = [one for one in index.manifests if engine.store.stat(one.digest) is not None]
            causes = [_missing(engine, one) for one in here]
            return next(filter(None, causes), "" if here or not index.manifests else "none of its images is here")
        needed = collection.reachable(engine.store, target)
        manifest = parse_manifest(engine.store.get(target.digest), target.media_type, f"manifest {target.digest}")
    except OrlopError as wrong:
        return str(wrong)
    if needed.broken:
        return needed.broken[0]
    foreign = {layer.digest for layer in getattr(manifest, "layers", ()) if layer.urls}
    lost = [digest for digest in needed.blobs - foreign if engine.store.stat(digest) is None]
    lost = [digest for digest in lost if not _is_coming(engine, digest)]
    return f"blob {lost[0]} is not here" if lost else ""


def _is_coming(engine: Engine, digest: Digest) -> bool:
    """Tell whether an image that runs before it is here brings the blob."""
    from ..lazy import servers

    return servers.brings(engine, digest) != ""


def _layers(engine: Engine, repair: bool) -> Iterator[Problem]:
    """Look at what is written of each unpacked layer: whatever stands on it can't start without."""
    from ...snapshot.record import LayerRecord, rewrite
    from ...snapshot.unpack import layer_path

    snapshots = engine.snapshots
    for chain_id in snapshots.unpacked():
        cause = ""
        try:
            if not snapshots.chain(chain_id) and snapshots.has(chain_id):
                cause = f"{layer_path(snapshots.root, chain_id)}/layer.json is not there"
        except OrlopError as wrong:
            cause = str(wrong)
        if not cause:
            continue
        problem = Problem(DAMAGED, f"layer {chain_id}", cause)
        if repair and (told := _chain_of(engine, chain_id)):
            entries = snapshots.layer_usage(chain_id).inodes
            record = LayerRecord(diff_id=told[0], chain=told[1], entries=entries)
            rewrite(snapshots.root, layer_path(snapshots.root, chain_id), record)
            problem.repaired = True
        yield problem


def _chain_of(engine: Engine, chain_id: Digest) -> tuple[Digest, tuple[Digest, ...]] | None:
    """Return a layer's own digest and the names of it and those below, as an image has them; None where none does."""
    for name, target in engine.store.names.entries():
        try:
            layers = images.find(engine, name.familiar if name is not None else str(target.digest)).layers
        except OrlopError:
            continue  # `_images` has told
        for number, layer in enumerate(layers):
            if layer.chain_id == chain_id:
                return layer.diff_id, tuple(one.chain_id for one in reversed(layers[: number + 1]))
    return None


def _ingest(engine: Engine, repair: bool) -> Iterator[Problem]:
    for path in engine.store.partial():
        if _has_writer(path):
            continue
        problem = Problem(LEFTOVER, f"download {os.path.basename(path)}", "it was interrupted; a pull goes on with it")
        if repair:
            sweep(os.path.dirname(path), 0.0)
            problem.repaired = not os.path.exists(path)
        yield problem


def _has_writer(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True  # it is done
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _garbage(engine: Engine, repair: bool) -> Iterator[Problem]:
    """Find what no image, no container, no lease and no cache of builds needs."""
    marked = collection.mark(engine.store)
    is_leased = engine.store.leases.leased()
    if marked.broken:
        return  # what those need is not known: `_images` has told
    collection.mark_kept(engine.store, marked)
    try:
        needed = collection.needed_layers(engine.snapshots, marked)
    except OrlopError:
        return  # `_layers` has told
    found = [
        *(
            (digest, Problem(LEFTOVER, f"blob {digest}", "no image needs it"))
            for digest in engine.store.digests()
            if digest not in marked.blobs and not is_leased(digest)
        ),
        *(
            (chain_id, Problem(LEFTOVER, f"layer {chain_id}", "no image and no container needs it"))
            for chain_id in engine.snapshots.unpacked()
            if chain_id not in needed and not is_leased(chain_id)
        ),
    ]
    if repair and found:
        try:
            swept = collection.collect(engine.store, engine.snapshots)
        except Invalid:
            pass
        else:
            gone = {*swept.blobs, *swept.layers}
            for digest, problem in found:
                problem.repaired = digest in gone
    yield from (problem for _, problem in found)


def _writable(engine: Engine, repair: bool) -> Iterator[Problem]:
    """Look at the writable layers: each belongs to a container, and the layers it stands on are there."""
    known = set(engine.records.ids())
    for key in engine.snapshots.keys():  # noqa: SIM118  # it is no dict
        if names.is_id(key) and key not in known:
            problem = Problem(LEFTOVER, f"snapshot {key}", "its container is gone")
            if repair and key not in engine.records.ids():
                engine.snapshots.remove(key)
                problem.repaired = True
            yield problem
            continue
        try:
            engine.snapshots.mounts(key)
        except OrlopError as wrong:
            yield Problem(DAMAGED, f"snapshot {key}", wrong.cause)


def _trash(engine: Engine, repair: bool) -> Iterator[Problem]:
    root = engine.snapshots.root
    for part in ("trash", "unpacking"):
        for name in os.listdir(f"{root}/{part}"):
            path = f"{root}/{part}/{name}"
            try:
                age = time.time() - os.lstat(path).st_ctime
            except FileNotFoundError:
                continue
            if age < TRASH_S_MIN or (part == "unpacking" and _has_writer(path)):
                continue
            problem = Problem(LEFTOVER, f"{part} {name}", "it was interrupted")
            if repair:
                engine.snapshots.dispose(path)
                problem.repaired = True
            yield problem


def _places(engine: Engine, _repair: bool) -> Iterator[Problem]:
    root = engine.paths.root
    for name in os.listdir(root):
        if name not in PLACES and name not in ("content", "snapshots"):
            yield Problem(UNKNOWN, f"{root}/{name}", "it is none of Orlop's files")
    for algorithm in os.listdir(f"{root}/content/blobs"):
        for name in os.listdir(f"{root}/content/blobs/{algorithm}"):
            try:
                Digest(f"{algorithm}:{name}")
            except Invalid:
                yield Problem(UNKNOWN, f"{root}/content/blobs/{algorithm}/{name}", "it is called like no blob")
    for name, digest in engine.store.recipes.names().items():
        if digest is None:
            yield Problem(UNKNOWN, f"{engine.store.recipes.root}/{name}", "it is called like no blob")


def _records(engine: Engine, _repair: bool) -> Iterator[Problem]:
    """Look at the records of what there is: one that can't be read is in no list, and nothing else says why."""
    for part, file in _RECORDS:
        place = f"{engine.paths.root}/{part}"
        try:
            found = sorted(name for name in os.listdir(place) if not name.startswith("."))
        except OSError:
            continue
        for path in (f"{place}/{name}/{file}" for name in found if os.path.isdir(f"{place}/{name}")):
            try:
                jsonio.parse_object(read_file(path, jsonio.DOCUMENT_BYTES_MAX), path)
            except FileNotFoundError:
                continue  # half made: what made it, or the next engine, removes it
            except OSError as wrong:
                yield Problem(DAMAGED, path, wrong.strerror or str(wrong))
            except OrlopError as wrong:
                yield Problem(DAMAGED, path, wrong.cause)
