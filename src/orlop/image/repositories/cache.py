"""Another registry's repositories, kept here as they are asked for: a pull-through cache.

    manifest by digest   from here if it is here, else from the other one
    manifest by tag      what the other one says now; while it can't be reached what it said last
    blob                 from here, else fetched once for all who ask, handed on while it comes

Invariants:
1. Nothing is kept, and nothing is handed on to its last byte, that has not the digest it was asked for by.
2. A repository gives out what the other registry gives out under the same name: a blob that is here already counts only
   if a manifest of this repository mentions it, or the other registry says so.
3. What was got of a blob when the connection or we died is gone on with.
"""

from __future__ import annotations

import threading
import time

from orlop.spec.digest import Digest
from orlop.spec.distribution import RegistryError
from orlop.spec.errors import Denied, Invalid, NotFound, OrlopError, Unavailable
from orlop.spec.image import Descriptor

from ..download import Downloads
from ..registry import Patience

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    from orlop.spec.distribution import Page

    from ..download import Download
    from ..registry import Repository
    from .repositories import Manifest, Repositories
    from .uploads import Lease

    Places = Callable[[str], Sequence[Repository]]
    T = TypeVar("T")

TRIES = 2
DOWN_S = 5.0  # so long nobody is made to wait again for a registry that could not be reached
READ_BYTES = 256 * 1024


class Arriving:
    """A blob that is not here yet. size in bytes; `pieces` yields it, the last piece once all of it is proven."""

    def __init__(self, cache: Cache, name: str, descriptor: Descriptor, places: Sequence[Repository]) -> None:
        self.size = descriptor.size
        self._cache = cache
        self._name = name
        self._descriptor = descriptor
        self._places = places

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from start to end. Raises what made the download fail."""
        with self._cache.leased(self._descriptor.digest):
            download = self._cache.downloads.start(self._descriptor, self._places)
            try:
                yield from self._follow(download, start, end)
                self._cache.keep(self._name, self._descriptor, download)
            finally:
                self._cache.downloads.release(download)

    def _follow(self, download: Download, start: int, end: int) -> Iterator[bytes]:
        reader = download.reader()
        try:
            position = 0
            while position < end and (data := reader.read(READ_BYTES)):
                position += len(data)
                if position >= end:
                    download.wait(self._cache.closing)
                begin = position - len(data)
                piece = data[max(start - begin, 0) : end - begin]
                if piece:
                    yield piece
        finally:
            reader.close()


class Cache:
    """What `Repositories` holds of another registry, completed as it is asked for.

    places: the ways to a repository of the other registry, by its name here. host names that registry. crowded: called
    when more is held than the rules say.
    """

    def __init__(self, repositories: Repositories, host: str, places: Places, crowded: Callable[[], None]) -> None:
        self.host = host
        self._crowded = crowded
        self.downloads = Downloads(repositories.store)
        self.closing = threading.Event()
        self._repositories = repositories
        self._places = places
        self._down_until = 0.0

    def manifest(self, name: str, reference: Digest | str) -> tuple[Manifest, bool]:
        """Return a manifest, and whether it may be an old one because the other registry can't be reached."""
        if isinstance(reference, Digest):
            try:
                known = self._repositories.manifest(name, reference)
            except RegistryError:
                pass
            else:
                self._repositories.touch(name, reference)
                return known, False
        try:
            return self._fetch(name, reference), False
        except Unavailable as wrong:
            try:
                return self._repositories.manifest(name, reference), True
            except RegistryError:
                raise RegistryError("UNAVAILABLE", wrong.cause) from None

    def blob(self, name: str, digest: Digest) -> io.FileIO | Arriving:
        """Return a blob, open, or as it arrives. Raises RegistryError."""
        try:
            return self._repositories.open_blob(name, digest)
        except RegistryError:
            pass
        descriptor = self._repositories.mentioned(name, digest)
        places = self._places(name)
        if descriptor is None:
            descriptor = self._ask(lambda: _described(places, digest), "BLOB_UNKNOWN", digest)
        elif self._repositories.store.stat(digest) == descriptor.size:
            self._repositories.hold(name, digest, descriptor.size)
            return self._repositories.open_blob(name, digest)
        return Arriving(self, name, descriptor, places)

    def tags(self, name: str, page: Page) -> list[str]:
        """Return the other registry's tags of a repository, by name; those known here while it can't be reached."""
        try:
            tags = self._ask(lambda: list(self._places(name)[-1].tags(self._patience())), "NAME_UNKNOWN", name)
        except Unavailable:
            return self._repositories.tags(name, page)
        return [tag for tag in sorted(tags) if tag > page.last][: page.limit + 1]

    def referrers(self, name: str, digest: Digest, artifact_type: str = "") -> list[dict[str, object]]:
        """Return the descriptors of what refers to a manifest, as `Repositories.referrers` does."""
        try:
            found = self._ask(
                lambda: self._places(name)[-1].referrers(digest, self._patience()), "MANIFEST_UNKNOWN", digest
            )
        except (Unavailable, RegistryError):
            return self._repositories.referrers(name, digest, artifact_type)
        return [one.to_json() for one in found if artifact_type in ("", one.artifact_type)]

    def leased(self, digest: Digest) -> Lease:
        """Return a context in which the sweep does not remove a blob."""
        return self._repositories.leased(digest)

    def keep(self, name: str, descriptor: Descriptor, download: Download) -> None:
        """Let a repository hold a blob that has arrived."""
        download.wait(self.closing)
        self._repositories.hold(name, descriptor.digest, descriptor.size)
        if self._repositories.is_crowded:
            self._crowded()

    def close(self) -> None:
        """Give up what is on its way."""
        self.closing.set()

    def _fetch(self, name: str, reference: Digest | str) -> Manifest:
        """Return what the other registry has now; it is kept. Raises RegistryError, Unavailable."""

        def ask() -> Manifest:
            failed: OrlopError = Unavailable("reach", f"registry {self.host}", "it has no place that gives manifests")
            for place in self._places(name):
                try:
                    return self._fetch_from(place, name, reference)
                except OrlopError as wrong:
                    failed = wrong
            raise failed

        return self._ask(ask, "MANIFEST_UNKNOWN", reference)

    def _fetch_from(self, place: Repository, name: str, reference: Digest | str) -> Manifest:
        if not isinstance(reference, Digest):
            found = place.resolve(reference, self._patience())
            try:
                known = self._repositories.manifest(name, found.digest)
            except RegistryError:
                pass
            else:
                return self._repositories.keep_manifest(name, reference, known.media_type, known.data)
        found, data = place.manifest(str(reference), self._patience())
        return self._repositories.keep_manifest(name, reference, found.media_type, data)

    def _ask(self, work: Callable[[], T], code: str, what: object) -> T:
        if time.monotonic() < self._down_until:
            raise Unavailable("reach", f"registry {self.host}", "it could not be reached a moment ago")
        try:
            return work()
        except NotFound as wrong:
            raise RegistryError(code, wrong.cause) from None
        except Denied as wrong:
            raise RegistryError("DENIED", wrong.cause) from None
        except Invalid as wrong:
            raise RegistryError("UNAVAILABLE", f"{self.host} gives out what is not {what}: {wrong.cause}") from None
        except Unavailable:
            self._down_until = time.monotonic() + DOWN_S
            raise

    def _patience(self) -> Patience:
        return Patience(self.closing, TRIES)


def _described(places: Sequence[Repository], digest: Digest) -> Descriptor:
    """Return a blob as the other registry describes it, of which no manifest is here. Raises NotFound, Unavailable."""
    failed: OrlopError = NotFound("find", f"blob {digest}", "no registry is configured for it")
    for place in places:
        try:
            size = place.blob_size(digest, Patience(tries=TRIES))
        except OrlopError as wrong:
            failed = wrong
            continue
        if size is not None:
            return Descriptor(media_type="application/octet-stream", digest=digest, size=size)
        failed = NotFound("find", f"blob {digest}", f"{place.host} has no such blob")
    raise failed
