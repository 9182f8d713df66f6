"""The parts of a container put together: its OCI spec and what to tell the user."""

from __future__ import annotations

from ...runtime import landlock, reaper
from ...spec.container import ContainerRequest
from ...spec.errors import Invalid
from ...spec.runtime import OCI_VERSION, Linux, Mount, Process, Root, Seccomp, Spec, User
from ..containers.record import ContainerRecord
from ..host import NO_DEVICES, Devices, Host
from . import config, mounts, namespaces, resources, seccomp_profile, security, unprivileged
from . import devices as device_nodes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

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
    devices: Devices = NO_DEVICES,
    trees: Mapping[str, Mount] | None = None,
) -> Compiled:
    """Return the spec of a container.

    directory: the container's own, which holds its files for /etc. devices: those that the request
    needs to know (host.devices).
    trees: what mounts an image's tree, by the snapshot's key.
    Raises Invalid for a request that contradicts itself, Unsupported for what this machine can't do.
    """
    request, subject = record.request, record.subject
    namespaces.check(request, subject)
    options = security.options(request, host, subject)
    if options.nesting:
        namespaces.check_nesting(record, host)
    limits, warnings = resources.resources(request, host, devices, subject)
    capabilities = security.capabilities(request, host, subject)
    process = Process(
        cwd=record.config.working_dir or "/",
        terminal=request.terminal,
        env=config.environment(record.config, request.terminal),
        args=record.config.args,
        user=User(umask=request.umask),
        capabilities=capabilities,
        no_new_privileges=options.no_new_privileges,
        apparmor_profile=options.apparmor,
        rlimits=resources.rlimits(request, host),
        oom_score_adj=resources.oom_score_adj(request, subject),
    )
    linux = Linux(
        resources=limits,
        cgroups_path=record.cgroup,
        namespaces=namespaces.namespaces(request, subject),
        sysctl=namespaces.sysctls(request, subject),
        time_offsets=namespaces.time_offsets(request, subject),
        devices=device_nodes.nodes(request, devices, subject),
        seccomp=_seccomp(options, capabilities.bounding, host, subject),
        rootfs_propagation=mounts.rootfs_propagation(record.mounts),
        masked_paths=(*security.MASKED_PATHS, *host.thermal_throttle) if options.system_paths else (),
        readonly_paths=security.READONLY_PATHS if options.system_paths else (),
    )
    spec = Spec(
        oci_version=OCI_VERSION,
        root=Root(path=ROOTFS, readonly=request.read_only),
        mounts=namespaces.ipc_mounts(
            _with_cgroup(mounts.mounts(request, record.mounts, directory, subject, trees), options), request, subject
        ),
        process=process,
        hostname="" if namespaces.has_name_of_others(request) else record.config.hostname,
        domainname=request.domainname,
        annotations=_annotations(request, options),
        linux=linux,
    )
    spec = unprivileged.with_ids(spec, record, directory, host)
    spec, lessened = unprivileged.adapted(spec, request, host, devices)
    if devices.edits:
        from ..cdi import edits

        shown = not host.runtime.initial_user_namespace or bool(spec.linux.uid_mappings)
        spec = edits.applied(spec, devices.edits, devices.named, subject, shown=shown)
    lessened += resources.rlimit_warnings(request, host)
    return Compiled(spec, (*warnings, *lessened, *_capability_warnings(request, host), *mounts.warnings(request)))


def _annotations(request: ContainerRequest, options: security.Security) -> dict[str, str]:
    """Return the annotations, with those that our runtime reads."""
    own = {reaper.ANNOTATION: "true"} if request.init else {}
    if options.landlock is not None:
        own[landlock.ANNOTATION] = options.landlock
    return {**request.annotations, **own}


def _with_cgroup(found: tuple[Mount, ...], options: security.Security) -> tuple[Mount, ...]:
    """Return the mounts, the cgroup's writable where --security-opt writable-cgroups asks for it."""
    if not options.writable_cgroups:
        return found
    return tuple(
        mount.replace(options=tuple(option for option in mount.options if option != "ro"))
        if mount.type == "cgroup"
        else mount
        for mount in found
    )


def _seccomp(options: security.Security, capabilities: tuple[str, ...], host: Host, subject: str) -> Seccomp | None:
    wanted = options.seccomp
    if wanted == "unconfined":
        return None
    if wanted == "default":
        return seccomp_profile.default(capabilities, host.runtime, nesting=options.nesting)
    try:
        return seccomp_profile.parse(wanted, capabilities, host.runtime)
    except Invalid as wrong:
        cause = f"Decoding seccomp profile failed: {wrong.cause}"
        raise Invalid("create", subject, cause, hint=wrong.hint, code="E0208") from None


def _capability_warnings(request: ContainerRequest, host: Host) -> tuple[str, ...]:
    missing = security.missing_capabilities(host)
    if not missing or request.privileged:
        return ()
    return (f"This engine does not have {', '.join(missing)} itself: the container runs without.",)
