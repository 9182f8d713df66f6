"""What the engine and the machine are: docker's objects of /info and /version.

The names are the Docker Engine API's (1.50). What docker has and Orlop has not (Swarm, GPUs) has docker's empty value.
"""

from __future__ import annotations

import os

from .. import __version__
from ..linux.path import read_file
from ..snapshot.overlay import lies_on_overlay
from ..spec.task import LOG_DRIVERS
from . import strict
from .cdi import specs
from .compile.security import DEFAULT
from .containers import state
from .containers.record import disk_trouble_told, timestamp, write_durably

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .engine import Engine

API_VERSION, API_VERSION_MIN = "1.50", "1.40"
ID_FILE = "engine-id"
ID_BYTES, ID_FILE_BYTES_MAX = 16, 64
NETWORK_DRIVERS = ("bridge", "host", "ipvlan", "macvlan", "null")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # the kernel's name: Go's


def version(engine: Engine) -> dict[str, object]:
    """Return docker's object of the engine's version."""
    architecture = _ARCHITECTURES.get(engine.host.runtime.machine, engine.host.runtime.machine)
    kernel = os.uname().release
    details = {
        "ApiVersion": API_VERSION,
        "Arch": architecture,
        "Experimental": "false",
        "KernelVersion": kernel,
        "MinAPIVersion": API_VERSION_MIN,
        "Os": "linux",
    }
    return {
        "Platform": {"Name": "Orlop"},
        "Components": [{"Name": "Engine", "Version": __version__, "Details": details}],
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": API_VERSION_MIN,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": architecture,
        "KernelVersion": kernel,
        "BuildTime": "",
    }


def info(engine: Engine) -> dict[str, object]:
    """Return docker's object of the engine and its machine. Waits for no container."""
    states = [engine.observe(record.id).state for record in engine.records.all()]
    running = states.count(state.RUNNING) + states.count(state.RESTARTING)
    paused = states.count(state.PAUSED)
    return {
        "ID": engine_id(engine),
        "Containers": len(states),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(states) - running - paused,
        "Images": len(engine.images.list()),
        "Driver": engine.snapshots.driver.name,
        "DriverStatus": [],
        "Plugins": {
            "Volume": ["local"],
            "Network": list(NETWORK_DRIVERS),
            "Authorization": None,
            "Log": list(LOG_DRIVERS),
        },
        **_limits(engine),
        **_machine(engine),
        "IPv4Forwarding": True,
        "Debug": False,
        "NFd": len(os.listdir("/proc/self/fd")),
        "NGoroutines": 0,
        "SystemTime": timestamp(),
        "LoggingDriver": "json-file",
        "NEventsListener": engine.journal.listeners(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": None,
        "GenericResources": None,
        "DockerRootDir": engine.paths.root,
        "HttpProxy": os.environ.get("HTTP_PROXY", ""),
        "HttpsProxy": os.environ.get("HTTPS_PROXY", ""),
        "NoProxy": os.environ.get("NO_PROXY", ""),
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": __version__,
        "Runtimes": {"orlop": {"path": "orlop-runtime"}},
        "DefaultRuntime": "orlop",
        "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False, "Error": ""},
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "",
        **{f"{program}Commit": {"ID": ""} for program in ("Containerd", "Init", "Runc")},  # none of them is used
        "CDISpecDirs": list(specs.directories()),
        "SecurityOptions": [
            *(f"name={module}" for module in engine.host.security_modules),
            "name=seccomp,profile=builtin",
            "name=cgroupns",
            *(() if engine.host.runtime.initial_user_namespace else ("name=rootless",)),
            *(("name=userns",) if strict.ids_by_default(engine) not in ("", "host") else ()),
            *((f"name=orlop,profile={profile}",) if (profile := strict.setting(engine)) != DEFAULT else ()),
        ],
    }


def engine_id(engine: Engine) -> str:
    """Return the id of the engine's data: drawn once, the same for every engine that works on it."""
    path = f"{engine.paths.root}/{ID_FILE}"
    try:
        found = read_file(path, ID_FILE_BYTES_MAX).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        found = ""
    if not found:
        found = os.urandom(ID_BYTES).hex()
        with disk_trouble_told("write", path):
            write_durably(path, f"{found}\n".encode())
    return found


def _limits(engine: Engine) -> dict[str, object]:
    """Return which limits this machine can hold a container to, and a warning for each that it can't."""
    controllers, layout = engine.host.controllers, engine.host.runtime.layout
    can = {
        "MemoryLimit": "memory" in controllers,
        "SwapLimit": engine.host.swap_limit,
        "CpuCfsPeriod": "cpu" in controllers,
        "CpuCfsQuota": "cpu" in controllers,
        "CPUShares": "cpu" in controllers,
        "CPUSet": "cpuset" in controllers,
        "PidsLimit": "pids" in controllers,
        "OomKillDisable": layout.version("memory") == 1,
    }
    words = {
        "MemoryLimit": "memory limit",
        "SwapLimit": "swap limit",
        "CpuCfsQuota": "cpu cfs quota",
        "CPUShares": "cpu shares",
        "CPUSet": "cpuset",
        "PidsLimit": "pids limit",
    }
    warnings = [f"WARNING: No {what} support" for key, what in words.items() if not can[key]]
    if lies_on_overlay(engine.snapshots.root):
        warnings.append("WARNING: The data directory lies on an overlayfs: each container takes a copy of its image")
    return {**can, "Warnings": warnings or None}


def _machine(engine: Engine) -> dict[str, object]:
    system = _os_release()
    return {
        "CgroupDriver": "cgroupfs" if engine.host.runtime.layout.hierarchies() else "none",
        "CgroupVersion": "2" if engine.host.runtime.layout.mode == "unified" else "1",
        "KernelVersion": os.uname().release,
        "OperatingSystem": system.get("PRETTY_NAME", "Linux"),
        "OSVersion": system.get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": engine.host.runtime.machine,
        "NCPU": engine.host.processors,
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "Name": engine.host.hostname,
    }


def _os_release() -> dict[str, str]:
    """Return what the machine calls itself (os-release(5))."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                pairs = (line.strip().partition("=") for line in file.read(65536).splitlines())
                return {key: value.strip("\"'") for key, _, value in pairs if key and not key.startswith("#")}
        except OSError:
            continue
    return {}
