"""The OCI runtime specification 1.2 (and the 1.3 fields for Linux) as records: config.json and the state document.

Field names are the specification's, in snake_case; units are its units (bytes, microseconds, seconds).
Unknown properties are ignored, as the specification demands. Nothing here knows what a kernel can do.
Source: https://github.com/opencontainers/runtime-spec, config.md, config-linux.md, runtime.md.
"""

from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_VERSION = "1.2.1"


class Root(Record):
    path: str
    readonly: bool = False


class IdMapping(Record):
    container_id: int
    host_id: int
    size: int
    json_names = {"container_id": "containerID", "host_id": "hostID"}


class Mount(Record):
    """One mount. options are strings as for mount(8); a bind mount has "bind" or "rbind" among them."""

    destination: str = ""
    source: str = ""
    type: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


class Box(Record):
    height: int = 0
    width: int = 0


class User(Record):
    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()


class Rlimit(Record):
    """type is the kernel's name ("RLIMIT_NOFILE")."""

    type: str
    soft: int
    hard: int


class Capabilities(Record):
    """Names with their prefix ("CAP_CHOWN")."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Scheduler(Record):
    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class IoPriority(Record):
    io_class: str
    priority: int = 0
    json_names = {"io_class": "class"}


class CpuAffinity(Record):
    initial: str = ""
    final: str = ""


class Process(Record):
    """What to execute and as whom. args is required for a start; create accepts its absence."""

    cwd: str
    terminal: bool = False
    console_size: Box | None = None
    env: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    user: User = User()
    rlimits: tuple[Rlimit, ...] = ()
    capabilities: Capabilities | None = None
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    selinux_label: str = ""
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    io_priority: IoPriority | None = None
    exec_cpu_affinity: CpuAffinity | None = None
    json_names = {"exec_cpu_affinity": "execCPUAffinity"}


class Hook(Record):
    """timeout in seconds."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class Hooks(Record):
    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


class Namespace(Record):
    """type is one of pid network mount ipc uts user cgroup time; path "" makes a new one."""

    type: str
    path: str = ""


class Device(Record):
    """A device node. type is c, b, u or p; file_mode has permission bits only."""

    type: str
    path: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class NetDevice(Record):
    name: str = ""


class DeviceRule(Record):
    """A device cgroup rule. None as major or minor means all; access is a subset of "rwm"."""

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"

    def to_json(self) -> dict[str, object]:
        """As usual, but with the access: runc refuses a rule without it."""
        return {**super().to_json(), "access": self.access}


class Memory(Record):
    """Bytes; -1 means no limit. swap is memory plus swap, as in cgroup v1."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool | None = None
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None
    json_names = {"kernel_tcp": "kernelTCP", "disable_oom_killer": "disableOOMKiller"}


class Cpu(Record):
    """quota, period and burst in microseconds; shares as in cgroup v1 (2 to 262144)."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""
    idle: int | None = None


class Pids(Record):
    limit: int


class WeightDevice(Record):
    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(Record):
    """rate in bytes or operations a second."""

    major: int
    minor: int
    rate: int


class BlockIo(Record):
    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = ()
    json_names = {
        "throttle_read_iops_device": "throttleReadIOPSDevice",
        "throttle_write_iops_device": "throttleWriteIOPSDevice",
    }


class HugepageLimit(Record):
    """page_size as in the file's name ("2MB"); limit in bytes."""

    page_size: str
    limit: int


class InterfacePriority(Record):
    name: str
    priority: int


class NetworkResources(Record):
    class_id: int | None = None
    priorities: tuple[InterfacePriority, ...] = ()
    json_names = {"class_id": "classID"}


class Rdma(Record):
    hca_handles: int | None = None
    hca_objects: int | None = None


class Resources(Record):
    devices: tuple[DeviceRule, ...] = ()
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIo | None = None
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    network: NetworkResources | None = None
    rdma: dict[str, Rdma] = {}
    unified: dict[str, str] = {}
    json_names = {"block_io": "blockIO"}


class SyscallArg(Record):
    index: int
    value: int
    op: str
    value_two: int = 0


class Syscall(Record):
    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[SyscallArg, ...] = ()


class Seccomp(Record):
    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[Syscall, ...] = ()

    def to_json(self) -> "dict[str, Any]":
        """As of any record; the last profile's is remembered, because most containers of an engine have the same."""
        global _profile
        found = _profile  # once: another thread may remember another one meanwhile
        if found is None or found[0] is not self:
            _profile = found = self, super().to_json()
        return dict(found[1])


_profile: "tuple[Seccomp, dict[str, Any]] | None" = None


class Personality(Record):
    domain: str
    flags: tuple[str, ...] = ()


class TimeOffset(Record):
    secs: int = 0
    nanosecs: int = 0


class IntelRdt(Record):
    clos_id: str = ""
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    schemata: tuple[str, ...] = ()
    enable_monitoring: bool = False
    json_names = {"clos_id": "closID"}


class MemoryPolicy(Record):
    mode: str
    nodes: str = ""
    flags: tuple[str, ...] = ()


class Linux(Record):
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    sysctl: dict[str, str] = {}
    resources: Resources | None = None
    cgroups_path: str = ""
    namespaces: tuple[Namespace, ...] = ()
    devices: tuple[Device, ...] = ()
    net_devices: dict[str, NetDevice] = {}
    seccomp: Seccomp | None = None
    rootfs_propagation: str = ""
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str = ""
    intel_rdt: IntelRdt | None = None
    personality: Personality | None = None
    time_offsets: dict[str, TimeOffset] = {}
    memory_policy: MemoryPolicy | None = None


class Spec(Record):
    """config.json of a bundle."""

    oci_version: str
    root: Root | None = None
    mounts: tuple[Mount, ...] = ()
    process: Process | None = None
    hostname: str = ""
    domainname: str = ""
    hooks: Hooks | None = None
    annotations: dict[str, str] = {}
    linux: Linux = Linux()


class State(Record):
    """The state document (runtime.md).

    status: creating, created, running, stopped; paused as in runc. pid 0 when stopped.
    """

    oci_version: str
    id: str
    status: str
    bundle: str
    pid: int = 0
    annotations: dict[str, str] = {}
