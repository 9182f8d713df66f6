"""Routes that carry archives: copy in and out, export, commit.

A verb of the engine writes to or reads from a socket; the other end of it is carried over HTTP here.
"""

from __future__ import annotations

import base64
import socket
import stat as modes
import threading

from ...engine.containers.record import timestamp
from ...engine.rootfs import commit, copy, difference
from ...image.changes import port_specs
from ...spec import jsonio
from ...spec.container import CommitRequest
from ...spec.image import ContainerConfig
from . import creation
from .door import Door, Status
from .words import named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

READ_BYTES = 256 * 1024
TAR = "application/x-tar"
# Go's fs.FileMode: the permission bits are the system's, these are its own.
_GO_TYPES = {
    modes.S_IFDIR: 1 << 31,
    modes.S_IFLNK: 1 << 27,
    modes.S_IFBLK: 1 << 26,
    modes.S_IFCHR: 1 << 26 | 1 << 21,
    modes.S_IFIFO: 1 << 25,
    modes.S_IFSOCK: 1 << 24,
    modes.S_IFREG: 0,
}
_GO_BITS = {modes.S_ISUID: 1 << 23, modes.S_ISGID: 1 << 22, modes.S_ISVTX: 1 << 20}


class Work:
    """A verb on a thread of its own, and our end of its stream."""

    def __init__(self, verb: Callable[[int], None]) -> None:
        self.stream, theirs = socket.socketpair()
        self.failure: BaseException | None = None

        def work() -> None:
            with theirs:
                try:
                    verb(theirs.fileno())
                except BaseException as wrong:
                    self.failure = wrong

        self._thread = threading.Thread(target=work, name="archive", daemon=True)
        self._thread.start()

    def feed(self, pieces: Iterable[bytes]) -> None:
        """Give the verb what it reads, and wait for its end. Raises what it raised."""
        try:
            for data in pieces:
                self.stream.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has refused what came, and says why
        finally:
            try:
                self.stream.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            self._thread.join()
        self.end()

    def end(self) -> None:
        """Wait for its end. Raises what it raised."""
        self._thread.join()
        self.stream.close()
        if self.failure is not None:
            raise self.failure

    def pieces(self) -> Iterator[bytes]:
        """Yield what the verb writes. A failure ends the stream in the middle: the client sees no end of it."""
        try:
            while data := self.stream.recv(READ_BYTES):
                yield data
        finally:
            self.stream.shutdown(socket.SHUT_RDWR)
            self.end()


def stat(door: Door) -> None:
    door.answer(200, stat_header(path_stat(door, asked_path(door))))


def read(door: Door) -> None:
    send(door, stat_header(path_stat(door, asked_path(door))))


def send(door: Door, headers: dict[str, str]) -> None:
    """Answer with an archive of what lies at the path of the query."""
    work = Work(lambda fd: copy.read(door.engine, door.parts["id"], asked_path(door), fd))
    door.stream(200, {"Content-Type": TAR} | headers, work.pieces())


def write(door: Door) -> None:
    path = asked_path(door)
    given = copy.Given(of_user=door.flag("copyUIDGID"), replace=not door.flag("noOverwriteDirNonDir"))
    work = Work(lambda fd: copy.write(door.engine, door.parts["id"], path, fd, given))
    work.feed(door.pieces())
    door.answer(200)


def export(door: Door) -> None:
    record = door.engine.records.find(door.parts["id"])
    work = Work(lambda fd: difference.export(door.engine, record.id, fd))
    door.stream(200, {"Content-Type": "application/octet-stream"}, work.pieces())


def make_image(door: Door) -> None:
    name, tag = door.query.get("repo", ""), door.query.get("tag", "")
    request = CommitRequest(
        container=named(door.query.get("container", "")),
        name=f"{name}:{tag}" if name and tag else name,
        author=door.query.get("author", ""),
        message=door.query.get("comment", ""),
        changes=tuple(door.every("changes")),
        config=_of_config(creation.Reader(door.json(), "Config")),
        pause=door.flag("pause", default=True),
    )
    door.answer_json(201, {"Id": commit.commit(door.engine, request)})


def _of_config(body: creation.Reader) -> dict[str, object]:
    """Return what of a container's Config in the body of a commit an image has, {} where it says nothing of it.

    Raises Status, Invalid.
    """
    try:
        ports: dict[str, object] = {port: {} for word in body.keys("ExposedPorts") for port in port_specs(word)}
    except ValueError as wrong:
        raise Status(400, str(wrong)) from None
    config = ContainerConfig(
        user=body.text("User"),
        exposed_ports=ports,
        env=body.texts("Env"),
        entrypoint=body.texts("Entrypoint"),
        cmd=body.texts("Cmd"),
        volumes={place: {} for place in body.keys("Volumes")},
        working_dir=body.text("WorkingDir"),
        labels=body.pairs("Labels"),
        stop_signal=body.text("StopSignal"),
        healthcheck=creation.health(body.part("Healthcheck")) if "Healthcheck" in body else None,
        on_build=body.texts("OnBuild"),
        stop_timeout=body.number_or_none("StopTimeout"),
    )
    shell = {"Shell": list(body.texts("Shell"))} if "Shell" in body else {}
    return config.to_json() | shell


def asked_path(door: Door) -> str:
    """Return the path of the query. Raises Status."""
    path = door.query.get("path", "")
    if not path:
        raise Status(400, "bad parameter: path cannot be empty")
    return path


def path_stat(door: Door, path: str) -> dict[str, object]:
    """Return docker's object of what lies at a path of the request's container."""
    found = copy.stat(door.engine, door.parts["id"], path)
    mode, mtime_ns = found["mode"], found["mtime_ns"]
    assert isinstance(mode, int) and isinstance(mtime_ns, int)
    return {
        "name": found["name"],
        "size": found["size"],
        "mode": go_mode(mode),
        "mtime": timestamp(mtime_ns),
        "linkTarget": found["link_target"],
    }


def stat_header(told: Mapping[str, object]) -> dict[str, str]:
    """Return the header that tells what lies at a path."""
    return {"X-Docker-Container-Path-Stat": base64.b64encode(jsonio.dump(dict(told))).decode()}


def go_mode(mode: int) -> int:
    """Return st_mode as Go's fs.FileMode."""
    special = sum(bit for flag, bit in _GO_BITS.items() if mode & flag)
    return (mode & 0o777) | _GO_TYPES.get(modes.S_IFMT(mode), 0) | special


ROUTES = (
    ("HEAD", "/containers/{id}/archive", stat),
    ("GET", "/containers/{id}/archive", read),
    ("PUT", "/containers/{id}/archive", write),
    ("GET", "/containers/{id}/export", export),
    ("POST", "/commit", make_image),
)
