"""podman's SpecGenerator becomes a ContainerRequest.

Every field that podman 4.3's client can write has its row here: honoured, refused when it asks for what is not there,
or ignored because it asks for nothing that a container could tell. A field that is not known is refused: it is a wish.
Source: podman 4.3.1, pkg/specgen/specgen.go (SpecGenerator), namespaces.go (Namespace), and what its client sends.
"""

from __future__ import annotations

from ...spec.container import BindRequest, ContainerRequest, DeviceRequest, GrantRequest, TmpfsRequest, UlimitRequest
from ...spec.errors import Invalid, Unsupported
from ...spec.mount import BindOptions, MountRequest
from ...spec.network import PORT_MAX, EndpointRequest, PortRequest
from ..docker.creation import Reader, health
from . import networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...engine.engine import Engine

    Fields = dict[str, Any]

_READ = frozenset(
    "name command entrypoint env unsetenv labels annotations terminal stdin stop_signal stop_timeout log_configuration"
    " restart_policy restart_tries pidns utsns ipcns cgroupns userns netns hostname sysctl remove dependencyContainers"
    " image image_os image_arch image_variant rootfs mounts volumes image_volumes volumes_from devices"
    " device_cgroup_rule shm_size work_dir init secrets privileged user groups cap_add cap_drop selinux_opts"
    " apparmor_profile seccomp_profile_path no_new_privileges read_only_filesystem umask unmask cgroup_parent"
    " portmappings publish_image_ports expose Networks dns_server dns_search dns_option hostadd resource_limits"
    " r_limits oom_score_adj healthconfig health_check_on_failure_action storage_opts timezone idmappings"
    " read_write_tmpfs removeImage timeout secret_env".split()
)
# What asks for nothing here: what the client remembers of itself, podman's own ways to keep a container, and httpproxy,
# which copies variables of the server's environment.
_IGNORED = frozenset(
    "httpproxy raw_image_name containerCreateCommand manage_password volatile init_container_type init_path"
    " create_working_dir".split()
)
# Fields and the values of them that ask for nothing.
_REFUSED: dict[str, tuple[object, ...]] = {
    "systemd": ("", "true", "false"),  # true means: if the command is systemd's
    "seccomp_policy": ("", "default"),
    "image_volume_mode": ("", "anonymous", "bind"),
    "cgroups_mode": ("", "enabled", "no-conmon"),
    "sdnotifyMode": ("", "container", "ignore"),
    "healthLogDestination": ("", "local"),
    "healthMaxLogCount": (5,),  # what podman 5 keeps where nobody says otherwise, and what is kept here
    "healthMaxLogSize": (500,),
}
# Why something is not there, and what does it instead; of what has no row here its field's name says enough.
_WHY = {
    "pod": ("pods are not there", "leave --pod away"),
    "systemd": (
        "systemd in a container needs a cgroup file system that it may write",
        "use --privileged with --tmpfs /run --tmpfs /run/lock --stop-signal RTMIN+3",
    ),
    "sdnotifyMode": (
        "no unit of systemd is a container's parent here, so nobody waits for its notification",
        "leave --sdnotify away, or ask for --health-cmd and wait --condition=healthy",
    ),
    "env_host": ("the environment would be the engine's, not yours", "give the variables with -e NAME"),
    "use_image_hosts": ("/etc/hosts is the engine's, as its resolver's names are", "leave --no-hosts away"),
    "unsetenvall": ("variables of the image are left out by name only", "use --unsetenv NAME"),
    "startupHealthConfig": (
        "there is one health check, with a period to start in",
        "use --health-start-period and --health-start-interval",
    ),
}
_EMPTY: tuple[object, ...] = (None, "", 0, False, [], {})
CGROUP_FIELDS = {"memory", "cpu", "pids", "blockIO"}
_PROPAGATIONS = frozenset("private rprivate shared rshared slave rslave".split())
_UNLIMITED = 2**63 - 1
_ON_FAILURE = {0: "none", 1: "none", 2: "kill", 3: "restart", 4: "stop"}
_LOG_DRIVERS = {"k8s-file": "json-file", "file": "json-file"}
UMASK_DEFAULT = 0o022
_USER_NAMESPACES = {"no-map": "nomap"}


def container(engine: Engine, body: Fields) -> ContainerRequest:
    """Return what `POST /libpod/containers/create` asks for. Raises Invalid, Unsupported."""
    _refuse_what_is_not_there(body)
    spec = Reader(body, "SpecGenerator")
    restart = spec.text("restart_policy")
    entrypoint, command = spec.texts("entrypoint"), spec.texts("command")
    mode, endpoints = _networks(engine, spec)
    action = spec.number("health_check_on_failure_action")
    if action not in _ON_FAILURE:
        raise _wrong(f"health_check_on_failure_action {action} is none", "choose none, kill, restart or stop")
    return ContainerRequest(
        image=spec.text("image"),
        rootfs=spec.text("rootfs"),
        name=spec.text("name"),
        entrypoint=(entrypoint or ("",)) if "entrypoint" in spec else None,
        args=command or None,
        env=(*(f"{key}={value}" for key, value in spec.pairs("env").items()), *spec.texts("unsetenv")),
        user=spec.text("user"),
        group_add=spec.texts("groups"),
        working_dir=spec.text("work_dir"),
        hostname=spec.text("hostname"),
        labels=spec.pairs("labels"),
        annotations=spec.pairs("annotations"),
        terminal=spec.boolean("terminal"),
        open_stdin=spec.boolean("stdin"),
        stdin_once=spec.boolean("stdin"),  # its client's end of input is the process's, as conmon has it
        auto_remove=spec.boolean("remove"),
        remove_image=spec.boolean("removeImage"),
        stop_signal=str(spec.number("stop_signal") or ""),
        stop_timeout_s=spec.number_or_none("stop_timeout"),
        timeout_s=max(spec.number("timeout"), 0),
        restart_policy="no" if restart == "never" else restart,
        restart_retries_max=spec.number("restart_tries"),
        depends_on=spec.texts("dependencyContainers"),
        platform=_platform(spec),
        network=mode,
        endpoints=endpoints,
        ports=tuple(port for one in spec.parts("portmappings") for port in _ports(one)),
        publish_all=spec.boolean("publish_image_ports"),
        exposed_ports=_exposed(spec.entries("expose")),
        dns=spec.texts("dns_server"),
        dns_search=spec.texts("dns_search"),
        dns_options=spec.texts("dns_option"),
        extra_hosts=spec.texts("hostadd"),
        init=spec.boolean("init"),
        secrets=(*map(_secret, spec.parts("secrets")), *_secret_variables(spec)),
        health=health(spec.part("healthconfig")) if "healthconfig" in spec else None,
        health_on_failure=_ON_FAILURE[action],
        storage_opt=spec.pairs("storage_opts"),
        **_mounts(spec),
        **_isolation(spec),
        **_limits(spec),
        **_log(spec.part("log_configuration")),
    )


def _refuse_what_is_not_there(body: Fields) -> None:
    for field, value in body.items():
        if field in _READ or field in _IGNORED or value in _EMPTY or value in _REFUSED.get(field, ()):
            continue
        cause, hint = _WHY.get(field, ("", "leave its option away"))
        shown = f"{field[:60]} is not supported"
        raise Unsupported("create", "a container", f"{shown}: {cause}" if cause else shown, hint=hint)


def _platform(spec: Reader) -> str:
    system, architecture, variant = (spec.text(name) for name in ("image_os", "image_arch", "image_variant"))
    if not (system or architecture):
        return ""
    return "/".join(filter(None, (system or "linux", architecture, variant)))


# -- networks ---------------------------------------------------------------------------------------------------------


def _namespace(spec: Reader, name: str, allowed: tuple[str, ...] = ()) -> str:
    """Return a namespace as docker's mode. Raises Unsupported, Invalid."""
    wish = spec.part(name)
    mode, value = wish.text("nsmode"), wish.text("value")
    if mode in ("", "default"):
        return ""
    if mode in ("private", "host", *allowed):
        return mode
    if mode == "container" and value:
        return f"container:{value}"
    if mode == "path" and value:
        return f"ns:{value}"
    raise Unsupported(
        "create", "a container", f"{name} {mode[:60]!r} is not supported", hint="choose another one", code="E1301"
    )


def _networks(engine: Engine, spec: Reader) -> tuple[str, tuple[EndpointRequest, ...]]:
    wish = spec.part("netns")
    mode = wish.text("nsmode")
    asked = {name: Reader(value, f"Networks.{name}") for name, value in spec.entries("Networks").items()}
    if mode in ("", "default", "private", "bridge"):
        endpoints = tuple(networks.endpoint(networks.name_here(engine, name), one) for name, one in asked.items())
        return (endpoints[0].network if endpoints else ""), endpoints
    if asked:
        raise _wrong(f"networks can't be joined with --network {mode[:60]}", "leave one of them away")
    if mode in ("none", "no-network"):
        return "none", ()
    return _namespace(spec, "netns"), ()


def _ports(wish: Reader) -> list[PortRequest]:
    count = wish.number("range") or 1
    first, host = wish.number("container_port"), wish.number("host_port")
    if not (0 < count <= PORT_MAX and 0 < first <= PORT_MAX and 0 <= host <= PORT_MAX):
        raise _wrong("a port or a range of ports is outside of 1 to 65535", "write 8080:80")
    try:
        return [
            PortRequest(
                host_ip=wish.text("host_ip"),
                host_first=host,
                host_last=host + count - 1 if host else 0,
                first=first,
                last=first + count - 1,
                protocol=protocol,
            )
            for protocol in (wish.text("protocol") or "tcp").split(",")
        ]
    except ValueError as wrong:
        raise _wrong(str(wrong), "write 8080:80/tcp") from None


def _exposed(wanted: Fields) -> tuple[str, ...]:
    return tuple(f"{port}/{protocol}" for port, words in wanted.items() for protocol in str(words or "tcp").split(","))


# -- mounts and devices -----------------------------------------------------------------------------------------------


def _mounts(spec: Reader) -> Fields:
    binds: list[BindRequest] = []
    mounts: list[MountRequest] = []
    tmpfs: list[TmpfsRequest] = []
    for one in spec.parts("mounts"):
        kind, target, options = one.text("type") or "bind", one.text("destination"), one.texts("options")
        if kind == "tmpfs":
            # What there is below is not copied up; who may see the mount is nobody but the container's business.
            words = tuple(word for word in options if word not in _PROPAGATIONS and word != "tmpcopyup")
            tmpfs.append(TmpfsRequest(target=target, options=words))
        elif kind == "bind":
            mounts.append(_bind(one.text("source"), target, options))
        else:
            raise Unsupported(
                "create", "a container", f"mounts of type {kind[:60]!r} are not there", hint="choose bind"
            )
    for one in spec.parts("volumes"):
        source = "" if one.boolean("IsAnonymous") else one.text("Name")
        binds.append(BindRequest(source=source, target=one.text("Dest"), options=one.texts("Options")))
    for one in spec.parts("image_volumes"):
        if one.boolean("ReadWrite"):
            raise Unsupported("create", "a container", "images are mounted to be read only", hint="leave rw away")
        mounts.append(MountRequest(type="image", source=one.text("Source"), target=one.text("Destination")))
    from ..cli.containers.podman import READ_ONLY_TMPFS, time_zone

    if spec.boolean("read_only_filesystem") and spec.boolean("read_write_tmpfs"):
        taken = {one.target for one in binds} | {one.target for one in mounts} | {one.target for one in tmpfs}
        tmpfs += [TmpfsRequest(target=target) for target in READ_ONLY_TMPFS if target not in taken]
    zone = time_zone(spec.text("timezone"))
    if zone is None:
        raise _wrong(f"unknown time zone {spec.text('timezone')[:60]!r}", "write Area/City, or local")
    return {
        "binds": (*binds, *zone),
        "mounts": tuple(mounts),
        "tmpfs": tuple(tmpfs),
        "volumes_from": spec.texts("volumes_from"),
        "read_only": spec.boolean("read_only_filesystem"),
        "devices": tuple(_device(one.text("path")) for one in spec.parts("devices")),
        "device_cgroup_rules": tuple(map(_device_rule, spec.parts("device_cgroup_rule"))),
    }


def _bind(source: str, target: str, options: tuple[str, ...]) -> MountRequest:
    known = _PROPAGATIONS | {"ro", "rw", "bind", "rbind", "z", "Z"}
    if strange := [word for word in options if word not in known]:
        cause = f"a bind mount can't have the option {strange[0][:60]!r}"
        raise Unsupported("create", "a container", cause, hint="known are ro, rw, bind, rbind, z and a propagation")
    propagation = next((word for word in options if word in _PROPAGATIONS), "")
    return MountRequest(
        type="bind",
        source=source,
        target=target,
        read_only="ro" in options,
        bind=BindOptions(propagation=propagation, non_recursive="bind" in options),
    )


def _device(text: str) -> DeviceRequest:
    source, _, rest = text.partition(":")
    target, _, permissions = rest.partition(":")
    if target and not target.startswith("/"):
        target, permissions = "", target
    if not source.startswith("/"):
        return DeviceRequest(source=text)
    return DeviceRequest(source=source, target=target or source, permissions=permissions or "rwm")


def _device_rule(rule: Reader) -> str:
    numbers = (rule.number_or_none(name) for name in ("major", "minor"))
    major, minor = ("*" if number is None or number < 0 else str(number) for number in numbers)
    return f"{rule.text('type') or 'a'} {major}:{minor} {rule.text('access') or 'rwm'}"


def _secret(wish: Reader) -> GrantRequest:
    mode = wish.number_or_none("Mode")
    return GrantRequest(
        source=wish.text("Source"),
        target=wish.text("Target"),
        uid=wish.number("UID"),
        gid=wish.number("GID"),
        mode=0o444 if mode is None else mode,
    )


def _secret_variables(spec: Reader) -> list[GrantRequest]:
    return [GrantRequest(source=source, env=name) for name, source in spec.pairs("secret_env").items()]


# -- isolation and limits ---------------------------------------------------------------------------------------------


def _isolation(spec: Reader) -> Fields:
    options = [f"label={word}" for word in spec.texts("selinux_opts")]
    if spec.text("apparmor_profile"):
        options.append(f"apparmor={spec.text('apparmor_profile')}")
    if profile := spec.text("seccomp_profile_path"):
        if profile != "unconfined":
            cause = "a seccomp profile is read by the client, and this one names a file of the server"
            raise Unsupported("create", "a container", cause, hint="use docker's API, or orlop run")
        options.append("seccomp=unconfined")
    if spec.boolean("no_new_privileges"):
        options.append("no-new-privileges")
    unmask = [word.lower() for word in spec.texts("unmask")]
    if unmask and unmask != ["all"]:
        raise Unsupported("create", "a container", "single paths can't be unmasked", hint="use unmask=ALL")
    if unmask:
        options.append("systempaths=unconfined")
    try:
        umask = int(spec.text("umask") or "22", 8)
        if not 0 <= umask <= 0o777:
            raise ValueError
    except ValueError:
        raise _wrong(f"umask {spec.text('umask')[:20]!r} is none", "write 0022") from None
    return {
        "privileged": spec.boolean("privileged"),
        "cap_add": spec.texts("cap_add"),
        "cap_drop": spec.texts("cap_drop"),
        "security_opt": tuple(options),
        "umask": None if umask == UMASK_DEFAULT else umask,
        "ipc": _namespace(spec, "ipcns", ("shareable", "none")),
        "pid": _namespace(spec, "pidns"),
        "uts": _namespace(spec, "utsns"),
        "cgroup_namespace": _namespace(spec, "cgroupns"),
        "userns": _user_namespace(spec.part("userns"), spec.part("idmappings")),
        "cgroup_parent": spec.text("cgroup_parent"),
        "sysctls": spec.pairs("sysctl"),
        "shm_bytes": spec.number("shm_size"),
    }


def _user_namespace(wish: Reader, maps: Reader) -> str:
    """Return a user namespace as --userns writes it. Maps by hand are one whose every id has its place by name."""
    uids, gids = (maps.parts(name) for name in ("UIDMap", "GIDMap"))
    if uids or gids:
        words = (_id_map("uidmapping", uids or gids), _id_map("gidmapping", gids or uids))
        size = min(one for one, _ in words)
        return f"auto:size={size}," + ",".join(text for _, text in words)
    mode, value = wish.text("nsmode"), wish.text("value")
    if mode in ("", "default"):
        return ""
    if mode == "path":
        raise Unsupported("create", "a container", "a user namespace is not joined by its path", hint="join its holder")
    mode = _USER_NAMESPACES.get(mode, mode)
    return f"{mode}:{value}" if value else mode


def _id_map(word: str, lines: list[Reader]) -> tuple[int, str]:
    """Return how many ids a map has, from 0 on, and the map as options of --userns=auto. Raises Invalid."""
    rows = sorted((one.number("container_id"), one.number("host_id"), one.number("size")) for one in lines)
    size = 0
    for inside, _, count in rows:
        if inside != size or count <= 0:
            raise _wrong(f"the ids of {word} inside have gaps from {size} on", "map each from 0 on: 0:100000:65536")
        size += count
    return size, ",".join(f"{word}={inside}:{outside}:{count}" for inside, outside, count in rows)


def _limits(spec: Reader) -> Fields:
    limits = spec.part("resource_limits")
    if strange := set(spec.entries("resource_limits")) - CGROUP_FIELDS:
        cause = f"resource_limits.{min(strange)[:60]} is not supported"
        raise Unsupported("create", "a container", cause, hint="leave its option away", code="E1301")
    memory, cpu, io = (limits.part(name) for name in ("memory", "cpu", "blockIO"))
    pids = limits.part("pids").number_or_none("limit")
    for part in ("weightDevice", "throttleReadBpsDevice", "throttleWriteBpsDevice"):
        if part in io:
            raise Unsupported(
                "create", "a container", f"blockIO.{part} is not supported", hint="leave it away", code="E1301"
            )
    return {
        **updated(limits),
        "memory_swappiness": memory.number_or_none("swappiness"),
        "kernel_memory_bytes": memory.number("kernel"),
        "oom_kill_disable": memory.boolean("disableOOMKiller"),
        "cpu_realtime_period_us": cpu.number("realtimePeriod"),
        "cpu_realtime_runtime_us": cpu.number("realtimeRuntime"),
        "pids_max": None if not pids else max(pids, 0),
        "oom_score_adj": spec.number("oom_score_adj"),
        "ulimits": tuple(
            UlimitRequest(
                name=one.text("type").lower().removeprefix("rlimit_"),
                soft=_limit(one.number("soft")),
                hard=_limit(one.number("hard")),
            )
            for one in spec.parts("r_limits")
        ),
    }


def updated(limits: Reader) -> Fields:
    """Return the limits of OCI's LinuxResources that a running container may be given."""
    memory, cpu = limits.part("memory"), limits.part("cpu")
    return {
        "memory_bytes": memory.number("limit"),
        "memory_swap_bytes": memory.number("swap"),
        "memory_reservation_bytes": memory.number("reservation"),
        "cpu_shares": cpu.number("shares"),
        "cpu_quota_us": cpu.number("quota"),
        "cpu_period_us": cpu.number("period"),
        "cpuset_cpus": cpu.text("cpus"),
        "cpuset_mems": cpu.text("mems"),
        "blkio_weight": limits.part("blockIO").number("weight"),
    }


def _limit(number: int) -> int:
    return -1 if number > _UNLIMITED or number < 0 else number


def _log(wish: Reader) -> Fields:
    driver = wish.text("driver")
    if wish.text("path"):
        raise Unsupported("create", "a container", "the place of a log is the engine's", hint="leave path= away")
    options = wish.pairs("options")
    if size := wish.number("size"):
        options["max-size"] = str(size)
    return {"log_driver": _LOG_DRIVERS.get(driver, driver), "log_options": options}


def _wrong(cause: str, hint: str) -> Invalid:
    return Invalid("create", "a container", cause, hint=hint)
