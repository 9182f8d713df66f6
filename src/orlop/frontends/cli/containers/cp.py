"""`orlop cp`: files between a container and here.

What goes where is docker's table: a destination that is a directory gets the source as an entry, one that does not
exist gets its name, "/." at the source's end means what is inside. The engine sends and takes archives; packing and
extracting on this side is ours, with the caller's own rights. A container's archive can reach nothing but the
destination: it is extracted as a layer is, every path resolved below one open directory.
"""

from __future__ import annotations

import os
import stat
import sys
from _socket import AF_UNIX, SHUT_WR, SOCK_STREAM, socket, socketpair

from ....spec.errors import Invalid, NotFound
from ..command import Command, Invocation
from ..flags import BOOL, EXIT_USAGE, STRING, BadValue, Flag, Kind, UsageError
from ..units import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...native.client import Engine

STREAM_BYTES = 256 * 1024
LINKS_MAX = 10  # docker's, of a destination's last name


class Destination:
    """Where a copy goes, on either side. path: cleaned, with "/" or "/." kept at its end when asserts_directory."""

    __slots__ = ("exists", "is_directory", "path")

    def __init__(self, path: str, mode: int | None) -> None:
        self.path = path
        self.exists = mode is not None
        self.is_directory = mode is not None and stat.S_ISDIR(mode)

    def place(self, source: str, *, source_is_directory: bool) -> tuple[str, str]:
        """Return (the directory to extract into, the name that the source gets there). Raises Invalid."""
        if self.is_directory:
            return self.path, _base(source)
        if self.exists and source_is_directory:
            raise Invalid("copy", source, "cannot copy directory", hint=f"{self.path} is a file: name a directory")
        if not self.exists and not source_is_directory and _asserts_directory(self.path):
            hint = f"make it, or leave the / of {self.path} away"
            raise NotFound("copy to", self.path, f"no such directory: {self.path[:200]}", hint=hint)
        return _split(self.path)


def _cp(invocation: Invocation) -> int:
    source, destination = invocation.arguments
    for which, text in (("source", source), ("destination", destination)):
        if not text:
            raise UsageError(f"{which} can not be empty", "name a path", EXIT_USAGE, shows_usage=False)
    from_container, source_path = _parse(source)
    to_container, destination_path = _parse(destination)
    if from_container and to_container:
        raise UsageError(
            "copying between containers is not supported",
            f"copy to a directory here first, or write: orlop cp {source} - | orlop cp - {destination}",
            EXIT_USAGE,
            shows_usage=False,
        )
    if from_container:
        copied = _out(invocation, from_container, source_path, destination_path)
        target = os.path.abspath(destination_path)
    elif to_container:
        copied = _in(invocation, to_container, source_path, destination_path)
        target = f"{to_container}:{destination_path}"
    else:
        raise UsageError(
            "must specify at least one container source", "write CONTAINER:PATH", EXIT_USAGE, shows_usage=False
        )
    quiet = invocation.options["quiet"] if "quiet" in invocation.options.given else not sys.stdout.isatty()
    if not quiet and "-" not in (source_path, destination_path):
        sys.stderr.write(f"Successfully copied {size(copied, 3)} to {target}\n")
    return 0


# -- out of a container ---------------------------------------------------------------------------------------------


def _out(invocation: Invocation, container: str, path: str, destination: str) -> int:
    if destination != "-":
        _check_output(destination)
    elif sys.stdout.isatty():
        raise UsageError(
            "refusing to write an archive to a terminal", "redirect the output", EXIT_USAGE, shows_usage=False
        )
    given = _given_here(invocation)
    with invocation.connect() as engine:
        name = _base(path)
        found = _look(engine, container, path)
        if invocation.options["follow-link"] and stat.S_ISLNK(found["mode"]):
            path = str(found["link_target"])
            found = _look(engine, container, path)
        if destination == "-":
            return _fetch(engine, container, path, _to_output)
        target = Destination(*_local_destination(destination))
        directory, new = target.place(path if path == "/" else name, source_is_directory=stat.S_ISDIR(found["mode"]))

        def extract(stream: Callable[[int], bytes]) -> None:
            _extract(stream, directory, (_base(path), new), given)

        return _fetch(engine, container, path, extract)


def _look(engine: Engine, container: str, path: str) -> dict[str, Any]:
    found = engine.call("containers.stat_path", {"container": container, "path": path})
    assert isinstance(found, dict)
    return found


def _fetch(engine: Engine, container: str, path: str, take: Callable[[Callable[[int], bytes]], None]) -> int:
    """Have the archive of a path sent, and taken; return its size. The engine's error is stronger than ours."""
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    received = 0

    def receive(count: int) -> bytes:
        nonlocal received
        data = ours.recv(count)
        received += len(data)
        return data

    try:
        try:
            engine.send("containers.get_archive", {"container": container, "path": path}, [theirs.fileno()])
        finally:
            theirs.close()
        try:
            take(receive)
        except Invalid as wrong:
            if "truncated" in wrong.cause or "empty" in wrong.cause:
                engine.receive()  # raises what cut it short
            raise
        engine.receive()
    finally:
        ours.close()
    return received


def _to_output(stream: Callable[[int], bytes]) -> None:
    sys.stdout.flush()
    while data := stream(STREAM_BYTES):
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(1, rest) :]


def _given_here(invocation: Invocation) -> tuple[tuple[int, int] | None, int | None]:
    """Return the owner of what is written here (None: the archive's, -1: ours), and its permissions.

    Raises UsageError for an owner who is no number.
    """
    wanted, mode = invocation.options["chown"], invocation.options["chmod"]
    if not wanted:
        return None if invocation.options["archive"] else (-1, -1), mode
    user, colon, group = wanted.partition(":")
    numbers = [user, group] if colon else [user]
    if not all(one.isascii() and one.isdecimal() and len(one) <= 10 and int(one) < 2**32 - 1 for one in numbers):
        text = f"--chown {wanted} is not UID[:GID]"
        hint = "the container's names mean nothing here: write numbers, such as 1000:1000"
        raise UsageError(text, hint, EXIT_USAGE, shows_usage=False)
    return (int(user), int(group or -1)), mode


def _mode(text: str) -> int:
    if not text or len(text) > 5 or set(text) - set("01234567") or int(text, 8) > 0o7777:
        raise BadValue(f'invalid mode "{text[:40]}"', "write up to four octal digits, such as 0644")
    return int(text, 8)


def _extract(
    stream: Callable[[int], bytes],
    directory: str,
    names: tuple[str, str],
    given: tuple[tuple[int, int] | None, int | None],
) -> None:
    from ....snapshot.extract import Extraction, Rules
    from ....snapshot.rebase import Rebased
    from ....spec.tar import Limits, Reader

    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        reader = Reader(stream, "the archive", Limits(entries=2**40, total_bytes=2**60))
        rebased = Rebased(reader, *map(os.fsencode, names))
        Extraction(root, -1, directory, rules=Rules(layer=False, owner=given[0], mode=given[1])).run(rebased)
    finally:
        os.close(root)


def _check_output(path: str) -> None:
    """Raise NotFound, Invalid as docker does for a destination that can't be one."""
    cleaned = os.path.normpath(path)
    parent = os.path.dirname(cleaned)
    if parent and not os.path.lexists(parent):
        cause = f'invalid output path: directory "{parent}" does not exist'
        raise NotFound("copy to", path, cause, hint=f"make it with: mkdir -p {parent}")
    try:
        mode = os.stat(cleaned).st_mode
    except OSError:
        return
    if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        cause = f'invalid output path: "{path}" must be a directory or a regular file: got a device'
        raise Invalid("copy to", path, cause, hint="write - as the destination for a stream")


def _local_destination(path: str) -> tuple[str, int | None]:
    """Return the path with the links of its last name resolved, and its mode, None when nothing is there."""
    tail = path[len(path.rstrip("/")) :] or ("/." if path.endswith("/.") else "")
    resolved = os.path.abspath(path)
    for _ in range(LINKS_MAX + 1):
        try:
            mode = os.lstat(resolved).st_mode
        except FileNotFoundError:
            parent = os.path.dirname(resolved)
            if not os.path.isdir(parent):
                raise NotFound("copy to", path, f"{parent} is not a directory that exists") from None
            return resolved + ("/" if tail and resolved != "/" else ""), None
        if not stat.S_ISLNK(mode):
            if not stat.S_ISDIR(mode) and tail:
                raise Invalid("copy to", path, "not a directory", hint=f"leave the {tail} at its end away")
            return resolved, mode
        resolved = os.path.normpath(os.path.join(os.path.dirname(resolved), os.readlink(resolved)))
    raise Invalid("copy to", path, f"too many symlinks in {path}")


# -- into a container -----------------------------------------------------------------------------------------------


def _in(invocation: Invocation, container: str, source: str, path: str) -> int:
    with invocation.connect() as engine:
        target = _remote_destination(engine, container, path)
        if source == "-":
            if not target.is_directory:
                cause = f'destination "{container}:{path}" must be a directory'
                raise Invalid("copy to", f"{container}:{path}", cause, hint="an archive is extracted into a directory")
            return _put(invocation, engine, container, target.path, _from_input)
        place, name = _open_source(source, follow=invocation.options["follow-link"])
        try:
            directory, new = target.place(name, source_is_directory=stat.S_ISDIR(os.fstat(place).st_mode))

            def pack(stream: socket) -> int:
                from ....snapshot.pack import Packer

                packer = Packer(stream.sendall)
                packer.add(place, os.fsencode(new))
                packer.finish()
                return packer.bytes

            return _put(invocation, engine, container, directory, pack)
        finally:
            os.close(place)


def _put(invocation: Invocation, engine: Engine, container: str, directory: str, give: Callable[[socket], int]) -> int:
    """Have an archive extracted that `give` writes; return its size. The engine's error is stronger than ours."""
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    args: dict[str, object] = {
        "container": container,
        "path": directory,
        "owned_by_user": invocation.options["archive"],
        "owner": invocation.options["chown"],
        "mode": invocation.options["chmod"],
    }
    try:
        try:
            engine.send("containers.put_archive", args, [theirs.fileno()])
        finally:
            theirs.close()
        sent = 0
        try:
            sent = give(ours)
            ours.shutdown(SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has refused: the reply says why
        engine.receive()
    finally:
        ours.close()
    return sent


def _from_input(stream: socket) -> int:
    sent = 0
    while data := os.read(0, STREAM_BYTES):
        stream.sendall(data)
        sent += len(data)
    return sent


def _remote_destination(engine: Engine, container: str, path: str) -> Destination:
    """Return the destination, one link at its end followed, as docker's client does."""
    try:
        found = _look(engine, container, path)
        if stat.S_ISLNK(found["mode"]):
            path = str(found["link_target"])
            found = _look(engine, container, path)
    except NotFound as wrong:
        if "Could not find the file" not in wrong.cause:
            raise  # the container
        return Destination(path, None)
    mode: int = found["mode"]
    if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        cause = f'destination "{container}:{path}" must be a directory or a regular file'
        raise Invalid("copy to", f"{container}:{path}", cause, hint="name another destination")
    return Destination(path, mode)


def _open_source(source: str, *, follow: bool) -> tuple[int, str]:
    """Return an O_PATH descriptor of a local source, and the name under which it is copied."""
    name = _base(source)
    inside = name == "."
    path = source if inside or follow else source.rstrip("/") or "/"
    flags = os.O_PATH | os.O_CLOEXEC | (0 if follow or inside else os.O_NOFOLLOW)
    try:
        return os.open(path, flags | (os.O_DIRECTORY if inside else 0)), name
    except OSError as wrong:
        cause = f"lstat {os.path.abspath(source)}: {(wrong.strerror or str(wrong)).lower()}"
        raise NotFound("copy", source, cause, hint="name a file or a directory that exists") from None


# -- names ----------------------------------------------------------------------------------------------------------


def _parse(argument: str) -> tuple[str, str]:
    """Return (container, path); the container is "" for a path of this machine."""
    head, colon, tail = argument.partition(":")
    if argument.startswith("/") or not colon or head.startswith(".") or not head:
        return "", argument
    return head, tail


def _split(path: str) -> tuple[str, str]:
    """Return directory and last name of a path, whatever slashes and dots it ends with."""
    cleaned = os.path.normpath(path)
    return os.path.dirname(cleaned) or ".", os.path.basename(cleaned)


def _base(path: str) -> str:
    """Return the name of a source: its last one, or "." for what is inside of it."""
    if path in (".", "/") or path.endswith("/.") or not path.strip("/"):
        return "."
    cleaned = os.path.normpath(path)
    return "." if cleaned == "." else os.path.basename(os.path.abspath(cleaned) if cleaned.endswith("..") else cleaned)


def _asserts_directory(path: str) -> bool:
    return path.endswith(("/", "/."))


CP = Command(
    _cp,
    "Copy files/folders between a container and the local filesystem",
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\torlop cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    flags=(
        Flag("archive", "a", BOOL, "Archive mode (copy all uid/gid information)", default=False),
        Flag("chmod", "", Kind("mode", _mode), "Give everything that is copied these permissions (0644)"),
        Flag("chown", "", STRING, "Give everything that is copied to this user (UID or NAME[:GROUP])", default=""),
        Flag("follow-link", "L", BOOL, "Always follow symbol link in SRC_PATH", default=False),
        Flag("quiet", "q", BOOL, "Suppress progress output during copy", default=False),
    ),
    arguments=(2, 2),
    aliases=("container cp", "cp"),
)
