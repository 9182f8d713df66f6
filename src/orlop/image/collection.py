"""What may go: blobs and unpacked layers that no image, no container and no lease needs.

    mark     from every entry of index.json down through indexes, manifests and configurations
    sweep    what is not marked and not leased, one by one, beside running pulls and builds

Invariants:
1. Marking begins after the collection has begun (`Leases.collection`): what becomes an image meanwhile was leased then.
2. A document that can't be read ends the collection: what it names is not known, so nothing may go.
"""

from __future__ import annotations

import functools

from orlop.spec.errors import Invalid, NotFound
from orlop.spec.image import CONFIGS, INDEXES, MANIFESTS, ImageConfig, Manifest, chain_ids, parse_manifest
from orlop.spec.jsonio import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from orlop.content import Store
    from orlop.spec.digest import Digest
    from orlop.spec.image import Descriptor

    class Layers(Protocol):
        """What is unpacked: `snapshot.Snapshots`."""

        def unpacked(self) -> dict[Digest, Digest]: ...
        def in_use(self) -> set[Digest]: ...
        def retire(self, chain_id: Digest, /) -> str: ...
        def dispose(self, path: str, /) -> None: ...


class Marked:
    """What is needed. blobs, and layers by ChainID; broken: documents that could not be read."""

    def __init__(self) -> None:
        self.blobs: set[Digest] = set()
        self.layers: set[Digest] = set()
        self.broken: list[str] = []


class Swept:
    """What a collection removed. size: bytes of the blobs."""

    def __init__(self) -> None:
        self.blobs: list[Digest] = []
        self.layers: list[Digest] = []
        self.size = 0


def mark(store: Store) -> Marked:
    """Return what the images of the index need."""
    marked = Marked()
    for _, target in store.names.entries():
        _mark(store, target, marked)
    return marked


def mark_kept(store: Store, marked: Marked) -> None:
    """Add what others than images need: what the cache of builds names."""
    for keeper in store.leases.keepers:
        kept = set(keeper())
        marked.blobs |= kept
        marked.layers |= kept


def reachable(store: Store, target: Descriptor) -> Marked:
    """Return what one image needs."""
    marked = Marked()
    _mark(store, target, marked)
    return marked


def needed_layers(layers: Layers, marked: Marked) -> set[Digest]:
    """Return which layers the marked images and the writable layers need.

    A tree with other owners is kept, for the next container of its map, as long as an image has the layer.
    """
    kept = {chain_id for chain_id, origin in layers.unpacked().items() if origin in marked.layers}
    return marked.layers | layers.in_use() | kept


def collect(store: Store, layers: Layers, candidates: Marked | None = None) -> Swept:
    """Remove what nobody needs; of candidates only, when given. Raises Invalid for a broken document, Unavailable."""
    swept = Swept()
    retired: list[str] = []
    with store.leases.collection() as remove_unless_leased:
        marked = mark(store)
        if marked.broken:
            hint = "`orlop system fsck --repair` removes images that can't be read"
            raise Invalid("collect", "images", marked.broken[0], hint=hint)
        marked.layers |= needed_layers(layers, marked)
        mark_kept(store, marked)
        for chain_id, origin in layers.unpacked().items():
            if chain_id in marked.layers:
                continue
            wanted = candidates is None or origin in candidates.layers
            if wanted and remove_unless_leased(origin, _retirement(layers, chain_id, retired)):
                swept.layers.append(chain_id)
        for digest in set(store.digests()) - marked.blobs:
            size = store.stat(digest) or 0
            wanted = candidates is None or digest in candidates.blobs
            if wanted and remove_unless_leased(digest, functools.partial(store.remove, digest)):
                swept.blobs.append(digest)
                swept.size += size
    for path in retired:
        layers.dispose(path)
    return swept


def _retirement(layers: Layers, chain_id: Digest, retired: list[str]) -> Callable[[], None]:
    """Return what takes a layer out of sight: its tree is removed later, when no lease has to wait for that."""
    return lambda: retired.append(layers.retire(chain_id))


def _mark(store: Store, descriptor: Descriptor, marked: Marked) -> None:
    if descriptor.digest in marked.blobs:
        return
    marked.blobs.add(descriptor.digest)
    if descriptor.media_type not in MANIFESTS and descriptor.media_type not in INDEXES:
        return
    try:
        data = store.get(descriptor.digest)
    except NotFound:
        return  # of an index often only the image of this platform is here
    except Invalid as wrong:
        marked.broken.append(str(wrong))
        return
    try:
        document = parse_manifest(data, descriptor.media_type, f"manifest {descriptor.digest}")
    except Invalid as wrong:
        marked.broken.append(str(wrong))
        return
    if isinstance(document, Manifest):
        _mark_image(store, document, marked)
        return
    for child in document.manifests:
        _mark(store, child, marked)


def _mark_image(store: Store, manifest: Manifest, marked: Marked) -> None:
    marked.blobs.add(manifest.config.digest)
    marked.blobs |= {layer.digest for layer in manifest.layers}
    for layer in manifest.layers:
        marked.layers |= set(store.recipes.chain(layer.digest))
    if manifest.config.media_type not in CONFIGS:
        return
    subject = f"configuration {manifest.config.digest}"
    try:
        config = ImageConfig.from_json(parse(store.get(manifest.config.digest), subject), subject)
    except NotFound:
        return
    except Invalid as wrong:
        marked.broken.append(str(wrong))
        return
    marked.layers |= set(chain_ids(config.rootfs.diff_ids))
