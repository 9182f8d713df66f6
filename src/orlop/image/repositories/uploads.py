"""Blobs on their way into a registry. An upload lives in this process only: after a restart a client starts over."""

from __future__ import annotations

import secrets
import threading
import time

from orlop.spec.distribution import RegistryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from orlop.content import Ingest, Store
    from orlop.spec.digest import Digest

    from .rules import Rules

AWAITED_S = 600.0  # between a blob and the manifest that needs it, whatever the rules say about unused ones


class Upload:
    """One upload. Its lock is held while bytes come in; `size` is what has come."""

    def __init__(self, repository: str, ingest: Ingest) -> None:
        self.id = secrets.token_hex(16)
        self.repository = repository
        self.lock = threading.Lock()
        self.touched = time.monotonic()
        self.ingest = ingest

    @property
    def size(self) -> int:
        return self.ingest.size


class Uploads:
    """All uploads by their ids."""

    def __init__(self, store: Store, rules: Rules) -> None:
        self._store = store
        self._rules = rules
        self._guard = threading.Lock()
        self._uploads: dict[str, Upload] = {}

    def start(self, repository: str, algorithm: str = "sha256") -> Upload:
        """Return a new upload. Raises RegistryError when there are too many."""
        self.expire()
        with self._guard:
            if len(self._uploads) >= self._rules.uploads_max:
                raise RegistryError("TOOMANYREQUESTS", f"{len(self._uploads)} uploads are open")
            upload = Upload(repository, self._store.writer(algorithm))
            self._uploads[upload.id] = upload
        return upload

    def find(self, repository: str, upload_id: str) -> Upload:
        """Return the upload of that id in that repository. Raises RegistryError."""
        with self._guard:
            upload = self._uploads.get(upload_id)
        if upload is None or upload.repository != repository:
            raise RegistryError("BLOB_UPLOAD_UNKNOWN", upload_id[:64])
        upload.touched = time.monotonic()
        return upload

    def end(self, upload: Upload) -> None:
        """Forget an upload and what of it was not committed."""
        with self._guard:
            self._uploads.pop(upload.id, None)
        upload.ingest.close()

    def expire(self) -> None:
        """End the uploads that rest for too long."""
        limit = time.monotonic() - self._rules.upload_s
        with self._guard:
            resting = [upload for upload in self._uploads.values() if upload.touched < limit]
        for upload in resting:
            if upload.lock.acquire(blocking=False):
                try:
                    self.end(upload)
                finally:
                    upload.lock.release()

    def close(self) -> None:
        """End all uploads."""
        with self._guard:
            uploads = list(self._uploads.values())
        for upload in uploads:
            self.end(upload)


class Leases:
    """Digests that somebody is about to hold on to: the sweep leaves them, and a lease waits for its step to end."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._counts: dict[Digest, int] = {}

    def take(self, *digests: Digest) -> Lease:
        """Return a context in which the sweep removes none of these blobs."""
        return Lease(self, digests)

    def holds(self, digest: Digest) -> bool:
        """Tell whether somebody has a lease; the caller has `lock`."""
        return digest in self._counts

    def change(self, digests: tuple[Digest, ...], by: int) -> None:
        with self.lock:
            for digest in digests:
                count = self._counts.get(digest, 0) + by
                if count:
                    self._counts[digest] = count
                else:
                    del self._counts[digest]


class Awaiting:
    """Blobs that were pushed, mounted or looked for, whose manifest is yet to come: no rule takes them meanwhile."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[tuple[str, Digest], float] = {}

    def add(self, repository: str, digest: Digest) -> None:
        """Expect a manifest that needs a blob."""
        with self._lock:
            self._until[repository, digest] = time.time() + AWAITED_S

    def came(self, repository: str, digests: Iterable[Digest]) -> None:
        """Expect no more: a manifest holds them."""
        with self._lock:
            for digest in digests:
                self._until.pop((repository, digest), None)

    def now(self) -> frozenset[tuple[str, Digest]]:
        """Return what is expected now."""
        now = time.time()
        with self._lock:
            self._until = {key: until for key, until in self._until.items() if until > now}
            return frozenset(self._until)


class Lease:
    """A context in which the sweep removes none of some blobs."""

    def __init__(self, leases: Leases, digests: tuple[Digest, ...]) -> None:
        self._leases = leases
        self._digests = digests

    def __enter__(self) -> None:
        self._leases.change(self._digests, 1)

    def __exit__(self, *_: object) -> None:
        self._leases.change(self._digests, -1)
