"""Routes of the engine itself."""

from __future__ import annotations

import time

from ... import __version__
from ...engine import events
from ...engine import info as facts
from ...engine.containers import listing, pruning
from ...engine.images import disk
from ...engine.images.filters import moment
from ...engine.images.removal import prune as prune_images
from ...engine.networks import lifecycle
from ...engine.volumes import verbs as volume_verbs
from ...spec import jsonio
from ..docker.door import Door, Status
from ..docker.system import NOT_CACHED, objects
from ..docker.words import prune_filters
from .networks import name_there
from .shapes import PODMAN_5, bare, full_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

API, API_MIN = "4.3.1", "4.0.0"
# docker's words for what happened, in podman's; what is in neither is not told: its client knows no other words.
_ACTIONS = {
    "container": {
        "attach": "attach",
        "commit": "commit",
        "create": "create",
        "destroy": "remove",
        "die": "died",
        "exec_die": "exec_died",
        "exec_start": "exec",
        "export": "export",
        "health_status": "health_status",
        "kill": "kill",
        "pause": "pause",
        "prune": "prune",
        "rename": "rename",
        "restart": "restart",
        "start": "start",
        "stop": "stop",
        "unpause": "unpause",
    },
    "image": {
        "delete": "remove",
        "import": "import",
        "load": "loadfromarchive",
        "prune": "prune",
        "pull": "pull",
        "push": "push",
        "save": "save",
        "tag": "tag",
        "untag": "untag",
    },
    "network": {"connect": "connect", "disconnect": "disconnect", "create": "create", "destroy": "remove"},
    "volume": {"create": "create", "destroy": "remove", "prune": "prune"},
}
_OURS = {
    theirs: ours for kind in ("volume", "network", "image", "container") for ours, theirs in _ACTIONS[kind].items()
}


def ping(door: Door) -> None:
    headers = {"Content-Type": "text/plain; charset=utf-8", "Builder-Version": "", "Buildkit-Version": ""}
    door.answer(200, headers | NOT_CACHED, b"OK")


def version(door: Door) -> None:
    """Answer docker's object with podman's component, which its client looks for by name."""
    found = facts.version(door.engine)
    details = {
        "APIVersion": API,
        "MinAPIVersion": API_MIN,
        "Arch": found["Arch"],
        "Os": found["Os"],
        "KernelVersion": found["KernelVersion"],
        "GoVersion": "",
        "GitCommit": "",
        "BuildTime": "1970-01-01T00:00:00Z",
        "Experimental": "false",
    }
    component = {"Name": "Podman Engine", "Version": f"{API} as Orlop {__version__} speaks it", "Details": details}
    docker = {"ApiVersion": "1.41", "MinAPIVersion": "1.40"}
    door.answer_json(200, found | docker | {"Components": [component], "Version": API})


def info(door: Door) -> None:
    found = facts.info(door.engine)
    version_ = {"APIVersion": API, "Version": API, "GoVersion": "", "GitCommit": "", "BuiltTime": "", "Built": 0}
    door.answer_json(
        200,
        {
            "host": _host(door, found),
            "store": _store(door, found),
            "registries": {},
            "plugins": {
                "volume": ["local"],
                "network": ["bridge", "macvlan", "ipvlan"],
                "log": ["json-file"],
                "authorization": None,
            },
            "version": version_ | {"OsArch": f"linux/{facts.version(door.engine)['Arch']}", "Os": "linux"},
        },
    )


def _host(door: Door, found: Mapping[str, object]) -> dict[str, object]:
    name, _, release = str(found["OperatingSystem"]).partition(" ")
    rootless = not door.engine.host.runtime.initial_user_namespace
    return {
        "arch": facts.version(door.engine)["Arch"],
        "buildahVersion": "",
        "cgroupManager": "cgroupfs",
        "cgroupVersion": f"v{found['CgroupVersion']}",
        "cgroupControllers": sorted(door.engine.host.controllers),
        "conmon": {"package": "", "path": "", "version": f"Orlop {__version__}: a monitor for each container"},
        "cpus": found["NCPU"],
        "distribution": {"distribution": name.lower(), "version": release},
        "eventLogger": "file",
        "hostname": found["Name"],
        "idMappings": {"gidmap": None, "uidmap": None},
        "kernel": found["KernelVersion"],
        "logDriver": "json-file",
        "memTotal": found["MemTotal"],
        "networkBackend": "orlop",
        "ociRuntime": {"name": "orlop", "package": "", "path": "orlop-runtime", "version": f"orlop {__version__}"},
        "os": "linux",
        "remoteSocket": {"exists": True},
        "serviceIsRemote": True,
        "security": {
            "apparmorEnabled": "apparmor" in door.engine.host.security_modules,
            "rootless": rootless,
            "seccompEnabled": True,
            "seccompProfilePath": "",
            "selinuxEnabled": "selinux" in door.engine.host.security_modules,
            "capabilities": "",
        },
        "swapFree": 0,
        "swapTotal": 0,
        "uptime": "",
        "linkmode": "static",
    }


def _store(door: Door, found: Mapping[str, object]) -> dict[str, object]:
    root = found["DockerRootDir"]
    return {
        "configFile": "",
        "containerStore": {
            "number": found["Containers"],
            "paused": found["ContainersPaused"],
            "running": found["ContainersRunning"],
            "stopped": found["ContainersStopped"],
        },
        "graphDriverName": found["Driver"],
        "graphOptions": {},
        "graphRoot": root,
        "graphStatus": {},
        "imageStore": {"number": found["Images"]},
        "runRoot": door.engine.paths.run,
        "volumePath": f"{root}/volumes",
    }


def disk_usage(door: Door) -> None:
    found = disk.usage(door.engine)
    engine = door.engine
    images, sizes = [], {}
    for one in objects(found["Images"]):
        sizes[one["Id"]] = int(str(one["Size"]))
        names = one.get("RepoTags")
        for name in names if isinstance(names, list) and names else ["<none>:<none>"]:
            repository, _, tag = name.rpartition(":") if "<" in name else full_name(name).rpartition(":")
            images.append(
                {
                    "Repository": repository,
                    "Tag": tag,
                    "ImageID": bare(str(one["Id"])),
                    "Created": one["Created"],
                    "Size": one["Size"],
                    "SharedSize": one["SharedSize"],
                    "UniqueSize": int(str(one["Size"])) - int(str(one["SharedSize"])),
                    "Containers": one["Containers"],
                }
            )
    containers = []
    for record, task, _ in listing.chosen(engine, True, {}):
        used = listing.sizes(engine, record)
        containers.append(
            {
                "ContainerID": record.id,
                "Image": bare(record.image_id),
                "Command": list(record.config.args),
                "LocalVolumes": sum(point.type == "volume" for point in record.mounts),
                "Size": used["SizeRootFs"],
                "RWSize": used["SizeRw"],
                "Created": record.created_at,
                "Status": task.state,
                "Names": record.name,
            }
        )
    volumes = []
    for one in objects(found["Volumes"]):
        usage = one["UsageData"]
        assert isinstance(usage, dict)
        size = usage["Size"]
        free = 0 if usage["RefCount"] else size
        volumes.append({"VolumeName": one["Name"], "Links": usage["RefCount"], "Size": size, "ReclaimableSize": free})
    told: dict[str, object] = {"Images": images, "Containers": containers, "Volumes": volumes}
    if door.major >= PODMAN_5:
        told["ImagesSize"] = sum(sizes.values())
    door.answer_json(200, told)


# -- events -----------------------------------------------------------------------------------------------------------


def follow(door: Door) -> None:
    since, until = (_moment_ns(door.query.get(name, "")) for name in ("since", "until"))
    if not door.flag("stream", default=True):
        since, until = since or 0, min(until or time.time_ns(), time.time_ns())
    chosen = door.filters()
    if "event" in chosen:
        chosen["event"] = tuple(_OURS.get(word, word) for word in chosen["event"])
    pieces = events.read(door.engine, chosen, since, until, door.hangup)
    door.stream(200, {"Content-Type": "application/json"}, map(_told, pieces))


def _moment_ns(text: str) -> int | None:
    return int(moment(text) * 1e9) if text else None


def _told(lines: bytes) -> bytes:
    return b"".join(_event(line) for line in lines.splitlines())


def _event(line: bytes) -> bytes:
    one: dict[str, Any] = jsonio.parse_object(line, "an event")
    if "Action" not in one:
        return line + b"\n"  # that events were lost
    kind = one["Type"]
    action = _ACTIONS.get(kind, {}).get(one["Action"].partition(":")[0])
    if action is None:
        return b""
    before = one["Actor"]["Attributes"]
    attributes = before | {
        "containerExitCode": str(before.get("exitCode", "0")),
        "image": full_name(before["image"]) if before.get("image") else "",
        "name": before.get("name", one["Actor"]["ID"]),
        "podId": "",
    }
    identifier = one["Actor"]["ID"]
    if kind == "network":  # of a container that comes or goes it is the container's event
        attributes["network"] = name_there(str(before.get("name", "")))
        identifier = before.get("container", identifier)
    actor = {"ID": identifier, "Attributes": attributes}
    moments = {name: one[name] for name in ("time", "timeNano")}
    return (
        jsonio.dump({"status": action, "Type": kind, "Action": action, "Actor": actor, "scope": "local"} | moments)
        + b"\n"
    )


def prune(door: Door) -> None:
    """Remove what nobody uses, in docker's order: containers, volumes if asked, networks, images."""
    if set(door.filters()) - {"until", "label", "label!"}:
        raise Status(400, "known filters are until and label")
    if door.flag("external"):
        raise Status(501, "there are no containers of others here: leave --external away")
    filters = prune_filters(door)
    engine = door.engine
    ids, freed = pruning.prune(engine, *filters)
    volumes, freed_by_volumes = volume_verbs.prune(engine, {"all": ("true",)}) if door.flag("volumes") else ([], 0)
    networks = lifecycle.prune(engine, *filters)
    images = prune_images(engine, unused=door.flag("all"), filters=door.filters())
    deleted, reclaimed = images["ImagesDeleted"], int(str(images["SpaceReclaimed"]))
    assert isinstance(deleted, list)
    gone = [bare(one["Deleted"]) for one in deleted if "Deleted" in one]
    door.answer_json(
        200,
        {
            "PodPruneReport": None,
            "ContainerPruneReports": _reports(ids),
            "VolumePruneReports": _reports(volumes),
            "NetworkPruneReports": [{"Name": name, "Error": None} for name in networks] or None,
            "ImagePruneReports": _reports(gone),
            "ReclaimedSpace": freed + freed_by_volumes + reclaimed,
        },
    )


def check(door: Door) -> None:
    """Look whether the store is whole; repair puts right what can be. quick says nothing here: all of it is read."""
    from ...engine.images.fsck import LEFTOVER
    from ...engine.images.fsck import check as look

    found = look(door.engine, repair=door.flag("repair") or door.flag("repair_lossy"))
    wrong: dict[str, list[str]] = {}
    removed = [str(one["subject"]) for one in found if one["repaired"] and one["kind"] != LEFTOVER]
    for one in found:
        if one["kind"] != LEFTOVER:
            wrong.setdefault(str(one["subject"]), []).append(str(one["cause"]))
    door.answer_json(
        200, {"Errors": len(removed) < len(wrong), "Images": wrong, "RemovedImages": {one: [] for one in removed}}
    )


def _reports(names: list[str]) -> list[dict[str, object]] | None:
    return [{"Id": name, "Err": None, "Size": 0} for name in names] or None


ROUTES = (
    ("GET", "/libpod/_ping", ping),
    ("HEAD", "/libpod/_ping", ping),
    ("GET", "/libpod/version", version),
    ("GET", "/libpod/info", info),
    ("GET", "/libpod/events", follow),
    ("GET", "/libpod/system/df", disk_usage),
    ("POST", "/libpod/system/prune", prune),
    ("POST", "/libpod/system/check", check),
)
