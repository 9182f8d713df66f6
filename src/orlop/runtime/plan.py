"""OCI spec -> Plan: everything that a start will do, decided and printable before anything is touched.

Pure: the same spec and the same facts give the same plan; no file is read, no privilege needed.
"""

from ..linux.cgroup import Cgroup, Layout
from ..spec.errors import Invalid, Unsupported
from ..spec.record import Record
from ..spec.runtime import Hooks, IntelRdt, Resources, Spec
from . import hooks, reaper
from .host import HostFacts
from .operations import Operation
from .operations.cgroups import EnterCgroups
from .operations.hooks import ContainerHooks, HookPoint
from .operations.namespaces import KINDS, JoinNamespace
from .operations.process import Command
from .operations.reaper import BecomeReaper
from .planning import namespaces, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..linux.cgroup.settings import Step as Setting
    from .notify import Listener
    from .planning.process import FilterCompiler
    from .systemd.unit import Property, Unit


class Step(Record):
    """One line of `--dry-run` and `explain`. subject: "mounts", "cgroup"; words for people; call for the kernel."""

    subject: str
    words: str
    call: str


class CgroupPlan(Record):
    """The cgroup to make, and what to write into it before the command runs. exists: it is a running container's.

    leaf: the name of a cgroup below it that an exec gets for itself (Cgroup.leaf), "" for none.

    unit: systemd makes it, with these resources as far as it knows them, and with these properties.
    """

    path: str
    layout: Layout
    exists: bool = False
    settings: "tuple[Setting, ...]" = ()
    unit: "Unit | None" = None
    leaf: str = ""
    resources: Resources = Resources()
    properties: "tuple[Property, ...]" = ()

    @property
    def entry(self) -> tuple[Operation, ...]:
        """The operation by which init gets into it; on v2 it is born there."""
        if not self.layout.v1:
            return ()
        into = EnterCgroups(layout=self.layout, path=self.path)
        if not self.leaf or self.layout.v2:
            return (into,)
        leaf = Cgroup(self.layout, self.path).leaf(self.leaf)
        return (into, EnterCgroups(layout=leaf.layout, path=leaf.path))


class Plan(Record):
    """What a start will do.

    clone_flags: CLONE_NEW* for the clone. pid_path: a PID namespace that the child is born into, "" for none.
    processors: those that the child is born on, none for the caller's.
    joins: what the child is born into besides, by way of a helper: where it gets another user namespace, it could not
    join the others by itself.
    cgroup: None leaves the child in the caller's. operations: in order, until the command could be executed.
    last: by init, right before the command. command: what execve gets.
    listener: who gets the listener of the seccomp filter, None where it has none.
    hooks: those that the caller runs. warnings: what could not be had and was not asked for by name, a sentence each.
    """

    command: Command
    clone_flags: int = 0
    pid_path: str = ""
    processors: tuple[int, ...] = ()
    joins: tuple[JoinNamespace, ...] = ()
    cgroup: CgroupPlan | None = None
    operations: tuple[Operation, ...] = ()
    last: tuple[Operation, ...] = ()
    terminal: bool = False
    listener: "Listener | None" = None
    hooks: Hooks = Hooks()
    warnings: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every step in the order of its execution."""
        steps = []
        if self.cgroup and not self.cgroup.exists:
            unit = self.cgroup.unit
            words = f"make the cgroup {self.cgroup.path}" + (f" as systemd's {unit.name}" if unit else "")
            steps.append(Step(subject="cgroup", words=words, call="StartTransientUnit" if unit else "mkdir"))
        steps += [_step(join) for join in self.joins]
        steps.append(_clone_step(self))
        steps += [_step(operation) for operation in self.operations]
        for setting in self.cgroup.settings if self.cgroup else ():
            steps.append(Step(subject="cgroup", words=setting.describe(), call=setting.call()))
        steps += [_step(operation) for operation in self.last]
        words = " ".join(arg.decode(errors="replace") for arg in self.command.args)
        return (*steps, Step(subject="process", words=f"execute {words}", call="execve"))


def compile(spec: Spec, host: HostFacts, compile_filter: "FilterCompiler | None" = None) -> Plan:
    """Return the plan of a container.

    compile_filter: a `ProgramCache.compile` saves the 2 ms that docker's default profile takes; None: seccomp.compile.
    Raises Invalid for a spec that contradicts itself, Unsupported naming the field that this kernel or this version
    can't honour.
    """
    # Not at the top: an exec has a plan, too, and mounts nothing.
    from .planning import mounts

    if spec.process is None:
        raise Invalid("read", "process", "the spec has none, so there is nothing to start")
    _refuse_unsupported(spec)
    warnings: list[str] = []
    own = namespaces.namespaces(spec.linux, host)
    process.affinity(spec.process)  # only checked: it is that of an exec, not of process 1 (config.md)
    cgroup = _cgroup(spec, host)
    checked = _checked_hooks(spec.hooks or Hooks())
    maps = (spec.linux.uid_mappings, spec.linux.gid_mappings) if own.own_ids else None
    filters, early = process.filters(spec.linux.seccomp, spec.process, host, compile_filter)
    command = process.command(spec.process)
    before, after = process.identity(spec.process, command, host, maps, early, warnings)
    ruleset, restrict = process.restrictions(spec.annotations, host)
    starting = ContainerHooks(point="startContainer", hooks=checked.start_container)
    return Plan(
        command=command,
        clone_flags=own.clone_flags,
        pid_path=own.pid_path,
        joins=namespaces.joins(spec.linux, own) if own.own_ids else (),
        cgroup=cgroup,
        operations=(
            *(cgroup.entry if cgroup else ()),
            *mounts.delegation(spec, own, host),
            *process.oom_score(spec.process),
            *process.raised_limits(spec.process, host),
            *namespaces.enter_namespaces(spec, own, host),
            *namespaces.network_devices(spec.linux, own, host),
            *mounts.file_system(spec, host, own.own_ids, warnings),
            *_hook_point(checked),
            *process.streams(spec.process),
            *mounts.masks(spec),
            *namespaces.names(spec, own),
            *mounts.enter_root(spec),
            *process.attributes(spec.process, host),
            *process.placement(spec.linux),
            *ruleset,
            *before,
        ),
        last=(
            *((starting,) if starting.hooks else ()),
            *process.limits(spec.process, host, warnings),
            *restrict,
            *filters,
            *after,
            *((BecomeReaper(),) if spec.annotations.get(reaper.ANNOTATION) == "true" else ()),
        ),
        terminal=spec.process.terminal,
        listener=process.listener(spec.linux.seccomp),
        hooks=checked,
        warnings=tuple(warnings),
    )


def _cgroup(spec: Spec, host: HostFacts) -> CgroupPlan | None:
    path = namespaces.cgroup_path(spec.linux)
    if not path:
        if spec.linux.resources and spec.linux.resources != Resources():
            raise Invalid("limit", "linux.resources", "linux.cgroupsPath is empty: there is no cgroup to write to")
        return None

    from . import resources  # not at the top: an exec has none

    settings = resources.settings(spec.linux.resources, host.layout, devices=host.initial_user_namespace)
    unit = namespaces.systemd_unit(spec.linux)
    return CgroupPlan(
        path=path,
        layout=host.layout,
        settings=settings,
        unit=unit,
        resources=spec.linux.resources or Resources(),
        properties=_properties(spec) if unit else (),
    )


def _properties(spec: Spec) -> "tuple[Property, ...]":
    from .systemd.annotations import properties

    return properties(spec.annotations)


def _checked_hooks(wanted: Hooks) -> Hooks:
    hooks.check(wanted.prestart, "prestart")
    hooks.check(wanted.create_runtime, "createRuntime")
    hooks.check(wanted.create_container, "createContainer")
    hooks.check(wanted.start_container, "startContainer")
    hooks.check(wanted.poststart, "poststart")
    hooks.check(wanted.poststop, "poststop")
    return wanted


def _hook_point(wanted: Hooks) -> tuple[Operation, ...]:
    if not (wanted.prestart or wanted.create_runtime or wanted.create_container):
        return ()
    inside = ContainerHooks(point="createContainer", hooks=wanted.create_container)
    return (HookPoint(), *((inside,) if inside.hooks else ()))


def _refuse_unsupported(spec: Spec) -> None:
    # An object that asks for nothing is not refused: as with runc.
    if spec.linux.intel_rdt and spec.linux.intel_rdt != IntelRdt():
        cause = "this version can't set Intel RDT"
        raise Unsupported("start with", "linux.intelRdt", cause, hint="leave the field out", code="E1301")


def _clone_step(plan: Plan) -> Step:
    kinds = [kind for kind, (flag, _) in KINDS.items() if plan.clone_flags & flag]
    words = "start a process" + (f" in a new {', '.join(kinds)} namespace" if kinds else "")
    return Step(subject="namespaces", words=words, call=f"clone3({plan.clone_flags:#x})")


def _step(operation: Operation) -> Step:
    return Step(subject=operation.subject, words=operation.describe(), call=operation.call())
