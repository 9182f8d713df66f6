"""The verbs `image copy` and `image sync`: an image from one place to another, through the store, under a lease.

    bring: the source's documents and blobs into the store, proven; what is here is not fetched again
    convert: where another form is wanted, other media types or another compression
    give:  the destination gets what it lacks, the name last

What only the copy needed goes at its end.
"""

from __future__ import annotations

import os

from ...image import collection
from ...image.convert import Conversion
from ...image.load import load
from ...image.pull import Pull
from ...image.push import Push
from ...image.registry import Patience
from ...image.save import Saved, blobs_of, write_archive
from ...image.transports.directory import ImageDirectory
from ...image.transports.layout import LayoutDirectory
from ...image.transports.transfer import Taking, choose, give
from ...spec.errors import Conflict, Invalid, NotFound, OrlopError, Unavailable
from ...spec.image import INDEXES, MANIFESTS
from ...spec.platform import Platform
from ...spec.reference import Reference
from ...spec.registry import (
    DIRECTORY,
    LAYOUT,
    OCI_ARCHIVE,
    REGISTRY,
    STORE,
    CopyRequest,
    ImageForm,
    Location,
)
from .. import events
from . import referrers
from .listing import find
from .registries import cancelled_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ...content.leases import Lease
    from ...image.load import Loaded
    from ...spec.image import Descriptor
    from ..engine import Engine

    Message = dict[str, object]


def copy(engine: Engine, request: CopyRequest, hangup: int = -1) -> Generator[Message, None, dict[str, object]]:
    """Copy an image; yield docker's messages, return {"digest"}. Given up when the client hangs up."""
    if request.referrers:
        referrers.check(request)
    if request.destination.transport in (REGISTRY, STORE):
        _ = request.destination.reference  # first: a mistake in it must not cost bringing the source
    with engine.store.leases.hold() as lease:
        try:
            target = yield from _bring(engine, request, lease, hangup)
            others: list[Descriptor] = []
            if request.form != ImageForm():
                target = yield from Conversion(engine.store, request.form).run(target)
                lease.add(*blobs_of(engine.store, target))
            if request.referrers:
                others = yield from referrers.bring(engine, request.source, target, lease)
            yield from _give(engine, request.destination, target, hangup)
            yield from referrers.give(engine, request.destination, target, others)
        finally:
            _forget(engine, lease)
    yield {"status": f"Copied {request.source} to {request.destination}"}
    return {"digest": str(target.digest)}


def sync(engine: Engine, request: CopyRequest, hangup: int = -1) -> Iterator[Message]:
    """Copy a repository of a registry, all its tags unless one is named; what is there already is left alone.

    To docker://HOST/PREFIX it goes as PREFIX/<last part of its name>, to dir:PATH as directories <last part>:<tag>,
    to oci:PATH as the tags of one layout.
    """
    source, destination = request.source, request.destination
    if source.transport != REGISTRY:
        raise Invalid("sync", str(source), "only a registry's repository can be the source", hint="use docker://")
    reference = Reference.parse(source.name)
    tags = [reference.tag or str(reference.digest)]
    if not reference.tag and not reference.digest:
        tags = list(engine.registries.to_pull(reference, source.credentials)[-1].tags(Patience()))
    copied = 0
    for tag in tags:
        separator = "@" if ":" in tag else ":"
        one = request.replace(
            source=source.replace(name=f"{reference.name}{separator}{tag}"),
            destination=_synced(destination, reference.path.rpartition("/")[2], tag),
        )
        if not request.referrers and _is_there(engine, one):
            yield {"status": f"{one.destination} is up to date"}
            continue
        yield from copy(engine, one, hangup)
        copied += 1
    yield {"status": f"Synced {len(tags)} tags, {copied} of them copied"}


def _synced(destination: Location, name: str, tag: str) -> Location:
    """Return where one tag of a repository goes."""
    if destination.transport == REGISTRY:
        separator = "@" if ":" in tag else ":"
        return destination.replace(name=f"{destination.name.rstrip('/')}/{name}{separator}{tag}")
    if destination.transport == DIRECTORY:
        return destination.replace(path=f"{destination.path}/{name}:{tag}")
    if destination.transport == LAYOUT and not destination.name:
        return destination.replace(name=tag)
    hint = "use docker://HOST/PREFIX, dir:PATH or oci:PATH"
    raise Invalid("sync", str(destination), "several images don't fit into it", hint=hint)


def _is_there(engine: Engine, request: CopyRequest) -> bool:
    """Tell whether a registry has the very same under the destination's name; other places are asked blob by blob."""
    source, destination = request.source, request.destination
    if destination.transport != REGISTRY or not request.all_platforms:
        return False
    try:
        theirs = [
            engine.registries.to_pull(one.reference, one.credentials)[-1].resolve(
                str(one.reference.digest or one.reference.tag), Patience()
            )
            for one in (source, destination)
        ]
    except NotFound:
        return False
    return theirs[0].digest == theirs[1].digest


# -- the source -------------------------------------------------------------------------------------------------------


def _bring(engine: Engine, request: CopyRequest, lease: Lease, hangup: int) -> Generator[Message, None, Descriptor]:
    """Bring the source into the store and return what is to be given away."""
    source = request.source
    platform = Platform.parse(request.platform) if request.platform else engine.images.platform
    if source.transport == REGISTRY:
        return (yield from _from_registry(engine, request, platform, lease, hangup))
    if source.transport in (LAYOUT, DIRECTORY):
        place = (LayoutDirectory if source.transport == LAYOUT else ImageDirectory)(source.path)
        try:
            taking = Taking(place, engine.store, lease, None if request.all_platforms else platform)
            return (yield from taking.run(place.resolve(source.name)))
        finally:
            place.close()
    if source.transport == STORE:
        target = find(engine, source.name).target
    else:
        target = _from_archive(engine, source, lease)
    if not request.all_platforms:
        target = choose(engine.store, target, platform)
    lease.add(*blobs_of(engine.store, target))
    return target


def _from_registry(
    engine: Engine, request: CopyRequest, platform: Platform, lease: Lease, hangup: int
) -> Generator[Message, None, Descriptor]:
    reference = request.source.reference
    if reference.digest is not None:
        reference = reference.replace(tag="")
    places = engine.registries.to_pull(reference, request.source.credentials)
    downloads = engine.registries.downloads
    pulling = Pull(engine.store, downloads, places, reference, platform, all_platforms=request.all_platforms)
    with cancelled_at(hangup, pulling.cancel):
        target, _ = yield from pulling.fetch(lease, None)
    return target if request.all_platforms else choose(engine.store, target, platform)


def _from_archive(engine: Engine, source: Location, lease: Lease) -> Descriptor:
    try:
        with open(source.path, "rb", buffering=0) as stream:
            found = load(engine.store, stream, lease)
    except OSError as wrong:
        raise Unavailable("copy", source.path, os.strerror(wrong.errno or 0), hint="name an archive") from None
    wanted = [one for one in found if not source.name or _is_called(one, source.name)]
    if len(wanted) == 1:
        return wanted[0].target
    names = ", ".join(str(name.familiar) for one in found for name in one.names) or "none that has a name"
    if wanted:
        raise Conflict(
            "find", f"the image of {source.path}", f"it holds {len(wanted)} images", hint=f"name one: {names}"
        )
    raise NotFound("find", f"image {source.name}", f"{source.path} has no image {source.name}", hint=f"it has: {names}")


def _is_called(loaded: Loaded, name: str) -> bool:
    """Tell whether a name, whole or its tag, is one of an archive's image."""
    if name in (loaded.ref_name, str(loaded.target.digest)):
        return True
    try:
        return Reference.parse(name).tagged() in loaded.names
    except Invalid:
        return False


# -- the destination --------------------------------------------------------------------------------------------------


def _give(engine: Engine, destination: Location, target: Descriptor, hangup: int) -> Iterator[Message]:
    kind = destination.transport
    if kind == REGISTRY:
        reference = destination.reference
        if reference.digest is not None and reference.digest != target.digest:
            cause = f"what would be copied there is {target.digest}"
            raise Invalid("copy", str(destination), cause, hint="leave the digest away, or name a tag")
        repository = engine.registries.to_push(reference, destination.credentials, frozenset())
        pushing = Push(engine.store, repository, {})
        with cancelled_at(hangup, pushing.cancel):
            yield from pushing.run(target, "" if reference.digest is not None else reference.tag)
    elif kind == STORE:
        yield from _name(engine, destination, target)
    elif kind in (LAYOUT, DIRECTORY):
        yield from _to_directory(engine, destination, target)
    else:
        _to_archive(engine, destination, target)


def _name(engine: Engine, destination: Location, target: Descriptor) -> Iterator[Message]:
    reference = destination.reference
    if reference.digest is not None:
        raise Invalid("copy", str(destination), "an image of ours is named by a tag", hint="leave the digest away")
    if target.media_type in MANIFESTS or _has_image(engine, target):
        engine.snapshots.unpack(engine.images.layer_openers(engine.images.load(target)))
    engine.store.names.put(reference, target)
    identifier = engine.images.id_of(target)
    events.publish(engine, "image", "load", identifier, {"name": identifier})
    yield {"status": f"Loaded image: {reference.familiar}"}


def _has_image(engine: Engine, target: Descriptor) -> bool:
    try:
        engine.images.load(target)
    except NotFound:
        return False  # an index with nothing for this machine
    return True


def _to_directory(engine: Engine, destination: Location, target: Descriptor) -> Iterator[Message]:
    if destination.transport == LAYOUT:
        layout = LayoutDirectory(destination.path, make=True)
        try:
            yield from give(layout, engine.store, target)
            layout.name(target, destination.name)
        finally:
            layout.close()
        return
    directory = ImageDirectory(destination.path, make=True)
    try:
        yield from give(directory, engine.store, target)
        directory.seal()
    finally:
        directory.close()


def _to_archive(engine: Engine, destination: Location, target: Descriptor) -> None:
    """Write an archive, which is there whole or not at all."""
    if destination.transport == OCI_ARCHIVE:
        saved = Saved(None, (), target, destination.name)
    else:
        if target.media_type in INDEXES:
            hint = f"use {OCI_ARCHIVE}:, or leave --all-platforms away"
            raise Invalid("copy", str(destination), "it holds images for one platform each", hint=hint)
        names = (destination.reference,) if destination.name else ()
        saved = Saved(engine.images.load(target), names, target)
    temporary = f"{destination.path}.{os.urandom(6).hex()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            write_archive(engine.store, [saved], fd)
            os.rename(temporary, destination.path)
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(fd)
    except OSError as wrong:
        raise Unavailable("copy", destination.path, os.strerror(wrong.errno or 0), hint="name a file") from None


def _forget(engine: Engine, lease: Lease) -> None:
    """Remove what the copy brought and nobody needs."""
    behind = collection.Marked()
    behind.blobs |= lease.held
    lease.held.clear()
    try:
        collection.collect(engine.store, engine.snapshots, behind)
    except OrlopError as wrong:
        engine.log.write(f"what a copy had brought stays: {wrong}")
