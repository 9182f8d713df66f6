"""Leases: what a running verb needs stays, although nothing in the index names it yet.

A pull or an import holds a lease from its first byte until its name is in the index; `image.collection` removes nothing
that is under a lease, or was at any moment since the collection began: it marked before that.

A lease lives in the engine's memory, and beside it in a file for other processes with the same store
(`orlop.content.neighbours`), which ends with the engine. What a killed engine's pull had stored is garbage then, and
the next pull finds it or the next collection takes it.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager

from .neighbours import Neighbours

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
        """Keep these, and what they are made of. To be called before looking whether they are there."""
        wanted = {*digests, *(one for digest in digests for one in self._leases.implied(digest))}
        with self._leases.lock:
            new = wanted - self.held
            self._leases.neighbours.note(new)
            self.held |= new


class Leases:
    """All leases of one store, and the one collection that may run. directory: what other processes are told in."""

    def __init__(self, directory: str) -> None:
        self.neighbours = Neighbours(directory)
        self.lock = threading.Lock()
        self._collecting = threading.Lock()
        self._active: set[Lease] = set()
        self._kept: set[Digest] | None = None  # what leases that ended since the collection began had held
        self._current = threading.local()
        self.implied: Callable[[Digest], Iterable[Digest]] = lambda digest: ()  # what a blob can't be without
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
                elif not self._active:
                    self.neighbours.forget()

    def committed(self, digest: Digest) -> None:
        """Note that this thread is about to make a blob visible."""
        lease: Lease | None = getattr(self._current, "lease", None)
        with self.lock:
            if lease is None or digest not in lease.held:
                self.neighbours.note((digest,))
            if lease is not None:
                lease.held.add(digest)
            elif self._kept is not None:
                self._kept.add(digest)  # without a lease it may go, but not by a collection that marked before it came
            elif not self._active:
                self.neighbours.forget()

    @contextmanager
    def collection(self) -> Iterator[Callable[[Digest, Callable[[], None]], bool]]:
        """Run a collection: yields `remove_unless_leased(digest, remove)`. Mark only after this has begun."""

        def remove_unless_leased(digest: Digest, remove: Callable[[], None]) -> bool:
            with self.lock:
                if digest in (self._kept or ()) or any(digest in lease.held for lease in self._active):
                    return False
                with self.neighbours.held() as is_theirs:
                    if is_theirs(digest):
                        return False
                    remove()
                return True

        with self._collecting, self.neighbours.collection():
            with self.lock:
                self._kept = set()
            try:
                yield remove_unless_leased
            finally:
                with self.lock:
                    self._kept = None
                    if not self._active:
                        self.neighbours.forget()

    def leased(self) -> Callable[[Digest], bool]:
        """Return what tells of a digest whether it is under a lease now."""
        with self.lock, self.neighbours.held() as is_theirs:
            ours = frozenset().union(*(lease.held for lease in self._active))
        return lambda digest: digest in ours or is_theirs(digest)
