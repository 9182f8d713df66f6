"""The images of one content store: found by name, by ID or by digest; named, and made from archives.

An image's ID is the digest of its configuration, as docker's is. The store is the only truth: what is remembered of it
are documents under their digests, which can't change.
"""

from __future__ import annotations

import os

from orlop.spec.errors import Invalid, NotFound
from orlop.spec.platform import Platform
from orlop.spec.reference import Reference

from .catalog import Catalog

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Sequence

    from orlop.content import Store
    from orlop.content.store import Readable
    from orlop.spec.digest import Digest
    from orlop.spec.image import Descriptor

    from .image import Image


class Images:
    """The images in a store. Errors: NotFound, Invalid for a broken document, Unavailable for a broken disk."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.platform = Platform.of_machine(os.uname().machine)
        self._known: dict[Digest, Image] = {}

    def resolve(self, name: str) -> Image:
        """Return the image that a user means: a reference, an ID or the beginning of one, or a digest.

        As docker: a whole ID or digest first, then names, then beginnings of IDs. Raises NotFound, Conflict when an
        ID's beginning fits several images, Invalid when it can't be any of these.
        """
        return self._catalog().resolve(name)

    def list(self) -> tuple[Image, ...]:
        """Return every image, the newest first. One that can't be read is left out: `resolve` says why."""
        return tuple(sorted(self._catalog().readable(), key=lambda image: image.created, reverse=True))

    def load(self, target: Descriptor) -> Image:
        """Return the image that a manifest or index is, named or not. Raises NotFound, Invalid."""
        return self._catalog().load(target)

    def id_of(self, target: Descriptor) -> str:
        """Return the ID of what a name means, or its own digest where it has nothing for this machine."""
        try:
            return str(self.load(target).id)
        except (NotFound, Invalid):
            return str(target.digest)

    def for_platform(self, index: Descriptor, platform: Platform) -> Descriptor:
        """Return the manifest that an index lists for a platform. Raises NotFound when it is not here."""
        image = Catalog(self.store, platform).load(index)
        if not platform.runs(image.manifest.platform or image.config.platform):
            cause = f"image {index.digest} has nothing here for {platform}"
            raise NotFound("find", f"image {index.digest}", cause, hint="pull it for this platform")
        return image.manifest.replace(platform=None, annotations={})

    def tag(self, source: str, name: str) -> None:
        """Give an image one more name; an image that had it keeps its other ones, or stays without."""
        reference = Reference.parse(name)
        if reference.digest:
            raise Invalid("tag", f"image {source}", "refusing to create a tag with a digest reference")
        self.store.names.put(reference.tagged(), self.resolve(source).target)

    def untag(self, name: str) -> Image:
        """Take a name away and return the image. Without a name it leaves the list; its blobs stay until collected."""
        reference = Reference.parse(name).tagged()
        image = self._catalog().named(reference)
        self.store.names.remove(reference)
        return image

    def layer_openers(self, image: Image) -> tuple[tuple[Digest, Callable[[], io.FileIO]], ...]:
        """Return (diff_id, function that opens the blob) of every layer, the base layer first: what unpacking takes."""
        return tuple((layer.diff_id, _opener(self.store, layer.descriptor.digest)) for layer in image.layers)

    def import_tar(
        self, source: Readable, name: str = "", changes: Sequence[str] = (), message: str = "", platform: str = ""
    ) -> Image:
        """Make an image of one layer from an archive of a root file system, as `docker import` does.

        source: tar, plain or compressed. name "" makes an image without one. changes: Dockerfile instructions.
        Raises Invalid for a broken archive, a bad name or a bad instruction; then nothing is left in the store.
        """
        from .archive import import_tar

        reference = Reference.parse(name).tagged() if name else None
        if reference is not None and reference.digest:
            raise Invalid("import", f"image {name}", "cannot import digest reference")
        wanted = Platform.parse(platform) if platform else self.platform
        target = import_tar(self.store, source, changes, message, wanted)
        self.store.names.put(reference, target)
        return self._catalog().load(target)

    def _catalog(self) -> Catalog:
        return Catalog(self.store, self.platform, self._known)


def _opener(store: Store, digest: Digest) -> Callable[[], io.FileIO]:
    return lambda: store.open(digest)
