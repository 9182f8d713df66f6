"""A container in words: every step of its start with the kernel call that does it, and where it is now."""

from __future__ import annotations

import os

from ...runtime import plan, seccomp_words
from ...runtime.plan import Step
from ...snapshot import driver_of
from ...spec.runtime import User
from . import lifecycle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.container import ContainerRequest
    from ...spec.runtime import Spec
    from ...spec.task import TaskStatus
    from ..engine import Engine
    from .record import ContainerRecord

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_LIVE = "now"
_FUSE_CALL = 'fsopen("fuse") with a descriptor that fuse-overlayfs answers on; fsmount'
_WRITABLE = {
    "overlay2": (
        "with a writable layer of its own above it",
        'fsopen("overlay") with lowerdir+, upperdir and workdir; fsmount',
    ),
    "fuse-overlayfs": ("with a writable layer of its own above it, shown by a program", _FUSE_CALL),
    "erofs": (
        "as one file that is mounted, with a writable layer of its own above it",
        'fsopen("erofs"); fsopen("overlay") with lowerdir+, upperdir and workdir; fsmount',
    ),
    "btrfs": ("as a writable snapshot of its own", "open_tree(OPEN_TREE_CLONE) of a subvolume"),
    "vfs": ("as a copy of its own", "open_tree(OPEN_TREE_CLONE) of the copy"),
}


def planned(engine: Engine, request: ContainerRequest) -> list[dict[str, object]]:
    """Return the steps that the request would lead to; nothing is made. Raises what `create` would."""
    record, compiled = lifecycle.plan(engine, request)
    warnings = tuple(Step(subject="warnings", words=text, call="") for text in compiled.warnings)
    root = _root(record, engine.snapshots.driver.name)
    steps = (*root, *_user(record), *_steps(engine, _with_user(compiled.spec, record)), *warnings)
    return [step.to_json() for step in steps]


def explained(engine: Engine, reference: str) -> list[dict[str, object]]:
    """Return the steps of an existing container, and what lives of it. Raises NotFound, Invalid."""
    record = engine.records.find(reference)
    task = engine.observe(record.id)
    spec = engine.records.spec(record.id)
    root = _root(record, "" if record.request.rootfs else driver_of(engine.snapshots.directory(record.id)).name)
    if task.lives and task.status is not None:
        steps = (*root, *_steps(engine, _as_it_runs(spec, task.status)), *_live(task.status))
    else:
        steps = (*root, *_user(record), *_steps(engine, _with_user(spec, record)))
    return [step.to_json() for step in steps]


def _steps(engine: Engine, spec: Spec) -> tuple[Step, ...]:
    found = plan.compile(spec, engine.host.runtime)
    warnings = (Step(subject="warnings", words=text, call="") for text in found.warnings)
    steps: list[Step] = []
    for step in found.steps:
        steps.append(step)
        if step.subject == "seccomp":
            steps += _rules(engine, spec)
    return (*steps, *warnings)


def _rules(engine: Engine, spec: Spec) -> list[Step]:
    assert spec.linux.seccomp
    rules = seccomp_words.describe(spec.linux.seccomp, engine.host.runtime.machine)
    return [Step(subject="seccomp", words=rule, call="") for rule in rules]


def _root(record: ContainerRecord, driver: str) -> tuple[Step, ...]:
    if record.request.rootfs:
        words = f"the root file system is the directory {record.request.rootfs} of this machine, used in place"
        return (Step(subject="root", words=words, call=f'open_tree("{record.request.rootfs}", OPEN_TREE_CLONE)'),)
    how, call = _WRITABLE.get(driver, _WRITABLE["vfs"])
    words = f"the root file system is the image {record.request.image} {how}"
    return (Step(subject="root", words=words, call=call),)


def _user(record: ContainerRecord) -> tuple[Step, ...]:
    """Return the step that nobody but the start can do: looking a user up where the container's own files are."""
    user, _, group = record.config.user.partition(":")
    if not user or (user.isdecimal() and group.isdecimal()):
        return ()
    words = (
        f"look {record.config.user} up in the container's own passwd and group; what they say replaces the ids below"
    )
    return (Step(subject="user", words=words, call="openat2(RESOLVE_IN_ROOT) of /etc/passwd and /etc/group"),)


def _with_user(spec: Spec, record: ContainerRecord) -> Spec:
    """Return the spec with the ids that the user's text itself tells."""
    user, _, group = record.config.user.partition(":")
    if spec.process is None or not (user.isascii() and user.isdecimal() and len(user) <= 10):
        return spec  # a longer one is refused when it is looked up
    gid = int(group) if group.isascii() and group.isdecimal() and len(group) <= 10 else 0
    return spec.replace(process=spec.process.replace(user=User(uid=int(user), gid=gid)))


def _as_it_runs(spec: Spec, status: TaskStatus) -> Spec:
    """Return the spec with the ids that the first process has now."""
    try:
        with open(f"/proc/{status.pid}/status", encoding="ascii", errors="replace") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
        uid, gid = int(lines["Uid"].split()[1]), int(lines["Gid"].split()[1])
        groups = tuple(int(word) for word in lines["Groups"].split())
    except (OSError, KeyError):
        return spec
    if spec.process is None:
        return spec
    user = User(uid=uid, gid=gid, additional_gids=tuple(group for group in groups if group != gid))
    return spec.replace(process=spec.process.replace(user=user))


def _live(status: TaskStatus) -> tuple[Step, ...]:
    """Return what the kernel says of the first process. A process that ends meanwhile just tells less."""
    directory = f"/proc/{status.pid}"
    words = f"its process 1 is process {status.pid} of this machine; its monitor is process {status.monitor_pid}"
    steps = [Step(subject=_LIVE, words=words, call=f"ls -l {directory}")]
    for name in _NAMESPACES:
        try:
            inside, ours = os.readlink(f"{directory}/ns/{name}"), os.readlink(f"/proc/self/ns/{name}")
        except OSError:
            continue
        words = f"{name} namespace {inside}" + (", this machine's own" if inside == ours else "")
        steps.append(Step(subject=_LIVE, words=words, call=f"readlink {directory}/ns/{name}"))
    steps += [
        Step(subject=_LIVE, words=f"cgroup {line}", call=f"cat {directory}/cgroup") for line in _cgroups(directory)
    ]
    return tuple(steps)


def _cgroups(directory: str) -> list[str]:
    try:
        with open(f"{directory}/cgroup", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        found.append(f"{path} ({controllers or 'v2'})")
    return found
