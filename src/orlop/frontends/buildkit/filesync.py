"""Folders of the client as folders of ours: fsutil's DiffCopy, received into a directory that is kept between builds.

    client:  STATs of every file, parents first, in order; an empty STAT at the end; DATA for what is asked; FIN
    we:      REQ for files that are not here as the client has them (size, time, mode); FIN once all is here

Invariants: paths come from the client and are checked and resolved inside the directory without following links; the
directory is under an exclusive lock while it changes, so two builds of one folder wait for each other.
Source: tonistiigi/fsutil, send.go, receive.go, types/wire.proto and stat.proto.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from urllib.parse import quote_plus

from ...linux import path as linux_path
from ...spec import protobuf
from ...spec.errors import Invalid, Unavailable
from . import grpc
from .http2 import Broken
from .session import FILE_SYNC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .session import Session

STAT, REQ, DATA, FIN, ERR = 0, 1, 2, 3, 4
ENTRIES_MAX = 4_000_000
OPEN_MAX = 64  # files asked for and not yet here
# Bits of Go's fs.FileMode.
_GO_DIR, _GO_LINK, _GO_DEVICE, _GO_PIPE, _GO_SOCKET = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24
_GO_SETUID, _GO_SETGID, _GO_CHAR, _GO_STICKY = 1 << 23, 1 << 22, 1 << 21, 1 << 20
_GO_SPECIAL = _GO_LINK | _GO_DEVICE | _GO_PIPE | _GO_SOCKET


class Entry:
    """fsutil's Stat: one file of the client."""

    __slots__ = ("link", "mode", "mtime_ns", "path", "size")

    def __init__(self, data: bytes) -> None:
        fields = protobuf.decode(data)
        self.path = protobuf.text(fields, 1)
        self.mode = protobuf.number(fields, 2)
        self.size = protobuf.number(fields, 5)
        self.mtime_ns = protobuf.number(fields, 6)
        self.link = protobuf.text(fields, 7)

    @property
    def permissions(self) -> int:
        bits = self.mode & 0o777
        for go, ours in ((_GO_SETUID, stat.S_ISUID), (_GO_SETGID, stat.S_ISGID), (_GO_STICKY, stat.S_ISVTX)):
            bits |= ours if self.mode & go else 0
        return bits

    @property
    def is_directory(self) -> bool:
        return bool(self.mode & _GO_DIR)

    @property
    def is_link(self) -> bool:
        return bool(self.mode & _GO_LINK)

    @property
    def is_file(self) -> bool:
        return not self.mode & (_GO_DIR | _GO_SPECIAL)


def receive(
    session: Session,
    name: str,
    directory: str,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    follow: Sequence[str] = (),
) -> None:
    """Make a directory what the client's folder of that name is. Raises Invalid, Unavailable.

    include, exclude: patterns that the client applies; follow: paths whose links it sends along.
    """
    if not session.offers(FILE_SYNC):
        raise Unavailable("read", f"folder {name[:60]}", "the client has none for the build")
    metadata = [("dir-name", name)]
    for key, values in (("include-patterns", include), ("exclude-patterns", exclude), ("followpaths", follow)):
        if any(not value.isascii() for value in values):
            metadata.append((f"{key}-encoded", "1"))
            values = [quote_plus(value) for value in values]
        metadata += [(key, value) for value in values]
    os.makedirs(directory, mode=0o700, exist_ok=True)
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(root, fcntl.LOCK_EX)
        call = grpc.begin(session.connection, FILE_SYNC, metadata)
        try:
            _Receiver(call, root, directory).run()
        except BaseException:
            call.stream.reset()
            raise
        call.end()
        for _ in call.messages():
            continue
        call.check()
        os.utime(root)  # when it was used last: build.garbage
    except grpc.Failed as error:
        raise Unavailable("read", f"folder {name[:60]} of the client", error.text) from None
    except Broken as error:
        raise Unavailable("read", f"folder {name[:60]} of the client", str(error)) from None
    finally:
        os.close(root)


class _Receiver:
    def __init__(self, call: grpc.Outgoing, root: int, directory: str) -> None:
        self.call = call
        self.root = root
        self.directory = directory
        self.entries: dict[str, Entry] = {}
        self.wanted: list[tuple[int, Entry]] = []
        self.asked: dict[int, tuple[int, Entry]] = {}  # id -> descriptor of what is written

    def run(self) -> None:
        try:
            self._loop()
        except (ValueError, OSError) as error:
            raise Invalid("read", "a folder of the client", f"its transfer is broken: {error}") from None
        finally:
            for fd, _ in self.asked.values():
                os.close(fd)

    def _loop(self) -> None:
        number = 0
        complete = False
        for message in self.call.messages():
            fields = protobuf.decode(message)
            kind = protobuf.number(fields, 1)
            if kind == STAT and not complete:
                if 2 not in fields:
                    complete = True
                    self._remove_others()
                    self._ask()
                else:
                    self._add(number, Entry(protobuf.inner(fields, 2)))
                    number += 1
            elif kind == DATA:
                self._data(protobuf.number(fields, 3), protobuf.inner(fields, 4))
            elif kind == FIN:
                return
            elif kind == ERR:
                raise Unavailable("read", "a folder of the client", protobuf.inner(fields, 4).decode(errors="replace"))
            else:
                raise ValueError(f"a packet of kind {kind}")
            if complete and not self.asked and not self.wanted:
                self._finish()
        raise ValueError("it ends early")

    def _add(self, number: int, entry: Entry) -> None:
        parts = entry.path.split("/")
        if not entry.path or entry.path.startswith("/") or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"a file is called {entry.path[:100]!r}")
        if "\0" in entry.path or len(self.entries) >= ENTRIES_MAX or entry.path in self.entries:
            raise ValueError("a name comes twice, or there are too many")
        above = entry.path.rpartition("/")[0]
        if above and not (above in self.entries and self.entries[above].is_directory):
            raise ValueError(f"the directory of {entry.path[:100]!r} did not come before it")
        self.entries[entry.path] = entry
        if entry.is_directory:
            self._directory(entry)
        elif entry.is_link:
            self._replaced(entry, lambda parent, name: os.symlink(entry.link, name, dir_fd=parent))
        elif entry.is_file and entry.link:
            self._link(entry)
        elif entry.is_file and not self._is_here(entry):
            self.wanted.append((number, entry))
        # Devices, pipes and sockets of the client are nothing that a build may read.

    def _directory(self, entry: Entry) -> None:
        parent, name = self._parent(entry.path)
        try:
            try:
                if stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                    os.chmod(name, entry.permissions | 0o700, dir_fd=parent)
                    return
                os.unlink(name, dir_fd=parent)
            except FileNotFoundError:
                pass
            os.mkdir(name, 0o700, dir_fd=parent)
            os.chmod(name, entry.permissions | 0o700, dir_fd=parent)
        finally:
            os.close(parent)

    def _link(self, entry: Entry) -> None:
        if entry.link not in self.entries or not self.entries[entry.link].is_file:
            raise ValueError(f"{entry.path[:100]!r} is a link to what did not come")
        # Its content may be on the way still: asked for like any other file.
        self.wanted.append((-1, entry))

    def _replaced(self, entry: Entry, make: object) -> None:
        parent, name = self._parent(entry.path)
        try:
            _remove(parent, name, f"{self.directory}/{entry.path}")
            make(parent, name)  # type: ignore[operator]
            os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)

    def _is_here(self, entry: Entry) -> bool:
        parent, name = self._parent(entry.path)
        try:
            found = os.lstat(name, dir_fd=parent)
        except FileNotFoundError:
            return False
        finally:
            os.close(parent)
        is_same = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size == entry.size
        return is_same and found.st_mtime_ns == entry.mtime_ns and stat.S_IMODE(found.st_mode) == entry.permissions

    def _parent(self, path: str) -> tuple[int, str]:
        above, _, name = path.rpartition("/")
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        resolve = linux_path.RESOLVE_BENEATH | linux_path.RESOLVE_NO_SYMLINKS
        return linux_path.openat2(self.root, above or ".", flags, resolve=resolve), name

    def _ask(self) -> None:
        """Ask for more files, as many as may be open."""
        while self.wanted and len(self.asked) < OPEN_MAX:
            number, entry = self.wanted[0]
            if number < 0:
                if self.asked:
                    return  # a link waits for what comes before it
                self._replaced(entry, lambda parent, name, entry=entry: self._hard_link(entry, parent, name))
                self.wanted.pop(0)
                continue
            self.wanted.pop(0)
            parent, name = self._parent(entry.path)
            try:
                _remove(parent, name, f"{self.directory}/{entry.path}")
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(name, flags, 0o600, dir_fd=parent)
            finally:
                os.close(parent)
            self.asked[number] = (fd, entry)
            self.call.send(protobuf.encode(((1, REQ), (3, number))))

    def _hard_link(self, entry: Entry, parent: int, name: str) -> None:
        source, source_name = self._parent(entry.link)
        try:
            os.link(source_name, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _data(self, number: int, data: bytes) -> None:
        if number not in self.asked:
            raise ValueError(f"data for file {number}, which was not asked for")
        fd, entry = self.asked[number]
        if data:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            return
        os.fchmod(fd, entry.permissions)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        os.close(fd)
        del self.asked[number]
        self._ask()

    def _remove_others(self) -> None:
        """Remove what the client has no more."""
        for directory, names, files in os.walk(self.directory):
            here = os.path.relpath(directory, self.directory)
            prefix = "" if here == "." else f"{here}/"
            for name in [*files, *names]:
                path = f"{directory}/{name}"
                entry = self.entries.get(prefix + name)
                # os.walk counts a link to a directory among the directories.
                is_directory = name in names and not os.path.islink(path)
                if entry is None or (is_directory and not entry.is_directory):
                    _remove_tree(path)
            names[:] = [name for name in names if prefix + name in self.entries]

    def _finish(self) -> None:
        for path, entry in sorted(self.entries.items(), reverse=True):
            if entry.is_directory:
                times = (entry.mtime_ns, entry.mtime_ns)
                os.utime(f"{self.directory}/{path}", ns=times, follow_symlinks=False)
        self.call.send(protobuf.encode(((1, FIN),)))


def _remove(parent: int, name: str, path: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        _remove_tree(path)


def _remove_tree(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
