"""What objects have beside for clients of an older version of the API, who read fields that later ones dropped.

A field is told with the value that docker's own daemon gives where it has nothing to say.
Source: moby docs/api/version-history.md.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...spec.container import ContainerRequest

    Version = tuple[int, int]

CONTAINER_SINCE = (1, 45)

# An image's Config is a container's: until 1.50 with all of its fields.
_CONFIG: Mapping[str, object] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}
_CPU: Mapping[str, object] = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}
_NOT_OF_USERS = ("bridge", "host", "none")
_BLOCK = "io_serviced io_queue io_service_time io_wait_time io_merged io_time sectors".split()


def image(found: Mapping[str, object], version: Version) -> dict[str, object]:
    """Return an image's object for a client of that version."""
    config = found.get("Config")
    told = dict(found)
    if version < (1, 50):
        told["Config"] = {**_CONFIG, **(config if isinstance(config, dict) else {})}
        told |= {"Parent": ""}
    if version < (1, 45):
        told |= {"Container": "", "ContainerConfig": dict(_CONFIG)}
    if version < (1, 44):
        told["VirtualSize"] = found["Size"]
    return told


def container(found: dict[str, object], version: Version, request: ContainerRequest) -> dict[str, object]:
    """Return a container's object for a client of a version before CONTAINER_SINCE."""
    settings, config = found["NetworkSettings"], found["Config"]
    assert isinstance(settings, dict) and isinstance(config, dict)
    networks = dict(settings["Networks"])
    for name, place in networks.items():
        if name not in _NOT_OF_USERS:
            networks[name] = place | {"Aliases": [*(place["Aliases"] or ()), str(found["Id"])[:12]]}
    told = found | {"NetworkSettings": settings | {"Networks": networks}}
    if version < (1, 44):
        wanted = request.endpoints[0].mac_address if request.endpoints else ""
        told["Config"] = config | ({"MacAddress": wanted} if wanted else {})
    return told


def images(found: list[dict[str, object]], version: Version) -> list[dict[str, object]]:
    """Return the objects of a list of images for a client of that version."""
    for one in found:
        if version >= (1, 44):
            one.pop("VirtualSize", None)
        if version < (1, 43) and not one["RepoTags"]:
            one |= {"RepoTags": ["<none>:<none>"], "RepoDigests": one["RepoDigests"] or ["<none>@<none>"]}
    return found


def sample(found: Mapping[str, object]) -> dict[str, object]:
    """Return docker's object of what a container uses, whole also where the kernel counts nothing."""
    told = dict(found)
    for name in ("cpu_stats", "precpu_stats"):
        told[name] = _filled(_CPU, told[name])
    blocks: dict[str, object] = {"io_service_bytes_recursive": None, **{f"{name}_recursive": None for name in _BLOCK}}
    told["blkio_stats"] = _filled(blocks, told["blkio_stats"])
    told |= {"num_procs": 0, "storage_stats": {}}
    if not told["networks"]:
        del told["networks"]
    return told


def _filled(blank: Mapping[str, object], found: object) -> dict[str, object]:
    out = dict(blank)
    for key, value in (found if isinstance(found, dict) else {}).items():
        default = out.get(key)
        out[key] = _filled(default, value) if isinstance(default, dict) and isinstance(value, dict) else value
    return out
