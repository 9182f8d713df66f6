"""The verbs `tag`, `rmi` and `prune`: names given and taken, images that nobody uses gone, what lay behind them too.

The texts of the conflicts are docker's.
"""

from __future__ import annotations

import os

from ...image import collection
from ...spec.errors import Conflict, Invalid, NotFound, OrlopError
from ...spec.mount import IMAGE
from ...spec.reference import Reference
from .. import events
from ..containers import state
from .listing import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...image.image import Image
    from ..containers.record import ContainerRecord
    from ..engine import Engine

    Deleted = list[dict[str, str]]


def tag(engine: Engine, source: str, name: str) -> None:
    """Give an image one more name; an image that had it stays, without. Raises NotFound, Invalid."""
    image = find(engine, source)
    engine.images.tag(str(image.id) if source in ("host", "host:latest") else source, name)
    events.publish_image(engine, image, "tag", Reference.parse(name).tagged().familiar)


def untag(engine: Engine, image: Image, name: Reference) -> None:
    """Take a name away from an image, which stays, also without any. Raises NotFound for a name that it has not."""
    names = names_of(engine, image)
    if name not in names:
        cause = f"{name.familiar}: tag not known"
        raise NotFound("untag", f"image {name.familiar}", cause, hint=f"see its names: orlop images {image.id.short}")
    engine.store.names.remove(name, keep=True)
    _untagged(engine, image, name)


def untag_all(engine: Engine, name: str, unwanted: Sequence[str]) -> list[str]:
    """Take names away from an image, all that it has where none is given; return them. Raises NotFound, Invalid."""
    image = engine.images.resolve(name)
    gone = [Reference.parse(one).tagged() for one in unwanted] if unwanted else names_of(engine, image)
    for one in gone:
        untag(engine, image, one)
    return list(map(str, gone))


def remove(engine: Engine, name: str, *, force: bool = False, prune: bool = True) -> Deleted:
    """Take a name away, and with the last one the image; return docker's list of {"Untagged"} and {"Deleted"}.

    prune False leaves what lay behind the image. Raises NotFound, Conflict when something still needs it.
    """
    image = engine.images.resolve(name)
    names = names_of(engine, image)
    meant = _meant(name, names)
    users = users_of(engine, image)
    if meant is None:
        return _remove_by_id(engine, image, names, users, force=force, prune=prune)
    if len(names) > 1:
        engine.store.names.remove(meant)
        return [_untagged(engine, image, meant)]
    if users and not force:
        container = users[0]
        cause = (
            f'unable to remove repository reference "{name}" (must force) - container {container.id[:12]} is using its '
            f"referenced image {image.id.short}"
        )
        raise _conflict(name, cause, f"remove the container first, or use: orlop rmi --force {name}")
    if users:
        # what a container stands on stays, without a name: it is gone with the container and the next prune
        engine.store.names.put(None, image.target)
        engine.store.names.remove(meant)
        return [_untagged(engine, image, meant)]
    return _delete(engine, image, [meant], prune=prune)


def prune(
    engine: Engine, *, unused: bool, filters: dict[str, tuple[str, ...]], packed: bool = False
) -> dict[str, object]:
    """Remove images without a name, or with unused all that no container uses, and what no image needs.

    packed: of what stays, layers are kept as they are unpacked only, where they can be packed again.
    Returns docker's {"ImagesDeleted": [...], "SpaceReclaimed": bytes}. Raises Invalid for a filter.
    """
    from .filters import prunes

    keeps = prunes(filters)
    if "dangling" in filters:
        unused = filters["dangling"][-1].lower() in ("0", "false")
    before = _bytes(engine)
    deleted: Deleted = []
    for image in engine.images.list():
        if users_of(engine, image) or (image.names and not unused) or not keeps(image):
            continue
        deleted += _delete(engine, image, names_of(engine, image), prune=False)
    swept = collection.collect(engine.store, engine.snapshots)
    deleted += [{"Deleted": str(chain_id)} for chain_id in swept.layers]
    if packed:
        from .recipes import drop_packed

        drop_packed(engine)
    reclaimed = max(before - _bytes(engine), 0)
    events.publish(engine, "image", "prune", "", {"reclaimed": str(reclaimed)})
    return {"ImagesDeleted": deleted, "SpaceReclaimed": reclaimed}


def names_of(engine: Engine, image: Image) -> list[Reference]:
    """Return all names of an image as they stand in the index."""
    found = (name for name, target in engine.store.names.entries() if target.digest == image.target.digest)
    return [name for name in found if name is not None]


def users_of(engine: Engine, image: Image) -> list[ContainerRecord]:
    """Return the containers that were made from an image, or mount it."""

    def uses(record: ContainerRecord) -> bool:
        mounted = (point.source for point in record.mounts if point.type == IMAGE)
        return image.id in (record.image_id, *mounted)

    return [record for record in engine.records.all() if uses(record)]


def _meant(name: str, names: Sequence[Reference]) -> Reference | None:
    """Return which of the image's names a user wrote, None when it was an ID or a digest."""
    try:
        wanted = Reference.parse(name).tagged()
    except Invalid:
        return None
    if wanted.digest is not None:
        wanted = wanted.replace(tag="")
        by_digest = [one for one in names if one.digest is None and one.name == wanted.name]
        return wanted if wanted in names else by_digest[0] if len(by_digest) == 1 else None
    return wanted if wanted in names else None


def _remove_by_id(
    engine: Engine,
    image: Image,
    names: list[Reference],
    users: list[ContainerRecord],
    *,
    force: bool,
    prune: bool,
) -> Deleted:
    short = image.id.short
    running = [one for one in users if engine.observe(one.id).state in (state.RUNNING, state.PAUSED)]
    if running:
        container = running[0].id[:12]
        cause = f"unable to delete {short} (cannot be forced) - image is being used by running container {container}"
        raise _conflict(short, cause, f"stop the container first: orlop stop {container}")
    if len(names) > 1 and not force:
        cause = f"unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        raise _conflict(short, cause, f"remove one name after the other, or use: orlop rmi --force {short}")
    if users and not force:
        container = users[0].id[:12]
        cause = f"unable to delete {short} (must be forced) - image is being used by stopped container {container}"
        raise _conflict(short, cause, f"remove the container first: orlop rm {container}")
    return _delete(engine, image, names, prune=prune)


def _delete(engine: Engine, image: Image, names: Sequence[Reference], *, prune: bool) -> Deleted:
    """Take the image out of the index and remove what only it needed."""
    behind = collection.reachable(engine.store, image.target)
    for one in engine.store.names.referrers(image.target.digest):
        behind.blobs |= collection.reachable(engine.store, one).blobs
    removed = engine.store.names.forget(image.target.digest)
    deleted = [_untagged(engine, image, one) for one in (removed or names)]
    _stop_bringing(engine, image)
    others = {other.id for other in engine.images.list()}
    if image.id not in others:
        deleted.append({"Deleted": str(image.id)})
        events.publish_image(engine, image, "delete")
    if prune:
        try:
            swept = collection.collect(engine.store, engine.snapshots, behind)
        except OrlopError as wrong:  # the image is gone; what lay behind it is the next collection's
            engine.log.write(f"what lay behind image {image.id} stays: {wrong}")
        else:
            order = {layer.chain_id: at for at, layer in enumerate(image.layers)}
            gone = sorted(swept.layers, key=lambda chain_id: -order.get(chain_id, 0))
            deleted += [{"Deleted": str(chain_id)} for chain_id in gone]
    return deleted


def _stop_bringing(engine: Engine, image: Image) -> None:
    """Let nobody fetch layers of an image that is gone."""
    if os.path.isdir(f"{engine.paths.run}/lazy"):
        from ..lazy import verb

        verb.give_up(engine, image.manifest.digest)


def _untagged(engine: Engine, image: Image, name: Reference) -> dict[str, str]:
    events.publish_image(engine, image, "untag")
    return {"Untagged": name.familiar}


def _conflict(name: str, cause: str, hint: str) -> Conflict:
    return Conflict("remove", f"image {name}", f"conflict: {cause}", hint=hint)


def _bytes(engine: Engine) -> int:
    from .disk import stored_bytes

    return stored_bytes(engine)
