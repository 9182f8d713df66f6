"""What an image is made of, layer by layer, and how the file systems of two images differ."""

from __future__ import annotations

import os

from ...snapshot.compare import compare
from ...spec.errors import Unavailable
from .listing import find, layer_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...image.image import Image
    from ...spec.digest import Digest
    from ..engine import Engine


def tree(engine: Engine, name: str) -> dict[str, object]:
    """Return {"id", "names", "size", "layers": [{"id", "size", "names"}]}, the base layer first.

    size in bytes as unpacked, else as it was sent; names: of the images whose topmost layer it is. Raises NotFound.
    """
    image = find(engine, name)
    tops: dict[Digest | None, list[str]] = {}
    for one in engine.images.list():
        tops.setdefault(one.chain_id, []).extend(one.names or (one.id.short,))
    layers = [
        {"id": str(layer.diff_id), "size": layer_bytes(engine, layer), "names": sorted(tops.get(layer.chain_id, []))}
        for layer in image.layers
    ]
    return {"id": str(image.id), "names": list(image.names), "size": image.size, "layers": layers}


def diff(engine: Engine, old: str, new: str) -> list[dict[str, str]]:
    """Return [{"kind", "path"}] of what differs in new from old, by path. Raises NotFound, Unavailable."""
    with engine.store.leases.hold() as lease:
        trees = []
        for image in (find(engine, old), find(engine, new)):
            lease.add(*(layer.chain_id for layer in image.layers))
            trees.append(engine.snapshots.trees(_unpacked(engine, image)))
        try:
            found = sorted(compare(*trees), key=lambda change: change[1])
        except OSError as wrong:
            raise Unavailable("compare", f"images {old} and {new}", os.strerror(wrong.errno or 0)) from None
    return [{"kind": kind, "path": os.fsdecode(path)} for kind, path in found]


def last(engine: Engine, name: str) -> list[dict[str, str]]:
    """Return what an image's last layer changed, as `diff` has it. Raises NotFound, Unavailable."""
    image = find(engine, name)
    with engine.store.leases.hold() as lease:
        lease.add(*(layer.chain_id for layer in image.layers))
        whole = engine.snapshots.trees(_unpacked(engine, image))
        try:
            found = sorted(compare(whole[1:], whole), key=lambda change: change[1])
        except OSError as wrong:
            raise Unavailable("compare", f"image {name}", os.strerror(wrong.errno or 0)) from None
    return [{"kind": kind, "path": os.fsdecode(path)} for kind, path in found]


def _unpacked(engine: Engine, image: Image) -> Digest | None:
    return engine.snapshots.unpack(engine.images.layer_openers(image))
