"""What a build's client wants back: archives and folders, sent over its session.

Source: moby/buildkit, session/filesync (FileSend); tonistiigi/fsutil, send.go.
"""

from __future__ import annotations

import os
import socket
import stat
import tempfile
import threading

from ...engine.images import archives
from ...spec import protobuf
from ...spec.errors import OrlopError, Unavailable
from . import filesync, grpc
from .http2 import Broken
from .session import FILE_SEND

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ...engine.engine import Engine
    from .session import Session

PIECE_BYTES = 32 * 1024
TO_FILE = frozenset(("oci", "docker", "tar"))


def send(engine: Engine, session: Session, kind: str, attributes: Mapping[str, str], image: str) -> None:
    """Send an image as the exporter `kind` ("oci", "docker", "tar" or "local") would. Raises Unavailable."""
    if not session.offers(FILE_SEND):
        raise Unavailable("send", "the build's output", "the client takes none", hint="give --output a destination")
    metadata = [(f"exporter-md-{name}", value) for name, value in attributes.items() if value.isascii()]
    try:
        call = grpc.begin(session.connection, FILE_SEND, metadata)
        if kind == "local":
            with tempfile.TemporaryDirectory(dir=f"{engine.paths.root}/build") as directory:
                _extract(engine, image, directory)
                _Sender(call, directory).run()
        else:
            _send_bytes(call, lambda fd: _write(engine, kind, image, fd))
        call.end()
        for _ in call.messages():
            continue
        call.check()
    except grpc.Failed as error:
        raise Unavailable("send", "the build's output", error.text) from None
    except Broken as error:
        raise Unavailable("send", "the build's output", str(error)) from None


def _write(engine: Engine, kind: str, image: str, fd: int) -> None:
    from ...build.export import write_tree

    if kind == "tar":
        write_tree(engine, image, fd)
    else:
        archives.save(engine, [image], fd)


def _send_bytes(call: grpc.Outgoing, write: Callable[[int], None]) -> None:
    reading, writing = socket.socketpair()
    failure: list[OrlopError] = []

    def produce() -> None:
        try:
            write(writing.fileno())
        except OrlopError as error:
            failure.append(error)
        finally:
            writing.close()

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    with reading:
        while data := reading.recv(PIECE_BYTES):
            call.send(protobuf.encode(((1, data),)))
    thread.join()
    if failure:
        raise failure[0]


def _extract(engine: Engine, image: str, directory: str) -> None:
    from ...build.contexts import extract

    reading, writing = os.pipe()
    failure: list[BaseException] = []

    def produce() -> None:
        try:
            _write(engine, "tar", image, writing)
        except BaseException as error:
            failure.append(error)
        finally:
            os.close(writing)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        extract(reading, directory)
    finally:
        os.close(reading)
        thread.join()
    if failure:
        raise failure[0]


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
