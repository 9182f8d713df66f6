"""`linux.resources` as JSON in, what is written on v1, on hybrid and on pure v2 out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.linux.cgroup import Layout
from orlop.runtime.resources import SHARES_MAX, SHARES_MIN, io_weight, settings, weight_of_shares
from orlop.spec.errors import Invalid, OrlopError, Unsupported
from orlop.spec.runtime import Resources

MIB = 1024 * 1024
_V1 = "blkio cpu cpuacct cpuset devices freezer hugetlb memory net_cls net_prio pids rdma".split()
LAYOUTS = {
    "v1": Layout("v1", {name: f"/cg/{name}" for name in _V1}),
    # As our own machines: most controllers on v1, the rest on v2.
    "hybrid": Layout(
        "hybrid", {name: f"/cg/{name}" for name in _V1 if name != "hugetlb"}, "/u", frozenset(["hugetlb"])
    ),
    "unified": Layout("unified", {}, "/cg", frozenset("cpu cpuset hugetlb io memory pids rdma".split())),
}

# name: (resources, what v1 and hybrid write, what v2 writes); a text instead of a list is the field of the error.
GOLDEN: dict[str, tuple[dict[str, Any], list[str] | str, list[str] | str]] = {
    "nothing": ({}, [], []),
    "empty parts": ({"memory": {}, "cpu": {}, "blockIO": {}, "network": {}}, [], []),
    "memory": (
        {"memory": {"limit": 64 * MIB}},
        ["write 67108864 to memory.limit_in_bytes"],
        ["write 67108864 to memory.max"],
    ),
    "memory and swap": (
        {"memory": {"limit": 64 * MIB, "swap": 96 * MIB}},
        ["write 67108864 to memory.limit_in_bytes", "write 100663296 to memory.memsw.limit_in_bytes"],
        ["write 33554432 to memory.swap.max", "write 67108864 to memory.max"],
    ),
    "no swap": (
        {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}},
        ["write 67108864 to memory.limit_in_bytes", "write 67108864 to memory.memsw.limit_in_bytes"],
        ["write 0 to memory.swap.max, if there is such a file", "write 67108864 to memory.max"],
    ),
    "any swap": (
        {"memory": {"limit": 64 * MIB, "swap": -1}},
        ["write 67108864 to memory.limit_in_bytes", "write -1 to memory.memsw.limit_in_bytes"],
        ["write max to memory.swap.max, if there is such a file", "write 67108864 to memory.max"],
    ),
    "any memory": (
        {"memory": {"limit": -1}},
        ["write -1 to memory.limit_in_bytes", "write -1 to memory.memsw.limit_in_bytes, if there is such a file"],
        ["write max to memory.swap.max, if there is such a file", "write max to memory.max"],
    ),
    "swap without memory": (
        {"memory": {"swap": 64 * MIB}},
        ["write 67108864 to memory.memsw.limit_in_bytes"],
        "memory.swap",
    ),
    "swap less than memory": ({"memory": {"limit": 64 * MIB, "swap": 32 * MIB}}, "memory.swap", "memory.swap"),
    "negative memory": ({"memory": {"limit": -2}}, "memory.limit", "memory.limit"),
    "reservation": (
        {"memory": {"reservation": 32 * MIB}},
        ["write 33554432 to memory.soft_limit_in_bytes"],
        ["write 33554432 to memory.low"],
    ),
    "kernel memory": ({"memory": {"kernel": MIB}}, "memory.kernel", "memory.kernel"),
    "any kernel memory": ({"memory": {"kernel": -1}}, [], []),
    "TCP buffers": (
        {"memory": {"kernelTCP": MIB}},
        ["write 1048576 to memory.kmem.tcp.limit_in_bytes"],
        "memory.kernelTCP",
    ),
    "swappiness": ({"memory": {"swappiness": 0}}, ["write 0 to memory.swappiness"], "memory.swappiness"),
    "no OOM killer": (
        {"memory": {"disableOOMKiller": True}},
        ["write 1 to memory.oom_control"],
        "memory.disableOOMKiller",
    ),
    "with the OOM killer": ({"memory": {"disableOOMKiller": False}}, [], []),
    "hierarchy": ({"memory": {"useHierarchy": True}}, [], []),
    "no hierarchy": ({"memory": {"useHierarchy": False}}, "memory.useHierarchy", "memory.useHierarchy"),
    "memory checked first": (
        {"memory": {"limit": 64 * MIB, "checkBeforeUpdate": True}},
        ["write 67108864 to memory.limit_in_bytes"],
        ["read memory.current: at most 67108864", "write 67108864 to memory.max"],
    ),
    "shares": ({"cpu": {"shares": 1024}}, ["write 1024 to cpu.shares"], ["write 100 to cpu.weight"]),
    "too many shares": ({"cpu": {"shares": 300_000}}, "cpu.shares", ["write 10000 to cpu.weight"]),
    "negative shares": ({"cpu": {"shares": -5}}, "cpu.shares", "cpu.shares"),
    "quota": ({"cpu": {"quota": 50_000}}, ["write 50000 to cpu.cfs_quota_us"], ["write 50000 100000 to cpu.max"]),
    "quota and period": (
        {"cpu": {"quota": 5_000, "period": 20_000}},
        ["write 20000 to cpu.cfs_period_us", "write 5000 to cpu.cfs_quota_us"],
        ["write 5000 20000 to cpu.max"],
    ),
    "any quota": ({"cpu": {"quota": -1}}, ["write -1 to cpu.cfs_quota_us"], ["write max 100000 to cpu.max"]),
    "period": ({"cpu": {"period": 20_000}}, ["write 20000 to cpu.cfs_period_us"], ["write max 20000 to cpu.max"]),
    "burst": (
        {"cpu": {"quota": 50_000, "burst": 10_000}},
        ["write 50000 to cpu.cfs_quota_us", "write 10000 to cpu.cfs_burst_us"],
        ["write 50000 100000 to cpu.max", "write 10000 to cpu.max.burst"],
    ),
    "no burst": ({"cpu": {"burst": 0}}, ["write 0 to cpu.cfs_burst_us"], ["write 0 to cpu.max.burst"]),
    "idle": ({"cpu": {"idle": 1}}, ["write 1 to cpu.idle"], ["write 1 to cpu.idle"]),
    "realtime": (
        {"cpu": {"realtimePeriod": 1_000_000, "realtimeRuntime": 1_000}},
        ["write 1000000 to cpu.rt_period_us", "write 1000 to cpu.rt_runtime_us"],
        "cpu.realtimePeriod",
    ),
    "realtime runtime": ({"cpu": {"realtimeRuntime": 9}}, ["write 9 to cpu.rt_runtime_us"], "cpu.realtimeRuntime"),
    "cpuset": (
        {"cpu": {"cpus": "0-1", "mems": "0"}},
        ["write 0-1 to cpuset.cpus", "write 0 to cpuset.mems"],
        ["write 0-1 to cpuset.cpus", "write 0 to cpuset.mems"],
    ),
    "zeros": (
        {"memory": {"limit": 0, "swap": 0, "reservation": 0}, "cpu": {"shares": 0, "quota": 0}, "pids": {"limit": 0}},
        [],
        [],
    ),
    "pids": ({"pids": {"limit": 17}}, ["write 17 to pids.max"], ["write 17 to pids.max"]),
    "any pids": ({"pids": {"limit": -1}}, ["write max to pids.max"], ["write max to pids.max"]),
    "weight": (
        {"blockIO": {"weight": 500}},
        ["write 500 to blkio.bfq.weight, or write 500 to blkio.weight"],
        ["write 500 to io.bfq.weight, or write 4950 to io.weight"],
    ),
    "weight of a device": (
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 16, "weight": 10}]}},
        ["write 8:16 10 to blkio.bfq.weight_device, or write 8:16 10 to blkio.weight_device"],
        ["write 8:16 10 to io.bfq.weight, or write 8:16 1 to io.weight"],
    ),
    "weight out of range": ({"blockIO": {"weight": 9}}, "blockIO.weight", "blockIO.weight"),
    "leaf weight": ({"blockIO": {"leafWeight": 10}}, "blockIO.leafWeight", "blockIO.leafWeight"),
    "leaf weight of a device": (
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 10}]}},
        "blockIO.weightDevice",
        "blockIO.weightDevice",
    ),
    "throttles": (
        {
            "blockIO": {
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 16, "rate": 2}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 3}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 4}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
            }
        },
        [
            "write 8:0 1 to blkio.throttle.read_bps_device",
            "write 8:16 2 to blkio.throttle.read_bps_device",
            "write 8:0 3 to blkio.throttle.write_bps_device",
            "write 8:0 4 to blkio.throttle.read_iops_device",
            "write 8:0 0 to blkio.throttle.write_iops_device",
        ],
        [
            "write 8:0 rbps=1 to io.max",
            "write 8:16 rbps=2 to io.max",
            "write 8:0 wbps=3 to io.max",
            "write 8:0 riops=4 to io.max",
            "write 8:0 wiops=max to io.max",
        ],
    ),
    "network class": ({"network": {"classID": 7}}, ["write 7 to net_cls.classid"], "network.classID"),
    "network priority": (
        {"network": {"priorities": [{"name": "eth0", "priority": 5}]}},
        ["write eth0 5 to net_prio.ifpriomap"],
        "network.priorities",
    ),
    "rdma": (
        {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}, "mlx4_0": {"hcaObjects": 1}, "none": {}}},
        ["write mlx5_1 hca_handle=3 hca_object=10 to rdma.max", "write mlx4_0 hca_object=1 to rdma.max"],
        ["write mlx5_1 hca_handle=3 hca_object=10 to rdma.max", "write mlx4_0 hca_object=1 to rdma.max"],
    ),
    "unified": (
        {"unified": {"memory.high": "1000000", "io.max": "8:0 rbps=1\n8:16 rbps=2", "cgroup.max.depth": "3"}},
        "unified",
        [
            "write 1000000 to memory.high",
            "write 8:0 rbps=1 to io.max",
            "write 8:16 rbps=2 to io.max",
            "write 3 to cgroup.max.depth",
        ],
    ),
    "unified, out of the cgroup": ({"unified": {"../memory.max": "1"}}, "unified", "unified"),
    "unified, in another cgroup": ({"unified": {"memory.x/../memory.max": "1"}}, "unified", "unified"),
    "unified, a process": ({"unified": {"cgroup.procs": "1"}}, "unified", "unified"),
    "unified, the killer": ({"unified": {"cgroup.kill": "1"}}, "unified", "unified"),
    "unified, a controller that is nowhere": ({"unified": {"nonesuch.max": "1"}}, "unified", "unified"),
    "unified, devices": ({"unified": {"devices.allow": "a"}}, "unified", "unified"),
}


def calls(resources: dict[str, Any], layout: str) -> list[str] | str:
    """Return what would be written, or the field that an error names."""
    try:
        steps = settings(Resources.from_json(resources), LAYOUTS[layout], devices=False)
    except OrlopError as error:
        assert isinstance(error, Invalid | Unsupported)
        assert error.verb == "apply"
        assert error.cause
        assert error.hint
        return error.subject.removeprefix("linux.resources.")
    return [step.call() for step in steps]


@pytest.mark.parametrize("name", GOLDEN)
def test_what_is_written_on_v1(name: str) -> None:
    resources, expected, _ = GOLDEN[name]
    assert calls(resources, "v1") == expected


@pytest.mark.parametrize("name", GOLDEN)
def test_what_is_written_on_hybrid(name: str) -> None:
    resources, expected, _ = GOLDEN[name]
    assert calls(resources, "hybrid") == expected


@pytest.mark.parametrize("name", GOLDEN)
def test_what_is_written_on_v2(name: str) -> None:
    resources, _, expected = GOLDEN[name]
    assert calls(resources, "unified") == expected


def test_huge_pages_where_their_controller_is() -> None:
    resources = {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}, {"pageSize": "1GB", "limit": 0}]}
    v2 = [
        "write 4194304 to hugetlb.2MB.max",
        "write 4194304 to hugetlb.2MB.rsvd.max",
        "write 0 to hugetlb.1GB.max",
        "write 0 to hugetlb.1GB.rsvd.max",
    ]
    assert calls(resources, "hybrid") == calls(resources, "unified") == v2
    assert calls(resources, "v1") == [line.replace("max", "limit_in_bytes") for line in v2]


@pytest.mark.parametrize("size", ["", "MB", "2M", "2mb", "../../x MB", "2/MB", "-2MB", "2.5MB", "\u0662MB"])
def test_a_huge_page_size_is_no_path(size: str) -> None:
    assert calls({"hugepageLimits": [{"pageSize": size, "limit": 1}]}, "v1") == "hugepageLimits.pageSize"


def test_a_v2_file_on_hybrid_where_its_controller_is_v2() -> None:
    assert calls({"unified": {"hugetlb.2MB.max": "0"}}, "hybrid") == ["write 0 to hugetlb.2MB.max"]


@pytest.mark.parametrize(
    "resources",
    [
        {"memory": {"limit": MIB}},
        {"cpu": {"shares": 2}},
        {"cpu": {"cpus": "0"}},
        {"pids": {"limit": 1}},
        {"blockIO": {"weight": 10}},
        {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]}},
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]},
        {"network": {"classID": 1}},
        {"rdma": {"mlx5_1": {"hcaHandles": 3}}},
        {"devices": [{"allow": False}]},
    ],
    ids=str,
)
def test_a_limit_without_its_controller_is_refused_by_name(resources: dict[str, Any]) -> None:
    (part,) = resources
    with pytest.raises(Unsupported) as caught:
        settings(Resources.from_json(resources), Layout("none"), devices=part == "devices")
    assert caught.value.subject.startswith(f"linux.resources.{part}")
    assert caught.value.hint


def test_devices_are_denied_but_for_the_default_ones() -> None:
    steps = settings(None, LAYOUTS["hybrid"])
    assert [step.call() for step in steps][:3] == [
        "write a to devices.deny",
        "write b *:* m to devices.allow",
        "write c 1:3 rwm to devices.allow",
    ]
    (filter_,) = settings(None, LAYOUTS["unified"])
    allowed = "c 1:3 rwm, c 1:5 rwm, c 1:7 rwm, c 1:8 rwm, c 1:9 rwm, c 136:* rwm, c 5:0 rwm, c 5:2 rwm, c *:* m"
    assert filter_.describe() == f"deny all devices, allow b *:* m, {allowed}"


def test_a_device_rule_that_no_kernel_can_hold_is_invalid() -> None:
    resources = Resources.from_json({"devices": [{"allow": True, "type": "c", "major": 1, "access": "x"}]})
    with pytest.raises(Invalid, match=r"linux\.resources\.devices: device rule allow c 1:\* x: its access"):
        settings(resources, LAYOUTS["v1"])


def test_shares_keep_their_least_usual_and_greatest_value() -> None:
    assert [weight_of_shares(shares) for shares in (2, 1024, 262144)] == [1, 100, 10000]


@given(st.integers(SHARES_MIN, SHARES_MAX - 1))
def test_more_shares_are_never_less_weight(shares: int) -> None:
    assert 1 <= weight_of_shares(shares) <= weight_of_shares(shares + 1) <= 10000


@given(st.integers(10, 999))
def test_more_io_weight_is_never_less(weight: int) -> None:
    assert 1 <= io_weight(weight) < io_weight(weight + 1) <= 10000


_SIZES = st.one_of(st.none(), st.integers(-(2**63), 2**64 - 1))
_FILES = st.dictionaries(st.text(max_size=30), st.text(max_size=30), max_size=3)


@given(
    st.sampled_from(sorted(LAYOUTS)),
    st.fixed_dictionaries({"limit": _SIZES, "swap": _SIZES, "reservation": _SIZES, "kernelTCP": _SIZES}),
    st.fixed_dictionaries({"shares": _SIZES, "quota": _SIZES, "period": _SIZES, "burst": _SIZES}),
    _FILES,
)
def test_hostile_values_become_steps_or_errors_that_name_a_field(
    layout: str, memory: dict[str, Any], cpu: dict[str, Any], unified: dict[str, str]
) -> None:
    unified = {name.replace("\0", ""): value.replace("\0", "") for name, value in unified.items()}
    found = calls({"memory": memory, "cpu": cpu, "unified": unified}, layout)
    if isinstance(found, list):
        assert all("/" not in call.rpartition(" to ")[2].split(",")[0] for call in found)
