"""What a client asks for in limits, devices and namespaces: parts of ContainerRequest, and what `update` changes.

Units are in the names. A request is strict: an unknown field is an error, not a silent nothing.
"""

from .record import Record


class UlimitRequest(Record):
    """`--ulimit name=soft:hard`. name without RLIMIT_, in lower case; -1 is unlimited."""

    strict = True
    name: str
    soft: int
    hard: int


class DeviceRequest(Record):
    """`--device source[:target[:permissions]]`. permissions: of r, w and m."""

    strict = True
    source: str
    target: str
    permissions: str = "rwm"


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
