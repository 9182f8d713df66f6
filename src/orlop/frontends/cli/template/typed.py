"""What docker's client makes of an inspected object: Go structs, whose fields are there though the JSON has none.

An absent pointer is <nil> and false, an absent list or map is empty: `{{if .State.Health}}` is no error for a container
without a health check. Only templates see it; what is printed as JSON stays as the engine said it.
"""

from __future__ import annotations

from .values import NIL, NilList, NilMap, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELDS: dict[str, dict[type, str]] = {
    "": {list: "ExecIDs", type(None): "SizeRw SizeRootFs"},
    "State": {type(None): "Health"},
    "HostConfig": {
        list: "Binds CapAdd CapDrop Dns DnsOptions DnsSearch ExtraHosts GroupAdd Links SecurityOpt VolumesFrom Devices"
        " DeviceCgroupRules DeviceRequests Ulimits Mounts BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps"
        " BlkioDeviceReadIOps BlkioDeviceWriteIOps MaskedPaths ReadonlyPaths",
        dict: "PortBindings Sysctls StorageOpt Tmpfs Annotations",
        type(None): "MemorySwappiness OomKillDisable PidsLimit Init",
        str: "Runtime ContainerIDFile VolumeDriver",
    },
    "Config": {
        list: "Env Cmd Entrypoint OnBuild Shell",
        dict: "Volumes ExposedPorts Labels",
        type(None): "Healthcheck StopTimeout",
        str: "StopSignal MacAddress",
        bool: "NetworkDisabled ArgsEscaped",
    },
    "NetworkSettings": {list: "SecondaryIPAddresses SecondaryIPv6Addresses"},
    "GraphDriver": {str: "Name", dict: "Data"},
    "image": {list: "RepoTags RepoDigests", str: "Parent Comment Container DockerVersion Author Variant OsVersion"},
    "image's Config": {
        list: "Env Cmd Entrypoint OnBuild Shell",
        dict: "Volumes ExposedPorts Labels",
        type(None): "Healthcheck",
        str: "User WorkingDir StopSignal",
        bool: "ArgsEscaped",
    },
    "volume": {dict: "Labels Options Status", type(None): "UsageData ClusterVolume"},
    "network": {list: "Peers", dict: "Services Containers Options Labels"},
    "Mounts": {str: "Type Name Driver Source Mode Propagation"},
    "Networks": {type(None): "IPAMConfig", list: "Links Aliases DNSNames", dict: "DriverOpts"},
}
_ABSENT: dict[type, object] = {list: NilList(), dict: NilMap(), type(None): NIL, str: "", bool: False}


def typed(value: object) -> object:
    """Return a container's, an image's, a volume's or a network's object with the fields that Go's structs have.

    Anything else is returned as it is.
    """
    if not isinstance(value, dict):
        return value
    if "HostConfig" in value:
        return _container(value)
    if "RootFS" in value:
        whole = _filled(value, "image")
        for name, kind in (("Config", "image's Config"), ("GraphDriver", "GraphDriver")):
            whole[name] = _filled(value.get(name) or {}, kind)
        whole.hidden |= {"GraphDriver"} - value.keys()
        return whole
    if "Mountpoint" in value:
        return _filled(value, "volume")
    return _filled(value, "network") if "IPAM" in value else value


def _container(value: Mapping[str, object]) -> Struct:
    whole = _filled(value, "")
    for name in ("State", "HostConfig", "Config", "GraphDriver", "NetworkSettings"):
        if isinstance(part := value.get(name), dict):
            whole[name] = _filled(part, name)
    if isinstance(mounts := value.get("Mounts"), list):
        whole["Mounts"] = [_filled(mount, "Mounts") if isinstance(mount, dict) else mount for mount in mounts]
    settings = whole.get("NetworkSettings")
    if isinstance(settings, dict) and isinstance(settings.get("Networks"), dict):
        networks = {
            name: _filled(endpoint, "Networks") if isinstance(endpoint, dict) else endpoint
            for name, endpoint in settings["Networks"].items()
        }
        settings["Networks"] = networks
    return whole


def _filled(value: Mapping[str, object], kind: str) -> Struct:
    return Struct(value, {name: _ABSENT[of] for of, names in _FIELDS[kind].items() for name in names.split()})
