"""The facts behind each property, each passed or not. Pure: what the kernel says came in with `Seen`."""

from ...linux.capability import NAMES
from ...spec.record import Record
from ...spec.runtime import Spec
from ..apparmor import UNCONFINED
from ..compile.security import CAPABILITIES_DEFAULT, MASKED_PATHS
from ..containers.record import ContainerRecord
from ..userns.kept import has_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SECURE, ISOLATED, INTEGRATED = "secure", "isolated", "integrated"
MANAGEABLE, TRANSPARENT = "manageable", "transparent"
PROPERTIES = (SECURE, ISOLATED, INTEGRATED, MANAGEABLE, TRANSPARENT)
NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")
HOST_PATHS = ("/", "/boot", "/dev", "/etc", "/home", "/lib", "/proc", "/root", "/run", "/sys", "/usr", "/var")
SOCKETS = ("docker.sock", "engine.sock", "containerd.sock", "podman.sock")


class Seen(Record):
    """What was seen of the running process; of one that does not run, nothing.

    shared: the kinds of its namespaces that are the engine's own. capabilities, effective: mask of the process.
    seccomp: 2 with a filter. no_new_privileges: of the process. uid: on the machine. has_cgroup: this engine has any.
    engine_is_root: of the machine. monitor_lives: somebody waits for its end. apparmor: this engine can give profiles;
    label: that of the process, as the kernel says it.
    """

    runs: bool = False
    shared: tuple[str, ...] = ()
    effective: int = 0
    seccomp: int = 0
    no_new_privileges: bool = False
    uid: int = 0
    has_cgroup: bool = False
    engine_is_root: bool = True
    monitor_lives: bool = False
    apparmor: bool = False
    label: str = ""


class Fact(Record):
    """One row. why: the fact itself, in words; next: how to make it pass."""

    property: str
    fact: str
    passed: bool
    why: str
    next: str = ""


def facts(record: ContainerRecord, spec: Spec, seen: Seen) -> list[Fact]:
    """Return every fact, property by property."""
    return [
        *_secure(record, spec, seen),
        *_isolated(record, spec, seen),
        *_integrated(record, spec),
        *_manageable(record, seen),
        *_transparent(record, spec),
    ]


def verdicts(found: list[Fact]) -> dict[str, bool]:
    """Return for each property whether all of its facts passed."""
    return {name: all(fact.passed for fact in found if fact.property == name) for name in PROPERTIES}


def _secure(record: ContainerRecord, spec: Spec, seen: Seen) -> "Iterator[Fact]":
    process, linux = spec.process, spec.linux
    held = set(process.capabilities.bounding) if process and process.capabilities else set()
    if seen.runs:
        held = {f"CAP_{name}" for number, name in enumerate(NAMES) if seen.effective >> number & 1} | held
    extra = sorted(held - set(CAPABILITIES_DEFAULT))
    why = f"it has {', '.join(extra)}" if extra else f"{len(held)} capabilities, none beyond the default"
    yield Fact(
        property=SECURE, fact="capabilities", passed=not extra, why=why, next="leave --cap-add away" if extra else ""
    )
    filtered = linux.seccomp is not None and (not seen.runs or seen.seccomp == 2)
    why = "a seccomp filter is loaded" if filtered else "no seccomp filter: every system call is open"
    step = "" if filtered else "leave --security-opt seccomp=unconfined and --privileged away"
    yield Fact(property=SECURE, fact="system calls", passed=filtered, why=why, next=step)
    closed = bool(process and process.no_new_privileges and (not seen.runs or seen.no_new_privileges))
    why = "no_new_privs: setuid programs give nobody anything" if closed else "setuid programs give their rights"
    step = "" if closed else "leave --security-opt no-new-privileges=false and --privileged away"
    yield Fact(property=SECURE, fact="new privileges", passed=closed, why=why, next=step)
    if seen.apparmor:
        profile = seen.label.partition(" ")[0] if seen.runs else process.apparmor_profile if process else ""
        confined = profile not in ("", UNCONFINED)
        why = f"AppArmor's profile {profile} confines it" if confined else "no AppArmor profile confines it"
        step = "" if confined else "leave --security-opt apparmor=unconfined and --privileged away"
        yield Fact(property=SECURE, fact="profile", passed=confined, why=why, next=step)
    user = process.user.uid if process else 0
    mapped = (
        (bool(record.uid_mappings) and not has_root(record)) or not seen.engine_is_root or (seen.runs and seen.uid != 0)
    )
    harmless = mapped or user != 0
    why = "its root is nobody on the machine" if harmless else "its root is root of the machine, but for capabilities"
    step = "" if harmless else "run it with --userns auto, or as another user with -u"
    yield Fact(property=SECURE, fact="root", passed=harmless, why=why, next=step)
    hidden = set(MASKED_PATHS) <= set(linux.masked_paths) or mapped
    why = "what the kernel shows of the machine is hidden" if hidden else "the kernel's files on the machine show"
    step = "" if hidden else "leave --security-opt systempaths=unconfined and --privileged away"
    yield Fact(property=SECURE, fact="kernel files", passed=hidden, why=why, next=step)


def _isolated(record: ContainerRecord, spec: Spec, seen: Seen) -> "Iterator[Fact]":
    own = {namespace.type for namespace in spec.linux.namespaces}
    shared = seen.shared if seen.runs else tuple(kind for kind in NAMESPACES if kind not in own)
    why = f"it shares the machine's {', '.join(shared)}" if shared else "all of its namespaces are its own"
    step = "leave --network, --pid, --ipc, --uts and --cgroupns host away" if shared else ""
    yield Fact(property=ISOLATED, fact="namespaces", passed=not shared, why=why, next=step)
    open_paths = sorted(
        mount.source
        for mount in spec.mounts
        if mount.type == "bind"
        and (mount.source in HOST_PATHS or mount.source.rpartition("/")[2] in SOCKETS)
        and not {"ro", "rro"} & set(mount.options)
    )
    why = f"it writes to the machine's {', '.join(open_paths)}" if open_paths else "no directory of the machine's own"
    step = "mount them read-only, or a volume" if open_paths else ""
    yield Fact(property=ISOLATED, fact="files", passed=not open_paths, why=why, next=step)
    devices = sorted({entry.source for entry in record.request.devices}) or (
        ["all"] if record.request.privileged else []
    )
    why = f"it has the machine's devices: {', '.join(devices)}" if devices else "no device of the machine's"
    step = "leave --device and --privileged away" if devices else ""
    yield Fact(property=ISOLATED, fact="devices", passed=not devices, why=why, next=step)
    request = record.request
    pids = request.pids_max is None or request.pids_max > 0
    missing = [] if seen.has_cgroup else ["no cgroup was given to this engine"]
    missing += [] if request.memory_bytes else ["its memory is not limited"]
    missing += [] if pids else ["its processes are not limited"]
    why = "; ".join(missing) if missing else "memory and processes are limited"
    step = "give it --memory and --pids-limit" if missing else ""
    yield Fact(property=ISOLATED, fact="limits", passed=not missing, why=why, next=step)


def _integrated(record: ContainerRecord, spec: Spec) -> "Iterator[Fact]":
    request = record.request
    placed = request.network != "none"
    why = f"network {request.network or 'bridge'}" if placed else "it is in no network"
    yield Fact(property=INTEGRATED, fact="network", passed=placed, why=why, next="" if placed else "choose a --network")
    checked = record.config.health is not None and bool(record.config.health.test)
    why = "a health check says whether it works" if checked else "nothing says whether it works"
    step = "" if checked else "give it --health-cmd"
    yield Fact(property=INTEGRATED, fact="health", passed=checked, why=why, next=step)
    logged = request.log_driver != "none"
    why = f"its output goes to {request.log_driver or 'json-file'}" if logged else "its output is thrown away"
    yield Fact(property=INTEGRATED, fact="logs", passed=logged, why=why, next="" if logged else "choose a --log-driver")


def _manageable(record: ContainerRecord, seen: Seen) -> "Iterator[Fact]":
    request = record.request
    restarts = request.restart_policy not in ("", "no")
    why = f"it is restarted: {request.restart_policy}" if restarts else "nobody starts it again"
    step = "" if restarts else "give it --restart"
    yield Fact(property=MANAGEABLE, fact="restarts", passed=restarts, why=why, next=step)
    watched = not seen.runs or seen.monitor_lives
    why = "its end and its exit code are recorded" if watched else "its monitor is gone: its exit code may be lost"
    yield Fact(property=MANAGEABLE, fact="end", passed=watched, why=why)
    frozen = seen.has_cgroup
    why = "it can be paused, limited and killed as one" if frozen else "it has no cgroup: no pause, no new limits"
    yield Fact(property=MANAGEABLE, fact="cgroup", passed=frozen, why=why, next="" if frozen else "orlop doctor")


def _transparent(record: ContainerRecord, spec: Spec) -> "Iterator[Fact]":
    known = bool(record.image_id)
    why = f"its image is {record.image_id}" if known else "it runs from a directory of the machine"
    yield Fact(property=TRANSPARENT, fact="image", passed=known, why=why, next="" if known else "run it from an image")
    told = bool(spec.process and spec.process.args)
    why = f"config.json says all of it: orlop explain {record.name}" if told else "its config.json has no process"
    yield Fact(property=TRANSPARENT, fact="specification", passed=told, why=why)
    yield Fact(
        property=TRANSPARENT, fact="command line", passed=True, why=f"it can be printed: orlop show-run {record.name}"
    )
