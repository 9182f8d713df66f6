"""The verbs of a registry on its repositories. Who may call them, and how that looks over HTTP, is not decided here.

Invariants:
1. A repository gives out only what it holds itself: a digest known from elsewhere opens nothing (a blob is uploaded, or
   mounted from a repository that the caller may read).
2. A manifest is accepted when all that it needs is there, and what it needs is kept for as long as it stays.
3. A tag, link or manifest that a caller was told of is durable.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time

from orlop.content import Store
from orlop.spec import jsonio
from orlop.spec.digest import Digest
from orlop.spec.distribution import Page, RegistryError
from orlop.spec.errors import Conflict, Invalid, OrlopError, Unavailable
from orlop.spec.image import INDEXES, OCI_INDEX, Descriptor, Index, parse_manifest
from orlop.spec.image import Manifest as ImageManifest

from . import sweep
from .database import Database
from .rules import Rules
from .sweep import Held
from .uploads import Awaiting, Lease, Leases, Upload, Uploads

TOUCH_S = 60.0  # so exactly is known when something was asked for last

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from collections.abc import Iterable

    from .sweep import Swept

MANIFEST_BYTES_MAX = jsonio.DOCUMENT_BYTES_MAX
MENTIONS_MAX = 10_000


class Manifest:
    """A manifest as it was pushed: its bytes, never written anew, so its digest stays. subject: "" or a digest."""

    __slots__ = ("data", "digest", "media_type", "subject")

    def __init__(self, digest: Digest, media_type: str, data: bytes, subject: str = "") -> None:
        self.digest = digest
        self.media_type = media_type
        self.data = data
        self.subject = subject


class Repositories:
    """The repositories below one root. Every verb raises RegistryError, and Unavailable for a broken disk."""

    def __init__(self, root: str, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        try:
            os.makedirs(root, 0o700, exist_ok=True)
            self._lock = os.open(f"{root}/lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as wrong:
            raise Unavailable("open", f"registry {root}", wrong.strerror or str(wrong)) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.store = Store(f"{root}/content")
            self._database = Database(f"{root}/repositories.db")
        except BlockingIOError:
            os.close(self._lock)
            hint = "stop that one, or name another directory with --root"
            raise Conflict("open", f"registry {root}", "another process serves it", hint=hint, code="E1202") from None
        except sqlite3.Error as wrong:
            os.close(self._lock)
            raise Unavailable("open", f"{root}/repositories.db", str(wrong)) from None
        except Unavailable:
            os.close(self._lock)
            raise
        self.uploads = Uploads(self.store, self.rules)
        self._leases = Leases()
        self._awaiting = Awaiting()

    def close(self) -> None:
        """Let go of the root. Uploads are given up."""
        self.uploads.close()
        self._database.close()
        os.close(self._lock)

    # -- blobs ------------------------------------------------------------------------------------------------------

    def open_blob(self, name: str, digest: Digest, *, looked_for: bool = False) -> io.FileIO:
        """Return a blob that the repository holds, open for reading; manifests are no blobs.

        Whoever asks may be about to push a manifest that needs it: the time until the sweep takes it begins anew.
        looked_for: only whether it is there was asked, as those do who push.
        """
        if looked_for:
            self._awaiting.add(name, digest)
        with self._database.connection() as connection:
            linked = connection.execute(
                "SELECT repository, linked_at FROM link JOIN repository ON id = repository"
                " WHERE name = ? AND digest = ?",
                (name, digest),
            ).fetchone()
        if linked is None:
            raise RegistryError("BLOB_UNKNOWN", digest)
        if time.time() - linked[1] > self.rules.unused_s / 2:
            with self._database.transaction() as connection:
                change = "UPDATE link SET linked_at = ? WHERE repository = ? AND digest = ?"
                connection.execute(change, (time.time(), linked[0], digest))
        try:
            return self.store.open(digest)
        except OrlopError:
            raise RegistryError("BLOB_UNKNOWN", digest) from None

    def finish(self, upload: Upload, digest: Digest) -> None:
        """Make an upload a blob of its repository. Raises RegistryError when it has another digest or is too much."""
        try:
            self._commit(upload, digest)
        finally:
            self.uploads.end(upload)

    def _commit(self, upload: Upload, digest: Digest) -> None:
        with self._leases.take(digest):
            self._check_quota(upload.repository, upload.size, digest)
            try:
                if digest.algorithm == upload.ingest.digest.algorithm:
                    upload.ingest.commit(digest)
                else:
                    with upload.ingest.reader() as content:
                        self.store.ingest(content, digest)
            except Invalid as wrong:
                raise RegistryError("DIGEST_INVALID", wrong.cause) from None
            with self._database.transaction() as connection:
                repository = _repository(connection, upload.repository)
                _link(connection, repository, digest, upload.size)
                self._awaiting.add(upload.repository, digest)

    def mount(self, name: str, digest: Digest, source: str) -> bool:
        """Let the repository hold a blob that `source` holds; tell whether it does."""
        with self._leases.take(digest), self._database.transaction() as connection:
            held = connection.execute(
                "SELECT size FROM link JOIN repository ON id = repository WHERE name = ? AND digest = ?",
                (source, digest),
            ).fetchone()
            if held is None or self.store.stat(digest) is None:
                return False
            self._check_quota(name, held[0], digest)
            _link(connection, _repository(connection, name), digest, held[0])
            self._awaiting.add(name, digest)
        return True

    def hold(self, name: str, digest: Digest, size: int) -> None:
        """Let the repository hold a blob of the store; the caller has leased it, and may give it out under the name."""
        with self._leases.take(digest), self._database.transaction() as connection:
            if self.store.stat(digest) != size:
                raise RegistryError("BLOB_UNKNOWN", digest)
            _link(connection, _repository(connection, name), digest, size)

    def leased(self, digest: Digest) -> Lease:
        """Return a context in which the sweep does not remove a blob."""
        return self._leases.take(digest)

    def touch(self, name: str, digest: Digest) -> None:
        """Note that a manifest was asked for: of a cache, what was not for longest goes first."""
        now = time.time()
        where = "digest = ? AND repository = (SELECT id FROM repository WHERE name = ?) AND pushed_at < ?"
        with self._database.connection() as connection:
            known = connection.execute(f"SELECT 1 FROM manifest WHERE {where}", (digest, name, now - TOUCH_S))
            is_old = known.fetchone() is not None
        if is_old:
            with self._database.transaction() as connection:
                connection.execute(
                    f"UPDATE manifest SET pushed_at = ? WHERE {where}", (now, digest, name, now - TOUCH_S)
                )

    @property
    def is_crowded(self) -> bool:
        """Whether more is held than may be: a sweep is due."""
        if not self.rules.total_bytes:
            return False
        with self._database.connection() as connection:
            return sweep.used_bytes(connection) > self.rules.total_bytes

    def mentioned(self, name: str, digest: Digest) -> Descriptor | None:
        """Return how a manifest of the repository describes a blob, None when none does."""
        with self._database.connection() as connection:
            row = connection.execute(
                "SELECT m.digest, m.media_type FROM mention JOIN repository ON id = mention.repository"
                " JOIN manifest m ON m.repository = id AND m.digest = mention.manifest"
                " WHERE name = ? AND mention.digest = ?",
                (name, digest),
            ).fetchone()
        if row is None:
            return None
        parsed = _parse(self.store.get(Digest(row[0]), MANIFEST_BYTES_MAX), row[1])
        parts = parsed.manifests if isinstance(parsed, Index) else (parsed.config, *parsed.layers)
        return next((part for part in parts if part.digest == digest), None)

    def delete_blob(self, name: str, digest: Digest) -> None:
        """Take a blob from a repository."""
        with self._database.transaction() as connection:
            gone = connection.execute(
                "DELETE FROM link WHERE digest = ? AND repository = (SELECT id FROM repository WHERE name = ?)",
                (digest, name),
            )
            if not gone.rowcount:
                raise RegistryError("BLOB_UNKNOWN", digest)

    # -- manifests --------------------------------------------------------------------------------------------------

    def put_manifest(self, name: str, reference: Digest | str, media_type: str, data: bytes) -> Manifest:
        """Take a manifest, under its digest and, where the reference is one, a tag."""
        return self._put_manifest(name, reference, media_type, data, complete=True)

    def keep_manifest(self, name: str, reference: Digest | str, media_type: str, data: bytes) -> Manifest:
        """Take a manifest from a registry whose cache this is: what it needs comes when somebody asks for it."""
        return self._put_manifest(name, reference, media_type, data, complete=False)

    def _put_manifest(
        self, name: str, reference: Digest | str, media_type: str, data: bytes, *, complete: bool
    ) -> Manifest:
        if len(data) > MANIFEST_BYTES_MAX:
            raise RegistryError("MANIFEST_INVALID", f"it has more than {MANIFEST_BYTES_MAX} bytes", 413)
        algorithm = reference.algorithm if isinstance(reference, Digest) else "sha256"
        digest = Digest.of(data, algorithm)
        if isinstance(reference, Digest) and reference != digest:
            raise RegistryError("DIGEST_INVALID", f"its digest is {digest}")
        parsed = _parse(data, media_type)
        needed = _mentions(parsed)
        with self._leases.take(digest, *needed):
            self._check_quota(name, len(data), digest)
            self.store.ingest(data, digest)
            with self._database.transaction() as connection:
                repository = _repository(connection, name)
                if complete:
                    self._check_complete(connection, repository, parsed)
                _save(connection, repository, digest, media_type, len(data), parsed)
                if not isinstance(reference, Digest):
                    connection.execute(
                        "INSERT INTO tag VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET digest = excluded.digest",
                        (repository, reference, digest),
                    )
        self._awaiting.came(name, needed)
        return Manifest(digest, media_type, data, str(parsed.subject.digest) if parsed.subject else "")

    def manifest(self, name: str, reference: Digest | str) -> Manifest:
        """Return the manifest of a digest or tag."""
        with self._database.connection() as connection:
            row = connection.execute(
                "SELECT m.digest, m.media_type FROM manifest m JOIN repository ON id = m.repository"
                " WHERE name = ? AND m.digest = CASE WHEN ? THEN ? ELSE"
                " (SELECT t.digest FROM tag t WHERE t.repository = id AND t.name = ?) END",
                (name, isinstance(reference, Digest), str(reference), str(reference)),
            ).fetchone()
        if row is None:
            raise RegistryError("MANIFEST_UNKNOWN", str(reference))
        digest = Digest(row[0])
        return Manifest(digest, row[1], self.store.get(digest, MANIFEST_BYTES_MAX))

    def delete_manifest(self, name: str, reference: Digest | str) -> None:
        """Remove a tag, or a manifest with all its tags."""
        table, column = ("manifest", "digest") if isinstance(reference, Digest) else ("tag", "name")
        with self._database.transaction() as connection:
            gone = connection.execute(
                f"DELETE FROM {table} WHERE {column} = ? AND repository = (SELECT id FROM repository WHERE name = ?)",
                (str(reference), name),
            )
            if not gone.rowcount:
                raise RegistryError("MANIFEST_UNKNOWN", str(reference))

    def referrers(self, name: str, digest: Digest, artifact_type: str = "") -> list[dict[str, object]]:
        """Return the descriptors of the manifests whose subject this digest is; none for one that nobody knows."""
        with self._database.connection() as connection:
            rows = connection.execute(
                "SELECT digest, media_type, size, artifact_type, annotations FROM manifest"
                " JOIN repository ON id = repository WHERE name = ? AND subject = ? ORDER BY pushed_at, digest",
                (name, digest),
            ).fetchall()
        found = []
        for referrer, media_type, size, kind, notes in rows:
            if artifact_type and kind != artifact_type:
                continue
            descriptor: dict[str, object] = {"mediaType": media_type, "digest": referrer, "size": size}
            if kind:
                descriptor["artifactType"] = kind
            if notes != "{}":
                descriptor["annotations"] = jsonio.parse(notes, f"the annotations of {referrer}")
            found.append(descriptor)
        return found

    # -- lists ------------------------------------------------------------------------------------------------------

    def names(self, page: Page) -> list[str]:
        """Return the repositories that hold something, by name."""
        with self._database.connection() as connection:
            rows = connection.execute(
                "SELECT name FROM repository WHERE name > ? AND (EXISTS (SELECT 1 FROM manifest WHERE repository = id)"
                " OR EXISTS (SELECT 1 FROM link WHERE repository = id)) ORDER BY name LIMIT ?",
                (page.last, page.limit + 1),
            )
            return [name for (name,) in rows]

    def tags(self, name: str, page: Page) -> list[str]:
        """Return a repository's tags, by name: one more than the page holds when there are more."""
        with self._database.connection() as connection:
            repository = connection.execute("SELECT id FROM repository WHERE name = ?", (name,)).fetchone()
            if repository is None:
                raise RegistryError("NAME_UNKNOWN", name)
            rows = connection.execute(
                "SELECT name FROM tag WHERE repository = ? AND name > ? ORDER BY name LIMIT ?",
                (*repository, page.last, page.limit + 1),
            )
            return [tag for (tag,) in rows]

    def used_bytes(self, name: str) -> int:
        """Return what counts against the quota: every blob and manifest of the repository once."""
        with self._database.connection() as connection:
            return _used_bytes(connection, name)

    def sweep(self) -> Swept:
        """Remove what nobody holds, while everybody goes on working."""
        self.uploads.expire()
        return sweep.sweep(self._database, self.store, Held(self._leases, self._awaiting), self.rules, time.time())

    # -- what is checked --------------------------------------------------------------------------------------------

    def _check_quota(self, name: str, more: int, digest: Digest) -> None:
        if not self.rules.quota_bytes:
            return
        with self._database.connection() as connection:
            if _holds(connection, name, digest):
                return
            used = _used_bytes(connection, name)
        if used + more > self.rules.quota_bytes:
            raise RegistryError(
                "DENIED", f"{name} holds {used} bytes; {more} more are over its quota of {self.rules.quota_bytes}"
            )

    def _check_complete(self, connection: sqlite3.Connection, repository: int, parsed: ImageManifest | Index) -> None:
        if isinstance(parsed, Index):
            table, wanted = "manifest", [child.digest for child in parsed.manifests]
        else:
            # A foreign layer lies where its URLs say, not here (image-spec, "Non-distributable layers").
            table, wanted = "link", [part.digest for part in (parsed.config, *parsed.layers) if not part.urls]
        for digest in wanted:
            query = f"SELECT 1 FROM {table} WHERE repository = ? AND digest = ?"
            if connection.execute(query, (repository, digest)).fetchone() is None:
                raise RegistryError("MANIFEST_BLOB_UNKNOWN", digest)


def _parse(data: bytes, media_type: str) -> ImageManifest | Index:
    try:
        parsed = parse_manifest(data, media_type, "the manifest")
    except Invalid as wrong:
        raise RegistryError("MANIFEST_INVALID", wrong.cause) from None
    parts = len(parsed.manifests) if isinstance(parsed, Index) else len(parsed.layers)
    if parts > MENTIONS_MAX:
        raise RegistryError("MANIFEST_INVALID", f"it mentions {parts} blobs, the limit is {MENTIONS_MAX}")
    return parsed


def _mentions(parsed: ImageManifest | Index) -> set[Digest]:
    parts = parsed.manifests if isinstance(parsed, Index) else (parsed.config, *parsed.layers)
    return {part.digest for part in parts}


def _repository(connection: sqlite3.Connection, name: str) -> int:
    connection.execute("INSERT INTO repository (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
    (number,) = connection.execute("SELECT id FROM repository WHERE name = ?", (name,)).fetchone()
    return int(number)


def _link(connection: sqlite3.Connection, repository: int, digest: Digest, size: int) -> None:
    connection.execute(
        "INSERT INTO link VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET linked_at = excluded.linked_at",
        (repository, digest, size, time.time()),
    )


def _save(
    connection: sqlite3.Connection,
    repository: int,
    digest: Digest,
    media_type: str,
    size: int,
    parsed: ImageManifest | Index,
) -> None:
    # distribution-spec, "Listing Referrers": an image manifest without artifactType is of its configuration's type.
    kind = parsed.artifact_type or ("" if isinstance(parsed, Index) else parsed.config.media_type)
    connection.execute(
        "INSERT INTO manifest VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET pushed_at = excluded.pushed_at",
        (
            repository,
            digest,
            media_type,
            size,
            str(parsed.subject.digest) if parsed.subject else "",
            kind,
            jsonio.dump(parsed.annotations).decode(),
            time.time(),
        ),
    )
    connection.executemany(
        "INSERT INTO mention VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [(repository, digest, needed) for needed in _mentions(parsed)],
    )


def _holds(connection: sqlite3.Connection, name: str, digest: Digest) -> bool:
    query = (
        "SELECT 1 FROM repository WHERE name = ? AND (EXISTS (SELECT 1 FROM link WHERE repository = id AND digest = ?)"
        " OR EXISTS (SELECT 1 FROM manifest WHERE repository = id AND digest = ?))"
    )
    return connection.execute(query, (name, digest, digest)).fetchone() is not None


def _used_bytes(connection: sqlite3.Connection, name: str) -> int:
    query = (
        "SELECT coalesce((SELECT sum(size) FROM link WHERE repository = id), 0)"
        " + coalesce((SELECT sum(size) FROM manifest WHERE repository = id), 0) FROM repository WHERE name = ?"
    )
    row = connection.execute(query, (name,)).fetchone()
    return int(row[0]) if row else 0


def index_of(descriptors: Iterable[dict[str, object]]) -> bytes:
    """Return the image index that lists these descriptors."""
    return jsonio.dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(descriptors)})


__all__ = ["INDEXES", "Manifest", "Repositories", "index_of"]
