"""The verb `distribution`: what a registry says of a name, without pulling it."""

from __future__ import annotations

from ...image.registry import Patience
from ...spec.errors import Invalid, OrlopError
from ...spec.image import Index, Manifest, parse_manifest
from ...spec.jsonio import parse_object
from ...spec.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...image.registry import Repository
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
    config: Descriptor = document.config
    subject = f"configuration {config.digest} of {place.name}"
    with place.ask("GET", f"blobs/{config.digest}", patience) as response:
        data = response.document(CONFIG_BYTES_MAX) if response.status == 200 else b""
    if type(config.digest).of(data, config.digest.algorithm) != config.digest:
        raise Invalid("read", subject, "its content is not what its digest says")
    said = parse_object(data, subject)
    return {key: said[key] for key in ("architecture", "os", "os.version", "variant") if isinstance(said.get(key), str)}
