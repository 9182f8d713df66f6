"""--cache-to and --cache-from, type=local: what the steps of a build have made, carried to another engine as a folder.

    <folder>/oci-layout index.json blobs/sha256/<hex>   an OCI image layout with one manifest: its layers are the steps'
                                                        layers, its configuration is `CacheDocument`

Whoever names a folder with --cache-from trusts whoever wrote it, as with an image: the keys in it are believed. Every
blob is proven by its digest, and a folder that is missing or of another kind is told and left out, as buildx does.
"""

import os

from orlop.engine.steps.cache import Cached
from orlop.spec import jsonio
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, NotFound, OrlopError, Unavailable
from orlop.spec.image import LAYOUT_VERSION, OCI_MANIFEST, Descriptor, Index, Layout, Manifest
from orlop.spec.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .solver.solve import Solver

CACHE_CONFIG = "application/vnd.orlop.buildcache.config.v1+json"
DOCUMENT_BYTES_MAX = 64 * 1024 * 1024
COPY_BYTES = 1024 * 1024


class CacheEntry(Record):
    """One record of the cache, and what it was made from."""

    record: Cached
    inputs: dict[str, str] = {}


class CacheDocument(Record):
    """What a folder holds. version: 1."""

    version: int
    entries: tuple[CacheEntry, ...]


def write(solver: "Solver", folder: str) -> None:
    """Write what this build's steps made, or found in the cache, into a folder. Raises Unavailable."""
    cache = solver.engine.step_cache
    keys = dict.fromkeys(solved.key for solved in solver.solved.values() if solved.key)
    records = [record for key in keys if (record := cache.get(key)) is not None]
    entries = tuple(CacheEntry(record=record, inputs=cache.inputs(record.key)) for record in records)
    document = jsonio.dump(CacheDocument(version=1, entries=entries).to_json())
    layers = {record.layer.digest: record.layer for record in records if record.layer is not None}
    try:
        os.makedirs(f"{folder}/blobs/sha256", exist_ok=True)
        config = _put(folder, document, CACHE_CONFIG)
        for digest in layers:
            _copy_blob(solver, digest, f"{folder}/blobs/sha256/{digest.hex}")
        manifest = Manifest(schema_version=2, media_type=OCI_MANIFEST, config=config, layers=tuple(layers.values()))
        described = _put(folder, jsonio.dump(manifest.to_json()), OCI_MANIFEST)
        _replace(f"{folder}/oci-layout", jsonio.dump(Layout(image_layout_version=LAYOUT_VERSION).to_json()))
        _replace(f"{folder}/index.json", jsonio.dump(Index(schema_version=2, manifests=(described,)).to_json()))
    except OSError as wrong:
        raise Unavailable("write", f"cache {folder}", wrong.strerror or str(wrong)) from None


def read(solver: "Solver", folder: str) -> None:
    """Add what a folder holds to the cache. What can't be used is told as a warning."""
    try:
        _read(solver, folder)
    except (OrlopError, OSError) as wrong:
        told = wrong.cause if isinstance(wrong, OrlopError) else wrong.strerror or str(wrong)
        solver.journal.tell({"warning": {"detail": f"the cache {folder} is not used: {told}"}})


def _read(solver: "Solver", folder: str) -> None:
    index = Index.from_json(jsonio.parse(_document(f"{folder}/index.json"), folder), folder)
    if len(index.manifests) != 1:
        raise Invalid("read", f"cache {folder}", "it is not one that a build has written")
    manifest = Manifest.from_json(jsonio.parse(_blob(folder, index.manifests[0]), folder), folder)
    if manifest.config.media_type != CACHE_CONFIG:
        raise Invalid("read", f"cache {folder}", "it is not one that a build has written")
    value = jsonio.parse(_blob(folder, manifest.config), folder, bytes_max=DOCUMENT_BYTES_MAX)
    for entry in CacheDocument.from_json(value, folder).entries:
        record = entry.record
        if solver.engine.step_cache.get(record.key) is not None or not _is_key(record.key):
            continue
        if record.layer is not None:
            solver.lease.add(record.layer.digest)
            with open(f"{folder}/blobs/sha256/{record.layer.digest.hex}", "rb", buffering=0) as blob:
                solver.engine.store.ingest(blob, record.layer)
        solver.engine.step_cache.put(record, entry.inputs)


def _is_key(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _document(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(DOCUMENT_BYTES_MAX + 1)
    except FileNotFoundError:
        raise NotFound("read", path, "there is no such folder of a cache") from None
    if len(data) > DOCUMENT_BYTES_MAX:
        raise Invalid("read", path, f"it has more than {DOCUMENT_BYTES_MAX} bytes")
    return data


def _blob(folder: str, descriptor: Descriptor) -> bytes:
    data = _document(f"{folder}/blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}")
    if Digest.of(data, descriptor.digest.algorithm) != descriptor.digest:
        raise Invalid("read", f"cache {folder}", f"the content of {descriptor.digest} is another")
    return data


def _put(folder: str, data: bytes, media_type: str) -> Descriptor:
    digest = Digest.of(data)
    _replace(f"{folder}/blobs/sha256/{digest.hex}", data)
    return Descriptor(media_type=media_type, digest=digest, size=len(data))


def _copy_blob(solver: "Solver", digest: Digest, path: str) -> None:
    if os.path.exists(path):
        return
    temporary = f"{path}.{os.urandom(4).hex()}"
    with solver.engine.store.open(digest) as source, open(temporary, "xb") as target:
        while data := source.read(COPY_BYTES):
            target.write(data)
    os.rename(temporary, path)


def _replace(path: str, data: bytes) -> None:
    temporary = f"{path}.{os.urandom(4).hex()}"
    with open(temporary, "xb") as file:
        file.write(data)
    os.rename(temporary, path)
