"""`orlop image copy` and `orlop image sync`: images between registries, archives, directories and our store.

A place is docker://HOST/NAME[:TAG], oci:PATH[:NAME], oci-archive:PATH[:NAME], docker-archive:PATH[:NAME:TAG], dir:PATH,
or the name of an image here (`spec.registry`).
"""

from __future__ import annotations

import os

from ....spec.errors import Invalid
from ....spec.reference import Reference
from ....spec.registry import REGISTRY, STORE, CopyRequest, ImageForm, Location, parse_location
from ..command import Command, Invocation, write_line
from ..flags import BOOL, STRING, Flag


def _copy(invocation: Invocation) -> int:
    return _run(invocation, "images.copy")


def _sync(invocation: Invocation) -> int:
    return _run(invocation, "images.sync")


def _run(invocation: Invocation, verb: str) -> int:
    from .. import progress

    options = invocation.options
    if options["all-platforms"] and options["platform"]:
        raise Invalid("copy", "an image", "--all-platforms and --platform exclude each other", hint="leave one away")
    source, destination = (located(invocation, one) for one in invocation.arguments)
    request = CopyRequest(
        source=source,
        destination=destination,
        platform=options["platform"]
        or ("" if options["all-platforms"] else os.environ.get("DOCKER_DEFAULT_PLATFORM", "")),
        all_platforms=options["all-platforms"],
        referrers=options["referrers"],
        form=form_of(options["format"], options["compression"], options["compression-level"]),
    )
    with invocation.connect() as engine:
        messages = engine.messages(verb, {"request": request.to_json()})
        if options["quiet"]:
            for _ in messages:
                pass
        else:
            result = progress.Display().show_all(messages)
            if isinstance(result, dict) and "digest" in result:
                write_line(f"Digest: {result['digest']}")
    return 0


def take_in(invocation: Invocation, source: str, name: str) -> int:
    """Copy an image into the store and print its ID. Without a name it is called as its place: oci:lay:1 is lay:1."""
    place = located(invocation, source)
    if not name:
        tag = place.name if place.name and ":" not in place.name and "/" not in place.name else ""
        name = ":".join(part for part in (os.path.basename(place.path).partition(".")[0].lower(), tag) if part)
    request = CopyRequest(
        source=place,
        destination=Location(transport=STORE, name=name),
        platform=invocation.options["platform"],
        all_platforms=not invocation.options["platform"],
    )
    with invocation.connect() as engine:
        for _ in engine.messages("images.copy", {"request": request.to_json()}):
            pass
        found = engine.call("images.inspect", {"image": name})
    write_line(str(found.get("Id", "")) if isinstance(found, dict) else "")
    return 0


def is_near(domain: str) -> bool:
    """Tell whether a registry is on this machine: no other is spoken to without TLS unasked."""
    from ....image.registry.transport import is_loopback

    host = domain.rpartition(":")[0] if domain.rpartition(":")[2].isdigit() else domain
    return is_loopback(host.strip("[]"))


def form_of(types: str, compression: str, level: str, *, keep_digests: bool = False) -> ImageForm:
    """Return the form that flags ask for. Raises Invalid for one that there is not."""
    if level and not (level.isascii() and level.isdigit() and len(level) <= 3):
        raise Invalid("copy", "an image", f"the level {level[:20]!r} is no number", hint="leave the level away")
    wanted = {"types": types, "compression": compression, "level": int(level or -1), "keep_digests": keep_digests}
    return ImageForm.from_json(wanted, "the form of the image")


def located(invocation: Invocation, text: str) -> Location:
    """Return a place as the engine is to find it: with a path that does not depend on where we are, and credentials."""
    from ..credentials import for_places

    location = parse_location(text)
    if location.transport == REGISTRY:
        with invocation.connect() as engine:
            reference = Reference.parse(location.name)
            return location.replace(credentials=for_places(engine, reference.domain, reference.path))
    return location if location.transport == STORE else location.replace(path=os.path.abspath(location.path))


_FLAGS = (
    Flag("all-platforms", "", BOOL, "Copy the images for all platforms, and the index", default=False),
    Flag(
        "compression",
        "",
        STRING,
        "Compress the layers with gzip, zstd or estargz, or leave them uncompressed",
        default="",
    ),
    Flag("compression-level", "", STRING, "Compress as hard as this level of gzip or zstd says", default=""),
    Flag("format", "f", STRING, "Write the media types of oci or v2s2 (docker)", default=""),
    Flag("platform", "", STRING, "Copy the image for this platform", default=""),
    Flag("referrers", "", BOOL, "Copy what refers to the image, too: signatures, attestations", default=False),
    Flag("quiet", "q", BOOL, "Suppress verbose output", default=False),
)
COPY = Command(
    _copy,
    "Copy an image between registries, archives, directories and the store",
    "[OPTIONS] SOURCE DESTINATION",
    flags=_FLAGS,
    arguments=(2, 2),
    aliases=("image copy",),
)
SYNC = Command(
    _sync,
    "Copy all tags of a registry's repository",
    "[OPTIONS] docker://HOST/NAME[:TAG] DESTINATION",
    flags=_FLAGS,
    arguments=(2, 2),
    aliases=("image sync",),
)
