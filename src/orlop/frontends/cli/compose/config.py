"""`orlop compose config`: the merged files in their canonical form, or lists of what is in them."""

from __future__ import annotations

import json
import sys

from ...compose import request
from ...compose.document import List, Map, library
from ...compose.project import DEFAULT, Project, Service
from ..command import write
from ..flags import BOOL, STRING, Flag
from .context import Compose, command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DURATIONS = frozenset("interval timeout start_period start_interval stop_grace_period delay window monitor".split())
_SIZES = frozenset("mem_limit mem_reservation memswap_limit shm_size size memory".split())


def _config(invocation: Compose) -> int:
    options = invocation.options
    project = invocation.project(invocation.arguments)
    services = project.chosen(invocation.arguments, with_dependencies=True)
    lists = {
        "services": [service.name for service in services],
        "images": [service.image for service in services],
        "volumes": list(project.volumes),
        "networks": list(dict.fromkeys(key for one in services for key in _networks(project, one.name))),
        "profiles": sorted({name for one in (*services, *project.others.values()) for name in one.profiles}),
        "environment": [f"{name}={value}" for name, value in sorted(project.variables.items())],
    }
    for name, lines in lists.items():
        if options[name]:
            write("".join(f"{line}\n" for line in lines))
            return 0
    if options["hash"]:
        wanted = None if options["hash"] == "*" else options["hash"].split(",")
        for service in services:
            if wanted is None or service.name in wanted:
                digest = request.container(project, service, 1, {}).labels[request.HASH]
                write(f"{service.name} {digest}\n")
        return 0
    if options["quiet"]:
        return 0
    names = [service.name for service in services]
    text = _text(project, names, options["format"], everything=invocation.compose["all-resources"])
    if options["output"]:
        with open(options["output"], "w", encoding="utf-8") as file:
            file.write(text)
    else:
        sys.stdout.write(text)
    return 0


def _networks(project: Project, name: str) -> list[str]:
    return [resource.key for resource, _ in request.networks_of(project, project.service(name))]


def _text(project: Project, names: list[str], form: str, *, everything: bool) -> str:
    """Return the project as YAML or JSON. everything: also networks, volumes and files that no service uses."""
    services = {name: project.service(name) for name in sorted(names)}
    document: dict[str, Any] = {"name": project.name}
    document["services"] = {name: _service(project, service) for name, service in services.items()}
    used = {
        "networks": {key for name in names for key in _networks(project, name)},
        "volumes": {one.get("source") for service in services.values() for one in service.get("volumes", ())},
        "secrets": {one["source"] for service in services.values() for one in service.get("secrets", ())},
        "configs": {one["source"] for service in services.values() for one in service.get("configs", ())},
    }
    for kind, keys in used.items():
        known = {*getattr(project, kind), *(keys if kind == "networks" else ())}
        if found := sorted(known if everything else known & keys):
            document[kind] = {key: _resource(project, kind, key) for key in found}
    document.update({key: value for key, value in project.document.items() if key.startswith("x-")})
    if form == "json":
        return json.dumps(document, indent=2) + "\n"
    text: str = library().safe_dump(document, default_flow_style=False, sort_keys=False, allow_unicode=True, width=4096)
    return text


def _service(project: Project, service: Service) -> dict[str, Any]:
    shown: dict[str, Any] = _shown("", {**service.config, "environment": service.environment})
    shown.pop("env_file", None)
    if service.depends_on:
        shown["depends_on"] = {
            name: {"condition": wish.condition, "required": wish.required, "restart": wish.restart}
            for name, wish in service.depends_on.items()
        }
    if "ports" in shown:
        shown["ports"] = [one for port in shown["ports"] for one in _each_port(port)]
    for grant in shown.get("secrets", ()):
        grant.setdefault("target", f"/run/secrets/{grant['source']}")
    if not service.get("network_mode"):
        shown.setdefault("networks", {DEFAULT: None})
    return {key: value for key, value in sorted(shown.items()) if value not in ({}, [])}


def _each_port(port: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a range as one port after the other; a range of the host for one port stays what it is."""
    first, _, last = str(port["target"]).partition("-")
    count = int(last or first) - int(first) + 1
    host_first, _, _ = str(port.get("published", "")).partition("-")
    made = []
    for at in range(count):
        one = {"mode": "ingress", **port, "target": int(first) + at}
        if host_first and count > 1:
            one["published"] = str(int(host_first) + at)
        made.append(one)
    return made


def _resource(project: Project, kind: str, key: str) -> dict[str, Any]:
    resource = request.network_resource(project, key) if kind == "networks" else getattr(project, kind)[key]
    return {
        "name": resource.name,
        **{name: value for name, value in _shown("", resource.config).items() if name != "name"},
    }


def _shown(key: str, value: Any) -> Any:
    """Return a canonical value as the specification writes it: durations and sizes with their units."""
    if isinstance(value, Map | dict):
        return {name: _shown(name, one) for name, one in value.items()}
    if isinstance(value, List | list):
        return [_shown(key, one) for one in value]
    if isinstance(value, str):
        return value.replace("$", "$$")  # what is read again is interpolated again
    if isinstance(value, int) and not isinstance(value, bool):
        if key in _DURATIONS:
            return duration_text(value)
        if key in _SIZES:
            return str(value)
        if key == "cpus":
            return value / 10**9
    return value


def duration_text(nanoseconds: int) -> str:
    """Return a duration as Go writes it: 1m30s, 500ms."""
    if nanoseconds < 10**9:
        return f"{nanoseconds / 10**6:g}ms" if nanoseconds else "0s"
    seconds, rest = divmod(nanoseconds, 10**9)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    shown = f"{hours}h" if hours else ""
    shown += f"{minutes}m" if hours or minutes else ""
    return f"{shown}{seconds + rest / 10**9:g}s"


# fmt: off
CONFIG = command(
    _config, "Parse, resolve and render compose file in canonical format", "[OPTIONS] [SERVICE...]",
    flags=(
        Flag("environment", "", BOOL, "Print environment used for interpolation", default=False),
        Flag("format", "", STRING, 'Format the output ("yaml"|"json")', default="yaml"),
        Flag("hash", "", STRING, 'Print the service config hash, one per line ("*" for all)', default=""),
        Flag("images", "", BOOL, "Print the image names, one per line", default=False),
        Flag("networks", "", BOOL, "Print the network names, one per line", default=False),
        Flag("output", "o", STRING, "Save to file (default to stdout)", default=""),
        Flag("profiles", "", BOOL, "Print the profile names, one per line", default=False),
        Flag("quiet", "q", BOOL, "Only validate the configuration, don't print anything", default=False),
        Flag("services", "", BOOL, "Print the service names, one per line", default=False),
        Flag("volumes", "", BOOL, "Print the volume names, one per line", default=False),
    ),
    arguments=(0, None),
)
# fmt: on
