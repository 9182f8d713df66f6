"""One more process in a running container (exec).

It is born inside the container's PID namespace and cgroups and joins the other namespaces by the pidfd of the first
process, so no number that could have been recycled is used for anything that matters (SEC-36). It is not dumpable from
its first instruction on, because the container's processes can see it from there (CVE-2016-9962, CVE-2019-5736).
"""

from __future__ import annotations

import os

from ..linux import process as linux_process
from ..spec import runtime as oci
from . import launch
from .operations import Outside
from .operations.enter import EnterContainer, not_running
from .operations.namespaces import KINDS
from .plan import CgroupPlan, Plan
from .planning import namespaces, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.runtime import Process, Spec
    from .host import HostFacts
    from .launch import Created
    from .planning.process import FilterCompiler


def open_root(pid: int, pidfd: int) -> int:
    """Return an O_PATH descriptor of the root directory of a running container, for `users.resolve`.

    Raises Conflict when the process is gone; pidfd holds the identity, pid is only the way to it.
    """
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        raise not_running() from None
    try:
        # Looked at after the open: while the pidfd's process is there, the number is its own.
        check_running(pidfd)
    except BaseException:
        os.close(root)
        raise
    return root


def check_running(pidfd: int) -> None:
    """Raises Conflict when the process of the pidfd has ended."""
    if linux_process.has_ended(pidfd):
        raise not_running()


def compile_exec(
    wanted: Process, spec: Spec, host: HostFacts, compile_filter: FilterCompiler | None = None, leaf: str = ""
) -> Plan:
    """Return the plan of one more process. leaf: see CgroupPlan.

    spec: the container's own; it gives the namespaces, the cgroup and the seccomp filter, and the capabilities and the
    OOM score adjustment where the process has none. Errors as for `plan.compile`.
    """
    warnings: list[str] = []
    own = namespaces.namespaces(spec.linux, host)
    if first := spec.process:
        wanted = wanted.replace(
            capabilities=wanted.capabilities or first.capabilities,
            oom_score_adj=first.oom_score_adj if wanted.oom_score_adj is None else wanted.oom_score_adj,
        )
    filters, early = process.filters(spec.linux.seccomp, wanted, host, compile_filter)
    ruleset, restrict = process.restrictions(spec.annotations, host)
    maps = (spec.linux.uid_mappings, spec.linux.gid_mappings) if own.own_ids else None
    command = process.command(wanted)
    before, after = process.identity(wanted, command, host, maps, early, warnings)
    flags = sum(flag for kind, (flag, _) in KINDS.items() if own.has(kind) and kind != "pid")
    path = namespaces.cgroup_path(spec.linux)
    cgroup = CgroupPlan(path=path, layout=host.layout, exists=True, leaf=leaf) if path else None
    processors, binding = process.affinity(wanted)
    return Plan(
        command=command,
        processors=processors,
        cgroup=cgroup,
        operations=(
            *(cgroup.entry if cgroup else ()),
            *binding,
            *process.oom_score(wanted),
            *process.raised_limits(wanted, host),
            EnterContainer(flags=flags, own_ids=own.own_ids),
            *process.streams(wanted, console=False),
            *process.attributes(wanted, host),
            *ruleset,
            *before,
        ),
        last=(*process.limits(wanted, host, warnings), *restrict, *filters, *after),
        terminal=wanted.terminal,
        listener=process.listener(spec.linux.seccomp),
        warnings=tuple(warnings),
    )


def create_exec(plan: Plan, pid: int, pidfd: int, stdio: Sequence[int], container: oci.State | None = None) -> Created:
    """Make the process up to the last step before execve; like `launch.create`.

    pid, pidfd: of the container's init, the pidfd opened by `linux.process.pidfd_of`. container: what the agent of a
    seccomp listener is told; the process's pid is filled in. `Created.cgroup` is the
    container's, which is not removed by `abort`. Raises Conflict when the container is not running.
    """
    created = begin_exec(plan, pid, pidfd, stdio, container)
    created.attend()
    return created


def begin_exec(plan: Plan, pid: int, pidfd: int, stdio: Sequence[int], container: oci.State | None = None) -> Created:
    """Like `create_exec`, but return while the process sets itself up, as `launch.begin` does."""
    check_running(pidfd)
    state = container or oci.State(oci_version=oci.OCI_VERSION, id="", status="running", bundle="")
    return launch.begin(plan, Outside(state.replace(pid=pid), target=pidfd), stdio)
