"""What refers to an image - signatures, attestations, bills of materials - on its way from one place to another.

Source: OCI distribution-spec 1.1, "Listing Referrers"; in a layout they are entries of index.json without a name.
"""

from __future__ import annotations

from ...image.pull import Pull
from ...image.push import Push
from ...image.registry import Patience
from ...image.transports.layout import LayoutDirectory
from ...image.transports.transfer import Taking, give_parts
from ...spec.errors import Invalid
from ...spec.image import MANIFESTS, Index, parse_manifest
from ...spec.registry import LAYOUT, REGISTRY, STORE, CopyRequest, ImageForm, Location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from ...content.leases import Lease
    from ...spec.digest import Digest
    from ...spec.image import Descriptor
    from ..engine import Engine

    Message = dict[str, object]
    Find = Callable[[Digest], Sequence[Descriptor]]
    Fetch = Callable[[Descriptor], Generator[Message, None, object]]

REFERRERS_MAX = 256
DEPTH_MAX = 3  # a signature of an attestation of an image


def check(request: CopyRequest) -> None:
    """Raise Invalid for places that can't hold what refers to an image, and for an image that is to become another."""
    if request.form != ImageForm():
        hint = "leave --referrers or the other form away"
        raise Invalid("copy", str(request.source), "what refers to it means its digest, which changes", hint=hint)
    for location in (request.source, request.destination):
        if location.transport not in (REGISTRY, LAYOUT, STORE):
            hint = "copy between docker://, oci: and names here, or leave --referrers away"
            raise Invalid("copy", str(location), "it keeps nothing that refers to an image", hint=hint)


def bring(
    engine: Engine, source: Location, target: Descriptor, lease: Lease
) -> Generator[Message, None, list[Descriptor]]:
    """Bring what refers to an image, or to one of an index, into the store; return it, what comes first first."""
    if source.transport == REGISTRY:
        reference = source.reference.replace(tag="", digest=target.digest)
        places = engine.registries.to_pull(reference, source.credentials)

        def fetch(found: Descriptor) -> Generator[Message, None, object]:
            one = reference.replace(digest=found.digest)
            pulling = Pull(
                engine.store, engine.registries.downloads, places, one, engine.images.platform, all_platforms=True
            )
            return (yield from pulling.fetch(lease, None))

        return (yield from _bring(engine, target, lambda digest: places[-1].referrers(digest, Patience()), fetch))
    if source.transport == STORE:
        return list(engine.store.names.referrers(target.digest))
    layout = LayoutDirectory(source.path)
    try:
        taking = Taking(layout, engine.store, lease, None)
        return (yield from _bring(engine, target, layout.referrers, taking.run))
    finally:
        layout.close()


def _bring(engine: Engine, target: Descriptor, find: Find, fetch: Fetch) -> Generator[Message, None, list[Descriptor]]:
    brought: dict[Digest, Descriptor] = {}
    subjects = [target.digest, *_children(engine, target)]
    for _ in range(DEPTH_MAX):
        found = [one for subject in subjects for one in find(subject) if one.digest not in brought]
        for one in found:
            if len(brought) >= REFERRERS_MAX:
                raise Invalid("copy", f"image {target.digest}", f"more than {REFERRERS_MAX} manifests refer to it")
            yield from fetch(one)
            brought[one.digest] = one.replace(platform=None)
        subjects = [one.digest for one in found]
    return list(brought.values())


def _children(engine: Engine, target: Descriptor) -> list[Digest]:
    document = parse_manifest(engine.store.get(target.digest), target.media_type, f"manifest {target.digest}")
    return (
        [one.digest for one in document.manifests if one.media_type in MANIFESTS] if isinstance(document, Index) else []
    )


def give(engine: Engine, destination: Location, target: Descriptor, others: Sequence[Descriptor]) -> Iterator[Message]:
    """Give what refers to an image to where the image has gone. Raises NotFound, what a registry refuses with."""
    if not others:
        return
    if destination.transport == STORE:
        engine.store.names.put_referrers(target.digest, others)
        return
    if destination.transport == REGISTRY:
        for one in others:
            repository = engine.registries.to_push(destination.reference, destination.credentials, frozenset())
            yield from Push(engine.store, repository, {}).run(one.replace(annotations={}, artifact_type=""), "")
        return
    layout = LayoutDirectory(destination.path)
    try:
        for one in others:
            yield from give_parts(layout, engine.store, one)
        layout.add(others)
    finally:
        layout.close()
