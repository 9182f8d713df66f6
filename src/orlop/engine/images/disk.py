"""`system df` and `system fsck`: what the data directory holds, to the last file, and what is wrong with it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..engine import Engine


def stored_bytes(engine: Engine) -> int:
    """Return what blobs and unpacked layers occupy."""
    blobs = sum(engine.store.stat(digest) or 0 for digest in engine.store.digests())
    return blobs + sum(engine.snapshots.layer_usage(chain).bytes for chain in engine.snapshots.unpacked())
