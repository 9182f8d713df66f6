"""Images as verbs see them: find, list, inspect, import. The image `host` is made on first use, without a network."""

from __future__ import annotations

import os
import time

from ...image import host
from ...snapshot import lent
from ...spec.errors import Invalid, NotFound, OrlopError
from ...spec.image import History
from ...spec.platform import Platform
from ...spec.reference import Reference
from .. import events
from ..caller import Sent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...image.image import Image, Layer
    from ..engine import Engine

HOST_NAMES = ("host", "host:latest")
HOST_CHECK_S = 10.0  # the programs of this machine are looked at so often, at most: it costs 3 ms


def find(engine: Engine, name: str) -> Image:
    """Return the image that a user means. Raises NotFound, Invalid."""
    if name not in HOST_NAMES:
        return engine.images.resolve(name)
    with engine.making_host:
        if time.monotonic() - engine.host_checked_at > HOST_CHECK_S:
            with engine.store.leases.hold():
                image = host.ensure(engine.images)  # made anew when the programs of this machine have changed
            engine.host_checked_at = time.monotonic()
            return image
    try:
        return engine.images.resolve(name)
    except NotFound:
        with engine.store.leases.hold():
            return host.ensure(engine.images)


def summaries(
    engine: Engine, wanted: Mapping[str, tuple[str, ...]] | None = None, *, platforms: bool = False
) -> list[dict[str, object]]:
    """Return what `orlop images` shows of every image that the filters let through, the newest first.

    platforms: with what an index lists, as `children`. Raises Invalid for a filter, NotFound for the image that one
    names.
    """
    images = engine.images.list()
    if wanted:
        from .filters import lists, matches

        shown = lists(engine, wanted)
        images = tuple(image for image in images if shown(image))
        if patterns := wanted.get("reference"):
            images = tuple(
                _only(image, [n for n in image.names if any(matches(n, p) for p in patterns)]) for image in images
            )
    return [
        {
            "id": str(image.id),
            "names": list(image.names),
            "digest": str(image.target.digest),
            "created": image.created,
            "size": image.size,
            "labels": dict(image.config.config.labels),
            **(_children(engine, image) if platforms else {}),
        }
        for image in images
    ]


def _children(engine: Engine, image: Image) -> dict[str, object]:
    from .platforms import children
    from .removal import users_of

    unpacked = sum(layer_bytes(engine, layer) for layer in image.layers)
    used = bool(users_of(engine, image))
    partial = image.chain_id is not None and lent.is_partial(engine.snapshots, image.chain_id)
    return {"children": children(engine, image.target), "unpacked": unpacked, "in_use": used, "partial": partial}


def _only(image: Image, names: list[str]) -> Image:
    return image.replace(names=tuple(names))


def _repository(name: str) -> str:
    """Return the repository that a user names, "" for an id."""
    try:
        return Reference.parse(name).familiar_name
    except Invalid:
        return ""


# What docker says of an image's configuration also where it is not set: programs read it without asking.
_UNSET: dict[str, object] = {
    **dict.fromkeys(("Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes")), "User": "", "WorkingDir": "",
}  # fmt: skip


def inspect(engine: Engine, name: str, platform: str = "") -> dict[str, object]:
    """Return docker's object of an image; platform: which of several of that name. Raises NotFound, Invalid."""
    image = _find_for(engine, name, platform)
    config = image.config
    references = [Reference.parse(one) for one in image.names]
    asked = _repository(name)  # its own comes first: an image that was made here has others, which no registry knows
    digests = {f"{one.familiar_name}@{one.digest or image.target.digest}": one.familiar_name for one in references}
    return {
        "Id": str(image.id),
        "RepoTags": [one.familiar for one in references if one.tag],
        "RepoDigests": sorted(digests, key=lambda digest: (digests[digest] != asked, digest)),
        "Comment": config.comment,
        "Created": config.created,
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "OsVersion": config.os_version,
        "Size": image.size,
        "Config": _UNSET | config.config.to_json(),
        "RootFS": {"Type": "layers", "Layers": [str(diff_id) for diff_id in config.rootfs.diff_ids]},
        "Descriptor": image.target.to_json(),
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
        **_partial(engine, image),
    }


def _partial(engine: Engine, image: Image) -> dict[str, object]:
    if image.chain_id is None or not lent.is_partial(engine.snapshots, image.chain_id):
        return {}
    from ..lazy import verb

    return {"Partial": verb.describe(engine, image)}


def history(engine: Engine, name: str, platform: str = "") -> list[dict[str, object]]:
    """Return the steps that made an image, the last one first, in the shape of docker's API. Raises NotFound."""
    image = _find_for(engine, name, platform)
    layers = list(image.layers)
    steps: list[dict[str, object]] = []
    for step in image.config.history or tuple(History() for _ in layers):
        layer = layers.pop(0) if not step.empty_layer and layers else None
        size = layer_bytes(engine, layer) if layer is not None else 0
        steps.append(
            {
                "Id": "<missing>",
                "Created": step.created,
                "CreatedBy": step.created_by,
                "Comment": step.comment,
                "Size": size,
                "Tags": None,
            }
        )
    if steps:
        steps[-1] |= {"Id": str(image.id), "Tags": list(image.names)}
    return steps[::-1]


def _find_for(engine: Engine, name: str, platform: str) -> Image:
    if not platform:
        return find(engine, name)
    from .platforms import find_for

    return find_for(engine, name, platform)


def layer_bytes(engine: Engine, layer: Layer) -> int:
    """Return what a layer occupies when it is unpacked, or else as it was sent."""
    try:
        return engine.snapshots.layer_usage(layer.chain_id).bytes
    except NotFound:
        return layer.descriptor.size


def import_archive(
    engine: Engine, archive: Sent | int, name: str, changes: Sequence[str], message: str, platform: str = ""
) -> str:
    """Make an image of an archive; return its id. Raises Invalid, Unavailable when its sender goes."""
    if platform and Platform.parse(platform).os != "linux":
        raise Invalid("import", f"an image for {platform}", "operating system is not supported", hint="linux is")
    with Sent.of(archive) as stream:
        if stream.isatty():
            hint = "name a file, or redirect one to standard input"
            raise Invalid("import", "the archive", "it is a terminal", hint=hint)
        try:
            with engine.store.leases.hold():
                image = engine.images.import_tar(stream, name, changes, message, platform)
        except OrlopError as wrong:
            path = os.readlink(f"/proc/self/fd/{stream.fileno()}")
            if wrong.subject == "the archive" and path.startswith("/"):
                wrong.subject = f"archive {path}"  # a descriptor came: its file's name is what the user knows
                wrong.hint = wrong.hint or "give a tar archive of a root file system, plain or compressed"
            raise
    if name:
        events.publish_image(engine, image, "tag", Reference.parse(name).tagged().familiar)
    events.publish_image(engine, image, "import")
    return str(image.id)
