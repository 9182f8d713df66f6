"""The collection of what nobody holds, while the registry serves.

Steps, each right by itself, so it may be cut short anywhere: tags that are too many go, and of a cache what was asked
for longest ago; manifests that nothing leads to lose their rows, links that no manifest mentions lose theirs, files
without a row are removed. The rows go first: a file without a row
is waste, a row without a file would be a lie. A writer leases a digest from before it looks for the file until its row
is written, and the last look and the removal of a file happen under the leases' lock.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase

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
    from .uploads import Awaiting, Leases


class Swept:
    """What a sweep removed: tags, manifests, links, blobs (files) and their bytes."""

    __slots__ = ("blobs", "bytes", "links", "manifests", "tags")

    def __init__(self, tags: int = 0, manifests: int = 0, links: int = 0, blobs: int = 0, bytes: int = 0) -> None:
        self.tags = tags
        self.manifests = manifests
        self.links = links
        self.blobs = blobs
        self.bytes = bytes


class Held:
    """What somebody is about to hold on to: files by their leases, links by the manifests that are on their way."""

    __slots__ = ("awaiting", "leases")

    def __init__(self, leases: Leases, awaiting: Awaiting) -> None:
        self.leases = leases
        self.awaiting = awaiting


def sweep(database: Database, store: Store, held: Held, rules: Rules, now: float) -> Swept:
    """Remove what nobody holds. now: seconds since the epoch."""
    swept = Swept()
    if rules.keep_last:
        swept.tags = _drop_old_tags(database, rules)
    if rules.untagged_s != FOREVER:
        # What an index or a subject held is free only when that is gone: from the top down.
        while count := _drop_untagged(database, now - rules.untagged_s):
            swept.manifests += count
    swept.links = _drop_unused(database, held, now - rules.unused_s)
    while rules.total_bytes and (count := _make_room(database, rules.total_bytes)):
        swept.manifests += count
    for digest in _on_disk(store):
        # One at a time: whoever wants a lease waits for one look-up and one unlink.
        with database.connection() as connection, held.leases.lock:
            if held.leases.holds(digest) or _has_row(connection, digest):
                continue
            size = store.stat(digest) or 0
            store.remove(digest)
        swept.blobs += 1
        swept.bytes += size
    return swept


def _drop_unused(database: Database, held: Held, before: float) -> int:
    """Remove links that no manifest mentions, but for those whose manifest is on its way."""
    with database.transaction() as connection:
        found = connection.execute(
            "SELECT repository.name, link.repository, link.digest FROM link JOIN repository ON id = link.repository"
            " WHERE linked_at <= ? AND NOT EXISTS"
            " (SELECT 1 FROM mention m WHERE m.repository = link.repository AND m.digest = link.digest)",
            (before,),
        ).fetchall()
        awaited = held.awaiting.now()  # behind the look: one that is linked later is not in it
        gone = [(repository, digest) for name, repository, digest in found if (name, digest) not in awaited]
        connection.executemany("DELETE FROM link WHERE repository = ? AND digest = ?", gone)
    return len(gone)


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


def _drop_old_tags(database: Database, rules: Rules) -> int:
    """Remove the tags that are one too many, the oldest of each repository."""
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT t.repository, t.name FROM tag t JOIN manifest m ON m.repository = t.repository"
            " AND m.digest = t.digest ORDER BY t.repository, m.pushed_at DESC, t.name DESC"
        ).fetchall()
    kept: dict[int, int] = {}
    gone = []
    for repository, name in rows:
        if any(fnmatchcase(name, pattern) for pattern in rules.keep_tags):
            continue
        kept[repository] = kept.get(repository, 0) + 1
        if kept[repository] > rules.keep_last:
            gone.append((repository, name))
    with database.transaction() as connection:
        connection.executemany("DELETE FROM tag WHERE repository = ? AND name = ?", gone)
    return len(gone)


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return what all repositories hold together, each blob and manifest once."""
    query = (
        "SELECT coalesce(sum(size), 0) FROM (SELECT digest, max(size) AS size FROM"
        " (SELECT digest, size FROM link UNION ALL SELECT digest, size FROM manifest) GROUP BY digest)"
    )
    return int(connection.execute(query).fetchone()[0])


def _make_room(database: Database, total_bytes: int) -> int:
    """Forget the manifest that was asked for longest ago, and what only it needed, where more is held than may be.

    Returns how many manifests went: 0 when there is room, or nothing left to forget.
    """
    with database.transaction() as connection:
        if used_bytes(connection) <= total_bytes:
            return 0
        oldest = connection.execute(
            "SELECT repository, digest FROM manifest WHERE NOT EXISTS (SELECT 1 FROM mention m"
            " WHERE m.repository = manifest.repository AND m.digest = manifest.digest) ORDER BY pushed_at LIMIT 1"
        ).fetchone()
        if oldest is None:
            return 0
        needed = connection.execute("SELECT digest FROM mention WHERE repository = ? AND manifest = ?", oldest)
        parts = [(oldest[0], digest, oldest[0], digest) for (digest,) in needed.fetchall()]
        connection.execute("DELETE FROM manifest WHERE repository = ? AND digest = ?", oldest)
        connection.executemany(
            "DELETE FROM link WHERE repository = ? AND digest = ?"
            " AND NOT EXISTS (SELECT 1 FROM mention m WHERE m.repository = ? AND m.digest = ?)",
            parts,
        )
    return 1


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
