"""One image of a name that stands for several platforms: found, removed, shown."""

from __future__ import annotations

from ...image import collection
from ...spec.errors import Conflict, Invalid, NotFound, OrlopError
from ...spec.image import INDEXES, MANIFESTS, Index, parse_manifest
from ...spec.platform import Platform
from .listing import find, layer_bytes
from .removal import users_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...image.image import Image
    from ...spec.image import Descriptor
    from ..engine import Engine


def find_for(engine: Engine, name: str, platform: str) -> Image:
    """Return the image that a name means for a platform, with the name's names; "" is this machine's.

    Raises NotFound when it is not here for that platform.
    """
    image = find(engine, name)
    if not platform:
        return image
    descriptor = engine.images.for_platform(image.target, Platform.parse(platform))
    return engine.images.load(descriptor).replace(names=image.names, target=image.target)


def remove_platforms(engine: Engine, name: str, platforms: Sequence[str], *, force: bool) -> list[dict[str, str]]:
    """Remove the images for these platforms of a name; return docker's list. The name stays while one is left.

    Raises NotFound, Conflict when a container uses one, or when nothing would be left of the name.
    """
    wanted = [find_for(engine, name, platform) for platform in platforms]
    target = wanted[0].target
    if target.media_type not in INDEXES:
        cause = f"image {name} has one platform only: {wanted[0].config.platform}"
        raise Conflict("remove", f"image {name}", cause, hint=f"remove it whole: orlop rmi {name}")
    gone = {image.manifest.digest for image in wanted}
    if not {one.digest for one in here(engine, target)} - gone:
        raise Conflict("remove", f"image {name}", "no platform of it would be left", hint=f"use: orlop rmi {name}")
    deleted = []
    for image in wanted:
        users = users_of(engine, image)
        if users and not force:
            cause = f"container {users[0].id[:12]} is using its image for {image.config.platform}"
            raise Conflict("remove", f"image {name}", f"conflict: {cause}", hint=f"remove it: orlop rm {users[0].name}")
    for image in wanted:
        behind = collection.reachable(engine.store, image.manifest)
        with engine.store.leases.collection() as remove_unless_leased:
            digest = image.manifest.digest
            remove_unless_leased(digest, lambda digest=digest: engine.store.remove(digest))  # type: ignore[misc]
        try:
            collection.collect(engine.store, engine.snapshots, behind)
        except OrlopError as wrong:
            engine.log.write(f"what lay behind image {image.manifest.digest} stays: {wrong}")
        deleted.append({"Deleted": str(image.manifest.digest)})
    return deleted


def here(engine: Engine, target: Descriptor) -> Iterator[Descriptor]:
    """Yield the manifests of an index that are here, attestations left out."""
    document = parse_manifest(engine.store.get(target.digest), target.media_type, f"manifest {target.digest}")
    if isinstance(document, Index):
        for one in document.manifests:
            if one.media_type in MANIFESTS and _is_shown(one) and engine.store.stat(one.digest) is not None:
                yield one


def _is_shown(descriptor: Descriptor) -> bool:
    return descriptor.platform is None or descriptor.platform.os != "unknown"


def children(engine: Engine, target: Descriptor) -> list[dict[str, object]]:
    """Return [{"platform", "id", "size", "here"}] of an index, in its order; of a manifest nothing. size: its blobs."""
    if target.media_type not in INDEXES:
        return []
    document = parse_manifest(engine.store.get(target.digest), target.media_type, f"manifest {target.digest}")
    if not isinstance(document, Index):
        return []
    found: list[dict[str, object]] = []
    for one in document.manifests:
        if one.media_type not in MANIFESTS or not _is_shown(one):
            continue
        image = _loaded(engine, one)
        found.append(
            {
                "platform": str(one.platform or (image.config.platform if image is not None else "")),
                "id": str(one.digest),
                "size": image.size if image is not None else 0,
                "here": image is not None,
            }
        )
    return found


def manifests(engine: Engine, name: str) -> list[dict[str, object]]:
    """Return docker's ManifestSummary of each manifest that a name stands for, attestations too. Raises NotFound."""
    target = find(engine, name).target
    listed = [target]
    if target.media_type in INDEXES:
        document = parse_manifest(engine.store.get(target.digest), target.media_type, f"manifest {target.digest}")
        listed = list(document.manifests) if isinstance(document, Index) else []
    return [_summary(engine, one) for one in listed if one.media_type in MANIFESTS]


def _summary(engine: Engine, descriptor: Descriptor) -> dict[str, object]:
    image = _loaded(engine, descriptor)
    content = image.size if image is not None else descriptor.size
    told: dict[str, object] = {
        "ID": str(descriptor.digest),
        "Descriptor": descriptor.to_json(),
        "Available": image is not None,
        "Size": {"Content": content, "Total": content},
        "Kind": "image" if _is_shown(descriptor) else "attestation",
    }
    if _is_shown(descriptor):
        platform = descriptor.platform or (image.config.platform if image is not None else None)
        unpacked = sum(layer_bytes(engine, layer) for layer in image.layers) if image is not None else 0
        told["Size"] = {"Content": content, "Total": content + unpacked}
        told["ImageData"] = {
            "Platform": platform.to_json() if platform is not None else {},
            "Containers": [user.id for user in users_of(engine, image)] if image is not None else [],
            "Size": {"Unpacked": unpacked},
        }
    return told


def _loaded(engine: Engine, descriptor: Descriptor) -> Image | None:
    try:
        return engine.images.load(descriptor)
    except (NotFound, Invalid):
        return None
