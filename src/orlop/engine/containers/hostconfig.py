"""HostConfig of a container: how it is bound to the machine, as docker's API shows it (1.50). Pure.

What a request did not ask for has docker's value for "not set", which is not the same everywhere: [] here, null there.
"""

from __future__ import annotations

from ...spec.task import LogOptions
from ..volumes import objects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...spec.container import ContainerRequest, DeviceRate
    from ...spec.runtime import Mount, Spec
    from .record import ContainerRecord

# Of Windows, of Swarm, or of what the networks fill in (networks.listing).
_ABSENT: dict[str, object] = {
    "Cgroup": "",
    "ConsoleSize": [0, 0],
    "ContainerIDFile": "",
    "CpuCount": 0,
    "CpuPercent": 0,
    "DeviceRequests": None,
    "Dns": [],
    "DnsOptions": [],
    "DnsSearch": [],
    "ExtraHosts": None,
    "IOMaximumBandwidth": 0,
    "IOMaximumIOps": 0,
    "Links": None,
    "PortBindings": {},
    "PublishAllPorts": False,
}


def host_config(record: ContainerRecord, spec: Spec) -> dict[str, object]:
    """Return the object. spec: what the request was compiled to."""
    request = record.request
    return {
        **_ABSENT,
        **objects.host_config(request),
        **_limits(request, spec),
        **_devices(request),
        "LogConfig": _log_config(request),
        "NetworkMode": request.network or "none",
        "AutoRemove": request.auto_remove,
        **({"Init": True} if request.init else {}),
        "RestartPolicy": {"Name": request.restart_policy or "no", "MaximumRetryCount": request.restart_retries_max},
        "CapAdd": _capabilities(request.cap_add),
        "CapDrop": _capabilities(request.cap_drop),
        "GroupAdd": list(request.group_add) or None,
        "Privileged": request.privileged,
        "ReadonlyRootfs": request.read_only,
        "SecurityOpt": list(request.security_opt) or None,
        "Runtime": "orlop",
        "Isolation": request.isolation,
        "IpcMode": record.told(request.ipc) or "private",
        "PidMode": "" if request.pid == "private" else record.told(request.pid),
        "UTSMode": "" if request.uts == "private" else record.told(request.uts),
        "UsernsMode": request.userns,
        "CgroupnsMode": request.cgroup_namespace or "private",
        "CgroupParent": request.cgroup_parent,
        "ShmSize": _shm_size(spec.mounts),
        "MaskedPaths": None if request.privileged else list(spec.linux.masked_paths),
        "ReadonlyPaths": None if request.privileged else list(spec.linux.readonly_paths),
        **({"Sysctls": dict(request.sysctls)} if request.sysctls else {}),
        **({"Annotations": dict(request.annotations)} if request.annotations else {}),
    }


def _capabilities(names: Iterable[str]) -> list[str] | None:
    """Return docker's spelling: upper case, with CAP_, but for ALL."""
    upper = [name.upper() for name in names]
    return [name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}" for name in upper] or None


def _limits(request: ContainerRequest, spec: Spec) -> dict[str, object]:
    resources = spec.linux.resources
    memory = resources.memory if resources else None
    pids = resources.pids if resources else None
    return {
        "Memory": request.memory_bytes,
        "MemoryReservation": request.memory_reservation_bytes,
        "MemorySwap": (memory.swap or 0) if memory else 0,
        "MemorySwappiness": request.memory_swappiness,
        "OomKillDisable": request.oom_kill_disable,
        "OomScoreAdj": request.oom_score_adj,
        "NanoCpus": request.cpu_nanos,
        "CpuShares": request.cpu_shares,
        "CpuPeriod": request.cpu_period_us,
        "CpuQuota": request.cpu_quota_us,
        "CpuRealtimePeriod": request.cpu_realtime_period_us,
        "CpuRealtimeRuntime": request.cpu_realtime_runtime_us,
        "CpusetCpus": request.cpuset_cpus,
        "CpusetMems": request.cpuset_mems,
        "PidsLimit": pids.limit if pids else 0,
        "Ulimits": [
            {"Name": limit.name, "Hard": limit.hard, "Soft": limit.soft}
            for _, limit in sorted({limit.name: limit for limit in request.ulimits}.items())
        ],
    }


def _devices(request: ContainerRequest) -> dict[str, object]:
    return {
        "BlkioWeight": request.blkio_weight,
        "BlkioWeightDevice": [{"Path": entry.path, "Weight": entry.weight} for entry in request.blkio_weight_devices],
        "BlkioDeviceReadBps": _rates(request.device_read_bps),
        "BlkioDeviceReadIOps": _rates(request.device_read_iops),
        "BlkioDeviceWriteBps": _rates(request.device_write_bps),
        "BlkioDeviceWriteIOps": _rates(request.device_write_iops),
        "Devices": [
            {
                "PathOnHost": entry.source,
                "PathInContainer": entry.target,
                "CgroupPermissions": entry.permissions,
            }
            for entry in request.devices
            if not entry.is_named
        ],
        "DeviceRequests": _device_requests(request),
        "DeviceCgroupRules": list(request.device_cgroup_rules) or None,
    }


def _device_requests(request: ContainerRequest) -> list[dict[str, object]] | None:
    names = [entry.source for entry in request.devices if entry.is_named]
    if not names:
        return None
    return [{"Driver": "cdi", "Count": 0, "DeviceIDs": names, "Capabilities": None, "Options": None}]


def _rates(entries: Iterable[DeviceRate]) -> list[dict[str, object]]:
    return [{"Path": entry.path, "Rate": entry.rate} for entry in entries]


def _log_config(request: ContainerRequest) -> dict[str, object]:
    log = LogOptions()
    options = dict(request.log_options)
    if not request.log_driver or request.log_driver == log.driver:  # capped, whatever was asked for
        options = {"max-file": str(log.max_files), "max-size": str(log.max_size_bytes)} | options
    return {"Type": request.log_driver or log.driver, "Config": options}


def _shm_size(mounts: tuple[Mount, ...]) -> int:
    for mount in mounts:
        if mount.destination == "/dev/shm":
            for option in mount.options:
                if option.startswith("size=") and option[5:].isdigit():
                    return int(option[5:])
    return 0
