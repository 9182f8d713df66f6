"""`process`: who runs what, with which rights and limits."""

import os

from ...linux import capability
from ...linux.process import PERSONALITIES
from ...spec.errors import Invalid, Unsupported
from ...spec.runtime import Capabilities, IdMapping, Linux, Process, Rlimit, Seccomp
from ..host import HostFacts
from ..operations import Operation
from ..operations.identity import CapabilitySets, DropBounding, NoNewPrivileges, SessionKeyring, SetIdentity
from ..operations.limits import (
    RLIMITS,
    RaiseHardLimit,
    SetCpuAffinity,
    SetOomScoreAdj,
    SetPersonality,
    SetRlimit,
)
from ..operations.names import SetExecLabel
from ..operations.process import Command, EnterDirectory, FindCommand, SetUmask
from ..operations.terminal import AttachStreams, OpenTerminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..notify import Listener

    FilterCompiler = Callable[[Seccomp, str], bytes]

UMASK_DEFAULT = 0o022
ID_MAX = 2**32 - 2  # (uid_t) -1 means "no change" to the kernel (SEC-27)
GROUPS_MAX = 65536  # NGROUPS_MAX
OOM_SCORE_ADJ = range(-1000, 1001)
IO_PRIORITIES = range(8)
CPUS_MAX = 8192
_UNKNOWN_TOLD_MAX = 10
_SYS_RESOURCE = capability.mask(["CAP_SYS_RESOURCE"])


def command(process: Process) -> Command:
    """Return what to execute. Raises Invalid for arguments or variables that execve can't take."""
    if not process.args:
        raise Invalid("read", "process.args", "there is no command")
    env: dict[bytes, bytes] = {}
    for index, variable in enumerate(process.env):
        name, equals, value = _bytes(variable, f"process.env[{index}]").partition(b"=")
        if not name or not equals:
            raise Invalid("read", f"process.env[{index}]", f"{variable!r} is not NAME=value")
        env[name] = value
    if not process.cwd.startswith("/"):
        raise Invalid("read", "process.cwd", f"{process.cwd!r} is not an absolute path")
    return Command(
        args=tuple(_bytes(arg, f"process.args[{index}]") for index, arg in enumerate(process.args)),
        name=process.args[0],
        env=env,
        search_path=os.fsdecode(env.get(b"PATH", b"")),
    )


def streams(process: Process, console: bool = True) -> tuple[Operation, ...]:
    """Return the operation that opens a terminal; empty without one. console: show it at /dev/console."""
    if not process.terminal:
        return ()
    size = process.console_size
    if size and not (0 <= size.height <= 0xFFFF and 0 <= size.width <= 0xFFFF):
        raise Invalid("read", "process.consoleSize", f"{size.height} x {size.width} is no terminal's size")
    rows, columns = (size.height, size.width) if size else (0, 0)
    return (OpenTerminal(rows=rows, columns=columns, console=console),)


def attributes(process: Process, host: HostFacts, keyring: bool = True) -> tuple[Operation, ...]:
    """Return what is set before the identity changes: session, streams, scheduling, no_new_privs, umask."""
    operations: list[Operation] = [SessionKeyring()] if keyring else []
    operations.append(AttachStreams(terminal=process.terminal, uid=process.user.uid))
    if process.apparmor_profile:
        need_lsm("apparmor", "process.apparmorProfile", host)
        operations.append(SetExecLabel(module="apparmor", label=process.apparmor_profile))
    if process.selinux_label:
        need_lsm("selinux", "process.selinuxLabel", host)
        operations.append(SetExecLabel(module="selinux", label=process.selinux_label))
    if process.no_new_privileges:
        operations.append(NoNewPrivileges())
    if process.scheduler or process.io_priority:
        operations += _priorities(process)
    umask = process.user.umask
    if umask is not None and not 0 <= umask <= 0o777:
        raise Invalid("read", "process.user.umask", f"{umask} is not in 0..0o777")
    operations.append(SetUmask(mask=UMASK_DEFAULT if umask is None else umask))
    return tuple(operations)


def identity(
    process: Process,
    run: Command,
    host: HostFacts,
    maps: "tuple[tuple[IdMapping, ...], tuple[IdMapping, ...]] | None",
    early_filter: bool,
    warnings: list[str],
) -> tuple[tuple[Operation, ...], tuple[Operation, ...]]:
    """Return (operations before "ready", operations after the seccomp filter).

    maps: of uids and gids in a new user namespace. early_filter: the filter needs the capabilities that the process
    does not get (no no_new_privs), so they stay permitted until it is loaded.
    """
    user = process.user
    uids, gids = maps or (host.uids, host.gids)
    _check_ids("process.user.uid", (user.uid,), uids)
    _check_ids("process.user.gid", (user.gid,), gids)
    # With one id there are no groups to have, and those of the image's files are nobody's.
    groups = user.additional_gids if host.may_set_groups else ()
    _check_ids("process.user.additionalGids", groups, gids)
    if len(user.additional_gids) > GROUPS_MAX:
        raise Invalid("read", "process.user.additionalGids", f"there are more than {GROUPS_MAX}")
    # A new user namespace begins with every capability, whatever its maker had (user_namespaces(7)).
    available = (2 << host.cap_last) - 1 if maps else host.cap_bounding
    sets = capability_sets(process.capabilities or Capabilities(), available, warnings)
    become = SetIdentity(
        uid=user.uid,
        gid=user.gid,
        additional_gids=groups,
        inheritable=sets.inheritable,
        ambient=sets.ambient,
        may_set_groups=host.may_set_groups,
    )
    drop = available & ~sets.bounding
    chdir = EnterDirectory(path=process.cwd)
    before: list[Operation] = [chdir, DropBounding(drop=drop, keep=sets.bounding), become]
    if early_filter:
        # Permitted stays whole until the filter is loaded; everything until then runs with the final effective set.
        before.append(CapabilitySets(**{**vars(sets), "permitted": available}))
        after: tuple[Operation, ...] = (sets,)
    else:
        before.append(sets)
        after = ()
    before += [chdir.replace(final=True), FindCommand(name=run.name, search_path=run.search_path)]
    return tuple(before), after


def filters(
    profile: Seccomp | None, process: Process, host: HostFacts, compile_filter: "FilterCompiler | None"
) -> tuple[tuple[Operation, ...], bool]:
    """Return (the operation that loads the seccomp filter, whether that needs more capabilities than are kept)."""
    if profile is None:
        return (), False
    # 3 ms of tables and structures: only where there is a profile.
    from ..operations.seccomp import LoadFilter
    from ..seccomp_flags import load_flags

    flags = load_flags(profile)
    early = not process.no_new_privileges
    if compile_filter is None:
        from .. import seccomp

        compile_filter = seccomp.compile
    program = compile_filter(profile, host.machine)
    return (LoadFilter(program=program, flags=flags, privileged=early),), early


def restrictions(annotations: "dict[str, str]", host: HostFacts) -> tuple[tuple[Operation, ...], tuple[Operation, ...]]:
    """Return (what is done while init may still open every path, what is done last) for the rules of Landlock."""
    text = annotations.get("io.orlop.landlock")  # landlock.ANNOTATION, without the import for those who have none
    if text is None:
        return (), ()
    from .. import landlock
    from ..operations.landlock import MakeRuleset, Restrict

    rules = landlock.parse(text)
    landlock.check(rules, host.landlock)
    return (MakeRuleset(rules=rules), NoNewPrivileges()), (Restrict(),)


def listener(profile: Seccomp | None) -> "Listener | None":
    """Return who gets the filter's listener; None where no rule asks anybody. Raises Invalid without a path to it."""
    if profile is None or not any(rule.action == "SCMP_ACT_NOTIFY" for rule in profile.syscalls):
        return None
    from .. import notify

    return notify.listener_of(profile)


def capability_sets(wanted: Capabilities, available: int, warnings: list[str]) -> CapabilitySets:
    """Return the masks, limited to what is available; what is missing is warned about once.

    So is a name that is none: "MUST be logged as a warning ... SHOULD NOT fail" (config.md, capabilities).
    Raises Invalid for effective capabilities that are not permitted.
    """
    masks = {}
    missing = 0
    unknown: dict[str, None] = {}
    for field in ("bounding", "effective", "inheritable", "permitted", "ambient"):
        names = getattr(wanted, field)
        known = [name for name in names if name in capability.NUMBERS]
        unknown |= dict.fromkeys(name for name in names if name not in capability.NUMBERS)
        bits = capability.mask(known)
        missing |= bits & ~available
        masks[field] = bits & available
    if unknown:
        names = ", ".join(repr(name[:40]) for name in list(unknown)[:_UNKNOWN_TOLD_MAX])
        warnings.append(f"the container does not get {names}: there is no such capability")
    if missing:
        names = ", ".join(capability.names_of(missing))
        warnings.append(f"the container does not get {names}: this host's own bounding set lacks it")
    # The kernel refuses these (capabilities(7)); buildah and the `spec` of runc 1.1 write them, and runc drops them.
    masks["ambient"] &= masks["permitted"] & masks["inheritable"]
    if masks["effective"] & ~masks["permitted"]:
        raise Invalid("read", "process.capabilities.effective", "it must be permitted too")
    return CapabilitySets(**masks)


def limits(process: Process, host: HostFacts, warnings: list[str]) -> tuple[Operation, ...]:
    """Return the operations that set rlimits right before execve, clamped where the host can't give more."""
    operations = []
    seen: set[str] = set()
    for index, limit in enumerate(process.rlimits):
        field = f"process.rlimits[{index}]"
        if limit.type not in RLIMITS:
            raise Invalid("read", f"{field}.type", f"there is no resource limit {limit.type!r}")
        if limit.type in seen:
            raise Invalid("read", field, f"{limit.type} is there twice")
        if not 0 <= limit.soft <= limit.hard:
            raise Invalid("read", field, f"soft {limit.soft} is not in 0..hard, which is {limit.hard}")
        seen.add(limit.type)
        operations.append(_clamped(limit, host, warnings))
    return tuple(operations)


def raised_limits(process: Process, host: HostFacts) -> tuple[Operation, ...]:
    """Return the operations that let the process have hard limits above the caller's own, where it may give them."""
    above = (limit for limit in process.rlimits if limit.hard > host.rlimits_hard.get(limit.type, limit.hard))
    return tuple(RaiseHardLimit(type=limit.type, hard=limit.hard) for limit in above if _may_raise(host))


def _may_raise(host: HostFacts) -> bool:
    # The capability counts in the initial user namespace alone (setrlimit(2)).
    return bool(host.cap_effective & _SYS_RESOURCE) and host.initial_user_namespace


def _clamped(limit: Rlimit, host: HostFacts, warnings: list[str]) -> Operation:
    most = host.rlimits_hard.get(limit.type, limit.hard)
    if limit.hard <= most or _may_raise(host):
        return SetRlimit(type=limit.type, soft=limit.soft, hard=limit.hard)
    warnings.append(f"{limit.type} is limited to {most}: more than the own hard limit needs CAP_SYS_RESOURCE")
    return SetRlimit(type=limit.type, soft=min(limit.soft, most), hard=most)


def oom_score(process: Process) -> tuple[Operation, ...]:
    """Return the operation that sets the OOM score adjustment; empty when the spec has none."""
    value = process.oom_score_adj
    if value is None:
        return ()
    if value not in OOM_SCORE_ADJ:
        raise Invalid("read", "process.oomScoreAdj", f"{value} is not in -1000..1000")
    return (SetOomScoreAdj(value=value),)


def affinity(process: Process) -> tuple[tuple[int, ...], tuple[Operation, ...]]:
    """Return (the processors that an exec is born on, the operation that binds it once it is in its cgroup).

    With the first alone it is the kernel that decides then: from the cgroup's own processors (config.md).
    """
    wanted = process.exec_cpu_affinity
    if not wanted:
        return (), ()
    initial, final = (
        number_list(text, f"process.execCPUAffinity.{name}", CPUS_MAX) if text else ()
        for name, text in (("initial", wanted.initial), ("final", wanted.final))
    )
    return initial, (SetCpuAffinity(cpus=final),) if final else ()


def _priorities(process: Process) -> list[Operation]:
    from ...linux import scheduling
    from ..operations.scheduling import SetIoPriority, SetScheduler

    operations: list[Operation] = []
    if scheduler := process.scheduler:
        if scheduler.policy not in scheduling.POLICIES:
            raise Invalid("read", "process.scheduler.policy", f"there is no policy {scheduler.policy!r}")
        for flag in scheduler.flags:
            if flag not in scheduling.FLAGS:
                raise Invalid("read", "process.scheduler.flags", f"there is no flag {flag!r}")
        operations.append(SetScheduler(scheduler=scheduler))
    if wanted := process.io_priority:
        if wanted.io_class not in scheduling.IO_CLASSES:
            raise Invalid("read", "process.ioPriority.class", f"there is no class {wanted.io_class!r}")
        if wanted.priority not in IO_PRIORITIES:
            raise Invalid("read", "process.ioPriority.priority", f"{wanted.priority} is not in 0..7")
        operations.append(SetIoPriority(io_class=wanted.io_class, priority=wanted.priority))
    return operations


def placement(linux: Linux) -> tuple[Operation, ...]:
    """Return the operations for `linux.personality` and `linux.memoryPolicy`, which execve keeps."""
    operations: list[Operation] = []
    if personality := linux.personality:
        if personality.domain not in PERSONALITIES:
            raise Invalid("read", "linux.personality.domain", f"{personality.domain!r} is neither LINUX nor LINUX32")
        if personality.flags:
            cause = "the specification has none yet"
            raise Invalid("read", "linux.personality.flags", cause, hint="leave the field out")
        operations.append(SetPersonality(domain=personality.domain))
    if policy := linux.memory_policy:
        from ...linux import scheduling
        from ..operations.scheduling import SetMemoryPolicy

        if policy.mode not in scheduling.MEMORY_MODES:
            raise Invalid("read", "linux.memoryPolicy.mode", f"there is no mode {policy.mode!r}")
        for flag in policy.flags:
            if flag not in scheduling.MEMORY_FLAGS:
                raise Invalid("read", "linux.memoryPolicy.flags", f"there is no flag {flag!r}")
        nodes = number_list(policy.nodes, "linux.memoryPolicy.nodes", scheduling.NODES_MAX) if policy.nodes else ()
        operations.append(SetMemoryPolicy(mode=policy.mode, nodes=nodes, flags=policy.flags))
    return tuple(operations)


def number_list(text: str, field: str, limit: int) -> tuple[int, ...]:
    """Return the numbers of a list such as "0-3,7". Raises Invalid for another form and for numbers from limit on."""
    numbers: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or not first.isascii() or len(part) > 16 or (dash and not last.isdecimal()):
            raise Invalid("read", field, f"{text!r} is not a list such as 0-3,7")
        low, high = int(first), int(last) if dash else int(first)
        if not low <= high < limit:
            raise Invalid("read", field, f"{part} is not a range of numbers below {limit}")
        numbers.update(range(low, high + 1))
    return tuple(sorted(numbers))


def _check_ids(field: str, ids: tuple[int, ...], mappings: tuple[IdMapping, ...]) -> None:
    for number in ids:
        if not 0 <= number <= ID_MAX:
            raise Invalid("read", field, f"{number} is not in 0..{ID_MAX}")
        if mappings and not any(0 <= number - mapping.container_id < mapping.size for mapping in mappings):
            hint = "map it, or run as another user; an ordinary user's ids come from /etc/subuid: see orlop doctor"
            raise Invalid("read", field, f"{number} is not mapped in the user namespace", hint=hint)


def need_lsm(name: str, field: str, host: HostFacts) -> None:
    """Raises Unsupported where a security module is not active: a label that nobody enforces is none (I3)."""
    if name not in host.lsms:
        raise Unsupported("set", field, f"{name} is not active on this host", hint="leave the field out", code="E1303")


def _bytes(text: str, field: str) -> bytes:
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        raise Invalid("read", field, "it is not UTF-8") from None
