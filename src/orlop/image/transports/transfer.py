"""An image out of a tree of files into our store, and back: every document and blob proven, every digest as it was."""

from __future__ import annotations

from orlop.spec.errors import Invalid, NotFound
from orlop.spec.image import INDEXES, MANIFESTS, Descriptor, Index, Manifest, parse_manifest

from ..selection import best_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from orlop.content import Store
    from orlop.content.leases import Lease
    from orlop.spec.platform import Platform

    from .directory import ImageDirectory
    from .layout import LayoutDirectory

    Message = dict[str, object]
    Place = LayoutDirectory | ImageDirectory

MANIFESTS_MAX = 4096
DEPTH_MAX = 4  # indexes in indexes


def choose(store: Store, target: Descriptor, platform: Platform) -> Descriptor:
    """Return the manifest that suits a platform, of an index that is here. Raises NotFound."""
    document = parse_manifest(store.get(target.digest), target.media_type, f"index {target.digest}")
    if isinstance(document, Manifest):
        return target
    return best_of(document, target, platform).replace(annotations={}, platform=None)


def best_of(index: Index, target: Descriptor, platform: Platform) -> Descriptor:
    """Return the entry of an index that suits a platform. Raises NotFound."""
    best = best_for(platform, [one for one in index.manifests if one.media_type in MANIFESTS])
    if best is None:
        named = ", ".join(sorted({str(one.platform) for one in index.manifests if one.platform})[:12])
        hint = f"it is made for {named or 'no platform that it names'}; choose one with --platform"
        raise NotFound(
            "copy", f"image {target.digest}", f"the image {target.digest} has nothing for {platform}", hint=hint
        )
    return best


class Taking:
    """One image on its way from a tree into the store. platform None: all of an index, attestations too."""

    def __init__(self, place: Place, store: Store, lease: Lease, platform: Platform | None) -> None:
        self._place = place
        self._store = store
        self._lease = lease
        self._platform = platform

    def run(self, target: Descriptor) -> Generator[Message, None, Descriptor]:
        """Take it in; yield docker's messages, return what is to be given on. Raises Invalid, NotFound."""
        return (yield from self._take(target, is_top=True, depth=0))

    def _take(self, target: Descriptor, *, is_top: bool, depth: int) -> Generator[Message, None, Descriptor]:
        subject = f"manifest {target.digest}"
        if depth > DEPTH_MAX:
            raise Invalid("copy", subject, f"it lies more than {DEPTH_MAX} indexes deep")
        self._lease.add(target.digest)
        data = self._place.document(self._place.place(target.digest, is_top=is_top, is_manifest=True))
        self._store.ingest(data, target)
        document = parse_manifest(data, target.media_type, subject)
        if isinstance(document, Manifest):
            yield from self._blobs(document)
            return target
        if len(document.manifests) > MANIFESTS_MAX:
            raise Invalid("copy", subject, f"it lists more than {MANIFESTS_MAX} manifests")
        if self._platform is not None:
            best = best_of(document, target, self._platform)
            yield from self._take(best, is_top=False, depth=depth + 1)
            return best.replace(annotations={}, platform=None)
        for child in document.manifests:
            if child.media_type in MANIFESTS or child.media_type in INDEXES:
                yield from self._take(child, is_top=False, depth=depth + 1)
        return target

    def _blobs(self, manifest: Manifest) -> Iterator[Message]:
        for blob in (manifest.config, *manifest.layers):
            if blob.urls and not self._place.has(self._place.place(blob.digest), blob.size):
                continue  # a foreign layer: it stays where its urls lead
            self._place.take(self._place.place(blob.digest), self._store, blob, self._lease)
            yield {"status": "Copied", "progressDetail": {}, "id": blob.digest.short}


def give(place: Place, store: Store, target: Descriptor) -> Iterator[dict[str, object]]:
    """Write an image into a tree, what it names first; yield docker's messages. Raises NotFound for a missing part."""
    yield from _give(place, store, target, is_top=True)


def give_parts(place: Place, store: Store, target: Descriptor) -> Iterator[dict[str, object]]:
    """The same of a manifest that is not the one that the tree is about."""
    yield from _give(place, store, target, is_top=False)


def _give(place: Place, store: Store, target: Descriptor, *, is_top: bool) -> Iterator[dict[str, object]]:
    data = store.get(target.digest)
    document = parse_manifest(data, target.media_type, f"manifest {target.digest}")
    if isinstance(document, Index):
        for child in document.manifests:
            if child.media_type in MANIFESTS or child.media_type in INDEXES:
                yield from _give(place, store, child, is_top=False)
    else:
        for blob in (document.config, *document.layers):
            if blob.urls and store.stat(blob.digest) is None:
                continue
            place.give(place.place(blob.digest), store, blob.digest)
            yield {"status": "Copied", "progressDetail": {}, "id": blob.digest.short}
    place.write(place.place(target.digest, is_top=is_top, is_manifest=True), data)
