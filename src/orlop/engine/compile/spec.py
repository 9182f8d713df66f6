"""The parts of a container put together: its OCI spec and what to tell the user."""

from __future__ import annotations

from ...spec.container import ContainerRequest
from ...spec.errors import Invalid, Unsupported
from ...spec.runtime import OCI_VERSION, Device, Linux, Mount, Namespace, Process, Root, Seccomp, Spec
from ..containers.record import CGROUP, ContainerRecord
from ..host import Host
from . import config, mounts, resources, seccomp_profile, security

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NETWORKS = ("none", "host")
# The user namespace is missing for now: root's containers get one when ids can be mapped for each of them.
_NAMESPACES = ("mount", "uts", "ipc", "pid", "cgroup", "time")
ROOTFS = "rootfs"  # the spec demands a path: the real root comes as a detached mount


class Compiled:
    """spec: config.json. warnings: what was not asked for by name and can't be given, one sentence each."""

    __slots__ = ("spec", "warnings")

    def __init__(self, spec: Spec, warnings: tuple[str, ...]) -> None:
        self.spec = spec
        self.warnings = warnings


def container(
    record: ContainerRecord,
    directory: str,
    host: Host,
    devices: tuple[Device, ...] = (),
    trees: Mapping[str, Mount] | None = None,
) -> Compiled:
    """Return the spec of a container.

    directory: the container's own, which holds its files for /etc. devices: what --privileged brings in.
    trees: what mounts an image's tree, by the snapshot's key.
    Raises Invalid for a request that contradicts itself, Unsupported for what this machine can't do.
    """
    request, subject = record.request, record.subject
    options = security.options(request, host, subject)
    limits, warnings = resources.resources(request, host, subject)
    capabilities = security.capabilities(request, host, subject)
    process = Process(
        cwd=record.config.working_dir or "/",
        terminal=request.terminal,
        env=config.environment(record.config, request.terminal),
        args=record.config.args,
        capabilities=capabilities,
        no_new_privileges=options.no_new_privileges,
    )
    linux = Linux(
        resources=limits,
        cgroups_path=f"{CGROUP}/{record.id}",
        namespaces=_namespaces(request, subject),
        devices=devices,
        seccomp=_seccomp(options.seccomp, capabilities.bounding, host, subject),
        rootfs_propagation=mounts.rootfs_propagation(record.mounts),
        masked_paths=(*security.MASKED_PATHS, *host.thermal_throttle) if options.system_paths else (),
        readonly_paths=security.READONLY_PATHS if options.system_paths else (),
    )
    spec = Spec(
        oci_version=OCI_VERSION,
        root=Root(path=ROOTFS, readonly=request.read_only),
        mounts=mounts.mounts(request, record.mounts, directory, subject, trees),
        process=process,
        hostname=record.config.hostname,
        linux=linux,
    )
    return Compiled(spec, (*warnings, *_capability_warnings(request, host), *mounts.warnings(request)))


def _namespaces(request: ContainerRequest, subject: str) -> tuple[Namespace, ...]:
    network = request.network or "none"
    if network not in NETWORKS:
        cause = f"network {network[:60]} not found: this version has no networks but none and host"
        raise Unsupported("create", subject, cause, hint="use --network none or --network host")
    types = _NAMESPACES if network == "host" else (*_NAMESPACES, "network")
    return tuple(Namespace(type=name) for name in types)


def _seccomp(wanted: str, capabilities: tuple[str, ...], host: Host, subject: str) -> Seccomp | None:
    if wanted == "unconfined":
        return None
    if wanted == "default":
        return seccomp_profile.default(capabilities, host.runtime)
    try:
        return seccomp_profile.parse(wanted, capabilities, host.runtime)
    except Invalid as wrong:
        cause = f"Decoding seccomp profile failed: {wrong.cause}"
        raise Invalid("create", subject, cause, hint=wrong.hint) from None


def _capability_warnings(request: ContainerRequest, host: Host) -> tuple[str, ...]:
    missing = security.missing_capabilities(host)
    if not missing or request.privileged:
        return ()
    return (f"This engine does not have {', '.join(missing)} itself: the container runs without.",)
