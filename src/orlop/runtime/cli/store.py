"""What the runtime remembers of its containers: one directory each below `--root`.

    <root>/<id>/state.json    Entry: written whole (tmp + rename) by create, once
    <root>/<id>/config.json   the spec as it was at create (update changes its resources): a bundle may change meanwhile
    <root>/<id>/gate.sock     init listens here until `start` has come through it (orlop.runtime.gate)
                plain.sock    the same, where start has nothing else to do

The status is computed: the process (by pid and start time) lives or not, stands at the gate or has passed it, its
cgroup is frozen or not.
"""

import os
import stat

from ...linux.pidfd import boot_id, pidfd_of, stat_fields
from ...spec import jsonio
from ...spec.errors import Conflict, Invalid, NotFound
from ...spec.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...linux.cgroup import Cgroup
    from ...spec.runtime import Spec, State

ID_CHARACTERS_MAX = 1024
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
GATE = "gate.sock"
PLAIN_GATE = "plain.sock"  # of a container whose start has nothing to do but to let it go: see runtime.starter
_STATE = "state.json"
_SPEC = "config.json"
_SPEC_BYTES_MAX = 16 * 1024 * 1024
_STATE_BYTES_MAX = 1024 * 1024


class Entry(Record):
    """state.json. created: RFC 3339. unit: systemd's, "" for none.

    pid_start_time and pid_inode (of its pidfd, 0 where it was not known) make the pid unique on this boot. freezer: the
    file that tells whether it is paused, "" without a cgroup.
    delegated: the v2 directory from which `cgroup` counts, "" for the root of every hierarchy.
    descriptors: what 0, 1 and 2 were when it was made ("pipe:[7]"), for a checkpoint; none with a terminal.
    """

    id: str
    bundle: str
    pid: int
    pid_start_time: int
    boot_id: str
    created: str
    cgroup: str = ""
    rootfs: str = ""
    owner_uid: int = 0
    descriptors: tuple[str, ...] = ()
    keep: bool = False
    unit: str = ""
    pid_inode: int = 0
    freezer: str = ""
    delegated: str = ""


def cgroup_of(entry: Entry) -> "Cgroup":
    """Return the container's cgroup. Raises OSError."""
    from ...linux.cgroup import Cgroup, below, detect

    layout = detect()
    return Cgroup(below(layout, entry.delegated) if entry.delegated else layout, entry.cgroup)


def check_id(container_id: str) -> str:
    """Return the id if it can be one. Raises Invalid (SEC-23)."""
    if not container_id:
        raise Invalid("name", "the container", "container id cannot be empty")
    if len(container_id) > ID_CHARACTERS_MAX or container_id in (".", "..") or not set(container_id) <= _ID_CHARACTERS:
        raise Invalid(
            "name",
            f"container {container_id[:64]!r}",
            "invalid container ID format",
            hint="use letters, digits and _+-.",
        )
    return container_id


class Store:
    """The containers below one root directory, which is made with mode 0700 when missing."""

    def __init__(self, root: str) -> None:
        self.root = root

    def directory(self, container_id: str) -> str:
        """Return the directory of a container."""
        return os.path.join(self.root, check_id(container_id))

    def reserve(self, container_id: str) -> str:
        """Make the directory of a new container. Raises Conflict when the id is taken."""
        directory = self.directory(container_id)
        os.makedirs(self.root, 0o700, exist_ok=True)
        try:
            os.mkdir(directory, 0o711)
        except FileExistsError:
            raise Conflict(
                "create",
                f"container {container_id}",
                "container with given ID already exists",
                hint=f"choose another id, or: orlop-runtime delete {container_id}",
            ) from None
        return directory

    def save(self, entry: Entry, spec: "Spec | None" = None) -> None:
        """Write state.json and, when given, the spec."""
        directory = self.directory(entry.id)
        if spec is not None:
            _replace(f"{directory}/{_SPEC}", jsonio.dump(spec.to_json()))
        _replace(f"{directory}/{_STATE}", jsonio.dump(entry.to_json()))

    def load(self, container_id: str) -> Entry:
        """Return what is known of a container. Raises NotFound with runc's words."""
        path = f"{self.directory(container_id)}/{_STATE}"
        try:
            data = read_document(path, _STATE_BYTES_MAX)
            return Entry.from_json(jsonio.parse(data, path, bytes_max=_STATE_BYTES_MAX), path)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound("find", f"container {container_id}", "container does not exist") from None

    def document(self, container_id: str) -> bytes:
        """Return that spec as it is on disk, for who wants to know one thing of it: see `has_hooks`."""
        return read_document(f"{self.directory(container_id)}/{_SPEC}", _SPEC_BYTES_MAX)

    def spec(self, container_id: str) -> "Spec":
        """Return the spec that the container was made from."""
        return read_spec(f"{self.directory(container_id)}/{_SPEC}")

    def ids(self) -> list[str]:
        """Return the ids of all containers."""
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []
        return [name for name in names if os.path.exists(f"{self.root}/{name}/{_STATE}")]

    def forget(self, container_id: str) -> None:
        """Remove a container's directory, which holds only files of ours."""
        directory = self.directory(container_id)
        try:
            for name in os.listdir(directory):
                os.unlink(f"{directory}/{name}")
            os.rmdir(directory)
        except FileNotFoundError:
            pass

    def open_init(self, entry: Entry) -> int | None:
        """Return a pidfd of the container's first process, None when it has ended."""
        if entry.boot_id != boot_id():
            return None
        try:
            pidfd = pidfd_of(entry.pid, entry.pid_start_time, entry.pid_inode)
        except ProcessLookupError:
            return None
        if _is_zombie(entry.pid):
            os.close(pidfd)
            return None
        return pidfd

    def status(self, entry: Entry) -> str:
        """Return created, running, paused or stopped."""
        pidfd = self.open_init(entry)
        if pidfd is None:
            return "stopped"
        os.close(pidfd)
        return self.status_of_living(entry)

    def status_of_living(self, entry: Entry) -> str:
        """Return created, running or paused, for who holds the pidfd of its first process."""
        if _is_frozen(entry):
            return "paused"
        return "created" if self.gate(entry.id) else "running"

    def gate(self, container_id: str) -> str:
        """Return the name of the gate that the container's process stands at, "" for none."""
        directory = self.directory(container_id)
        return next((name for name in (PLAIN_GATE, GATE) if os.path.exists(f"{directory}/{name}")), "")

    def ask_at_start(self, container_id: str) -> None:
        """Have the next start look at the container before it lets it go."""
        directory = self.directory(container_id)
        try:
            os.rename(f"{directory}/{PLAIN_GATE}", f"{directory}/{GATE}")
        except FileNotFoundError:
            pass

    def state(self, entry: Entry, spec: "Spec") -> "State":
        """Return the state document."""
        from ...spec.runtime import OCI_VERSION, State

        status = self.status(entry)
        return State(
            oci_version=OCI_VERSION,
            id=entry.id,
            status=status,
            pid=entry.pid if status != "stopped" else 0,
            bundle=entry.bundle,
            annotations=spec.annotations,
        )


def has_hooks(document: bytes, point: str) -> bool:
    """Return whether the config.json has hooks at this point: the whole of it is read only where it may."""
    if f'"{point}"'.encode() not in document:
        return False
    hooks = jsonio.parse_object(document, "config.json", bytes_max=_SPEC_BYTES_MAX).get("hooks")
    return isinstance(hooks, dict) and bool(hooks.get(point))


def read_spec(path: str) -> "Spec":
    """Return the spec in a file. Raises NotFound, Invalid."""
    from ...spec.runtime import Spec

    try:
        data = read_document(path, _SPEC_BYTES_MAX)
    except FileNotFoundError:
        raise NotFound(
            "read", path, f"JSON specification file {path} not found", hint="make one with: orlop-runtime spec"
        ) from None
    except OSError as failure:
        raise Invalid("read", path, os.strerror(failure.errno or 0)) from None
    return Spec.from_json(jsonio.parse(data, path, bytes_max=_SPEC_BYTES_MAX), path)


def read_document(path: str, bytes_max: int, *, pipe: bool = False) -> bytes:
    """Return a file's content; of one that is larger one byte more than bytes_max, for `jsonio.parse` to refuse.

    Looked at before it is opened: a FIFO that nobody writes to would be waited for, a device does what it does when it
    is opened. pipe: may be one, as `<(...)` of a shell is; one that nobody writes to is empty. Raises OSError, Invalid.
    """
    found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        mode = os.fstat(found).st_mode
        if not (stat.S_ISREG(mode) or (pipe and stat.S_ISFIFO(mode))):
            raise Invalid("read", path, "it is not a regular file", hint="name a file that holds the JSON document")
        fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(found)
    with open(fd, "rb") as file:
        os.set_blocking(fd, True)
        return file.read(bytes_max + 1)


def _replace(path: str, data: bytes) -> None:
    with open(f"{path}.tmp", "wb") as file:
        file.write(data)
    os.rename(f"{path}.tmp", path)


def _is_zombie(pid: int) -> bool:
    try:
        return stat_fields(pid)[0] in ("Z", "X")
    except OSError:
        return True


def _is_frozen(entry: Entry) -> bool:
    file = entry.freezer
    if not file and entry.cgroup:  # of a version that did not remember it
        file = cgroup_of(entry).freezer
    try:
        with open(file or os.devnull, "rb") as freezer:
            return freezer.read(8).strip() == b"1"
    except OSError:
        return False
