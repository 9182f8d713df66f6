"""A pull: a name becomes manifests, a configuration and layers in the store, the layers' trees ready to run.

    resolve -> manifest, configuration -> all layers at once, each unpacked while it still arrives -> the name

Invariants:
1. The name is given last. Until then a lease keeps what came, and nothing of it is an image.
2. Every document is the one its descriptor names: digest and size, media type, and a configuration with as many layers
   as its manifest (SEC-43, SEC-45).
3. What is here already is not asked for again, the manifest included: registries count those.
"""

from __future__ import annotations

import threading
import time

from orlop.spec.errors import Invalid, NotFound, OrlopError, Unsupported
from orlop.spec.image import (
    CONFIGS,
    MANIFESTS,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    chain_ids,
    parse_manifest,
)
from orlop.spec.jsonio import parse

from .registry import TRIES_ELSEWHERE, Canceled, Patience
from .selection import ATTESTATION_OF, best_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from orlop.content import Store
    from orlop.content.leases import Lease
    from orlop.spec.digest import Digest
    from orlop.spec.platform import Platform
    from orlop.spec.reference import Reference

    from .download import Download, Downloads, Reader
    from .registry import Repository

    Message = dict[str, object]
    Unpack = Callable[[Sequence[tuple[Digest, Callable[[], Reader]]]], object]

PROGRESS_S = 0.1
PLATFORM_UNKNOWN = "unknown"
LAYERS_MAX = 512
MANIFESTS_MAX = 256
CONFIG_BYTES_MAX = 4 * 1024 * 1024


class Chosen:
    """One image to be fetched: its manifest, and the configuration once it is here."""

    __slots__ = ("config", "descriptor", "manifest")

    def __init__(self, descriptor: Descriptor, manifest: Manifest) -> None:
        self.descriptor = descriptor
        self.manifest = manifest
        self.config: ImageConfig | None = None


class Pull:
    """One pull of one reference. repositories: the places to ask, in turn.

    platform: which image of an index; all_platforms: every one of them, and only the machine's own is unpacked.
    """

    def __init__(
        self,
        store: Store,
        downloads: Downloads,
        repositories: Sequence[Repository],
        reference: Reference,
        platform: Platform,
        *,
        all_platforms: bool = False,
    ) -> None:
        self.reference = reference
        self.cancel = threading.Event()
        self._store = store
        self._downloads = downloads
        self._repositories = list(repositories)
        self._platform = platform
        self._all = all_platforms
        self._patience = Patience(self.cancel)
        self._impatience = Patience(self.cancel, TRIES_ELSEWHERE)

    def run(self, lease: Lease, unpack: Unpack) -> Iterator[Message]:
        """Pull; yield docker's progress messages; at the end the name is in the index.

        Raises what went wrong; then the name means what it meant before.
        """
        target, was_complete = yield from self.fetch(lease, unpack)
        self._store.names.put(self.reference, target)
        yield {"status": f"Digest: {target.digest}"}
        news = "Image is up to date for" if was_complete else "Downloaded newer image for"
        yield {"status": f"Status: {news} {self.reference.familiar}"}

    def fetch(self, lease: Lease, unpack: Unpack | None) -> Generator[Message, None, tuple[Descriptor, bool]]:
        """Bring all of it into the store, unpack it where that is wanted, and name nothing; yield docker's messages.

        Returns what the reference means at the registry, and whether all of it was here under that name.
        """
        tag = str(self.reference.digest or self.reference.tag)
        fetched: list[tuple[Chosen, list[Download | None]]] = []
        try:
            target, data = self._document(tag, lease)
            yield {"status": f"Pulling from {self.reference.path}", "id": tag}
            known = self._store.names.get(self.reference)
            fetched += [(one, []) for one in self._choose(target, data, lease)]
            for one, downloads in fetched:
                self._start(one, lease, downloads)
            was_complete = known is not None and known.digest == target.digest and not _any_running(fetched)
            yield from self._follow(fetched, lease, unpack, quiet=was_complete)
        except GeneratorExit:
            self.cancel.set()
            raise
        except Canceled:
            raise Invalid("pull", self.reference.familiar, "it was interrupted") from None
        finally:
            for _, downloads in fetched:
                for download in downloads:
                    if download is not None:
                        self._downloads.release(download)
        return target, was_complete

    def describe(self, lease: Lease) -> tuple[Descriptor, Chosen]:
        """Bring the documents of the image for the platform, its configuration too, and no layer.

        Returns what the reference means at the registry, and the image. Raises Unsupported for what is none.
        """
        target, data = self._document(str(self.reference.digest or self.reference.tag), lease)
        one = self._choose(target, data, lease)[0]
        lease.add(one.manifest.config.digest)
        self._bring_config(one)
        if one.config is None:
            raise Unsupported("pull", self.reference.familiar, "it is no image", code="E0808")
        return target, one

    # -- documents --------------------------------------------------------------------------------------------------

    def _document(self, reference: str, lease: Lease, described: Descriptor | None = None) -> tuple[Descriptor, bytes]:
        """Return a manifest or index, from the store where it is here; then it is stored."""
        refused: OrlopError | None = None
        if described is not None:
            lease.add(described.digest)
            if self._store.stat(described.digest) == described.size:
                return described, self._store.get(described.digest)
        places = tuple(self._repositories)
        for repository in places:
            patience = self._patience if repository is places[-1] else self._impatience
            try:
                if described is None:
                    found = repository.resolve(reference, patience)
                    lease.add(found.digest)
                    if self._store.stat(found.digest) == found.size:
                        return found, self._store.get(found.digest)
                    described = found if found.digest == reference else None
                found, data = repository.manifest(reference, patience)
                if described is not None and (found.media_type, found.size) != (described.media_type, described.size):
                    raise Invalid("pull", f"manifest {found.digest}", "type or size are not those of its descriptor")
                lease.add(found.digest)
                self._store.ingest(data, found)
                return found, data
            except OrlopError as wrong:
                refused = wrong
                # Not asked first again: one that is silent takes minutes for each document and blob.
                self._repositories.remove(repository)
                self._repositories.append(repository)
        raise refused or NotFound("pull", self.reference.familiar, "no registry is configured for it")

    def _choose(self, target: Descriptor, data: bytes, lease: Lease) -> list[Chosen]:
        """Return the image or images to fetch; an index becomes those of its images that are wanted."""
        subject = f"manifest {target.digest}"
        document = parse_manifest(data, target.media_type, subject)
        if isinstance(document, Manifest):
            return [Chosen(target, document)]
        if len(document.manifests) > MANIFESTS_MAX:
            raise Invalid("pull", subject, f"it lists more than {MANIFESTS_MAX} manifests")
        chosen = []
        for descriptor in self._wanted(document):
            lease.add(descriptor.digest)
            _, child = self._document(str(descriptor.digest), lease, descriptor)
            manifest = parse_manifest(child, descriptor.media_type, f"manifest {descriptor.digest}")
            if isinstance(manifest, Manifest):
                chosen.append(Chosen(descriptor, manifest))
        if not chosen:
            raise NotFound(
                "pull",
                self.reference.familiar,
                f"no matching manifest for {self._platform} in the manifest list entries",
                hint=f"it is made for {_platforms(document)}; choose one with --platform",
                code="E0806",
            )
        return chosen

    def _wanted(self, index: Index) -> list[Descriptor]:
        manifests = [one for one in index.manifests if one.media_type in MANIFESTS]
        if self._all:
            return manifests
        best = best_for(self._platform, manifests)
        if best is None:
            return []
        attached = [one for one in manifests if one.annotations.get(ATTESTATION_OF) == best.digest]
        return [best, *attached]

    # -- blobs ------------------------------------------------------------------------------------------------------

    def _start(self, one: Chosen, lease: Lease, downloads: list[Download | None]) -> None:
        """Begin to fetch configuration and layers; add a download for each layer, None for one that is here.

        What was added is begun, and the caller's to release, also when this raises.
        """
        manifest = one.manifest
        subject = f"manifest {one.descriptor.digest}"
        if len(manifest.layers) > LAYERS_MAX:
            raise Invalid("pull", subject, f"it has more than {LAYERS_MAX} layers", code="E0212")
        lease.add(manifest.config.digest, *(layer.digest for layer in manifest.layers))
        here = {layer.digest: self._store.stat(layer.digest) == layer.size for layer in manifest.layers}
        for layer in manifest.layers:
            downloads.append(None if here[layer.digest] else self._downloads.start(layer, tuple(self._repositories)))
        self._bring_config(one)

    def _bring_config(self, one: Chosen) -> None:
        """Fetch an image's configuration, unless it is here, and read it."""
        config = one.manifest.config
        if config.size > CONFIG_BYTES_MAX:
            subject = f"manifest {one.descriptor.digest}"
            raise Invalid("pull", subject, f"its configuration has more than {CONFIG_BYTES_MAX} bytes")
        if self._store.stat(config.digest) != config.size:
            download = self._downloads.start(config, tuple(self._repositories))
            try:
                download.wait(self.cancel)
            finally:
                self._downloads.release(download)
        if config.media_type in CONFIGS:
            one.config = self._config(one)

    def _config(self, one: Chosen) -> ImageConfig:
        digest = one.manifest.config.digest
        subject = f"configuration {digest}"
        config = ImageConfig.from_json(parse(self._store.get(digest), subject), subject)
        if len(config.rootfs.diff_ids) != len(one.manifest.layers):
            told = f"it names {len(config.rootfs.diff_ids)} layers, its manifest {len(one.manifest.layers)}"
            raise Invalid("pull", subject, told)
        return config

    def _follow(
        self,
        fetched: list[tuple[Chosen, list[Download | None]]],
        lease: Lease,
        unpack: Unpack | None,
        *,
        quiet: bool,
    ) -> Iterator[Message]:
        """Wait for everything, unpack the image that is to run, and tell how far it is."""
        first = fetched[0][0]
        if first.config is None and not self._all and unpack is not None:
            what = first.manifest.artifact_type or first.manifest.config.media_type
            raise Unsupported("pull", self.reference.familiar, f"it is no image but {what!r}", code="E0808")
        main = self._main(fetched) if unpack is not None else None
        progress = Progress([pair for one, downloads in fetched for pair in _pairs(one, downloads)], quiet)
        unpacking = Unpacking(self._store, main, unpack, lease) if main is not None and unpack is not None else None
        if unpacking is not None:
            unpacking.start()
            progress.follow(unpacking)
        while unpacking is not None and unpacking.is_alive():
            unpacking.join(PROGRESS_S)
            self._patience.check()
            yield from progress.news()
        if unpacking is not None:
            unpacking.check()
        for _, downloads in fetched:
            for download in downloads:
                while download is not None and not download.ended:
                    time.sleep(PROGRESS_S)
                    self._patience.check()
                    yield from progress.news()
                if download is not None:
                    download.check()
        yield from progress.news(finished=True)

    def _main(self, fetched: list[tuple[Chosen, list[Download | None]]]) -> tuple[Chosen, list[Download | None]] | None:
        """Return the image that containers will run here."""
        images = [pair for pair in fetched if pair[0].config is not None]
        if not self._all or len(images) == 1:
            return images[0] if images else None
        best = best_for(self._platform, [pair[0].descriptor for pair in images])
        return next((pair for pair in images if pair[0].descriptor == best), None)


class Unpacking(threading.Thread):
    """Unpacks the layers of one image as they arrive. position: layer -> compressed bytes read of it."""

    def __init__(self, store: Store, image: tuple[Chosen, list[Download | None]], unpack: Unpack, lease: Lease) -> None:
        super().__init__(name="unpacking", daemon=True)
        self.readers: dict[Digest, Reader] = {}
        self._store = store
        self._chosen, self._downloads = image
        self._unpack = unpack
        self._lease = lease
        self._error: BaseException | None = None

    def run(self) -> None:
        assert self._chosen.config is not None  # an image's, by Pull._main
        diff_ids = self._chosen.config.rootfs.diff_ids
        self._lease.add(*chain_ids(diff_ids))
        pairs = zip(self._chosen.manifest.layers, self._downloads, strict=True)
        try:
            self._unpack([(diff_id, self._opener(*pair)) for diff_id, pair in zip(diff_ids, pairs, strict=True)])
        except BaseException as wrong:
            self._error = wrong

    def check(self) -> None:
        """Raise what made it fail. A download's own error comes first: it is the cause."""
        if self._error is not None:
            for download in self._downloads:
                if download is not None and download.ended:
                    download.check()
            raise self._error

    def _opener(self, layer: Descriptor, download: Download | None) -> Callable[[], Reader]:
        def open_layer() -> Reader:
            if download is None:
                return self._store.open(layer.digest)  # type: ignore[return-value]  # it reads and closes as well
            self.readers[layer.digest] = reader = download.reader()
            return reader

        return open_layer


class Progress:
    """What changed since the last look, in docker's messages."""

    def __init__(self, layers: Sequence[tuple[Descriptor, Download | None]], quiet: bool) -> None:
        self._layers = {} if quiet else {layer.digest: (layer, download) for layer, download in layers}
        self._told: dict[Digest, list[str]] = {digest: [] for digest in self._layers}
        self._numbers: dict[Digest, tuple[str, int]] = {}
        self._unpacking: Unpacking | None = None

    def follow(self, unpacking: Unpacking) -> None:
        self._unpacking = unpacking

    def news(self, *, finished: bool = False) -> Iterator[Message]:
        """Yield what every layer has to tell since the last call."""
        for digest, (layer, download) in self._layers.items():
            told = self._told[digest]
            for status in self._stages(download, finished):
                if status not in told:
                    told.append(status)
                    yield {"status": status, "progressDetail": {}, "id": digest.short}
            numbers = self._position(layer, download)
            if numbers is not None and not finished and self._numbers.get(digest) != numbers:
                self._numbers[digest] = numbers
                status, current = numbers
                detail = {"current": current, "total": layer.size}
                yield {"status": status, "progressDetail": detail, "id": digest.short}

    def _stages(self, download: Download | None, finished: bool) -> tuple[str, ...]:
        if download is None:
            return ("Already exists",)
        if not download.ended or download.error is not None:
            return ("Pulling fs layer",)
        stages = ("Pulling fs layer", "Verifying Checksum", "Download complete")
        return (*stages, "Pull complete") if finished else stages

    def _position(self, layer: Descriptor, download: Download | None) -> tuple[str, int] | None:
        """Return what is being done with a layer's bytes, and how far that is."""
        if download is None or not download.received:
            return None
        if not download.ended:
            return "Downloading", download.received
        reader = self._unpacking.readers.get(layer.digest) if self._unpacking else None
        return ("Extracting", reader.position) if reader is not None and reader.position else None


def _pairs(one: Chosen, downloads: list[Download | None]) -> list[tuple[Descriptor, Download | None]]:
    return list(zip(one.manifest.layers, downloads, strict=True))


def _any_running(fetched: list[tuple[Chosen, list[Download | None]]]) -> bool:
    return any(download is not None for _, downloads in fetched for download in downloads)


def _platforms(index: Index) -> str:
    named = {str(one.platform) for one in index.manifests if one.platform and one.platform.os != PLATFORM_UNKNOWN}
    return ", ".join(sorted(named)[:12]) or "no platform that it names"
