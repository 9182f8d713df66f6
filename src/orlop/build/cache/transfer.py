"""--cache-to and --cache-from: to and from a folder (an OCI image layout), a registry, and the image itself."""

from __future__ import annotations

from orlop.content.compression import Decompressed
from orlop.image.push import Push
from orlop.image.registry import Patience
from orlop.image.transports.layout import LayoutDirectory
from orlop.image.transports.transfer import give
from orlop.spec import jsonio
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, OrlopError
from orlop.spec.image import CONFIGS, INDEXES, Descriptor, ImageConfig, Manifest, parse_manifest
from orlop.spec.reference import Reference
from orlop.spec.registry import ANONYMOUS

from ..output import layers as forms
from . import document
from .places import INLINE, LOCAL, MIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orlop.image.registry import Repository

    from .. import graph
    from ..solver.solve import Solver
    from .places import CachePlace

    Fetch = Callable[[Descriptor], None]


def write(solver: Solver, place: CachePlace, targets: Sequence[graph.Target]) -> None:
    """Write what a build has made into a folder or a registry. Raises Unavailable, Denied."""
    log = solver.journal.step(0, f"[internal] exporting cache to {place}")
    try:
        described, layers = document.made(solver, targets, place.mode)
        solver.fetch_all(layers)
        if place.form.compression:
            packed = {layer.digest: forms.packed(solver.engine, layer, place.form) for layer in layers}
            described, layers = document.packed(described, packed), list(packed.values())
        manifest = document.stored(solver, described, layers)
        if place.type == LOCAL:
            _to_folder(solver, place, manifest)
        else:
            _push(solver, place, manifest)
    except OrlopError as wrong:
        log.end("failed", wrong.cause)
        if not place.ignore_error:
            raise
        solver.journal.tell({"warning": {"detail": f"the cache {place} is not written: {wrong.cause}"}})
        return
    log.end("done")


def read(solver: Solver, place: CachePlace) -> None:
    """Add what a place has to the caches of a build. What can't be used is told as a warning."""
    log = solver.journal.step(0, f"[internal] importing cache from {place}")
    try:
        if place.type == LOCAL:
            _from_folder(solver, place)
        elif not _from_store(solver, place):
            _from_registry(solver, place)
    except OrlopError as wrong:
        log.end("failed", wrong.cause)
        solver.journal.tell({"warning": {"detail": f"the cache {place} is not used: {wrong.cause}"}})
        return
    log.end("done")


def of_image(solver: Solver, target: graph.Target) -> str:
    """Return what an image's configuration says of its steps (type=inline), "" where nobody asked for it."""
    if not any(place.type == INLINE for place in solver.settings.request.cache_to):
        return ""
    described, _ = document.made(solver, [target], MIN)
    return document.inline(described)


# -- folders ----------------------------------------------------------------------------------------------------------


def _to_folder(solver: Solver, place: CachePlace, manifest: Descriptor) -> None:
    layout = LayoutDirectory(place.path, make=True)
    try:
        for _ in give(layout, solver.engine.store, manifest):
            pass
        layout.name(manifest, place.tag)
    finally:
        layout.close()


def _from_folder(solver: Solver, place: CachePlace) -> None:
    layout = LayoutDirectory(place.path)
    try:
        target = layout.resolve(place.digest or place.tag)
        described = _proven(layout.document(layout.place(target.digest)), target)
        manifest = parse_manifest(described, target.media_type, place.path)
        if not isinstance(manifest, Manifest):
            raise Invalid("read", f"cache {place}", "it is an index, not a cache")
        data = _proven(layout.document(layout.place(manifest.config.digest)), manifest.config)
    finally:
        layout.close()

    def fetch(layer: Descriptor) -> None:
        source = LayoutDirectory(place.path)
        try:
            source.take(source.place(layer.digest), solver.engine.store, layer, solver.lease)
        finally:
            source.close()

    _add(solver, place, manifest, data, fetch)


def _from_store(solver: Solver, place: CachePlace) -> bool:
    """Add the cache inside an image of ours of that name; tell whether there is one. Raises Invalid."""
    try:
        image = solver.engine.images.resolve(place.reference)
    except OrlopError:
        return False
    if not image.config.cache:
        return False
    found = document.of_inline(image.config.cache, f"cache {place}")
    given = {layer.diff_id: layer.descriptor for layer in image.layers}
    solver.imports.add(found.steps, given, _unpacking(solver, given, lambda layer: None))
    return True


# -- registries -------------------------------------------------------------------------------------------------------


def _push(solver: Solver, place: CachePlace, manifest: Descriptor) -> None:
    reference = Reference.parse(place.reference)
    credentials = solver.settings.credentials(reference.domain) or ANONYMOUS
    repository = solver.engine.registries.to_push(reference, credentials, frozenset())
    pushing = Push(solver.engine.store, repository, {})
    try:
        for _ in pushing.run(manifest, reference.tag):
            solver.check()
    except OSError as wrong:
        raise Invalid("push", f"cache {place}", wrong.strerror or str(wrong)) from None


def _from_registry(solver: Solver, place: CachePlace) -> None:
    reference = Reference.parse(place.reference)
    credentials = solver.settings.credentials(reference.domain) or ANONYMOUS
    refused: OrlopError | None = None
    for repository in solver.engine.registries.to_pull(reference, credentials):
        try:
            _from_repository(solver, place, reference, repository)
        except OrlopError as wrong:
            refused = wrong
        else:
            return
    if refused is not None:
        raise refused


def _from_repository(solver: Solver, place: CachePlace, reference: Reference, repository: Repository) -> None:
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
        solver.lease.add(layer.digest)
        download = solver.engine.registries.downloads.start(layer, [repository])
        try:
            download.wait(solver.given_up)
        finally:
            solver.engine.registries.downloads.release(download)

    for manifest in manifests:
        with repository.blob(manifest.config.digest, patience) as response:
            config = _proven(response.document(document.DOCUMENT_BYTES_MAX), manifest.config)
        _add(solver, place, manifest, config, fetch)


# -- documents --------------------------------------------------------------------------------------------------------


def _add(solver: Solver, place: CachePlace, manifest: Manifest, data: bytes, fetch: Fetch) -> None:
    """Add what the configuration of a manifest says: of a cache, or of an image with its cache inside."""
    subject = f"cache {place}"
    if manifest.config.media_type == document.CACHE_CONFIG:
        found = document.parse(data, subject)
    elif manifest.config.media_type in CONFIGS:
        config = ImageConfig.from_json(jsonio.parse(data, subject), subject)
        if not config.cache:
            raise Invalid("read", subject, "it is an image that says nothing of its steps (--cache-to type=inline)")
        found = document.of_inline(config.cache, subject)
    else:
        raise Invalid("read", subject, f"a cache has no configuration of type {manifest.config.media_type[:100]!r}")
    given = _layers(manifest, found, config if manifest.config.media_type in CONFIGS else None)

    solver.imports.add(found.steps, given, _unpacking(solver, given, fetch))


def _unpacking(solver: Solver, given: dict[Digest, Descriptor], fetch: Fetch) -> Fetch:
    """Return what brings a layer into the store uncompressed. given: its blob, by what it is uncompressed."""

    def unpacked(layer: Descriptor) -> None:
        blob = given[layer.digest]
        fetch(blob)
        if blob.digest != layer.digest:
            with solver.engine.store.open(blob.digest) as packed:
                solver.engine.store.ingest(Decompressed(packed.read, "a layer of a cache"), layer)

    return unpacked


def _layers(manifest: Manifest, found: document.CacheDocument, image: ImageConfig | None) -> dict[Digest, Descriptor]:
    """Return the blob of each layer, by what it is uncompressed."""
    if image is not None:
        return dict(zip(image.rootfs.diff_ids, manifest.layers, strict=False))
    plain = {one.blob: one.annotations.get(document.UNCOMPRESSED, one.blob) for one in found.layers}
    return {Digest(plain.get(layer.digest, layer.digest)): layer for layer in manifest.layers}


def _proven(data: bytes, descriptor: Descriptor) -> bytes:
    if Digest.of(data, descriptor.digest.algorithm) != descriptor.digest:
        raise Invalid("read", "the cache", f"the content of {descriptor.digest} is another")
    return data
