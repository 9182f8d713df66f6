"""Manifests of caches on their way: into a folder (an OCI image layout) or a registry, and from there."""

from __future__ import annotations

import threading

from orlop.image.push import Push
from orlop.image.registry import Patience
from orlop.image.transports.layout import LayoutDirectory
from orlop.image.transports.transfer import give
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, OrlopError
from orlop.spec.image import INDEXES, Descriptor, Manifest, parse_manifest
from orlop.spec.jsonio import DOCUMENT_BYTES_MAX
from orlop.spec.reference import Reference
from orlop.spec.registry import ANONYMOUS

from .places import LOCAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from orlop.content.leases import Lease
    from orlop.engine.engine import Engine
    from orlop.image.registry import Repository
    from orlop.spec.registry import Credentials

    from .places import CachePlace

    Fetch = Callable[[Descriptor], None]


class Found:
    """A manifest that a place has. config: its configuration, proven; fetch: brings a layer into our store."""

    def __init__(self, manifest: Manifest, config: bytes, fetch: Fetch) -> None:
        self.manifest = manifest
        self.config = config
        self.fetch = fetch


class Carrier:
    """credentials: what the client has for a repository. check: raises what ended the work; given_up: is set then."""

    def __init__(
        self,
        engine: Engine,
        lease: Lease,
        credentials: Callable[[Reference], Credentials | None],
        check: Callable[[], None],
        given_up: threading.Event,
    ) -> None:
        self._engine = engine
        self._lease = lease
        self._credentials = credentials
        self._check = check
        self._given_up = given_up

    def give(self, place: CachePlace, manifest: Descriptor) -> None:
        """Write a manifest of our store, with what it names. What is there already is not written again.

        Raises Invalid, Unavailable, Denied.
        """
        if place.type != LOCAL:
            self._push(place, manifest)
            return
        layout = LayoutDirectory(place.path, make=True)
        try:
            for _ in give(layout, self._engine.store, manifest):
                self._check()
            layout.name(manifest, place.tag)
        finally:
            layout.close()

    def _push(self, place: CachePlace, manifest: Descriptor) -> None:
        reference = Reference.parse(place.reference)
        credentials = self._credentials(reference) or ANONYMOUS
        repository = self._engine.registries.to_push(reference, credentials, frozenset())
        pushing = Push(self._engine.store, repository, {})
        try:
            for _ in pushing.run(manifest, reference.tag):
                self._check()
        except OSError as wrong:
            raise Invalid("push", f"cache {place}", wrong.strerror or str(wrong)) from None

    def find(self, place: CachePlace, config_bytes_max: int = DOCUMENT_BYTES_MAX) -> list[Found]:
        """Return the manifests that a place has: one, or those of an index. Raises NotFound, Invalid, Unavailable."""
        if place.type == LOCAL:
            return [self._of_folder(place, config_bytes_max)]
        reference = Reference.parse(place.reference)
        credentials = self._credentials(reference) or ANONYMOUS
        refused: OrlopError | None = None
        for repository in self._engine.registries.to_pull(reference, credentials):
            try:
                return self._of_repository(place, reference, repository, config_bytes_max)
            except OrlopError as wrong:
                refused = wrong
        if refused is not None:
            raise refused
        return []

    def _of_folder(self, place: CachePlace, config_bytes_max: int) -> Found:
        layout = LayoutDirectory(place.path)
        try:
            target = layout.resolve(place.digest or place.tag)
            described = _proven(layout.document(layout.place(target.digest)), target)
            manifest = parse_manifest(described, target.media_type, place.path)
            if not isinstance(manifest, Manifest):
                raise Invalid("read", f"cache {place}", "it is an index, not a cache")
            config = _proven(layout.document(layout.place(manifest.config.digest), config_bytes_max), manifest.config)
        finally:
            layout.close()

        def fetch(layer: Descriptor) -> None:
            source = LayoutDirectory(place.path)
            try:
                source.take(source.place(layer.digest), self._engine.store, layer, self._lease)
            finally:
                source.close()

        return Found(manifest, config, fetch)

    def _of_repository(
        self, place: CachePlace, reference: Reference, repository: Repository, config_bytes_max: int
    ) -> list[Found]:
        patience = Patience()
        target, data = repository.manifest(str(reference.digest or reference.tag), patience)
        found = parse_manifest(data, target.media_type, f"cache {place}")
        manifests = [found] if isinstance(found, Manifest) else []
        if not isinstance(found, Manifest) and target.media_type in INDEXES:
            for one in found.manifests:
                if one.platform is not None and one.platform.os != "unknown":
                    _, child = repository.manifest(str(one.digest), patience)
                    parsed = parse_manifest(child, one.media_type, f"cache {place}")
                    manifests += [parsed] if isinstance(parsed, Manifest) else []

        def fetch(layer: Descriptor) -> None:
            self._lease.add(layer.digest)
            download = self._engine.registries.downloads.start(layer, [repository])
            try:
                download.wait(self._given_up)
            finally:
                self._engine.registries.downloads.release(download)

        read = []
        for manifest in manifests:
            with repository.blob(manifest.config.digest, patience) as response:
                config = _proven(response.document(config_bytes_max), manifest.config)
            read.append(Found(manifest, config, fetch))
        return read


def _proven(data: bytes, descriptor: Descriptor) -> bytes:
    if Digest.of(data, descriptor.digest.algorithm) != descriptor.digest:
        raise Invalid("read", "the cache", f"the content of {descriptor.digest} is another")
    return data
