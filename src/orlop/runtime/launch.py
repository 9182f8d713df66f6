"""A plan becomes a process: `create` makes everything up to the last step before execve, `Created.start` takes it.

`begin` returns earlier, while the process still sets itself up: for a caller who has something to do meanwhile.

The caller has one thread (clone3 is bare: see orlop.linux.process) and is the parent of what it creates. Every step
pushes its own undo; a failure anywhere leaves no cgroup, process or descriptor behind.
"""

from __future__ import annotations

import errno
import os

from ..linux import process
from ..linux.cgroup import Cgroup
from ..linux.signals import SIGKILL
from ..spec import runtime as oci
from ..spec.errors import Conflict, Invalid, OrlopError, Unavailable
from . import birth, channel, hooks, init
from .operations import Outside
from .operations.namespaces import open_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from .notify import Delivery
    from .operations import Operation
    from .plan import CgroupPlan, Plan

_STREAMS = 3


class Created:
    """A process that waits for its go: everything is set up, nothing of the container's has run.

    pid, pidfd: of a child of the caller, who reaps it. console: the pty master, None without a terminal.
    cgroup: the container's, None where the plan has none; leaf: an exec's own below it. state: what hooks are told.
    moved: somebody else moves it into its cgroup, so that it is not born there.
    After `start` everything here is the caller's: it closes the descriptors, reaps, and removes the cgroup.
    """

    __slots__ = (
        "_attended",
        "_channel",
        "_plan",
        "_undo",
        "cgroup",
        "console",
        "leaf",
        "moved",
        "pid",
        "pidfd",
        "state",
    )

    def __init__(self, plan: Plan, state: oci.State) -> None:
        self.pid = 0
        self.pidfd = -1
        self.console: int | None = None
        self.cgroup: Cgroup | None = None
        self.leaf: Cgroup | None = None
        self.moved = False
        self.state = state
        self._plan = plan
        self._channel: channel.Channel | None = None
        self._attended = False
        self._undo: list[Callable[[], object]] = []

    def attend(self) -> None:
        """Wait until everything is set up, if that was not waited for yet. Its console is known then.

        Raises OrlopError; then everything is undone.
        """
        if self._attended:
            return
        try:
            _attend(self, self._plan)
        except BaseException as failure:
            self.abort_after(failure)
            raise
        self._attended = True

    def start(self) -> None:
        """Execute the command; returns once execve succeeded.

        Raises CommandFailed (exit code 126 or 127, docker's texts) or another OrlopError; then everything is undone.
        A process that something kills before its execve counts as started: its end is told by its wait status.
        """
        assert self._channel and self._undo, "start is called once, and not after abort"
        self.attend()
        try:
            try:
                self._channel.send(channel.START)
            except BrokenPipeError:
                raise _died(self) from None
            message = self._channel.last_message(self._delivery())
            if message:
                raise channel.failure_of(message)
            if self._plan.hooks.poststart:
                hooks.run(self._plan.hooks.poststart, "poststart", self.state.replace(status="running"))
        except BaseException as failure:
            self.abort_after(failure)
            raise
        self._channel.close()
        self._undo.clear()

    def _delivery(self) -> Delivery | None:
        if self._plan.listener is None:
            return None
        from .notify import Delivery

        return Delivery(self._plan.listener, self.pid, self.pidfd, self.state)

    def abort(self) -> None:
        """Kill and reap the process, close the descriptors, remove the cgroup. Idempotent; nothing after `start`.

        Every step is tried; raises the OSError of the first that failed (a cgroup that stays busy).
        """
        failures: list[OSError] = []
        while self._undo:
            try:
                self._undo.pop()()
            except OSError as failure:
                failures.append(failure)
        if failures:
            raise failures[0]

    def abort_after(self, failure: BaseException) -> None:
        """Abort, and let the failure be told that led to it, not what comes on top: a cgroup that is still busy."""
        try:
            self.abort()
        except OSError as left:
            failure.add_note(f"left behind: {_told(left)}")

    def _kill(self) -> None:
        try:
            process.pidfd_send_signal(self.pidfd, SIGKILL)
        except ProcessLookupError:
            pass
        process.wait_pidfd(self.pidfd)
        os.close(self.pidfd)

    def _close_console(self) -> None:
        if self.console is not None:
            os.close(self.console)


def create(plan: Plan, rootfs_fd: int, stdio: Sequence[int], state: oci.State | None = None) -> Created:
    """Make the container up to the last step before execve.

    rootfs_fd: the detached mount of `open_rootfs`; the caller keeps it and closes it afterwards.
    stdio: descriptors for 0, 1 and 2, borrowed; unused with a terminal. state: for hooks; pid and status are filled in.
    Raises OrlopError after undoing everything; CommandFailed when the command does not exist or can't be executed.
    """
    known = state or oci.State(oci_version=oci.OCI_VERSION, id="", status="creating", bundle="")
    return launch(plan, Outside(known.replace(status="creating"), root=rootfs_fd), stdio)


def launch(plan: Plan, outside: Outside, stdio: Sequence[int]) -> Created:
    """Run a plan up to the last step before execve, in a new container or in the one that `outside.target` names."""
    created = begin(plan, outside, stdio)
    created.attend()
    return created


def begin(plan: Plan, outside: Outside, stdio: Sequence[int]) -> Created:
    """Like `launch`, but return when the process exists and has all it needs from us: `Created.attend` waits for it."""
    if not plan.terminal and len(stdio) != _STREAMS:
        raise Invalid("start", "the container's process", f"it needs {_STREAMS} streams, {len(stdio)} were given")
    created = Created(plan, outside.state)
    try:
        created._undo.append(outside.close)
        release = _make_cgroup(created, plan.cgroup)
        for operation in (*plan.joins, *plan.operations, *plan.last):
            _prepare(operation, outside)
        _clone(created, plan, outside, () if plan.terminal else tuple(stdio))
        release()
        _let_prepare(created, plan, outside)
    except BaseException as failure:
        created.abort_after(failure)
        raise
    return created


def _make_cgroup(created: Created, wanted: CgroupPlan | None) -> Callable[[], object]:
    """Make the cgroup; return what is to be called when init is in it."""
    release: Callable[[], object] = int
    if wanted is None:
        return release
    try:
        cgroup = Cgroup(wanted.layout, wanted.path)
        if wanted.unit:
            release = _enter_scope(created, wanted, cgroup)
        elif not wanted.exists:
            cgroup.create()
            created._undo.append(cgroup.remove)
        created.cgroup = cgroup
        if wanted.leaf:
            created.leaf = cgroup.leaf(wanted.leaf)
            created.leaf.create()
            created._undo.append(created.leaf.remove)
    except OSError as failure:
        subject = f"the cgroup {wanted.path}"
        if failure.errno in (errno.EBUSY, errno.EEXIST):
            cause = f"the cgroup is in use: {_told(failure)}"
            raise Conflict("make", subject, cause, hint="name another one in linux.cgroupsPath") from None
        raise Unavailable("make", subject, _told(failure)) from None
    return release


def _enter_scope(created: Created, wanted: CgroupPlan, cgroup: Cgroup) -> Callable[[], object]:
    """Make the scope of a container, if it is not there; return what moves init into it, or only ends what stood in."""
    from .systemd import scope

    assert wanted.unit
    unit = wanted.unit
    created.moved = not scope.is_machines()

    def move() -> None:
        scope.attach(unit.name, created.pid)

    if wanted.exists:
        return move if created.moved else int
    scope.check_booted()
    stand_in = scope.StandIn()
    created._undo.append(stand_in.end)
    scope.start(wanted, stand_in.pid, created.state.id)

    def undo() -> None:
        stand_in.end()
        scope.stop(unit.name)
        cgroup.remove()

    def release() -> None:
        if created.moved:
            move()
        stand_in.end()

    created._undo.append(undo)
    cgroup.adopt()
    return release


def _clone(created: Created, plan: Plan, outside: Outside, stdio: tuple[int, ...]) -> None:
    ours, theirs = channel.pair()
    created._undo.append(ours.close)
    created._undo.append(created._close_console)
    created._channel = ours

    def child() -> NoReturn:
        init.run(plan, outside, stdio, theirs)

    try:
        with birth.Processors(plan.processors):
            if plan.joins or ((plan.pid_path or outside.target >= 0) and not birth.may_return()):
                created.pid, created.pidfd = _born_through(created, plan, outside, child)
            else:
                with birth.PidNamespace(plan.pid_path, outside.target):
                    created.pid, created.pidfd = _born(created, plan.clone_flags, outside, child)
        created._undo.append(created._kill)
    except OSError as failure:
        # ENOMEM: the first process of the PID namespace has ended, so nobody can be born there (pid_namespaces(7)).
        if failure.errno in (errno.ENOMEM, errno.ESRCH) and (outside.target >= 0 or plan.pid_path):
            raise Conflict("enter", "the PID namespace", "it has ended with its first process", code="E1007") from None
        raise Unavailable("start", "a process in new namespaces", _told(failure)) from None
    finally:
        theirs.close()


def _born(created: Created, flags: int, outside: Outside, child: birth.Child) -> tuple[int, int]:
    cgroup = created.cgroup
    if cgroup is None or created.moved:
        return birth.clone(flags, child)
    if outside.target >= 0:
        return birth.clone_beside(cgroup, outside.state.pid, child, created.leaf)
    return birth.clone_into(cgroup, flags, child)


def _born_through(created: Created, plan: Plan, outside: Outside, child: birth.Child) -> tuple[int, int]:
    """Have a helper join what the child is to be born in: the PID namespace alone, or with it all that it joins."""
    joined = [(join.kind, outside.sources[id(join), ""]) for join in plan.joins]
    opened = -1
    if not joined:
        opened = os.dup(outside.target) if outside.target >= 0 else open_namespace("pid", plan.pid_path)
        joined = [("pid", opened)]
    try:
        return birth.clone_through(joined, lambda helper: _born(created, 0, outside, helper), plan.clone_flags, child)
    finally:
        if opened >= 0:
            os.close(opened)


def _let_prepare(created: Created, plan: Plan, outside: Outside) -> None:
    """Do the caller's part of the operations, and let init do its own."""
    assert created._channel
    if outside.target < 0:
        created.state = outside.state.replace(pid=created.pid, status="creating")
    for operation in plan.operations:
        _assist(operation, outside, created.pid)
    outside.close()
    try:
        created._channel.send(channel.PREPARED)
    except OSError as failure:
        raise _broken(failure) from None


def _attend(created: Created, plan: Plan) -> None:
    """The caller's half of the conversation up to READY, and the cgroup's limits."""
    caller = created._channel
    assert caller
    try:
        message, console = caller.receive()
        if message == channel.CREATED:
            hooks.run(plan.hooks.prestart, "prestart", created.state)
            hooks.run(plan.hooks.create_runtime, "createRuntime", created.state)
            caller.send(channel.HOOKED)
            message, console = caller.receive()
    except OSError as failure:
        raise _broken(failure) from None
    if console >= 0:
        created.console = console
    if message != channel.READY:
        raise channel.failure_of(message) if message else _died(created)
    if created.cgroup and plan.cgroup and plan.cgroup.settings:
        try:
            created.cgroup.apply(plan.cgroup.settings)
        except OSError as failure:
            kind = Invalid if failure.errno in (errno.EINVAL, errno.ERANGE) else Unavailable
            raise kind("limit", f"the cgroup {created.cgroup.path}", _told(failure)) from None


def _broken(failure: OSError) -> OrlopError:
    return Unavailable("start", "the container's process", f"init has died ({_told(failure)})")


def _died(created: Created) -> OrlopError:
    code = os.waitstatus_to_exitcode(process.wait_pidfd(created.pidfd))
    how = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
    hint = "its memory limit may be too small for a start" if code == -SIGKILL else ""
    created._undo.remove(created._kill)
    os.close(created.pidfd)
    return Unavailable("start", "the container's process", f"init {how} before the command", hint=hint, code="E0506")


def _prepare(operation: Operation, outside: Outside) -> None:
    try:
        operation.prepare(outside)
    except OSError as failure:
        raise init.refused(operation, failure) from None


def _assist(operation: Operation, outside: Outside, pid: int) -> None:
    try:
        operation.assist(outside, pid)
    except OSError as failure:
        raise init.refused(operation, failure) from None


def _told(failure: OSError) -> str:
    return (failure.strerror or str(failure)) + (f" ({failure.filename})" if failure.filename else "")
