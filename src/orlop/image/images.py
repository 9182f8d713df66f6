"""The images of one content store: found by name, by ID or by digest; named, and made from archives.

An image's ID is the digest of its configuration, as docker's is. Nothing is cached: the store is the only truth.
"""

from __future__ import annotations

import os

from orlop.spec.digest import SHORT_HEX_LENGTH, Digest
from orlop.spec.errors import Conflict, Invalid, NotFound
from orlop.spec.image import MANIFESTS, Descriptor, ImageConfig, Index, Manifest, chain_ids, parse_manifest
from orlop.spec.jsonio import parse
from orlop.spec.platform import Platform
from orlop.spec.reference import Reference

from .image import Image, Layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator, Sequence

    from orlop.content import Store
    from orlop.content.store import Readable

ID_PREFIX_LENGTH_MIN = 1
_HEX = frozenset("0123456789abcdef")


class Images:
    """The images in a store. Errors: NotFound, Invalid for a broken document, Unavailable for a broken disk."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._platform = Platform.of_machine(os.uname().machine)

    def resolve(self, name: str) -> Image:
        """Return the image that a user means: a reference, an ID or the beginning of one, or a digest.

        As docker: a whole ID or digest first, then names, then beginnings of IDs. Raises NotFound, Conflict when an
        ID's beginning fits several images, Invalid when it can't be any of these.
        """
        digits = name.removeprefix("sha256:")
        if _HEX.issuperset(digits) and len(digits) == 64:
            return self._with_digest(Digest("sha256:" + digits), name)
        if name.startswith("sha256:"):
            return self._with_prefix(digits, name)
        reference = Reference.parse(name)
        target = self._named(reference)
        if target is not None:
            return self._load(target)
        if _HEX.issuperset(name):
            return self._with_prefix(name, name)
        raise self._missing(name)

    def list(self) -> tuple[Image, ...]:
        """Return every image, the newest first. One that can't be read is left out: `resolve` says why."""
        images = []
        for target in self._targets():
            try:
                images.append(self._load(target))
            except (NotFound, Invalid):
                continue
        return tuple(sorted(images, key=lambda image: image.created, reverse=True))

    def tag(self, source: str, name: str) -> None:
        """Give an image one more name; an image that had it keeps its other ones, or stays without."""
        reference = Reference.parse(name)
        if reference.digest:
            raise Invalid("tag", f"image {source}", "refusing to create a tag with a digest reference")
        self.store.names.put(reference.tagged(), self.resolve(source).target)

    def untag(self, name: str) -> Image:
        """Take a name away and return the image. Without a name it leaves the list; its blobs stay until collected."""
        reference = Reference.parse(name).tagged()
        target = self.store.names.get(reference)
        if target is None:
            raise self._missing(name)
        image = self._load(target)
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
        wanted = Platform.parse(platform) if platform else self._platform
        target = import_tar(self.store, source, changes, message, wanted)
        self.store.names.put(reference, target)
        return self._load(target)

    # -- finding ----------------------------------------------------------------------------------------------------

    def _targets(self) -> Iterator[Descriptor]:
        """Yield each distinct thing that the index points to."""
        seen = set()
        for _, descriptor in self.store.names.entries():
            if descriptor.digest not in seen:
                seen.add(descriptor.digest)
                yield descriptor

    def _named(self, reference: Reference) -> Descriptor | None:
        """Return what a reference means here. Its digest decides; the tag beside it then says nothing."""
        if reference.digest is None:
            return self.store.names.get(reference.tagged())
        for name, descriptor in self.store.names.entries():
            if name is not None and name.name == reference.name and descriptor.digest == reference.digest:
                return descriptor
        return None

    def _with_digest(self, digest: Digest, name: str) -> Image:
        for target in self._targets():
            if target.digest == digest or self._config_digest(target) == digest:
                return self._load(target)
        raise self._missing(name)

    def _with_prefix(self, digits: str, name: str) -> Image:
        if len(digits) < ID_PREFIX_LENGTH_MIN or not _HEX.issuperset(digits):
            raise self._missing(name)
        found = {config: target for target in self._targets() if (config := self._config_digest(target))}
        fitting = [config for config in found if config.hex.startswith(digits)]
        if len(fitting) > 1:
            shown = ", ".join(sorted(config.short for config in fitting))
            raise Conflict(
                "find",
                f"image {name}",
                f"several image IDs begin like this: {shown}",
                hint=f"write more digits, or all {SHORT_HEX_LENGTH} that `orlop images` shows",
            )
        if not fitting:
            raise self._missing(name)
        return self._load(found[fitting[0]])

    def _config_digest(self, target: Descriptor) -> Digest | None:
        try:
            return self._manifest(target)[1].config.digest
        except (NotFound, Invalid):
            return None

    def _missing(self, name: str) -> NotFound:
        try:
            shown = Reference.parse(name).tagged().familiar
        except Invalid:
            shown = name
        return NotFound(
            "find",
            f"image {shown}",
            f"No such image: {shown}",
            hint=f"`orlop images` lists what is here; `orlop import FILE.tar {shown}` makes one; "
            "the image called host needs neither file nor network",
        )

    # -- reading ----------------------------------------------------------------------------------------------------

    def _load(self, target: Descriptor) -> Image:
        descriptor, manifest = self._manifest(target)
        subject = f"configuration {manifest.config.digest}"
        config = ImageConfig.from_json(parse(self.store.get(manifest.config.digest), subject), subject)
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise Invalid(
                "read", subject, f"it names {len(config.rootfs.diff_ids)} layers, its manifest {len(manifest.layers)}"
            )
        chain = chain_ids(config.rootfs.diff_ids)
        parts = zip(manifest.layers, config.rootfs.diff_ids, chain, strict=True)
        names = (name.familiar for name, known in self.store.names.entries() if name and known.digest == target.digest)
        return Image(
            id=manifest.config.digest,
            names=tuple(sorted(names)),
            target=target.replace(annotations={}),
            manifest=descriptor,
            config=config,
            layers=tuple(Layer(descriptor=layer, diff_id=diff, chain_id=link) for layer, diff, link in parts),
            size=descriptor.size + manifest.config.size + sum(layer.size for layer in manifest.layers),
        )

    def _manifest(self, target: Descriptor) -> tuple[Descriptor, Manifest]:
        """Return the manifest for this machine that target is or, as an index, lists."""
        document = self._document(target)
        if isinstance(document, Manifest):
            return target.replace(annotations={}), document
        for descriptor in document.manifests:
            fits = descriptor.platform is None or self._platform.runs(descriptor.platform)
            if descriptor.media_type in MANIFESTS and fits and self.store.stat(descriptor.digest) is not None:
                manifest = self._document(descriptor)
                assert isinstance(manifest, Manifest)  # by its media type
                return descriptor, manifest
        raise NotFound(
            "find",
            f"image {target.digest}",
            f"image {target.digest} has nothing here for {self._platform}",
            hint="pull or import it for this platform",
        )

    def _document(self, descriptor: Descriptor) -> Manifest | Index:
        subject = f"manifest {descriptor.digest}"
        return parse_manifest(self.store.get(descriptor.digest), descriptor.media_type, subject)


def _opener(store: Store, digest: Digest) -> Callable[[], io.FileIO]:
    return lambda: store.open(digest)
