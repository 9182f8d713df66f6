"""Routes of images."""

from __future__ import annotations

import base64
import binascii

from ...engine import images
from ...spec import jsonio
from ...spec.errors import NotFound, OrlopError
from ...spec.registry import ANONYMOUS, Credentials, PullRequest, PushRequest
from .archives import Work
from .door import Door, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


def list_all(door: Door) -> None:
    from ...engine.containers.inspect import unix_time

    found = images.summaries(door.engine)
    door.answer_json(200, [_summary(one, unix_time(str(one.get("created") or ""))) for one in found])


def _summary(one: Mapping[str, object], created: int) -> dict[str, object]:
    names = one["names"]
    assert isinstance(names, list)
    return {
        "Id": one["id"],
        "ParentId": "",
        "RepoTags": names,
        "RepoDigests": one.get("digests", []),
        "Created": created,
        "Size": one["size"],
        "SharedSize": -1,
        "VirtualSize": one["size"],
        "Labels": one.get("labels"),
        "Containers": -1,
    }


def inspect(door: Door) -> None:
    door.answer_json(200, images.inspect(door.engine, door.parts["name"]))


def create(door: Door) -> None:
    """Pull (fromImage), or import the archive in the body (fromSrc=-)."""
    if "fromSrc" in door.query:
        _import(door)
        return
    name, tag = door.query.get("fromImage", ""), door.query.get("tag", "")
    if not name:
        raise Status(400, "fromImage or fromSrc is needed")
    if tag:
        name = f"{name}{'@' if ':' in tag else ':'}{tag}"
    from ...engine.images.pull import pull

    request = PullRequest(
        image=name,
        platform=door.query.get("platform", ""),
        all_tags=not tag and ":" not in name.rpartition("/")[2] and "@" not in name,
        credentials=_credentials(door),
    )
    door.stream(200, {"Content-Type": "application/json"}, _progress(pull(door.engine, request, door.hangup)))


def _import(door: Door) -> None:
    if door.query["fromSrc"] != "-":
        raise Status(400, "an archive is imported from the request only: fromSrc=-")
    name, tag = door.query.get("repo", ""), door.query.get("tag", "")
    changes = tuple(line for line in door.query.get("changes", "").splitlines() if line)
    made: list[str] = []

    def work(fd: int) -> None:
        full = f"{name}:{tag}" if name and tag else name
        made.append(images.import_archive(door.engine, fd, full, changes, door.query.get("message", "")))

    Work(work).feed(door.pieces())
    door.stream(200, {"Content-Type": "application/json"}, [jsonio.dump({"status": made[0]}) + b"\r\n"])


def push(door: Door) -> None:
    from ...engine.images.push import push as push_image

    name, tag = door.parts["name"], door.query.get("tag", "")
    request = PushRequest(image=f"{name}:{tag}" if tag else name, all_tags=not tag, credentials=_credentials(door))
    door.stream(200, {"Content-Type": "application/json"}, _progress(push_image(door.engine, request, door.hangup)))


def _progress(messages: Iterable[Mapping[str, object]]) -> Iterator[bytes]:
    """Yield docker's stream of JSON messages; an error is its last one, because the status has left already."""
    try:
        for message in messages:
            yield jsonio.dump(message) + b"\r\n"
    except OrlopError as wrong:
        told = wrong.cause
        yield jsonio.dump({"errorDetail": {"message": told}, "error": told}) + b"\r\n"


def tag(door: Door) -> None:
    from ...engine.images.removal import tag as tag_image

    name = door.query.get("repo", "")
    wanted = door.query.get("tag", "")
    tag_image(door.engine, door.parts["name"], f"{name}:{wanted}" if wanted else name)
    door.answer(201)


def remove(door: Door) -> None:
    from ...engine.images.removal import remove as remove_image

    removed = remove_image(door.engine, door.parts["name"], force=door.flag("force"), prune=not door.flag("noprune"))
    door.answer_json(200, removed)


def _credentials(door: Door) -> Credentials:
    """Return what X-Registry-Auth says: base64url JSON (api/types/registry.AuthConfig). Raises Status."""
    text = door.headers.get("X-Registry-Auth", "")
    if not text:
        return ANONYMOUS
    try:
        found = jsonio.parse_object(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "X-Registry-Auth")
    except (binascii.Error, ValueError, OrlopError):
        raise Status(400, "invalid X-Registry-Auth header") from None
    return Credentials(
        username=str(found.get("username") or ""),
        password=str(found.get("password") or ""),
        identity_token=str(found.get("identitytoken") or ""),
        registry_token=str(found.get("registrytoken") or ""),
    )


def history(door: Door) -> None:
    image = images.find(door.engine, door.parts["name"])
    from ...engine.containers.inspect import unix_time

    rows: list[dict[str, object]] = []
    sizes = iter([layer.descriptor.size for layer in image.layers])
    for step in image.config.history:
        rows.append(
            {
                "Id": "<missing>",
                "Created": unix_time(step.created),
                "CreatedBy": step.created_by,
                "Tags": None,
                "Size": 0 if step.empty_layer else next(sizes, 0),
                "Comment": step.comment,
            }
        )
    if not rows:
        raise NotFound("find", f"the history of {door.parts['name']}", "the image tells no history")
    rows[-1] |= {"Id": str(image.id), "Tags": list(image.names) or None}
    door.answer_json(200, rows[::-1])


ROUTES = (
    ("GET", "/images/json", list_all),
    ("POST", "/images/create", create),
    ("GET", "/images/{name*}/json", inspect),
    ("GET", "/images/{name*}/history", history),
    ("POST", "/images/{name*}/push", push),
    ("POST", "/images/{name*}/tag", tag),
    ("DELETE", "/images/{name*}", remove),
)
