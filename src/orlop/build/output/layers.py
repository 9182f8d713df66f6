"""A layer in another form: compressed, uncompressed, or without times that are too late.

The same form of the same layer is the same blob, so registries that have one get it once.

$ORLOP_ROOT/build/packed/<hex>-<form>.json   which blob a layer became; worth nothing once that blob is gone
"""

from __future__ import annotations

import os

from orlop.content.compression import Decompressed
from orlop.image.image import Layer
from orlop.spec import jsonio
from orlop.spec.errors import Invalid, Unsupported
from orlop.spec.image import (
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    Descriptor,
)
from orlop.spec.tar import Limits, Reader
from orlop.spec.tar.writer import END_OF_ARCHIVE, encode, padding

from .wanted import GZIP, PLAIN, ZSTD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from orlop.content import Store
    from orlop.engine.engine import Engine

    from .wanted import Form

    class Compressor(Protocol):
        def compress(self, data: bytes, /) -> bytes: ...
        def flush(self) -> bytes: ...


READ_BYTES = 1024 * 1024
GZIP_LEVEL, ZSTD_LEVEL = 6, 3
LIMITS = Limits(entries=2**40, total_bytes=2**60)
_TYPES = {PLAIN: OCI_LAYER, GZIP: OCI_LAYER_GZIP, ZSTD: OCI_LAYER_ZSTD}
_OF_OCI = {OCI_LAYER: DOCKER_LAYER, OCI_LAYER_GZIP: DOCKER_LAYER_GZIP}
_OF_DOCKER = {docker: oci for oci, docker in _OF_OCI.items()}


def typed(descriptor: Descriptor, *, docker: bool) -> Descriptor:
    """Return a layer's descriptor with the media type that belongs into an image of the OCI's or docker's types."""
    if not docker:
        return descriptor.replace(media_type=_OF_DOCKER.get(descriptor.media_type, descriptor.media_type))
    kind = _OF_OCI.get(descriptor.media_type, descriptor.media_type)
    if kind not in _OF_DOCKER:
        cause = f"a layer of its base is {descriptor.media_type}, which docker's types don't know"
        raise Unsupported("export", "the image", cause, hint="force-compression=true,compression=gzip")
    return descriptor.replace(media_type=kind)


def packed(engine: Engine, descriptor: Descriptor, form: Form) -> Descriptor:
    """Return a layer's blob compressed as a form has it. The caller holds a lease. Raises Unsupported, Unavailable."""
    wanted = _TYPES[form.compression]
    if _OF_DOCKER.get(descriptor.media_type, descriptor.media_type) == wanted and form.level < 0:
        return descriptor
    place = f"{engine.paths.root}/build/packed"
    path = f"{place}/{descriptor.digest.hex}-{form.compression}{form.level}.json"
    if (known := _known(engine.store, path)) is not None:
        return known
    with engine.store.open(descriptor.digest) as blob, engine.store.writer() as ingest:
        stream = Decompressed(blob.read, "a layer")
        _compress(stream.read, ingest.write, form)
        made = ingest.commit(media_type=wanted)
    os.makedirs(place, 0o700, exist_ok=True)
    temporary = f"{path}.{os.urandom(4).hex()}"
    with open(temporary, "xb") as file:
        file.write(jsonio.dump(made.to_json()))
    os.rename(temporary, path)
    return made


def bounded(engine: Engine, layer: Layer, mtime_max_ns: int) -> Layer:
    """Return a layer, uncompressed, in which no file is later than mtime_max_ns. Its ChainID is not made anew."""
    changed = False
    with engine.store.open(layer.descriptor.digest) as blob, engine.store.writer() as ingest:
        reader = Reader(Decompressed(blob.read, "a layer").read, "a layer", LIMITS)
        for member in reader:
            if member.mtime_ns > mtime_max_ns:
                member.mtime_ns = mtime_max_ns
                changed = True
            ingest.write(encode(member))
            for piece in reader.data():
                ingest.write(piece)
            ingest.write(padding(member.stored))
        ingest.write(END_OF_ARCHIVE)
        if not changed:
            return layer
        made = ingest.commit(media_type=OCI_LAYER)
    return layer.replace(descriptor=made, diff_id=made.digest)


def _known(store: Store, path: str) -> Descriptor | None:
    try:
        with open(path, "rb") as file:
            found = Descriptor.from_json(jsonio.parse(file.read(65536), path), path)
    except (OSError, Invalid):
        return None
    store.leases.committed(found.digest)  # first: a collection that comes now sees it held
    return found if store.stat(found.digest) == found.size else None


def _compress(read: Callable[[int], bytes], write: Callable[[bytes], object], form: Form) -> None:
    if form.compression == PLAIN:
        for data in _pieces(read):
            write(data)
        return
    compressor = _gzip(form.level) if form.compression == GZIP else _zstd(form.level)
    for data in _pieces(read):
        write(compressor.compress(data))
    write(compressor.flush())


def _pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while data := read(READ_BYTES):
        yield data


def _gzip(level: int) -> Compressor:
    import zlib

    # The header that zlib writes by itself says nothing of a time or a name (RFC 1952, MTIME 0).
    return zlib.compressobj(level if level >= 0 else GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)


def _zstd(level: int) -> Compressor:
    from orlop.linux import zstd

    try:
        return zstd.Compressor(zstd.load(), level if level > 0 else ZSTD_LEVEL)
    except OSError:
        cause = "there is no libzstd.so.1 on this machine"
        raise Unsupported("export", "layers with zstd", cause, hint="install libzstd1, or use gzip") from None
