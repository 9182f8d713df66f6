"""docker's Config, HostConfig and NetworkingConfig become a ContainerRequest.

Every field that docker's API knows has its row here: honoured, or refused when it asks for what is not there. A field
of no API version is ignored, as docker's daemon does.
Source: moby api/types/container (Config, HostConfig), api/types/mount, api/types/network, version 1.50.
"""

from __future__ import annotations

from ...engine.compile import security
from ...spec.container import (
    BindRequest,
    ContainerRequest,
    DeviceRate,
    DeviceRequest,
    DeviceWeight,
    ExecRequest,
    TmpfsRequest,
    UlimitRequest,
)
from ...spec.errors import Invalid, Unsupported
from ...spec.image import Healthcheck
from ...spec.mount import BindOptions, ImageOptions, MountRequest, TmpfsOptions, VolumeOptions
from ...spec.network import EndpointRequest, PortRequest
from ...spec.record import INT_MAX, INT_MIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    _Port = tuple[str, str, int, int, int, int]  # protocol, address and port of the host and container, their ends

    Fields = dict[str, Any]

# What Orlop does not have: the field and the values that ask for nothing.
_REFUSED: dict[str, tuple[object, ...]] = {
    "CpuCount": (None, 0),
    "CpuPercent": (None, 0),
    "IOMaximumIOps": (None, 0),
    "IOMaximumBandwidth": (None, 0),
    "Cgroup": (None, ""),
}
_PROCESSORS = "/sys/devices/system/cpu/"
_MASKED_BY_OTHERS = ("/proc/irq", "/proc/bus")  # podman's lists have them the other way
_NETWORK_DEFAULT = ("", "default", "bridge")


class Reader:
    """An object of a request: its fields by name, of the kind that is wanted. Raises Invalid for another kind.

    Names are those of Go's parser, upper case or lower: docker-py writes detachKeys.
    """

    def __init__(self, fields: object, where: str) -> None:
        if fields is None:
            fields = {}
        if not isinstance(fields, dict):
            raise _wrong(where, "an object", fields)
        self._fields: Fields = {name.lower(): value for name, value in fields.items()}
        if len(self._fields) != len(fields):
            raise Invalid("read", "the request", f"{where}: a name comes twice", hint="give each of them once")
        self._where = where

    def __contains__(self, name: str) -> bool:
        return self.raw(name) is not None

    def raw(self, name: str) -> object:
        return self._fields.get(name.lower())

    def text(self, name: str) -> str:
        return str(self._of(name, str, "") or "")

    def boolean(self, name: str) -> bool:
        return bool(self._of(name, bool, False))

    def number(self, name: str) -> int:
        return int(self._of(name, int, 0) or 0)

    def number_or_none(self, name: str) -> int | None:
        value = self._of(name, int, None)
        return None if value is None else int(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings, or one string alone, as a shell's user writes it in Cmd."""
        value = self.raw(name)
        if isinstance(value, str):
            return (value,)
        return tuple(self._each(name, str))

    def pairs(self, name: str) -> dict[str, str]:
        value = self._of(name, dict, {}) or {}
        for key, one in value.items():
            if not isinstance(one, str):
                raise _wrong(f"{self._where}.{name}.{key}", "a string", one)
        return dict(value)

    def keys(self, name: str) -> tuple[str, ...]:
        return tuple(self._of(name, dict, {}) or {})

    def part(self, name: str) -> Reader:
        return Reader(self.raw(name), f"{self._where}.{name}")

    def parts(self, name: str) -> list[Reader]:
        return [Reader(one, f"{self._where}.{name}") for one in self._each(name, dict)]

    def lists(self, name: str) -> list[list[str]]:
        """A list of lists of strings."""
        values = self._each(name, list)
        for one in values:
            for word in one:
                if not isinstance(word, str):
                    raise _wrong(f"{self._where}.{name}", "a list of lists of str", word)
        return values

    def entries(self, name: str) -> dict[str, object]:
        return dict(self._of(name, dict, {}) or {})

    def _each(self, name: str, kind: type) -> list[Any]:
        values = self._of(name, list, []) or []
        for one in values:
            if not isinstance(one, kind):
                raise _wrong(f"{self._where}.{name}", f"a list of {kind.__name__}", one)
        return list(values)

    def _of(self, name: str, kind: type, default: object) -> Any:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise _wrong(f"{self._where}.{name}", kind.__name__, value)
        if isinstance(value, int) and not INT_MIN <= value <= INT_MAX:
            cause = f"{self._where}.{name} does not fit into 64 bits"
            raise Invalid("read", "the request", cause, hint="give a smaller number")
        return value


def container(body: Fields, name: str, platform: str) -> ContainerRequest:
    """Return what `POST /containers/create` asks for. Raises Invalid, Unsupported."""
    config = Reader(body, "Config")
    host = Reader(config.raw("HostConfig"), "HostConfig")
    for field, harmless in _REFUSED.items():
        if host.raw(field) not in harmless:
            _refuse(f"HostConfig.{field}", "leave it away")
    mode, endpoints = _networks(config, host, Reader(config.raw("NetworkingConfig"), "NetworkingConfig"))
    restart = host.part("RestartPolicy")
    log = host.part("LogConfig")
    return ContainerRequest(
        image=config.text("Image"),
        name=name,
        entrypoint=_command(config, "Entrypoint"),
        args=_command(config, "Cmd") or None,
        env=config.texts("Env"),
        user=config.text("User"),
        working_dir=config.text("WorkingDir"),
        hostname=config.text("Hostname"),
        domainname=config.text("Domainname"),
        labels=config.pairs("Labels"),
        terminal=config.boolean("Tty"),
        open_stdin=config.boolean("OpenStdin"),
        stdin_once=config.boolean("StdinOnce"),
        attach=tuple(one for one in ("stderr", "stdin", "stdout") if config.boolean(f"Attach{one.capitalize()}")),
        exposed_ports=_exposed(config.keys("ExposedPorts")),
        stop_signal=config.text("StopSignal"),
        stop_timeout_s=config.number_or_none("StopTimeout"),
        health=health(config.part("Healthcheck")) if "Healthcheck" in config else None,
        platform=platform,
        group_add=host.texts("GroupAdd"),
        auto_remove=host.boolean("AutoRemove"),
        binds=(*map(_bind, host.texts("Binds")), *_image_volumes(config, host)),
        tmpfs=tuple(_tmpfs(target, options) for target, options in host.pairs("Tmpfs").items()),
        mounts=tuple(map(_mount, host.parts("Mounts"))),
        volumes_from=host.texts("VolumesFrom"),
        volume_driver=host.text("VolumeDriver"),
        storage_opt=host.pairs("StorageOpt"),
        read_only=host.boolean("ReadonlyRootfs"),
        cap_add=host.texts("CapAdd"),
        cap_drop=host.texts("CapDrop"),
        privileged=host.boolean("Privileged"),
        security_opt=_security(host),
        network=mode,
        endpoints=endpoints,
        ports=_ports(host),
        publish_all=host.boolean("PublishAllPorts"),
        dns=host.texts("Dns"),
        dns_search=host.texts("DnsSearch"),
        dns_options=host.texts("DnsOptions"),
        extra_hosts=host.texts("ExtraHosts"),
        links=host.texts("Links"),
        restart_policy=restart.text("Name"),
        restart_retries_max=restart.number("MaximumRetryCount"),
        annotations=host.pairs("Annotations"),
        log_driver=log.text("Type"),
        log_options=log.pairs("Config"),
        runtime=host.text("Runtime"),
        isolation=host.text("Isolation"),
        ipc=host.text("IpcMode"),
        pid=host.text("PidMode"),
        uts=host.text("UTSMode"),
        userns=host.text("UsernsMode"),
        cgroup_namespace=host.text("CgroupnsMode"),
        cgroup_parent=host.text("CgroupParent"),
        shm_bytes=host.number("ShmSize"),
        sysctls=host.pairs("Sysctls"),
        **_limits(host),
        **_more(host),
    )


def execution(fields: Reader, subject: str) -> ExecRequest:
    """Return what `POST /containers/{id}/exec` asks for. Raises Invalid."""
    request = ExecRequest(
        args=fields.texts("Cmd"),
        env=fields.texts("Env"),
        user=fields.text("User"),
        working_dir=fields.text("WorkingDir"),
        terminal=fields.boolean("Tty"),
        open_stdin=fields.boolean("AttachStdin"),
        privileged=fields.boolean("Privileged"),
    )
    if not request.args:
        raise Invalid("execute a command in", subject, "no exec command specified", hint="name a command", code="E0313")
    return request


def resources(host: Reader) -> Fields:
    """Return the fields of ContainerRequest and UpdateRequest that limit what a container uses."""
    return {
        "memory_bytes": host.number("Memory"),
        "memory_swap_bytes": host.number("MemorySwap"),
        "memory_reservation_bytes": host.number("MemoryReservation"),
        "cpu_nanos": host.number("NanoCpus"),
        "cpu_shares": host.number("CpuShares"),
        "cpu_period_us": host.number("CpuPeriod"),
        "cpu_quota_us": host.number("CpuQuota"),
        "cpu_realtime_period_us": host.number("CpuRealtimePeriod"),
        "cpu_realtime_runtime_us": host.number("CpuRealtimeRuntime"),
        "cpuset_cpus": host.text("CpusetCpus"),
        "cpuset_mems": host.text("CpusetMems"),
        "blkio_weight": host.number("BlkioWeight"),
    }


def _security(host: Reader) -> tuple[str, ...]:
    # The CLI turns systempaths=unconfined into two empty lists; without the option it sends none. Who makes a container
    # anew from what `inspect` told of it sends lists that lie within ours: more is hidden than they ask for.
    for name, known in (("MaskedPaths", security.MASKED_PATHS), ("ReadonlyPaths", security.READONLY_PATHS)):
        for path in host.texts(name):
            if path not in (*known, *_MASKED_BY_OTHERS) and not path.startswith(_PROCESSORS):
                _refuse(f"HostConfig.{name} with {path[:100]}", "leave it away, or mount something empty there")
    unmasked = host.raw("MaskedPaths") == [] and host.raw("ReadonlyPaths") == []
    return (*host.texts("SecurityOpt"), *(("systempaths=unconfined",) if unmasked else ()))


def _limits(host: Reader) -> Fields:
    pids = host.number_or_none("PidsLimit")
    swappiness = host.number_or_none("MemorySwappiness")
    return {
        **resources(host),
        "pids_max": None if pids is None or pids == 0 else max(pids, 0),
        "memory_swappiness": None if swappiness == -1 else swappiness,
        "kernel_memory_bytes": host.number("KernelMemory"),
        "oom_kill_disable": host.boolean("OomKillDisable"),
        "oom_score_adj": host.number("OomScoreAdj"),
        "ulimits": tuple(
            UlimitRequest(name=one.text("Name"), soft=one.number("Soft"), hard=one.number("Hard"))
            for one in host.parts("Ulimits")
        ),
        "blkio_weight_devices": tuple(
            DeviceWeight(path=one.text("Path"), weight=one.number("Weight")) for one in host.parts("BlkioWeightDevice")
        ),
        "device_read_bps": _rates(host, "BlkioDeviceReadBps"),
        "device_write_bps": _rates(host, "BlkioDeviceWriteBps"),
        "device_read_iops": _rates(host, "BlkioDeviceReadIOps"),
        "device_write_iops": _rates(host, "BlkioDeviceWriteIOps"),
    }


def _more(host: Reader) -> Fields:
    paths = tuple(
        DeviceRequest(
            source=one.text("PathOnHost"),
            target=one.text("PathInContainer") or one.text("PathOnHost"),
            permissions=one.text("CgroupPermissions") or "rwm",
        )
        for one in host.parts("Devices")
    )
    fields: Fields = {
        "devices": (*paths, *_cdi_devices(host)),
        "device_cgroup_rules": host.texts("DeviceCgroupRules"),
    }
    if host.boolean("Init"):
        if "init" not in ContainerRequest._fields:
            _refuse("HostConfig.Init", "leave --init away")
        fields["init"] = True
    return fields


def _cdi_devices(host: Reader) -> tuple[DeviceRequest, ...]:
    """Return the CDI devices that are asked for. Raises Unsupported for a driver of another kind (--gpus)."""
    found: list[DeviceRequest] = []
    for one in host.parts("DeviceRequests"):
        if one.text("Driver") != "cdi":
            hint = "name a CDI device: --device VENDOR/CLASS=NAME"
            capable = " ".join(f"[{' '.join(words)}]" for words in one.lists("Capabilities"))
            cause = f'could not select device driver "{one.text("Driver")[:60]}" with capabilities: [{capable[:200]}]'
            raise Unsupported("create", "a container", cause, hint=hint)
        for name in one.texts("DeviceIDs"):
            if "=" not in name or name.startswith("/"):
                raise Invalid(
                    "create", "a container", f"{name[:100]!r} names no CDI device", hint="write VENDOR/CLASS=NAME"
                )
            found.append(DeviceRequest(source=name))
    return tuple(found)


def _rates(host: Reader, name: str) -> tuple[DeviceRate, ...]:
    return tuple(DeviceRate(path=one.text("Path"), rate=one.number("Rate")) for one in host.parts(name))


def _command(config: Reader, name: str) -> tuple[str, ...] | None:
    # null is the image's; [] and [""] clear the entrypoint, as `--entrypoint ""` does.
    if name not in config:
        return None
    return config.texts(name) or (("",) if name == "Entrypoint" else ())


def health(fields: Reader) -> Healthcheck:
    """Return docker's HealthConfig."""
    return Healthcheck(
        test=fields.texts("Test"),
        interval=fields.number("Interval"),
        timeout=fields.number("Timeout"),
        start_period=fields.number("StartPeriod"),
        start_interval=fields.number("StartInterval"),
        retries=fields.number("Retries"),
    )


def _refuse(field: str, hint: str) -> NoReturn:
    raise Unsupported("create", "a container", f"{field} is not supported", hint=hint, code="E1301")


def _bind(text: str) -> BindRequest:
    parts = text.split(":", 2)
    if not all(parts) or not text:
        raise Invalid(
            "create",
            "a container",
            f"invalid volume specification: '{text[:200]}'",
            hint="write SOURCE:TARGET",
            code="E0405",
        )
    if len(parts) == 1:
        return BindRequest(source="", target=text)
    return BindRequest(source=parts[0], target=parts[1], options=tuple(parts[2].split(",")) if len(parts) > 2 else ())


def _image_volumes(config: Reader, host: Reader) -> list[BindRequest]:
    # `-v /path` reaches the daemon as Config.Volumes; a bind of the same place is stronger.
    taken = {_bind(text).target for text in host.texts("Binds")}
    return [BindRequest(source="", target=path) for path in config.keys("Volumes") if path not in taken]


def _tmpfs(target: str, options: str) -> TmpfsRequest:
    return TmpfsRequest(target=target, options=tuple(options.split(",")) if options else ())


def _mount(fields: Reader) -> MountRequest:
    bind, volume, tmpfs = (fields.part(name) for name in ("BindOptions", "VolumeOptions", "TmpfsOptions"))
    driver = volume.part("DriverConfig")
    return MountRequest(
        type=fields.text("Type") or "bind",
        source=fields.text("Source"),
        target=fields.text("Target"),
        read_only=fields.boolean("ReadOnly"),
        consistency=fields.text("Consistency"),
        bind=BindOptions(
            propagation=bind.text("Propagation"),
            non_recursive=bind.boolean("NonRecursive"),
            create_mountpoint=bind.boolean("CreateMountpoint"),
            read_only_non_recursive=bind.boolean("ReadOnlyNonRecursive"),
            read_only_force_recursive=bind.boolean("ReadOnlyForceRecursive"),
        )
        if "BindOptions" in fields
        else None,
        volume=VolumeOptions(
            no_copy=volume.boolean("NoCopy"),
            labels=volume.pairs("Labels"),
            driver=driver.text("Name"),
            driver_options=driver.pairs("Options"),
            subpath=volume.text("Subpath"),
        )
        if "VolumeOptions" in fields
        else None,
        tmpfs=TmpfsOptions(
            size_bytes=tmpfs.number("SizeBytes"),
            mode=tmpfs.number("Mode"),
            options=_tmpfs_options(tmpfs),
        )
        if "TmpfsOptions" in fields
        else None,
        image=ImageOptions(subpath=fields.part("ImageOptions").text("Subpath")) if "ImageOptions" in fields else None,
    )


def _tmpfs_options(fields: Reader) -> tuple[str, ...]:
    """Return [["name"], ["name", "value"]] as mount options. Raises Invalid."""
    words = fields.lists("Options")
    if not all(1 <= len(word) <= 2 for word in words):
        hint = 'write ["noexec"] or ["size", "64m"]'
        raise Invalid("create", "a container", "TmpfsOptions.Options: invalid option array length", hint=hint)
    return tuple("=".join(word) for word in words)


def _networks(config: Reader, host: Reader, networking: Reader) -> tuple[str, tuple[EndpointRequest, ...]]:
    """Return the first network and the places in all of them."""
    mode = host.text("NetworkMode")
    if config.boolean("NetworkDisabled"):
        return "none", ()
    mode = "" if mode in _NETWORK_DEFAULT else mode
    asked = networking.entries("EndpointsConfig")
    _give_mac_address(config.text("MacAddress"), mode, asked)
    wishes = {name: Reader(value, f"EndpointsConfig.{name}") for name, value in asked.items()}
    if (mode == "host" or mode.startswith(("container:", "ns:"))) and any(
        wish.text("MacAddress") for wish in wishes.values()
    ):
        raise _conflicting_mac()
    if mode in ("none", "host") and any(map(_has_address, wishes.values())):
        cause = "user specified IP address is supported on user defined networks only"
        raise _wrong_place(mode, cause, "leave --ip and --ip6 away")
    if mode in ("none", "host"):
        _check_link_local(mode, wishes)
    if (
        mode in ("none", "host")
        or mode.startswith(("container:", "ns:"))
        or (not any(map(_asks, wishes.values())) and len(wishes) <= 1)
    ):
        return mode, ()
    endpoints = [_endpoint("bridge" if name in _NETWORK_DEFAULT else name, wish) for name, wish in wishes.items()]
    first = mode or "bridge"
    endpoints.sort(key=lambda endpoint: endpoint.network != first)
    if endpoints and endpoints[0].network != first:
        endpoints.insert(0, EndpointRequest(network=first))
    return mode, tuple(endpoints)


def _give_mac_address(address: str, mode: str, wishes: dict[str, object]) -> None:
    """Give the address that clients of an API before 1.44 ask for outside of any network to the place in the first."""
    if not address:
        return
    if mode == "none":
        raise _conflicting_mac()
    first = mode or next((name for name in _NETWORK_DEFAULT if name in wishes), "bridge")
    before = wishes.get(first)
    own = before if isinstance(before, dict) else {}
    if (own.get("MacAddress") or address) != address:
        cause = (
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be"
            " left unset"
        )
        raise Invalid("create", "a container", cause, hint="write one of the two")
    wishes[first] = own | {"MacAddress": address}


def _has_address(wish: Reader) -> bool:
    ipam = wish.part("IPAMConfig")
    return bool(ipam.text("IPv4Address") or ipam.text("IPv6Address"))


def _check_link_local(mode: str, wishes: dict[str, Reader]) -> None:
    """Refuse what is no address, though no interface is there to get it: docker ignores those that are."""
    from ...network import subnet

    for wish in wishes.values():
        for address in wish.part("IPAMConfig").texts("LinkLocalIPs"):
            try:
                subnet.number(address)
            except ValueError:
                cause = f"invalid link-local IP address: {address[:100]}"
                raise _wrong_place(mode, cause, "write one such as 169.254.7.7") from None


def _wrong_place(network: str, cause: str, hint: str) -> Invalid:
    text = f"invalid config for network {network}: invalid endpoint settings:\n{cause}"
    return Invalid("create", "a container", text, hint=hint, code="E0710")


def _conflicting_mac() -> Invalid:
    cause = "conflicting options: mac-address and the network mode"
    return Invalid("create", "a container", cause, hint="leave --mac-address away", code="E0707")


def _asks(wish: Reader) -> bool:
    return any(wish.raw(name) for name in ("IPAMConfig", "Links", "Aliases", "MacAddress", "DriverOpts", "GwPriority"))


def endpoint(name: str, value: object) -> EndpointRequest:
    """Return what an EndpointSettings object asks for in a network."""
    return _endpoint(name, Reader(value, "EndpointConfig"))


def _endpoint(name: str, wish: Reader) -> EndpointRequest:
    ipam = wish.part("IPAMConfig")
    return EndpointRequest(
        network=name,
        aliases=wish.texts("Aliases"),
        links=wish.texts("Links"),
        ipv4=ipam.text("IPv4Address"),
        ipv6=ipam.text("IPv6Address"),
        mac_address=wish.text("MacAddress"),
        gw_priority=wish.number("GwPriority"),
        options=wish.pairs("DriverOpts"),
        link_local=ipam.texts("LinkLocalIPs"),
    )


def _exposed(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return exposed ports with neighbours made one: docker's clients name each port of a range."""
    found: list[str] = []
    begin, last, kind = -1, -1, ""
    for name in names:
        port, slash, protocol = name.partition("/")
        number = int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else -1
        if number >= 0 and found and number == last + 1 and slash + protocol == kind:
            found[-1] = f"{begin}-{number}{kind}"
        else:
            found.append(name)
            begin, kind = number, slash + protocol
        last = number if number >= 0 else -2
    return tuple(found)


def _ports(host: Reader) -> tuple[PortRequest, ...]:
    found = []
    for name, bindings in host.entries("PortBindings").items():
        ports, _, protocol = name.partition("/")
        first, last = _port_range(ports, name)
        for binding in bindings if isinstance(bindings, list) else []:
            wish = Reader(binding, f"PortBindings.{name}")
            host_ip, host_port = wish.text("HostIp"), wish.text("HostPort")
            low, high = _port_range(host_port, name) if host_port else (0, 0)
            found.append((protocol or "tcp", host_ip, first, low, last, high))
    return tuple(_port(one) for one in _joined(found))


def _joined(wanted: list[_Port]) -> list[_Port]:
    """Return ports with neighbours made one: docker's clients write a range as a binding for each of its ports."""
    found: list[_Port] = []
    for one in sorted(wanted):
        if found:
            protocol, host_ip, first, low, last, high = found[-1]
            if (
                one[:4] == (protocol, host_ip, last + 1, high + 1)
                and low
                and high - low == last - first
                and one[5] - one[3] == one[4] - one[2]
            ):
                found[-1] = (protocol, host_ip, first, low, one[4], one[5])
                continue
        found.append(one)
    return found


def _port(wanted: _Port) -> PortRequest:
    protocol, host_ip, first, low, last, high = wanted
    try:
        return PortRequest(host_ip=host_ip, host_first=low, host_last=high, first=first, last=last, protocol=protocol)
    except ValueError as wrong:
        raise Invalid("create", "a container", str(wrong), hint="write ports as 80/tcp") from None


def _port_range(text: str, name: str) -> tuple[int, int]:
    if len(text) <= 5 and text.isascii() and text.isdecimal():
        return (number := int(text)), number
    first, _, last = text.partition("-")
    if (
        not (first.isascii() and first.isdecimal() and (not last or (last.isascii() and last.isdecimal())))
        or len(text) > 11
    ):
        cause = f'invalid port specification: "{text[:60]}"'
        raise Invalid("create", "a container", cause, hint=f"of {name[:60]}; write it as 80/tcp")
    return int(first), int(last or first)


def _wrong(where: str, wanted: str, value: object) -> Invalid:
    return Invalid("read", "the request", f"{where} is {type(value).__name__}, {wanted} is wanted")
