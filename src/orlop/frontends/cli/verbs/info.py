"""`orlop info` and `orlop version`: docker's texts and fields."""

from __future__ import annotations

import os
import sys

from .... import __version__
from ....spec.errors import Unavailable
from ..command import Command, Invocation, for_output, warn, write
from ..units import binary_size
from .inspect import FORMAT_FLAG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

API_VERSION = "1.50"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_COLUMN = 19


def _version(invocation: Invocation) -> int:
    machine = os.uname().machine
    client: dict[str, Any] = {
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "Python": sys.version.split()[0],
        "Os": "linux",
        "Arch": _ARCHITECTURES.get(machine, machine),
        "BuildTime": "",
        "Context": "default",
    }
    server: dict[str, Any] | None = None
    try:
        with invocation.connect(start=False) as engine:
            found = engine.call("engine.version")
            server = found if isinstance(found, dict) else {}
    except Unavailable:
        pass
    if invocation.options["format"]:
        return _print_template(invocation.options["format"], {"Client": client, "Server": server})
    write("Client:\n" + _lines(_of_client(client), " "))
    if server is None:
        write("\nServer: none runs\n")
    else:
        write(for_output("\nServer:\n Engine:\n" + _lines(_of_server(server), "  ")))
    return 0


def _of_client(client: dict[str, Any]) -> dict[str, str]:
    return {
        "Version": client["Version"],
        "API version": client["ApiVersion"],
        "Python version": client["Python"],
        "OS/Arch": f"{client['Os']}/{client['Arch']}",
        "Context": client["Context"],
    }


def _of_server(server: dict[str, Any]) -> dict[str, str]:
    return {
        "Version": str(server.get("Version", "")),
        "API version": f"{server.get('ApiVersion', '')} (minimum version {server.get('MinAPIVersion', '')})",
        "OS/Arch": f"{server.get('Os', '')}/{server.get('Arch', '')}",
        "Kernel": str(server.get("KernelVersion", "")),
    }


def _lines(facts: dict[str, str], indent: str) -> str:
    return "".join(f"{indent}{key + ':':<{_COLUMN - len(indent) + 1}}{value}\n" for key, value in facts.items())


def _info(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        found = engine.call("engine.info")
    facts: dict[str, Any] = found if isinstance(found, dict) else {}
    client = {"Version": __version__, "Context": "default", "Debug": False, "Plugins": [], "Warnings": None}
    if invocation.options["format"]:
        return _print_template(invocation.options["format"], {**facts, "ClientInfo": client})
    text = ["Client:", f" Version:    {__version__}", " Context:    default", " Debug Mode: false", "", "Server:"]
    text += [f" {line}" for line in _of_machine(facts)]
    write(for_output("\n".join(text) + "\n\n"))
    sys.stdout.flush()
    for warning in facts.get("Warnings") or []:
        warn(str(warning))
    return 0


def _of_machine(facts: dict[str, Any]) -> list[str]:
    """Return docker's lines, in docker's order."""

    def known(key: str) -> Any:
        return facts.get(key, "")

    plugins = known("Plugins") or {}
    return [
        f"Containers: {known('Containers')}",
        f" Running: {known('ContainersRunning')}",
        f" Paused: {known('ContainersPaused')}",
        f" Stopped: {known('ContainersStopped')}",
        f"Images: {known('Images')}",
        f"Server Version: {known('ServerVersion')}",
        f"Storage Driver: {known('Driver')}",
        *(f" {key}: {value}" for key, value in known("DriverStatus") or []),
        f"Logging Driver: {known('LoggingDriver')}",
        f"Cgroup Driver: {known('CgroupDriver')}",
        f"Cgroup Version: {known('CgroupVersion')}",
        "Plugins:",
        *(f" {kind}: {' '.join(plugins.get(kind) or [])}" for kind in ("Volume", "Network", "Log")),
        f"Swarm: {(known('Swarm') or {}).get('LocalNodeState', '')}",
        f"Runtimes: {' '.join(sorted(known('Runtimes') or {}))}",
        f"Default Runtime: {known('DefaultRuntime')}",
        "Security Options:",
        *_security(known("SecurityOptions") or []),
        f"Kernel Version: {known('KernelVersion')}",
        f"Operating System: {known('OperatingSystem')}",
        f"OSType: {known('OSType')}",
        f"Architecture: {known('Architecture')}",
        f"CPUs: {known('NCPU')}",
        f"Total Memory: {binary_size(float(known('MemTotal') or 0))}",
        f"Name: {known('Name')}",
        f"ID: {known('ID')}",
        f"Orlop Root Dir: {known('DockerRootDir')}",
        f"Orlop Run Dir: {known('RunDir')}",
        f"Debug Mode: {_word(known('Debug'))}",
        f"Experimental: {_word(known('ExperimentalBuild'))}",
        f"Live Restore Enabled: {_word(known('LiveRestoreEnabled'))}",
    ]


def _security(options: list[Any]) -> list[str]:
    lines = []
    for option in options:
        for part in str(option).split(","):
            key, _, value = part.partition("=")
            lines.append(f" {value}" if key == "name" else f"  {key.capitalize()}: {value}")
    return lines


def _word(value: object) -> str:
    return "true" if value is True else "false"


def _print_template(form: str, value: object) -> int:
    from ..template import Template

    write(for_output(Template("{{json .}}" if form == "json" else form).render(value) + "\n"))
    return 0


INFO = Command(
    _info, "Display system-wide information", "[OPTIONS]", flags=(FORMAT_FLAG,), aliases=("system info", "info")
)
VERSION = Command(_version, "Show the Orlop version information", "[OPTIONS]", flags=(FORMAT_FLAG,))
