"""--output as buildx writes it: every attribute is known, or an error.

Source: docker's documentation of exporters (image, registry, oci, docker, local, tar); BuildKit, exporter/.
"""

from orlop.spec.errors import Invalid, Unsupported
from orlop.spec.platform import Platform
from orlop.spec.record import Record
from orlop.spec.registry import ESTARGZ, GZIP, LEVELS_MAX, PLAIN, ZSTD

from .. import attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

IMAGE, OCI, DOCKER, TAR, LOCAL, NOWHERE = "image", "oci", "docker", "tar", "local", "cacheonly"
TYPES = (IMAGE, "registry", DOCKER, OCI, TAR, LOCAL, NOWHERE)
PLACES = ("manifest", "index", "manifest-descriptor", "index-descriptor")

_FORM = (
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "rewrite-timestamp",
    "multi-platform",
    "oci-artifact",
)
_IMAGE = (
    *("name", "push", "push-by-digest", "store", "unpack", "name-canonical", "dangling-name-prefix"),
    *("registry.insecure", *_FORM),
)
_KNOWN = {
    IMAGE: _IMAGE,
    DOCKER: ("dest", "name", "tar", "context", *_FORM),
    OCI: ("dest", "name", "tar", *_FORM),
    TAR: ("dest", "platform-split", "attestation-prefix"),
    LOCAL: ("dest", "platform-split", "attestation-prefix", "mode"),
    NOWHERE: (),
}


class Annotation(Record):
    """place: which document has it (PLACES). platform: of which image, "" is of all."""

    strict = True
    place: str
    key: str
    value: str
    platform: str = ""


class Form(Record):
    """How an image is written. compression: of the layers that the build made, "" leaves them as they are.

    force: of the base image's layers too. docker: docker's media types, not the OCI's. rewrite_times: no file of the
    base image is later than the build's time either. is_index: an index also for one platform. artifacts: attestations
    are artifacts of the OCI, which name their image as their subject.
    """

    strict = True
    compression: str = ""
    level: int = -1
    force: bool = False
    docker: bool = False
    rewrite_times: bool = False
    is_index: bool = False
    artifacts: bool = False


class Output(Record):
    """One place. names: what the image is called there, beside the tags of the build.

    sink: which of the descriptors that came with the request takes the archive, -1 is none. path: the folder of a
    layout (tar=false), absolute. by_digest: push without a tag; canonical: name@digest is a name too; dangling: the
    prefix of such a name for an image that has none. split: a folder for each platform, None where there are several.
    prefix: of the names of attestations in a folder.
    """

    strict = True
    type: str
    names: tuple[str, ...] = ()
    push: bool = False
    by_digest: bool = False
    store: bool = True
    unpack: bool = False
    canonical: bool = False
    dangling: str = ""
    form: Form = Form()
    annotations: tuple[Annotation, ...] = ()
    split: bool | None = None
    prefix: str = ""
    sink: int = -1
    path: str = ""

    @property
    def is_archive(self) -> bool:
        """Whether it needs somebody who takes an archive."""
        return self.type in (OCI, TAR, LOCAL) or (self.type == DOCKER and self.sink >= 0)

    @property
    def is_image_that_leaves(self) -> bool:
        """Whether it is an image, and for others."""
        return self.push or self.type == OCI or (self.type == DOCKER and self.sink >= 0)


def fields_of(text: str) -> dict[str, str]:
    """Return the attributes of one --output; a path alone is a folder, "-" an archive on standard output."""
    if text == "-":
        return {"type": TAR, "dest": "-"}
    if "=" not in text:
        return {"type": LOCAL, "dest": text}
    given = attributes.pairs(text, f"output {text[:100]}", "write type=TYPE,...")
    return {{"dst": "dest"}.get(name, name): value for name, value in given}


def parse(attributes: "Mapping[str, str]") -> Output:
    """Return what one --output asks for. Raises Invalid, Unsupported."""
    kind = attributes.get("type", "")
    if kind not in TYPES:
        raise Invalid("build", f"output type={kind[:40]}", "there is no such type", hint=f"one of {', '.join(TYPES)}")
    given = {name: value for name, value in attributes.items() if name != "type"}
    if kind == "registry":
        kind, given = IMAGE, {"push": "true", **given}
    annotations = tuple(
        annotation(name, value) for name, value in given.items() if name.startswith("annotation") and kind in _IMAGES
    )
    plain = {name: value for name, value in given.items() if not (name.startswith("annotation") and kind in _IMAGES)}
    for name in sorted(plain):
        _check_name(kind, name)
    form = form_of(plain)
    if annotations and form.docker:
        raise Invalid("build", "annotations", "docker's media types have none", hint="leave oci-mediatypes=false away")
    return Output(
        type=kind,
        names=tuple(name for name in plain.get("name", "").split(",") if name),
        push=_flag(plain, "push"),
        by_digest=_flag(plain, "push-by-digest"),
        store=_flag(plain, "store", default=True),
        unpack=_flag(plain, "unpack"),
        canonical=_flag(plain, "name-canonical"),
        dangling=plain.get("dangling-name-prefix", ""),
        form=form,
        annotations=annotations,
        split=_flag(plain, "platform-split") if "platform-split" in plain else None,
        prefix=_file_name(plain.get("attestation-prefix", ""), "output attestation-prefix="),
    )


def annotation(name: str, value: str) -> Annotation:
    """Return what annotation[-PLACE][[PLATFORM]].KEY=VALUE says. Raises Invalid."""
    head, dot, key = name.partition(".")
    where, bracket, platform = head.partition("[")
    place = where.removeprefix("annotation").removeprefix("-") or PLACES[0]
    if not dot or not key or place not in PLACES or (bracket and not platform.endswith("]")):
        hint = f"write annotation.KEY=VALUE, or annotation-PLACE.KEY with one of {', '.join(PLACES)}"
        raise Invalid("build", f"annotation {name[:80]}", "it names no place that can have one", hint=hint)
    platform = str(Platform.parse(platform.removesuffix("]"))) if bracket else ""
    if platform and place.startswith("index"):
        raise Invalid("build", f"annotation {name[:80]}", "an index is of no platform", hint="leave [PLATFORM] away")
    return Annotation(place=place, key=key, value=value, platform=platform)


def of_flag(text: str) -> tuple[Annotation, ...]:
    """Return what --annotation [PLACE[,PLACE]:]KEY=VALUE says. Raises Invalid."""
    key, equals, value = text.partition("=")
    places, colon, rest = key.partition(":")
    if not equals or not key:
        raise Invalid("build", f"annotation {text[:80]}", "it is not KEY=VALUE", hint="write [PLACE:]KEY=VALUE")
    if not colon or places.partition("[")[0].partition(",")[0] not in PLACES:
        return (annotation(f"annotation.{key}", value),)
    found = []
    for place in places.split(","):
        found.append(annotation(f"annotation-{place.strip()}.{rest}", value))
    return tuple(found)


_IMAGES = (IMAGE, OCI, DOCKER)


def _check_name(kind: str, name: str) -> None:
    if name not in _KNOWN[kind]:
        hint = f"it has: {', '.join(_KNOWN[kind]) or 'none'}"
        raise Invalid("build", f"output type={kind}", f"it has no attribute {name[:60]!r}", hint=hint)
    if name == "registry.insecure":
        refuse_insecure("output")
    if name == "context":
        cause = "there is one engine, and no context of docker's to choose another"
        raise Unsupported("build", f"output {name}", cause, hint="leave it away")


def refuse_insecure(subject: str) -> "NoReturn":
    """Raise Unsupported for the attribute registry.insecure."""
    cause = "which hosts are spoken to without TLS is said by the machine's files, not by a build"
    hint = "name the registry in a hosts.toml or registries.conf"
    raise Unsupported("build", f"{subject} registry.insecure", cause, hint=hint)


def form_of(given: "Mapping[str, str]") -> Form:
    """Return how attributes say that layers and documents are written. Raises Invalid, Unsupported."""
    compression = given.get("compression", "")
    if compression not in ("", PLAIN, GZIP, ZSTD, ESTARGZ):
        hint = f"one of {PLAIN}, {GZIP}, {ZSTD}, {ESTARGZ}"
        raise Invalid("build", f"output compression={compression[:40]}", "there is no such compression", hint=hint)
    docker = not _flag(given, "oci-mediatypes", default=True)
    if docker and compression in (ZSTD, ESTARGZ):
        subject = f"output compression={compression}"
        raise Invalid("build", subject, "docker's media types have none for it", hint="use gzip")
    return Form(
        compression=compression,
        level=_level(given.get("compression-level", ""), compression),
        force=_flag(given, "force-compression"),
        docker=docker,
        rewrite_times=_flag(given, "rewrite-timestamp"),
        is_index=_flag(given, "multi-platform"),
        artifacts=_flag(given, "oci-artifact"),
    )


def _level(text: str, compression: str) -> int:
    if not text:
        return -1
    highest = LEVELS_MAX.get(compression)
    if highest is None:
        cause = f"{compression or 'a layer that stays as it is'} has no level"
        raise Invalid("build", f"output compression-level={text[:20]}", cause, hint="say compression=gzip or zstd")
    if not (text.isascii() and text.isdigit() and len(text) < 4) or int(text) > highest:
        hint = f"give a number from 0 to {highest}"
        raise Invalid("build", f"output compression-level={text[:20]}", f"{compression} has no such level", hint=hint)
    return int(text)


def _flag(given: "Mapping[str, str]", name: str, *, default: bool = False) -> bool:
    text = given.get(name)
    if text is None:
        return default
    if text.lower() in ("true", "1", ""):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise Invalid("build", f"output {name}={text[:40]}", "it is neither true nor false", hint="write true or false")


# -- attestations -----------------------------------------------------------------------------------------------------


V1, V02 = "v1", "v0.2"


class Attestation(Record):
    """What is said of an image beside it. kind: PROVENANCE or SBOM. everything: mode=max. builder: who says it.

    filename: of a provenance that lies in a folder, "" is the usual one. version: of a provenance's form.
    generator: the image of a scanner that finds what an SBOM lists, "" is our own.
    """

    strict = True
    kind: str
    everything: bool = False
    builder: str = ""
    filename: str = ""
    version: str = V1
    generator: str = ""


def attestation(attributes: "Mapping[str, str]") -> Attestation | None:
    """Return what --attest (or an option of BuildKit's) asks for, None for one that is disabled.

    Raises Invalid, Unsupported.
    """
    kind = attributes.get("type", "")
    if kind not in _ATTESTED:
        cause, hint = f"there is no attestation type {kind[:40]!r}", "write type=provenance or type=sbom"
        raise Invalid("build", "--attest", cause, hint=hint)
    given = {name: value for name, value in attributes.items() if name != "type"}
    for name in sorted(given.keys() - set(_ATTESTED[kind])):
        hint = f"it has: {', '.join(_ATTESTED[kind])}"
        raise Invalid("build", f"attestation {kind}", f"it has no attribute {name[:60]!r}", hint=hint)
    if _flag(given, "disabled"):
        return None
    version = given.get("version", V1)
    if version not in (V1, V02):
        cause = f"there is no such version of SLSA's provenance: {version[:40]!r}"
        raise Invalid("build", "attestation provenance,version=", cause, hint=f"write {V1} or {V02}")
    mode = given.get("mode", "min")
    if mode not in ("min", "max"):
        raise Invalid("build", f"attestation mode={mode[:40]}", "there is no such mode", hint="mode=min or mode=max")
    _flag(given, "reproducible")
    _flag(given, "inline-only")
    filename = _file_name(given.get("filename", ""), f"attestation {kind},filename=")
    return Attestation(
        kind=kind,
        everything=mode == "max",
        builder=given.get("builder-id", ""),
        filename=filename,
        version=version,
        generator=given.get("generator", ""),
    )


def _file_name(text: str, subject: str) -> str:
    if "/" in text or "\0" in text or text in (".", "..") or len(text) > 200:
        raise Invalid("build", f"{subject}{text[:80]}", "it is no name of a file", hint="give a name without a slash")
    return text


PROVENANCE, SBOM = "provenance", "sbom"
_ATTESTED = {
    PROVENANCE: ("disabled", "mode", "version", "builder-id", "reproducible", "inline-only", "filename"),
    SBOM: ("disabled", "generator"),
}
