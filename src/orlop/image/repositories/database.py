"""repositories.db: which repository holds which blob, manifest and tag. The blobs' bytes lie in the content store.

Every fact is a row; a transaction is durable when it returns (synchronous=FULL: a tag that a client was told of
survives a power failure). Readers never wait for a writer (write-ahead log). A disk that does not take a change, or
does not give what was written, is Unavailable to the caller.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from contextlib import contextmanager

from orlop.spec.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 1
BUSY_S = 30.0

_SCHEMA = """
CREATE TABLE repository (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE link (          -- the repository may give this blob to whoever may read it
    repository INTEGER NOT NULL REFERENCES repository, digest TEXT NOT NULL, size INTEGER NOT NULL,
    linked_at REAL NOT NULL,
    PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE TABLE manifest (
    repository INTEGER NOT NULL REFERENCES repository, digest TEXT NOT NULL, media_type TEXT NOT NULL,
    size INTEGER NOT NULL, subject TEXT NOT NULL, artifact_type TEXT NOT NULL, annotations TEXT NOT NULL,
    pushed_at REAL NOT NULL,
    PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE TABLE mention (       -- what a manifest needs: a blob, or another manifest
    repository INTEGER NOT NULL, manifest TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (repository, manifest, digest),
    FOREIGN KEY (repository, manifest) REFERENCES manifest ON DELETE CASCADE) WITHOUT ROWID;
CREATE TABLE tag (
    repository INTEGER NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (repository, name),
    FOREIGN KEY (repository, digest) REFERENCES manifest ON DELETE CASCADE) WITHOUT ROWID;
CREATE INDEX link_digest ON link (digest);
CREATE INDEX manifest_digest ON manifest (digest);
CREATE INDEX manifest_subject ON manifest (repository, subject);
CREATE INDEX mention_digest ON mention (repository, digest);
CREATE INDEX tag_digest ON tag (repository, digest);
"""


class Database:
    """Connections to one file, a free one for each who asks. Raises sqlite3.Error."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._free: list[sqlite3.Connection] = []
        with self.connection() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")
            if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                raise sqlite3.DatabaseError("it was made by another version")

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection for reading."""
        with self._guard:
            connection = self._free.pop() if self._free else None
        if connection is None:
            connection = sqlite3.connect(self._path, BUSY_S, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA synchronous=FULL")
        try:
            yield connection
        except sqlite3.OperationalError as wrong:
            connection.close()
            if wrong.sqlite_errorcode == sqlite3.SQLITE_FULL:
                hint = f"free some space below {os.path.dirname(self._path)}"
                raise Unavailable("write", self._path, os.strerror(errno.ENOSPC), hint=hint) from None
            raise Unavailable("use", self._path, str(wrong)) from None
        except BaseException:
            connection.close()
            raise
        with self._guard:
            self._free.append(connection)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection for a change, which is made whole and durable at the end, or not at all."""
        with self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close what is lent to nobody."""
        with self._guard:
            while self._free:
                self._free.pop().close()
