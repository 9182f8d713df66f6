"""The durable record of a container: container.json. Writer: the engine, and only it.

Invariants:
1. container.json appears whole and durable (temporary file, fsync, rename, fsync of the directory), and it is the last
   thing that `create` writes: a directory without it never was a container and may be swept. Of a container that goes
   with its process it is left to the kernel, and a mark (_PASSING) says so first: a power cut ends both, and may leave
   an empty file, which is as good as none beside that mark.
2. It holds what was asked and what was decided, never what happens: that lies in status.json and exit.json (state.py).
3. A removal begins with a rename to a name that is no id: from then on no reader sees the container, and what is left
   of it names what is still to be removed.
"""

import os
import shutil
import threading
import time
from contextlib import contextmanager
from errno import ENOENT

from ...linux.path import DAMAGED, fsync_directory, read_file
from ...spec import jsonio
from ...spec.container import ContainerRequest
from ...spec.errors import Conflict, Internal, Invalid, NotFound, OrlopError, Unavailable
from ...spec.health import Healthcheck
from ...spec.mount import MountPoint
from ...spec.record import Record
from ...spec.runtime import IdMapping, Process, Spec
from ...spec.task import SPEC_FILE
from . import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD_FILE = "container.json"
CGROUP = "/orlop"  # below it, each container's own is named by its id; all engines of a machine share it
SPEC_BYTES_MAX = 8 * 1024 * 1024
RECORD_BYTES_MAX = 8 * 1024 * 1024  # a request of the native socket is 4 MiB at most
_REPAIR = "repair {} or remove its directory"
_REMOVED = ".removed"
_PASSING = "passing"
_TAKES_VOLUMES = "takes-volumes"  # a file in the directory of a removal that takes the nameless volumes along


class Config(Record):
    """How the container runs: the request over the image's configuration (compile.config)."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    hostname: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = "SIGTERM"
    stop_timeout_s: int | None = None
    exposed_ports: tuple[str, ...] = ()
    health: Healthcheck | None = None
    shell_form: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()

    @property
    def args(self) -> tuple[str, ...]:
        """The argument vector."""
        return self.entrypoint + self.cmd


class ContainerRecord(Record):
    """container.json.

    image_id: the digest of the image configuration, "" with --rootfs. snapshot_parent: the chain id of its layers.
    uid_mappings, gid_mappings: of its user namespace, none where that is the engine's (engine.userns.ranges).
    network_mode: the network it was made for, once it has left that one or come into others. joined: the ids of those
    whose namespaces it shares, by what it called them.
    created_at: RFC 3339 in UTC. start_error, start_error_code, start_exit_code: of the last start that failed, else ""
    and 0.
    """

    id: str
    name: str
    created_at: str
    request: ContainerRequest
    config: Config
    image_id: str = ""
    snapshot_parent: str = ""
    mounts: tuple[MountPoint, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    start_error: str = ""
    start_error_code: str = ""
    start_exit_code: int = 0
    network_mode: str = ""
    joined: dict[str, str] = {}

    @property
    def cgroup(self) -> str:
        """The path of its cgroup: below --cgroup-parent, or below the engine's own."""
        parent = self.request.cgroup_parent.strip("/")
        return f"/{parent}/{self.id}" if parent else f"{CGROUP}/{self.id}"

    @property
    def subject(self) -> str:
        """What errors call it."""
        return f"container {self.name}"

    def told(self, mode: str) -> str:
        """Return the mode of a namespace, with the id of another container in the place of its name."""
        kind, _, reference = mode.partition(":")
        return f"{kind}:{self.joined[reference]}" if kind == "container" and reference in self.joined else mode


def timestamp(time_ns: int | None = None) -> str:
    """Return a moment, now by default, in RFC 3339 with nanoseconds, in UTC."""
    seconds, nanoseconds = divmod(time.time_ns() if time_ns is None else time_ns, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def write_durably(path: str, data: bytes, *, last: bool = True, durable: bool = True) -> None:
    """Replace a file so that after a power cut it has the old content or all of the new.

    last: whether its name must be durable too; False when another file of the directory follows, which makes it so.
    durable: False leaves all of that to the kernel; who reads at the same time still sees the one or the other.
    """
    temporary = f"{path}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        if durable:
            os.fsync(fd)
    os.rename(temporary, path)
    if not (last and durable):
        return
    fsync_directory(os.path.dirname(path))


@contextmanager
def disk_trouble_told(verb: str, subject: str) -> "Iterator[None]":
    """Turn what the file system refuses (full, read-only, out of descriptors) into Unavailable."""
    try:
        yield
    except OSError as wrong:
        where = f"{wrong.filename}: " if wrong.filename else ""
        hint = "look at the space (df) and the owner of ORLOP_ROOT and ORLOP_RUN"
        raise Unavailable(verb, subject, f"{where}{wrong.strerror or wrong}", hint=hint) from None


class Records:
    """The containers on disk. Reading takes no lock: a record is replaced by rename, and one that goes is NotFound."""

    def __init__(self, directory: str) -> None:
        """directory: $ORLOP_ROOT/containers; it exists."""
        self.directory = directory
        # Parsed records by id, valid for one inode and mtime: a replaced file has another inode.
        self._parsed: dict[str, tuple[tuple[int, int], ContainerRecord]] = {}
        self._processes: dict[str, tuple[tuple[int, int], Process | None]] = {}  # the same, of their specs
        self._naming = threading.Lock()
        self._reserved: dict[str, str] = {}  # names of containers that are being created

    def path(self, container_id: str) -> str:
        """Return the directory of a container: its bundle."""
        return f"{self.directory}/{container_id}"

    def ids(self) -> list[str]:
        """Return the names of all directories that are ids: containers, and what was never finished."""
        return [name for name in os.listdir(self.directory) if names.is_id(name)]

    def load(self, container_id: str) -> ContainerRecord:
        """Return the record of a whole id. Raises NotFound; Internal for a file that is damaged."""
        path = f"{self.directory}/{container_id}/{RECORD_FILE}"
        try:
            found = os.lstat(path)
            version = (found.st_ino, found.st_mtime_ns)
            parsed = self._parsed.get(container_id)
            if parsed is not None and parsed[0] == version:
                return parsed[1]
            record = _read(path)
        except (FileNotFoundError, NotADirectoryError):
            self._parsed.pop(container_id, None)
            raise no_such_container(container_id) from None
        self._parsed[container_id] = (version, record)
        return record

    def spec(self, container_id: str) -> Spec:
        """Return the stored OCI spec of a container. Raises Internal, Invalid for a damaged one."""
        path = f"{self.directory}/{container_id}/{SPEC_FILE}"
        try:
            data = read_file(path, SPEC_BYTES_MAX)
        except OSError as wrong:
            raise Internal("read", path, wrong.strerror or str(wrong), hint=_REPAIR.format(path)) from None
        return Spec.from_json(jsonio.parse(data, path, bytes_max=SPEC_BYTES_MAX), path)

    def process(self, container_id: str) -> "Process | None":
        """Return the process of the stored OCI spec: what an exec has from it. Raises as `spec`."""
        path = f"{self.directory}/{container_id}/{SPEC_FILE}"
        try:
            found = os.lstat(path)
        except OSError as wrong:
            raise Internal("read", path, wrong.strerror or str(wrong), hint=_REPAIR.format(path)) from None
        version = (found.st_ino, found.st_mtime_ns)
        parsed = self._processes.get(container_id)
        if parsed is None or parsed[0] != version:
            parsed = self._processes[container_id] = (version, self.spec(container_id).process)
        return parsed[1]

    def all(self) -> "Iterator[ContainerRecord]":
        """Yield every container that can be read, in no order. One that is damaged never hides the others."""
        for container_id in self.ids():
            try:
                yield self.load(container_id)
            except OrlopError:
                continue

    def find(self, reference: str) -> ContainerRecord:
        """Return the container that a user means by an id, a name, or the beginning of exactly one id, in this order.

        Raises NotFound; Invalid when several ids begin so.
        """
        if names.is_id(reference):
            return self.load(reference)
        wanted = reference.removeprefix("/")
        prefix = names.is_id_prefix(wanted)
        matches = []
        for record in self.all():
            if record.name == wanted:
                return record
            if prefix and record.id.startswith(wanted):
                matches.append(record)
        if len(matches) > 1:
            shown = ", ".join(sorted(names.short_id(record.id) for record in matches)[:5])
            cause = f"multiple IDs found with provided prefix: {reference} ({shown})"
            raise Invalid(
                "find", f"container {reference}", cause, hint="give more digits of the id, or the name", code="E0104"
            )
        if not matches:
            raise no_such_container(reference)
        return matches[0]

    def lender(self, record: ContainerRecord, reference: str) -> ContainerRecord:
        """Return the container that another one named when it was made, whatever it is called now.

        When that one is gone: who has its name. Raises as `find`.
        """
        try:
            return self.load(record.joined[reference])
        except (KeyError, NotFound):
            return self.find(reference)

    @contextmanager
    def reserved(self, wanted: str, container_id: str) -> "Iterator[str]":
        """Hold a name for a container that is being created: wanted, or a drawn one for "".

        Raises Invalid for what is no name, Conflict with docker's text for one that is taken.
        """
        with self._naming:
            taken = {record.name: record.id for record in self.all()} | self._reserved
            name = names.check_name(wanted) if wanted else names.draw_name(taken)
            if name in taken:
                cause = f'The container name "/{name}" is already in use by container "{taken[name]}"'
                hint = f"remove or rename that container to be able to reuse that name: orlop rm {name}"
                raise Conflict("create", f"container {name}", cause, hint=hint, code="E0102")
            self._reserved[name] = container_id
        try:
            yield name
        finally:
            with self._naming:
                del self._reserved[name]

    def save(self, record: ContainerRecord) -> None:
        """Write container.json, durably unless the container goes with its process; the directory exists."""
        directory, durable = f"{self.directory}/{record.id}", not record.request.auto_remove
        if not durable:
            open(f"{directory}/{_PASSING}", "wb").close()
        write_durably(f"{directory}/{RECORD_FILE}", jsonio.dump(record.to_json()), durable=durable)

    def condemn(self, container_id: str, *, volumes: bool = False) -> None:
        """Take a container away from all readers. Its directory stays until `bury`, which a next engine can do.

        volumes: the removal takes the container's nameless volumes along; it is noted, as a next engine may finish it.
        """
        try:
            if volumes:
                with open(f"{self.directory}/{container_id}/{_TAKES_VOLUMES}", "wb"):
                    pass
            os.rename(f"{self.directory}/{container_id}", self._grave(container_id))
        except FileNotFoundError:
            raise no_such_container(container_id) from None
        self._parsed.pop(container_id, None)
        self._processes.pop(container_id, None)

    def condemned(self) -> list[str]:
        """Return the ids of removals that were cut short."""
        found = os.listdir(self.directory)
        return [name.removesuffix(_REMOVED) for name in found if name.endswith(_REMOVED)]

    def buried(self, container_id: str) -> "tuple[ContainerRecord | None, bool]":
        """Return the record of a condemned container, None for one that was never finished; whether volumes go too."""
        grave = self._grave(container_id)
        try:
            record = _read(f"{grave}/{RECORD_FILE}")
        except (OSError, OrlopError):
            record = None
        return record, os.path.exists(f"{grave}/{_TAKES_VOLUMES}")

    def bury(self, container_id: str) -> None:
        """Remove what `condemn` left."""
        shutil.rmtree(self._grave(container_id), ignore_errors=True)

    def _grave(self, container_id: str) -> str:
        return f"{self.directory}/{container_id}{_REMOVED}"


def no_such_container(reference: str) -> NotFound:
    """Return the error for a reference that names no container."""
    shown = reference if len(reference) <= 100 else reference[:100] + "..."
    return NotFound(
        "find",
        f"container {shown}",
        f"No such container: {shown}",
        hint="list the containers with: orlop ps -a",
        code="E0101",
    )


def _read(path: str) -> ContainerRecord:
    try:
        data = read_file(path, RECORD_BYTES_MAX)
    except OSError as wrong:
        if wrong.errno not in DAMAGED:
            raise
        raise Internal("read", path, wrong.strerror or str(wrong), hint=_REPAIR.format(path)) from None
    if not data.strip(b"\0") and os.path.exists(f"{os.path.dirname(path)}/{_PASSING}"):
        raise FileNotFoundError(ENOENT, os.strerror(ENOENT), path)
    try:
        value = jsonio.parse(data, path, bytes_max=RECORD_BYTES_MAX)
        return ContainerRecord.from_json(value, path)
    except Invalid as wrong:
        raise Internal("read", path, wrong.cause, hint=_REPAIR.format(path)) from None
