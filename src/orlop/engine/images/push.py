"""The verb `push`: what is sent where, and the repositories there that blobs may be mounted from."""

from __future__ import annotations

from ...image.push import Push
from ...spec.errors import Invalid, NotFound, OrlopError, Unavailable
from ...spec.image import INDEXES
from ...spec.platform import Platform
from ...spec.reference import Reference
from ...spec.registry import REGISTRY, Location
from .. import events
from . import referrers
from .registries import cancelled_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...image.image import Image
    from ...spec.digest import Digest
    from ...spec.image import Descriptor
    from ...spec.registry import PushRequest
    from ..engine import Engine

    Message = dict[str, object]

SOURCES_MAX = 4


def push(engine: Engine, request: PushRequest, hangup: int = -1) -> Iterator[Message]:
    """Push an image, or all tags of a repository; yield docker's messages. Given up when the client hangs up."""
    reference = Reference.parse(request.image)
    if reference.digest is not None:
        hint = "name a tag of it, or copy it: orlop image copy"
        raise Invalid("push", request.image, "cannot push a digest reference", hint=hint)
    yield {"status": f"The push refers to repository [{reference.name}]"}
    names = [name for name, _ in engine.store.names.entries() if name is not None and name.name == reference.name]
    tagged = sorted((name for name in names if name.tag), key=str)
    wanted = tagged if request.all_tags else [reference.tagged()]
    known = [name for name in wanted if engine.store.names.get(name) is not None]
    if not known:
        cause = f"An image does not exist locally with the tag: {reference.familiar_name}"
        if tagged:
            cause = f"tag does not exist: {reference.tagged().familiar}"
        raise NotFound("push", request.image, cause, hint="`orlop images` lists what is here", code="E0801")
    for name in known:
        yield from _push_one(engine, request, name, hangup)


def _push_one(engine: Engine, request: PushRequest, name: Reference, hangup: int) -> Iterator[Message]:
    with engine.store.leases.hold() as lease:
        image = engine.images.resolve(str(name))
        lease.add(image.target.digest, image.manifest.digest)
        sources = _sources(engine, image, name)
        paths = frozenset(path for found in sources.values() for path in found)
        repository = engine.registries.to_push(name, request.credentials, paths)
        pushing = Push(engine.store, repository, sources)
        with cancelled_at(hangup, pushing.cancel):
            try:
                target, note = _target(engine, request, image, pushing)
                yield from pushing.run(target, name.tag)
                there = Location(transport=REGISTRY, name=str(name), credentials=request.credentials)
                yield from referrers.give(engine, there, target, engine.store.names.referrers(target.digest))
            except OSError as wrong:
                raise Unavailable("push", name.familiar, wrong.strerror or str(wrong)) from None
        if note:
            yield {"status": note}
    events.publish(engine, "image", "push", name.familiar, {"name": name.familiar_name})


def _target(engine: Engine, request: PushRequest, image: Image, pushing: Push) -> tuple[Descriptor, str]:
    """Return what is pushed: what the name means, or of an index that is not whole here the image alone."""
    if image.target.media_type not in INDEXES:
        return image.target, ""
    if request.platform:
        return engine.images.for_platform(image.target, Platform.parse(request.platform)), ""
    if not pushing.lacks(image.target):
        return image.target, ""
    note = "Not all multiplatform-content is present and only the available single-platform image was pushed"
    return image.manifest.replace(platform=None), f"{note}\n{image.target.digest} -> {image.manifest.digest}"


def _sources(engine: Engine, image: Image, name: Reference) -> dict[Digest, list[str]]:
    """Return, for each blob of the image, the repositories of the same registry whose images have it too."""
    wanted = {image.manifest.digest, image.id, *(layer.descriptor.digest for layer in image.layers)}
    found: dict[Digest, list[str]] = {}
    paths: set[str] = set()
    for other in engine.images.list():
        try:
            names = [Reference.parse(text) for text in other.names]
        except OrlopError:
            continue
        own = {one.path for one in names if one.domain == name.domain and one.path != name.path}
        for path in sorted(own):
            if path not in paths and len(paths) >= SOURCES_MAX:
                continue
            for layer in other.layers:
                if layer.descriptor.digest in wanted:
                    paths.add(path)
                    found.setdefault(layer.descriptor.digest, []).append(path)
    return found
