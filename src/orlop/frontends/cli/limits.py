"""The flags of run and create that bound a container and open it to the host: limits, devices, namespaces.

`fields` turns them into the fields of a ContainerRequest. What docker's client refuses is refused here, in its words;
what needs the machine or another container is the engine's to refuse.
"""

from __future__ import annotations

from ...spec.container import DeviceRate, DeviceRequest, DeviceWeight, UlimitRequest
from ...spec.errors import Invalid
from .flags import BOOL, INT, LIST, STRING, BadValue, Flag, Kind, Options, parse_bool, parse_int, quote
from .values import BYTES, parse_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WEIGHT_MIN, WEIGHT_MAX = 10, 1000
PORT_MAX = 65535
PORTS_MAX = 65536
ULIMITS = frozenset(
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)
# What of the kernel's settings is of a namespace, and so a container's own (sysctl(8), namespaces(7)).
SYSCTLS_IPC = frozenset(
    f"kernel.{name}" for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split()
)
SYSCTLS_UTS = frozenset(("kernel.domainname",))
_HINT_DEVICE = "write /dev/NAME, /dev/NAME:/dev/OTHER or /dev/NAME:/dev/OTHER:rw"
_HINT_RATE = "write /dev/sda:1mb, for instance"
_HINT_PORT = "write a port or a range, with a protocol if it is not tcp: 80, 8000-8010/udp"


def parse_device(text: str) -> DeviceRequest:
    """source[:target[:permissions]], source:permissions, or the name of a CDI device."""
    parts = text.split(":")
    if "=" in parts[0] and not parts[0].startswith("/"):
        return DeviceRequest(source=text)  # of the Container Device Interface
    if len(parts) > 3 or not parts[0]:
        raise BadValue(f"bad format for path: {text}", _HINT_DEVICE)
    source, target, permissions = parts[0], parts[0], "rwm"
    if len(parts) == 2 and _is_permissions(parts[1]):
        permissions = parts[1]
    elif len(parts) > 1:
        target = parts[1]
        permissions = parts[2] if len(parts) == 3 else permissions
    if not _is_permissions(permissions):
        raise BadValue(f"bad mode specified: {permissions}", _HINT_DEVICE)
    for path in (target, source):
        if not path.startswith("/"):
            raise BadValue(f"{path} is not an absolute path", _HINT_DEVICE)
    return DeviceRequest(source=source, target=target, permissions=permissions)


def _is_permissions(text: str) -> bool:
    return bool(text) and not set(text) - set("rwm") and len(set(text)) == len(text)


def parse_device_rule(text: str) -> str:
    """`c 42:* rmw`: type, major:minor with * for all, permissions."""
    words = text.split(" ")
    numbers = words[1].split(":") if len(words) == 3 else []
    is_right = (
        len(numbers) == 2
        and words[0] in ("a", "b", "c")
        and all(number == "*" or (number.isascii() and number.isdigit() and len(number) < 11) for number in numbers)
        and 1 <= len(words[2]) <= 3
        and not set(words[2]) - set("rwm")
    )
    if not is_right:
        raise BadValue(f"invalid device cgroup format '{text}'", "write c 42:* rmw, for instance")
    return text


def parse_rate_bytes(text: str) -> DeviceRate:
    """/dev/NAME:rate, the rate with a unit or without."""
    path, rate = _device_and_value(text)
    try:
        return DeviceRate(path=path, rate=parse_bytes(rate))
    except BadValue:
        cause = (
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. "
            "Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )
        raise BadValue(cause, _HINT_RATE) from None


def parse_rate_operations(text: str) -> DeviceRate:
    """/dev/NAME:number."""
    path, rate = _device_and_value(text)
    if not (rate.isascii() and rate.isdigit() and len(rate) < 19):
        cause = (
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        )
        raise BadValue(cause, "write /dev/sda:1000, for instance")
    return DeviceRate(path=path, rate=int(rate))


def parse_device_weight(text: str) -> DeviceWeight:
    """/dev/NAME:weight, 10 to 1000, or 0 for none."""
    path, weight = _device_and_value(text)
    number = int(weight) if weight.isascii() and weight.isdigit() and len(weight) < 6 else -1
    if number and not WEIGHT_MIN <= number <= WEIGHT_MAX:
        raise BadValue(f"invalid weight for device: {text}", f"give a weight from {WEIGHT_MIN} to {WEIGHT_MAX}")
    return DeviceWeight(path=path, weight=number)


def _device_and_value(text: str) -> tuple[str, str]:
    path, colon, value = text.partition(":")
    if not colon or not path or not value:
        raise BadValue(f"bad format: {text}", _HINT_RATE)
    if not path.startswith("/dev/"):
        raise BadValue(f"bad format for device path: {text}", _HINT_RATE)
    return path, value


def parse_ulimit(text: str) -> UlimitRequest:
    """name=soft[:hard]; -1 is unlimited."""
    name, equals, value = text.partition("=")
    if not equals:
        raise BadValue(f"invalid ulimit argument: {text}", "write nofile=1024:2048, for instance")
    if name not in ULIMITS:
        raise BadValue(f"invalid ulimit type: {name}", f"known are {', '.join(sorted(ULIMITS))}")
    limits = value.split(":")
    if len(limits) > 2:
        cause = f"too many limit value arguments - {value}, can only have up to two, `soft[:hard]`"
        raise BadValue(cause, "write nofile=1024:2048, for instance")
    soft = parse_int(limits[0])
    hard = parse_int(limits[-1])
    if min(soft, hard) < -1:
        raise BadValue(f"invalid ulimit argument: {text}", "-1 is unlimited, and nothing is below it")
    if hard != -1 and (soft == -1 or soft > hard):
        shown = "unlimited" if soft == -1 else soft
        cause = f"ulimit soft limit must be less than or equal to hard limit: {shown} > {hard}"
        raise BadValue(cause, "raise the hard limit, the second number")
    return UlimitRequest(name=name, soft=soft, hard=hard)


def parse_sysctl(text: str) -> tuple[str, str]:
    """NAME=value, of the settings that are a container's own."""
    name, equals, value = text.partition("=")
    own = name in SYSCTLS_IPC or name in SYSCTLS_UTS or name.startswith(("net.", "fs.mqueue."))
    if not equals or not own or "/" in name or ".." in name:
        hint = "settings of the machine itself can't be a container's: net.*, fs.mqueue.* and those of System V IPC can"
        raise BadValue(f"sysctl '{text}' is not allowed", hint)
    return name, value


def parse_pair(text: str) -> tuple[str, str]:
    """KEY=value or KEY."""
    key, _, value = text.partition("=")
    if not key.strip():
        raise BadValue(f"invalid annotation '{text}': empty name", "write KEY=value", late=True)
    return key, value


def parse_expose(text: str) -> tuple[str, ...]:
    """port[-port][/protocol] -> "80/tcp", ..."""
    ports, _, protocol = text.partition("/")
    first, dash, last = ports.partition("-")
    for number in (first, last) if dash else (first,):
        if not (number.isascii() and number.isdigit()):
            cause = f"strconv.ParseUint: parsing {quote(number)}: invalid syntax"
            raise BadValue(f"invalid range format for --expose: {ports}, error: {cause}", _HINT_PORT)
        if len(number) > 5 or not 0 < int(number) <= PORT_MAX:
            cause = f"strconv.ParseUint: parsing {quote(number)}: value out of range"
            raise BadValue(f"invalid range format for --expose: {ports}, error: {cause}", _HINT_PORT)
    start, end = int(first), int(last if dash else first)
    if end < start:
        cause = f"invalid range specified for port: {ports}"
        raise BadValue(f"invalid range format for --expose: {ports}, error: {cause}", _HINT_PORT)
    name = (protocol or "tcp").lower()
    if name not in ("tcp", "udp", "sctp"):
        raise BadValue(f"invalid proto: {name[:40]}", _HINT_PORT)
    return tuple(f"{port}/{name}" for port in range(start, end + 1))


def parse_weight(text: str) -> int:
    """A weight that fits into 16 bits; the engine knows which are right."""
    return _unsigned(text, 65535)


def _unsigned(text: str, largest: int) -> int:
    if not (text.isascii() and text.isdigit()):
        raise BadValue(f"strconv.ParseUint: parsing {quote(text)}: invalid syntax", "write a whole number")
    if len(text) > 20 or int(text) > largest:
        raise BadValue(f"strconv.ParseUint: parsing {quote(text)}: value out of range", "write a smaller number")
    return int(text)


def parse_swappiness(text: str) -> int:
    """0 to 100; -1 is the machine's."""
    number = parse_int(text)
    if not -1 <= number <= 100:
        raise BadValue(f"invalid value: {number}. Valid memory swappiness range is 0-100", "choose one in that range")
    return number


def parse_pid(text: str) -> str:
    if text in ("", "private", "host") or _is_joined(text):
        return text
    raise BadValue("--pid: invalid PID mode", "write host, container:NAME or ns:PATH")


def parse_uts(text: str) -> str:
    if text in ("", "private", "host") or _is_joined(text):
        return text
    raise BadValue("--uts: invalid UTS mode", "write host, container:NAME or ns:PATH, or leave it away")


_USERNS = ("host", "auto", "remap", "container", "keep-id", "nomap")


def parse_userns(text: str) -> str:
    words = (text, text.partition(":")[0], text.partition("=")[0])
    if not text or any(word in _USERNS for word in words):
        return text  # which of them there are with which options is for the engine to say
    raise BadValue(
        "--userns: invalid USER mode", "write host, auto, auto:size=N, keep-id, nomap, remap=USER or container:NAME"
    )


def parse_cgroupns(text: str) -> str:
    if text in ("", "private", "host") or _is_joined(text):
        return text
    raise BadValue("--cgroupns: invalid CGROUP mode", "write private, host, container:NAME or ns:PATH")


def parse_timens(text: str) -> str:
    mode, comma, offsets = text.partition(",")
    are_offsets = all(part.partition("=")[0] in ("boottime", "monotonic") for part in offsets.split(","))
    if text in ("", "host") or _is_joined(text) or (mode == "private" and (not comma or are_offsets)):
        return text
    hint = "write private, host, container:NAME, ns:PATH, or private,boottime=SECONDS,monotonic=SECONDS"
    raise BadValue("--timens: invalid TIME mode", hint)


def parse_ipc(text: str) -> str:
    if text in ("", "none", "host", "private", "shareable") or _is_joined(text):
        return text
    hint = "write none, private, shareable, host, container:NAME or ns:PATH"
    raise BadValue(f"invalid IPC mode: {text}", hint, late=True)


def _is_joined(text: str) -> bool:
    return text.startswith("ns:/") or (text.startswith("container:") and len(text) > len("container:"))


def parse_isolation(text: str) -> str:
    if text.lower() in ("", "default"):
        return text.lower()
    cause = f"Invalid isolation: {quote(text)} - linux only supports 'default'"
    raise BadValue(cause, "leave --isolation away", late=True)


def parse_gpus(text: str) -> str:
    cause = 'could not select device driver "" with capabilities: [[gpu]]: Orlop has no driver for GPUs'
    raise BadValue(cause, "give the device nodes themselves: --device /dev/dri, --device /dev/nvidia0")


def parse_api_socket(text: str) -> bool:
    if parse_bool(text):
        cause = "a container that reaches the engine's socket is as powerful as you are: Orlop does not give it away"
        raise BadValue(cause, "mount it yourself where you mean it: -v $ORLOP_RUN/docker.sock:/var/run/docker.sock")
    return False


def _windows_only(text: str) -> str:
    raise BadValue("it is only supported by containers of Windows, and this is Linux", "leave it away", late=True)


_DEVICE = Kind("list", parse_device, repeatable=True)
_DEVICE_RULE = Kind("list", parse_device_rule, repeatable=True)
_RATE_BYTES = Kind("list", parse_rate_bytes, repeatable=True)
_RATE_OPERATIONS = Kind("list", parse_rate_operations, repeatable=True)
_WEIGHTS = Kind("list", parse_device_weight, repeatable=True)
_ULIMIT = Kind("ulimit", parse_ulimit, repeatable=True)
_SYSCTL = Kind("map", parse_sysctl, repeatable=True)
_ANNOTATION = Kind("map", parse_pair, repeatable=True)
_EXPOSE = Kind("list", parse_expose, repeatable=True)
_WEIGHT = Kind("uint16", parse_weight)
_WINDOWS = Kind("int", _windows_only)

# fmt: off
# What `update` changes too.
RESOURCE_FLAGS = (
    Flag("blkio-weight", "", _WEIGHT, "Block IO (relative weight), between 10 and 1000, or 0 to disable", default=0),
    Flag("cpu-period", "", INT, "Limit CPU CFS (Completely Fair Scheduler) period", default=0),
    Flag("cpu-quota", "", INT, "Limit CPU CFS (Completely Fair Scheduler) quota", default=0),
    Flag("cpu-rt-period", "", INT, "Limit CPU real-time period in microseconds", default=0),
    Flag("cpu-rt-runtime", "", INT, "Limit CPU real-time runtime in microseconds", default=0),
    Flag("cpu-shares", "c", INT, "CPU shares (relative weight)", default=0),
    Flag("cpuset-cpus", "", STRING, "CPUs in which to allow execution (0-3, 0,1)", default=""),
    Flag("cpuset-mems", "", STRING, "MEMs in which to allow execution (0-3, 0,1)", default=""),
    Flag("kernel-memory", "", BYTES, "Kernel memory limit", default=0, hidden=True),
    Flag("memory-reservation", "", BYTES, "Memory soft limit", default=0),
)
ISOLATION_FLAGS = (
    Flag("annotation", "", _ANNOTATION, "Add an annotation to the container (passed through to the OCI runtime)"),
    Flag("blkio-weight-device", "", _WEIGHTS, "Block IO weight (relative device weight)"),
    Flag("cgroup-parent", "", STRING, "Optional parent cgroup for the container", default=""),
    Flag("cgroupns", "", Kind("string", parse_cgroupns), "Cgroup namespace to use (host|private)", default=""),
    Flag("cpu-count", "", _WINDOWS, "CPU count (Windows only)", hidden=True),
    Flag("cpu-percent", "", _WINDOWS, "CPU percent (Windows only)", hidden=True),
    Flag("device", "", _DEVICE, "Add a host device to the container"),
    Flag("device-cgroup-rule", "", _DEVICE_RULE, "Add a rule to the cgroup allowed devices list"),
    Flag("device-read-bps", "", _RATE_BYTES, "Limit read rate (bytes per second) from a device"),
    Flag("device-read-iops", "", _RATE_OPERATIONS, "Limit read rate (IO per second) from a device"),
    Flag("device-write-bps", "", _RATE_BYTES, "Limit write rate (bytes per second) to a device"),
    Flag("device-write-iops", "", _RATE_OPERATIONS, "Limit write rate (IO per second) to a device"),
    Flag("domainname", "", STRING, "Container NIS domain name", default=""),
    Flag("expose", "", _EXPOSE, "Expose a port or a range of ports"),
    Flag("gpus", "", Kind("gpu-request", parse_gpus), "GPU devices to add to the container", hidden=True),
    Flag("io-maxbandwidth", "", _WINDOWS, "Maximum IO bandwidth limit (Windows only)", hidden=True),
    Flag("io-maxiops", "", _WINDOWS, "Maximum IOps limit (Windows only)", hidden=True),
    Flag("ipc", "", Kind("string", parse_ipc), "IPC mode to use", default=""),
    Flag("isolation", "", Kind("string", parse_isolation), "Container isolation technology", default=""),
    Flag("label-file", "", LIST, "Read in a line delimited file of labels"),
    Flag("landlock", "", LIST, "Allow only this, by Landlock: ro:PATH, rw:PATH, bind:PORT, connect:PORT"),
    Flag("memory-swappiness", "", Kind("int", parse_swappiness), "Tune container memory swappiness (0 to 100)",
         default=-1),
    Flag("oom-kill-disable", "", BOOL, "Disable OOM Killer", default=False),
    Flag("oom-score-adj", "", INT, "Tune host's OOM preferences (-1000 to 1000)", default=0),
    Flag("pid", "", Kind("string", parse_pid), "PID namespace to use", default=""),
    Flag("runtime", "", STRING, "Runtime to use for this container", default=""),
    Flag("shm-size", "", BYTES, "Size of /dev/shm", default=0),
    Flag("sysctl", "", _SYSCTL, "Sysctl options"),
    Flag("timens", "", Kind("string", parse_timens), "Time namespace to use (private[,boottime=SECONDS])", default=""),
    Flag("ulimit", "", _ULIMIT, "Ulimit options"),
    Flag("use-api-socket", "", Kind("", parse_api_socket, bare="true"), "Bind mount Docker API socket", default=False,
         hidden=True),
    Flag("nesting", "", BOOL, "Let the container run containers of its own, without privileges", default=False),
    Flag("nested", "", BOOL, "The same as --nesting", default=False, hidden=True),
    Flag("userns", "", Kind("string", parse_userns), "User namespace to use", default=""),
    Flag("uts", "", Kind("string", parse_uts), "UTS namespace to use", default=""),
)
# fmt: on

# field of a ContainerRequest: its flag, where the value is the field's as it stands.
_PLAIN = {
    "domainname": "domainname",
    "runtime": "runtime",
    "isolation": "isolation",
    "devices": "device",
    "device_cgroup_rules": "device-cgroup-rule",
    "ipc": "ipc",
    "pid": "pid",
    "uts": "uts",
    "userns": "userns",
    "cgroup_namespace": "cgroupns",
    "time": "timens",
    "cgroup_parent": "cgroup-parent",
    "shm_bytes": "shm-size",
    "ulimits": "ulimit",
    "oom_kill_disable": "oom-kill-disable",
    "oom_score_adj": "oom-score-adj",
    "blkio_weight_devices": "blkio-weight-device",
    "device_read_bps": "device-read-bps",
    "device_write_bps": "device-write-bps",
    "device_read_iops": "device-read-iops",
    "device_write_iops": "device-write-iops",
}
RESOURCE_FIELDS = {
    "blkio_weight": "blkio-weight",
    "cpu_period_us": "cpu-period",
    "cpu_quota_us": "cpu-quota",
    "cpu_realtime_period_us": "cpu-rt-period",
    "cpu_realtime_runtime_us": "cpu-rt-runtime",
    "cpu_shares": "cpu-shares",
    "cpuset_cpus": "cpuset-cpus",
    "cpuset_mems": "cpuset-mems",
    "memory_reservation_bytes": "memory-reservation",
}


def fields(options: Options) -> dict[str, Any]:
    """Return what the flags of this module say, as fields of a ContainerRequest. Raises Invalid."""
    values: dict[str, Any] = {field: options[flag] for field, flag in (_PLAIN | RESOURCE_FIELDS).items()}
    exposed = dict.fromkeys(port for ports in options["expose"] for port in ports)
    if len(exposed) > PORTS_MAX:
        raise Invalid("use", "--expose", f"it names {len(exposed)} ports", hint="name fewer ports")
    swappiness: int = options["memory-swappiness"]
    return {
        **values,
        "kernel_memory_bytes": options["kernel-memory"],
        "annotations": dict(options["annotation"]),
        "exposed_ports": tuple(exposed),
        "sysctls": dict(options["sysctl"]),
        "memory_swappiness": None if swappiness < 0 else swappiness,
    }
