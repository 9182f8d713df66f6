"""What steps have made, found by what they were made from. $ORLOP_ROOT/build/cache/<key>.json, one file for each step.

Invariants:
1. A record is written last, after its layer is durable: one that can be read names a layer that was whole. Whether it
   still is, is looked at when it is used.
2. Nothing but this engine's own builds writes here: what a pulled image says of its making is never believed (SEC-50).
3. The collection of images keeps what a record names (`keep`), until the record goes.

A file's modification time is when its record was last used. `inputs` are what went into the key, for people: `--why`
compares them with those of a step that missed. Values of secrets are no part of either.
"""

from __future__ import annotations

import os

from ...spec import jsonio
from ...spec.digest import Digest
from ...spec.errors import Invalid, Unavailable
from ...spec.image import Descriptor
from ...spec.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

RECORD_BYTES_MAX = 16 * 1024 * 1024
_SUFFIX = ".json"


class Cached(Record):
    """One record. key: hex. name: the step as the Dockerfile has it. place: which step of which build it was
    ("<context>\\0<stage>\\0<number>"), to find what stood there the last time.

    layer: None for a step that changed nothing. diff_id: of the layer. base: the ChainID below, "" for none.
    chain_id: with the layer.
    inputs: name -> digest or text.
    """

    key: str
    name: str
    place: str = ""
    created: str
    base: str = ""
    chain_id: str = ""
    layer: Descriptor | None = None
    diff_id: str = ""
    inputs: dict[str, str] = {}


class StepCache:
    """The records below one directory, which is made when it is first written to."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def get(self, key: str) -> Cached | None:
        """Return what a step made, None when it is not known. Its time of last use is now."""
        path = self._path(key)
        found = self._read(path)
        if found is not None:
            try:
                os.utime(path)
            except OSError:
                return None  # it was pruned just now
        return found

    def put(self, record: Cached) -> None:
        """Note what a step made. Raises Unavailable."""
        path = self._path(record.key)
        temporary = f"{path}.{os.urandom(4).hex()}.tmp"
        try:
            os.makedirs(self.directory, 0o700, exist_ok=True)
            with open(temporary, "xb") as file:
                file.write(jsonio.dump(record.to_json()))
            os.rename(temporary, path)
        except OSError as wrong:
            raise Unavailable("write", f"cache record {record.key[:12]}", wrong.strerror or str(wrong)) from None

    def remove(self, key: str) -> None:
        """Forget a step. What it made goes with the next collection."""
        try:
            os.unlink(self._path(key))
        except FileNotFoundError:
            pass

    def all(self) -> Iterator[tuple[Cached, float]]:
        """Yield every record that can be read, and when it was last used (seconds since the epoch)."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return
        for name in names:
            path = f"{self.directory}/{name}"
            if name.endswith(_SUFFIX) and (found := self._read(path)) is not None:
                try:
                    yield found, os.stat(path).st_mtime
                except FileNotFoundError:
                    continue

    def at(self, place: str) -> Cached | None:
        """Return the record that was last used at a place."""
        found = [(used, one) for one, used in self.all() if one.place == place]
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def keep(self, chain: Callable[[Digest], Iterable[Digest]]) -> Iterator[Digest]:
        """Yield what the records name: digests of blobs, and the ChainIDs of layers and of what they stand on.

        chain: gives the ChainIDs from one down to its base (`Snapshots.chain`).
        """
        for record, _ in self.all():
            if record.layer is not None:
                yield record.layer.digest
            if record.chain_id:
                yield from chain(Digest(record.chain_id))

    def sweep(self) -> None:
        """Remove what a killed engine was writing."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return
        for name in names:
            if name.endswith(".tmp"):
                os.unlink(f"{self.directory}/{name}")

    def _path(self, key: str) -> str:
        return f"{self.directory}/{key}{_SUFFIX}"

    def _read(self, path: str) -> Cached | None:
        try:
            with open(path, "rb", buffering=0) as file:
                data = file.read(RECORD_BYTES_MAX + 1)
            return Cached.from_json(jsonio.parse(data, path, bytes_max=RECORD_BYTES_MAX), path)
        except (OSError, Invalid):
            return None  # gone, or cut short by a power failure: the step is made again
