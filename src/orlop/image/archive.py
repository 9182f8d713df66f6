"""An archive of a root file system becomes an image of one layer, as with `docker import`.

The blob is stored as it came where the OCI knows its form (plain, gzip, zstd), else uncompressed. It is accepted
only after it was read from the first to the last byte as the extractor will read it.
"""

from __future__ import annotations

from orlop.content.compression import Decompressed
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid
from orlop.spec.image import (
    LAYER_TYPES,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    History,
    ImageConfig,
    Manifest,
    RootFs,
)
from orlop.spec.jsonio import dump
from orlop.spec.tar import Reader
from orlop.spec.tar.writer import END_OF_ARCHIVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from orlop.content import Ingest, Store
    from orlop.content.store import Readable
    from orlop.spec.platform import Platform

ARCHIVE_BYTES_MAX = 64 * 1024**3
MESSAGE_DEFAULT = "Imported from -"
READ_BYTES = 1024 * 1024
_SUBJECT = "the archive"


def import_tar(store: Store, source: Readable, changes: Sequence[str], message: str, platform: Platform) -> Descriptor:
    """Store an archive as an image; return its manifest's descriptor. Raises Invalid, Unsupported, Unavailable."""
    from .changes import apply_changes

    config = apply_changes(changes)  # first: a mistake in them must not cost reading the archive
    layer, diff_id = _store_layer(store, source)
    comment = message or MESSAGE_DEFAULT
    created = _now()
    return write_image(
        store,
        (layer,),
        ImageConfig(
            created=created,
            architecture=platform.architecture,
            variant=platform.variant,
            os=platform.os,
            config=config,
            rootfs=RootFs(type="layers", diff_ids=(diff_id,)),
            history=(History(created=created, comment=comment),),
            comment=comment,
        ),
    )


def write_image(store: Store, layers: Sequence[Descriptor], config: ImageConfig) -> Descriptor:
    """Store configuration and manifest of an image with these layers; return the manifest's descriptor."""
    described = store.ingest(dump(config.to_json()), media_type=OCI_CONFIG)
    manifest = Manifest(schema_version=2, media_type=OCI_MANIFEST, config=described, layers=tuple(layers))
    return store.ingest(dump(manifest.to_json()), media_type=OCI_MANIFEST)


def _store_layer(store: Store, source: Readable) -> tuple[Descriptor, Digest]:
    with store.writer() as raw:
        while data := source.read(READ_BYTES):
            raw.write(data)
            if raw.size > ARCHIVE_BYTES_MAX:
                raise Invalid("import", _SUBJECT, f"it has more than {ARCHIVE_BYTES_MAX} bytes", code="E0212")
        if raw.size == 0:
            raw.write(END_OF_ARCHIVE)  # as docker: of nothing an image that has nothing, to be a base
        with raw.reader() as file:
            stream = Decompressed(file.read, _SUBJECT)
            if stream.compression in LAYER_TYPES:
                diff_id = _validate(stream, None)
                return raw.commit(media_type=LAYER_TYPES[stream.compression]), diff_id
            with store.writer() as plain:
                diff_id = _validate(stream, plain)
                return plain.commit(diff_id, OCI_LAYER), diff_id


def _validate(stream: Decompressed, copy: Ingest | None) -> Digest:
    """Read an archive as the extractor will; return the digest of its uncompressed bytes. They also go into copy."""
    import hashlib

    digest = hashlib.sha256()

    def read(count: int) -> bytes:
        data = stream.read(count)
        digest.update(data)
        if copy is not None:
            copy.write(data)
        return data

    for _ in Reader(read, _SUBJECT):
        pass
    return Digest("sha256:" + digest.hexdigest())


def _now() -> str:
    """Return the time as RFC 3339 with nanoseconds, UTC."""
    import time

    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"
