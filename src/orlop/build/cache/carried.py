"""What an artifact of cache mounts says of itself (`mounts`)."""

from orlop.spec import jsonio
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid
from orlop.spec.record import Record

ARTIFACT = "application/vnd.orlop.cachemounts.v1"
DOCUMENT = "application/vnd.orlop.cachemounts.config.v1+json"
PIECE = "application/vnd.orlop.cachemounts.piece.v1"
DOCUMENT_BYTES_MAX = 32 * 1024 * 1024
MOUNTS_MAX = 1000
ID_CHARACTERS_MAX = 4096


class CarriedMount(Record):
    """One mount. id: as the Dockerfile has it; pieces: digests, in their order; size: of the archive, in bytes."""

    id: str
    size: int
    pieces: tuple[Digest, ...] = ()


class Carried(Record):
    """The document."""

    mounts: tuple[CarriedMount, ...] = ()


class Told(Record):
    """What was done with one mount. state: written, read, or kept (it was here, and stays as it is)."""

    id: str
    volume: str
    state: str
    bytes: int
    pieces: int


def parse(media_type: str, data: bytes, subject: str) -> Carried:
    """Return a document, its ids being ids. Raises Invalid."""
    if media_type != DOCUMENT:
        hint = "write them with: orlop build --cache-mount-to, or orlop builder cache export"
        raise Invalid("read", subject, "what lies there are no cache mounts", hint=hint)
    value = jsonio.parse(data, subject, bytes_max=DOCUMENT_BYTES_MAX)
    carried = Carried.from_json(value, subject)
    if len(carried.mounts) > MOUNTS_MAX:
        raise Invalid("read", subject, f"it has more than {MOUNTS_MAX} mounts", code="E0212")
    for one in carried.mounts:
        if not 0 < len(one.id) <= ID_CHARACTERS_MAX:
            raise Invalid("read", subject, f"{one.id[:60]!r} is no name of a cache mount")
    if len({one.id for one in carried.mounts}) != len(carried.mounts):
        raise Invalid("read", subject, "a cache mount comes twice")
    return carried
