"""Images that a user looks at as directories: which, where, and that their layers stay for so long.

The engine keeps a writable layer above the image, in which nothing is written, called mount-<12 hex>: by it the
image's layers are in use. The command mounts it, read-only, in the caller's own mount namespace: the engine mounts
nothing (I4).

    snapshots/active/mount-<12 hex>/mountpoint    the path                                          (writer: engine)
                                    image         the image's id
"""

from __future__ import annotations

import os

from ...spec.errors import Conflict, Invalid, NotFound, OrlopError
from ...spec.reference import Reference
from .listing import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..engine import Engine

PREFIX = "mount-"
NOTE_BYTES_MAX = 4096


def mount(engine: Engine, name: str, path: str) -> dict[str, object]:
    """Hold an image for a mount at path; return {"key", "mounts"}: what is to be mounted there. Raises NotFound."""
    if not path.startswith("/") or "\0" in path or len(os.fsencode(path)) > NOTE_BYTES_MAX:
        raise Invalid("mount", f"image {name}", f"{path[:200]!r} is no absolute path", hint="name a directory")
    if any(one["path"] == path for one in mounted(engine)):
        raise Conflict("mount", f"image {name}", f"an image is mounted at {path}", hint=f"orlop image unmount {path}")
    image = find(engine, name)
    key = f"{PREFIX}{os.urandom(6).hex()}"
    with engine.store.leases.hold() as lease:
        lease.add(*(layer.chain_id for layer in image.layers))
        mounts = engine.snapshots.prepare(key, engine.snapshots.unpack(engine.images.layer_openers(image)))
    directory = engine.snapshots.directory(key)
    for note, text in (("image", str(image.id)), ("mountpoint", path)):
        with open(f"{directory}/{note}", "w", errors="surrogateescape") as file:
            file.write(text)
    return {"key": key, "mounts": [one.to_json() for one in mounts]}


def mounted(engine: Engine) -> list[dict[str, str]]:
    """Return [{"key", "image", "names", "path"}] of all images that are held for a mount."""
    found = []
    for key in sorted(engine.snapshots.keys(PREFIX)):
        directory = engine.snapshots.directory(key)
        try:
            image, path = _note(f"{directory}/image"), _note(f"{directory}/mountpoint")
        except FileNotFoundError:
            image = path = ""  # it is being made, or was left when an engine died over it
        found.append({"key": key, "image": image, "names": _names(engine, image), "path": path})
    return found


def release(engine: Engine, key: str) -> None:
    """Let go of an image whose mount is gone. Raises NotFound."""
    if not key.startswith(PREFIX):
        raise NotFound("unmount", key, f"no image is mounted as {key[:100]}")
    engine.snapshots.remove(key)


def fold(engine: Engine, key: str, name: str, mtime_max_ns: int) -> str:
    """Make what was written at a mount that is gone a layer of its image, which gets a name; return the image's id.

    Where nothing was written the image stays. No file is later than mtime_max_ns. Raises NotFound, Unavailable.
    """
    from ...image.archive import write_image
    from ...spec.image import History, RootFs
    from ..steps.workspace import Workspace

    if not key.startswith(PREFIX):
        raise NotFound("fold", key, f"no image is mounted as {key[:100]}")
    image = find(engine, _note(f"{engine.snapshots.directory(key)}/image"))
    with engine.store.leases.hold():
        layer = Workspace(engine, image.layers, key).commit(mtime_max_ns)
        if layer is None:
            return str(image.id)
        layers, config = (*image.layers, layer), image.config
        written = History(created=config.created, created_by="mount")
        made = config.replace(
            rootfs=RootFs(type="layers", diff_ids=tuple(one.diff_id for one in layers)),
            history=(*config.history, written),
        )
        target = write_image(engine.store, tuple(one.descriptor for one in layers), made)
        engine.store.names.put(Reference.parse(name).tagged(), target)
        return str(engine.images.load(target).id)


def flatten(engine: Engine, name: str) -> str:
    """Make an image of one layer, with all files of another; return its id. It has no name."""
    from ...image.archive import write_image
    from ...snapshot.layered import open_layers
    from ...snapshot.pack import Packer
    from ...spec.image import OCI_LAYER, History, RootFs
    from ..steps.workspace import unpacked

    image = find(engine, name)
    with engine.store.leases.hold() as lease:
        lease.add(*(layer.chain_id for layer in image.layers))
        trees = engine.snapshots.trees(unpacked(engine, image.layers))
        with engine.store.writer() as ingest:
            packer = Packer(ingest.write)
            if trees:
                packer.add_directory(open_layers(trees, plain=len(trees) == 1), b".")
            packer.finish()
            layer = ingest.commit(media_type=OCI_LAYER)
        config = image.config.replace(
            rootfs=RootFs(type="layers", diff_ids=(layer.digest,)),
            history=(History(created=image.config.created, comment=f"merge of {len(image.layers)} layers"),),
        )
        target = write_image(engine.store, (layer,), config)
        engine.store.names.put(None, target)
        return str(engine.images.load(target).id)


def _note(path: str) -> str:
    with open(path, errors="surrogateescape") as file:
        return file.read(NOTE_BYTES_MAX)


def _names(engine: Engine, identifier: str) -> str:
    try:
        return " ".join(engine.images.resolve(identifier).names)
    except OrlopError:
        return ""
