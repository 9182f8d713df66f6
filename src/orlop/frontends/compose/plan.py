"""What has to happen so that a project is as its files say, and why: nothing is changed here.

A container is made anew when its service asks for something else than it was made with (the digest in its label), or
when its image's name means another image now. Source: docker compose 2's convergence, as its users know it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...spec.container import ContainerRequest
from ...spec.errors import Conflict, NotFound
from ..native.client import Engine
from . import observed, request
from .observed import Container
from .project import DEFAULT, Project, Resource, Service

CREATE, RECREATE, START, REMOVE, KEEP, RESTART = "create", "recreate", "start", "remove", "keep", "restart"
_SHOWN_MAX = 60


@dataclass(frozen=True)
class Step:
    """One thing to do to a container. existing: the one that there is, None for create. wanted: None for remove."""

    action: str
    name: str
    reason: str
    service: str
    existing: Container | None = None
    wanted: ContainerRequest | None = None


@dataclass(frozen=True)
class Wishes:
    """The flags of up and create. scale: instead of the files' numbers. orphans: remove what no service has."""

    force_recreate: bool = False
    recreate: bool = True
    recreate_dependencies: bool = False
    start: bool = True
    orphans: bool = False
    scale: dict[str, int] = field(default_factory=dict)


@dataclass
class Plan:
    """In the order of doing: networks, volumes, orphans, then the services' steps, dependencies first."""

    networks: list[Resource] = field(default_factory=list)
    diverged: list[tuple[Resource, list[Container]]] = field(
        default_factory=list
    )  # networks to make anew, who is there
    volumes: list[Resource] = field(default_factory=list)
    orphans: list[Container] = field(default_factory=list)
    removed_orphans: bool = False
    services: dict[str, list[Step]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return the plan as text, a line for each step that does something."""
        found = [f"create network {one.name}: it is not there" for one in self.networks]
        found += [f"make network {one.name} anew: the files say otherwise than it is" for one, _ in self.diverged]
        found += [f"create volume {one.name}: it is not there" for one in self.volumes]
        if self.removed_orphans:
            found += [f"remove container {one.name}: no service {one.service} is in the files" for one in self.orphans]
        steps = [step for several in self.services.values() for step in several if step.action != KEEP]
        return found + [f"{step.action} container {step.name}: {step.reason}" for step in steps]


def make(engine: Engine, project: Project, services: list[Service], wishes: Wishes, named: set[str]) -> Plan:
    """Return what is to be done for these services. named: those that the user named, not their dependencies.

    Raises NotFound for an external network or volume that is not there, Conflict for one of somebody else's.
    """
    plan = Plan(removed_orphans=wishes.orphans)
    plan.networks = _networks(engine, project, services)
    plan.volumes = _volumes(engine, project, services)
    existing = observed.containers(engine, project.name)
    if wishes.recreate:
        plan.diverged = _diverged(engine, project, services, existing)
    anew = {resource.name for resource, _ in plan.diverged}
    known = {*project.services, *project.others}
    plan.orphans = [one for one in existing if one.service not in known]
    replicas = {one.name: _scale(one, existing, wishes) for one in project.services.values()}
    changed: set[str] = set()
    for service in services:
        own = [one for one in existing if one.service == service.name]
        steps = _Service(engine, project, service, wishes, replicas, anew).steps(own, named, changed)
        plan.services[service.name] = steps
        if any(step.action in (RECREATE, RESTART) for step in steps):
            changed.add(service.name)
    return plan


def _scale(service: Service, existing: list[Container], wishes: Wishes) -> int:
    if service.name in wishes.scale:
        return wishes.scale[service.name]
    return service.scale


class _Service:
    """The steps of one service."""

    def __init__(
        self,
        engine: Engine,
        project: Project,
        service: Service,
        wishes: Wishes,
        replicas: dict[str, int],
        anew: set[str],
    ) -> None:
        self.anew = anew
        self.engine = engine
        self.project = project
        self.service = service
        self.wishes = wishes
        self.replicas = replicas
        self.image_id = observed.image_id(engine, service.image)

    def steps(self, own: list[Container], named: set[str], changed: set[str]) -> list[Step]:
        scale = self.replicas[self.service.name]
        by_number = {one.number: one for one in own}
        extra = [one for one in own if one.number > scale or by_number[one.number] is not one]
        found = [
            Step(REMOVE, one.name, f"the service has {scale} container{'s' * (scale != 1)}", self.service.name, one)
            for one in extra
        ]
        wants_anew = self.wishes.force_recreate and (
            self.service.name in named or not named or self.wishes.recreate_dependencies
        )
        for number in range(1, scale + 1):
            found.append(self._step(by_number.get(number), number, wants_anew, changed))
        return found

    def _step(self, existing: Container | None, number: int, wants_anew: bool, changed: set[str]) -> Step:
        wanted = request.container(self.project, self.service, number, self.replicas)
        if existing is None:
            return Step(CREATE, wanted.name, "it is not there", self.service.name, None, wanted)
        reason = self._difference(existing, wanted, wants_anew)
        if reason:
            return Step(RECREATE, existing.name, reason, self.service.name, existing, wanted)
        restarted = [name for name, one in self.service.depends_on.items() if one.restart and name in changed]
        if existing.runs and restarted:
            cause = f"{restarted[0]}, which it depends on, is made anew"
            return Step(RESTART, existing.name, cause, self.service.name, existing, wanted)
        if self.wishes.start and not existing.runs:
            return Step(START, existing.name, f"it is {existing.state}", self.service.name, existing, wanted)
        return Step(KEEP, existing.name, "it is as the files say", self.service.name, existing, wanted)

    def _difference(self, existing: Container, wanted: ContainerRequest, wants_anew: bool) -> str:
        """Return why a container is made anew, "" when it is kept."""
        if wants_anew:
            return "--force-recreate"
        if not self.wishes.recreate:
            return ""
        if existing.digest != wanted.labels[request.HASH]:
            before = observed.request_of(self.engine, existing.id)
            return "; ".join(differences(before, wanted.to_json())) or "the content of a secret or config is another"
        for endpoint in wanted.endpoints:
            if endpoint.network in self.anew:
                return f"network {endpoint.network} is made anew"
        if self.image_id and existing.image_id != self.image_id:
            return f"{self.service.image} is {self.image_id[:19]} now, was {existing.image_id[:19]}"
        return ""


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return one clause for each field of two requests that differs, with both values."""
    found = []
    for key in sorted({*before, *after} - {"name", "depends_on"}):
        old, new = before.get(key), after.get(key)
        if key == "labels":
            old, new = ({k: v for k, v in (one or {}).items() if k not in _OWN} for one in (old, new))
        if old == new or (not old and not new):
            continue
        if isinstance(old, list) and isinstance(new, list):
            gone = [f"-{_shown(one)}" for one in old if one not in new]
            come = [f"+{_shown(one)}" for one in new if one not in old]
            found.append(f"{key} {' '.join(gone + come) or 'are in another order'}")
        else:
            found.append(f"{key} {_shown(old)} -> {_shown(new)}")
    return found


_OWN = (request.HASH, request.NUMBER, f"{request.LABEL}version")


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else "nothing" if value is None else str(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 3]}..."


def _networks(engine: Engine, project: Project, services: list[Service]) -> list[Resource]:
    used = {resource.key: resource for service in services for resource, _ in request.networks_of(project, service)}
    return _missing(used, observed.network_names(engine), "network", project, request.NETWORK)


def _diverged(
    engine: Engine, project: Project, services: list[Service], existing: list[Container]
) -> list[tuple[Resource, list[Container]]]:
    """Return the networks that are not as the files say any more, with the project's containers in each.

    One that somebody else is in, or a service that is not brought up now, stays as it is: they would be left without.
    """
    there = observed.network_names(engine)
    planned = {service.name for service in services}
    members: dict[str, set[str]] = {}
    found: dict[str, Resource] = {}
    for service in (*project.services.values(), *project.others.values()):
        for resource, _ in request.networks_of(project, service):
            members.setdefault(resource.name, set()).add(service.name)
            labels = there.get(resource.name, {})
            before = labels.get(request.NETWORK_HASH, "")
            is_own = not resource.external and labels.get(request.PROJECT, "") == project.name
            if is_own and before and before != request.network(project, resource).labels[request.NETWORK_HASH]:
                found[resource.name] = resource
    inside = {name: [one for one in existing if one.service in members[name]] for name in found}
    return [
        (resource, inside[name])
        for name, resource in found.items()
        if {one.service for one in inside[name]} <= planned
        and observed.members(engine, name) <= {one.id for one in inside[name]}
    ]


def _volumes(engine: Engine, project: Project, services: list[Service]) -> list[Resource]:
    names = {
        mount["source"]
        for service in services
        for mount in service.get("volumes", ())
        if mount["type"] == "volume" and mount.get("source")
    }
    used = {name: project.volumes[name] for name in project.volumes if name in names}
    return _missing(used, observed.volume_names(engine), "volume", project, request.VOLUME)


def _missing(
    used: dict[str, Resource], there: dict[str, dict[str, str]], kind: str, project: Project, label: str
) -> list[Resource]:
    found = []
    for resource in used.values():
        if resource.external:
            if resource.name not in there:
                cause = f"{kind} {resource.name} declared as external, but could not be found"
                raise NotFound(
                    "find",
                    f"{kind} {resource.name}",
                    cause,
                    hint=f"make it: orlop {kind} create {resource.name}",
                    code="E1407",
                )
        elif resource.name not in there:
            found.append(resource)
        elif (
            resource.key == DEFAULT
            and kind == "network"
            and there[resource.name].get(request.PROJECT, "") != project.name
        ):
            cause = f"a {kind} of this name exists but was not created for project {project.name!r}"
            hint = f"set `external: true` to use the {kind} that there is, or another name"
            raise Conflict("use", f"{kind} {resource.name}", cause, hint=hint)
    return found
