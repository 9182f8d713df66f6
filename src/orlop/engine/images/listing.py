"""Images as verbs see them: find, list, inspect, import. The image `host` is made on first use, without a network."""

from __future__ import annotations

import os
import time

from ...image import host
from ...spec.errors import Invalid, NotFound, OrlopError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...image.image import Image
    from ..engine import Engine

HOST_NAMES = ("host", "host:latest")
HOST_CHECK_S = 10.0  # the programs of this machine are looked at so often, at most: it costs 3 ms


def find(engine: Engine, name: str) -> Image:
    """Return the image that a user means. Raises NotFound, Invalid."""
    if name not in HOST_NAMES:
        return engine.images.resolve(name)
    with engine.making_host:
        if time.monotonic() - engine.host_checked_at > HOST_CHECK_S:
            image = host.ensure(engine.images)  # made anew when the programs of this machine have changed
            engine.host_checked_at = time.monotonic()
            return image
    try:
        return engine.images.resolve(name)
    except NotFound:
        return host.ensure(engine.images)


def summaries(engine: Engine) -> list[dict[str, object]]:
    """Return what `orlop images` shows of every image, the newest first."""
    return [
        {"id": str(image.id), "names": list(image.names), "created": image.created, "size": image.size}
        for image in engine.images.list()
    ]


def inspect(engine: Engine, name: str) -> dict[str, object]:
    """Return docker's object of an image. Raises NotFound, Invalid."""
    image = find(engine, name)
    config = image.config
    return {
        "Id": str(image.id),
        "RepoTags": list(image.names),
        "RepoDigests": sorted({f"{name.rpartition(':')[0]}@{image.target.digest}" for name in image.names}),
        "Comment": config.comment,
        "Created": config.created,
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "OsVersion": config.os_version,
        "Size": image.size,
        "Config": config.config.to_json(),
        "RootFS": {"Type": "layers", "Layers": [str(diff_id) for diff_id in config.rootfs.diff_ids]},
        "Descriptor": image.manifest.to_json(),
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    }


def import_archive(engine: Engine, archive: int, name: str, changes: Sequence[str], message: str) -> str:
    """Make an image of an archive that is read from a descriptor; return its id. Raises Invalid."""
    with open(archive, "rb", buffering=0, closefd=False) as stream:
        if os.isatty(archive):
            hint = "name a file, or redirect one to standard input"
            raise Invalid("import", "the archive", "it is a terminal", hint=hint)
        try:
            return str(engine.images.import_tar(stream, name, changes, message).id)
        except OrlopError as wrong:
            path = os.readlink(f"/proc/self/fd/{archive}")
            if wrong.subject == "the archive" and path.startswith("/"):
                wrong.subject = f"archive {path}"  # a descriptor came: its file's name is what the user knows
                wrong.hint = wrong.hint or "give a tar archive of a root file system, plain or compressed"
            raise
