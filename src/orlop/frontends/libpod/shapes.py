"""Containers in podman's JSON: an entry of the list (ListContainer), the whole object (InspectContainerData).

The base is docker's object of the same container; here is what podman calls otherwise, counts otherwise, or has beside.
Source: podman 4.3.1, pkg/domain/entities (ListContainer), libpod/define/container_inspect.go; and its answers.
"""

from __future__ import annotations

import os

from ...engine.containers import listing, state
from ...engine.containers.inspect import ZERO_TIME, unix_time
from ...engine.containers.removal import exit_code
from ...engine.networks import listing as network_listing
from ...spec.errors import OrlopError
from ...spec.reference import Reference
from ...spec.signals import name as signal_name
from ...spec.signals import parse as parse_signal
from .networks import name_there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ...engine.containers.record import ContainerRecord
    from ...engine.containers.state import Task
    from ...engine.engine import Engine

ZERO_UNIX = -62135596800  # Go's zero time in seconds since 1970
# What podman has and the engine has not: its pods, its store's locks, its checkpoints.
_WITHOUT = {"Pod": "", "Namespace": "", "IsInfra": False, "IsService": False, "Dependencies": []}
INITIALIZED = "initialized"  # made, and its command waits
PODMAN_5 = 5  # from this version on an entrypoint is a list, and a signal a name
_NAMESPACES = {
    "Cgroup": "cgroup", "Ipc": "ipc", "Mnt": "mnt", "Net": "net", "Pidns": "pid", "User": "user", "Uts": "uts",
}  # fmt: skip
_FILES = ("ResolvConfPath", "HostnamePath", "HostsPath")


def bare(digest: str) -> str:
    """Return an id as podman writes it: without the name of its algorithm."""
    return digest.removeprefix("sha256:")


def full_name(name: str) -> str:
    """Return an image's name as podman writes it: with its registry. What is no name stays as it is."""
    try:
        return str(Reference.parse(name).tagged())
    except OrlopError:
        return name


def summary(engine: Engine, record: ContainerRecord, task: Task, sizes: Mapping[str, object]) -> dict[str, object]:
    """Return one entry of the list. sizes: docker's, {} where nobody asked."""
    told = network_listing.summary_of(engine, record)
    settings, ports = told["NetworkSettings"], told["Ports"]
    assert isinstance(settings, dict) and isinstance(ports, list)
    wait = engine.waits.get(record.id)
    ended = task.exit if task.state == state.EXITED and not wait else None
    return {
        "AutoRemove": record.request.auto_remove,
        "Command": list(record.config.args),
        "Created": record.created_at,
        "CreatedAt": "",
        "Exited": ended is not None,
        "ExitedAt": unix_time(ended.finished_at) if ended else ZERO_UNIX,
        "ExitCode": exit_code(task, record) if ended else 0,
        "Id": record.id,
        "Image": full_name(record.request.image) if record.request.image else "",
        "ImageID": bare(record.image_id),
        "IsInfra": False,
        "Labels": dict(record.config.labels) or None,
        "Mounts": [point.destination for point in record.mounts],
        "Names": [record.name],
        "Namespaces": {},
        "Networks": [name_there(name) for name in settings["Networks"] if name not in ("host", "none")],
        "Pid": wait.pid if wait else task.status.pid if task.lives and task.status else 0,
        "Pod": "",
        "PodName": "",
        "Ports": _ports(ports),
        "Size": {"rootFsSize": sizes["SizeRootFs"], "rwSize": sizes["SizeRw"]} if sizes else None,
        "StartedAt": unix_time(_started_at(task)) or ZERO_UNIX,
        "State": INITIALIZED if wait else task.state,
        "Status": "",
    }


def namespaces(task: Task) -> dict[str, str]:
    """Return the numbers of a container's namespaces, as `ps --ns` shows them."""
    found: dict[str, str] = {}
    if task.lives and task.status is not None:
        for word, kind in _NAMESPACES.items():
            try:
                found[word] = os.readlink(f"/proc/{task.status.pid}/ns/{kind}").partition("[")[2].rstrip("]")
            except OSError:  # it has just ended
                continue
    return found


def _started_at(task: Task) -> str:
    return task.status.started_at if task.status else task.exit.started_at if task.exit else ""


def _ports(told: Sequence[dict[str, Any]]) -> list[dict[str, object]] | None:
    found = {}
    for port in told:
        if "PublicPort" in port:
            address = "" if port["IP"] in ("0.0.0.0", "::") else port["IP"]
            found[address, port["PublicPort"], port["Type"]] = {
                "host_ip": address,
                "container_port": port["PrivatePort"],
                "host_port": port["PublicPort"],
                "range": 1,
                "protocol": port["Type"],
            }
    return list(found.values()) or None


def details(engine: Engine, reference: str, major: int, *, size: bool) -> dict[str, object]:
    """Return the whole object of a container as that version of libpod has it. Raises NotFound, Invalid."""
    found: dict[str, Any] = listing.details(engine, reference, size=size)
    record = engine.records.load(str(found["Id"]))
    spec = engine.records.spec(record.id)
    capabilities = spec.process.capabilities if spec.process is not None else None
    directory = engine.records.path(record.id)
    return {
        **{name: found[name] for name in ("Id", "Created", "Path", "Args", "RestartCount", "Driver", *_FILES)},
        **_WITHOUT,
        "State": _state(found["State"], found["HostConfig"], record) | _waiting(engine, record),
        "Image": bare(record.image_id),
        "ImageDigest": _digest(engine, record),
        "ImageName": full_name(record.request.image) if record.request.image else "",
        "Rootfs": record.request.rootfs,
        "Name": record.name,
        "StaticDir": directory,
        "OCIConfigPath": f"{directory}/config.json",
        "OCIRuntime": "orlop",
        "ConmonPidFile": "",
        "PidFile": "",
        "MountLabel": found["MountLabel"],
        "ProcessLabel": found["ProcessLabel"],
        "AppArmorProfile": found["AppArmorProfile"],
        "EffectiveCaps": sorted(capabilities.effective) if capabilities else [],
        "BoundingCaps": sorted(capabilities.bounding) if capabilities else [],
        "ExecIDs": found["ExecIDs"] or [],
        "GraphDriver": {"Name": found["Driver"], "Data": {}},
        "Mounts": [_mount(one) for one in found["Mounts"]],
        "NetworkSettings": _network_settings(found["NetworkSettings"], record),
        "Config": _config(found["Config"], record, major),
        "HostConfig": _host_config(found, record),
        **{name: found[name] for name in ("SizeRw", "SizeRootFs") if name in found},
    }


def _digest(engine: Engine, record: ContainerRecord) -> str:
    try:
        return str(engine.images.resolve(record.image_id).target.digest) if record.image_id else ""
    except OrlopError:
        return ""  # the image is gone


def _state(told: dict[str, Any], host: dict[str, Any], record: ContainerRecord) -> dict[str, object]:
    never = {"CheckpointedAt": ZERO_TIME, "RestoredAt": ZERO_TIME}
    running = told["Running"] and not told["Paused"]  # docker's paused ones run
    health = told.get("Health") or {"Status": "", "FailingStreak": 0, "Log": None}
    return {**told, **never, "OciVersion": "1.2.0", "Running": running, "Health": health, "CgroupPath": record.cgroup}


def _waiting(engine: Engine, record: ContainerRecord) -> dict[str, object]:
    wait = engine.waits.get(record.id)
    return {"Status": INITIALIZED, "Pid": wait.pid} if wait else {}


def _mount(told: dict[str, Any]) -> dict[str, object]:
    mode = [word for word in str(told["Mode"]).split(",") if word not in ("", "z", "Z", "rw", "ro")]
    return {**told, "Options": mode, "Mode": ""}


def _network_settings(told: dict[str, Any], record: ContainerRecord) -> dict[str, object]:
    places = {
        name_there(name): {**one, "Aliases": [*(one["Aliases"] or ()), record.id[:12]]}
        for name, one in told["Networks"].items()
        if name not in ("host", "none")
    }
    return {**told, "Networks": places}


def _config(told: dict[str, Any], record: ContainerRecord, major: int) -> dict[str, object]:
    umask = record.request.umask
    number = parse_signal(record.config.stop_signal, record.subject)
    entrypoint = told["Entrypoint"] or ()
    is_old = major < PODMAN_5
    return {
        **told,
        "Image": full_name(record.request.image) if record.request.image else "",
        "Entrypoint": " ".join(entrypoint) if is_old else list(entrypoint) or None,
        "Annotations": dict(record.request.annotations) or None,
        "StopSignal": number if is_old else signal_name(number),
        "StopTimeout": told["StopTimeout"] if told["StopTimeout"] is not None else 10,
        "HealthcheckOnFailureAction": record.request.health_on_failure,
        "Umask": f"{0o022 if umask is None else umask:04o}",
        "Timeout": record.request.timeout_s,
        "sdNotifyMode": "ignore",
    }


def _host_config(found: dict[str, Any], record: ContainerRecord) -> dict[str, object]:
    told = found["HostConfig"]
    restart = told["RestartPolicy"]
    log = told["LogConfig"]
    return {
        **told,
        "NetworkMode": "bridge" if name_there(told["NetworkMode"]) not in ("host", "none") else told["NetworkMode"],
        "RestartPolicy": {**restart, "Name": "" if restart["Name"] == "no" else restart["Name"]},
        "LogConfig": {"Type": log["Type"], "Config": log["Config"], "Path": found["LogPath"], "Tag": "", "Size": "0B"},
        "CgroupManager": "cgroupfs",
        "CgroupMode": told["CgroupnsMode"],
        "Cgroups": "default",
        "CgroupConf": None,
        "MemorySwappiness": told["MemorySwappiness"] or 0,
        "PidMode": told["PidMode"] or "private",
        "UTSMode": told["UTSMode"] or "private",
        "Ulimits": [
            {"Name": f"RLIMIT_{one['Name'].upper()}", "Soft": one["Soft"], "Hard": one["Hard"]}
            for one in told["Ulimits"]
        ],
        "CapAdd": told["CapAdd"] or [],
        "CapDrop": told["CapDrop"] or [],
        "Binds": told["Binds"] or [],
        "ExtraHosts": told["ExtraHosts"] or [],
        "GroupAdd": told["GroupAdd"] or [],
        "SecurityOpt": told["SecurityOpt"] or [],
        "Tmpfs": told.get("Tmpfs") or {},
    }
