"""Images into one archive that everybody reads: an OCI layout with docker's manifest.json beside it.

    oci-layout  index.json  blobs/sha256/<hex> ...      what skopeo's oci-archive:, podman and containerd read
    manifest.json                                       what docker's older versions and docker-archive: read
    repositories                                        names alone: docker's first form, which it still writes

Blobs go as they lie in the store, so all digests stay. The same images give the same bytes.
Source: OCI image-spec, image-layout.md; moby's image/spec (v1.2) for manifest.json.
"""

from __future__ import annotations

import os

from orlop.spec.errors import Unavailable
from orlop.spec.image import (
    INDEXES,
    LAYOUT_VERSION,
    MANIFESTS,
    OCI_INDEX,
    REF_NAME,
    Descriptor,
    Index,
    Layout,
    parse_manifest,
)
from orlop.spec.jsonio import dump
from orlop.spec.tar import DIRTYPE, Member
from orlop.spec.tar.writer import END_OF_ARCHIVE, encode, padding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orlop.content import Store
    from orlop.spec.digest import Digest
    from orlop.spec.reference import Reference

    from .image import Image

SEND_BYTES = 8 * 1024 * 1024
FULL_NAME = "io.containerd.image.name"


class Saved:
    """One image to be saved. names: under which it is to come back; target: the manifest or index that is written.

    image: what docker's manifest.json is to say of it; None leaves it out there. ref_name: what the layout calls an
    image without names.
    """

    __slots__ = ("image", "names", "ref_name", "target")

    def __init__(self, image: Image | None, names: Sequence[Reference], target: Descriptor, ref_name: str = "") -> None:
        self.image = image
        self.names = tuple(names)
        self.target = target
        self.ref_name = ref_name


def whole_target(store: Store, image: Image) -> Descriptor:
    """Return what of an image can be given away: all that its name means, or the one manifest that is here of it."""
    if image.target.media_type in INDEXES:
        document = parse_manifest(store.get(image.target.digest), image.target.media_type, "the index")
        if isinstance(document, Index) and any(store.stat(one.digest) is None for one in document.manifests):
            return image.manifest.replace(annotations={}, platform=None)
    return image.target


def write_archive(store: Store, images: Sequence[Saved], output: int) -> None:
    """Write the archive to a descriptor. Raises NotFound for a missing blob, Unavailable for a disk."""
    try:
        _write(output, Member(b"blobs/", DIRTYPE, 0o755))
        _write(output, Member(b"blobs/sha256/", DIRTYPE, 0o755))
        for digest in sorted(_blobs(store, [saved.target for saved in images])):
            _write_blob(store, digest, output)
        _write_file(output, b"index.json", dump(_index(images).to_json()))
        distinct = _distinct(images)
        if distinct:
            _write_file(output, b"manifest.json", dump([_docker_entry(image, names) for image, names in distinct]))
        _write_file(output, b"oci-layout", dump(Layout(image_layout_version=LAYOUT_VERSION).to_json()))
        if repositories := _repositories(distinct):
            _write_file(output, b"repositories", dump(repositories) + b"\n")
        _write_all(output, END_OF_ARCHIVE)
    except OSError as wrong:
        raise Unavailable("save", "images", os.strerror(wrong.errno or 0), hint="look at where it is written") from None


def blobs_of(store: Store, target: Descriptor) -> set[Digest]:
    """Return the digests of all that a manifest or index consists of."""
    return _blobs(store, [target])


def _blobs(store: Store, targets: Iterable[Descriptor]) -> set[Digest]:
    found: set[Digest] = set()
    pending = list(targets)
    while pending:
        one = pending.pop()
        if one.digest in found:
            continue
        found.add(one.digest)
        if one.media_type in MANIFESTS or one.media_type in INDEXES:
            document = parse_manifest(store.get(one.digest), one.media_type, f"manifest {one.digest}")
            if isinstance(document, Index):
                pending += document.manifests
            else:
                pending += [document.config, *(layer for layer in document.layers if _is_here(store, layer))]
    return found


def _is_here(store: Store, layer: Descriptor) -> bool:
    """Say whether a layer is to be written: a foreign one, which only its urls have, is not."""
    return not layer.urls or store.stat(layer.digest) is not None


def _index(images: Sequence[Saved]) -> Index:
    entries = []
    for saved in images:
        for name in saved.names or (None,):
            named = {REF_NAME: saved.ref_name} if saved.ref_name else {}
            if name is not None:
                named = {REF_NAME: name.tag or name.familiar, FULL_NAME: str(name)}
            entries.append(saved.target.replace(annotations={**saved.target.annotations, **named}))
    return Index(schema_version=2, media_type=OCI_INDEX, manifests=tuple(entries))


def _distinct(images: Sequence[Saved]) -> list[tuple[Image, tuple[Reference, ...]]]:
    """Return the images with all names of one in one entry, as manifest.json has them."""
    by_id: dict[Digest, tuple[Image, tuple[Reference, ...]]] = {}
    for saved in images:
        if saved.image is not None:
            _, names = by_id.get(saved.image.id, (None, ()))
            by_id[saved.image.id] = saved.image, tuple(dict.fromkeys((*names, *saved.names)))
    return list(by_id.values())


def _docker_entry(image: Image, names: Sequence[Reference]) -> dict[str, object]:
    return {
        "Config": _place(image.id),
        "RepoTags": [name.familiar for name in names if name.tag],
        "Layers": [_place(layer.descriptor.digest) for layer in image.layers],
    }


def _repositories(images: Iterable[tuple[Image, Sequence[Reference]]]) -> dict[str, dict[str, str]]:
    """Return {repository: {tag: the topmost layer}}, the layer by its blob's digits, as docker does."""
    found: dict[str, dict[str, str]] = {}
    for image, names in images:
        for name in names:
            if name.tag and image.layers:
                found.setdefault(name.familiar_name, {})[name.tag] = image.layers[-1].descriptor.digest.hex
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}


def _place(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _write_blob(store: Store, digest: Digest, output: int) -> None:
    with store.open(digest) as blob:
        size = os.fstat(blob.fileno()).st_size
        _write(output, Member(_place(digest).encode(), mode=0o644, size=size))
        offset = 0
        while offset < size:
            sent = os.sendfile(output, blob.fileno(), offset, min(SEND_BYTES, size - offset))
            if not sent:
                raise Unavailable("save", f"blob {digest}", "its file ended early")
            offset += sent
        _write_all(output, padding(size))


def _write_file(output: int, name: bytes, data: bytes) -> None:
    _write(output, Member(name, mode=0o644, size=len(data)))
    _write_all(output, data + padding(len(data)))


def _write(output: int, member: Member) -> None:
    _write_all(output, encode(member))


def _write_all(output: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(output, view) :]
