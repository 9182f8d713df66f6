"""What the engine does about images that run before they are here: has them served, takes them up, waits for them."""

from __future__ import annotations

import os
import signal
import time

from ...linux import fuse, mount
from ...snapshot import lent
from ...spec.errors import OrlopError, Unavailable
from ...spec.image import chain_ids
from ...spec.reference import Reference
from ...spec.tar.estargz import TOC_DIGEST
from ..credentials import for_places
from . import attend, servers
from .orders import Orders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from ...content.leases import Lease
    from ...image.image import Image
    from ...image.pull import Chosen, Pull
    from ...spec.digest import Digest
    from ...spec.registry import Credentials
    from ..engine import Engine

    Message = dict[str, object]

NOTHING_CAME_S_MAX = 120.0
_POLL_S = 0.1


def pull(engine: Engine, pulling: Pull, credentials: Credentials, lease: Lease) -> Generator[Message, None, bool]:
    """Let an image run before its layers are here, and give it its name; yield docker's messages.

    Returns False where that can't be, after it said why: then it is pulled the ordinary way. Raises OrlopError.
    """
    reference = pulling.reference
    target, one = pulling.describe(lease)
    assert one.config is not None  # `describe` has seen to it
    chain = chain_ids(one.config.rootfs.diff_ids)
    lease.add(*(layer.digest for layer in one.manifest.layers), *chain)
    missing = [number for number, chain_id in enumerate(chain) if not engine.snapshots.has(chain_id)]
    here = (engine.store.stat(layer.digest) == layer.size for layer in one.manifest.layers)
    if all(here) and not missing:
        return False
    try:
        _check(engine, one, missing)
        with servers.starting:
            if not lent.can_run(engine.snapshots, chain[-1]):
                orders = Orders(
                    root=engine.paths.root,
                    run=engine.paths.run,
                    directory=servers.directory_of(engine, one.descriptor.digest),
                    reference=str(reference.replace(tag="", digest=target.digest)),
                    platform=str(one.config.platform),
                    manifest=one.descriptor,
                    credentials=credentials,
                )
                if not credentials.is_empty:
                    attend.credentials[engine.paths.root, one.descriptor.digest] = credentials
                attend.start(engine, orders, chain[-1])
    except OrlopError as wrong:
        yield {"status": f"Not lazily: {wrong.cause}"}
        return False
    yield {"status": f"Pulling from {reference.path}", "id": str(reference.digest or reference.tag)}
    for number, layer in enumerate(one.manifest.layers):
        status = "Read from the registry when it is wanted" if number in missing else "Already exists"
        yield {"status": status, "progressDetail": {}, "id": layer.digest.short}
    engine.store.names.put(reference, target)
    attend.tell(engine, one.descriptor.digest, "partial")
    yield {"status": f"Digest: {target.digest}"}
    yield {"status": f"Status: Runs before it is here: {reference.familiar}"}
    return True


def _check(engine: Engine, one: Chosen, missing: list[int]) -> None:
    """Raise Unavailable for what can't be read in part here."""
    cause = ""
    if not engine.host.runtime.initial_user_namespace:
        cause = "the kernel mounts EROFS for root of the machine only"
    elif engine.snapshots.driver.name != "overlay2":
        cause = f"the storage driver {engine.snapshots.driver.name} has no place for it"
    elif not os.access(fuse.DEVICE, os.R_OK | os.W_OK) or not mount.has_filesystem("erofs"):
        cause = "this kernel has no FUSE or no EROFS"
    for number in missing:
        layer = one.manifest.layers[number]
        if TOC_DIGEST not in layer.annotations:
            cause = cause or f"its manifest names no table of contents for layer {layer.digest.short}"
    if cause:
        raise Unavailable("read", "the image in part", cause)


# -- those that are here in part -------------------------------------------------------------------------------------


def is_partial(engine: Engine, image: Image) -> bool:
    """Tell whether an image is here in part only, whether anybody serves it or not."""
    return image.chain_id is not None and lent.is_partial(engine.snapshots, image.chain_id)


def describe(engine: Engine, image: Image) -> dict[str, object]:
    """Return what `inspect` shows of an image that is here in part: what has come of it, and who brings the rest."""
    missing = [layer for layer in image.layers if not engine.snapshots.has(layer.chain_id)]
    sizes = [(engine.store.stat(layer.descriptor.digest), layer.descriptor) for layer in missing]
    here = sum(engine.store.coming(blob.digest) if size is None else size for size, blob in sizes)
    directory = servers.directory_of(engine, image.manifest.digest)
    return {
        "MissingLayers": [str(layer.descriptor.digest) for layer in missing],
        "MissingBytes": max(sum(blob.size for _, blob in sizes) - here, 0),
        "Served": servers.lives(directory),
        "Trouble": servers.trouble(directory),
    }


def ensure(engine: Engine, chain_id: Digest) -> None:
    """Have a layer served again that is here in part, where nobody serves it any more. Raises Unavailable."""
    if not lent.is_partial(engine.snapshots, chain_id) or lent.can_run(engine.snapshots, chain_id):
        return
    image = next((one for one in engine.images.list() if one.names and one.chain_id == chain_id), None)
    if image is None:
        cause = "its image is here in part only, and has no name to fetch the rest by"
        raise Unavailable("read", f"layer {chain_id}", cause, hint="pull its image")
    try:
        orders = _orders(engine, image)  # here: a credential helper takes the time that it takes
        with servers.starting:
            if lent.is_partial(engine.snapshots, chain_id) and not lent.can_run(engine.snapshots, chain_id):
                attend.start(engine, orders, chain_id)
                attend.tell(engine, image.manifest.digest, "partial")
    except OrlopError as wrong:
        cause = f"its image is here in part only, and the rest can't be fetched: {wrong}"
        raise Unavailable("read", f"layer {chain_id}", cause, hint=f"orlop pull {image.names[0]}") from None


def _orders(engine: Engine, image: Image) -> Orders:
    reference = Reference.parse(image.names[0])
    known = attend.credentials.get((engine.paths.root, image.manifest.digest))
    if known is None:  # an earlier engine fetched it: ask again each time, for the user may have logged in since
        others = engine.registries.hosts().others(reference.domain)
        known = for_places(reference.domain, others, reference.path)
    return Orders(
        root=engine.paths.root,
        run=engine.paths.run,
        directory=servers.directory_of(engine, image.manifest.digest),
        reference=str(reference.replace(tag="", digest=image.target.digest)),
        platform=str(image.config.platform),
        manifest=image.manifest,
        credentials=known,
    )


def take_up(engine: Engine) -> None:
    """Find servers that live; clear away those that died, and have what they served served again.

    What is whole by now is settled, and what nobody has a name for or stands on is forgotten.
    """
    for directory in servers.directories(engine.paths.run):
        manifest = servers.manifest_of(directory)
        pid = servers.owner(directory)
        if pid and manifest is not None:
            top = next((one.chain_id for one in engine.images.list() if one.manifest.digest == manifest), None)
            attend.attend(engine, pid, manifest, top)
        elif not pid:
            servers.clear(directory)
    root = engine.snapshots.root
    images = [image for image in engine.images.list() if image.names]
    used = engine.snapshots.in_use() | {layer.chain_id for image in images for layer in image.layers}
    for chain_id in lent.lent(root):
        if engine.snapshots.has(chain_id):
            lent.settle(root, chain_id)
        elif not lent.is_served(root, chain_id) and chain_id not in used:
            lent.forget(root, chain_id)
    for image in images:
        if (
            image.chain_id is not None
            and is_partial(engine, image)
            and not lent.can_run(engine.snapshots, image.chain_id)
        ):
            attend.again(engine, image.chain_id)


# -- who waits for them ----------------------------------------------------------------------------------------------


def awaited(engine: Engine, digest: Digest) -> bool:
    """Wait for a layer's blob that a server brings. False where none does. Raises Unavailable when nothing comes."""
    directory = servers.brings(engine, digest)
    if not directory:
        return False
    came_at, seen = time.monotonic(), -1
    while not os.path.exists(engine.store.path(digest)) and servers.lives(directory):
        coming = engine.store.coming(digest)
        if coming != seen:
            came_at, seen = time.monotonic(), coming
        if time.monotonic() > came_at + NOTHING_CAME_S_MAX:
            cause = servers.trouble(directory) or "nothing comes from its registry"
            raise Unavailable("read", f"blob {digest}", cause, hint="pull the image again")
        time.sleep(_POLL_S)
    return os.path.exists(engine.store.path(digest))


def await_whole(engine: Engine, chain_id: Digest) -> None:
    """Wait until a layer and all below it are unpacked. Raises Unavailable when nobody brings them."""
    while not engine.snapshots.has(chain_id):
        if not any(map(servers.lives, servers.directories(engine.paths.run))):
            if engine.snapshots.has(chain_id):
                return
            cause = "its image is here in part only, and nobody brings the rest"
            raise Unavailable("read", f"layer {chain_id}", cause, hint="pull its image")
        time.sleep(_POLL_S)


def give_up(engine: Engine, manifest: Digest) -> None:
    """Let nobody bring an image any more whose name is gone; who runs from it goes on as far as that goes."""
    directory = servers.directory_of(engine, manifest)
    pid = servers.owner(directory)
    if pid > 0:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
