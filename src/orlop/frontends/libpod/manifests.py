"""Routes of manifest lists.

Source: podman 5.4.2, pkg/bindings/manifests, pkg/api/handlers/libpod/manifests.go; and what its clients send. Names of
the fields of a change are read as Go reads them: whatever their letters' case.
"""

from __future__ import annotations

from ...engine.images import manifests
from ...spec import jsonio
from ...spec.errors import NotFound, OrlopError
from ...spec.reference import Reference
from ..docker import creation
from ..docker.door import Door, Status
from .images import JSON, credentials
from .shapes import bare, full_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PLATFORM = {"os": "os", "arch": "architecture", "variant": "variant", "osversion": "os_version"}
_READ = frozenset(("operation", "images", "all", "osfeatures", "features", *_PLATFORM))
_NOBODYS = frozenset(("username", "password", "authfile", "skiptlsverify", "certdir"))  # its client's own
_TRANSPORTS = ("docker://", "containers-storage:")
_REGISTRY = "/registry/"


def create(door: Door) -> None:
    if door.every("annotation") or door.query.get("annotations"):
        raise Status(501, "a list has no annotations of its own here: leave --annotation away")
    name = door.parts["name"]
    images = [_image(one) for one in (*door.every("images"), *door.every("image"))]
    account = credentials(door, Reference.parse(name))
    manifests.create(door.engine, name, images, account, amend=door.flag("amend"))
    door.answer_json(201, {"Id": _id(door, name)})


def inspect(door: Door) -> None:
    name = door.parts["name"]
    door.answer_json(200, manifests.inspect(door.engine, name, credentials(door, Reference.parse(name))))


def exists(door: Door) -> None:
    manifests.digest_of(door.engine, door.parts["name"])
    door.answer(204)


def modify(door: Door) -> None:
    """Add images to a list, take some out, or say of one what it is for."""
    if door.headers.get("Content-Type", "").startswith("multipart/"):  # files, as `--artifact` sends them
        raise Status(501, "a list has no artifacts: files go to a registry in an image: FROM scratch, COPY")
    given = {_plain(name): value for name, value in door.json().items() if value not in (None, "", [], {}, False)}
    if strange := set(given) - _READ - _NOBODYS:
        raise Status(501, f"{min(strange)[:60]} of a manifest list is not changed here: leave its option away")
    fields = creation.Reader(given, "the request")
    name, operation = door.parts["name"], fields.text("operation")
    manifests.digest_of(door.engine, name)
    images = [_image(one) for one in fields.texts("images")]
    if not images:
        raise Status(400, "no image is named")
    changes = {ours: fields.text(theirs) for theirs, ours in _PLATFORM.items() if theirs in given}
    features = (*fields.texts("osfeatures"), *fields.texts("features"))
    if operation == "remove":
        manifests.drop(door.engine, name, images)
    elif operation in ("update", "annotate"):
        if operation == "update":
            account = credentials(door, Reference.parse(name))
            manifests.create(door.engine, name, images, account, amend=True)
        if changes or features:
            for image in images:
                manifests.annotate(door.engine, name, image, changes, features)
    else:
        raise Status(400, f"operation {operation[:60]!r} is none of update, remove, annotate")
    door.answer_json(200, {"Id": _id(door, name), "Images": images})


def remove(door: Door) -> None:
    name = door.parts["name"]
    identifier = _id(door, name)
    manifests.remove(door.engine, [name])
    door.answer_json(200, {"Deleted": [identifier], "Untagged": [full_name(name)], "Errors": [], "ExitCode": 0})


def push(door: Door) -> None:
    """Push a list with its images; with quiet the answer is one document, else lines with a last one."""
    name, destination = _split(door)
    if door.query.get("addCompression") or door.query.get("compressionFormat"):
        raise Status(501, "layers are pushed as they are: leave --compression-format and --add-compression away")
    target = Reference.parse(destination.removeprefix("docker://")).tagged()
    account = credentials(door, target)

    def work() -> str:
        return manifests.push(door.engine, name, account, to=str(target))

    if door.flag("quiet", default=True):
        door.answer_json(200, {"Id": work()})
        return
    manifests.digest_of(door.engine, name)  # while the status can still tell that it is not there
    door.stream(200, JSON, _pushing(work))


def _pushing(work: Callable[[], str]) -> list[bytes]:
    try:
        return [jsonio.dump({"Id": work()}) + b"\n"]
    except OrlopError as wrong:
        return [jsonio.dump({"error": wrong.cause}) + b"\n"]


def _split(door: Door) -> tuple[str, str]:
    """Return the list and the destination of a path: either may have /registry/ in its name. Raises NotFound."""
    words = f"{door.parts['name']}{_REGISTRY}{door.parts['destination']}".split(_REGISTRY)
    for at in range(1, len(words)):
        name = _REGISTRY.join(words[:at])
        try:
            manifests.digest_of(door.engine, name)
        except NotFound:
            if at == len(words) - 1:
                raise
            continue
        return name, _REGISTRY.join(words[at:])
    raise Status(400, "no destination is named")


def _id(door: Door, name: str) -> str:
    return bare(manifests.digest_of(door.engine, name))


def _image(name: str) -> str:
    for transport in _TRANSPORTS:
        name = name.removeprefix(transport)
    return name


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


_M = "/libpod/manifests/{name*}"
ROUTES = (
    ("GET", f"{_M}/exists", exists),
    ("GET", f"{_M}/json", inspect),
    ("POST", f"{_M}/registry/{{destination*}}", push),
    ("POST", _M, create),
    ("PUT", _M, modify),
    ("DELETE", _M, remove),
)
