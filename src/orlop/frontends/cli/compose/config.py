"""`orlop compose config`: the merged files in their canonical form, or lists of what is in them."""

from __future__ import annotations

import json
import sys

from ....spec.errors import Unavailable
from ....spec.reference import Reference
from ....spec.registry import parse_location
from ...compose import request
from ...compose.document import List, Map, library
from ...compose.interpolation import variables
from ...compose.project import DEFAULT, Project, Resource, Service, name_of
from .. import listing
from ..command import write, write_line
from ..flags import BOOL, STRING, Flag
from .context import Compose, command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..flags import Options

_DURATIONS = frozenset("interval timeout start_period start_interval stop_grace_period delay window monitor".split())
_SIZES = frozenset("mem_limit mem_reservation memswap_limit shm_size size memory".split())
_KINDS = ("networks", "volumes", "secrets", "configs")


def _config(invocation: Compose) -> int:
    options = invocation.options
    if options["variables"]:
        _print_variables(invocation)
        return 0
    if options["no-interpolate"]:
        text = _rendered(_as_written(invocation), options["format"])
    else:
        is_absolute, is_checked = not options["no-path-resolution"], not options["no-consistency"]
        project = invocation.project(invocation.arguments, absolute=is_absolute, is_checked=is_checked)
        services = _services(project, invocation.arguments, is_checked=is_checked)
        if _print_list(options, project, services):
            return 0
        text = _rendered(_document(invocation, project, services), options["format"])
    if options["quiet"]:
        return 0
    if options["output"]:
        with open(options["output"], "w", encoding="utf-8") as file:
            file.write(text)
    else:
        sys.stdout.write(text)
    return 0


def _services(project: Project, names: list[str], *, is_checked: bool) -> list[Service]:
    if not is_checked:  # what needs what may be a circle, or nothing that is there
        return [project.service(name) for name in names or project.services]
    return project.chosen(names, with_dependencies=True)


def _print_list(options: Options, project: Project, services: list[Service]) -> bool:
    """Print the list that a flag asks for; return whether one does."""
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
            return True
    if options["hash"]:
        wanted = None if options["hash"] == "*" else options["hash"].split(",")
        for service in services:
            if wanted is None or service.name in wanted:
                digest = request.container(project, service, 1, {}).labels[request.HASH]
                write(f"{service.name} {digest}\n")
    return bool(options["hash"])


def _print_variables(invocation: Compose) -> None:
    """Print what the files ask the environment for."""
    found = variables(invocation.load(interpolates=False).document)
    if invocation.options["format"] == "json":
        described = {
            name: {"Name": name, "DefaultValue": one.default or "", "PresenceValue": one.alternate or ""}
            | {"Required": one.is_required}
            for name, one in found.items()
        }
        write_line(json.dumps(described, indent=2))
        return
    rows = [(name, str(one.is_required).lower(), one.default or "", one.alternate or "") for name, one in found.items()]
    listing.print_table(("NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"), rows)


def _networks(project: Project, name: str) -> list[str]:
    return [resource.key for resource, _ in request.networks_of(project, project.service(name))]


def _as_written(invocation: Compose) -> dict[str, Any]:
    """Return the merged files with the variables in them, named and connected as a project is."""
    loaded = invocation.load(interpolates=False, absolute=not invocation.options["no-path-resolution"])
    name = name_of(invocation.compose["project-name"], loaded)
    document: dict[str, Any] = {"name": name, "services": {}}
    for key, service in sorted(loaded.document.get("services", {}).items()):
        if not invocation.arguments or key in invocation.arguments:
            document["services"][key] = dict(sorted(_written("", service).items()))
    for kind in _KINDS:
        if found := loaded.document.get(kind):
            document[kind] = {key: _written("", config) for key, config in sorted(found.items())}
    document.update(_own_keys(loaded.document))
    if invocation.options["no-normalize"]:
        return document
    for service in document["services"].values():
        if not service.get("network_mode"):
            service.setdefault("networks", {DEFAULT: None})
            if DEFAULT in service["networks"]:
                document.setdefault("networks", {}).setdefault(DEFAULT, {})
    for kind in _KINDS:
        for key, config in document.get(kind, {}).items():
            config.setdefault("name", key if config.get("external") else f"{name}_{key}")
    return document


def _document(invocation: Compose, project: Project, chosen: list[Service]) -> dict[str, Any]:
    """Return the project as a document: with networks, volumes and files that a service uses, or all of them."""
    options = invocation.options
    everything, normal = invocation.compose["all-resources"], not options["no-normalize"]
    services = {service.name: service for service in sorted(chosen, key=lambda one: one.name)}
    document: dict[str, Any] = {"name": project.name}
    document["services"] = {name: _service(project, one, normal=normal) for name, one in services.items()}
    if options["resolve-image-digests"]:
        for service in document["services"].values():
            if "image" in service:
                service["image"] = _pinned(invocation, service["image"])
    used = {
        "networks": {key for name in services for key in _networks(project, name)},
        "volumes": {one.get("source") for service in services.values() for one in service.get("volumes", ())},
        "secrets": {one["source"] for service in services.values() for one in service.get("secrets", ())},
        "configs": {one["source"] for service in services.values() for one in service.get("configs", ())},
    }
    for kind, keys in used.items():
        known = {*getattr(project, kind), *(keys if kind == "networks" and normal else ())}
        if found := sorted(known if everything else known & keys):
            document[kind] = {key: _resource(project, kind, key, normal=normal) for key in found}
    document.update(_own_keys(project.document))
    return document


def _own_keys(document: Map) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key.startswith("x-")}


def _rendered(document: dict[str, Any], form: str) -> str:
    if form == "json":
        return json.dumps(document, indent=2) + "\n"
    text: str = library().safe_dump(
        _plain(document), default_flow_style=False, sort_keys=False, allow_unicode=True, width=4096
    )
    return text


def _plain(value: Any) -> Any:
    """Return a value of the types that YAML's writer knows."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, str) else value


def _pinned(invocation: Compose, image: str) -> str:
    """Return an image's name with the digest that its registry has for it now."""
    from ..credentials import for_places

    reference = Reference.parse(image).tagged()
    if reference.digest:
        return image
    with invocation.connect() as engine:
        known = for_places(engine, reference.domain, reference.path)
        place = parse_location(f"docker://{reference}").replace(credentials=known)
        found = engine.call("registries.look", {"place": place.to_json(), "platform": ""})
    if not isinstance(found, dict):
        raise Unavailable("read", "the engine's reply", "it names no digest")
    return f"{reference}@{found['digest']}"


def _service(project: Project, service: Service, *, normal: bool) -> dict[str, Any]:
    shown: dict[str, Any] = _shown("", {**service.config, "environment": service.environment})
    shown.pop("env_file", None)
    depends_on = service.depends_on if normal else service.config.get("depends_on", {}).keys() & service.depends_on
    if depends_on:
        wishes = {name: wish for name, wish in service.depends_on.items() if name in depends_on}
        shown["depends_on"] = {
            name: {"condition": wish.condition, "required": wish.required, "restart": wish.restart}
            for name, wish in wishes.items()
        }
    if "ports" in shown:
        shown["ports"] = [one for port in shown["ports"] for one in _each_port(port)]
    for grant in shown.get("secrets", ()):
        grant.setdefault("target", f"/run/secrets/{grant['source']}")
    if normal and not service.get("network_mode"):
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


def _resource(project: Project, kind: str, key: str, *, normal: bool) -> dict[str, Any]:
    is_network = kind == "networks"
    resource: Resource = request.network_resource(project, key) if is_network else getattr(project, kind)[key]
    config: dict[str, Any] = _shown("", resource.config)
    return (
        {"name": resource.name, **{name: value for name, value in config.items() if name != "name"}}
        if normal
        else config
    )


def _shown(key: str, value: Any) -> Any:
    """Return a canonical value as what is read, and interpolated, again."""
    if isinstance(value, Map | dict):
        return {name: _shown(name, one) for name, one in value.items()}
    if isinstance(value, List | list):
        return [_shown(key, one) for one in value]
    return value.replace("$", "$$") if isinstance(value, str) else _unit(key, value)


def _written(key: str, value: Any) -> Any:
    """Return a canonical value whose text has its variables still."""
    if isinstance(value, Map | dict):
        return {name: _written(name, one) for name, one in value.items()}
    if isinstance(value, List | list):
        return [_written(key, one) for one in value]
    return _unit(key, value)


def _unit(key: str, value: Any) -> Any:
    """Return a number as the specification writes it: durations and sizes with their units."""
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
        Flag("no-consistency", "", BOOL, "Don't check that what is named is there", default=False),
        Flag("no-interpolate", "", BOOL, "Don't interpolate environment variables", default=False),
        Flag("no-normalize", "", BOOL, "Don't add what holds without being written", default=False),
        Flag("no-path-resolution", "", BOOL, "Don't make file paths absolute", default=False),
        Flag("output", "o", STRING, "Save to file (default to stdout)", default=""),
        Flag("profiles", "", BOOL, "Print the profile names, one per line", default=False),
        Flag("quiet", "q", BOOL, "Only validate the configuration, don't print anything", default=False),
        Flag("resolve-image-digests", "", BOOL, "Pin image tags to digests", default=False),
        Flag("services", "", BOOL, "Print the service names, one per line", default=False),
        Flag("variables", "", BOOL, "Print the variables of the files and their defaults", default=False),
        Flag("volumes", "", BOOL, "Print the volume names, one per line", default=False),
    ),
    arguments=(0, None),
)
# fmt: on
