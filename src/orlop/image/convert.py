"""An image in another form: docker's media types or the OCI's, layers compressed otherwise. What is in it stays.

    layer          the same tar, compressed as it is wanted: the diff_id stays
    configuration  the very same bytes: the image's ID stays. Both forms have the same document
    manifest       the types of the form; docker's knows no annotations, and of an index nothing but platforms

eStargz is the exception: its layers have a table of contents in them, so the diff_ids, the configuration and the ID are
others. It needs annotations, which only the OCI's types have.

The same image in the same form is the same bytes, wherever and whenever.
Source: OCI image-spec, media-types.md ("Compatibility Matrix"); distribution, manifest-v2-2.md.
"""

from __future__ import annotations

from orlop.content.compression import Decompressed
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, NotFound, Unsupported
from orlop.spec.image import (
    CONFIGS,
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    INDEXES,
    LAYER_TYPES,
    MANIFESTS,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    parse_manifest,
)
from orlop.spec.jsonio import dump, parse_object
from orlop.spec.registry import ESTARGZ, GZIP, OCI, PLAIN, V2S2, ZSTD
from orlop.spec.tar.estargz import TOC_DIGEST

from .selection import ATTESTATION_OF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from typing import Protocol

    from orlop.content import Store
    from orlop.spec.registry import ImageForm

    Message = dict[str, object]

    class Compressor(Protocol):
        def compress(self, data: bytes, /) -> bytes: ...
        def flush(self) -> bytes: ...


READ_BYTES = 1024 * 1024
GZIP_LEVEL, ZSTD_LEVEL = 6, 3
TYPES = {compression or PLAIN: media_type for compression, media_type in LAYER_TYPES.items()}
_OF_OCI = {
    OCI_MANIFEST: DOCKER_MANIFEST,
    OCI_INDEX: DOCKER_INDEX,
    OCI_CONFIG: DOCKER_CONFIG,
    OCI_LAYER: DOCKER_LAYER,
    OCI_LAYER_GZIP: DOCKER_LAYER_GZIP,
}
_OF_DOCKER = {docker: oci for oci, docker in _OF_OCI.items()}


def of_oci(media_type: str) -> str:
    """Return the OCI's media type of the same thing."""
    return _OF_DOCKER.get(media_type, media_type)


def typed(descriptor: Descriptor, *, docker: bool) -> Descriptor:
    """Return a descriptor with the media type that belongs into an image of the OCI's or docker's types.

    Raises Unsupported for what docker's don't know.
    """
    kind = of_oci(descriptor.media_type)
    if docker and kind not in _OF_OCI:
        cause = f"a layer of it is {descriptor.media_type}, which docker's types don't know"
        raise Unsupported("convert", "the image", cause, hint="have its layers compressed with gzip")
    return descriptor.replace(media_type=_OF_OCI[kind] if docker else kind)


def compress(read: Callable[[int], bytes], write: Callable[[bytes], object], compression: str, level: int) -> None:
    """Write the bytes that read(n) returns up to b"", compressed. level below 0: the usual one. Raises Unsupported."""
    compressor = None if compression == PLAIN else _gzip(level) if compression == GZIP else _zstd(level)
    while data := read(READ_BYTES):
        write(compressor.compress(data) if compressor else data)
    if compressor:
        write(compressor.flush())


def repack(store: Store, layer: Descriptor, compression: str, level: int) -> Descriptor:
    """Return a layer's blob compressed anew, in the OCI's types. The caller holds a lease."""
    with store.open(layer.digest) as blob, store.writer() as ingest:
        stream = Decompressed(blob.read, f"layer {layer.digest}")
        compress(stream.read, ingest.write, compression, level)
        made = ingest.commit(media_type=TYPES[compression])
    return layer.replace(media_type=made.media_type, digest=made.digest, size=made.size, urls=(), data="")


class Conversion:
    """What gives an image of the store, and all that an index holds, another form. Its caller holds a lease."""

    def __init__(self, store: Store, form: ImageForm) -> None:
        self._store = store
        self._form = form
        self._layers: dict[Digest, Descriptor] = {}
        self._listed: dict[Digest, tuple[Descriptor, Digest]] = {}
        self._types = form.types or (OCI if form.compression == ESTARGZ else "")

    def run(self, target: Descriptor) -> Generator[Message, None, Descriptor]:
        """Return what the image is called in that form; yield docker's messages.

        Raises Unsupported for what the form doesn't know, Invalid, NotFound for a part that is not here.
        """
        subject = f"manifest {target.digest}"
        document = parse_manifest(self._store.get(target.digest), target.media_type, subject)
        if isinstance(document, Index):
            made: Manifest | Index = yield from self._index(document)
        else:
            made = yield from self._manifest(document, subject)
        kind = self._kind(target.media_type)
        if made == document and kind == target.media_type:
            return target
        if self._form.keep_digests:
            cause = f"it would become another one than {target.digest}, and its digest is to be kept"
            raise Invalid("convert", subject, cause, hint="leave --preserve-digests or the other form away")
        data = dump(made.replace(media_type=kind).to_json())
        written = self._store.ingest(data, Digest.of(data), kind)
        return target.replace(media_type=kind, digest=written.digest, size=written.size)

    def _kind(self, media_type: str) -> str:
        if not self._types:
            return media_type
        return _OF_OCI[of_oci(media_type)] if self._types == V2S2 else of_oci(media_type)

    def _index(self, index: Index) -> Generator[Message, None, Index]:
        made: list[Descriptor] = []
        became: dict[str, str] = {}
        for one in index.manifests:
            if one.media_type not in MANIFESTS and one.media_type not in INDEXES:
                raise Unsupported("convert", "the image", f"it lists a {one.media_type[:100]!r}")
            if self._store.stat(one.digest) is None:
                raise NotFound("convert", f"manifest {one.digest}", "the image for that platform is not here")
            made.append((yield from self.run(one)))
            became[one.digest] = made[-1].digest
        if self._types == V2S2:
            return Index(
                schema_version=2, manifests=tuple(one.replace(annotations={}, artifact_type="") for one in made)
            )
        return index.replace(manifests=tuple(_about(one, became) for one in made))

    def _manifest(self, manifest: Manifest, subject: str) -> Generator[Message, None, Manifest]:
        docker = self._types == V2S2
        if manifest.config.media_type not in CONFIGS:
            if docker:
                what = manifest.artifact_type or manifest.config.media_type
                raise Unsupported("convert", subject, f"docker's types know images only, and it is {what[:100]!r}")
            return manifest  # no layers of an image's: nothing of it has another form
        if self._form.compression == ESTARGZ and all(
            of_oci(one.media_type) in TYPES.values() for one in manifest.layers
        ):
            manifest = yield from self._with_tables(manifest)
            return manifest.replace(config=typed(manifest.config, docker=False))
        layers = []
        for layer in manifest.layers:
            layers.append((yield from self._layer(layer)))
        if not self._types:
            return manifest.replace(layers=tuple(layers))
        config, *layers = (typed(one, docker=docker) for one in (manifest.config, *layers))
        if not docker:
            return manifest.replace(config=config, layers=tuple(layers))
        bare = (one.replace(annotations={}, platform=None) for one in layers)
        return Manifest(schema_version=2, config=config.replace(annotations={}, platform=None), layers=tuple(bare))

    def _layer(self, layer: Descriptor) -> Generator[Message, None, Descriptor]:
        """Return a layer as it is to be compressed; one that has that form already stays as it is."""
        wanted = self._form.compression
        if (
            wanted == ESTARGZ or not wanted or of_oci(layer.media_type) not in TYPES.values()
        ):  # an attestation's are no archives
            return layer
        if of_oci(layer.media_type) == TYPES[wanted] and self._form.level < 0:
            return layer
        if layer.urls and self._store.stat(layer.digest) is None:
            raise Invalid("convert", f"layer {layer.digest}", "it lies where its urls lead, not here")
        if layer.digest not in self._layers:
            made = repack(self._store, layer, wanted, self._form.level)
            self._layers[layer.digest] = typed(made, docker=layer.media_type in _OF_DOCKER and wanted != ZSTD)
            yield {"status": "Converted", "progressDetail": {}, "id": layer.digest.short}
        return self._layers[layer.digest]

    def _with_tables(self, manifest: Manifest) -> Generator[Message, None, Manifest]:
        """Return an image whose layers can be read in part, with the configuration that belongs to them."""
        subject = f"configuration {manifest.config.digest}"
        config = parse_object(self._store.get(manifest.config.digest), subject)
        diff_ids = ImageConfig.from_json(config, subject).rootfs.diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise Invalid("convert", subject, "it names other layers than its manifest")
        made = []
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True):
            if layer.digest not in self._listed:
                self._listed[layer.digest] = with_table(self._store, layer, diff_id, self._form.level)
                yield {"status": "Converted", "progressDetail": {}, "id": self._listed[layer.digest][0].digest.short}
            made.append(self._listed[layer.digest])
        rootfs = config["rootfs"]
        assert isinstance(rootfs, dict)  # as read above
        config["rootfs"] = rootfs | {"diff_ids": [str(diff_id) for _, diff_id in made]}
        written = self._store.ingest(dump(config), media_type=manifest.config.media_type)
        described = manifest.config.replace(digest=written.digest, size=written.size, data="")
        return manifest.replace(config=described, layers=tuple(layer for layer, _ in made))


def with_table(store: Store, layer: Descriptor, diff_id: Digest, level: int) -> tuple[Descriptor, Digest]:
    """Return a layer as eStargz, and its diff_id; one that is so already stays. The caller holds a lease."""
    if TOC_DIGEST in layer.annotations and of_oci(layer.media_type) == OCI_LAYER_GZIP and level < 0:
        return typed(layer, docker=False), diff_id
    from .parts import estargz

    subject = f"layer {layer.digest}"
    with store.open(layer.digest) as blob, store.writer() as ingest:
        stream = Decompressed(blob.read, subject)
        new, toc = estargz.convert(stream.read, ingest.write, subject, level if level >= 0 else GZIP_LEVEL)
        made = ingest.commit(media_type=OCI_LAYER_GZIP)
    annotations = layer.annotations | {TOC_DIGEST: str(toc)}
    layer = layer.replace(digest=made.digest, size=made.size, annotations=annotations, urls=(), data="")
    return layer.replace(media_type=OCI_LAYER_GZIP), new


def _about(one: Descriptor, became: Mapping[str, str]) -> Descriptor:
    """Return the entry of an attestation with the new digest of the image that it is about."""
    told = one.annotations.get(ATTESTATION_OF, "")
    return one.replace(annotations={**one.annotations, ATTESTATION_OF: became[told]}) if told in became else one


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
