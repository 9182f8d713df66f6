"""`linux.namespaces` and what belongs to them: flags for the clone, joins, maps, offsets, names, sysctls."""

from ...linux import capability
from ...spec.errors import Invalid, Unsupported
from ...spec.record import Record
from ...spec.runtime import IdMapping, Linux, Spec
from ..host import HostFacts
from ..operations import Operation
from ..operations.names import SetHostname, WriteProcfs
from ..operations.namespaces import KINDS, BecomeRoot, JoinNamespace, Loopback, MapIds, UnshareCgroup, UnshareTime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..systemd.unit import Unit

ID_MAPPINGS_MAX = 340  # UID_GID_MAP_MAX_EXTENTS, since Linux 4.15
_ID_MAX = 2**32 - 2
_CLOCKS = ("monotonic", "boottime")
_TIME_KERNEL_MIN = (5, 6)
_HOSTNAME_BYTES_MAX = 64
_DEVICE_NAME_BYTES_MAX = 15  # IFNAMSIZ with its NUL
_SETGID = capability.mask(["CAP_SETGID"])

# sysctls that belong to a namespace (namespaces(7) of each kind); "net." as a whole is the network namespace's.
_IPC_SYSCTLS = frozenset(
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni "
    "kernel.shm_rmid_forced".split()
)


class Namespaces(Record):
    """What init gets. made, joined: kinds; own_ids: another user namespace. pid_path: a PID namespace to join."""

    made: frozenset[str]
    joined: dict[str, str]

    @property
    def own_ids(self) -> bool:
        return self.has("user")

    @property
    def pid_path(self) -> str:
        return self.joined.get("pid", "")

    @property
    def clone_flags(self) -> int:
        """The flags of the clone; cgroup and time namespaces are unshared by init itself."""
        flags = 0
        for kind in self.made - {"cgroup", "time"}:
            flags |= KINDS[kind][0]
        return flags

    def has(self, kind: str) -> bool:
        """Return whether init is in another namespace of this kind than the caller."""
        return kind in self.made or kind in self.joined


def namespaces(linux: Linux, host: HostFacts) -> Namespaces:
    """Return the namespaces of a spec. Raises Invalid for contradictions, Unsupported for what can't be had."""
    made: set[str] = set()
    joined: dict[str, str] = {}
    for index, namespace in enumerate(linux.namespaces):
        field = f"linux.namespaces[{index}]"
        kind = namespace.type
        if kind not in KINDS:
            raise Unsupported("make", field, f"{kind!r} is no namespace this version knows", code="E1301")
        if kind in made or kind in joined:
            raise Invalid("read", field, f"the {kind} namespace is there twice")
        if not namespace.path:
            made.add(kind)
            continue
        if not namespace.path.startswith("/"):
            raise Invalid("read", f"{field}.path", f"{namespace.path!r} is not an absolute path")
        joined[kind] = namespace.path
    result = Namespaces(made=frozenset(made), joined=joined)
    if not result.has("mount"):
        raise Unsupported(
            "start without", "a mount namespace", "the root file system is mounted in it", hint="add it to the spec"
        )
    _check_ids(linux, result)
    _check_time(linux, result, host)
    return result


def systemd_unit(linux: Linux) -> "Unit | None":
    """Return the unit that systemd shall make for the container (slice:prefix:name); None for a path from the root."""
    if ":" not in linux.cgroups_path or linux.cgroups_path.startswith("/"):
        return None
    from ..systemd.unit import unit_of

    return unit_of(linux.cgroups_path)


def cgroup_path(linux: Linux) -> str:
    """Return the absolute path of the container's cgroup, "" when it gets none of its own.

    A relative path starts at the root of the hierarchy (config-linux.md leaves it to the runtime); slice:prefix:name is
    a unit of systemd's. Raises Invalid for a unit that can't be.
    """
    if unit := systemd_unit(linux):
        return unit.path
    return f"/{linux.cgroups_path.lstrip('/')}" if linux.cgroups_path else ""


def enter_namespaces(spec: Spec, own: Namespaces, host: HostFacts) -> tuple[Operation, ...]:
    """Return what init does in and with its namespaces before anything else."""
    linux = spec.linux
    operations: list[Operation] = []
    if "user" in own.made:
        # Without CAP_SETGID over the parent's namespace, gids may be mapped only with setgroups off (CVE-2014-8989).
        deny = not host.cap_effective & _SETGID
        operations.append(MapIds(uids=linux.uid_mappings, gids=linux.gid_mappings, deny_setgroups=deny))
    elif own.own_ids:
        operations.append(BecomeRoot())
    if not own.own_ids:
        operations += [join for join in joins(linux, own) if join.kind != "pid"]
    if "cgroup" in own.made:
        operations.append(UnshareCgroup())
    if "time" in own.made:
        operations.append(UnshareTime(offsets=linux.time_offsets))
    if "network" in own.made:
        operations.append(Loopback())
    return tuple(operations)


def joins(linux: Linux, own: Namespaces) -> tuple[JoinNamespace, ...]:
    """Return what joins the existing namespaces: the user namespace last, for in it the caller has no rights but there.

    Where init gets another user namespace, somebody must do this for it before (`birth.clone_through`).
    """
    wanted = sorted(own.joined.items(), key=lambda item: item[0] == "user")
    instead = {"mount": "leave the path out: a new one is made"}
    if any(_canonical(name).startswith("net.") for name in linux.sysctl):
        instead["network"] = "remove the sysctl"
    return tuple(JoinNamespace(kind=kind, path=path, must_differ=instead.get(kind, "")) for kind, path in wanted)


def network_devices(linux: Linux, own: Namespaces, host: HostFacts) -> tuple[Operation, ...]:
    """Return the operations that move devices of the host into the container's network namespace."""
    if not linux.net_devices:
        return ()
    from ..operations.netdevices import MoveNetworkDevice

    if not own.has("network"):
        raise Invalid("move", "linux.netDevices", "linux.namespaces has no network namespace to move them to")
    if not host.initial_user_namespace:
        raise Unsupported("move", "linux.netDevices", "it takes root on the host: the devices belong to it")
    operations: list[Operation] = []
    for name, device in linux.net_devices.items():
        inside = device.name or name
        for text in (name, inside):
            if not _is_device_name(text):
                raise Invalid("move", f"linux.netDevices.{name[:32]}", f"{text[:32]!r} is no name of a network device")
        if any(inside == moved.inside for moved in operations if isinstance(moved, MoveNetworkDevice)):
            raise Invalid("move", f"linux.netDevices.{name}", f"two devices would be called {inside}")
        operations.append(MoveNetworkDevice(name=name, inside=inside, namespace=own.joined.get("network", "")))
    return tuple(operations)


def _is_device_name(name: str) -> bool:
    """As dev_valid_name of net/core/dev.c has it, and % is left out, which asks the kernel for a number."""
    if not 0 < len(name.encode(errors="surrogateescape")) <= _DEVICE_NAME_BYTES_MAX or name in (".", ".."):
        return False
    return not any(char in "/:%" or char.isspace() or not char.isprintable() for char in name)


def names(spec: Spec, own: Namespaces) -> tuple[Operation, ...]:
    """Return the operations that set host name, domain name and sysctls."""
    operations: list[Operation] = []
    for name, value in spec.linux.sysctl.items():
        operations.append(_sysctl(name, value, own))
    if spec.hostname or spec.domainname:
        for field, text in (("hostname", spec.hostname), ("domainname", spec.domainname)):
            if len(text.encode(errors="surrogateescape")) > _HOSTNAME_BYTES_MAX:
                raise Invalid("set", field, f"it is longer than {_HOSTNAME_BYTES_MAX} bytes")
            if not text.isprintable() or not text.isascii():
                raise Invalid("set", field, "it has characters that are not printable ASCII")
        if not own.has("uts"):
            raise Invalid("set", "hostname", "it would be the host's: linux.namespaces has no uts namespace")
        operations.append(SetHostname(hostname=spec.hostname, domainname=spec.domainname))
    return tuple(operations)


def _sysctl(name: str, value: str, own: Namespaces) -> Operation:
    """Accept what belongs to a namespace of the container's own, and nothing else (SEC-24, CVE-2022-0811)."""
    field = f"linux.sysctl.{name}"
    canonical = _canonical(name)
    parts = canonical.replace("/", ".").split(".")
    if not name.isascii() or not name.isprintable() or "" in parts or ".." in canonical:
        raise Invalid("set", field, "it is not the name of a sysctl")
    if not value.isascii() or not all(char.isprintable() or char == "\t" for char in value):
        raise Invalid("set", field, "its value has characters that no sysctl takes")
    if canonical in _IPC_SYSCTLS or canonical.startswith("fs.mqueue."):
        kind = "ipc"
    elif canonical.startswith("net."):
        kind = "network"
    elif canonical == "kernel.domainname":
        kind = "uts"
    elif canonical.startswith("user."):
        kind = "user"
    else:
        raise Invalid(
            "set", field, "it is not in a namespace: it would change the host", hint="set it on the host", code="E0209"
        )
    if not own.has(kind):
        raise Invalid(
            "set", field, f"it would change the host's: linux.namespaces has no {kind} namespace", code="E0209"
        )
    return WriteProcfs(file="sys/" + _path(name), value=value, words=f"set {canonical} to {value}")


def _canonical(name: str) -> str:
    """Return the dotted form. The first separator decides which one it is (sysctl(8)): "net/ipv4/conf/eth0.1/mtu"."""
    slash, dot = name.find("/"), name.find(".")
    if slash >= 0 and (dot < 0 or slash < dot):
        return name.translate({ord("/"): ".", ord("."): "/"})
    return name


def _path(name: str) -> str:
    return _canonical(name).translate({ord("/"): ".", ord("."): "/"})


def _check_ids(linux: Linux, own: Namespaces) -> None:
    if not own.own_ids:
        if linux.uid_mappings or linux.gid_mappings:
            raise Invalid("map", "linux.uidMappings", "linux.namespaces has no user namespace")
        return
    for field, mappings in (("linux.uidMappings", linux.uid_mappings), ("linux.gidMappings", linux.gid_mappings)):
        if mappings or "user" in own.made:  # a namespace that is joined has its own
            check_mappings(mappings, field)


def check_mappings(mappings: tuple[IdMapping, ...], field: str) -> None:
    """Raises Invalid for maps that the kernel would refuse, or would take for something else."""
    if not mappings:
        raise Invalid("map", field, "a user namespace needs at least one mapping")
    if len(mappings) > ID_MAPPINGS_MAX:
        raise Invalid("map", field, f"the kernel takes at most {ID_MAPPINGS_MAX} mappings")
    for mapping in mappings:
        for start in (mapping.container_id, mapping.host_id):
            if start < 0 or mapping.size < 1 or start + mapping.size - 1 > _ID_MAX:
                raise Invalid("map", field, f"{start} and {mapping.size} ids from it on are not in 0..{_ID_MAX}")


def _check_time(linux: Linux, own: Namespaces, host: HostFacts) -> None:
    if linux.time_offsets and "time" not in own.made:
        raise Invalid("shift", "linux.timeOffsets", "linux.namespaces has no new time namespace")
    for clock in linux.time_offsets:
        if clock not in _CLOCKS:
            raise Invalid("shift", f"linux.timeOffsets.{clock}", f"it is none of {', '.join(_CLOCKS)}")
    if "time" in own.made and host.kernel < _TIME_KERNEL_MIN:
        raise Unsupported("make", "a time namespace", "this kernel is older than 5.6", code="E1302")
