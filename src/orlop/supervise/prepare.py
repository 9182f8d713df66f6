"""From a start message to a process that waits for its go: what differs between a container's process and an exec's."""

import os
from contextlib import ExitStack

from ..linux import mount, path, process
from ..runtime import enter, launch, plan, rootfs, users
from ..runtime.operations import Outside, mount_options
from ..runtime.seccomp_cache import ProgramCache
from ..spec import jsonio
from ..spec.errors import Conflict, Invalid, OrlopError
from ..spec.runtime import OCI_VERSION, Box, Namespace, Process, Spec, State, User
from ..spec.task import ENVIRONMENT, GRANTED, LOG_DRIVERS, SPEC_FILE, LogOptions, Start, StartExec, StartTask
from . import follow, record
from .stdio import Pipes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..runtime.host import HostFacts
    from ..runtime.launch import Created
    from ..runtime.planning.process import FilterCompiler
    from ..spec.runtime import Seccomp

REHEARSALS = 10  # the interpreter rewrites a function when it has run a few times (PEP 659)
EXEC_DIRECTORY = "exec"
_NOWHERE = "/proc/self/fdinfo"  # where nobody keeps anything
GRANTED_BYTES_MAX = 4 * 1024 * 1024
_HEX = frozenset("0123456789abcdef")
_REHEARSED_PROCESS = (
    b'{"cwd":"/","args":["true"],"env":["PATH=/bin","HOME=/"],"user":{"umask":18},"noNewPrivileges":true,'
    b'"capabilities":{"bounding":["CAP_CHOWN","CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"]}}'
)
_REHEARSED_START = (
    b'{"exec":{"id":"00","execId":"00","directory":"/","runtimeDirectory":"/","pid":1,"pidStartTime":1,"attached":true,'
    b'"user":"0:0","process":' + _REHEARSED_PROCESS + b"}}"
)
_REHEARSED_SPEC = (
    b'{"ociVersion":"1.2.1","root":{"path":"/"},"process":' + _REHEARSED_PROCESS + b',"hostname":"a","mounts":['
    b'{"destination":"/proc","type":"proc","source":"proc","options":["nosuid","noexec","nodev"]},'
    b'{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755"]}],'
    b'"linux":{"cgroupsPath":"/orlop/rehearsal","namespaces":[{"type":"pid"},{"type":"mount"},{"type":"uts"},'
    b'{"type":"ipc"}],"resources":{"pids":{"limit":100}},"maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/sys"],'
    b'"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86_64"],'
    b'"syscalls":[{"names":["read","write","clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,'
    b'"op":"SCMP_CMP_MASKED_EQ"}]},{"names":["exit"],"action":"SCMP_ACT_ALLOW"}]}}}'
)


class Job:
    """What is to be started, and where.

    name: short ids, for titles. directory, runtime_directory: open descriptors. own_directory: the path of an exec's
    runtime directory, which it does not outlive; "" for a container's process. log: None without one.
    network: a descriptor of the network namespace that came with the message, -1 for none. trees: of detached mounts,
    by their destinations. restarts: see TaskStatus. followed: see Handover, once the process is made.
    wait: called with the pid when the process is made; its command is executed when it returns.
    """

    __slots__ = (
        "directory",
        "followed",
        "log",
        "message",
        "name",
        "network",
        "own_directory",
        "restarts",
        "runtime_directory",
        "subject",
        "trees",
        "verb",
        "wait",
    )

    def __init__(
        self, message: StartTask | StartExec, network: int = -1, trees: "Mapping[str, int] | None" = None
    ) -> None:
        """Open the directories. network, trees: borrowed. Raises Invalid for an id that is none, OSError."""
        self.message = message
        self.name = _checked(message.id)[:12]
        self.subject = f"container {self.name}"
        self.verb = "start"
        self.own_directory = ""
        self.network = network
        self.trees = trees or {}
        self.restarts = self.restarts_before
        self.followed = ""
        self.wait: Callable[[int], None] | None = None
        self.log: LogOptions | None = None
        if isinstance(message, StartTask) and message.log.driver not in LOG_DRIVERS:
            cause = f"there is no log driver {message.log.driver!r}"
            raise Invalid("start", self.subject, cause, hint=f"use one of {', '.join(LOG_DRIVERS)}")
        self.directory = _open(message.directory)
        self.runtime_directory = _open(message.runtime_directory)
        if isinstance(message, StartExec):
            self.verb = "execute a command in"
            self.name += f" exec {_checked(message.exec_id)[:12]}"
            self.directory = _make_exec_directory(self.directory, message.exec_id)
            self.runtime_directory = _make_exec_directory(self.runtime_directory, message.exec_id)
            self.own_directory = f"{message.runtime_directory}/{EXEC_DIRECTORY}/{message.exec_id}"
        elif message.log.driver != "none":
            self.log = message.log

    @property
    def input_ends_with_client(self) -> bool:
        """Whether the end of a client's input, or its going, is the end of the process's input."""
        return isinstance(self.message, StartExec) or self.message.stdin_once

    @property
    def restarts_before(self) -> int:
        """How often the container was restarted before its monitor began."""
        return self.message.restarts if isinstance(self.message, StartTask) else 0

    @property
    def is_first(self) -> bool:
        """Whether it is the first process of a new monitor's container."""
        return isinstance(self.message, StartTask) and self.restarts == self.restarts_before

    @property
    def owns_cgroup(self) -> bool:
        """Whether the process's cgroup goes with it; an exec lives in the container's."""
        return isinstance(self.message, StartTask)

    def remove_own_directory(self) -> None:
        """Remove what `own_directory` names. Raises OSError."""
        if self.own_directory:
            os.rmdir(self.own_directory)

    def create(self, facts: "HostFacts", announce: "Callable[[str], object]") -> "tuple[Created, Pipes | None]":
        """Make the process; the streams are None when it has a terminal. Raises OrlopError, OSError.

        It may still be setting itself up when this returns (`Created.attend`).
        announce: called with the path of a cgroup before it is made.
        """
        if isinstance(self.message, StartExec):
            return begin_exec(self.message, facts, f"exec-{self.message.exec_id}")
        return _create_task(self, self.message, facts, announce)


def _create_task(
    job: Job, message: StartTask, facts: "HostFacts", announce: "Callable[[str], object]"
) -> "tuple[Created, Pipes | None]":
    spec, compile_filter = _read_spec(message, facts)
    job.followed = follow.found(spec.mounts, message.directory)
    command = spec.process
    if command is None:
        raise Invalid("start", f"container {message.id[:12]}", f"{SPEC_FILE} has no process")
    with ExitStack() as opened:
        trees = job.trees if job.is_first else _still_there(job.trees, opened)
        spec = _in_network(_with_trees(_in_namespaces(spec, message, opened), trees), job.network)
        root = rootfs.open_rootfs(message.rootfs)
        opened.callback(os.close, root)
        told = _resolved(command, root, message.user, message.groups)
        told = _granted(_sized(told, message.console_size), message.directory)
        compiled = plan.compile(spec.replace(process=told), facts, compile_filter)
        if compiled.cgroup is not None and not compiled.cgroup.exists:
            announce(compiled.cgroup.path)
        pipes = None if told.terminal else Pipes(message.open_stdin)
        state = State(oci_version=OCI_VERSION, id=message.id, status="creating", bundle=message.directory)
        created = launch.begin(compiled, Outside(state, root=root), pipes.theirs if pipes else ())
    return created, pipes


def rehearse(facts: "HostFacts") -> None:
    """Compute what a start of an exec and of a container computes, for a process of our own; nothing is made."""
    try:
        pidfd = process.pidfd_of(os.getpid(), process.start_time(os.getpid()))
        try:
            root = enter.open_root(os.getpid(), pidfd)
            try:
                for _ in range(REHEARSALS):
                    _rehearse_once(facts, root)
            finally:
                os.close(root)
        finally:
            os.close(pidfd)
    except (OrlopError, OSError):
        pass  # on this machine it goes another way


def _rehearse_once(facts: "HostFacts", root: int) -> None:
    start = Start.from_json(jsonio.parse_object(_REHEARSED_START, "a rehearsal"), "a rehearsal")
    document = jsonio.parse(_REHEARSED_SPEC, "a rehearsal")
    ProgramCache(_NOWHERE).compiler(document, facts.machine)
    spec = Spec.from_json(document, "a rehearsal")
    assert start.exec
    told = _resolved(start.exec.process, root, start.exec.user, start.exec.groups)
    enter.compile_exec(told, spec, facts, _no_program, "rehearsal")
    plan.compile(spec.replace(process=told), facts, _no_program)
    jsonio.dump(start.to_json())


def _no_program(_profile: "Seccomp", _machine: str) -> bytes:
    return b""


def begin_exec(message: StartExec, facts: "HostFacts", leaf: str = "") -> "tuple[Created, Pipes | None]":
    """Make a process in a running container; its streams are None with a terminal. Raises OrlopError, OSError.

    It may still be setting itself up when this returns (`Created.attend`).
    """
    try:
        pidfd = process.pidfd_of(message.pid, message.pid_start_time)
    except ProcessLookupError:
        cause = "it is not running"
        raise Conflict(
            "execute a command in", f"container {message.id[:12]}", cause, hint="start it first", code="E1001"
        ) from None
    try:
        root = enter.open_root(message.pid, pidfd)
        try:
            told = _resolved(message.process, root, message.user, message.groups)
        finally:
            os.close(root)
        told = _granted(_sized(told, message.console_size), message.directory)
        spec, compile_filter = _read_spec(message, facts)
        compiled = enter.compile_exec(told, spec, facts, compile_filter, leaf)
        pipes = None if told.terminal else Pipes(message.open_stdin)
        state = State(
            oci_version=OCI_VERSION,
            id=message.id,
            status="running",
            bundle=message.directory,
            annotations=spec.annotations,
        )
        created = enter.begin_exec(compiled, message.pid, pidfd, pipes.theirs if pipes else (), state)
    finally:
        os.close(pidfd)
    return created, pipes


def _read_spec(message: StartTask | StartExec, facts: "HostFacts") -> "tuple[Spec, FilterCompiler]":
    """Return a container's spec and what compiles its filter; the rules of one that is compiled already are left out.

    The programs of this engine are in $ORLOP_RUN/seccomp, two above a task's directory. Raises Invalid, OSError.
    """
    document = record.parse_spec(message.directory)
    programs = ProgramCache(os.path.join(os.path.dirname(os.path.dirname(message.runtime_directory)), "seccomp"))
    compile_filter = programs.compiler(document, facts.machine)
    return Spec.from_json(document, f"{message.directory}/{SPEC_FILE}"), compile_filter


def _resolved(told: Process, root: int, user: str, groups: tuple[str, ...]) -> Process:
    """Return the process with its user in numbers. A user that only the spec names is taken as it stands there."""
    if not user and not groups and told.user.replace(umask=None) != User():
        return told
    return users.apply(told, users.resolve(root, user, groups))


def _in_namespaces(spec: Spec, message: StartTask, opened: ExitStack) -> Spec:
    """Return the spec with the namespaces of other containers, as descriptors of ours that `opened` closes.

    Raises Conflict when the process whose namespace it is has ended: its number may be somebody else's (SEC-36).
    """
    for wanted in message.joined:
        try:
            pidfd = process.pidfd_of(wanted.pid, wanted.pid_start_time)
            opened.callback(os.close, pidfd)
            fd = os.open(f"/proc/{wanted.pid}/ns/{wanted.type}", os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, fd)
            ended = process.has_ended(pidfd)  # if not, the number was still its own when the file was opened
        except (ProcessLookupError, FileNotFoundError):
            ended = True
        if ended:
            cause = f"cannot join the {wanted.type} namespace of {wanted.container}, which is not running"
            raise Conflict(
                "start", f"container {message.id[:12]}", cause, hint=f"start {wanted.container} first", code="E1001"
            )
        others = (namespace for namespace in spec.linux.namespaces if namespace.type != wanted.type)
        joined = Namespace(type=wanted.type, path=f"/proc/self/fd/{fd}")
        spec = spec.replace(linux=spec.linux.replace(namespaces=(*others, joined)))
    return spec


def _still_there(trees: "Mapping[str, int]", opened: ExitStack) -> dict[str, int]:
    """Return clones of the detached mounts that an earlier run has not used up (before Linux 6.15 each has)."""
    clones = {}
    for destination, tree in trees.items():
        try:
            clones[destination] = mount.clone_tree(tree)
        except OSError:
            continue
        opened.callback(os.close, clones[destination])
    return clones


def _with_trees(spec: Spec, trees: "Mapping[str, int]") -> Spec:
    """Return the spec with detached mounts of ours in the place of what it would mount there."""
    if not trees:
        return spec
    mounts = (
        mount_options.of_tree(wanted, trees[wanted.destination]) if wanted.destination in trees else wanted
        for wanted in spec.mounts
    )
    return spec.replace(mounts=tuple(mounts))


def _in_network(spec: Spec, network: int) -> Spec:
    """Return the spec with the network namespace of a descriptor of ours, -1 for that of the spec itself."""
    if network < 0:
        return spec
    others = (namespace for namespace in spec.linux.namespaces if namespace.type != "network")
    joined = Namespace(type="network", path=f"/proc/self/fd/{network}")
    return spec.replace(linux=spec.linux.replace(namespaces=(*others, joined)))


def _granted(told: Process, directory: str) -> Process:
    """Return the process with the secrets that are variables of the container whose directory this is."""
    try:
        data = path.read_file(f"{directory}/{GRANTED}/{ENVIRONMENT}", GRANTED_BYTES_MAX)
    except (FileNotFoundError, NotADirectoryError):
        return told
    secret = [os.fsdecode(entry) for entry in data.split(b"\0") if entry]
    names = {entry.partition("=")[0] for entry in secret}
    return told.replace(env=(*(entry for entry in told.env if entry.partition("=")[0] not in names), *secret))


def _sized(told: Process, size: Box | None) -> Process:
    return told.replace(console_size=size) if size is not None else told


def _checked(identity: str) -> str:
    # Ids become file names and process titles (SEC-23).
    if not 0 < len(identity) <= 64 or not _HEX.issuperset(identity):
        raise Invalid("start", "a container", f"{identity[:80]!r} is not an id")
    return identity


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _make_exec_directory(parent: int, exec_id: str) -> int:
    """Return a descriptor of exec/<exec_id> below the parent, whose descriptor is closed."""
    for name in (EXEC_DIRECTORY, exec_id):
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            pass
        child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        os.close(parent)
        parent = child
    return parent
