"""`orlop skopeo`: the verbs of skopeo on images wherever they are, with its names of places and its output.

A place is docker://HOST/NAME[:TAG], oci:PATH[:NAME], oci-archive:, docker-archive:, dir:PATH, or
containers-storage:NAME, which is our own store. Source: skopeo(1) and its verbs' pages; compared with skopeo in the
tests.
"""

from __future__ import annotations

import hashlib
import json
import os

from ....spec.errors import Denied, Invalid
from ....spec.reference import Reference
from ....spec.registry import (
    GZIP,
    PLAIN,
    REGISTRY,
    STORE,
    CopyRequest,
    Credentials,
    ImageForm,
    Location,
    parse_location,
)
from ..command import Command, Invocation, warn, write_line
from ..flags import BOOL, EXIT_USAGE, STRING, Flag, Options, UsageError
from .copy import form_of, is_near, located

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...native.client import Engine

STORAGE = "containers-storage:"
MANIFEST_BYTES_MAX = 4 * 1024 * 1024


def _copy(invocation: Invocation) -> int:
    options = invocation.options
    source = _place(invocation, invocation.arguments[0], "src-")
    destination = _place(invocation, invocation.arguments[1], "dest-")
    request = CopyRequest(
        source=source,
        destination=destination,
        platform=_platform(options),
        all_platforms=_all(options),
        form=_form(options),
    )
    digest = _run(invocation, "images.copy", request)
    if options["digestfile"]:
        with open(options["digestfile"], "w") as file:
            file.write(digest)
    return 0


def _sync(invocation: Invocation) -> int:
    options = invocation.options
    if options["src"] != "docker" or options["dest"] not in ("docker", "dir"):
        told = "it copies from a registry to a registry or a directory"
        raise UsageError(told, "give --src docker and --dest docker or --dest dir", EXIT_USAGE)
    source, destination = invocation.arguments
    before = {"docker": "docker://", "dir": "dir:"}[options["dest"]]
    request = CopyRequest(
        source=_place(invocation, f"docker://{source}", "src-"),
        destination=_place(invocation, before + destination, "dest-"),
        platform=_platform(options),
        all_platforms=_all(options),
        form=form_of(options["format"], "", "", keep_digests=options["preserve-digests"]),
    )
    _run(invocation, "images.sync", request)
    return 0


def _run(invocation: Invocation, verb: str, request: CopyRequest) -> str:
    from .. import progress

    with invocation.connect() as engine:
        messages = engine.messages(verb, {"request": request.to_json()})
        result: object = None
        if invocation.options["quiet"]:
            while True:
                try:
                    next(messages)
                except StopIteration as ended:
                    result = ended.value
                    break
        else:
            result = progress.Display().show_all(messages)
    return str(result.get("digest", "")) if isinstance(result, dict) else ""


def _inspect(invocation: Invocation) -> int:
    options = invocation.options
    place = _place(invocation, invocation.arguments[0], "")
    with invocation.connect() as engine:
        result = engine.call("registries.look", {"place": place.to_json(), "platform": _platform(options)})
        found: dict[str, Any] = result if isinstance(result, dict) else {}
        wanted = not (options["raw"] or options["config"] or options["no-tags"])
        found["tags"] = _all_tags(engine, place) if wanted and place.transport == REGISTRY else []
    if options["raw"]:
        write_line(found["config"] if options["config"] else found["raw"])
    elif options["config"]:
        write_line(json.dumps(json.loads(found["config"]), indent=4))
    else:
        described = _described(found)
        form = options["format"]
        if form:
            from .. import listing
            from ..template import Row

            row = Row("skopeo.InspectOutput", described)
            listing.print_formatted(form, [row], {key: key.upper() for key in described})
        else:
            write_line(json.dumps(described, indent=4))
    return 0


def _all_tags(engine: Engine, place: Location) -> object:
    """Return the tags beside an image; none, with a warning, where the registry lets nobody list them."""
    try:
        return engine.call("registries.tags", {"place": place.to_json()})
    except Denied:
        warn("Registry disallows tag list retrieval; skipping")
        return []


def _described(found: dict[str, Any]) -> dict[str, Any]:
    """Return what `skopeo inspect` prints of an image."""
    config, manifest = json.loads(found["config"]), json.loads(found["manifest"])
    inner = config.get("config") or {}
    layers = manifest.get("layers") or []
    described: dict[str, Any] = {"Name": found["name"]} if found["name"] else {}
    described |= {
        "Digest": found["digest"],
        "RepoTags": found["tags"],
        "Created": _time(config.get("created")),
        "DockerVersion": config.get("docker_version", ""),
        "Labels": inner.get("Labels"),
        "Architecture": config.get("architecture", ""),
    }
    if config.get("variant"):
        described["Variant"] = config["variant"]
    return described | {
        "Os": config.get("os", ""),
        "Layers": [layer["digest"] for layer in layers],
        "LayersData": [
            {
                "MIMEType": layer.get("mediaType", ""),
                "Digest": layer["digest"],
                "Size": layer["size"],
                "Annotations": layer.get("annotations"),
            }
            for layer in layers
        ],
        "Env": inner.get("Env"),
    }


def _time(text: str | None) -> str | None:
    """Return a time as Go writes it: no zeros at the end of its fraction (time.RFC3339Nano)."""
    seconds, dot, fraction = (text or "").partition(".")
    digits = fraction.rstrip("Z")
    if not dot or not fraction.endswith("Z") or not digits.isdigit():
        return text
    return ".".join(part for part in (seconds, digits.rstrip("0")) if part) + "Z"


def _list_tags(invocation: Invocation) -> int:
    place = _place(invocation, invocation.arguments[0], "")
    with invocation.connect() as engine:
        tags = engine.call("registries.tags", {"place": place.to_json()})
    name = Reference.parse(place.name).name
    write_line(json.dumps({"Repository": name, "Tags": tags}, indent=4))
    return 0


def _delete(invocation: Invocation) -> int:
    place = _place(invocation, invocation.arguments[0], "")
    with invocation.connect() as engine:
        engine.call("registries.delete", {"place": place.to_json()})
    return 0


def _manifest_digest(invocation: Invocation) -> int:
    path = invocation.arguments[0]
    try:
        with open(path, "rb") as file:
            data = file.read(MANIFEST_BYTES_MAX + 1)
    except OSError as wrong:
        raise Invalid("read", path, wrong.strerror or str(wrong), hint="name a manifest's file") from None
    if len(data) > MANIFEST_BYTES_MAX:
        raise Invalid("read", path, f"it has more than {MANIFEST_BYTES_MAX} bytes: it is no manifest", code="E0212")
    write_line(f"sha256:{hashlib.sha256(data).hexdigest()}")
    return 0


def _place(invocation: Invocation, text: str, side: str) -> Location:
    """Return a place, with the credentials that the flags of this side give."""
    if text.startswith(STORAGE):
        return Location(transport=STORE, name=text.removeprefix(STORAGE))
    if parse_location(text).transport == STORE:
        hint = f"write docker://{text} for a registry, or {STORAGE}{text} for an image here"
        raise Invalid("use", text, "it names no place", hint=hint)
    options, location = invocation.options, located(invocation, text)
    if location.transport != REGISTRY:
        return location
    if not options[f"{side}tls-verify"]:
        _check_insecure(Reference.parse(location.name).domain)
    if options[f"{side}no-creds"]:
        return location.replace(credentials=Credentials())
    user, colon, password = options[f"{side}creds"].partition(":")
    if options[f"{side}creds"]:
        if not colon:
            raise UsageError("credentials have a password", "write --creds USER:PASSWORD", EXIT_USAGE)
        warn("WARNING! A password on the command line is seen by everybody on this machine. Use: orlop login")
        return location.replace(credentials=Credentials(username=user, password=password))
    return location


def _check_insecure(domain: str) -> None:
    """Raise Invalid for a registry that no file calls insecure: a flag is too easily copied."""
    if not is_near(domain):
        hint = "say it once for this registry: `insecure = true` in registries.conf, or skip_verify in hosts.toml"
        raise Invalid("reach", f"registry {domain}", "a flag does not switch the check of certificates off", hint=hint)


def _platform(options: Options) -> str:
    """Return the platform of --override-os, --override-arch and --override-variant, "" for the machine's."""
    if not any(options[f"override-{part}"] for part in ("os", "arch", "variant")):
        return ""
    from ....spec.platform import Platform

    host = Platform.of_machine(os.uname().machine)
    architecture = options["override-arch"] or host.architecture
    variant = options["override-variant"] or ("" if options["override-arch"] else host.variant)
    return "/".join(part for part in (options["override-os"] or "linux", architecture, variant) if part)


def _form(options: Options) -> ImageForm:
    """Return the form that the flags of a copy ask for."""
    compression = options["dest-compress-format"]
    if options["dest-decompress"]:
        if compression or options["dest-compress"]:
            raise UsageError("--dest-decompress and --dest-compress exclude each other", "leave one away", EXIT_USAGE)
        compression = PLAIN
    elif options["dest-compress"] and not compression:
        compression = GZIP
    level, keep = options["dest-compress-level"], options["preserve-digests"]
    if level and not compression:
        compression = GZIP
    return form_of(options["format"], compression, level, keep_digests=keep)


def _all(options: Options) -> bool:
    if options["multi-arch"] not in ("", "all", "system"):
        raise UsageError("--multi-arch is all or system", "index-only copies would be incomplete", EXIT_USAGE)
    return bool(options["all"]) or options["multi-arch"] == "all"


def _credentials(side: str) -> tuple[Flag, ...]:
    return (
        Flag(f"{side}creds", "", STRING, "Use USER:PASSWORD for the registry", default=""),
        Flag(f"{side}no-creds", "", BOOL, "Use no credentials", default=False),
        Flag(f"{side}tls-verify", "", BOOL, "Require https and a certificate that is right", default=True),
    )


_OVERRIDES = (
    Flag("override-arch", "", STRING, "Choose this architecture", default=""),
    Flag("override-os", "", STRING, "Choose this operating system", default=""),
    Flag("override-variant", "", STRING, "Choose this variant of the architecture", default=""),
)
_COPYING = (
    Flag("all", "a", BOOL, "Copy the images for all platforms, and the index", default=False),
    Flag("multi-arch", "", STRING, "all: the same as --all; system: the image for this machine", default=""),
    Flag("format", "f", STRING, "Write the media types of oci or v2s2 (docker)", default=""),
    Flag("preserve-digests", "", BOOL, "Refuse what would change a digest", default=False),
    Flag("quiet", "q", BOOL, "Suppress verbose output", default=False),
    *_OVERRIDES,
    *_credentials("src-"),
    *_credentials("dest-"),
)
COPY = Command(
    _copy,
    "Copy an image from one place to another",
    "[OPTIONS] SOURCE DESTINATION",
    flags=(
        *_COPYING,
        Flag("dest-compress", "", BOOL, "Compress the layers", default=False),
        Flag("dest-compress-format", "", STRING, "Compress the layers with gzip or zstd", default=""),
        Flag("dest-compress-level", "", STRING, "Compress as hard as this level says", default=""),
        Flag("dest-decompress", "", BOOL, "Leave the layers uncompressed", default=False),
        Flag("digestfile", "", STRING, "Write the digest of the copy to this file", default=""),
    ),
    arguments=(2, 2),
)
SYNC = Command(
    _sync,
    "Copy all tags of a repository",
    "--src docker --dest docker|dir [OPTIONS] SOURCE DESTINATION",
    flags=(
        *_COPYING,
        Flag("dest", "d", STRING, "Where to: docker or dir", default=""),
        Flag("src", "s", STRING, "Where from: docker", default=""),
    ),
    arguments=(2, 2),
)
INSPECT = Command(
    _inspect,
    "Describe an image without bringing it here",
    "[OPTIONS] IMAGE",
    flags=(
        Flag("config", "", BOOL, "Print the configuration", default=False),
        Flag("format", "f", STRING, "Format the output using a Go template", default=""),
        Flag("no-tags", "n", BOOL, "Do not list the tags", default=False),
        Flag("raw", "", BOOL, "Print the manifest, or with --config the configuration, as it is", default=False),
        *_OVERRIDES,
        *_credentials(""),
    ),
    arguments=(1, 1),
)
LIST_TAGS = Command(
    _list_tags, "List the tags of a registry's repository", "[OPTIONS] PLACE", flags=_credentials(""), arguments=(1, 1)
)
DELETE = Command(_delete, "Delete an image of a registry", "[OPTIONS] IMAGE", flags=_credentials(""), arguments=(1, 1))
MANIFEST_DIGEST = Command(
    _manifest_digest, "Compute the digest of a manifest's file", "FILE", flags=(), arguments=(1, 1)
)
