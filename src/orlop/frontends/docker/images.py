"""Routes of images."""

from __future__ import annotations

from ...engine import images
from ...spec import jsonio
from ...spec.errors import OrlopError
from ...spec.registry import PullRequest, PushRequest
from . import older
from .archives import Work
from .door import Door, Status
from .registries import credentials
from .words import platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ...engine.engine import Engine

MANIFESTS_SINCE = (1, 47)
PLATFORM_SINCE = (1, 49)
SHARED_SINCE = (1, 42)


def list_all(door: Door) -> None:
    with_manifests = door.flag("manifests") and door.version >= MANIFESTS_SINCE
    told = older.images(summaries(door.engine, door.filters(), joined=not with_manifests), door.version)
    if door.flag("shared-size") and door.version >= SHARED_SINCE:
        from ...engine.images.disk import shared_sizes

        shared = shared_sizes(door.engine)
        for one in told:
            one["SharedSize"] = shared.get(str(one["Id"]), 0)
    if with_manifests:
        from ...engine.images.platforms import manifests

        for one in told:
            names = one["RepoTags"]  # an id alone is that of this machine's image
            one["Manifests"] = manifests(door.engine, str(((isinstance(names, list) and names) or [one["Id"]])[0]))
    door.answer_json(200, told)


def summaries(engine: Engine, filters: dict[str, tuple[str, ...]], *, joined: bool = True) -> list[dict[str, object]]:
    """Return docker's objects of the images that filters choose.

    joined: one for an ID, though it may be packed in two ways, or alone and in an index; else one for each of these.
    """
    from ...engine.containers.inspect import unix_time

    told: dict[object, dict[str, object]] = {}
    for one in images.summaries(engine, filters):
        summary = _summary(one, unix_time(str(one.get("created") or "")))
        known = told.setdefault(one["id"] if joined else len(told), summary)
        for key in ("RepoTags", "RepoDigests"):
            mine, others = known[key], summary[key]
            assert isinstance(mine, list) and isinstance(others, list)
            known[key] = sorted({*mine, *others})
    return list(told.values())


def _summary(one: Mapping[str, object], created: int) -> dict[str, object]:
    assert isinstance(one["names"], list)
    names = sorted(one["names"])  # as docker's daemon tells them
    return {
        "Id": one["id"],
        "ParentId": "",
        "RepoTags": names,
        "RepoDigests": [f"{name.rpartition(':')[0]}@{one['digest']}" for name in names],
        "Created": created,
        "Size": one["size"],
        "SharedSize": -1,
        "VirtualSize": one["size"],
        "Labels": one["labels"] or None,
        "Containers": -1,
    }


def inspect(door: Door) -> None:
    name, wanted = door.parts["name"], ""
    if door.version >= PLATFORM_SINCE:
        wanted = platform(door.query.get("platform", ""))
    with_manifests = door.flag("manifests") and door.version >= MANIFESTS_SINCE
    if with_manifests and wanted:
        raise Status(400, "conflicting options: manifests and platform options cannot both be set")
    told = older.image(images.inspect(door.engine, name, wanted), door.version)
    if with_manifests:
        from ...engine.images.platforms import manifests

        told["Manifests"] = manifests(door.engine, name)
    door.answer_json(200, told)


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
        platform=platform(door.query.get("platform", "")),
        all_tags=not tag and ":" not in name.rpartition("/")[2] and "@" not in name,
        credentials=credentials(door),
    )
    door.stream(200, {"Content-Type": "application/json"}, _progress(pull(door.engine, request, door.hangup)))


def _import(door: Door) -> None:
    name, tag = door.query.get("repo", ""), door.query.get("tag", "")
    changes = tuple(line for change in door.every("changes") for line in change.splitlines() if line)
    made: list[str] = []

    def work(fd: int) -> None:
        full = f"{name}:{tag}" if name and tag else name
        message, wanted = door.query.get("message", ""), platform(door.query.get("platform", ""))
        made.append(images.import_archive(door.engine, fd, full, changes, message, wanted))

    source = door.query["fromSrc"]
    if source == "-":
        Work(work).feed(door.pieces())
        door.stream(200, {"Content-Type": "application/json"}, [jsonio.dump({"status": made[0]}) + b"\r\n"])
        return
    door.stream(200, {"Content-Type": "application/json"}, _progress(_fetched(source, work, made)))


def _fetched(url: str, work: Callable[[int], None], made: list[str]) -> Iterator[Mapping[str, object]]:
    """Yield docker's messages of an archive that is fetched, whole, before it is imported: half of one is none.

    A failure is raised before the first of them, while the status can tell it.
    """
    import tempfile

    from ...build.http import download, shown

    if "://" not in url:  # as docker's daemon takes it
        url = f"http://{url}"
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/archive"
        download(url, path, lambda _: None)
        with open(path, "rb") as file:
            work(file.fileno())
    yield {"status": f"Downloading from {shown(url)[:500]}"}
    yield {"status": made[0]}


def push(door: Door) -> None:
    from ...engine.images.push import push as push_image

    name, tag = door.parts["name"], door.query.get("tag", "")
    request = PushRequest(
        image=f"{name}:{tag}" if tag else name,
        all_tags=not tag,
        platform=platform(door.query.get("platform", "")),
        credentials=credentials(door),
    )
    door.stream(200, {"Content-Type": "application/json"}, _progress(push_image(door.engine, request, door.hangup)))


def _progress(messages: Iterable[Mapping[str, object]]) -> Iterator[bytes]:
    """Return docker's stream of JSON messages. An error before the first is raised: the status can still tell it."""
    coming = iter(messages)
    first = next(coming, None)
    return _lines(first, coming)


def _lines(message: Mapping[str, object] | None, coming: Iterator[Mapping[str, object]]) -> Iterator[bytes]:
    """Yield a line for each message; an error is the last one, because the status has left already."""
    try:
        while message is not None:
            yield jsonio.dump(message) + b"\r\n"
            message = next(coming, None)
    except OrlopError as wrong:
        yield jsonio.dump(_failure(wrong)) + b"\r\n"


def _failure(wrong: OrlopError) -> dict[str, object]:
    return {"errorDetail": {"message": wrong.cause}, "error": wrong.cause}


def tag(door: Door) -> None:
    from ...engine.images.removal import tag as tag_image

    name = door.query.get("repo", "")
    wanted = door.query.get("tag", "")
    tag_image(door.engine, door.parts["name"], f"{name}:{wanted}" if wanted else name)
    door.answer(201)


def remove(door: Door) -> None:
    if wanted := [platform(text) for text in door.every("platforms")]:
        from ...engine.images.platforms import remove_platforms

        found = remove_platforms(door.engine, door.parts["name"], wanted, force=door.flag("force"))
        door.answer_json(200, found)
        return
    from ...engine.images.removal import remove as remove_image

    removed = remove_image(door.engine, door.parts["name"], force=door.flag("force"), prune=not door.flag("noprune"))
    door.answer_json(200, removed)


def history(door: Door) -> None:
    from ...engine.containers.inspect import unix_time

    steps = images.history(door.engine, door.parts["name"], platform(door.query.get("platform", "")))
    door.answer_json(200, [step | {"Created": unix_time(str(step["Created"]))} for step in steps])


def prune(door: Door) -> None:
    from ...engine.images.removal import prune as prune_images

    door.answer_json(200, prune_images(door.engine, unused=False, filters=door.filters()))


def save(door: Door) -> None:
    """`/images/get?names=a&names=b` and `/images/{name}/get`."""
    from ...engine.images import archives

    names = [door.parts["name"]] if "name" in door.parts else door.every("names")
    archives.check(door.engine, names)  # while the status can still tell that one is not there
    wanted = platform(door.query.get("platform", ""))
    work = Work(lambda fd: archives.save(door.engine, names, fd, wanted))
    door.stream(200, {"Content-Type": "application/x-tar"}, work.pieces())


def load(door: Door) -> None:
    from ...engine.images import archives

    told: list[Mapping[str, object]] = []
    wanted = platform(door.query.get("platform", ""))
    work = Work(lambda fd: told.extend(archives.load(door.engine, fd, wanted, force=True)))
    try:
        work.feed(door.pieces())
    except OrlopError as wrong:  # docker-py raises ImageLoadError for one in the stream, and only for such
        told.append(_failure(wrong))
    lines = [{"stream": f"{one['status']}\n"} if "status" in one else one for one in told]  # as docker's load says it
    door.stream(200, {"Content-Type": "application/json"}, _progress(lines))


ROUTES = (
    ("GET", "/images/json", list_all),
    ("POST", "/images/create", create),
    ("POST", "/images/prune", prune),
    ("POST", "/images/load", load),
    ("GET", "/images/get", save),
    ("GET", "/images/{name*}/get", save),
    ("GET", "/images/{name*}/json", inspect),
    ("GET", "/images/{name*}/history", history),
    ("POST", "/images/{name*}/push", push),
    ("POST", "/images/{name*}/tag", tag),
    ("DELETE", "/images/{name*}", remove),
)
