"""What the snapshots write down, and what they count."""

from orlop.spec.digest import Digest
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
