"""`buildah mount`: the files of a working container as a directory of the caller's, written to at will.

What is written becomes a layer at the next step, at a commit, or when it is unmounted: the directory is unmounted, what
lies in it is folded into the image, and for a step or a commit it is mounted again. The overlay is the caller's own
mount (`orlop image mount` has the same, read-only): the engine mounts nothing (I4).
"""

from __future__ import annotations

import os

from ....build.settings import EPOCH_DEFAULT_S
from ....spec.errors import Conflict, NotFound, OrlopError
from ..command import Command, Invocation, for_output, write_line
from ..flags import BOOL, Flag, UsageError
from ..images import mount as images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from ....spec.paths import Paths
    from ...native.client import Engine

PREFIX = "localhost/working/"
DIRECTORY = "mounts"


def reference(name: str) -> str:
    """Return the name of a working container's image."""
    return f"{PREFIX}{name}:latest"


def working(engine: Engine) -> dict[str, str]:
    """Return the working containers: name -> the image's ID."""
    found: dict[str, str] = {}
    listed = engine.call("images.list", {"filters": {}})
    for image in listed if isinstance(listed, list) else []:
        for name in image["names"]:
            if name.startswith(PREFIX):
                found[name.removeprefix(PREFIX).partition(":")[0]] = image["id"]
    return found


def require(engine: Engine, name: str) -> str:
    """Return the ID of a working container's image. Raises NotFound."""
    found = working(engine).get(name)
    if found is None:
        raise NotFound("build", name, f"No such working container: {name}", hint="make one: orlop image from IMAGE")
    return found


def mount(engine: Engine, paths: Paths, name: str) -> str:
    """Mount a working container, or look where it is mounted; return the directory. Raises Denied, Unavailable."""
    place = _place(paths, name)
    if _held(engine, place) is None:
        image = require(engine, name)
        os.makedirs(place, 0o700, exist_ok=True)
        try:
            images.attach_image(engine, image, place, read_only=False)
        except OrlopError:
            os.rmdir(place)
            raise
    return place


def settled(engine: Engine, paths: Paths, name: str) -> AbstractContextManager[None]:
    """Hold a working container whose image has all that was written to it; mounted again behind it, if it was."""
    from contextlib import contextmanager

    @contextmanager
    def held() -> Iterator[None]:
        was_mounted = settle(engine, paths, name)
        try:
            yield
        finally:
            if was_mounted and name in working(engine):
                mount(engine, paths, name)

    return held()


def settle(engine: Engine, paths: Paths, name: str) -> bool:
    """Unmount a working container and make a layer of what was written; tell whether it was mounted.

    Raises Unavailable while something uses the directory.
    """
    place = _place(paths, name)
    key = _held(engine, place)
    if key is None:
        return False
    images.detach(place)
    args = {"key": key, "name": reference(name), "mtime_max_ns": EPOCH_DEFAULT_S * 10**9}
    engine.call("images.fold", args)
    os.rmdir(place)
    return True


def discard(engine: Engine, paths: Paths, name: str) -> None:
    """Unmount a working container that goes; what was written goes too. Raises Unavailable."""
    place = _place(paths, name)
    key = _held(engine, place)
    if key is not None:
        images.detach(place)
        engine.call("images.release", {"key": key})
        os.rmdir(place)


def name_at(paths: Paths, path: str) -> str:
    """Return the working container that is mounted at a path, "" for other images' mounts."""
    directory, _, name = path.rpartition("/")
    return name if directory == os.path.realpath(f"{paths.run}/{DIRECTORY}") else ""


def _place(paths: Paths, name: str) -> str:
    return f"{os.path.realpath(paths.run)}/{DIRECTORY}/{name}"


def _held(engine: Engine, place: str) -> str | None:
    return next((one["key"] for one in images.mounted(engine) if one["path"] == place), None)


def _mount(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        if not invocation.arguments:
            for one in images.mounted(engine):
                if name := name_at(invocation.paths, one["path"]):
                    write_line(for_output(f"{name} {one['path']}"))
        for name in invocation.arguments:
            place = mount(engine, invocation.paths, name)
            shown = place if len(invocation.arguments) == 1 else f"{name} {place}"
            write_line(for_output(shown))
    return 0


def _umount(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        names = invocation.arguments
        if invocation.options["all"]:
            names = [name for one in images.mounted(engine) if (name := name_at(invocation.paths, one["path"]))]
        elif not names:
            raise UsageError("at least one container name must be specified", "name one, or give --all")
        for name in names:
            require(engine, name)
            if not settle(engine, invocation.paths, name):
                hint = "orlop buildah mount lists what is"
                raise NotFound("unmount", name, f"working container {name} is not mounted", hint=hint)
            write_line(require(engine, name).removeprefix("sha256:"))
    return 0


def _rename(invocation: Invocation) -> int:
    before, after = invocation.arguments
    with invocation.connect() as engine:
        if after in working(engine):
            raise Conflict(
                "rename", before, f"the name {after} is in use by a working container", hint="choose another"
            )
        settle(engine, invocation.paths, before)
        image = require(engine, before)
        engine.call("images.tag", {"image": image, "name": reference(after)})
        engine.call("images.remove", {"image": reference(before), "force": False, "prune": False})
    return 0


def _inspect(invocation: Invocation) -> int:
    from json import dumps

    with invocation.connect() as engine:
        (name,) = invocation.arguments
        image = working(engine).get(name, name)
        write_line(for_output(dumps(engine.call("images.inspect", {"image": image, "platform": ""}), indent=4)))
    return 0


MOUNT = Command(
    _mount,
    "Mount working containers, or list what is mounted",
    "[NAME...]",
    arguments=(0, None),
    aliases=("buildah mount",),
)
UMOUNT = Command(
    _umount,
    "Unmount working containers, and keep what was written",
    "[OPTIONS] [NAME...]",
    flags=(Flag("all", "a", BOOL, "Unmount all of them", default=False),),
    arguments=(0, None),
    aliases=("buildah umount",),
)
RENAME = Command(_rename, "Rename a working container", "NAME NEW_NAME", arguments=(2, 2), aliases=("buildah rename",))
INSPECT = Command(
    _inspect,
    "Display information on a working container or an image",
    "NAME",
    arguments=(1, 1),
    aliases=("buildah inspect",),
)
