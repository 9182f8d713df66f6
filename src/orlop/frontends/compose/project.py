"""A merged document as a project: its services, what they need of each other, and what everything is called.

Names are those of docker compose 2, so that it and Orlop find each other's work: containers `project-service-1`,
networks and volumes `project_name`, images `project-service`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ...spec.errors import Invalid, NotFound
from ..cli.flags import suggest
from . import dotenv
from .document import Map, wrong
from .fields import CONDITIONS
from .loading import Loaded

DEFAULT = "default"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")
_SERVICE_NAME = re.compile(r"[a-zA-Z0-9._-]+\Z")


@dataclass(frozen=True)
class Dependency:
    """condition: one of fields.CONDITIONS. restart: start anew when the dependency is. required: or only wished."""

    condition: str = CONDITIONS[0]
    restart: bool = False
    required: bool = True


@dataclass(frozen=True)
class Service:
    """One service. config: canonical. environment: what its containers get; depends_on: with what other keys imply."""

    name: str
    config: Map
    image: str
    scale: int
    profiles: tuple[str, ...]
    environment: dict[str, str]
    labels: dict[str, str]
    depends_on: dict[str, Dependency]

    def get(self, key: str, default: Any = None) -> Any:
        value = self.config.get(key)
        return default if value is None else value


@dataclass(frozen=True)
class Resource:
    """A network, volume, secret or config. key: its name in the file; name: of the thing itself."""

    key: str
    name: str
    external: bool
    config: Map


@dataclass
class Project:
    """A project. services: those that are on, in the order of dependencies; others: kept off by their profiles.

    separator: between the words of the names of containers and images.
    """

    name: str
    directory: str
    files: list[str]
    variables: dict[str, str]
    document: Map
    services: dict[str, Service] = field(default_factory=dict)
    others: dict[str, Service] = field(default_factory=dict)
    networks: dict[str, Resource] = field(default_factory=dict)
    volumes: dict[str, Resource] = field(default_factory=dict)
    secrets: dict[str, Resource] = field(default_factory=dict)
    configs: dict[str, Resource] = field(default_factory=dict)
    separator: str = "-"

    def service(self, name: str) -> Service:
        """Return a service by its name. Raises NotFound."""
        found = self.services.get(name) or self.others.get(name)
        if found is None:
            hint = suggest(name, (*self.services, *self.others)) or f"there are {', '.join(self.services)}"
            raise NotFound("find", f"service {name}", f"no such service: {name}", hint=hint)
        return found

    def chosen(self, names: Iterable[str], *, with_dependencies: bool = False) -> list[Service]:
        """Return these services, all that are on for none, in the order of dependencies. Raises NotFound."""
        wanted = {self.service(name).name for name in names} or set(self.services)
        if with_dependencies:
            for name in list(wanted):
                wanted |= set(self._needed(name))
        return [service for name, service in self._all().items() if name in wanted]

    def dependents(self, names: Iterable[str], *, restarted: bool = False) -> set[str]:
        """Return these services and those that depend on them, however far. restarted: only who is restarted along."""
        found = {self.service(name).name for name in names}

        def depends(service: Service) -> bool:
            return any(name in found and (wish.restart or not restarted) for name, wish in service.depends_on.items())

        while more := {one.name for one in self.services.values() if depends(one)} - found:
            found |= more
        return found

    def container_name(self, service: Service, number: int) -> str:
        named: str = service.get("container_name", "")
        return named or self.separator.join((self.name, service.name, str(number)))

    def _needed(self, name: str) -> Iterator[str]:
        for other in self.service(name).depends_on:
            if other in self._all():
                yield other
                yield from self._needed(other)

    def _all(self) -> dict[str, Service]:
        return {
            name: self.services.get(name) or self.others[name] for name in _ordered({**self.services, **self.others})
        }


@dataclass(frozen=True)
class Wishes:
    """What the command says of a project. name: "" for the files'; profiles: that are on.

    enabled: services that the command names, whose profiles are on then. is_checked: refuse what can't be made.
    """

    name: str = ""
    profiles: tuple[str, ...] = ()
    enabled: tuple[str, ...] = ()
    separator: str = "-"
    is_checked: bool = True


def make(loaded: Loaded, wishes: Wishes = Wishes()) -> Project:
    """Return the project. Raises Invalid."""
    document = loaded.document
    project = Project(
        name=name_of(wishes.name, loaded),
        directory=loaded.directory,
        files=loaded.files,
        variables=loaded.variables,
        document=document,
        separator=wishes.separator,
    )
    active = {*wishes.profiles, *filter(None, loaded.variables.get("COMPOSE_PROFILES", "").split(","))}
    services = {
        one: _service(project, one, config, is_checked=wishes.is_checked)
        for one, config in document.get("services", Map(document.place)).items()
    }
    active |= {profile for one in wishes.enabled if one in services for profile in services[one].profiles}
    for one, service in services.items():
        is_on = not service.profiles or "*" in active or bool(active & set(service.profiles))
        (project.services if is_on else project.others)[one] = service
    for kind in ("networks", "volumes", "secrets", "configs"):
        found = document.get(kind, Map(document.place))
        getattr(project, kind).update({key: _resource(project, key, config) for key, config in found.items()})
    if wishes.is_checked:
        _check(project)
        project.services = {one: project.services[one] for one in _ordered(project.services)}
    return project


def name_of(given: str, loaded: Loaded) -> str:
    """Return a project's name: the one that is given, or written, or its directory's. Raises Invalid."""
    name = given or loaded.variables.get("COMPOSE_PROJECT_NAME", "")
    if name:
        if not _NAME.match(name):
            cause = "it must consist only of lowercase letters, digits, _ and -, and begin with a letter or digit"
            raise Invalid("use", f"project name {name[:60]!r}", cause, hint="choose another with -p")
        return str(name)
    written = str(loaded.document.get("name", "")) or os.path.basename(loaded.directory)
    made = re.sub(r"[^a-z0-9_-]", "", written.lower()).lstrip("_-")
    if not made:
        raise Invalid("name", "the project", f"{written!r} gives no name", hint="give one with -p")
    return made


def _service(project: Project, name: str, config: Map, *, is_checked: bool) -> Service:
    if not _SERVICE_NAME.match(name):
        place = project.document["services"].places.get(name)
        raise wrong(place, f"services.{name[:60]}", "invalid service name", "use letters, digits, . _ and -")
    if is_checked and not config.keys() & {"image", "build"}:
        raise wrong(config.place, f"services.{name}", "neither an image nor a build context specified", "add image:")
    deploy = config.get("deploy") or {}
    scale = config.get("scale", deploy.get("replicas", 1))
    if scale < 0:
        raise wrong(config.place, f"services.{name}.scale", "must be 0 or more")
    if is_checked and scale > 1 and config.get("container_name"):
        cause = f"can't set container_name and scale to {scale}"
        raise wrong(config.place, f"services.{name}", cause, "leave container_name away")
    return Service(
        name=name,
        config=config,
        image=config.get("image") or f"{project.name}{project.separator}{name}",
        scale=scale,
        profiles=tuple(config.get("profiles", ())),
        environment=_environment(project, config),
        labels=_labels(project, config),
        depends_on=_dependencies(config),
    )


def _environment(project: Project, config: Map) -> dict[str, str]:
    """Return the variables of the files, then the service's own; one without a value is the caller's, or left out."""
    found: dict[str, str | None] = {}
    for wish in config.get("env_file", ()):
        path = os.path.join(project.directory, wish["path"])
        if not os.path.exists(path) and not wish.get("required", True):
            continue
        if wish.get("format") == "raw":
            lines = (line.partition("=") for line in dotenv.read_text(path).splitlines())
            found.update({name: value for name, equals, value in lines if equals})
        else:
            found.update(dotenv.read(path, project.variables))
    for name, value in config.get("environment", {}).items():
        found[name] = project.variables.get(name) if value is None else value
    return {name: value for name, value in found.items() if value is not None}


def _labels(project: Project, config: Map) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in config.get("label_file", ()):
        values = dotenv.read(os.path.join(project.directory, path), {})
        found.update({name: value or "" for name, value in values.items()})
    found.update({name: value or "" for name, value in config.get("labels", {}).items()})
    return found


def _dependencies(config: Map) -> dict[str, Dependency]:
    found = {name: Dependency(**dict(wish)) for name, wish in config.get("depends_on", {}).items()}
    implied = [link.partition(":")[0] for link in config.get("links", ())]
    implied += [one.partition(":")[0] for one in config.get("volumes_from", ()) if not one.startswith("container:")]
    modes = (config.get(key) or "" for key in ("network_mode", "ipc", "pid"))
    implied += [mode.removeprefix("service:") for mode in modes if mode.startswith("service:")]
    for name in implied:
        found.setdefault(name, Dependency(restart=True))
    return found


def _resource(project: Project, key: str, config: Map) -> Resource:
    external = config.get("external", False)
    name = config.get("name", "")
    if isinstance(external, Map):  # the old form: external: {name: N}
        name, external = external.get("name", name), True
    return Resource(key, str(name or (key if external else f"{project.name}_{key}")), bool(external), config)


def _check(project: Project) -> None:
    """Raise Invalid for a name that nothing has."""
    for service in project.services.values():
        where = f"services.{service.name}"
        for other, wish in service.depends_on.items():
            if other not in project.services and wish.required:
                cause = f'service "{service.name}" depends on undefined service "{other}"'
                if other in project.others:
                    cause = f'service "{service.name}" depends on "{other}", which its profile keeps off'
                raise wrong(_place(service, "depends_on"), where, cause, suggest(other, project.services))
        for name in service.get("networks", {}):
            if name != DEFAULT and name not in project.networks:
                cause = f'service "{service.name}" refers to undefined network {name}'
                raise wrong(_place(service, "networks"), where, cause, f"add it below networks: {name}:")
        for mount in service.get("volumes", ()):
            source = mount.get("source", "")
            if mount["type"] == "volume" and source and source not in project.volumes:
                cause = f'service "{service.name}" refers to undefined volume {source}'
                raise wrong(
                    _place(service, "volumes"), where, cause, f"add it below volumes: {source}:, or write ./{source}"
                )
        for kind in ("secrets", "configs"):
            for grant in service.get(kind, ()):
                if grant["source"] not in getattr(project, kind):
                    cause = f'service "{service.name}" refers to undefined {kind[:-1]} {grant["source"]}'
                    raise wrong(_place(service, kind), where, cause, f"add it below {kind}:")
        if service.get("networks") and service.get("network_mode"):
            cause = "conflicting parameters: network_mode and networks"
            raise wrong(_place(service, "networks"), where, cause, "leave one of them away")


def _place(service: Service, key: str) -> Any:
    return service.config.places.get(key, service.config.place)


def _ordered(services: dict[str, Service]) -> list[str]:
    """Return the names with what is needed before what needs it, else in the file's order. Raises Invalid."""
    order: list[str] = []
    way: list[str] = []

    def visit(name: str) -> None:
        if name in order or name not in services:
            return
        if name in way:
            cause = f"dependency cycle detected: {' -> '.join((*way[way.index(name) :], name))}"
            raise wrong(services[name].config.place, "services", cause, "leave one of the dependencies away")
        way.append(name)
        for other in services[name].depends_on:
            visit(other)
        way.pop()
        order.append(name)

    for name in services:
        visit(name)
    return order
