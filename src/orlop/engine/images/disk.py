"""`system df`: what the data directory holds, as docker tells it and, to verify that, directory by directory.

Every byte belongs to one line of `attributed`; what no line knows is called unknown, and `system fsck` names it.
"""

from __future__ import annotations

import os

from ...image import collection
from ...snapshot.usage import measure
from ...spec.errors import NotFound
from ..containers import listing as containers
from ..steps import usage as steps
from .removal import names_of, users_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...image.image import Image
    from ...spec.digest import Digest
    from ..engine import Engine

    Add = Callable[[str, str, int], None]

# What lies in the data directory beside content/ and snapshots/, and in whose name.
PLACES = {
    "containers": "containers: records and logs",
    "build": "builds: records of the cache, logs, digests of contexts",
    "volumes": "volumes",
    "networks": "networks",
    "certs.d": "certificates",
    "engine-id": "the engine's name",
    "engine.log": "the engine's log",
    "engine.log.1": "the engine's log",
    "events.jsonl": "events",
    "events.jsonl.1": "events",
    "registry": "registry",
    "secrets": "secrets",
    "secrets.key": "secrets",
    "secrets.key.next": "secrets",
    "settings.json": "the engine's settings",
    "configs": "configs",
    "machines": "virtual machines",
    "sockets": "scoped sockets and what was done through them",
    "trimmed": "events",
}


def usage(engine: Engine, *, verify: bool = False) -> dict[str, object]:
    """Return docker's /system/df object; with verify also `Attributed`: [{"what", "bytes", "path"}] of all bytes."""
    layers, images, owners = _layers(engine)
    found: dict[str, object] = {
        # What images are counted as: docker's client takes those in use off it, for what can be had back.
        "LayersSize": _blobs(engine) + sum(layers.values()),
        "Images": [_image(engine, same, layers, owners) for same in _by_id(images)],
        "Containers": containers.summaries(engine, True, {}, size=True),
        "Volumes": _volumes(engine),
        "BuildCache": steps.usage(engine),
    }
    if verify:
        found["Attributed"] = attributed(engine)
    return found


def shared_sizes(engine: Engine) -> dict[str, int]:
    """Return how much of each image others have too, by the images' ids."""
    layers, images, owners = _layers(engine)
    return {str(same[0].id): _sizes(engine, same, layers, owners)[1] for same in _by_id(images)}


def _by_id(images: Sequence[Image]) -> list[list[Image]]:
    """Return the images, those together that are one to docker: of one ID, packed in more than one way."""
    found: dict[Digest, list[Image]] = {}
    for image in images:
        found.setdefault(image.id, []).append(image)
    return list(found.values())


def _layers(engine: Engine) -> tuple[dict[Digest, int], Sequence[Image], dict[Digest, int]]:
    """Return what each unpacked layer occupies, the images, and of how many images a layer is."""
    images = engine.images.list()
    owners: dict[Digest, int] = {}
    for same in _by_id(images):
        for chain_id in {layer.chain_id for layer in same[0].layers}:
            owners[chain_id] = owners.get(chain_id, 0) + 1
    return {chain_id: _bytes(engine, chain_id) for chain_id in engine.snapshots.unpacked()}, images, owners


def stored_bytes(engine: Engine) -> int:
    """Return what blobs and unpacked layers occupy."""
    return _blobs(engine) + sum(_bytes(engine, chain_id) for chain_id in engine.snapshots.unpacked())


def _blobs(engine: Engine) -> int:
    return sum(engine.store.occupied(digest) for digest in engine.store.digests())


def attributed(engine: Engine) -> list[dict[str, object]]:
    """Return what occupies how many bytes (of the disk's blocks) below which path; together they are all of it."""
    root = engine.paths.root
    lines: list[dict[str, object]] = []
    marked = collection.mark(engine.store)
    needed = collection.needed_layers(engine.snapshots, marked)
    cached = {digest.hex for digest in engine.step_cache.keep(engine.snapshots.chain)}
    by_name = {digest.hex: digest in marked.blobs for digest in engine.store.digests()}

    def add(what: str, path: str, size: int) -> None:
        for line in lines:
            if line["what"] == what:
                line["bytes"] = int(str(line["bytes"])) + size
                return
        lines.append({"what": what, "bytes": size, "path": path.removeprefix(root + "/")})

    own = os.stat(root)
    add("the directory itself", root, own.st_blocks * 512)
    for name in sorted(os.listdir(root)):
        path = f"{root}/{name}"
        if name == "content":
            _content(path, by_name, cached, add)
        elif name == "snapshots":
            _snapshots(path, {chain_id.hex for chain_id in needed}, cached, add)
        else:
            add(PLACES.get(name, "unknown"), path, _measure(path))
    return lines


def _content(root: str, blobs: dict[str, bool], cached: set[str], add: Add) -> None:
    add("the image store's directories", root, os.stat(root).st_blocks * 512)
    for name in sorted(os.listdir(root)):
        path = f"{root}/{name}"
        if name == "recipes":
            add("recipes of blobs of images", path, _measure(path))
        elif name == "ingest":
            add("downloads under way or interrupted", path, _measure(path))
        elif name != "blobs":
            known = name in ("index.json", "oci-layout", "host.json", "leases")
            add("the image store's index" if known else "unknown", path, _measure(path))
    add("the image store's directories", root, os.stat(f"{root}/blobs").st_blocks * 512)
    for algorithm in os.listdir(f"{root}/blobs"):
        directory = f"{root}/blobs/{algorithm}"
        add("the image store's directories", root, os.stat(directory).st_blocks * 512)
        for name in os.listdir(directory):
            path = f"{directory}/{name}"
            what = "blobs of images" if blobs.get(name) else "blobs that no image needs" if name in blobs else "unknown"
            if name in cached and not blobs.get(name):
                what = "the build cache's layers"
            add(what, path if what == "unknown" else directory, _measure(path))


def _snapshots(root: str, needed: set[str], cached: set[str], add: Add) -> None:
    add("the snapshots' directories", root, os.stat(root).st_blocks * 512)
    for name in sorted(os.listdir(root)):
        path = f"{root}/{name}"
        if name != "layers":
            what = {
                "active": "containers: what they wrote",
                "whole": "unpacked layers, as one tree for each image",
                "lazy": "layers that run, or ran, before they were here",
                "driver": "the snapshots' directories",
                "unpacking": "layers being unpacked",
                "trash": "what is being removed",
            }.get(name, "unknown")
            add(what, path, _measure(path))
            continue
        add("the snapshots' directories", root, os.stat(path).st_blocks * 512)
        for layer in os.listdir(path):
            what = "unpacked layers" if layer in needed else "unpacked layers that no image needs"
            if layer in cached and layer not in needed:
                what = "the build cache's layers"
            add(what, path, _measure(f"{path}/{layer}"))


def _measure(path: str) -> int:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            return measure(path).bytes
        return os.lstat(path).st_blocks * 512
    except FileNotFoundError:
        return 0


def _bytes(engine: Engine, chain_id: Digest) -> int:
    try:
        return engine.snapshots.layer_usage(chain_id).bytes
    except NotFound:
        return 0


def _image(
    engine: Engine, same: Sequence[Image], layers: dict[Digest, int], owners: dict[Digest, int]
) -> dict[str, object]:
    size, shared = _sizes(engine, same, layers, owners)
    return {
        "Id": str(same[0].id),
        "RepoTags": sorted(name.familiar for image in same for name in names_of(engine, image) if name.tag),
        "Created": same[0].created,
        "Size": size,
        "SharedSize": shared,
        "Containers": len(users_of(engine, same[0])),
    }


def _sizes(
    engine: Engine, same: Sequence[Image], layers: dict[Digest, int], owners: dict[Digest, int]
) -> tuple[int, int]:
    """Return what an image occupies, packed (in each way) and unpacked, and what of it others have too."""
    own = {layer.chain_id: layers.get(layer.chain_id, 0) for layer in same[0].layers}
    packed = {layer.descriptor.digest: layer.chain_id for image in same for layer in image.layers}
    for digest, chain_id in packed.items():
        own[chain_id] += engine.store.occupied(digest)
    return sum(own.values()), sum(size for chain_id, size in own.items() if owners.get(chain_id, 0) > 1)


def _volumes(engine: Engine) -> list[dict[str, object]]:
    used = [point.name for record in engine.records.all() for point in record.mounts if point.name]
    return [
        {
            "Name": volume.name,
            "UsageData": {
                "Size": _measure(f"{engine.paths.root}/volumes/{volume.name}"),
                "RefCount": used.count(volume.name),
            },
        }
        for volume in engine.volumes.all()
    ]
