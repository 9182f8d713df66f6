"""A compose file as a bake file: each service that has a `build` is a target."""

from __future__ import annotations

import os
from json import dumps

from ...compose.document import parse
from ...compose.loading import Sources, load
from ...compose.project import Project, make

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

EXTENSION = "x-bake"
FILE_BYTES_MAX = 4 * 1024 * 1024
_LISTS = ("tags", "platforms", "cache-from", "cache-to", "output", "secret", "ssh", "no-cache-filter")
_SAME = ("args", "labels", "tags", "platforms", "target", "network", "dockerfile", "pull")
_OTHER_NAMES = {
    "dockerfile_inline": "dockerfile-inline",
    "additional_contexts": "contexts",
    "cache_from": "cache-from",
    "cache_to": "cache-to",
    "no_cache": "no-cache",
    "shm_size": "shm-size",
    "entitlements": "entitlements",
}


def bake_text(path: str, environ: Mapping[str, str]) -> str:
    """Return the bake file, in JSON, that a compose file stands for. Raises Invalid, NotFound, Unsupported."""
    project = make(load(Sources([path], environ=environ)))
    services = {**project.services, **project.others}
    built = [name for name in project.document.get("services", {}) if "build" in services[name].config]
    targets = {_name(name): _target(project, services[name].config) for name in built}
    for name, added in _extensions(path).items():
        _extend(targets.get(_name(name), {}), added)
    for name in built:
        if "image" in services[name].config:
            targets[_name(name)].setdefault("tags", [services[name].config["image"]])
    members = [_name(name) for name in built if name in project.services]
    return dumps(_literal({"group": {"default": {"targets": members}}, "target": targets}))


def _name(service: str) -> str:
    return service.replace(".", "_")


def _target(project: Project, config: Mapping[str, Any]) -> dict[str, Any]:
    wish: Mapping[str, Any] = config["build"]
    target: dict[str, Any] = {"context": _relative(str(wish["context"]))}
    target |= {name: wish[name] for name in _SAME if name in wish}
    target |= {name: wish[key] for key, name in _OTHER_NAMES.items() if key in wish}
    if "extra_hosts" in wish:
        hosts = (str(text).replace("=", ":", 1).partition(":") for text in wish["extra_hosts"])
        target["extra-hosts"] = {name: address for name, _, address in hosts}
    if "shm-size" in target:
        target["shm-size"] = str(target["shm-size"])
    for key in ("args", "labels"):
        values = target.get(key, {})
        given = {name: project.variables.get(name) if value is None else value for name, value in values.items()}
        target |= {key: given} if given else {}
    target |= {"secret": [_secret(project, grant) for grant in wish["secrets"]]} if "secrets" in wish else {}
    target |= {"ssh": [_agent(one) for one in wish["ssh"]]} if isinstance(wish.get("ssh"), list) else {}
    return target


def _extensions(path: str) -> dict[str, dict[str, Any]]:
    """Return what `x-bake` adds to the build of each service: keys of bake files, as they are written."""
    with open(path, "rb") as file:
        documents = parse(file.read(FILE_BYTES_MAX + 1)[:FILE_BYTES_MAX], path)
    found: dict[str, dict[str, Any]] = {}
    for document in documents:
        services = document.get("services")
        for name, service in services.items() if isinstance(services, dict) else ():
            build = service.get("build") if isinstance(service, dict) else None
            added = build.get(EXTENSION) if isinstance(build, dict) else None
            found |= {name: dict(added)} if isinstance(added, dict) else {}
    return found


def _extend(target: dict[str, Any], added: dict[str, Any]) -> None:
    for key, value in added.items():
        if key in _LISTS:
            values = value if isinstance(value, list) else [value]
            target[key] = list(dict.fromkeys([*target.get(key, []), *map(str, values)]))
        else:
            target[key] = value


def _relative(path: str) -> str:
    """Return a folder as a person here calls it; what is no folder (a URL) as it is."""
    if not path.startswith("/"):
        return path
    found = os.path.relpath(path)
    return path if found.startswith("..") else found


def _secret(project: Project, grant: Mapping[str, str]) -> str:
    config = project.secrets[grant["source"]].config
    source = f"src={config['file']}" if "file" in config else f"env={config.get('environment', '')}"
    return f"id={grant.get('target', grant['source'])},{source}"


def _agent(one: object) -> str:
    return str(one) if isinstance(one, str) else "default"


def _literal(value: Any) -> Any:
    """Return a value whose texts mean themselves: compose has replaced its variables already."""
    if isinstance(value, str):
        return value.replace("${", "$${").replace("%{", "%%{")
    if isinstance(value, dict):
        return {name: _literal(item) for name, item in value.items()}
    return [_literal(item) for item in value] if isinstance(value, list) else value
