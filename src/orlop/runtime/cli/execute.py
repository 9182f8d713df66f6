"""exec: one more process in a running container, described by flags or by a process.json."""

from __future__ import annotations

import os
import time

from ...linux.cgroup import split_path
from ...linux.process import CLONE_NEWUSER, setns
from ...spec import jsonio
from ...spec.errors import Conflict, Invalid, Unavailable
from ...spec.runtime import Capabilities, Process, Spec, User
from .. import enter, host
from ..operations.cgroups import EnterCgroups
from . import descriptors, foreground
from .call import Call, write_pid_file
from .store import cgroup_of, read_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..host import HostFacts
    from ..plan import Plan
    from .flags import Flags
    from .store import Entry

_PROCESS_BYTES_MAX = 4 * 1024 * 1024
_ID_MAX = 2**32 - 2
_THAW_POLL_S = 0.05


def execute(call: Call) -> int:
    """Execute the process; wait for it and return its exit status, or with --detach return at once."""
    if not call.arguments:
        raise Invalid("run", "orlop-runtime exec", "it requires a minimum of 1 argument: the container")
    entry = call.store.load(call.arguments[0])
    pidfd = call.store.open_init(entry)
    if pidfd is None:
        raise Conflict("execute a command in", f"container {entry.id}", "cannot exec in a stopped container")
    try:
        if call.store.status_of_living(entry) == "paused":
            _await_resumption(call, entry)
        spec = call.store.spec(entry.id)
        process = _process(call.flags, call.arguments[1:], spec)
        _check_terminal(call.flags, process)
        spec = _in_its_namespace(spec, pidfd)
        process = _with_home(process, entry.pid, pidfd)
        spec, facts = _placed(spec, entry, host.facts())
        plan = _in_unit(enter.compile_exec(process, spec, facts, call.compile_filter(spec)), entry)
        plan = _below(plan, call.flags.all("cgroup"))
        plan = descriptors.preserve(plan, call.flags.number("preserve-fds"))
        for warning in plan.warnings:
            call.log.write("warning", warning)
        told = call.store.state(entry, spec) if plan.listener else None
        created = enter.create_exec(plan, entry.pid, pidfd, (0, 1, 2), told)
    finally:
        os.close(pidfd)
    detach = call.flags.on("detach")
    try:
        foreground.become_reaper(not detach)
        descriptors.hand_over(created, call.flags)
        write_pid_file(call.flags.text("pid-file"), created.pid)
        terminal = foreground.terminal_of(created, call.flags)
        if not detach:
            foreground.pass_signals_on(created.pidfd, terminal)
        created.start()
    except BaseException as failure:
        created.abort_after(failure)
        raise
    if detach:
        return 0
    return foreground.wait(created, terminal)


def _in_its_namespace(spec: Spec, pidfd: int) -> Spec:
    """For an ordinary user enter the container's user namespace, as create did; return what is to be entered in it."""
    linux = spec.linux
    rest = tuple(row for row in linux.namespaces if row.type != "user")
    if os.geteuid() == 0 or len(rest) == len(linux.namespaces):
        return spec
    try:
        setns(pidfd, CLONE_NEWUSER)
    except OSError as failure:
        raise Unavailable("enter", "the user namespace", failure.strerror or str(failure)) from None
    return spec.replace(linux=linux.replace(namespaces=rest, uid_mappings=(), gid_mappings=()))


def _placed(spec: Spec, entry: Entry, facts: HostFacts) -> tuple[Spec, HostFacts]:
    """Return spec and facts with the container's cgroup where it is, which for a user's is not told by its spec."""
    if not entry.delegated:
        return spec, facts
    linux = spec.linux.replace(cgroups_path=entry.cgroup)
    return spec.replace(linux=linux), facts.replace(layout=cgroup_of(entry).layout)


def _in_unit(plan: Plan, entry: Entry) -> Plan:
    """Return the plan of a process that a user's systemd moves into the container's unit."""
    if not (entry.unit and entry.delegated and plan.cgroup):
        return plan
    from ..systemd.unit import Unit

    return plan.replace(cgroup=plan.cgroup.replace(unit=Unit(name=entry.unit, slice="", path=entry.cgroup)))


def _with_home(process: Process, pid: int, pidfd: int) -> Process:
    """As create: without HOME in its environment a process gets that of its passwd entry."""
    if any(row.startswith("HOME=") for row in process.env):
        return process
    from .. import users

    root = enter.open_root(pid, pidfd)
    try:
        home = users.resolve(root, str(process.user.uid)).home
    finally:
        os.close(root)
    return process.replace(env=(*process.env, f"HOME={home}"))


def _await_resumption(call: Call, entry: Entry) -> None:
    """Return once a container is no longer paused. Raises Conflict where that is not to be waited for.

    runc lets the new process freeze with the others. Ours would freeze while it is not yet what was asked for.
    """
    if not call.flags.on("ignore-paused"):
        cause = "cannot exec in a paused container (use --ignore-paused to override)"
        raise Conflict("execute a command in", f"container {entry.id}", cause, code="E1003")
    while call.store.status(entry) == "paused":
        time.sleep(_THAW_POLL_S)  # freezer.state of cgroup v1 tells nobody that it changes


def _below(plan: Plan, wanted: tuple[str, ...]) -> Plan:
    """Return the plan with the process in cgroups below the container's, which must be there: "[CONTROLLER,...:]PATH".

    Raises Invalid for a path that is none and for a controller that no v1 hierarchy has.
    """
    own = plan.cgroup
    if not wanted or own is None:
        return plan
    below: dict[str, str] = {}
    for text in wanted:
        controllers, colon, path = text.rpartition(":")
        path = "/" + path.strip("/")
        if path != "/":
            try:
                split_path(path)
            except OSError as failure:
                raise Invalid("execute", "the command", f"bad --cgroup {text[:80]!r}: {failure.strerror}") from None
        for controller in controllers.split(",") if colon else [*own.layout.v1, ""]:
            if controller and controller not in own.layout.v1:
                raise Invalid("execute", "the command", f"unknown controller {controller!r} in --cgroup {text[:80]!r}")
            below[own.layout.v1.get(controller, "")] = path.rstrip("/")
    steps = (step.replace(below=below) if isinstance(step, EnterCgroups) else step for step in plan.operations)
    return plan.replace(operations=tuple(steps), cgroup=own.replace(path=own.path + below.get("", "")))


def _process(flags: Flags, args: list[str], spec: Spec) -> Process:
    path = flags.text("process")
    if path:
        data = read_document(path, _PROCESS_BYTES_MAX, pipe=True)
        return Process.from_json(jsonio.parse(data, path, bytes_max=_PROCESS_BYTES_MAX), path)
    if not args:
        raise Invalid("run", "orlop-runtime exec", "it requires a command, or --process")
    own = spec.process or Process(cwd="/")
    return own.replace(
        args=tuple(args),
        terminal=flags.on("tty"),
        console_size=None,
        cwd=flags.text("cwd") or own.cwd,
        env=(*own.env, *flags.all("env")),
        user=_user(flags, own.user),
        no_new_privileges=flags.on("no-new-privs") or own.no_new_privileges,
        capabilities=_with_capabilities(own.capabilities, flags.all("cap")),
        apparmor_profile=flags.text("apparmor") or own.apparmor_profile,
        selinux_label=flags.text("process-label") or own.selinux_label,
    )


def _user(flags: Flags, own: User) -> User:
    user = own
    if text := flags.text("user"):
        uid, colon, gid = text.partition(":")
        user = user.replace(uid=_id(uid, "uid"), gid=_id(gid, "gid") if colon else user.gid)
    if gids := flags.all("additional-gids"):
        user = user.replace(additional_gids=(*user.additional_gids, *(_id(gid, "additional gid") for gid in gids)))
    return user


def _id(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > _ID_MAX:
        raise Invalid("execute", "the command", f"{what} {text!r} is not a number from 0 to {_ID_MAX}")
    return int(text)


def _with_capabilities(own: Capabilities | None, names: tuple[str, ...]) -> Capabilities | None:
    """As runc: added to all sets but the inheritable and ambient ones."""
    if not names:
        return own
    sets = own or Capabilities()
    return sets.replace(
        **{
            field: tuple(dict.fromkeys((*getattr(sets, field), *names)))
            for field in ("bounding", "effective", "permitted")
        }
    )


def _check_terminal(flags: Flags, process: Process) -> None:
    socket = flags.text("console-socket")
    if flags.on("detach") and process.terminal and not socket:
        raise Invalid(
            "execute", "the command", "cannot allocate tty if runc will detach without setting console socket"
        )
    if socket and not (flags.on("detach") and process.terminal):
        raise Invalid("execute", "the command", "cannot use console socket if runc will not detach or allocate tty")
