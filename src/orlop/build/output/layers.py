"""A layer in another form: compressed, uncompressed, or without times that are too late.

The same form of the same layer is the same blob, so registries that have one get it once.

$ORLOP_ROOT/build/packed/<hex>-<form>.json   which blob a layer became; worth nothing once that blob is gone
"""

from __future__ import annotations

import os

from orlop.content.compression import Decompressed
from orlop.image.convert import TYPES, of_oci, repack
from orlop.image.image import Layer
from orlop.spec import jsonio
from orlop.spec.errors import Invalid
from orlop.spec.image import OCI_LAYER, Descriptor
from orlop.spec.tar import Limits, Reader
from orlop.spec.tar.writer import END_OF_ARCHIVE, encode, padding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orlop.content import Store
    from orlop.engine.engine import Engine

    from .wanted import Form


LIMITS = Limits(entries=2**40, total_bytes=2**60)


def packed(engine: Engine, descriptor: Descriptor, form: Form) -> Descriptor:
    """Return a layer's blob compressed as a form has it. The caller holds a lease. Raises Unsupported, Unavailable."""
    wanted = TYPES[form.compression]
    if of_oci(descriptor.media_type) == wanted and form.level < 0:
        return descriptor
    place = f"{engine.paths.root}/build/packed"
    path = f"{place}/{descriptor.digest.hex}-{form.compression}{form.level}.json"
    if (known := _known(engine.store, path)) is not None:
        return known
    made = repack(engine.store, descriptor, form.compression, form.level)
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
