"""The verbs `manifest.*`: lists of images for several platforms, kept as indexes in the store under their names."""

from __future__ import annotations

from ...image.push import Push
from ...image.registry import Patience
from ...spec.errors import Conflict, Invalid, NotFound
from ...spec.image import DOCKER_INDEX, INDEXES, OCI_INDEX, OCI_MANIFEST, Descriptor, Index, parse_manifest
from ...spec.jsonio import dump, parse_object
from ...spec.platform import Platform
from ...spec.reference import Reference
from ...spec.registry import PullRequest
from .pull import pull

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...spec.registry import Credentials
    from ..engine import Engine


def create(engine: Engine, name: str, images: Sequence[str], credentials: Credentials, *, amend: bool = False) -> str:
    """Make a list of images, pulled where they are not here; return its name. Raises Conflict when there is one."""
    reference = Reference.parse(name).tagged()
    known = engine.store.names.get(reference)
    if known is not None and not amend:
        cause = f"refusing to amend an existing manifest list with no --amend flag: {reference.familiar}"
        raise Conflict("create", f"manifest list {name}", cause, hint="use --amend, or remove it: orlop manifest rm")
    manifests = list(_list(engine, reference).manifests) if known is not None else []
    with engine.store.leases.hold() as lease:
        for image in images:
            descriptor = _member(engine, image, credentials)
            lease.add(descriptor.digest)
            manifests = [
                one for one in manifests if one.digest != descriptor.digest or one.platform != descriptor.platform
            ]
            manifests.append(descriptor)
        _store(engine, reference, manifests)
    return str(reference)


def digest_of(engine: Engine, name: str) -> str:
    """Return the digest of a list that is here. Raises NotFound."""
    return str(_target(engine, Reference.parse(name).tagged()).digest)


def members(engine: Engine, name: str) -> list[str]:
    """Return the digests of the images in a list that is here. Raises NotFound."""
    return [str(one.digest) for one in _list(engine, Reference.parse(name).tagged()).manifests]


def drop(engine: Engine, name: str, digests: Sequence[str]) -> None:
    """Take images out of a list, all or none; they stay in the store. Raises NotFound."""
    reference = Reference.parse(name).tagged()
    index = _list(engine, reference)
    listed = {str(one.digest) for one in index.manifests}
    if lacking := [one for one in digests if one not in listed]:
        cause = f"manifest {lacking[0][:100]} is not in {reference.familiar}"
        raise NotFound("remove from", f"manifest list {name}", cause, hint=f"see: orlop manifest inspect {name}")
    with engine.store.leases.hold():
        _store(engine, reference, [one for one in index.manifests if str(one.digest) not in digests])


def annotate(engine: Engine, name: str, image: str, changes: dict[str, str], features: Sequence[str] = ()) -> None:
    """Change what a list says of one image. changes: of os, architecture, variant, os_version; only those given."""
    reference = Reference.parse(name).tagged()
    index = _list(engine, reference)
    wanted = engine.images.resolve(image).manifest.digest
    if all(one.digest != wanted for one in index.manifests):
        raise NotFound("annotate", image, f"manifest for image {image} does not exist in {reference.familiar}")
    manifests = []
    for one in index.manifests:
        platform = (one.platform or Platform(os="linux", architecture="")).replace(**changes)
        if features:
            platform = platform.replace(os_features=tuple(features))
        is_meant = one.digest == wanted and (changes or features)
        if is_meant and not platform.is_known:
            cause = (
                f"manifest entry for image has unsupported os/arch combination: {platform.os}/{platform.architecture}"
            )
            raise Invalid("annotate", image, cause, hint="write them as Go does: linux, amd64, arm64")
        manifests.append(one.replace(platform=platform) if is_meant else one)
    with engine.store.leases.hold():
        _store(engine, reference, manifests)


def inspect(engine: Engine, name: str, credentials: Credentials) -> dict[str, object]:
    """Return the document that a name means: the list that is here, or what its registry has. Raises NotFound."""
    reference = Reference.parse(name).tagged()
    known = engine.store.names.get(reference)
    if known is not None and known.media_type in INDEXES:
        return parse_object(engine.store.get(known.digest), f"manifest list {name}")
    place = engine.registries.to_pull(reference, credentials)[-1]
    _, data = place.manifest(str(reference.digest or reference.tag), Patience())
    return parse_object(data, f"manifest {name}")


def inspect_verbose(engine: Engine, name: str, credentials: Credentials) -> object:
    """Return docker's object of `manifest inspect --verbose`, or of a list one for each image. Raises NotFound."""
    reference = Reference.parse(name).tagged()
    known = engine.store.names.get(reference)
    place = engine.registries.to_pull(reference, credentials)[-1]
    if known is not None and known.media_type in INDEXES:
        target, data = known, engine.store.get(known.digest)
    else:
        target, data = place.manifest(str(reference.digest or reference.tag), Patience())
    document = parse_manifest(data, target.media_type, f"manifest {name}")
    if not isinstance(document, Index):
        return _verbose(str(reference), target.replace(annotations={}, platform=None), data)
    found = []
    for one in document.manifests:
        held = engine.store.stat(one.digest) is not None
        child = engine.store.get(one.digest) if held else place.manifest(str(one.digest), Patience())[1]
        found.append(_verbose(f"{reference}@{one.digest}", one, child))
    return found


def _verbose(name: str, descriptor: Descriptor, data: bytes) -> dict[str, object]:
    import base64

    kind = "OCIManifest" if descriptor.media_type == OCI_MANIFEST else "SchemaV2Manifest"
    shown = {"Ref": name, "Descriptor": descriptor.to_json(), "Raw": base64.b64encode(data).decode()}
    return {**shown, kind: parse_object(data, f"manifest {descriptor.digest}")}


def push(engine: Engine, name: str, credentials: Credentials, *, to: str = "", purge: bool = False) -> str:
    """Push a list and all its images to where its name says, or `to` does; return its digest."""
    reference = Reference.parse(name).tagged()
    target = _target(engine, reference)
    place = Reference.parse(to).tagged() if to else reference
    with engine.store.leases.hold() as lease:
        lease.add(target.digest)
        pushing = Push(engine.store, engine.registries.to_push(place, credentials, frozenset()), {})
        lacking = pushing.lacks(target)
        if lacking:
            hint = "pull it first"
            raise NotFound("push", name, f"manifest {lacking[0].digest} is neither here nor there", hint=hint)
        for _ in pushing.run(target, place.tag):
            pass
    if purge:
        engine.store.names.remove(reference)
    return str(target.digest)


def remove(engine: Engine, names: Sequence[str]) -> None:
    """Forget lists; their images stay. Raises NotFound."""
    for name in names:
        reference = Reference.parse(name).tagged()
        _target(engine, reference)
        engine.store.names.remove(reference)


def _target(engine: Engine, reference: Reference) -> Descriptor:
    target = engine.store.names.get(reference)
    if target is None or target.media_type not in INDEXES:
        cause = f"No such manifest: {reference.familiar}"
        raise NotFound("find", f"manifest list {reference.familiar}", cause, hint="make it with: orlop manifest create")
    return target.replace(annotations={})


def _list(engine: Engine, reference: Reference) -> Index:
    target = _target(engine, reference)
    document = parse_manifest(engine.store.get(target.digest), target.media_type, f"manifest list {reference.familiar}")
    assert isinstance(document, Index)  # by its media type
    return document


def _member(engine: Engine, image: str, credentials: Credentials) -> Descriptor:
    """Return the descriptor of one image with its platform."""
    try:
        found = engine.images.resolve(image)
    except NotFound:
        for _ in pull(engine, PullRequest(image=image, credentials=credentials)):
            pass
        found = engine.images.resolve(image)
    if found.target.media_type in INDEXES:
        raise Invalid(
            "create", f"manifest list of {image}", f"{image} is a manifest list", hint="name one of its images"
        )
    return found.target.replace(platform=found.config.platform, annotations={})


def _store(engine: Engine, reference: Reference, manifests: Sequence[Descriptor]) -> None:
    is_oci = not manifests or any(one.media_type == OCI_MANIFEST for one in manifests)
    media_type = OCI_INDEX if is_oci else DOCKER_INDEX
    index = Index(schema_version=2, media_type=media_type, manifests=tuple(manifests))
    target = engine.store.ingest(dump(index.to_json()), media_type=media_type)
    engine.store.names.put(reference, target, keep_displaced=False)
