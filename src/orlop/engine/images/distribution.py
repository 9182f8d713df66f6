"""What another place says of an image, without bringing it here: docker's `distribution`, skopeo's verbs."""

from __future__ import annotations

from ...image.registry import Patience
from ...image.transports.directory import ImageDirectory
from ...image.transports.layout import LayoutDirectory
from ...image.transports.transfer import best_of
from ...spec.errors import Invalid, OrlopError
from ...spec.image import Index, Manifest, parse_manifest
from ...spec.jsonio import parse_object
from ...spec.platform import Platform
from ...spec.reference import Reference
from ...spec.registry import DIRECTORY, LAYOUT, REGISTRY, STORE, Location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...image.registry import Repository
    from ...spec.digest import Digest
    from ...spec.image import Descriptor
    from ...spec.registry import Credentials
    from ..engine import Engine

CONFIG_BYTES_MAX = 8 * 1024 * 1024


def inspect(engine: Engine, name: str, credentials: Credentials) -> dict[str, object]:
    """Return docker's /distribution/{name}/json: {"Descriptor", "Platforms"}. Raises NotFound, Denied, Unavailable.

    Each place of the registry is asked in turn, as for a pull; the last one's failure is the answer.
    """
    reference = Reference.parse(name).tagged()
    wanted = str(reference.digest or reference.tag)
    places = engine.registries.to_pull(reference, credentials)
    for place in places[:-1]:
        try:
            return _ask(place, wanted)
        except OrlopError:
            continue
    return _ask(places[-1], wanted)


def _ask(place: Repository, wanted: str) -> dict[str, object]:
    patience = Patience()
    target, data = place.manifest(wanted, patience)
    document = parse_manifest(data, target.media_type, f"manifest {wanted} of {place.name}")
    descriptor = {"mediaType": target.media_type, "digest": str(target.digest), "size": target.size}
    if isinstance(document, Index):
        platforms = [one.platform.to_json() for one in document.manifests if one.platform is not None]
    else:
        platforms = [_platform(place, document, patience)]
    return {"Descriptor": descriptor, "Platforms": platforms}


def _platform(place: Repository, document: Manifest, patience: Patience) -> dict[str, object]:
    said = parse_object(_configuration(place, document.config, patience), f"configuration {document.config.digest}")
    return {key: said[key] for key in ("architecture", "os", "os.version", "variant") if isinstance(said.get(key), str)}


def _configuration(place: Repository, config: Descriptor, patience: Patience) -> bytes:
    with place.ask("GET", f"blobs/{config.digest}", patience) as response:
        data = response.document(CONFIG_BYTES_MAX) if response.status == 200 else b""
    return _proven(data, config.digest)


# -- skopeo's verbs --------------------------------------------------------------------------------------------------


def look(engine: Engine, location: Location, platform: str = "") -> dict[str, object]:
    """Return {"name", "digest", "raw", "manifest", "config"} of an image, wherever it is.

    raw: the document that the place has under the name; manifest and config: of the image for the platform; both are
    text. Raises NotFound, Invalid, Denied, Unavailable.
    """
    place = _place(engine, location)
    target, data = place.top()
    document = parse_manifest(data, target.media_type, str(location))
    manifest = data
    if isinstance(document, Index):
        wanted = Platform.parse(platform) if platform else engine.images.platform
        child = best_of(document, target, wanted)
        manifest = place.manifest(child)
        document = parse_manifest(manifest, child.media_type, f"manifest {child.digest}")
    assert isinstance(document, Manifest)  # best_of chooses among manifests
    config = place.blob(document.config)
    return {
        "name": location.reference.name if location.transport == REGISTRY else "",
        "digest": str(target.digest),
        "raw": data.decode(),
        "manifest": manifest.decode(),
        "config": config.decode(),
    }


def tags(engine: Engine, location: Location) -> list[str]:
    """Return the tags of a registry's repository. Raises Invalid for another place, NotFound, Denied, Unavailable."""
    return list(_registry(engine, location, "list the tags of")[-1].tags(Patience()))


def delete(engine: Engine, location: Location) -> None:
    """Delete what a name means at a registry. Raises Invalid, NotFound, Denied, Unavailable."""
    if location.transport != REGISTRY:
        raise Invalid("delete", str(location), "only a registry deletes images", hint="use docker://HOST/NAME:TAG")
    reference = location.reference
    repository = engine.registries.to_push(reference, location.credentials, frozenset())
    digest = reference.digest or repository.resolve(str(reference.tag), Patience()).digest
    repository.delete_manifest(digest, Patience())


def _registry(engine: Engine, location: Location, verb: str) -> list[Repository]:
    if location.transport != REGISTRY:
        raise Invalid(verb, str(location), "it is no place of a registry", hint="use docker://HOST/NAME")
    return list(engine.registries.to_pull(location.reference, location.credentials))


class _Remote:
    def __init__(self, repository: Repository, wanted: str) -> None:
        self._repository = repository
        self._wanted = wanted

    def top(self) -> tuple[Descriptor, bytes]:
        return self._repository.manifest(self._wanted, Patience())

    def manifest(self, described: Descriptor) -> bytes:
        return self._repository.manifest(str(described.digest), Patience())[1]

    def blob(self, described: Descriptor) -> bytes:
        return _configuration(self._repository, described, Patience())


class _Directory:
    def __init__(self, tree: LayoutDirectory | ImageDirectory, name: str) -> None:
        self._tree = tree
        self._name = name

    def top(self) -> tuple[Descriptor, bytes]:
        target = self._tree.resolve(self._name)
        return target, _proven(self._tree.document(self._tree.place(target.digest, is_top=True)), target.digest)

    def manifest(self, described: Descriptor) -> bytes:
        return _proven(self._tree.document(self._tree.place(described.digest, is_manifest=True)), described.digest)

    def blob(self, described: Descriptor) -> bytes:
        return _proven(self._tree.document(self._tree.place(described.digest)), described.digest)


class _Here:
    def __init__(self, engine: Engine, name: str) -> None:
        self._store = engine.store
        self._target = engine.images.resolve(name).target

    def top(self) -> tuple[Descriptor, bytes]:
        return self._target, self._store.get(self._target.digest)

    def manifest(self, described: Descriptor) -> bytes:
        return self._store.get(described.digest)

    def blob(self, described: Descriptor) -> bytes:
        return self._store.get(described.digest)


def _place(engine: Engine, location: Location) -> _Remote | _Directory | _Here:
    if location.transport == REGISTRY:
        reference = location.reference
        return _Remote(_registry(engine, location, "inspect")[-1], str(reference.digest or reference.tag))
    if location.transport == LAYOUT:
        return _Directory(LayoutDirectory(location.path), location.name)
    if location.transport == DIRECTORY:
        return _Directory(ImageDirectory(location.path), "")
    if location.transport == STORE:
        return _Here(engine, location.name)
    hint = "copy it first: orlop image copy ... oci:PATH"
    raise Invalid("inspect", str(location), "an archive is read as a whole only", hint=hint)


def _proven(data: bytes, digest: Digest) -> bytes:
    if type(digest).of(data, digest.algorithm) != digest:
        raise Invalid("read", f"blob {digest}", "its content is not what its digest says")
    return data
