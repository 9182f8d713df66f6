"""What podman's API has and Orlop has not: refused by its name, never answered with something that looks like success.

That there is no pod of a name is the truth, and what `podman inspect` asks last of a name that nothing has.
"""

from __future__ import annotations

from ..docker.door import Door, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..docker.door import Handler

_WHAT = {
    "artifacts": "artifacts are",
    "build": "building through podman's API is",
    "generate": "generating units or Kubernetes YAML is",
    "kube": "Kubernetes YAML is",
    "local": "reading the server's files is",
    "manifests": "editing manifest lists is",
    "play": "Kubernetes YAML is",
    "pods": "pods are",
    "quadlets": "quadlets are",
}
# Of images, containers, volumes, networks and the engine, what has no row in their tables.
_OTHERS = (
    ("GET", "/libpod/images/{name*}/tree", "the tree of an image's layers is"),
    ("GET", "/libpod/images/{name*}/changes", "comparing images is"),
    ("GET", "/libpod/images/{name*}/resolve", "resolving short names is"),
    ("POST", "/libpod/images/scp/{name*}", "copying images between machines is"),
    ("GET", "/libpod/containers/showmounted", "mounting a container's tree on the host is"),
    ("GET", "/libpod/volumes/{name}/export", "exporting volumes is"),
    ("POST", "/libpod/volumes/{name}/import", "importing volumes is"),
    ("POST", "/libpod/networks/{name}/update", "changing networks is"),
    ("POST", "/libpod/system/check", "checking the store is"),
)
_VERBS = {
    "checkpoint": "checkpoints are",
    "init": "making a container's namespaces without starting it is",
    "mount": "mounting a container's tree on the host is",
    "restore": "checkpoints are",
    "unmount": "mounting a container's tree on the host is",
}
METHODS = ("GET", "POST", "PUT", "DELETE")


def refuse(door: Door) -> None:
    noun = door.place.partition("/libpod/")[2].partition("/")[0]
    raise Status(501, f"{_WHAT[noun]} not there in Orlop's libpod API: {door.command} /libpod/{noun}")


def refuse_verb(door: Door) -> None:
    verb = door.place.rpartition("/")[2]
    raise Status(501, f"{_VERBS[verb]} not there in Orlop's libpod API: {door.command} .../{verb}")


def _refusing(what: str) -> Handler:
    def refuse(door: Door) -> None:
        raise Status(501, f"{what} not there in Orlop's libpod API: {door.command} {door.place[:200]}")

    return refuse


def no_such_pod(door: Door) -> None:
    raise Status(404, "no such pod")


ROUTES = (
    ("GET", "/libpod/pods/{name}/json", no_such_pod),
    ("GET", "/libpod/pods/{name}/exists", no_such_pod),
    *((method, pattern, _refusing(what)) for method, pattern, what in _OTHERS),
    *(("POST", f"/libpod/containers/{{id}}/{verb}", refuse_verb) for verb in _VERBS),
    *((method, f"/libpod/{noun}", refuse) for noun in _WHAT for method in METHODS),
    *((method, f"/libpod/{noun}/{{rest*}}", refuse) for noun in _WHAT for method in METHODS),
)
