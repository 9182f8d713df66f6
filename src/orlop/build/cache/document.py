"""What a cache says of steps, in BuildKit's form with ours beside it.

    manifest   an OCI image manifest; its configuration is the document, its layers are the steps' layers
    document   application/vnd.buildkit.cacheconfig.v0: `layers` and `records` as BuildKit writes them, so that its
               tools can read them, and `io.orlop.steps`: our records, which say more (what a step stands on)

In an image (type=inline) the document stands in the image's configuration as `moby.buildkit.cache.v0`, in base64. Keys
of BuildKit and ours are never equal: each makes them from other things, so neither takes the other's steps for its own.

Nothing in it is of the time or place of the build: the same build writes the same cache.
"""

import base64

from orlop.engine.steps.cache import Cached
from orlop.spec import jsonio
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid
from orlop.spec.image import OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest, chain_ids
from orlop.spec.record import Record

from ..solver.solve import chain_of
from .places import MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .. import graph
    from ..solver.solve import Solver

CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0"
DOCUMENT_BYTES_MAX = 64 * 1024 * 1024
STEPS_MAX = 1_000_000
KEY_PREFIX = "sha256:"
UNCOMPRESSED = "containerd.io/uncompressed"


class CacheLayer(Record):
    """BuildKit's CacheLayer. parent: the layer below in the list, -1 for none that is in it."""

    blob: str
    parent: int = -1
    annotations: dict[str, str] = {}


class CacheResult(Record):
    """BuildKit's CacheResult. layer: its place in the list."""

    layer: int


class CacheRecord(Record):
    """BuildKit's CacheRecord. digest: the key."""

    digest: str
    results: tuple[CacheResult, ...] = ()


class CacheDocument(Record):
    """The document. steps: ours; BuildKit's part names only steps whose layers are there."""

    layers: tuple[CacheLayer, ...] = ()
    records: tuple[CacheRecord, ...] = ()
    steps: tuple[Cached, ...] = ()
    json_names = {"steps": "io.orlop.steps"}


def made(solver: "Solver", targets: "Iterable[graph.Target]", mode: str) -> tuple[CacheDocument, list[Descriptor]]:
    """Return what a build's steps made or found in the cache, and the layers that go with it.

    mode MIN: the layers of the targets' own steps. What other steps made is said, but not carried: a build that finds
    all of it in the cache needs no more.
    """
    own = {vertex for target in targets for vertex in chain_of(target.vertex)}
    records: dict[str, Cached] = {}
    carried: dict[Digest, Descriptor] = {}
    for vertex, solved in solver.solved.items():
        for key in solved.names:
            record = solver.record(key)
            if record is None:
                continue
            records[key] = record.replace(created=solver.settings.created)
            if record.layer is not None and (mode == MAX or vertex in own):
                carried[record.layer.digest] = record.layer
    return _document(records, list(carried.values())), list(carried.values())


def _document(records: dict[str, Cached], layers: list[Descriptor]) -> CacheDocument:
    places = {layer.digest: number for number, layer in enumerate(layers)}
    by_chain = {record.chain_id: record for record in records.values() if record.layer is not None}
    listed = []
    for layer in layers:
        below = next(by_chain.get(one.base) for one in records.values() if one.layer == layer)
        parent = places.get(below.layer.digest, -1) if below is not None and below.layer is not None else -1
        about = {UNCOMPRESSED: str(layer.digest), "mediaType": layer.media_type, "size": str(layer.size)}
        listed.append(CacheLayer(blob=str(layer.digest), parent=parent, annotations=about))
    known = [
        CacheRecord(digest=KEY_PREFIX + key, results=(CacheResult(layer=places[record.layer.digest]),))
        for key, record in sorted(records.items())
        if record.layer is not None and record.layer.digest in places
    ]
    steps = tuple(record for _, record in sorted(records.items()))
    return CacheDocument(layers=tuple(listed), records=tuple(known), steps=steps)


def packed(document: CacheDocument, blobs: "Mapping[Digest, Descriptor]") -> CacheDocument:
    """Return a document whose layers lie in other blobs: by what a layer is, what it became."""
    listed = []
    for layer in document.layers:
        blob = blobs[Digest(layer.blob)]
        about = {**layer.annotations, "mediaType": blob.media_type, "size": str(blob.size)}
        listed.append(layer.replace(blob=str(blob.digest), annotations=about))
    return document.replace(layers=tuple(listed))


def stored(solver: "Solver", document: CacheDocument, layers: list[Descriptor]) -> Descriptor:
    """Put a cache's manifest and document into our store; return the manifest's descriptor. The caller has a lease."""
    store = solver.engine.store
    config = store.ingest(jsonio.dump(document.to_json()), media_type=CACHE_CONFIG)
    manifest = Manifest(schema_version=2, media_type=OCI_MANIFEST, config=config, layers=tuple(layers))
    return store.ingest(jsonio.dump(manifest.to_json()), media_type=OCI_MANIFEST)


def inline(document: CacheDocument) -> str:
    """Return a document as the configuration of an image has it. What steps did is left out: an image tells less."""
    steps = tuple(record.replace(name="") for record in document.steps)
    return base64.b64encode(jsonio.dump(document.replace(steps=steps).to_json())).decode()


def of_inline(text: str, subject: str) -> CacheDocument:
    """Return the document in an image's configuration. Raises Invalid."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Invalid("read", subject, "its cache is not base64") from None
    return parse(data, subject)


def parse(data: bytes, subject: str) -> CacheDocument:
    """Return a document, its keys being keys. Raises Invalid."""
    value = jsonio.parse(data, subject, bytes_max=DOCUMENT_BYTES_MAX)
    found = CacheDocument.from_json(value, subject)
    if len(found.steps) > STEPS_MAX:
        raise Invalid("read", subject, f"it has more than {STEPS_MAX} steps", code="E0212")
    for record in found.steps:
        if len(record.key) != 64 or not set(record.key) <= set("0123456789abcdef"):
            raise Invalid("read", subject, f"{record.key[:80]!r} is no key")
        if record.layer is not None and not _is_whole(record, record.layer):
            raise Invalid("read", subject, f"what it says of the step {record.key[:12]} contradicts itself")
    return found


def _is_whole(record: Cached, layer: Descriptor) -> bool:
    """Tell whether a step's layer and what it stands on make the tree that they are said to make: later steps, of other
    builds too, are known by that tree.
    """
    below = (Digest(record.base),) if record.base else ()
    is_plain = layer == Descriptor(media_type=OCI_LAYER, digest=layer.digest, size=layer.size)
    return is_plain and record.diff_id == layer.digest and record.chain_id == chain_ids((*below, layer.digest))[-1]
