"""Containers in docker's JSON: the summary of /containers/json and the object of /containers/{id}/json.

Pure. The names are the Docker Engine API's (1.50); what does not exist here has docker's empty value.
"""

from __future__ import annotations

from ...spec.task import LOG_FILE
from ...supervise.logread import parse_time
from ..volumes import objects
from . import state
from .hostconfig import host_config
from .removal import exit_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...spec.container import ContainerRequest
    from ...spec.runtime import Spec
    from .record import ContainerRecord
    from .state import Task

ZERO_TIME = "0001-01-01T00:00:00Z"
COMMAND_LENGTH_MAX = 1024
# Of the default bridge alone, for programs of its time: docker tells them empty until API 1.52.
_LEGACY_NETWORK: dict[str, object] = {
    "HairpinMode": False,
    "LinkLocalIPv6Address": "",
    "LinkLocalIPv6PrefixLen": 0,
    "SecondaryIPAddresses": None,
    "SecondaryIPv6Addresses": None,
}
_HEALTH = {"starting": "health: starting"}
_UNITS = (
    (60, 1, "second"),
    (60 * 60, 60, "minute"),
    (48 * 60 * 60, 60 * 60, "hour"),
    (14 * 24 * 60 * 60, 24 * 60 * 60, "day"),
    (60 * 24 * 60 * 60, 7 * 24 * 60 * 60, "week"),
    (2 * 365 * 24 * 60 * 60, 30 * 24 * 60 * 60, "month"),
)


def summary(record: ContainerRecord, task: Task) -> dict[str, object]:
    """Return one entry of the list, but for its Status, which is `status_text`."""
    request = record.request
    return {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": request.image or request.rootfs,
        "ImageID": record.image_id,
        "Command": " ".join(f"'{arg}'" if " " in arg else arg for arg in record.config.args)[:COMMAND_LENGTH_MAX],
        "Created": unix_time(record.created_at),
        "Ports": [],
        "Labels": dict(record.config.labels),
        "State": task.state,
        "HostConfig": {"NetworkMode": request.network or "none"},
        "NetworkSettings": {"Networks": _networks(request)},
        "Mounts": objects.mount_points(record.mounts),
    }


def details(
    record: ContainerRecord,
    task: Task,
    spec: Spec,
    directory: str,
    health: Mapping[str, object] | None = None,
    driver: str = "rootfs",
) -> dict[str, object]:
    """Return the whole object.

    directory: the container's own, of which only the name is used. health: its State.Health.
    """
    request, config = record.request, record.config
    args = config.args
    return {
        "Id": record.id,
        "Created": record.created_at,
        "Path": args[0] if args else "",
        "Args": list(args[1:]),
        "State": {**_state(record, task), **({"Health": health} if health is not None else {})},
        "Image": record.image_id,
        "ResolvConfPath": f"{directory}/resolv.conf",
        "HostnamePath": f"{directory}/hostname",
        "HostsPath": f"{directory}/hosts",
        "LogPath": f"{directory}/{LOG_FILE}",
        "Name": f"/{record.name}",
        "RestartCount": task.status.restarts if task.status is not None else 0,
        "Driver": driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": spec.process.apparmor_profile if spec.process is not None else "",
        "HostConfig": host_config(record, spec),
        "GraphDriver": {"Name": driver, "Data": None},
        "Mounts": objects.mount_points(record.mounts),
        "Config": _config(record),
        "NetworkSettings": {
            **_LEGACY_NETWORK,
            "SandboxID": "",
            "SandboxKey": f"/proc/{task.status.pid}/ns/net" if task.lives and task.status else "",
            "Ports": {},
            "Networks": _networks(request),
        },
    }


def status_text(record: ContainerRecord, task: Task, now: float, health: str = "") -> str:
    """Return docker's words: "Up 2 hours", "Exited (0) 3 seconds ago", "Created"."""
    if task.lives and task.status is not None:
        up = f"Up {duration(now - unix_time(task.status.started_at))}"
        said = "Paused" if task.state == state.PAUSED else _HEALTH.get(health, health)
        return f"{up} ({said})" if said else up
    if task.state in (state.EXITED, state.RESTARTING) and task.exit is not None:
        word = "Exited" if task.state == state.EXITED else "Restarting"
        ago = duration(now - unix_time(task.exit.finished_at))
        return f"{word} ({exit_code(task, record)}) {ago} ago"
    return task.state.capitalize()


def duration(seconds: float) -> str:
    """Return a length of time as docker says it: one unit, rounded down."""
    whole = max(0, int(seconds))
    if whole < 1:
        return "Less than a second"
    if 60 <= whole < 120:
        return "About a minute"
    if 3600 <= whole < 2 * 3600:
        return "About an hour"
    for limit, unit, name in _UNITS:
        if whole < limit:
            count = whole // unit
            return f"{count} {name}" if count == 1 else f"{count} {name}s"
    return f"{whole // (365 * 24 * 60 * 60)} years"


def unix_time(text: str) -> int:
    """Return the whole seconds since 1970 of an RFC 3339 time in UTC, 0 for what is none."""
    try:
        return parse_time(text) // 10**9
    except ValueError:
        return 0


def _state(record: ContainerRecord, task: Task) -> dict[str, object]:
    restarting = task.state == state.RESTARTING
    ended = task.exit
    return {
        "Status": task.state,
        "Running": task.is_up,
        "Paused": task.state == state.PAUSED,
        "Restarting": restarting,
        "OOMKilled": bool(ended and ended.oom_killed),
        "Dead": False,
        "Pid": task.status.pid if task.lives and task.status else 0,
        "ExitCode": exit_code(task, record),
        "Error": record.start_error or (ended.error if ended else ""),
        "StartedAt": task.status.started_at if task.status else ended.started_at if ended else ZERO_TIME,
        "FinishedAt": _finished_at(task),
    }


def _finished_at(task: Task) -> str:
    """Return when the last run ended that did: while one goes on, that is the one before it."""
    if task.exit is not None:
        return task.exit.finished_at
    return (task.status.finished_before if task.status is not None else "") or ZERO_TIME


def _config(record: ContainerRecord) -> dict[str, object]:
    request, config = record.request, record.config
    healthcheck = {"Healthcheck": config.health.to_json()} if config.health is not None else {}
    return {
        "Hostname": config.hostname,
        "Domainname": request.domainname,
        "User": config.user,
        "AttachStdin": "stdin" in request.attach,
        "AttachStdout": "stdout" in request.attach,
        "AttachStderr": "stderr" in request.attach,
        "Tty": request.terminal,
        "OpenStdin": request.open_stdin,
        "StdinOnce": request.stdin_once,
        "Env": list(config.env),
        "Cmd": list(config.cmd) or None,
        "Image": request.image or request.rootfs,
        "Volumes": {path: {} for path in config.volumes} or None,
        "WorkingDir": config.working_dir,
        "Entrypoint": list(config.entrypoint) or None,
        "OnBuild": None,
        **healthcheck,
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
        "StopTimeout": config.stop_timeout_s,
    }


def _networks(request: ContainerRequest) -> dict[str, object]:
    return {
        request.network or "none": {
            "IPAMConfig": None,
            "Links": None,
            "Aliases": None,
            "MacAddress": "",
            "DriverOpts": None,
            "GwPriority": 0,
            "NetworkID": "",
            "EndpointID": "",
            "Gateway": "",
            "IPAddress": "",
            "IPPrefixLen": 0,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": None,
        }
    }
