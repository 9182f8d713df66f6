"""What there is of a project: its containers, networks and volumes, found by their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...spec.errors import NotFound
from ..native.client import Engine
from .request import HASH, NUMBER, ONEOFF, PROJECT, SERVICE

RUNNING = ("running", "restarting", "paused")


@dataclass(frozen=True)
class Container:
    """A container of the project. summary: docker's object of `/containers/json`."""

    id: str
    name: str
    service: str
    number: int
    state: str
    digest: str
    image_id: str
    is_oneoff: bool
    summary: dict[str, Any]

    @property
    def runs(self) -> bool:
        return self.state in RUNNING


def containers(engine: Engine, project: str, *, oneoff: bool = False) -> list[Container]:
    """Return a project's containers by service and number, those of `compose run` only when asked for."""
    found = engine.call("containers.list", {"all": True, "filters": {"label": [f"{PROJECT}={project}"]}, "size": False})
    made = [_container(one) for one in found] if isinstance(found, list) else []
    return sorted((one for one in made if oneoff or not one.is_oneoff), key=lambda one: (one.service, one.number))


def projects(engine: Engine) -> dict[str, list[Container]]:
    """Return the containers of every project."""
    found = engine.call("containers.list", {"all": True, "filters": {"label": [PROJECT]}, "size": False})
    made: dict[str, list[Container]] = {}
    for one in found if isinstance(found, list) else []:
        made.setdefault(one["Labels"][PROJECT], []).append(_container(one))
    return made


def _container(summary: dict[str, Any]) -> Container:
    labels = summary["Labels"]
    number = labels.get(NUMBER, "")
    return Container(
        id=summary["Id"],
        name=summary["Names"][0].removeprefix("/"),
        service=labels.get(SERVICE, ""),
        number=int(number) if number.isascii() and number.isdecimal() and len(number) <= 9 else 0,
        state=summary["State"],
        digest=labels.get(HASH, ""),
        image_id=summary["ImageID"],
        is_oneoff=labels.get(ONEOFF, "") == "True",
        summary=summary,
    )


def network_names(engine: Engine) -> dict[str, dict[str, str]]:
    """Return every network's labels by its name."""
    found = engine.call("networks.list", {"filters": {}})
    return {one["Name"]: one["Labels"] or {} for one in found} if isinstance(found, list) else {}


def members(engine: Engine, network: str) -> set[str]:
    """Return the ids of the containers that run in a network."""
    found = engine.call("networks.inspect", {"network": network})
    return set(found["Containers"]) if isinstance(found, dict) else set()


def volume_names(engine: Engine) -> dict[str, dict[str, str]]:
    """Return every volume's labels by its name."""
    found = engine.call("volumes.list", {"filters": {}})
    volumes = found.get("Volumes") if isinstance(found, dict) else found
    return {one["Name"]: one["Labels"] or {} for one in volumes} if isinstance(volumes, list) else {}


def data_names(engine: Engine, kind: str, project: str) -> list[str]:
    """Return the names of a project's secrets or configs. kind: "secrets" or "configs"."""
    found = engine.call(f"{kind}.list")
    specs = [one["Spec"] for one in found] if isinstance(found, list) else []
    return [str(one["Name"]) for one in specs if (one.get("Labels") or {}).get(PROJECT) == project]


def image_id(engine: Engine, name: str) -> str:
    """Return the id of an image, "" when it is not here."""
    try:
        found = engine.call("images.inspect", {"image": name})
    except NotFound:
        return ""
    return str(found["Id"]) if isinstance(found, dict) else ""


def request_of(engine: Engine, container: str) -> dict[str, Any]:
    """Return the ContainerRequest, as JSON, that made a container."""
    found = engine.call("containers.request", {"container": container})
    return dict(found["request"]) if isinstance(found, dict) else {}
