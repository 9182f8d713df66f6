"""Every field of config.json that this version knows is honoured or refused: the table, and the proof for each row.

Honoured: another value makes another plan. Refused: any value is an error that names the field. A field that is added
to orlop.spec.runtime without a row here fails the first test.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import GenericAlias, UnionType
from typing import Any

import pytest

from orlop.linux.cgroup import Layout
from orlop.runtime import enter, plan
from orlop.runtime.host import HostFacts
from orlop.spec.errors import OrlopError
from orlop.spec.record import Record, _camel
from orlop.spec.runtime import Spec

V1_CONTROLLERS = "blkio cpu cpuacct cpuset devices freezer hugetlb memory net_cls net_prio pids rdma".split()
V1 = Layout("hybrid", {name: f"/cg/{name}" for name in V1_CONTROLLERS}, "/cg/unified", frozenset(("misc",)))
V2 = Layout("unified", {}, "/cg", frozenset("cpu cpuset hugetlb io memory pids rdma".split()))
HOST = HostFacts(
    machine="x86_64", kernel=(6, 18), cap_last=40, cap_bounding=2**41 - 1, cap_effective=2**41 - 1, layout=V1,
    rlimits_hard={"RLIMIT_NOFILE": 1 << 20}, lsms=("apparmor", "selinux"),
)  # fmt: skip

HOOK = {"path": "/bin/hook", "args": ["hook"], "env": ["A=b"], "timeout": 3}
MAP = [{"containerID": 0, "hostID": 1000, "size": 10}]
MAPS = {"uidMappings": MAP, "gidMappings": MAP}
FULL: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "root": {"path": "rootfs"},
    "mounts": [
        {"destination": "/a", "source": "/b", "type": "bind", "options": ["bind"], **MAPS}
    ],
    "process": {
        "cwd": "/", "args": ["true"], "env": ["A=b"], "user": {}, "consoleSize": {"height": 1, "width": 1},
        "terminal": True, "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 8, "hard": 9}],
        "capabilities": {"inheritable": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]},
        "scheduler": {"policy": "SCHED_DEADLINE", "runtime": 10, "deadline": 20, "period": 30},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1}, "execCPUAffinity": {"initial": "0"},
    },
    "hooks": {
        name: [HOOK]
        for name in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    },
    "linux": {
        "cgroupsPath": "/x",
        "namespaces": [{"type": kind} for kind in ("ipc", "mount", "pid", "network", "uts", "user", "time")],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "devices": [{"type": "c", "path": "/dev/x", "major": 1, "minor": 2}],
        "netDevices": {"eth9": {}},
        "timeOffsets": {"boottime": {}},
        "personality": {"domain": "LINUX"},
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent",
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ERRNO",
                 "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": 1}]},
                {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"},
            ],
        },
        "resources": {
            "devices": [{"allow": True, "type": "c", "major": 5, "minor": 6, "access": "r"}],
            "memory": {}, "cpu": {}, "pids": {"limit": 1},
            "blockIO": {
                "weightDevice": [{"major": 1, "minor": 2, "weight": 20}],
                **{
                    f"throttle{name}Device": [{"major": 1, "minor": 2, "rate": 3}]
                    for name in ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS")
                },
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
            "network": {"priorities": [{"name": "lo", "priority": 1}]},
            "rdma": {"mlx": {"hcaHandles": 1}},
        },
    },
}  # fmt: skip

# Another value of each field, and the plan is another one.
HONOURED: dict[str, object] = {
    "root.readonly": True,
    "mounts[].destination": "/c", "mounts[].source": "/d", "mounts[].type": ("mounts[].options", [],
    "rbind"), "mounts[].options": ["bind", "ro"],
    **{f"mounts[].{kind}Mappings[].{name}": 5 for kind in ("uid", "gid") for name in ("containerID", "hostID", "size")},
    "process.cwd": "/tmp", "process.terminal": False, "process.consoleSize.height": 2, "process.consoleSize.width": 2,
    "process.env": ["A=c"], "process.args": ["false"], "process.user.uid": 5, "process.user.gid": 5,
    "process.user.umask": 0o77, "process.user.additionalGids": [5], "process.rlimits[].type": "RLIMIT_NPROC",
    "process.rlimits[].soft": 7, "process.rlimits[].hard": 10, "process.capabilities.bounding": ["CAP_CHOWN"],
    "process.capabilities.effective": ["CAP_CHOWN"], "process.capabilities.inheritable": ["CAP_KILL"],
    "process.capabilities.permitted": ["CAP_KILL"], "process.capabilities.ambient": ["CAP_CHOWN"],
    "process.noNewPrivileges": True, "process.apparmorProfile": "p", "process.selinuxLabel": "l",
    "process.oomScoreAdj": 5, "process.scheduler.policy": "SCHED_BATCH", "process.scheduler.nice": 1,
    "process.scheduler.priority": 1, "process.scheduler.flags": ["SCHED_FLAG_RESET_ON_FORK"],
    "process.scheduler.runtime": 11, "process.scheduler.deadline": 21, "process.scheduler.period": 31,
    "process.ioPriority.class": "IOPRIO_CLASS_IDLE", "process.ioPriority.priority": 2,
    "hostname": "a", "domainname": "b",
    **{
        f"hooks.{point}[].{name}": value
        for point in FULL["hooks"]
        for name, value in {"path": "/bin/other", "args": ["x"], "env": ["C=d"], "timeout": 4}.items()
    },
    **{f"linux.{kind}Mappings[].{name}": value for kind in ("uid", "gid")
       for name, value in {"hostID": 5, "size": 11}.items()},
    # Everything but the first id moves away: the process's own must stay mapped.
    "linux.uidMappings[].containerID": ("process.user.uid", 3, 2),
    "linux.gidMappings[].containerID": ("process.user.gid", 3, 2),
    "linux.sysctl": {"net.ipv4.ip_forward": "1"}, "linux.cgroupsPath": "/y",
    "linux.namespaces[].type": "cgroup", "linux.namespaces[].path": "/proc/1/ns/ipc",
    "linux.devices[].type": "b", "linux.devices[].path": "/dev/y", "linux.devices[].major": 2,
    "linux.devices[].minor": 3, "linux.devices[].fileMode": 0o600, "linux.devices[].uid": 1, "linux.devices[].gid": 1,
    "linux.netDevices{}.name": "eth0", "linux.rootfsPropagation": "shared", "linux.maskedPaths": ["/m"],
    "linux.readonlyPaths": ["/r"], "linux.personality.domain": "LINUX32",
    "linux.timeOffsets{}.secs": 1, "linux.timeOffsets{}.nanosecs": 1,
    "linux.memoryPolicy.mode": "MPOL_PREFERRED", "linux.memoryPolicy.nodes": "1",
    "linux.memoryPolicy.flags": ["MPOL_F_STATIC_NODES"],
    "linux.seccomp.defaultAction": "SCMP_ACT_LOG", "linux.seccomp.defaultErrnoRet": ("linux.seccomp.defaultAction",
    "SCMP_ACT_ERRNO", 38),
    "linux.seccomp.architectures": ["SCMP_ARCH_X86"], "linux.seccomp.flags": ["SECCOMP_FILTER_FLAG_LOG"],
    "linux.seccomp.listenerPath": "/run/other", "linux.seccomp.listenerMetadata": "m",
    "linux.seccomp.syscalls[].names": ["write"], "linux.seccomp.syscalls[].action": "SCMP_ACT_KILL",
    "linux.seccomp.syscalls[].errnoRet": 38, "linux.seccomp.syscalls[].args[].index": 1,
    "linux.seccomp.syscalls[].args[].value": 3, "linux.seccomp.syscalls[].args[].op": "SCMP_CMP_EQ",
    "linux.seccomp.syscalls[].args[].valueTwo": 0,
    "linux.resources.devices[].allow": False, "linux.resources.devices[].type": "b",
    "linux.resources.devices[].major": 7, "linux.resources.devices[].minor": 7, "linux.resources.devices[].access": "w",
    "linux.resources.memory.limit": 1 << 20, "linux.resources.memory.reservation": 1 << 20,
    "linux.resources.memory.swap": 1 << 20, "linux.resources.memory.kernelTCP": 1 << 20,
    "linux.resources.memory.swappiness": 5, "linux.resources.memory.disableOOMKiller": True,
    "linux.resources.cpu.shares": 5, "linux.resources.cpu.quota": 5000, "linux.resources.cpu.burst": 5,
    "linux.resources.cpu.period": 5000, "linux.resources.cpu.realtimeRuntime": 5,
    "linux.resources.cpu.realtimePeriod": 5, "linux.resources.cpu.cpus": "0", "linux.resources.cpu.mems": "0",
    "linux.resources.cpu.idle": 1, "linux.resources.pids.limit": 5, "linux.resources.blockIO.weight": 50,
    "linux.resources.blockIO.weightDevice[].major": 5, "linux.resources.blockIO.weightDevice[].minor": 5,
    "linux.resources.blockIO.weightDevice[].weight": 50,
    **{
        f"linux.resources.blockIO.throttle{kind}Device[].{name}": 5
        for kind in ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS")
        for name in ("major", "minor", "rate")
    },
    "linux.resources.hugepageLimits[].pageSize": "1GB", "linux.resources.hugepageLimits[].limit": 5,
    "linux.resources.network.classID": 5, "linux.resources.network.priorities[].name": "eth0",
    "linux.resources.network.priorities[].priority": 5, "linux.resources.rdma{}.hcaHandles": 5,
    "linux.resources.rdma{}.hcaObjects": 5, "linux.resources.unified": {"misc.max": "x 1"},
}  # fmt: skip

# Any value is an error that names the field, and why.
REFUSED: dict[str, tuple[object, str]] = {
    "linux.resources.memory.kernel": (1 << 20, "Linux has none since 5.16"),
    "linux.resources.memory.useHierarchy": (False, "Linux counts hierarchically always since 5.11"),
    "linux.resources.blockIO.leafWeight": (50, "Linux has none since 5.0"),
    "linux.resources.blockIO.weightDevice[].leafWeight": (50, "Linux has none since 5.0"),
    "linux.personality.flags": (["X"], "the specification has none yet"),
    "linux.intelRdt.closID": ("x", "there is no machine here that it could be tried on"),
    "linux.intelRdt.l3CacheSchema": ("x", "as closID"),
    "linux.intelRdt.memBwSchema": ("x", "as closID"),
    "linux.intelRdt.schemata": (["x"], "as closID"),
    "linux.intelRdt.enableMonitoring": (True, "as closID"),
}

# What a plan does not decide: who honours it, and the test that proves it.
ELSEWHERE = {
    "ociVersion": "a version is not judged: unknown properties are ignored (config.md)",
    "root.path": "rootfs.open_bundle_root; tests/root/test_runtime_cli.py",
    "annotations": "the state document; tests/conformance/test_runtime_variants.py",
    "linux.mountLabel": "for new file systems alone; tests/unit/test_runtime_plan.py",
    "linux.resources.memory.checkBeforeUpdate": "v2 alone, v1's kernel does it; below",
    "process.execCPUAffinity.initial": "for an exec alone (config.md); below, and tests/root/test_runtime_exec.py",
    "process.execCPUAffinity.final": "as initial",
}


def fields(record: type[Record], prefix: str = "") -> Iterator[str]:
    """Yield the path of every field: [] is an entry of a list, {} a value of an object."""
    for name, (shape, _, _) in record._fields.items():
        path = prefix + (record.json_names.get(name) or _camel(name))
        if isinstance(shape, UnionType):
            shape = next(part for part in shape.__args__ if part is not type(None))
        inner, mark = shape, ""
        if isinstance(shape, GenericAlias):
            of_list = shape.__origin__ is tuple
            inner, mark = shape.__args__[0 if of_list else 1], "[]" if of_list else "{}"
        if isinstance(inner, type) and issubclass(inner, Record):
            yield from fields(inner, f"{path}{mark}.")
        else:
            yield path


def with_field(config: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    new = copy.deepcopy(config)
    place: Any = new
    *parents, last = path.split(".")
    for part in parents:
        name = part.rstrip("[]{}")
        place = place.setdefault(name, {})
        if part.endswith("[]"):
            place = place[0]
        elif part.endswith("{}"):
            place = next(iter(place.values()))
    place[last] = value
    return new


def compiled(config: dict[str, Any], host: HostFacts = HOST) -> plan.Plan:
    return plan.compile(Spec.from_json(config), host)


def test_every_field_has_one_row() -> None:
    rows = [*HONOURED, *REFUSED, *ELSEWHERE]
    assert sorted(rows) == sorted(fields(Spec))


@pytest.mark.parametrize("path", HONOURED)
def test_a_field_is_honoured(path: str) -> None:
    value, base = HONOURED[path], FULL
    if isinstance(value, tuple):
        beside, its, value = value
        base = with_field(base, beside, its)
    assert compiled(base) == compiled(base), "the same spec gives the same plan"
    assert compiled(with_field(base, path, value)) != compiled(base)


@pytest.mark.parametrize("path", REFUSED)
def test_a_field_is_refused(path: str) -> None:
    with pytest.raises(OrlopError) as caught:
        compiled(with_field(FULL, path, REFUSED[path][0]))
    section = path.replace("[]", "").rpartition(".")[0]
    assert (section if "intelRdt" in path else path).replace("[].leafWeight", "") in str(caught.value)
    assert caught.value.kind in ("unsupported", "invalid") and caught.value.hint


def test_the_check_before_an_update_is_made_on_v2() -> None:
    base = with_field(FULL, "linux.resources", {"memory": {"limit": 1 << 20}})
    host = HOST.replace(layout=V2)
    assert compiled(with_field(base, "linux.resources.memory.checkBeforeUpdate", True), host) != compiled(base, host)


@pytest.mark.parametrize("name", ["initial", "final"])
def test_processors_are_for_an_exec(name: str) -> None:
    path = f"process.execCPUAffinity.{name}"
    spec, other = Spec.from_json(FULL), Spec.from_json(with_field(FULL, path, "2"))
    assert plan.compile(spec, HOST) == plan.compile(other, HOST)
    assert spec.process and other.process
    assert enter.compile_exec(spec.process, spec, HOST) != enter.compile_exec(other.process, spec, HOST)
    with pytest.raises(OrlopError, match=name):
        compiled(with_field(FULL, path, "1-0"))


V1_ONLY = {
    "linux.resources.memory.swappiness": 5, "linux.resources.memory.disableOOMKiller": True,
    "linux.resources.memory.kernelTCP": 5, "linux.resources.cpu.realtimeRuntime": 5,
    "linux.resources.cpu.realtimePeriod": 5, "linux.resources.network.classID": 5,
    "linux.resources.network.priorities": [{"name": "lo", "priority": 1}],
}  # fmt: skip


@pytest.mark.parametrize("path", V1_ONLY)
def test_what_v2_has_not_is_refused_there(path: str) -> None:
    with pytest.raises(OrlopError, match=path.rpartition(".")[2]):
        compiled(with_field(with_field(FULL, "linux.resources", {}), path, V1_ONLY[path]), HOST.replace(layout=V2))


def test_a_machine_without_controllers_refuses_every_limit() -> None:
    nothing = HOST.replace(layout=Layout("none"))
    for name, value in FULL["linux"]["resources"].items():
        if value:
            with pytest.raises(OrlopError, match=f"linux.resources.{name}|hierarchy"):
                compiled(with_field(with_field(FULL, "linux.resources", {}), f"linux.resources.{name}", value), nothing)
