"""The collection of what nobody holds, while the registry serves.

Three steps, each right by itself, so it may be cut short anywhere: manifests that nothing leads to lose their rows,
links that no manifest mentions lose theirs, files without a row are removed. The rows go first: a file without a row
is waste, a row without a file would be a lie. A writer leases a digest from before it looks for the file until its row
is written, and the last look and the removal of a file happen under the leases' lock.
"""

from __future__ import annotations

import os

from orlop.spec.digest import HEX_LENGTHS, Digest
from orlop.spec.errors import Invalid

from .rules import FOREVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from orlop.content import Store

    from .database import Database
    from .rules import Rules
    from .uploads import Leases


class Swept:
    """What a sweep removed: manifests, links, blobs (files) and their bytes."""

    __slots__ = ("blobs", "bytes", "links", "manifests")

    def __init__(self, manifests: int = 0, links: int = 0, blobs: int = 0, bytes: int = 0) -> None:
        self.manifests = manifests
        self.links = links
        self.blobs = blobs
        self.bytes = bytes


def sweep(database: Database, store: Store, leases: Leases, rules: Rules, now: float) -> Swept:
    """Remove what nobody holds. now: seconds since the epoch."""
    swept = Swept()
    if rules.untagged_s != FOREVER:
        # What an index or a subject held is free only when that is gone: from the top down.
        while count := _drop_untagged(database, now - rules.untagged_s):
            swept.manifests += count
    with database.transaction() as connection:
        swept.links = connection.execute(
            "DELETE FROM link WHERE linked_at <= ? AND NOT EXISTS"
            " (SELECT 1 FROM mention m WHERE m.repository = link.repository AND m.digest = link.digest)",
            (now - rules.unused_s,),
        ).rowcount
    for digest in _on_disk(store):
        # One at a time: whoever wants a lease waits for one look-up and one unlink.
        with database.connection() as connection, leases.lock:
            if leases.holds(digest) or _has_row(connection, digest):
                continue
            size = store.stat(digest) or 0
            store.remove(digest)
        swept.blobs += 1
        swept.bytes += size
    return swept


def _drop_untagged(database: Database, before: float) -> int:
    with database.transaction() as connection:
        return connection.execute(
            "DELETE FROM manifest WHERE pushed_at <= ?"
            " AND NOT EXISTS (SELECT 1 FROM tag t WHERE t.repository = manifest.repository"
            "                 AND t.digest = manifest.digest)"
            " AND NOT EXISTS (SELECT 1 FROM mention m WHERE m.repository = manifest.repository"
            "                 AND m.digest = manifest.digest)"
            " AND NOT EXISTS (SELECT 1 FROM manifest s WHERE s.repository = manifest.repository"
            "                 AND s.digest = manifest.subject)",
            (before,),
        ).rowcount


def _has_row(connection: sqlite3.Connection, digest: Digest) -> bool:
    query = (
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM link WHERE digest = ?)"
        " OR EXISTS (SELECT 1 FROM manifest WHERE digest = ?)"
    )
    return connection.execute(query, (digest, digest)).fetchone() is not None


def _on_disk(store: Store) -> Iterator[Digest]:
    for algorithm in HEX_LENGTHS:
        try:
            names = os.listdir(f"{store.root}/blobs/{algorithm}")
        except FileNotFoundError:
            continue
        for name in names:
            try:
                yield Digest(f"{algorithm}:{name}")
            except Invalid:
                continue
