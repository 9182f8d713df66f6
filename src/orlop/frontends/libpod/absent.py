"""What podman's API has and Orlop has not: refused by its name, never answered with something that looks like success.

Each refusal says why, or what does the same. That there is no pod of a name is the truth, and what `podman inspect`
asks last of a name that nothing has.
"""

from __future__ import annotations

from ..docker.door import Door, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..docker.door import Handler

_WHAT = {
    "artifacts": ("artifacts are", "files go to a registry in an image: FROM scratch, COPY"),
    "generate": ("generating units or Kubernetes YAML is", "orlop show-run --as quadlet, or --as kube, tells them"),
    "kube": ("Kubernetes YAML is", "use orlop compose"),
    "local": ("reading the server's files is", "a socket's client names no files of the engine's"),
    "play": ("Kubernetes YAML is", "use orlop compose"),
    "pods": ("pods are", "join containers with --network container:NAME, --ipc and --pid"),
    "quadlets": ("quadlets are", "orlop show-run --as quadlet writes one"),
}
_CHECKPOINTS = (
    "checkpoints are",
    "a restored process has no monitor to keep its log and its end: orlop-runtime checkpoint does it for bundles",
)
_VERBS = {
    "checkpoint": _CHECKPOINTS,
    "restore": _CHECKPOINTS,
}
# Of images and networks, what has no row in their tables.
_OTHERS = (
    (
        "POST",
        "/libpod/images/scp/{name*}",
        ("copying images between machines is", "use save and load through ssh, or a registry"),
    ),
    (
        "POST",
        "/libpod/networks/{name}/update",
        ("changing networks is", "its resolver asks those of run --dns, and of the machine"),
    ),
)
METHODS = ("GET", "POST", "PUT", "DELETE")


def _refused(reason: tuple[str, str], where: str) -> Status:
    what, why = reason
    return Status(501, f"{what} not there in Orlop's libpod API ({where}): {why}")


def refuse(door: Door) -> None:
    noun = door.place.partition("/libpod/")[2].partition("/")[0]
    raise _refused(_WHAT[noun], f"{door.command} /libpod/{noun}")


def refuse_verb(door: Door) -> None:
    verb = door.place.rpartition("/")[2]
    door.engine.records.find(door.parts["id"])
    raise _refused(_VERBS[verb], f"{door.command} .../{verb}")


def _refusing(reason: tuple[str, str]) -> Handler:
    def refuse(door: Door) -> None:
        raise _refused(reason, f"{door.command} {door.place[:200]}")

    return refuse


def no_such_pod(door: Door) -> None:
    raise Status(404, "no such pod")


ROUTES = (
    ("GET", "/libpod/pods/{name}/json", no_such_pod),
    ("GET", "/libpod/pods/{name}/exists", no_such_pod),
    *((method, pattern, _refusing(reason)) for method, pattern, reason in _OTHERS),
    *(("POST", f"/libpod/containers/{{id}}/{verb}", refuse_verb) for verb in _VERBS),
    *((method, f"/libpod/{noun}", refuse) for noun in _WHAT for method in METHODS),
    *((method, f"/libpod/{noun}/{{rest*}}", refuse) for noun in _WHAT for method in METHODS),
)
