"""The value that stands for an image in this engine."""

from orlop.spec.digest import Digest
from orlop.spec.image import Descriptor, ImageConfig
from orlop.spec.record import Record


class Layer(Record):
    """One layer: its blob, the digest of its uncompressed content, and its name together with all layers below it."""

    descriptor: Descriptor
    diff_id: Digest
    chain_id: Digest


class Image(Record):
    """One image for one platform.

    id: the configuration's digest. names: in docker's short form, sorted; () for one whose name went elsewhere.
    target: what the names mean, a manifest or an index. manifest: the one of this platform.
    size: bytes that configuration, manifest and layers occupy in the store. created: RFC 3339, "" when it isn't said.
    """

    id: Digest
    names: tuple[str, ...]
    target: Descriptor
    manifest: Descriptor
    config: ImageConfig
    layers: tuple[Layer, ...]
    size: int

    @property
    def created(self) -> str:
        return self.config.created

    @property
    def chain_id(self) -> Digest | None:
        """The ChainID of the topmost layer: the name of the image's file system. None without layers."""
        return self.layers[-1].chain_id if self.layers else None
