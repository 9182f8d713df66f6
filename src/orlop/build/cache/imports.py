"""What the caches of --cache-from know: looked up like our own, their layers fetched when somebody needs them.

Whoever names a cache trusts whoever wrote it, as with an image: the keys in it are believed (SEC-50 is about those that
nobody named). Every layer is proven by its digest.

A step of a cache may be known without its layer being there (mode=min, or a registry that has lost it). It is believed
in as long as nobody has to read its files; when somebody must, `Gone` ends the attempt, and the solver begins anew
without such steps.
"""

from __future__ import annotations

import threading

from orlop.spec.errors import OrlopError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from orlop.engine.steps.cache import Cached
    from orlop.spec.digest import Digest
    from orlop.spec.image import Descriptor

    Fetch = Callable[[Descriptor], None]


class Gone(Exception):
    """A layer can't be had that a cache had promised."""


class Imports:
    """The caches of one build. Used by all its threads."""

    def __init__(self) -> None:
        self._steps: dict[str, Cached] = {}
        self._places: dict[Digest, list[Fetch]] = {}
        self._named: set[Digest] = set()
        self._believes = True
        self._guard = threading.Lock()

    def add(self, steps: Iterable[Cached], layers: Iterable[Digest], fetch: Fetch) -> None:
        """Add a cache. layers: those that it has; fetch: brings one into the store, raises OrlopError."""
        for record in steps:
            self._steps.setdefault(record.key, record)
            if record.layer is not None:
                self._named.add(record.layer.digest)
        for digest in layers:
            self._places.setdefault(digest, []).append(fetch)

    def get(self, key: str) -> Cached | None:
        return self._steps.get(key)

    def offers(self, digest: Digest) -> bool:
        """Tell whether a layer that is not in the store may be counted on."""
        return digest in self._places or (self._believes and digest in self._named)

    def fetch(self, layer: Descriptor) -> list[Cached]:
        """Bring a layer into the store, if a cache has named it; return what is known with it then. Raises Gone."""
        with self._guard:
            if layer.digest not in self._named:
                return []
            for place in self._places.get(layer.digest, ()):
                try:
                    place(layer)
                except OrlopError:
                    continue
                return [one for one in self._steps.values() if one.layer is not None and one.layer == layer]
            self._places.pop(layer.digest, None)
            self._believes = False
            raise Gone(layer.digest)
