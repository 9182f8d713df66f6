"""A container's scope: started around a process that stands in, changed, stopped; each waits for systemd's job."""

import os

from ...linux import cgroup, process
from ...linux.signals import SIGKILL
from ...spec.errors import NotFound, OrlopError, Unavailable, Unsupported
from ...spec.runtime import Resources
from . import bus
from .unit import device_rules, limits_of, properties
from .wire import Variant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...linux.cgroup import Layout
    from ..plan import CgroupPlan

JOB_TIMEOUT_S = 30.0
_BOOTED = "/run/systemd/system"  # sd_booted(3)


def check_booted() -> None:
    """Raises Unavailable where systemd is not process 1."""
    if not os.path.isdir(_BOOTED):
        raise Unavailable(
            "make", "linux.cgroupsPath", "systemd is not running here, so there is nobody to make the scope",
            hint="give a plain cgroupsPath, without --systemd-cgroup",
        )  # fmt: skip


class StandIn:
    """A process that does nothing: a scope can't be empty, and init is born into it only when it is there."""

    __slots__ = ("pid", "pidfd")

    def __init__(self) -> None:
        """The caller has one thread. Raises OSError."""
        self.pid, self.pidfd = process.clone3(0)
        if self.pid == 0:
            try:
                process.prctl(process.PR_SET_PDEATHSIG, SIGKILL)
                process.close_all_except(set())
                process.pause()
            finally:
                os._exit(0)

    def end(self) -> None:
        """Kill and reap it. Idempotent."""
        if self.pidfd >= 0:
            process.pidfd_send_signal(self.pidfd, SIGKILL)
            process.wait_pidfd(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1


def is_machines() -> bool:
    """Tell whether the systemd that makes our units is the machine's, process 1, and not an ordinary user's own."""
    return bus.is_machines()


def users_layout() -> "Layout":
    """Return the layout of which the cgroup of the user's own systemd is the root: what is below is the user's.

    Raises Unsupported without v2, the one hierarchy that can be delegated (cgroups(7)); Unavailable.
    """
    layout = cgroup.detect()
    if layout.v1 or not layout.v2:
        raise Unsupported(
            "make", "linux.cgroupsPath", "a user's systemd makes cgroups only where cgroup v2 is alone",
            hint="leave --systemd-cgroup out",
        )  # fmt: skip
    with bus.connect() as systemd:
        words = (bus.MANAGER, "ControlGroup")
        (told,) = systemd.call(bus.SYSTEMD_PATH, "org.freedesktop.DBus.Properties", "Get", "ss", words)
    path = told.value if isinstance(told, Variant) else told
    if not isinstance(path, str):
        raise Unavailable("read", "the cgroup of systemd", "it is no path")
    return cgroup.below(layout, "/".join((layout.v2, *cgroup.split_path(path))))


def attach(unit_name: str, pid: int) -> None:
    """Have a user's systemd move a process into a unit: only process 1 may move it between users' parts of the tree.

    Raises Unavailable, Denied.
    """
    with bus.connect() as systemd:
        systemd.call(bus.SYSTEMD_PATH, bus.MANAGER, "AttachProcessesToUnit", "ssau", (unit_name, "", [pid]))


def start(wanted: "CgroupPlan", pid: int, container: str) -> None:
    """Have systemd make the unit with `pid` in it. Raises Conflict when it is there, Unavailable when the job fails."""
    check_booted()
    assert wanted.unit
    unit = wanted.unit
    own = [*properties(unit, pid, container), *limits_of(wanted.resources, wanted.layout)]
    if is_machines():  # a user's has no power over devices
        own += device_rules(wanted.resources)
    names = {name for name, _ in wanted.properties}
    own = [*(row for row in own if row[0] not in names), *wanted.properties]
    with bus.connect() as systemd:
        job = systemd.call(
            bus.SYSTEMD_PATH, bus.MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", (unit.name, "replace", own, [])
        )
        _await(systemd, job, "start", unit.name)


def change(unit_name: str, wanted: Resources, layout: "Layout") -> None:
    """Change the limits that systemd knows, until the unit ends. Raises Unavailable."""
    own = limits_of(wanted, layout) + (device_rules(wanted) if wanted.devices else [])
    if not own:
        return
    with bus.connect() as systemd:
        systemd.call(bus.SYSTEMD_PATH, bus.MANAGER, "SetUnitProperties", "sba(sv)", (unit_name, True, own))


def stop(unit_name: str) -> None:
    """Have systemd end the unit; one that has ended is no error. Raises Unavailable."""
    with bus.connect() as systemd:
        try:
            job = systemd.call(bus.SYSTEMD_PATH, bus.MANAGER, "StopUnit", "ss", (unit_name, "replace"))
        except OrlopError as failure:
            if "not loaded" in failure.cause:  # org.freedesktop.systemd1.NoSuchUnit
                return
            raise
        _await(systemd, job, "stop", unit_name)
        try:
            systemd.call(bus.SYSTEMD_PATH, bus.MANAGER, "ResetFailedUnit", "s", (unit_name,))
        except OrlopError:
            pass  # it did not fail, and is forgotten already


def _await(systemd: bus.Connection, job: list[object], verb: str, name: str) -> None:
    if not job:
        raise NotFound(verb, name, "systemd named no job")
    # JobRemoved(u id, o job, s unit, s result)
    body = systemd.wait_for_signal("JobRemoved", lambda body: body[1:2] == job[:1], JOB_TIMEOUT_S)
    result = body[3] if len(body) > 3 else ""
    if result != "done":
        raise Unavailable(
            verb, f"the unit {name}", f"systemd's job ended as {result!r}", hint=f"systemctl status {name}"
        )
