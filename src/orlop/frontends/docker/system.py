"""Routes of the engine itself."""

from __future__ import annotations

import os

from ... import __version__
from ...engine import events
from .door import VERSION, VERSION_MIN, Door, Status
from .words import moment_ns

NOT_CACHED = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
_NETWORK_DRIVERS = ["bridge", "host", "macvlan", "null"]
_NO_SWARM = "This node is not a swarm manager. Orlop serves one machine."


def ping(door: Door) -> None:
    headers = {"Content-Type": "text/plain; charset=utf-8", "Builder-Version": "1", "Swarm": "inactive"}
    door.answer(200, headers | NOT_CACHED, b"OK")


def version(door: Door) -> None:
    most, least = (".".join(map(str, one)) for one in (VERSION, VERSION_MIN))
    uname = os.uname()
    details = {"ApiVersion": most, "Arch": _architecture(door), "KernelVersion": uname.release, "Os": "linux"}
    component = {"Name": "Engine", "Version": __version__, "Details": details | {"MinAPIVersion": least}}
    door.answer_json(
        200,
        {
            "Platform": {"Name": "Orlop"},
            "Components": [component],
            "Version": __version__,
            "ApiVersion": most,
            "MinAPIVersion": least,
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": details["Arch"],
            "KernelVersion": uname.release,
            "BuildTime": "",
        },
    )


def _architecture(door: Door) -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(
        door.engine.host.runtime.machine, door.engine.host.runtime.machine
    )


def info(door: Door) -> None:
    engine = door.engine
    states = [engine.observe(record.id).state for record in engine.records.all()]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    uname = os.uname()
    door.answer_json(
        200,
        {
            "ID": engine.paths.root,
            "Containers": len(states),
            "ContainersRunning": states.count("running"),
            "ContainersPaused": states.count("paused"),
            "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
            "Images": len(engine.images.list()),
            "Driver": "overlay2",
            "DriverStatus": [],
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "macvlan", "null"],
                "Authorization": None,
                "Log": [],
            },
            "MemoryLimit": True,
            "SwapLimit": True,
            "CpuCfsPeriod": True,
            "CpuCfsQuota": True,
            "CPUShares": True,
            "CPUSet": True,
            "PidsLimit": True,
            "IPv4Forwarding": True,
            "OomKillDisable": engine.host.runtime.layout.mode != "v2",
            "NGoroutines": 0,
            "NFd": len(os.listdir("/proc/self/fd")),
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2" if engine.host.runtime.layout.mode == "v2" else "1",
            "NEventsListener": 0,
            "KernelVersion": uname.release,
            "OperatingSystem": "Linux",
            "OSType": "linux",
            "Architecture": uname.machine,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "NCPU": engine.host.processors,
            "MemTotal": memory,
            "DockerRootDir": engine.paths.root,
            "Name": engine.host.hostname,
            "Labels": [],
            "ExperimentalBuild": False,
            "ServerVersion": __version__,
            "Runtimes": {"orlop": {"path": "orlop-runtime"}},
            "DefaultRuntime": "orlop",
            "Swarm": {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": "inactive",
                "ControlAvailable": False,
                "Error": "",
            },
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "",
            "SecurityOptions": [f"name={one}" for one in engine.host.security_modules]
            + ["name=seccomp,profile=builtin"],
            "Warnings": None,
        },
    )


def follow(door: Door) -> None:
    since, until = (moment_ns(door.query.get(name, ""), name) for name in ("since", "until"))
    pieces = events.read(door.engine, door.filters(), since, until, door.hangup)
    door.stream(200, {"Content-Type": "application/json"}, pieces)


def swarm(door: Door) -> None:
    raise Status(503, _NO_SWARM)


def plugins(door: Door) -> None:
    door.answer_json(200, [])


ROUTES = (
    ("GET", "/_ping", ping),
    ("HEAD", "/_ping", ping),
    ("GET", "/version", version),
    ("GET", "/info", info),
    ("GET", "/events", follow),
    ("GET", "/plugins", plugins),
    *(
        (method, f"/{noun}{rest}", swarm)
        for noun in ("swarm", "nodes", "services", "tasks", "secrets", "configs")
        for method in ("GET", "POST", "DELETE")
        for rest in ("", "/{rest*}")
    ),
)
