"""What the snapshots write down, and what they count."""

import os

from orlop.linux.path import fsync_directory
from orlop.spec.digest import Digest
from orlop.spec.jsonio import dump
from orlop.spec.record import Record


class LayerRecord(Record):
    """layer.json. chain: this layer's ChainID, then those below it, down to the base. entries: members extracted.

    lost_xattrs: extended attributes that this file system did not take; lost_devices: device nodes that a user
    namespace may not make. origin: the image's own ChainID, of a tree with other owners than its archive; else "".
    """

    diff_id: Digest
    chain: tuple[Digest, ...]
    entries: int
    lost_xattrs: int = 0
    lost_devices: int = 0
    origin: str = ""


class Usage(Record):
    """bytes: allocated blocks, hard links counted once. inodes: files of every kind."""

    bytes: int
    inodes: int


def rewrite(root: str, directory: str, record: LayerRecord) -> None:
    """Put a record in the place of one that can't be read, whatever lies there. Raises OSError."""
    new = f"{root}/trash/{os.urandom(8).hex()}"
    os.mkdir(new, 0o700)
    with open(f"{new}/layer.json", "wb") as file:
        file.write(dump(record.to_json()))
        os.fsync(file.fileno())
    path = f"{directory}/layer.json"
    if os.path.lexists(path):
        os.rename(path, f"{new}/damaged")  # a directory, too
    os.rename(f"{new}/layer.json", path)
    fsync_directory(directory)
