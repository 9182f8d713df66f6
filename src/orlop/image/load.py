"""Images out of an archive: OCI layouts and docker's own form, plain or compressed, from any stream.

The archive is read once and nothing of it is ever a file under a name that it chose: each member becomes a blob under
its digest, and what one member says of another is looked up among the members (SEC-49: a manifest.json or layer that
is a link to a file of this host leads nowhere). Links between members, as docker's old archives have them, are followed
there.
Source: OCI image-spec, image-layout.md; moby's image/spec (v1.2), "Combined Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import posixpath

from orlop.content.compression import GZIP, NONE, Decompressed, detect
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid
from orlop.spec.image import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    INDEXES,
    LAYER_TYPES,
    MANIFESTS,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    REF_NAME,
    ArchivedImage,
    Descriptor,
    ImageConfig,
    Index,
    Layout,
    Manifest,
)
from orlop.spec.jsonio import dump, parse
from orlop.spec.reference import Reference
from orlop.spec.tar import DIRTYPE, LNKTYPE, REGTYPE, SYMTYPE, Limits, Reader, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from orlop.content import Store
    from orlop.content.leases import Lease
    from orlop.content.store import Readable

FULL_NAME = "io.containerd.image.name"
MEMBERS_MAX = 65_536
LINKS_MAX = 16
IMAGES_MAX = 4096
HEAD_BYTES = 16
_SUBJECT = "the archive"


class Loaded:
    """One image of an archive: its manifest or index, and the names that the archive gives it.

    ref_name: what a layout calls it, which need not be a name of an image.
    """

    def __init__(self, target: Descriptor, names: tuple[Reference, ...], ref_name: str = "") -> None:
        self.target = target
        self.names = names
        self.ref_name = ref_name


def load(store: Store, source: Readable, lease: Lease) -> list[Loaded]:
    """Store what an archive holds and return its images; nothing is named yet.

    Raises Invalid for a broken or hostile archive. What was stored then is under the lease only.
    """
    archive = _Archive(store, lease)
    archive.read(source)
    if archive.has("index.json") and archive.has("oci-layout"):
        return _from_layout(archive)
    if archive.has("manifest.json"):
        return [_from_docker(archive, entry) for entry in _entries(archive)]
    hint = "give what `orlop save`, `docker save` or `skopeo copy ... oci-archive:` wrote"
    raise Invalid("load", _SUBJECT, "it holds neither index.json nor manifest.json", hint=hint, code="E0808")


class _Archive:
    """The members of an archive, by name: files as blobs of the store, links as the names they lead to."""

    def __init__(self, store: Store, lease: Lease) -> None:
        self.store = store
        self.files: dict[str, Descriptor] = {}
        self._links: dict[str, str] = {}
        self._lease = lease

    def read(self, source: Readable) -> None:
        """Take in the whole archive."""
        stream = Decompressed(source.read, _SUBJECT)
        reader = Reader(stream.read, _SUBJECT, Limits(entries=MEMBERS_MAX))
        for member in reader:
            name = self._name(member.name)
            if member.kind == REGTYPE and member.extents is None:
                self._links.pop(name, None)
                self.files[name] = self._ingest(name, reader.data())
            elif member.kind == SYMTYPE:
                target = member.linkname.decode("utf-8", "replace")
                self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
            elif member.kind == LNKTYPE:
                self._links[name] = self._name(member.linkname)
            elif member.kind != DIRTYPE:
                raise Invalid("load", f"member {shown(member.name)} of {_SUBJECT}", "it is no file of an image")

    def has(self, name: str) -> bool:
        return name in self.files or name in self._links

    def find(self, name: str) -> Descriptor:
        """Return the file that a name leads to inside the archive. Raises Invalid."""
        at = posixpath.normpath(name)
        for _ in range(LINKS_MAX):
            if at in self.files:
                return self.files[at]
            if at not in self._links:
                break
            at = self._links[at]
        raise Invalid("load", _SUBJECT, f"it names {name[:200]!r}, which is not in it")

    def document(self, name: str) -> object:
        """Return a JSON file of the archive. Raises Invalid."""
        return parse(self.store.get(self.find(name).digest), f"{name[:100]} of {_SUBJECT}")

    def _name(self, raw: bytes) -> str:
        name = posixpath.normpath(raw.decode("utf-8", "replace"))
        if name.startswith(("/", "../")) or name == "..":
            raise Invalid("load", f"member {shown(raw)} of {_SUBJECT}", "its name leads out of the archive")
        return name

    def _ingest(self, name: str, data: Iterator[bytes]) -> Descriptor:
        expected = _digest_in(name)
        with self.store.writer(expected.algorithm if expected else "sha256") as ingest:
            for piece in data:
                ingest.write(piece)
            self._lease.add(ingest.digest)
            try:
                return ingest.commit(expected)
            except Invalid as wrong:
                raise Invalid("load", f"{name} of {_SUBJECT}", wrong.cause) from None


def _digest_in(name: str) -> Digest | None:
    """Return the digest that a blob of a layout is called by."""
    parts = name.split("/")
    if len(parts) == 3 and parts[0] == "blobs":
        return Digest(f"{parts[1]}:{parts[2]}")
    return None


# -- OCI layouts ------------------------------------------------------------------------------------------------------


def _from_layout(archive: _Archive) -> list[Loaded]:
    Layout.from_json(archive.document("oci-layout"), f"oci-layout of {_SUBJECT}")
    index = Index.from_json(archive.document("index.json"), f"index.json of {_SUBJECT}")
    if len(index.manifests) > IMAGES_MAX:
        raise Invalid("load", _SUBJECT, f"it has more than {IMAGES_MAX} images", code="E0212")
    found: dict[Digest, Loaded] = {}
    for descriptor in index.manifests:
        if descriptor.media_type not in MANIFESTS and descriptor.media_type not in INDEXES:
            continue
        if archive.store.stat(descriptor.digest) != descriptor.size:
            raise Invalid("load", _SUBJECT, f"manifest {descriptor.digest} is not in it, or has another size")
        target = descriptor.replace(annotations={}, platform=None)
        name = _name_of(descriptor)
        known = found.setdefault(target.digest, Loaded(target, (), descriptor.annotations.get(REF_NAME, "")))
        known.names = tuple(dict.fromkeys((*known.names, *((name,) if name else ()))))
    if archive.has("manifest.json"):
        _add_names(archive, list(found.values()))
    return list(found.values())


def _name_of(descriptor: Descriptor) -> Reference | None:
    """Return the name of an entry: containerd's full one, or a short one that is more than a tag."""
    for key in (FULL_NAME, REF_NAME):
        text = descriptor.annotations.get(key, "")
        if text and (key == FULL_NAME or "/" in text or ":" in text):
            return Reference.parse(text).tagged()
    return None


def _add_names(archive: _Archive, images: list[Loaded]) -> None:
    """Give images the names that manifest.json beside the layout has for their configurations."""
    by_config = {}
    for entry in _entries(archive):
        by_config[archive.find(entry.config).digest] = tuple(Reference.parse(tag).tagged() for tag in entry.repo_tags)
    for image in images:
        if image.target.media_type in MANIFESTS:
            subject = f"manifest {image.target.digest}"
            manifest = Manifest.from_json(parse(archive.store.get(image.target.digest), subject), subject)
            image.names = tuple(dict.fromkeys((*image.names, *by_config.get(manifest.config.digest, ()))))


# -- docker's archives ------------------------------------------------------------------------------------------------


def _entries(archive: _Archive) -> list[ArchivedImage]:
    subject = f"manifest.json of {_SUBJECT}"
    document = archive.document("manifest.json")
    if not isinstance(document, list) or len(document) > IMAGES_MAX:
        raise Invalid("load", subject, f"it is not a list of at most {IMAGES_MAX} images")
    return [ArchivedImage.from_json(entry, subject) for entry in document]


def _from_docker(archive: _Archive, entry: ArchivedImage) -> Loaded:
    """Make the manifest that docker's own form lacks; each layer must be what the configuration says it is."""
    store = archive.store
    blob = archive.find(entry.config)
    subject = f"configuration {blob.digest}"
    config = ImageConfig.from_json(parse(store.get(blob.digest), subject), subject)
    if len(config.rootfs.diff_ids) != len(entry.layers):
        told = f"it names {len(config.rootfs.diff_ids)} layers, manifest.json {len(entry.layers)}"
        raise Invalid("load", subject, told)
    layers = []
    for name, diff_id in zip(entry.layers, config.rootfs.diff_ids, strict=True):
        layer = archive.find(name)
        compression = _compression(store, layer.digest)
        if compression not in LAYER_TYPES:
            raise Invalid("load", f"layer {name[:100]!r} of {_SUBJECT}", f"{compression} is no compression of an image")
        if layer.digest != diff_id:
            _check_content(store, layer.digest, diff_id)
        layers.append(layer.replace(media_type=_docker_type(compression)))
    is_docker = all(layer.media_type != OCI_LAYER_ZSTD for layer in layers)
    manifest = Manifest(
        schema_version=2,
        media_type=DOCKER_MANIFEST if is_docker else OCI_MANIFEST,
        config=blob.replace(media_type=DOCKER_CONFIG if is_docker else OCI_CONFIG),
        layers=tuple(layers if is_docker else [_as_oci(layer) for layer in layers]),
    )
    target = store.ingest(dump(manifest.to_json()), media_type=manifest.media_type)
    return Loaded(target, tuple(Reference.parse(tag).tagged() for tag in entry.repo_tags))


def _docker_type(compression: str) -> str:
    return {NONE: DOCKER_LAYER, GZIP: DOCKER_LAYER_GZIP}.get(compression, OCI_LAYER_ZSTD)


def _as_oci(layer: Descriptor) -> Descriptor:
    types = {DOCKER_LAYER: OCI_LAYER, DOCKER_LAYER_GZIP: OCI_LAYER_GZIP}
    return layer.replace(media_type=types.get(layer.media_type, layer.media_type))


def _compression(store: Store, digest: Digest) -> str:
    with store.open(digest) as file:
        return detect(file.read(HEAD_BYTES))


def _check_content(store: Store, digest: Digest, diff_id: Digest) -> None:
    """Raise Invalid unless the blob's uncompressed content has this digest."""
    import hashlib

    found = hashlib.new(diff_id.algorithm)
    with store.open(digest) as file:
        stream = Decompressed(file.read, f"layer {digest}")
        while data := stream.read(1024 * 1024):
            found.update(data)
    if found.hexdigest() != diff_id.hex:
        told = f"its content has the diff_id {diff_id.algorithm}:{found.hexdigest()}, its configuration says {diff_id}"
        raise Invalid("load", f"layer {digest}", told, code="E0805")
