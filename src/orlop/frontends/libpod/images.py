"""Routes of images. Names are whole here, with their registry, as podman's users write and read them."""

from __future__ import annotations

import re

from ...engine import images
from ...engine.containers.inspect import unix_time
from ...spec import jsonio
from ...spec.container import CommitRequest
from ...spec.errors import NotFound, OrlopError
from ...spec.reference import Reference
from ...spec.registry import ANONYMOUS, REGISTRY, STORE, CopyRequest, Credentials, Location, PullRequest, PushRequest
from ..docker.archives import TAR, Work
from ..docker.creation import Reader
from ..docker.door import Door, Status
from ..docker.registries import in_header, of_config
from .filters import chosen, others, truth
from .shapes import bare, full_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

JSON = {"Content-Type": "application/json"}
_POLICIES = ("", "always", "missing", "ifnotpresent", "newer", "never")
_ARCHIVES = ("", "docker-archive", "oci-archive", "oci-dir")  # an OCI archive is a layout, which its client unpacks
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_FILTERS: dict[str, Callable[[Mapping[str, object], str], bool]] = {
    "containers": lambda one, value: value != "external" and truth("containers", value) == bool(one["Containers"]),
    "digest": lambda one, value: str(one["Digest"]).startswith(value),
    "id": lambda one, value: str(one["Id"]).startswith(value.removeprefix("sha256:")),
    "intermediate": lambda one, value: not truth("intermediate", value),  # what a build makes on its way is no image
    "readonly": lambda one, value: not truth("readonly", value),
}
_FOUND: dict[str, Callable[[Mapping[str, object], str], bool]] = {
    "is-automated": lambda one, value: not truth("is-automated", value),  # a registry's word of earlier times
    "is-official": lambda one, value: truth("is-official", value) == bool(one["is_official"]),
    "stars": lambda one, value: value.isdecimal() and int(str(one["star_count"])) >= int(value[:18]),
}
_LOADED = "Loaded image: "
_HUB = ("docker.io", "index.docker.io", "https://index.docker.io/v1/")


# -- what there is ----------------------------------------------------------------------------------------------------


def list_all(door: Door) -> None:
    filters = door.filters()
    found = images.summaries(door.engine, others(filters, _FILTERS))
    used = [record.image_id for record in door.engine.records.all()]
    told = [_summary(one, used.count(str(one["id"]))) for one in found]
    door.answer_json(200, chosen(told, filters, _FILTERS))


def _summary(one: Mapping[str, object], users: int) -> dict[str, object]:
    names, digest, size = one["names"], one["digest"], one["size"]
    assert isinstance(names, list)
    full = [full_name(name) for name in names]
    return {
        "Id": bare(str(one["id"])),
        "ParentId": "",
        "RepoTags": full or None,
        "RepoDigests": sorted({f"{Reference.parse(name).name}@{digest}" for name in full}),
        "Created": unix_time(str(one.get("created") or "")),
        "Size": size,
        "SharedSize": 0,
        "VirtualSize": size,
        "Labels": one["labels"] or None,
        "Containers": users,
        **({"Names": full} if full else {"Dangling": True}),
        "Digest": digest,
        "History": full or None,
    }


def inspect(door: Door) -> None:
    found = images.inspect(door.engine, door.parts["name"])
    config, tags, descriptor = found["Config"], found["RepoTags"], found["Descriptor"]
    assert isinstance(config, dict) and isinstance(tags, list) and isinstance(descriptor, dict)
    full = [full_name(name) for name in tags]
    digest = descriptor["digest"]
    steps = images.history(door.engine, door.parts["name"])
    door.answer_json(
        200,
        {
            "Id": bare(str(found["Id"])),
            "Digest": digest,
            "RepoTags": full,
            "RepoDigests": sorted({f"{Reference.parse(name).name}@{digest}" for name in full}),
            "Parent": "",
            "Comment": found["Comment"],
            "Created": found["Created"] or "0001-01-01T00:00:00Z",
            "Config": {name: value for name, value in config.items() if value},
            "Version": found["DockerVersion"],
            "Author": found["Author"],
            "Architecture": found["Architecture"],
            "Os": found["Os"],
            "Size": found["Size"],
            "VirtualSize": found["Size"],
            "GraphDriver": {"Name": door.engine.snapshots.driver.name, "Data": {}},
            "RootFS": found["RootFS"],
            "Labels": config["Labels"],
            "Annotations": {},
            "ManifestType": descriptor.get("mediaType", _MANIFEST),
            "User": config["User"],
            "History": [
                {"created": step["Created"] or None, "created_by": step["CreatedBy"], "comment": step["Comment"]}
                for step in reversed(steps)
            ],
            "NamesHistory": full,
        },
    )


def tree(door: Door) -> None:
    from ...engine.images.layers import tree as of_image
    from ..cli.images.tree import lines

    if door.flag("whatrequires"):
        raise Status(501, "which images are made of one is not told: leave --whatrequires away")
    found = of_image(door.engine, door.parts["name"])
    door.answer_json(200, {"Tree": "\n".join(lines(found, _shown)) + "\n"})


def _shown(name: str) -> str:
    """Return a name as podman writes it; a short id, of an image without a name, stays as it is."""
    return full_name(name) if ":" in name or "@" in name else name


def changed(door: Door) -> None:
    compare(door, door.parts["name"])


def compare(door: Door, name: str) -> None:
    """Answer with what differs in an image from the one that `parent` names, or without one what its last layer did."""
    from ...engine.images import layers

    parent = door.query.get("parent", "")
    found = layers.diff(door.engine, parent, name) if parent else layers.last(door.engine, name)
    kinds = {"C": 0, "A": 1, "D": 2}
    door.answer_json(200, [{"Path": one["path"], "Kind": kinds[one["kind"]]} for one in found])


def resolve(door: Door) -> None:
    """Answer with the one name that a short one means: there are no lists of registries to look through."""
    door.answer_json(200, {"Names": [str(Reference.parse(door.parts["name"]).tagged())]})


def exists(door: Door) -> None:
    images.find(door.engine, door.parts["name"])
    door.answer(204)


def history(door: Door) -> None:
    steps = images.history(door.engine, door.parts["name"])
    told = []
    for step in steps:
        tags = step["Tags"]
        names = [full_name(name) for name in tags] if isinstance(tags, list) else None
        made = {"Id": bare(str(step["Id"])), "Created": unix_time(str(step["Created"])), "Tags": names}
        told.append(step | made)
    door.answer_json(200, told)


# -- names ------------------------------------------------------------------------------------------------------------


def tag(door: Door) -> None:
    from ...engine.images.removal import tag as tag_image

    name, wanted = door.query.get("repo", ""), door.query.get("tag", "")
    if not name:
        raise Status(400, "repo parameter is required to tag an image")
    tag_image(door.engine, door.parts["name"], f"{name}:{wanted}" if wanted else name)
    door.answer(201)


def untag(door: Door) -> None:
    """Take names away, of which the last one leaves the image without any. Without a name: all that it has."""
    from ...engine.images.removal import untag_all

    name, wanted = door.query.get("repo", ""), door.query.get("tag", "")
    untag_all(door.engine, door.parts["name"], [f"{name}:{wanted}" if wanted else name] if name else [])
    door.answer(201)


def remove_one(door: Door) -> None:
    _remove(door, [door.parts["name"]], strict=True)


def remove_several(door: Door) -> None:
    names = door.every("images")
    if door.flag("all"):
        names = [str(one["id"]) for one in images.summaries(door.engine)]
    _remove(door, names, strict=False)


def _remove(door: Door, names: Sequence[str], *, strict: bool) -> None:
    """Answer with what was removed, and a text for what could not be; strict: the first failure is the answer."""
    from ...engine.images.removal import remove

    untagged: list[str] = []
    deleted: list[str] = []
    errors: list[str] = []
    code, lists = 0, door.flag("lookupManifest") or door.flag("lookupmanifest")
    for name in names:
        try:
            if lists and _is_list(door, name):
                deleted += _forget(door, name, untagged)
                continue
            found = remove(door.engine, name, force=door.flag("force"), prune=not door.flag("noprune"))
        except OrlopError as wrong:
            if strict:
                raise
            missing = isinstance(wrong, NotFound)
            if missing and door.flag("ignore"):
                continue
            errors.append(f"{name}: image not known" if missing else f"{wrong.cause}: image is in use by a container")
            code = max(code, 1 if missing else 2)
            continue
        untagged += [full_name(one["Untagged"]) for one in found if "Untagged" in one]
        deleted += [bare(one["Deleted"]) for one in found if "Deleted" in one]
    told: dict[str, object] = {"Deleted": deleted} if deleted else {}
    told |= {"Untagged": untagged} if untagged else {}
    door.answer_json(200, told | {"ExitCode": code} | ({"Errors": errors} if errors else {}))


def _is_list(door: Door, name: str) -> bool:
    from ...engine.images import manifests

    try:
        manifests.digest_of(door.engine, name)
    except NotFound:
        return False
    return True


def _forget(door: Door, name: str, untagged: list[str]) -> list[str]:
    """Remove a list, also one that has no image, and return its id."""
    from ...engine.images import manifests

    identifier = bare(manifests.digest_of(door.engine, name))
    manifests.remove(door.engine, [name])
    untagged.append(full_name(name))
    return [identifier]


def prune(door: Door) -> None:
    from ...engine.images.removal import prune as prune_images

    sizes = {str(one["id"]): one["size"] for one in images.summaries(door.engine)}
    found = prune_images(door.engine, unused=door.flag("all"), filters=door.filters())
    deleted = found["ImagesDeleted"]
    assert isinstance(deleted, list)
    gone = [one["Deleted"] for one in deleted if one.get("Deleted") in sizes]
    door.answer_json(200, [{"Id": bare(one), "Err": None, "Size": sizes[one]} for one in gone])


# -- registries -------------------------------------------------------------------------------------------------------


def credentials(door: Door, reference: Reference) -> Credentials:
    """Return what X-Registry-Auth says of a name's registry: one account, or accounts by registry. Raises Status."""
    found = in_header(door)
    if found is None:
        return ANONYMOUS
    if all(isinstance(one, dict) for one in found.values()):
        places = _HUB if reference.domain == "docker.io" else (reference.domain,)
        account = next((found[place] for place in (reference.name, *places) if place in found), {})
    else:
        account = found
    return of_config(Reader(account, "X-Registry-Auth"))


def pull(door: Door) -> None:
    from ...engine.images.pull import pull as pull_image

    name, policy = door.query.get("reference", ""), door.query.get("policy", "always") or "always"
    if policy.lower() not in _POLICIES:
        raise Status(400, f"unsupported pull policy {policy[:60]!r}")
    has = _known(door, name)  # by its id, too, which is no name that could be pulled
    if has is None and policy == "never":
        raise NotFound("find", f"image {name}", f"No such image: {name}")
    if has is not None and policy.lower() in ("missing", "ifnotpresent", "never"):
        door.stream(200, JSON, [_pulled(has)])
        return
    reference = Reference.parse(name.removeprefix("docker://"))
    platform = [door.query.get(word, "") for word in ("os", "arch", "variant")]
    request = PullRequest(
        image=name.removeprefix("docker://"),
        platform="/".join(filter(None, (platform[0] or "linux", *platform[1:]))) if any(platform) else "",
        all_tags=door.flag("alltags"),
        credentials=credentials(door, reference),
    )
    door.stream(200, JSON, _pulling(door, name, pull_image(door.engine, request, door.hangup)))


def _known(door: Door, name: str) -> str | None:
    try:
        return str(images.find(door.engine, name.removeprefix("docker://")).id)
    except NotFound:
        return None


def _pulled(identifier: str) -> bytes:
    return jsonio.dump({"images": [bare(identifier)], "id": bare(identifier)}) + b"\n"


def _pulling(door: Door, name: str, messages: Iterable[Mapping[str, object]]) -> Iterator[bytes]:
    """Yield podman's report: lines for people, then the ids; an error is the last of them, the status has left."""
    yield _said("Trying to pull " + full_name(name.removeprefix("docker://")) + "...")
    try:
        for message in messages:
            if text := _line(message):
                yield _said(text)
        found = _known(door, name)
        yield _pulled(found) if found is not None else _failed(f"{name}: image not known")
    except OrlopError as wrong:
        yield _failed(wrong.cause)


def _line(message: Mapping[str, object]) -> str:
    """Return what docker's message says to people, "" for one that only moves a bar."""
    if "status" not in message or message.get("progressDetail"):
        return ""
    return " ".join(str(message[key]) for key in ("id", "status") if message.get(key))


def _said(text: str) -> bytes:
    return jsonio.dump({"stream": text + "\n"}) + b"\n"


def _failed(text: str) -> bytes:
    return jsonio.dump({"error": text}) + b"\n"


def push(door: Door) -> None:
    """Push an image to the place of its name, or to `destination`, which its own names have nothing to do with."""
    source = door.parts["name"]
    destination = door.query.get("destination") or source
    if "://" in destination and not destination.startswith("docker://"):
        raise Status(501, f"images are pushed to registries only, not to {destination[:100]!r}")
    target = Reference.parse(destination.removeprefix("docker://")).tagged()
    image = images.find(door.engine, source)
    account = credentials(door, target)
    own = door.engine.store.names.get(target)
    messages: Iterable[Mapping[str, object]]
    if own is not None and own.digest == image.target.digest:
        from ...engine.images.push import push as push_image

        messages = push_image(door.engine, PushRequest(image=str(target), credentials=account), door.hangup)
    else:
        from ...engine.images.copy import copy

        place = Location(transport=REGISTRY, name=str(target), credentials=account)
        request = CopyRequest(source=Location(transport=STORE, name=source), destination=place)
        messages = copy(door.engine, request, door.hangup)
    door.stream(200, JSON, _pushing(messages))


def _pushing(messages: Iterable[Mapping[str, object]]) -> Iterator[bytes]:
    """Yield podman's report of a push: lines for people; an error is the last of them."""
    try:
        for message in messages:
            if text := _line(message):
                yield _said(text)
    except OrlopError as wrong:
        yield _failed(wrong.cause)


def search(door: Door) -> None:
    from ...engine.images.search import search as find

    if door.flag("listTags") or door.flag("listtags"):
        door.answer_json(200, _tags(door))
        return
    filters = door.filters()
    if unknown := set(filters) - set(_FOUND):
        raise Status(400, f"invalid filter {min(unknown)[:60]!r}: known are {', '.join(_FOUND)}")
    term = door.query.get("term", "")
    reference = Reference.parse(term if "/" in term else "docker.io/library/x")
    limit = door.number("limit") or 25
    index = reference.domain
    found = find(door.engine, term, limit, credentials(door, reference))
    told = [
        {
            "Index": index,
            "Name": one["name"],
            "Description": one["description"],
            "Stars": one["star_count"],
            "Official": "[OK]" if one["is_official"] else "",
            "Automated": "",
            "Tag": "",
        }
        for one in chosen(found, filters, _FOUND)
    ]
    door.answer_json(200, told)


def _tags(door: Door) -> list[dict[str, object]]:
    """Return the tags that a registry has of one repository, each as a row of the table."""
    from ...image.registry import Patience

    reference = Reference.parse(door.query.get("term", "").removeprefix("docker://"))
    place = door.engine.registries.to_pull(reference, credentials(door, reference))[-1]
    found = list(place.tags(Patience()))[: max(0, door.number("limit") or 25)]
    nothing = {"Index": "", "Description": "", "Stars": 0, "Official": "", "Automated": ""}
    return [{**nothing, "Name": reference.name, "Tag": one} for one in found]


# -- archives ---------------------------------------------------------------------------------------------------------


def export_several(door: Door) -> None:
    _export(door, door.every("references"))


def export_one(door: Door) -> None:
    _export(door, [door.parts["name"]])


def _export(door: Door, names: Sequence[str]) -> None:
    from ...engine.images import archives

    wanted = door.query.get("format", "")
    if wanted not in _ARCHIVES:
        raise Status(501, f"images are not saved as {wanted[:60]!r}: known are docker-archive, oci-archive and oci-dir")
    if not names:
        raise Status(400, "no image is named")
    for name in names:
        images.find(door.engine, name)  # while the status can still tell that it is not there
    work = Work(lambda fd: archives.save(door.engine, names, fd))
    door.stream(200, {"Content-Type": TAR}, work.pieces())


def load(door: Door) -> None:
    from ...engine.images import archives

    said: list[str] = []
    work = Work(
        lambda fd: said.extend(str(one.get("status", "")) for one in archives.load(door.engine, fd, force=True))
    )
    work.feed(door.pieces())
    names = [full_name(text.removeprefix(_LOADED)) for text in said if text.startswith(_LOADED)]
    names += [bare(text.rpartition(" ")[2]) for text in said if text.startswith("Loaded image ID")]
    door.answer_json(200, {"Names": names})


def import_archive(door: Door) -> None:
    if door.query.get("url"):
        raise Status(501, "an archive is imported from the request only: leave url away")
    changes = _changes(door)
    made: list[str] = []
    platform = [door.query.get(word, "") for word in ("os", "architecture", "variant")]
    wanted = "/".join(filter(None, (platform[0] or "linux", *platform[1:]))) if any(platform) else ""
    name, message = door.query.get("reference", ""), door.query.get("message", "")

    def work(fd: int) -> None:
        made.append(images.import_archive(door.engine, fd, name, changes, message, wanted))

    Work(work).feed(door.pieces())
    door.answer_json(200, {"Id": made[0]})


def _changes(door: Door) -> tuple[str, ...]:
    """Return a Dockerfile's instructions; podman's users write them as CMD=... too."""
    return tuple(re.sub(r"^([A-Za-z]+)=", r"\1 ", text) for text in door.every("changes"))


def commit(door: Door) -> None:
    from ...engine.rootfs import commit as verb

    if door.query.get("format", "oci") not in ("", "oci", "docker"):
        raise Status(400, f"unrecognized format {door.query['format'][:60]!r}")
    name, wanted = door.query.get("repo", ""), door.query.get("tag", "")
    request = CommitRequest(
        container=door.query.get("container", ""),
        name=f"{name}:{wanted}" if name and wanted else name,
        author=door.query.get("author", ""),
        message=door.query.get("comment", ""),
        changes=_changes(door),
        pause=door.flag("pause"),
    )
    made = _squashed(door, request) if door.flag("squash") else verb.commit(door.engine, request)
    door.answer_json(200, {"Id": bare(made)})


def _squashed(door: Door, request: CommitRequest) -> str:
    """Commit into an image of one layer; what it was made of goes again."""
    from ...engine.images.mounts import flatten
    from ...engine.images.removal import remove
    from ...engine.images.removal import tag as tag_image
    from ...engine.rootfs import commit as verb

    whole = verb.commit(door.engine, request.replace(name=""))
    made = flatten(door.engine, whole)
    if request.name:
        tag_image(door.engine, made, request.name)
    remove(door.engine, whole)
    return made


_I = "/libpod/images/{name*}"
ROUTES = (
    ("GET", "/libpod/images/json", list_all),
    ("POST", "/libpod/images/pull", pull),
    ("POST", "/libpod/images/prune", prune),
    ("POST", "/libpod/images/load", load),
    ("POST", "/libpod/images/import", import_archive),
    ("GET", "/libpod/images/export", export_several),
    ("GET", "/libpod/images/search", search),
    ("DELETE", "/libpod/images/remove", remove_several),
    ("GET", f"{_I}/exists", exists),
    ("GET", f"{_I}/json", inspect),
    ("GET", f"{_I}/history", history),
    ("GET", f"{_I}/tree", tree),
    ("GET", f"{_I}/changes", changed),
    ("GET", f"{_I}/resolve", resolve),
    ("GET", f"{_I}/get", export_one),
    ("POST", f"{_I}/tag", tag),
    ("POST", f"{_I}/untag", untag),
    ("POST", f"{_I}/push", push),
    ("DELETE", _I, remove_one),
    ("POST", "/libpod/commit", commit),
)
