"""What steps have made, found by what they were made from.

    $ORLOP_ROOT/build/cache/<key>.json      Cached, one file for each step
                            <key>.inputs    what went into the key, for people (`--why`): name -> digest or text

Invariants:
1. A record is written last, after its layer is durable: one that can be read names a layer that was whole. Whether it
   still is, is looked at when it is used.
2. Nothing but this engine's own builds writes here: what a pulled image says of its making is never believed (SEC-50).
3. The collection of images keeps what a record names (`keep`), until the record goes.

A file's modification time is when its record was last used. Values of secrets are no part of key and inputs.
"""

import os

from ...linux.path import read_file
from ...spec import jsonio
from ...spec.digest import Digest
from ...spec.errors import Invalid, Unavailable
from ...spec.image import Descriptor
from ...spec.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

RECORD_BYTES_MAX = 16 * 1024 * 1024
_SUFFIX, _INPUTS, _TEMPORARY = ".json", ".inputs", ".tmp"


class Cached(Record):
    """One record. key: hex. name: the step as the Dockerfile has it.

    layer: None for a step that changed nothing. diff_id: of the layer. base: the ChainID below, "" for none.
    chain_id: with the layer.
    """

    key: str
    name: str
    created: str
    base: str = ""
    chain_id: str = ""
    layer: Descriptor | None = None
    diff_id: str = ""


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

    def put(self, record: Cached, inputs: dict[str, str]) -> None:
        """Note what a step made, and what from. Raises Unavailable."""
        try:
            os.makedirs(self.directory, 0o700, exist_ok=True)
            _replace(f"{self.directory}/{record.key}{_INPUTS}", jsonio.dump(inputs))
            _replace(self._path(record.key), jsonio.dump(record.to_json()))
        except OSError as wrong:
            raise Unavailable("write", f"cache record {record.key[:12]}", wrong.strerror or str(wrong)) from None

    def inputs(self, key: str) -> dict[str, str]:
        """Return what a step was made from; {} when it is not known any more."""
        path = f"{self.directory}/{key}{_INPUTS}"
        try:
            data = read_file(path, RECORD_BYTES_MAX)
            found = jsonio.parse_object(data, path, bytes_max=RECORD_BYTES_MAX)
        except (OSError, Invalid):
            return {}
        return {name: value for name, value in found.items() if isinstance(value, str)}

    def remove(self, key: str) -> None:
        """Forget a step. What it made goes with the next collection."""
        for path in (self._path(key), f"{self.directory}/{key}{_INPUTS}"):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass

    def all(self) -> "Iterator[tuple[Cached, float]]":
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

    def keep(self, chain: "Callable[[Digest], Iterable[Digest]]") -> "Iterator[Digest]":
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
            if name.endswith(_TEMPORARY):
                os.unlink(f"{self.directory}/{name}")

    def _path(self, key: str) -> str:
        return f"{self.directory}/{key}{_SUFFIX}"

    def _read(self, path: str) -> Cached | None:
        try:
            data = read_file(path, RECORD_BYTES_MAX)
            return Cached.from_json(jsonio.parse(data, path, bytes_max=RECORD_BYTES_MAX), path)
        except (OSError, Invalid):
            return None  # gone, or cut short by a power failure: the step is made again


def _replace(path: str, data: bytes) -> None:
    temporary = f"{path}.{os.urandom(4).hex()}{_TEMPORARY}"
    with open(temporary, "xb") as file:
        file.write(data)
    try:
        os.unlink(path)  # what replaces a file, ext4 writes to the disk at once (ext4(5), auto_da_alloc)
    except FileNotFoundError:
        pass
    os.rename(temporary, path)
