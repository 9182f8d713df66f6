"""Limits, devices and namespaces of a request become those of an OCI spec: docker's rules and texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.engine import compile
from orlop.engine.compile import config, namespaces, resources
from orlop.engine.containers.record import ContainerRecord
from orlop.engine.host import Devices, Host
from orlop.engine.host import devices as devices_of
from orlop.linux.capability import NAMES
from orlop.runtime.host import HostFacts
from orlop.spec.container import ContainerRequest, DeviceRate, DeviceRequest, DeviceWeight, UlimitRequest
from orlop.spec.errors import Invalid, OrlopError, Unsupported
from orlop.spec.image import ContainerConfig
from orlop.spec.runtime import Device, DeviceRule, Spec

ID = "0123456789abcdef" * 4
HOST = Host(
    processors=4,
    hostname="machine",
    capabilities=tuple(f"CAP_{name}" for name in NAMES),
    controllers=("cpu", "cpuset", "memory", "pids", "devices", "blkio"),
    swap_limit=True,
    cpus=(0, 1, 2, 3),
    memory_nodes=(0,),
    runtime=HostFacts(machine="x86_64", kernel=(6, 18), cap_last=40, cap_bounding=0, cap_effective=0, rlimits_hard={}),
)
DISK = Device(type="b", path="/dev/sda", major=8, minor=0)
KNOWN = Devices(
    named={
        "/dev/sda": (DISK,),
        "/dev/snd": (
            Device(type="c", path="/dev/snd/pcm", major=116, minor=1),
            Device(type="c", path="/dev/snd/seq/1", major=116, minor=2),
        ),
    }
)


def compiled(host: Host = HOST, **fields: object) -> compile.Compiled:
    asked = ContainerRequest(image="host", name="web", security_opt=("seccomp=unconfined",), **fields)
    record = ContainerRecord(
        id=ID,
        name="web",
        created_at="",
        request=asked,
        config=config.merge(asked, ContainerConfig(cmd=("sh",)), ID, host.hostname),
    )
    return compile.container(record, "/data", host, KNOWN)


def spec(**fields: object) -> Spec:
    return compiled(**fields).spec


def limits(**fields: object):
    found = spec(**fields).linux.resources
    assert found is not None
    return found


def without(controller: str) -> Host:
    return HOST.replace(controllers=tuple(name for name in HOST.controllers if name != controller))


# -- limits ----------------------------------------------------------------------------------------------------------


def test_memory_beside_its_limit():
    found = limits(
        memory_bytes=64 << 20, memory_reservation_bytes=32 << 20, memory_swappiness=0, oom_kill_disable=True
    ).memory
    assert (found.limit, found.swap, found.reservation, found.swappiness, found.disable_oom_killer) == (
        64 << 20, 128 << 20, 32 << 20, 0, True,
    )  # fmt: skip
    assert limits(memory_reservation_bytes=6 << 20).memory.limit is None


def test_an_oom_killer_that_is_off_without_a_limit_is_warned_of():
    assert any("no memory limit is set" in text for text in compiled(oom_kill_disable=True).warnings)


def test_processors():
    found = limits(cpu_shares=512, cpu_period_us=50_000, cpu_quota_us=25_000, cpuset_cpus="0-1,3", cpuset_mems="0").cpu
    assert (found.shares, found.period, found.quota, found.cpus, found.mems) == (512, 50_000, 25_000, "0-1,3", "0")
    assert limits(cpu_shares=1).cpu.shares == 2, "the kernel's own lower bound, as docker lets it bend"
    assert limits(cpu_realtime_runtime_us=1000, cpu_realtime_period_us=2000).cpu.realtime_runtime == 1000


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"cpu_period_us": 10}, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"),
        ({"cpu_quota_us": 10}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        ({"cpu_nanos": 10**9, "cpu_quota_us": 1000}, "Nano CPUs and CPU Quota cannot both be set"),
        ({"cpu_nanos": 10**9, "cpu_period_us": 1000}, "Nano CPUs and CPU Period cannot both be set"),
        ({"cpuset_cpus": "99"}, "Requested CPUs are not available - requested 99, available: 0-3"),
        ({"cpuset_cpus": "x"}, "Invalid value x for cpuset cpus: invalid format: x"),
        ({"cpuset_cpus": "1-0"}, "Invalid value 1-0 for cpuset cpus: invalid format: 1-0"),
        ({"cpuset_cpus": "0-999999999"}, "Invalid value 0-999999999 for cpuset cpus"),
        ({"cpuset_mems": "9"}, "Requested memory nodes are not available - requested 9, available: 0"),
        ({"cpu_realtime_runtime_us": 2, "cpu_realtime_period_us": 1}, "runtime cannot be higher than"),
        ({"memory_reservation_bytes": 1}, "Minimum memory reservation allowed is 6MB"),
        (
            {"memory_bytes": 10 << 20, "memory_reservation_bytes": 20 << 20},
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        ({"memory_swappiness": 101}, "valid memory swappiness range is 0-100"),
        ({"oom_score_adj": 2000}, "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
        ({"blkio_weight": 5}, "Range of blkio weight is from 10 to 1000"),
        ({"shm_bytes": -1}, "SHM size can not be less than 0"),
        ({"device_read_bps": (DeviceRate(path="/dev/no", rate=1),)}, "/dev/no is no device of this machine"),
        ({"devices": (DeviceRequest(source="/dev/no", target="/dev/no"),)}, 'adding custom device "/dev/no"'),
        ({"device_cgroup_rules": ("x",)}, "invalid device cgroup format 'x'"),
        ({"device_cgroup_rules": ("c a:b rwm",)}, "invalid device cgroup format 'c a:b rwm'"),
        ({"uts": "host", "hostname": "x"}, "conflicting options: hostname and the UTS mode"),
        ({"uts": "bogus"}, "invalid UTS mode: bogus"),
        ({"pid": "container:"}, "invalid PID mode: container:"),
        ({"ipc": "bogus"}, "invalid IPC mode: bogus"),
        ({"userns": "private"}, "invalid USER mode: private"),
        ({"cgroup_namespace": "x"}, "invalid CGROUP mode: x"),
        ({"time": "x"}, "invalid TIME mode: x"),
        ({"time": "host,boottime=1"}, "invalid TIME mode: host,boottime=1"),
        ({"time": "private,boottime=x"}, "invalid TIME mode: private,boottime=x"),
        ({"time": "private,boottime=1,boottime=2"}, "invalid TIME mode: private,boottime=1,boottime=2"),
        ({"uts": "ns:relative"}, "invalid UTS mode: ns:relative"),
        ({"isolation": "hyperv"}, "Invalid isolation: \"hyperv\" - linux only supports 'default'"),
        ({"cgroup_parent": "../x"}, "invalid cgroup parent '../x'"),
        ({"cgroup_parent": "/a\nb"}, "invalid cgroup parent"),
        ({"sysctls": {"kernel.panic": "1"}}, "sysctl 'kernel.panic' is not allowed"),
        ({"sysctls": {"net.core/../../kernel.panic": "1"}}, "is not allowed"),
        ({"sysctls": {"net.x": "1"}, "network": "host"}, 'sysctl "net.x" not allowed in host network namespace'),
        ({"sysctls": {"kernel.shmmax": "1"}, "ipc": "host"}, "not allowed in host ipc namespace"),
        ({"sysctls": {"kernel.domainname": "x"}, "uts": "host"}, "not allowed in host UTS namespace"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_what_can_not_be_is_refused_in_dockers_words(fields, text):
    with pytest.raises(Invalid) as caught:
        compiled(**fields)
    assert text in str(caught.value)
    assert "web" in caught.value.subject and caught.value.hint


@pytest.mark.parametrize(
    ("controller", "fields"),
    [
        ("cpuset", {"cpuset_cpus": "0"}),
        ("cpu", {"cpu_shares": 5}),
        ("memory", {"memory_reservation_bytes": 6 << 20}),
        ("blkio", {"blkio_weight": 500}),
    ],
)
def test_a_limit_that_nobody_can_hold_is_an_error(controller, fields):
    with pytest.raises(Unsupported, match=f"the {controller} controller"):
        compiled(host=without(controller), **fields)


@pytest.mark.parametrize(
    ("fields", "text"),
    [({"kernel_memory_bytes": 1}, "no limit for kernel memory alone"), ({"runtime": "runc"}, "runtime name: runc")],
)
def test_what_this_machine_or_version_can_not_do_is_unsupported(fields, text):
    with pytest.raises(Unsupported, match=text):
        compiled(**fields)


def test_ulimits_and_the_oom_score():
    asked = (
        UlimitRequest(name="nofile", soft=1, hard=2),
        UlimitRequest(name="core", soft=0, hard=-1),
        UlimitRequest(name="core", soft=-1, hard=-1),
    )
    process = spec(ulimits=asked, oom_score_adj=-5).process
    assert [(limit.type, limit.soft, limit.hard) for limit in process.rlimits] == [
        ("RLIMIT_CORE", 2**64 - 1, 2**64 - 1),
        ("RLIMIT_NOFILE", 1, 2),
    ]
    assert process.oom_score_adj == -5


@given(st.sets(st.integers(0, 300), min_size=1))
def test_a_list_of_processors_reads_back(numbers):
    assert resources.members(resources.ranges(tuple(numbers))) == numbers


@given(st.text(max_size=30))
def test_no_text_breaks_the_list_of_processors(text):
    found = resources.members(text)
    assert found is None or (found and max(found) < 8192)


# -- devices ---------------------------------------------------------------------------------------------------------


def test_a_device_is_made_and_allowed():
    found = spec(devices=(DeviceRequest(source="/dev/sda", target="/dev/disk", permissions="r"),))
    assert [device.path for device in found.linux.devices] == ["/dev/disk"]
    assert DeviceRule(allow=True, type="b", major=8, minor=0, access="r") in found.linux.resources.devices


def test_a_directory_brings_all_devices_below():
    found = spec(devices=(DeviceRequest(source="/dev/snd", target="/dev/audio"),))
    assert [device.path for device in found.linux.devices] == ["/dev/audio/pcm", "/dev/audio/seq/1"]


def test_rules_of_the_user_come_last():
    rules = limits(device_cgroup_rules=("c 42:* rm",)).devices
    assert rules[-1] == DeviceRule(allow=True, type="c", major=42, minor=None, access="rm")
    assert limits(privileged=True, device_cgroup_rules=("c 42:* rm",)).devices == (DeviceRule(allow=True),)


def test_disks_are_bounded_by_number():
    found = limits(
        blkio_weight=300,
        blkio_weight_devices=(DeviceWeight(path="/dev/sda", weight=200),),
        device_write_bps=(DeviceRate(path="/dev/sda", rate=1 << 20),),
    ).block_io
    assert (found.weight, found.weight_device[0].major, found.weight_device[0].weight) == (300, 8, 200)
    assert (found.throttle_write_bps_device[0].major, found.throttle_write_bps_device[0].rate) == (8, 1 << 20)


def test_the_machines_devices_are_looked_up_by_path():
    asked = ContainerRequest(
        image="i",
        devices=(DeviceRequest(source="/dev/null", target="/x"), DeviceRequest(source="/etc", target="/y")),
        device_read_bps=(DeviceRate(path="/dev/zero", rate=1), DeviceRate(path="/no/such", rate=1)),
    )
    found = devices_of(asked).named
    assert [(device.major, device.minor) for device in found["/dev/null"]] == [(1, 3)]
    assert (len(found["/dev/zero"]), "/no/such" in found, found["/etc"]) == (1, False, ())


# -- namespaces --------------------------------------------------------------------------------------------------------


def types(**fields: object) -> set[str]:
    return {namespace.type for namespace in spec(**fields).linux.namespaces}


OWN = {"mount", "uts", "ipc", "pid", "cgroup", "time", "network"}


@pytest.mark.parametrize(
    ("field", "name"),
    [("ipc", "ipc"), ("pid", "pid"), ("uts", "uts"), ("network", "network"), ("cgroup_namespace", "cgroup")],
)
def test_a_namespace_of_the_machine_is_none_of_the_containers(field, name):
    assert types() == OWN
    assert types(**{field: "host"}) == OWN - {name}
    if field != "network":
        assert types(**{field: "private"}) == OWN


def test_the_machines_own_name_is_not_set_again():
    assert (spec(uts="host").hostname, spec(network="host").hostname) == ("", "machine")
    assert spec(domainname="d.example").domainname == "d.example"


def test_shared_memory_is_as_large_as_asked_or_the_machines_or_not_there():
    def shm(**fields: object):
        return next((mount for mount in spec(**fields).mounts if mount.destination == "/dev/shm"), None)

    assert "size=67108864" in shm().options and "size=5" in shm(shm_bytes=5, ipc="shareable").options
    assert (shm(ipc="host").type, shm(ipc="host").source) == ("bind", "/dev/shm")
    assert shm(ipc="none") is None


@pytest.mark.parametrize(
    ("memory", "size"), [(0, 64 << 20), (100 << 20, 64 << 20), (1 << 30, 512 << 20), (1 << 36, 1 << 30)]
)
def test_shared_memory_grows_with_the_memory_limit(memory: int, size: int):
    """A tmpfs counts as the container's memory, so half of what it may have is no danger to the machine."""
    found = next(mount for mount in spec(memory_bytes=memory).mounts if mount.destination == "/dev/shm")
    assert f"size={size}" in found.options
    asked = next(mount for mount in spec(memory_bytes=memory, shm_bytes=7).mounts if mount.destination == "/dev/shm")
    assert "size=7" in asked.options


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({}, (1024, 524288)),
        ({"RLIMIT_NOFILE": 2**64 - 1}, (1024, 524288)),
        ({"RLIMIT_NOFILE": 4096}, (1024, 4096)),
        ({"RLIMIT_NOFILE": 100}, (100, 100)),
    ],
)
def test_open_files_are_not_those_of_the_engine(own: dict[str, int], told: tuple[int, int]):
    host = HOST.replace(runtime=HOST.runtime.replace(rlimits_hard=own))
    found = compiled(host)
    process = found.spec.process
    assert process and [(limit.type, limit.soft, limit.hard) for limit in process.rlimits] == [("RLIMIT_NOFILE", *told)]
    assert not [warning for warning in found.warnings if "NOFILE" in warning]
    asked = compiled(host, ulimits=(UlimitRequest(name="nofile", soft=5, hard=6),)).spec.process
    assert asked and [(limit.soft, limit.hard) for limit in asked.rlimits] == [(5, 6)]


def test_writable_cgroups_are_asked_for_by_name():
    asked = ContainerRequest(image="i", security_opt=("writable-cgroups=true",))
    assert compile.security.options(asked, HOST, "web").writable_cgroups
    mounts = [mount for mount in spec().mounts if mount.type == "cgroup"]
    assert all("ro" in mount.options for mount in mounts)


def test_annotations_and_cgroup_parents_reach_the_runtime():
    found = spec(annotations={"a": "b"}, cgroup_parent="/machines/")
    assert found.annotations == {"a": "b"}
    assert found.linux.cgroups_path == f"/machines/{ID}"
    assert spec().linux.cgroups_path == f"/orlop/{ID}"


MODES = st.sampled_from(["", "host", "private", "none", "shareable", "container:x", "ns:/x", "bogus"])


@given(ipc=MODES, pid=MODES, uts=MODES, userns=MODES, cgroup_namespace=MODES, time=MODES)
def test_every_mode_is_a_namespace_or_an_error(**modes):
    try:
        found = types(**modes)
    except OrlopError:
        return
    assert found == OWN - namespaces.shared_with_host(ContainerRequest(image="i", **modes))
