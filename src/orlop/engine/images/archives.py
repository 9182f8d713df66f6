"""The verbs `save` and `load`: images to and from archives that come and go as descriptors."""

from __future__ import annotations

import os

from ...image import collection
from ...image.load import Loaded
from ...image.load import load as load_archive
from ...image.save import Saved, whole_target, write_archive
from ...spec.errors import Conflict, Invalid, NotFound, OrlopError
from ...spec.platform import Platform
from ...spec.reference import Reference
from .. import events
from ..caller import Sent
from .listing import find
from .platforms import find_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...spec.digest import Digest
    from ..engine import Engine

    Message = dict[str, object]


def save(engine: Engine, names: Sequence[str], output: int, platform: str = "") -> None:
    """Write images to a descriptor: of a repository without a tag all its tags. Raises NotFound, Unavailable."""
    if os.isatty(output):
        hint = "use the -o flag or redirect"
        raise Invalid("save", "images", "cowardly refusing to save to a terminal", hint=hint)
    with engine.store.leases.hold() as lease:
        saved = []
        for name in names:
            for meant in _meant(engine, name):
                image = find_for(engine, name if meant is None else str(meant), platform)
                target = image.manifest if platform else whole_target(engine.store, image)
                lease.add(target.digest, image.id, *(layer.descriptor.digest for layer in image.layers))
                saved.append(Saved(image, (meant,) if meant is not None and meant.tag else (), target))
                events.publish(engine, "image", "save", str(image.id), {"name": str(image.id)})
        write_archive(engine.store, saved, output)


def check(engine: Engine, names: Sequence[str]) -> None:
    """Raise NotFound for a name that `save` would not find."""
    for name in names:
        for meant in _meant(engine, name):
            find(engine, name if meant is None else str(meant))


def _meant(engine: Engine, name: str) -> list[Reference | None]:
    """Return the names under which a user's word is saved; None for an ID."""
    known = [one for one, _ in engine.store.names.entries() if one is not None]
    try:
        reference = Reference.parse(name)
    except Invalid:
        return [None]
    if not reference.tag and not reference.digest:
        tags = [one for one in known if one.name == reference.name and one.tag]
        if tags:
            return list(tags)
    return [reference.tagged()] if reference.tagged() in known else [None]


def load(engine: Engine, archive: Sent | int, platform: str = "", *, force: bool = False) -> Iterator[Message]:
    """Take in all images of an archive; yield what docker's `load` says.

    force: names of images that are here go to the archive's, whatever it calls them. Raises Invalid, and Conflict for
    such a name without force (SEC-49); then nothing was named.
    """
    stream = Sent.of(archive)
    if stream.isatty():
        hint = "use -i to name a file, or redirect one to standard input"
        raise Invalid("load", "images", "requested load from stdin, but stdin is empty", hint=hint)
    with engine.store.leases.hold() as lease, stream:
        try:
            loaded = load_archive(engine.store, stream, lease)
            for one in loaded:
                _prove(engine, one, platform)
                if not force:
                    _check_names(engine, one)
        except OrlopError:
            _forget(engine, lease.held)
            raise
        for one in loaded:
            yield from _name(engine, one)
        _forget(engine, lease.held)  # the archive's own index.json and its like are no part of any image


def _prove(engine: Engine, loaded: Loaded, platform: str) -> None:
    """Unpack an image: that its layers are those of its configuration is known only then."""
    try:
        if platform:
            engine.images.for_platform(loaded.target, Platform.parse(platform))
        image = engine.images.load(loaded.target)
    except NotFound:
        if platform:
            raise
        return  # an index with nothing for this machine
    engine.snapshots.unpack(engine.images.layer_openers(image))


def _check_names(engine: Engine, loaded: Loaded) -> None:
    for name in loaded.names:
        before = engine.store.names.get(name)
        if before is not None and engine.images.id_of(before) != engine.images.id_of(loaded.target):
            cause = f"the archive calls an image {name.familiar}, and another one has that name here"
            hint = f"use --force to give the name to the archive's, or first: orlop tag {name.familiar} OTHER"
            raise Conflict("load", f"image {name.familiar}", cause, hint=hint)


def _name(engine: Engine, loaded: Loaded) -> Iterator[Message]:
    for name in loaded.names:
        before = engine.store.names.get(name)
        engine.store.names.put(name, loaded.target)
        if before is not None and before.digest != loaded.target.digest:
            old = engine.images.id_of(before)
            if old != engine.images.id_of(loaded.target):
                told = f"The image {name.familiar} already exists, renaming the old one with ID {old} to empty string"
                yield {"status": told}
        yield {"status": f"Loaded image: {name.familiar}"}
    identifier = engine.images.id_of(loaded.target)
    if not loaded.names:
        engine.store.names.put(None, loaded.target)
        yield {"status": f"Loaded image ID: {identifier}"}
    events.publish(engine, "image", "load", identifier, {"name": identifier})


def _forget(engine: Engine, held: set[Digest]) -> None:
    """Remove what an archive brought and no image needs."""
    behind = collection.Marked()
    behind.blobs |= held
    held.clear()
    try:
        collection.collect(engine.store, engine.snapshots, behind)
    except OrlopError as wrong:
        engine.log.write(f"what an archive brought and no image needs stays: {wrong}")
