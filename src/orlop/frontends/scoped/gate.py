"""What a scoped socket sees, what it may make, and what answers leave out.

A container is made only of what FIELDS names: a field that a later version adds is refused until it has its row.
"""

from __future__ import annotations

from ...engine.containers.record import ContainerRecord
from ...spec.container import ContainerRequest
from ...spec.errors import Denied, NotFound, OrlopError
from ...spec.mount import VOLUME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...engine.engine import Engine
    from ...engine.sockets.record import SocketRecord
    from ...spec.container import ExecRequest
    from ...spec.mount import MountRequest, VolumeRequest
    from ...spec.network import EndpointRequest, NetworkRequest

REDACTED = "<redacted>"
# Fields of a creation that reach nothing but the container itself.
FIELDS = frozenset(
    "image name entrypoint args env user group_add working_dir hostname domainname labels terminal open_stdin"
    " stdin_once auto_remove tmpfs storage_opt read_only cap_drop publish_all dns dns_search dns_options extra_hosts"
    " stop_signal stop_timeout_s timeout_s restart_policy restart_retries_max health health_on_failure init attach"
    " exposed_ports platform ports isolation shm_bytes ulimits memory_bytes memory_swap_bytes memory_reservation_bytes"
    " memory_swappiness kernel_memory_bytes cpu_nanos cpu_shares cpu_period_us cpu_quota_us cpuset_cpus cpuset_mems"
    " pids_max blkio_weight umask"
    " egress egress_allow".split()
)
# Fields whose values are looked at.
CHECKED = frozenset(
    "binds mounts volumes_from network endpoints links ipc pid uts userns cgroup_namespace time security_opt log_driver"
    " oom_score_adj depends_on".split()
)
_OWN = ("", "private")
_NETWORKS = ("", "default", "bridge", "none")
_OPTIONS = ("ro", "rw", "nocopy", "z", "Z")
_HARMLESS_SECURITY = ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true")


class Gate:
    """One socket's view of one engine."""

    def __init__(self, engine: Engine, record: SocketRecord) -> None:
        self._engine = engine
        self.record = record
        self.subject = f"socket {record.name}"

    def check(self, right: str) -> None:
        """Raise Denied unless the socket has a right."""
        if right not in self.record.rights:
            raise self.denied(f"it does not allow {right}", f"it allows {', '.join(self.record.rights)}")

    def denied(self, cause: str, hint: str = "") -> Denied:
        return Denied("use", self.subject, f"socket {self.record.name}: {cause}", hint=hint)

    # -- what it sees -------------------------------------------------------------------------------------------------

    def sees(self, labels: Mapping[str, str]) -> bool:
        """Whether what has these labels is there for this socket. A label without a value asks for its name only."""
        return all(key in labels and value in ("", labels[key]) for key, value in self.record.labels.items())

    def container(self, reference: str) -> ContainerRecord:
        """Return a container that the socket sees. Raises NotFound for others, as for none."""
        record = self._engine.records.find(reference)
        if not self.sees(record.request.labels):
            raise NotFound("find", f"container {reference}", f"No such container: {reference}", code="E0101")
        return record

    def volume(self, name: str) -> None:
        """Raise NotFound unless the socket sees a volume."""
        if not self.sees(self._engine.volumes.load(name).labels):
            raise NotFound("find", f"volume {name}", f"get {name}: no such volume", code="E0901")

    def network(self, reference: str) -> None:
        """Raise NotFound unless the socket sees a network. The predefined ones have no labels."""
        if not self.sees(self._engine.networks.store.find(reference).labels):
            raise NotFound("find", f"network {reference}", f"network {reference} not found", code="E0701")

    def filters(self, given: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """Return filters of a list so that they let through only what the socket sees. Raises NotFound."""
        for key in ("before", "since"):
            for reference in given.get(key, ()):
                self.container(reference)
        own = tuple(f"{key}={value}" if value else key for key, value in self.record.labels.items())
        return {**given, "label": (*given.get("label", ()), *own)} if own else given

    # -- what it may make ---------------------------------------------------------------------------------------------

    def labelled(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Return labels with those that everything made here has."""
        return {**labels, **self.record.labels}

    def creation(self, request: ContainerRequest) -> ContainerRequest:
        """Return what may be made of a request, with the labels. Raises Denied, NotFound."""
        for field, (_, _, default) in ContainerRequest._fields.items():
            if field not in FIELDS and field not in CHECKED and getattr(request, field) != default:
                raise self.denied(f"a container made here may not set {field}")
        for bind in request.binds:
            self._bind(bind.source, bind.options)
        for mount in request.mounts:
            self._mount(mount)
        for field in ("uts", "userns", "cgroup_namespace", "time"):
            self._only(field, getattr(request, field), _OWN)
        for field in ("ipc", "pid"):
            self._joins(field, getattr(request, field), (*_OWN, "none", "shareable") if field == "ipc" else _OWN)
        self._joins("network", request.network, _NETWORKS)
        for endpoint in request.endpoints:
            self.endpoint(endpoint)
            if endpoint.network not in _NETWORKS:
                self._seen("networks", endpoint.network, self.network)
        for reference in (*request.volumes_from, *request.links, *request.depends_on):
            self._seen("containers", reference.partition(":")[0], self.container)
        for option in request.security_opt:
            self._only("security_opt", option, _HARMLESS_SECURITY)
        self._only("log_driver", request.log_driver, ("", "json-file", "local", "none"))
        if request.oom_score_adj < 0:
            raise self.denied("a container made here may not set oom_score_adj below 0")
        return request.replace(labels=self.labelled(request.labels))

    def _only(self, field: str, value: str, allowed: tuple[str, ...]) -> None:
        if value not in allowed:
            raise self.denied(f"a container made here may not set {field} to {value[:60]!r}")

    def _joins(self, field: str, value: str, allowed: tuple[str, ...]) -> None:
        kind, colon, reference = value.partition(":")
        if kind == "container" and colon:
            self._seen("containers", reference, self.container)
        elif field == "network" and value not in (*allowed, "host"):
            self._seen("networks", value, self.network)
        else:
            self._only(field, value, allowed)

    def _seen(self, what: str, reference: str, look: Callable[[str], object], hint: str = "") -> None:
        # Denied, not NotFound: docker's clients take that of a creation for a missing image, and pull.
        try:
            look(reference)
        except OrlopError:
            cause = f"a container made here may use only {what} that the socket sees, {reference[:60]!r} is none"
            raise self.denied(cause, hint) from None

    def _bind(self, source: str, options: tuple[str, ...]) -> None:
        if source.startswith(("/", ".", "~")):
            raise self.denied("a container made here may not mount a path of the host")
        if strange := [one for one in options if one not in _OPTIONS]:
            raise self.denied(f"a container made here may not mount with {strange[0][:40]!r}")
        if source:
            self._named_volume(source)

    def _mount(self, mount: MountRequest) -> None:
        if mount.type == "tmpfs":
            return
        if mount.type != VOLUME:
            raise self.denied(f"a container made here may not mount a {mount.type[:20]}")
        if mount.volume is not None and (mount.volume.driver_options or mount.volume.driver not in ("", "local")):
            raise self.denied("a volume made here may have no options of its driver")
        if mount.source:
            self._named_volume(mount.source)

    def _named_volume(self, name: str) -> None:
        self._seen("volumes", name, self.volume, "make it first, through this socket")

    def execution(self, request: ExecRequest) -> ExecRequest:
        """Return what may be executed. Raises Denied."""
        if request.privileged:
            raise self.denied("an exec through it may not be privileged")
        return request

    def endpoint(self, request: EndpointRequest) -> EndpointRequest:
        """Return the place that a container may get in a network. Raises Denied, NotFound."""
        if request.options:
            raise self.denied("a place in a network may have no options of its driver")
        for link in request.links:
            self.container(link.partition(":")[0])
        return request

    def new_volume(self, request: VolumeRequest) -> VolumeRequest:
        """Return the volume that may be made, with the labels. Raises Denied."""
        if request.driver_options or request.driver not in ("", "local"):
            raise self.denied("a volume made here may have no options of its driver")
        if request.name and (known := self._engine.volumes.find(request.name)) and not self.sees(known.labels):
            raise self.denied("the name is taken")
        return request.replace(labels=self.labelled(request.labels))

    def new_network(self, request: NetworkRequest) -> NetworkRequest:
        """Return the network that may be made, with the labels. Raises Denied."""
        if request.driver != "bridge" or request.options or request.ipam_options:
            raise self.denied("a network made here is a bridge without options")
        return request.replace(labels=self.labelled(request.labels))

    # -- what answers leave out ---------------------------------------------------------------------------------------

    def redacted(self, value: object) -> object:
        """Return an answer without what environments hold, and without containers that the socket does not see."""
        if isinstance(value, list):
            return [self.redacted(one) for one in value]
        if not isinstance(value, dict):
            return value
        out: dict[str, object] = {}
        for key, one in value.items():
            if key == "Env" and isinstance(one, list) and not self.record.reveal:
                out[key] = [f"{str(entry).partition('=')[0]}={REDACTED}" for entry in one]
            elif key == "Containers" and isinstance(one, dict):  # of a network
                out[key] = {name: found for name, found in one.items() if self._sees_container(name)}
            else:
                out[key] = self.redacted(one)
        return out

    def _sees_container(self, reference: str) -> bool:
        try:
            self.container(reference)
        except OrlopError:
            return False
        return True
