"""What a build's client wants back: archives and folders, sent over its session.

Source: moby/buildkit, session/filesync (FileSend); tonistiigi/fsutil, send.go.
"""

from __future__ import annotations

import os
import stat
import tempfile
import threading

from ...build.contexts import extract
from ...build.output import wanted
from ...engine.steps.sweep import PASSING_PREFIX
from ...spec import protobuf
from ...spec.errors import OrlopError, Unavailable
from . import filesync, grpc
from .http2 import Broken
from .session import FILE_SEND

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from ...build.output.wanted import Output
    from ...engine.engine import Engine
    from .session import Session

PIECE_BYTES = 32 * 1024
TO_FILE = frozenset(("oci", "docker", "tar"))


def wanted_of(kind: str, attributes: Mapping[str, str]) -> Output:
    """Return what an exporter is, in our words. Raises Invalid, Unsupported."""
    if kind not in ("moby", ""):
        return wanted.parse({**attributes, "type": kind})
    given = {name: value for name, value in attributes.items() if name != "load"}  # where it goes in any case
    return wanted.parse({**given, "type": wanted.IMAGE})


class Sending:
    """What a build writes, on its way to its client. output: what is asked of the build; sinks: what goes with it.

    Nothing is sent before the build writes. Close it in any case, after `finish` where the build has ended well.
    """

    def __init__(self, engine: Engine, session: Session, kind: str, attributes: Mapping[str, str]) -> None:
        self.output = wanted_of(kind, attributes)
        self.sinks: list[int] = []
        self._session = session
        self._metadata = [(f"exporter-md-{name}", value) for name, value in attributes.items() if value.isascii()]
        self._failure: OrlopError | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._reading = self._writing = -1
        if kind in TO_FILE or kind == wanted.LOCAL:
            if not session.offers(FILE_SEND):
                hint = "give --output a destination"
                raise Unavailable("send", "the build's output", "the client takes none", hint=hint)
            if kind == wanted.LOCAL:
                os.makedirs(f"{engine.paths.root}/build", 0o700, exist_ok=True)
                place = f"{engine.paths.root}/build"
                self._directory = tempfile.TemporaryDirectory(dir=place, prefix=PASSING_PREFIX)
            self._reading, self._writing = os.pipe()
            self.output = self.output.replace(sink=0)
            self.sinks = [self._writing]
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if self._directory is not None:
            self._directory.cleanup()

    def finish(self) -> None:
        """The build has written all of it: send what is left. Raises Unavailable."""
        if not self.sinks:
            return
        self._end()
        if self._failure is not None:
            raise self._failure
        if self._directory is not None:
            directory = self._directory.name
            self._call(lambda call: _Sender(call, directory).run())

    def _end(self) -> None:
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1
            self._thread.join()

    def _work(self) -> None:
        try:
            if self._directory is not None:
                extract(self._reading, self._directory.name)
            elif data := os.read(self._reading, PIECE_BYTES):
                self._call(lambda call: self._send(call, data))
        except OrlopError as wrong:
            self._failure = wrong
        except OSError as wrong:
            self._failure = Unavailable("send", "the build's output", wrong.strerror or str(wrong))
        finally:
            os.close(self._reading)  # then nobody waits for somebody who reads

    def _send(self, call: grpc.Outgoing, data: bytes) -> None:
        while data:
            call.send(protobuf.encode(((1, data),)))
            data = os.read(self._reading, PIECE_BYTES)

    def _call(self, act: Callable[[grpc.Outgoing], None]) -> None:
        try:
            call = grpc.begin(self._session.connection, FILE_SEND, self._metadata)
            act(call)
            call.end()
            for _ in call.messages():
                continue
            call.check()
        except grpc.Failed as error:
            raise Unavailable("send", "the build's output", error.text) from None
        except Broken as error:
            raise Unavailable("send", "the build's output", str(error)) from None


class _Sender:
    """fsutil's sending side: every file's STAT in order, then the content of those that are asked for."""

    def __init__(self, call: grpc.Outgoing, directory: str) -> None:
        self.call = call
        self.directory = directory
        self.files: list[str] = []

    def run(self) -> None:
        for path in self._walk(""):
            self.call.send(protobuf.encode(((1, filesync.STAT), (2, self._stat(path)))))
            self.files.append(path)
        self.call.send(protobuf.encode(((1, filesync.STAT),)))
        for message in self.call.messages():
            fields = protobuf.decode(message)
            kind = protobuf.number(fields, 1)
            if kind == filesync.REQ:
                self._send(protobuf.number(fields, 3))
            elif kind == filesync.FIN:
                self.call.send(protobuf.encode(((1, filesync.FIN),)))
                return
            elif kind == filesync.ERR:
                cause = protobuf.inner(fields, 4).decode(errors="replace")
                raise Unavailable("send", "the build's output", cause)

    def _walk(self, place: str) -> Iterator[str]:
        # In the order of paths with their slashes sorted first: the receiver checks it.
        for entry in sorted(os.scandir(os.path.join(self.directory, place)), key=lambda one: one.name):
            path = f"{place}/{entry.name}" if place else entry.name
            yield path
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(path)

    def _stat(self, path: str) -> protobuf.Message:
        full = f"{self.directory}/{path}"
        found = os.lstat(full)
        link = os.readlink(full) if stat.S_ISLNK(found.st_mode) else ""
        size = found.st_size if stat.S_ISREG(found.st_mode) else 0
        return (
            (1, path),
            (2, _go_mode(found.st_mode)),
            (3, found.st_uid),
            (4, found.st_gid),
            (5, size),
            (6, found.st_mtime_ns),
            (7, link),
        )

    def _send(self, number: int) -> None:
        if not 0 <= number < len(self.files):
            raise Unavailable("send", "the build's output", f"file {number} was asked for, which there is not")
        fd = os.open(f"{self.directory}/{self.files[number]}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            while data := os.read(fd, PIECE_BYTES):
                self.call.send(protobuf.encode(((1, filesync.DATA), (3, number), (4, data))))
        finally:
            os.close(fd)
        self.call.send(protobuf.encode(((1, filesync.DATA), (3, number))))


def _go_mode(mode: int) -> int:
    kinds = {stat.S_IFDIR: 1 << 31, stat.S_IFLNK: 1 << 27, stat.S_IFIFO: 1 << 25, stat.S_IFSOCK: 1 << 24}
    kinds |= {stat.S_IFBLK: 1 << 26, stat.S_IFCHR: 1 << 26 | 1 << 21}
    bits = mode & 0o777 | kinds.get(stat.S_IFMT(mode), 0)
    for ours, go in ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20)):
        bits |= go if mode & ours else 0
    return bits
