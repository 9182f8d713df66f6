"""Leases: what a running verb needs stays, although nothing in the index names it yet.

A pull or an import holds a lease from its first byte until its name is in the index; `image.collection` removes nothing
that is under a lease, or was at any moment since the collection began: it marked before that.

A lease lives in the engine's memory. What a killed engine's pull had stored is garbage then, and the next pull finds
it or the next collection takes it. One engine writes to one store, so there is nobody else to ask.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from orlop.spec.digest import Digest


class Lease:
    """Digests of blobs and ChainIDs of layers that stay until it is released."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self.held: set[Digest] = set()

    def add(self, *digests: Digest) -> None:
        """Keep these. To be called before looking whether they are there."""
        with self._leases.lock:
            self.held.update(digests)


class Leases:
    """All leases of one store, and the one collection that may run."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._collecting = threading.Lock()
        self._active: set[Lease] = set()
        self._kept: set[Digest] | None = None  # what leases that ended since the collection began had held
        self._current = threading.local()
        self.keepers: list[Callable[[], Iterable[Digest]]] = []  # who else keeps things: asked by each collection

    @contextmanager
    def hold(self) -> Iterator[Lease]:
        """Hold a lease; every blob that this thread commits meanwhile is added to it by itself."""
        lease = Lease(self)
        before = getattr(self._current, "lease", None)
        with self.lock:
            self._active.add(lease)
        self._current.lease = lease
        try:
            yield lease
        finally:
            self._current.lease = before
            with self.lock:
                self._active.discard(lease)
                if self._kept is not None:
                    self._kept |= lease.held

    def committed(self, digest: Digest) -> None:
        """Note that this thread is about to make a blob visible."""
        lease: Lease | None = getattr(self._current, "lease", None)
        with self.lock:
            if lease is not None:
                lease.held.add(digest)
            elif self._kept is not None:
                self._kept.add(digest)  # without a lease it may go, but not by a collection that marked before it came

    @contextmanager
    def collection(self) -> Iterator[Callable[[Digest, Callable[[], None]], bool]]:
        """Run a collection: yields `remove_unless_leased(digest, remove)`. Mark only after this has begun."""

        def remove_unless_leased(digest: Digest, remove: Callable[[], None]) -> bool:
            with self.lock:
                if digest in (self._kept or ()) or any(digest in lease.held for lease in self._active):
                    return False
                remove()
                return True

        with self._collecting:
            with self.lock:
                self._kept = set()
            try:
                yield remove_unless_leased
            finally:
                with self.lock:
                    self._kept = None

    def leased(self) -> Iterable[Digest]:
        """Return what is under a lease now."""
        with self.lock:
            return frozenset().union(*(lease.held for lease in self._active))
