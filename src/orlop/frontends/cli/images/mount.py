"""`orlop image mount` and `orlop image unmount`: an image as a read-only directory, in the caller's mount namespace.

A working container (`orlop image from`) needs no directory, and is written to: see build.workmount.
"""

from __future__ import annotations

import errno
import os

from ....spec.errors import Denied, Invalid, NotFound, Unavailable
from .. import listing
from ..command import Command, Invocation, for_output, write_line
from ..flags import BOOL, EXIT_USAGE, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...native.client import Engine


def _mount(invocation: Invocation) -> int:
    if not invocation.arguments:
        with invocation.connect() as engine:
            rows = [(one["image"].removeprefix("sha256:")[:12], one["names"], one["path"]) for one in mounted(engine)]
        listing.print_table(("IMAGE ID", "NAMES", "PATH"), rows)
        return 0
    name, *rest = invocation.arguments
    if not rest:
        with invocation.connect() as engine:
            from ..build import workmount

            if name in workmount.working(engine):
                write_line(for_output(workmount.mount(engine, invocation.paths, name)))
                return 0
        raise UsageError("the directory to mount it at is missing", "write: orlop image mount IMAGE DIR", EXIT_USAGE)
    path = os.path.realpath(rest[0])
    with invocation.connect() as engine:
        attach_image(engine, name, path, read_only=True)
    write_line(for_output(path))
    return 0


def attach_image(engine: Engine, name: str, path: str, *, read_only: bool) -> None:
    """Mount an image at a directory, in this process's mount namespace.

    Raises Denied, Invalid, NotFound, Unavailable.
    """
    _check_may_mount(path)
    try:
        target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as wrong:
        raise Invalid("mount", path, os.strerror(wrong.errno or 0).lower(), hint="name a directory") from None
    try:
        held = engine.call("images.mount", {"image": name, "path": path})
        assert isinstance(held, dict)  # the verb's
        try:
            _attach(held["mounts"], target, path, read_only)
        except BaseException:
            engine.call("images.release", {"key": held["key"]})
            raise
    finally:
        os.close(target)


def _check_may_mount(path: str) -> None:
    from ....linux import capability

    effective, _, _ = capability.get_sets()
    if not effective & capability.mask(("CAP_SYS_ADMIN",)):
        hint = "run it as root, or inside: unshare --user --map-root-user --mount"
        raise Denied("mount", path, "only root may mount here", hint=hint)


def _attach(mounts: object, target: int, path: str, read_only: bool) -> None:
    from ....linux import mount as linux_mount
    from ....runtime import rootfs
    from ....spec.runtime import Mount

    wanted = [Mount.from_json(one, "the image's mount") for one in mounts] if isinstance(mounts, list) else []
    try:
        fd = rootfs.open_rootfs(wanted)
        try:
            attributes = linux_mount.MOUNT_ATTR_NOSUID | linux_mount.MOUNT_ATTR_NODEV
            attributes |= linux_mount.MOUNT_ATTR_RDONLY if read_only else 0
            linux_mount.mount_setattr(fd, set_=attributes)
            linux_mount.move_mount(fd, target)
        finally:
            os.close(fd)
    except OSError as wrong:
        raise Unavailable("mount", path, wrong.strerror or str(wrong)) from None


def _unmount(invocation: Invocation) -> int:
    from ..build import workmount

    with invocation.connect() as engine:
        known = mounted(engine)
        wanted = known if invocation.options["all"] else [_found(known, word) for word in invocation.arguments]
        if not wanted and not invocation.options["all"]:
            raise UsageError("name a path or an image, or use --all", "orlop image mount lists them", EXIT_USAGE)
        for one in wanted:
            if name := workmount.name_at(invocation.paths, one["path"]):
                workmount.settle(engine, invocation.paths, name)
            else:
                detach(one["path"])
                engine.call("images.release", {"key": one["key"]})
            write_line(for_output(one["path"]))
    return 0


def _found(known: list[dict[str, str]], word: str) -> dict[str, str]:
    """Return the mount that a path, a name or the beginning of an ID means; of several of one image none."""
    path = os.path.realpath(word)
    found = [one for one in known if one["path"] == path]
    if not found:
        names = (word, f"{word}:latest")
        found = [
            one
            for one in known
            if any(name in one["names"].split() for name in names)
            or (len(word) > 3 and one["image"].removeprefix("sha256:").startswith(word.removeprefix("sha256:")))
        ]
    if len(found) != 1:
        cause = f"no image is mounted as {word}" if not found else f"{word} is mounted in {len(found)} places"
        raise NotFound("unmount", word, cause, hint="orlop image mount lists them; name the path")
    return found[0]


def detach(path: str) -> None:
    """Unmount what is mounted at a path, if anything is. Raises Unavailable while it is in use."""
    from ....linux import mount as linux_mount

    try:
        linux_mount.umount2(path, linux_mount.UMOUNT_NOFOLLOW)
    except OSError as wrong:
        if wrong.errno in (errno.EINVAL, errno.ENOENT):
            return  # it is no mount point (any more): after a reboot, or in another mount namespace
        if wrong.errno == errno.EBUSY:
            cause, hint = "something uses it", f"look for it with: fuser -m {path}"
            raise Unavailable("unmount", path, cause, hint=hint) from None
        raise Unavailable("unmount", path, wrong.strerror or str(wrong)) from None


def mounted(engine: Engine) -> list[dict[str, str]]:
    """Return what is held for mounts: {"key", "image", "names", "path"}."""
    found = engine.call("images.mounted", {})
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


MOUNT = Command(
    _mount,
    "Mount an image read-only at a directory, or list what is mounted",
    "[IMAGE DIR]",
    arguments=(0, 2),
    aliases=("image mount",),
)
UNMOUNT = Command(
    _unmount,
    "Unmount images",
    "[OPTIONS] [PATH|IMAGE...]",
    flags=(Flag("all", "a", BOOL, "Unmount all", default=False),),
    arguments=(0, None),
    aliases=("image unmount", "image umount"),
)
