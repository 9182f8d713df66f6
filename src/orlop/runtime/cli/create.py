"""create, start, run: a bundle becomes a container."""

from __future__ import annotations

import os
import time
from _socket import AF_UNIX, socket

from ...linux import process
from ...spec.errors import Invalid, Unavailable
from ...spec.runtime import OCI_VERSION, Spec, State
from .. import channel, host, launch, plan, rootfs
from ..gate import SOCKET_FLAGS, Inside
from ..operations import Operation
from ..operations.identity import SessionKeyring
from ..operations.namespaces import own_user_namespace
from ..operations.root import ChangeRoot, PivotRoot
from ..planning import namespaces
from . import descriptors, foreground
from .call import Call, write_pid_file
from .removal import destroy as destroy
from .store import GATE, PLAIN_GATE, Entry, check_id, read_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...linux.cgroup import Cgroup
    from ..host import HostFacts
    from ..launch import Created
    from ..operations import Init, Outside
    from ..plan import Plan

SPEC_FILE = "config.json"


class AwaitStart(Operation):
    """Wait for `start`. directory: where the socket `name` is made."""

    directory: str
    name: str
    subject = "process"

    def describe(self) -> str:
        return "wait for the call of start"

    def call(self) -> str:
        return f"accept({self.directory}/{self.name})"

    def prepare(self, outside: Outside) -> None:
        listener = socket(AF_UNIX, SOCKET_FLAGS)
        try:
            with Inside(self.directory) as directory:
                listener.bind(f"/proc/self/fd/{directory}/{self.name}")
            listener.listen(1)
            outside.keep(self, os.dup(listener.fileno()))
        finally:
            listener.close()

    def act(self, init: Init) -> None:
        listener = socket(fileno=init.source(self))
        init.caller.close()
        fd, _ = listener._accept()  # type: ignore[attr-defined]  # the method behind socket.accept
        listener.close()
        init.caller.reopen(socket(fileno=fd))
        try:
            init.caller.send(channel.ENTERED)
        except OSError:
            pass  # it has gone; the container was started all the same


def create(call: Call) -> int:
    """Make a container that waits for `start`."""
    created, entry = _make(call, waits=True)
    try:
        _finish(call, created, entry)  # before start: from there on abort has nothing to undo
        created.start()  # to the gate
    except BaseException as failure:
        created.abort_after(failure)
        call.store.forget(entry.id)
        raise
    return 0


def run(call: Call) -> int:
    """Make a container and start it; without --detach wait for its end, remove it and return its exit status."""
    created, entry = _make(call, waits=False)
    detach = call.flags.on("detach")
    try:
        foreground.become_reaper(not detach and not call.flags.on("no-subreaper"))
        _finish(call, created, entry)
        terminal = foreground.terminal_of(created, call.flags)
        if not detach:
            foreground.pass_signals_on(created.pidfd, terminal)
        created.start()
    except BaseException as failure:
        created.abort_after(failure)
        call.store.forget(entry.id)
        raise
    if detach:
        return 0
    code = foreground.wait(created, terminal)
    if not call.flags.on("keep"):
        destroy(call, entry)
    return code


def _make(call: Call, *, waits: bool) -> tuple[Created, Entry]:
    container = check_id(call.container())
    bundle = call.bundle()
    owner, root = os.geteuid(), -1
    spec = placed(call, checked(read_spec(os.path.join(bundle, SPEC_FILE)), container))
    _check_terminal(call, spec, detached=waits or call.flags.on("detach"))
    assert spec.root
    directory = call.store.reserve(container)
    try:
        original, spec = spec, _in_own_namespace(spec)
        assert spec.root
        root = rootfs.open_bundle_root(spec.root, bundle)
        complete = _with_sockets(_with_home(spec, root))
        facts = _with_units(call, host.facts(), owner)
        compiled = _with_options(call, plan.compile(complete, facts, call.compile_filter(spec)))
        for warning in compiled.warnings:
            call.log.write("warning", warning)
        if waits:
            compiled = _waiting(compiled, directory)
        state = State(
            oci_version=OCI_VERSION, id=container, status="creating", bundle=bundle, annotations=spec.annotations
        )
        created = launch.create(compiled, root, (0, 1, 2), state)
    except BaseException:
        call.store.forget(container)
        raise
    finally:
        if root >= 0:
            os.close(root)
    try:
        return created, _remember(call, created, state, original, owner)
    except BaseException as failure:
        created.abort_after(failure)
        call.store.forget(container)
        raise


def _with_units(call: Call, facts: HostFacts, owner: int) -> HostFacts:
    """For an ordinary user with --systemd-cgroup return the facts with the cgroup of the user's own systemd as root."""
    if not (owner and call.systemd):
        return facts
    from ..systemd import scope

    return facts.replace(layout=scope.users_layout())


def _in_own_namespace(spec: Spec) -> Spec:
    """For an ordinary user enter the container's user namespace; return what is to be made in it."""
    linux = spec.linux
    if os.geteuid() == 0:
        return spec
    new = [namespace for namespace in linux.namespaces if namespace.type == "user" and not namespace.path]
    if not (new and linux.uid_mappings and linux.gid_mappings):
        raise Invalid(
            "create", "linux.namespaces", "rootless container requires user namespaces",
            hint="orlop-runtime spec --rootless writes a config.json that has one",
        )  # fmt: skip
    try:
        own_user_namespace(linux.uid_mappings, linux.gid_mappings)
    except OSError as failure:
        raise Unavailable("make", "a user namespace", failure.strerror or str(failure)) from None
    rest = tuple(namespace for namespace in linux.namespaces if namespace.type != "user")
    return spec.replace(linux=linux.replace(namespaces=rest, uid_mappings=(), gid_mappings=()))


def _remember(call: Call, created: Created, state: State, spec: Spec, owner: int) -> Entry:
    entry = entry_of(state.replace(pid=created.pid), spec, created.cgroup).replace(owner_uid=owner)
    call.store.save(entry, spec)
    return entry


def entry_of(state: State, spec: Spec, cgroup: Cgroup | None) -> Entry:
    """Return what is remembered of a container that this process has just made; state.pid is its first process."""
    assert spec.root
    terminal = spec.process is not None and spec.process.terminal
    unit = namespaces.systemd_unit(spec.linux)
    return Entry(
        id=state.id,
        bundle=state.bundle,
        pid=state.pid,
        pid_start_time=process.start_time(state.pid),
        pid_inode=process.inode_of(state.pid),
        boot_id=process.boot_id(),
        created=_now(),
        cgroup=namespaces.cgroup_path(spec.linux),
        delegated=cgroup.layout.v2 if cgroup and cgroup.layout.roots and not cgroup.layout.v1 else "",
        freezer=cgroup.freezer if cgroup else "",
        unit=unit.name if unit else "",
        rootfs=os.path.join(state.bundle, spec.root.path),
        owner_uid=os.geteuid(),
        descriptors=() if terminal else _stream_names(),
    )


def _stream_names() -> tuple[str, ...]:
    """Return what our standard streams are ("pipe:[7]", "/dev/null"), which the container gets."""
    try:
        return tuple(os.readlink(f"/proc/self/fd/{fd}") for fd in range(3))
    except FileNotFoundError:
        return ()


def _waiting(compiled: Plan, directory: str) -> Plan:
    """Return the plan with the gate in front of what `start` sets off; the poststart hooks are that caller's."""
    name = GATE if compiled.hooks.poststart else PLAIN_GATE
    gated = (AwaitStart(directory=directory, name=name), *compiled.last)
    return compiled.replace(last=gated, hooks=compiled.hooks.replace(poststart=()))


def _with_options(call: Call, compiled: Plan) -> Plan:
    if call.flags.on("no-new-keyring"):
        kept = tuple(step for step in compiled.operations if not isinstance(step, SessionKeyring))
        compiled = compiled.replace(operations=kept)
    if call.flags.on("no-pivot"):
        changed = (ChangeRoot() if isinstance(step, PivotRoot) else step for step in compiled.operations)
        compiled = compiled.replace(operations=tuple(changed))
    return descriptors.preserve(compiled, descriptors.listening() + call.flags.number("preserve-fds"))


def _finish(call: Call, created: Created, entry: Entry) -> None:
    """Tell the caller what it asked for: the terminal, the pid file (last: it means that the container is there)."""
    descriptors.hand_over(created, call.flags)
    write_pid_file(call.flags.text("pid-file"), created.pid)


def checked(spec: Spec, container: str) -> Spec:
    """Return the spec with its cgroup's path filled in. Raises Invalid for one without a root."""
    if spec.root is None:
        raise Invalid("read", SPEC_FILE, "root is required")
    cgroup = spec.linux.cgroups_path or f"/{container}"
    if ":" not in cgroup and not cgroup.startswith("/"):
        cgroup = f"/{cgroup}"
    return spec.replace(linux=spec.linux.replace(cgroups_path=cgroup))


def placed(call: Call, spec: Spec) -> Spec:
    """Return the spec with a cgroup of the kind that --systemd-cgroup asks for, or does not."""
    path = spec.linux.cgroups_path
    if call.systemd and path == f"/{call.container()}":
        path = f":orlop:{call.container()}"
    if call.systemd and path.startswith(":") and os.geteuid():
        path = f"user.slice{path}"  # as runc
    if not call.systemd and not path.startswith("/"):
        path = f"/{path}"  # as runc: a colon is then a character as any other
    if call.systemd and (":" not in path or path.startswith("/")):
        cause = (
            f'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got {path[:80]!r} instead'
        )
        raise Invalid("make", "linux.cgroupsPath", cause, hint="change the path, or leave --systemd-cgroup out")
    return spec.replace(linux=spec.linux.replace(cgroups_path=path))


def _with_sockets(spec: Spec) -> Spec:
    """Hand on what systemd has opened for us (sd_listen_fds(3)). As runc: to the process that is 1 in its namespace."""
    count = descriptors.listening()
    if not count or spec.process is None:
        return spec
    told = (f"LISTEN_FDS={count}", "LISTEN_PID=1")
    return spec.replace(process=spec.process.replace(env=(*spec.process.env, *told)))


def _with_home(spec: Spec, root: int) -> Spec:
    """As runc: without HOME in its environment a process gets that of its passwd entry."""
    if spec.process is None or any(row.startswith("HOME=") for row in spec.process.env):
        return spec
    from .. import users

    home = users.resolve(root, str(spec.process.user.uid)).home
    return spec.replace(process=spec.process.replace(env=(*spec.process.env, f"HOME={home}")))


def _check_terminal(call: Call, spec: Spec, *, detached: bool) -> None:
    terminal = spec.process is not None and spec.process.terminal
    socket = call.flags.text("console-socket")
    if detached and terminal and not socket:
        raise Invalid(
            "create", "the terminal", "cannot allocate tty if runc will detach without setting console socket",
            hint="give --console-socket",
        )  # fmt: skip
    if socket and not (detached and terminal):
        raise Invalid(
            "create", "the terminal", "cannot use console socket if runc will not detach or allocate tty",
            hint="leave --console-socket out",
        )  # fmt: skip


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"
