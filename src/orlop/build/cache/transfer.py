"""--cache-to and --cache-from: to and from a folder (an OCI image layout), a registry, and the image itself.

--cache-mount-to and --cache-mount-from beside them: of the build's own cache mounts.
"""

from __future__ import annotations

from contextlib import contextmanager

from orlop.content.compression import Decompressed
from orlop.spec import jsonio
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid, OrlopError
from orlop.spec.image import CONFIGS, Descriptor, ImageConfig, Manifest

from .. import graph
from ..output import layers as forms
from ..solver import cachemounts
from . import document, mounts
from .carrier import Carrier
from .places import INLINE, LOCAL, MIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..solver.solve import Solver
    from .carrier import Fetch, Found
    from .places import CachePlace


def write(solver: Solver, place: CachePlace, targets: Sequence[graph.Target]) -> None:
    """Write what a build has made into a folder or a registry. Raises Unavailable, Denied."""
    with _written(solver, place, "cache"):
        described, layers = document.made(solver, targets, place.mode)
        solver.fetch_all(layers)
        if place.form.compression:
            packed = {layer.digest: forms.packed(solver.engine, layer, place.form) for layer in layers}
            described, layers = document.packed(described, packed), list(packed.values())
        manifest = document.stored(solver, described, layers)
        _carrier(solver).give(place, manifest)


def read(solver: Solver, place: CachePlace) -> None:
    """Add what a place has to the caches of a build. What can't be used is told as a warning."""
    with _read(solver, place, "cache", []):
        if place.type == LOCAL or not _from_store(solver, place):
            for found in _carrier(solver).find(place, document.DOCUMENT_BYTES_MAX):
                _add(solver, place, found)


def write_mounts(solver: Solver, place: CachePlace, targets: Sequence[graph.Target]) -> None:
    """Write the cache mounts of a build's steps. Raises Unavailable, Denied.

    One that is not here, because its step was cached, comes from where the build may read them: what is written takes
    the place of what was there.
    """
    with _written(solver, place, "cache mounts"):
        known = set(mounts.here(solver.engine))
        wanted = set()
        for mount in _mounted(solver, targets):
            if mount in known or cachemounts.made(solver, mount):
                wanted.add(mount)
        if wanted:
            mounts.write(solver.engine, _access(solver), place, wanted)


def read_mounts(solver: Solver, place: CachePlace) -> None:
    """Have a build's steps begin with the cache mounts of a place, where they have none here."""
    broken: list[OrlopError] = []

    def make(mount: str, volume: str) -> bool:
        is_made = False
        if not broken:  # else it was told
            with _read(solver, place, f"cache mount {mount[:60]}", broken):
                is_made = mounts.make(solver.engine, _access(solver), place, mount, volume)
        return is_made

    solver.mount_sources.append(make)


def _mounted(solver: Solver, targets: Sequence[graph.Target]) -> set[str]:
    """Return the ids of the cache mounts of all steps that the targets need."""
    steps = solver.plan(target.vertex for target in targets)
    found = (mount for step in steps if isinstance(step, graph.Run) for mount in step.mounts)
    return {mount.cache for mount in found if isinstance(mount, graph.CacheMount)}


def _access(solver: Solver) -> mounts.Access:
    return mounts.Access(solver.settings.credentials, solver.check, solver.given_up)


@contextmanager
def _written(solver: Solver, place: CachePlace, what: str) -> Iterator[None]:
    """Tell what is written; where the place says so, a failure is a warning."""
    log = solver.journal.step(0, f"[internal] exporting {what} to {place}")
    try:
        yield
    except OrlopError as wrong:
        log.end("failed", wrong.cause)
        if not place.ignore_error:
            raise
        solver.journal.tell({"warning": {"detail": f"the {what} {place} is not written: {wrong.cause}"}})
        return
    log.end("done")


@contextmanager
def _read(solver: Solver, place: CachePlace, what: str, broken: list[OrlopError]) -> Iterator[None]:
    """Tell what is read; a failure is a warning, unless the build is over, and is added to broken."""
    log = solver.journal.step(0, f"[internal] importing {what} from {place}")
    try:
        yield
    except OrlopError as wrong:
        log.end("failed", wrong.cause)
        solver.check()
        broken.append(wrong)
        solver.journal.tell({"warning": {"detail": f"the {what} {place} is not used: {wrong.cause}"}})
        return
    log.end("done")


def of_image(solver: Solver, target: graph.Target) -> str:
    """Return what an image's configuration says of its steps (type=inline), "" where nobody asked for it."""
    if not any(place.type == INLINE for place in solver.settings.request.cache_to):
        return ""
    described, _ = document.made(solver, [target], MIN)
    return document.inline(described)


def _carrier(solver: Solver) -> Carrier:
    return Carrier(solver.engine, solver.lease, solver.settings.credentials, solver.check, solver.given_up)


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


# -- documents --------------------------------------------------------------------------------------------------------


def _add(solver: Solver, place: CachePlace, carried: Found) -> None:
    """Add what the configuration of a manifest says: of a cache, or of an image with its cache inside."""
    subject = f"cache {place}"
    manifest, data = carried.manifest, carried.config
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

    solver.imports.add(found.steps, given, _unpacking(solver, given, carried.fetch))


def _unpacking(solver: Solver, given: dict[Digest, Descriptor], fetch: Fetch) -> Fetch:
    """Return what brings a layer into the store uncompressed. given: its blob, by what it is uncompressed."""

    def unpacked(layer: Descriptor) -> None:
        blob = given[layer.digest]
        fetch(blob)
        if blob.digest != layer.digest:
            with solver.engine.store.open(blob.digest) as packed:
                solver.engine.store.ingest(Decompressed(packed.read, "a layer of a cache"), layer)
        if solver.engine.store.stat(layer.digest) != layer.size:
            raise Invalid("read", f"layer {layer.digest}", f"it has not the {layer.size} bytes that the cache says")

    return unpacked


def _layers(manifest: Manifest, found: document.CacheDocument, image: ImageConfig | None) -> dict[Digest, Descriptor]:
    """Return the blob of each layer, by what it is uncompressed."""
    if image is not None:
        return dict(zip(image.rootfs.diff_ids, manifest.layers, strict=False))
    plain = {one.blob: one.annotations.get(document.UNCOMPRESSED, one.blob) for one in found.layers}
    return {Digest(plain.get(layer.digest, layer.digest)): layer for layer in manifest.layers}
