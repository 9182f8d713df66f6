"""What a client asks for: the requests of the engine's verbs, as they cross the engine's socket.

Units are in the names. A request is strict: an unknown field is an error, not a silent nothing.
"""

from .health import Healthcheck
from .mount import MountRequest
from .network import EndpointRequest, PortRequest
from .record import Record

SECRET, CONFIG = "secret", "config"


class BindRequest(Record):
    """`-v [source:]target[:options]`. options as docker's (ro, rw, rprivate, z, nocopy ...), as=UID[:GID], idmap.

    source: an absolute path, a volume's name, or "" for a volume without a name.
    """

    strict = True
    source: str
    target: str
    options: tuple[str, ...] = ()


class TmpfsRequest(Record):
    """`--tmpfs target[:options]`. options as for mount(8)."""

    strict = True
    target: str
    options: tuple[str, ...] = ()


class GrantRequest(Record):
    """`--secret source[,target=,uid=,gid=,mode=]`: a secret or config as a file. source: its name or id.

    target: "" is /run/secrets/NAME for a secret and /NAME for a config; a relative one lies in /run/secrets or /.
    env: the variable that a secret is instead of a file, "" for a file.
    """

    strict = True
    source: str
    target: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0o444
    env: str = ""


class DataRequest(Record):
    """`orlop secret create`, `orlop config create`. data: base64. updates: it may be there, and gets a new version."""

    strict = True
    name: str
    data: str
    labels: dict[str, str] = {}
    updates: bool = False


class DataRecord(Record):
    """record.json of a secret or config. The data lies beside it. id: 64 hexadecimal digits."""

    id: str
    name: str
    created_at: str
    labels: dict[str, str] = {}
    version: int = 1
    updated_at: str = ""


class UlimitRequest(Record):
    """`--ulimit name=soft:hard`. name without RLIMIT_, in lower case; -1 is unlimited."""

    strict = True
    name: str
    soft: int
    hard: int


class DeviceRequest(Record):
    """`--device source[:target[:permissions]]`. permissions: of r, w and m.

    A source that is no path is the name of a CDI device, vendor/class=name; the rest then says nothing.
    """

    strict = True
    source: str
    target: str = ""
    permissions: str = "rwm"

    @property
    def is_named(self) -> bool:
        """Whether it is a CDI device."""
        return "=" in self.source and not self.source.startswith("/")


class DeviceRate(Record):
    """`--device-read-bps path:rate` and its like: bytes or operations a second."""

    strict = True
    path: str
    rate: int


class DeviceWeight(Record):
    """`--blkio-weight-device path:weight`."""

    strict = True
    path: str
    weight: int


class ContainerRequest(Record):
    """`orlop run` and `create`. Exactly one of image and rootfs is set.

    image: a reference; rootfs: an absolute host directory used in place as the root file system (podman's --rootfs).
    entrypoint, args: None means the image's; entrypoint ("",) clears it.
    env: "NAME=value", or "NAME" to unset the image's.
    user, working_dir, hostname: "" means the image's or the default.
    memory_bytes, cpu_nanos (1e9 is one processor), pids_max: 0 means no limit; pids_max None is the engine's default.
    memory_swap_bytes: memory plus swap as in docker; 0 twice the memory, -1 unlimited.
    cap_add, cap_drop: names with or without CAP_, or ALL.
    security_opt: docker's strings ("seccomp=unconfined", "no-new-privileges", "systempaths=unconfined").
    network: "" is the default bridge; "none", "host", "container:NAME", "ns:PATH", or a network. endpoints: the places
    in networks, the first of them in `network`; none is one without wishes. publish_all: every exposed port (-P).
    unplugged: it has left its last network, and may be put into another one; `network` is "none" meanwhile.
    egress: "" or "allow", "deny" but for egress_allow ("api.example.org:443", "*.example.org", "10.0.0.0/8:5432/tcp").
    host_access: "PORT[-PORT][/PROTO]" of the machine's loopback that it reaches at the gateway's address.
    dns, dns_search, dns_options: for resolv.conf. extra_hosts: "name:address". links: "container:alias".
    restart_policy: "no" ("" too), "on-failure", "always" or "unless-stopped"; retries_max 0 is no limit.
    depends_on: "container" or "container:condition", see engine.supervision.dependencies.
    health: what it leaves open is the image's; its test may also be ("HTTP", ":80/path") or ("TCP", ":80").
    health_on_failure: "none", "kill", "restart", "stop" or "exec:COMMAND".
    timeout_s: how long each run may last, until it is killed; 0 for as long as it likes.
    umask: of the process, None is 0022. remove_image: with auto_remove, the name of the image goes with the container.
    init: a process 1 of ours that reaps and forwards signals.
    volumes_from: "container" or "container:ro". volume_driver: of the volumes that binds makes. storage_opt: "size".
    log_driver, log_options: docker's, "" is json-file (compile.logging).
    attach: of stdin, stdout and stderr, those that a client held when it was made; only shown.
    exposed_ports: "80/tcp". platform: "linux/arm64". runtime, isolation: "" or what docker calls the default.
    ipc, pid, uts, cgroup_namespace, time: "" or "private", "host", "container:NAME", "ns:PATH"; ipc also
    "shareable", "none"; time also "private,boottime=SECONDS,monotonic=SECONDS". userns: see engine.userns.modes.
    cgroup_parent: an absolute cgroup path, "" the engine's own.
    device_cgroup_rules: as the kernel's devices.allow ("c 42:* rmw"). shm_bytes: 0 is docker's 64 MiB.
    Limits are docker's: 0 and "" are none, memory_swappiness None is the machine's.
    """

    strict = True
    image: str = ""
    rootfs: str = ""
    name: str = ""
    entrypoint: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    user: str = ""
    group_add: tuple[str, ...] = ()
    working_dir: str = ""
    hostname: str = ""
    labels: dict[str, str] = {}
    terminal: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    auto_remove: bool = False
    remove_image: bool = False
    binds: tuple[BindRequest, ...] = ()
    tmpfs: tuple[TmpfsRequest, ...] = ()
    mounts: tuple[MountRequest, ...] = ()
    secrets: tuple[GrantRequest, ...] = ()
    configs: tuple[GrantRequest, ...] = ()
    volumes_from: tuple[str, ...] = ()
    volume_driver: str = ""
    storage_opt: dict[str, str] = {}
    read_only: bool = False
    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    cpu_nanos: int = 0
    pids_max: int | None = None
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_opt: tuple[str, ...] = ()
    network: str = ""
    endpoints: tuple[EndpointRequest, ...] = ()
    ports: tuple[PortRequest, ...] = ()
    publish_all: bool = False
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    unplugged: bool = False
    egress: str = ""
    egress_allow: tuple[str, ...] = ()
    host_access: tuple[str, ...] = ()
    stop_signal: str = ""
    stop_timeout_s: int | None = None
    timeout_s: int = 0
    restart_policy: str = ""
    restart_retries_max: int = 0
    depends_on: tuple[str, ...] = ()
    health: Healthcheck | None = None
    health_on_failure: str = "none"
    init: bool = False
    domainname: str = ""
    annotations: dict[str, str] = {}
    log_driver: str = ""
    log_options: dict[str, str] = {}
    attach: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    platform: str = ""
    runtime: str = ""
    isolation: str = ""
    devices: tuple[DeviceRequest, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    ipc: str = ""
    pid: str = ""
    uts: str = ""
    userns: str = ""
    cgroup_namespace: str = ""
    time: str = ""
    cgroup_parent: str = ""
    shm_bytes: int = 0
    sysctls: dict[str, str] = {}
    ulimits: tuple[UlimitRequest, ...] = ()
    umask: int | None = None
    oom_kill_disable: bool = False
    oom_score_adj: int = 0
    memory_reservation_bytes: int = 0
    memory_swappiness: int | None = None
    kernel_memory_bytes: int = 0
    cpu_shares: int = 0
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpu_realtime_period_us: int = 0
    cpu_realtime_runtime_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    blkio_weight: int = 0
    blkio_weight_devices: tuple[DeviceWeight, ...] = ()
    device_read_bps: tuple[DeviceRate, ...] = ()
    device_write_bps: tuple[DeviceRate, ...] = ()
    device_read_iops: tuple[DeviceRate, ...] = ()
    device_write_iops: tuple[DeviceRate, ...] = ()


class UpdateRequest(Record):
    """`orlop update`: the fields of a ContainerRequest that it changes; None leaves a field as it is.

    As in docker, 0 and "" leave a limit as it is too; pids_max 0 takes the limit away.
    """

    strict = True
    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None
    memory_reservation_bytes: int | None = None
    cpu_nanos: int | None = None
    cpu_shares: int | None = None
    cpu_period_us: int | None = None
    cpu_quota_us: int | None = None
    cpu_realtime_period_us: int | None = None
    cpu_realtime_runtime_us: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    blkio_weight: int | None = None
    pids_max: int | None = None
    restart_policy: str | None = None
    restart_retries_max: int | None = None


class ExecRequest(Record):
    """`orlop exec`. args is the command; "" as user or working_dir means the container's.

    ends_with_client: all that it started is killed when the client that is attached from the start dies.
    """

    strict = True
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    terminal: bool = False
    open_stdin: bool = False
    privileged: bool = False
    ends_with_client: bool = False


class CommitRequest(Record):
    """`orlop commit`. name: "" makes an image without one. changes: Dockerfile instructions.

    config: docker's Config, what goes over the container's own; the changes then alter this one, {}: the container's.
    pause: freeze the container while its layer is read.
    """

    strict = True
    container: str
    name: str = ""
    author: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    config: dict[str, object] = {}
    pause: bool = True
