"""Routes of secrets: docker's API has none outside of a swarm, podman's has them on one machine, as Orlop does."""

from __future__ import annotations

import base64

from ...engine import secrets
from ...spec import jsonio
from ...spec.container import SECRET, DataRequest
from ..docker import creation
from ..docker.door import Door, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_DRIVERS = ("", "file")  # podman's own: data kept by the engine in files that only it reads


def create(door: Door) -> None:
    driver = door.query.get("driver", "")
    if driver not in _DRIVERS:
        raise Status(501, f"there is no driver of secrets {driver[:60]!r}: leave --driver away")
    if jsonio.parse_object(door.query.get("driveropts") or "{}", "driveropts"):
        raise Status(501, "the driver of secrets has no options: leave --driver-opts away")
    told = jsonio.without_nul(jsonio.parse_object(door.query.get("labels") or "{}", "labels"), "labels")
    labels = creation.Reader({"labels": told}, "the query")
    replaces = door.flag("replace")
    data = door.body(secrets.BYTES_MAX[SECRET] + 1)
    request = DataRequest(
        name=door.query.get("name", ""),
        data=base64.b64encode(data).decode(),
        labels=labels.pairs("labels"),
        updates=replaces,
    )
    door.answer_json(200, {"ID": secrets.create(door.engine, SECRET, request)})


def list_all(door: Door) -> None:
    door.answer_json(200, [_object(one) for one in secrets.listed(door.engine, SECRET, door.filters())])


def inspect(door: Door) -> None:
    """Answer what is known of a secret, and its data where that is asked for: its client may run a container, too."""
    found = _object(secrets.inspect(door.engine, SECRET, door.parts["name"]))
    if door.flag("showsecret"):
        kept = door.engine.secrets
        found["SecretData"] = kept.read(kept.find(door.parts["name"])).decode(errors="replace")
    door.answer_json(200, found)


def exists(door: Door) -> None:
    door.engine.secrets.find(door.parts["name"])
    door.answer(204)


def remove(door: Door) -> None:
    secrets.remove(door.engine, SECRET, door.parts["name"])
    door.answer(204)


def _object(found: Mapping[str, object]) -> dict[str, object]:
    spec = found["Spec"]
    assert isinstance(spec, dict)
    return {
        "ID": found["ID"],
        "CreatedAt": found["CreatedAt"],
        "UpdatedAt": found["UpdatedAt"],
        "Spec": {"Name": spec["Name"], "Driver": {"Name": "file", "Options": {}}, "Labels": spec["Labels"]},
    }


ROUTES = (
    ("POST", "/libpod/secrets/create", create),
    ("GET", "/libpod/secrets/json", list_all),
    ("GET", "/libpod/secrets/{name}/json", inspect),
    ("GET", "/libpod/secrets/{name}/exists", exists),
    ("DELETE", "/libpod/secrets/{name}", remove),
)
