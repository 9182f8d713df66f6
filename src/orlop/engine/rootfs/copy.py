"""`cp`: what a path in a container is, an archive of it, and an archive extracted there. Running or not.

The archive travels on a stream socket that the client made: the client's death is its end. Every path is resolved by
the kernel inside the container's root (inside), and nothing that was looked at is looked up again by its name.

What docker's clients know (rebasing, "/." at the end, missing destinations) is theirs; here are the three primitives of
docker's archive API, with its texts.
"""

from __future__ import annotations

import os
import socket
import stat as modes

from ...content.compression import Decompressed
from ...linux.path import LINKS_MAX, open_in_root
from ...runtime import users
from ...snapshot.extract import Extraction, Rules
from ...snapshot.pack import Packer
from ...snapshot.rebase import Rebased
from ...spec.errors import Denied, Invalid, Unavailable
from ...spec.tar import Limits, Reader
from .. import events
from . import inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..containers.record import ContainerRecord
    from ..engine import Engine

LIMITS = Limits(entries=2**40, total_bytes=2**60)  # what a user copies is his own, and the stream ends when he likes


class Given:
    """What everything that is written gets in the place of what the archive says, and what it may take the place of.

    of_user: the container's user as its owner, where it has one. owner: a user as --user names one, looked up in the
    container, "" for none. mode: permissions, None for the archive's. replace: a directory may go for something else,
    and something else for a directory.
    """

    __slots__ = ("mode", "of_user", "owner", "replace")

    def __init__(
        self, *, of_user: bool = False, owner: str = "", mode: int | None = None, replace: bool = False
    ) -> None:
        self.of_user = of_user
        self.owner = owner
        self.mode = mode
        self.replace = replace


def stat(engine: Engine, reference: str, path: str) -> dict[str, object]:
    """Return {name, size, mode, mtime_ns, link_target} of a path; mode as st_mode, a link is not followed.

    link_target: absolute in the container, every link on its way resolved; it may not exist. Raises NotFound.
    """
    record = engine.records.find(reference)
    with inside.opened(engine, record) as root:
        fd = _locate(root, path, reference)
        try:
            info = os.fstat(fd)
        finally:
            os.close(fd)
        return {
            "name": os.path.basename(_clean(path).rstrip("/")) or "/",
            "size": info.st_size,
            "mode": info.st_mode,
            "mtime_ns": info.st_mtime_ns,
            "link_target": _link_target(root, _clean(path)) if modes.S_ISLNK(info.st_mode) else "",
        }


def read(engine: Engine, reference: str, path: str, stream: int) -> None:
    """Write an archive of what is at path to a stream socket (borrowed), and end its data.

    A path that ends with "/." gives what the directory holds, below "."; else the first member has the path's last
    name. Raises NotFound, Unavailable when the client goes.
    """
    record = engine.records.find(reference)
    with inside.opened_with_owners(engine, record) as (root, shift), socket.socket(fileno=os.dup(stream)) as peer:
        peer.settimeout(None)
        fd = _locate(root, path, reference)
        try:
            packer = Packer(peer.sendall, shift=shift, in_root=b"./")  # as docker's daemon names them
            packer.add(fd, os.fsencode(os.path.basename(_clean(path).rstrip("/"))) or b".")
            packer.finish()
            peer.shutdown(socket.SHUT_WR)
            events.publish_container(engine, record, "archive-path")
        except OSError as wrong:
            raise _broken("copy from", record, wrong) from None
        finally:
            os.close(fd)


def write(engine: Engine, reference: str, path: str, stream: int, given: Given) -> None:
    """Extract the archive that comes on a stream socket (borrowed) into the directory at path.

    Raises NotFound, also for an owner whom the container does not know, Invalid, Denied for what is read-only,
    Unavailable when the client goes.
    """
    record = engine.records.find(reference)
    with inside.opened_with_owners(engine, record) as (root, shift), socket.socket(fileno=os.dup(stream)) as peer:
        peer.settimeout(None)
        _check_destination(root, path, reference)
        owner = None
        if user := given.owner or (record.config.user if given.of_user else ""):
            identity = users.resolve(root, user, ())
            owner = identity.uid, identity.gid
        subject = f"the archive for {path}"
        below = os.fsencode(_link_target(root, _clean(path)))
        reader = Rebased(
            Reader(Decompressed(peer.recv, subject).read, subject, LIMITS), b".", below, without_root=True
        )  # as docker's
        try:
            rules = Rules(layer=False, replace=given.replace, owner=owner, shift=shift, mode=given.mode)
            Extraction(root, -1, subject, rules=rules).run(reader)
            events.publish_container(engine, record, "extract-to-dir")
        except OSError as wrong:
            raise _broken("copy to", record, wrong) from None


def _clean(path: str) -> str:
    """Return the path as docker cleans it: absolute, without "..", and "/" or "/." kept at its end."""
    cleaned = os.path.normpath("/" + path.lstrip("/"))
    if path.endswith("/.") or path == ".":
        return cleaned.rstrip("/") + "/."
    return cleaned + "/" if path.endswith("/") and cleaned != "/" else cleaned


def _locate(root: int, path: str, reference: str) -> int:
    """Return an O_PATH descriptor of what is at path; its last link is followed only where the path ends with "/"."""
    cleaned = _clean(path)
    as_directory = cleaned.endswith(("/", "/."))
    try:
        return open_in_root(root, cleaned, os.O_PATH | (os.O_DIRECTORY if as_directory else os.O_NOFOLLOW))
    except (FileNotFoundError, NotADirectoryError):
        raise inside.not_there(path, reference) from None
    except OSError as refused:
        raise _not_reached(path, reference, refused) from None


def _not_reached(path: str, reference: str, refused: OSError) -> Invalid:
    cause = refused.strerror or str(refused)
    return Invalid("find", f"{path[:200]} in container {reference}", cause, hint="is it a loop of links?")


def _check_destination(root: int, path: str, reference: str) -> None:
    try:
        fd = open_in_root(root, _clean(path), os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        raise inside.not_there(path, reference) from None
    except OSError as refused:
        raise _not_reached(path, reference, refused) from None
    try:
        info = os.fstat(fd)
        if not modes.S_ISDIR(info.st_mode):
            cause = "extraction point is not a directory"
            raise Invalid("copy to", f"{path} in container {reference}", cause, hint="name a directory that exists")
        if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
            of_root = info.st_dev == os.fstat(root).st_dev
            cause = "container rootfs is marked read-only" if of_root else "mounted volume is marked read-only"
            raise Denied("copy to", f"{path} in container {reference}", cause, hint="copy to a volume that is not")
    finally:
        os.close(fd)


def _link_target(root: int, path: str) -> str:
    """Return where a path leads, link by link, as a name: whoever uses it has the kernel look it up in the root."""
    missing = [part for part in reversed(path.split("/")) if part]
    found: list[str] = []
    links_left = LINKS_MAX
    while missing:
        part = missing.pop()
        if part == "..":
            del found[-1:]
            continue
        if part == ".":
            continue
        found.append(part)
        try:
            fd = open_in_root(root, "/".join(found), os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            continue  # what is not there can't lead elsewhere
        try:
            target = os.readlink("", dir_fd=fd) if modes.S_ISLNK(os.fstat(fd).st_mode) else ""
        except FileNotFoundError:
            continue  # one of procfs's, that leads to no name of ours (proc_pid_fd(5))
        finally:
            os.close(fd)
        if target and links_left:
            links_left -= 1
            found.pop()
            if target.startswith("/"):
                found.clear()
            missing += [step for step in reversed(target.split("/")) if step]
    return "/" + "/".join(found)


def _broken(verb: str, record: ContainerRecord, wrong: OSError) -> Unavailable:
    if isinstance(wrong, BrokenPipeError | ConnectionResetError):
        return Unavailable(verb, record.subject, "the client has gone")
    return Unavailable(verb, record.subject, wrong.strerror or str(wrong))
