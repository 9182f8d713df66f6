"""One reading of the store's index: which images there are, under which names, and what their documents say."""

from __future__ import annotations

from orlop.content.names import REFERS_TO
from orlop.spec.digest import SHORT_HEX_LENGTH, Digest
from orlop.spec.errors import Conflict, Invalid, NotFound
from orlop.spec.image import MANIFESTS, Descriptor, ImageConfig, Index, Manifest, chain_ids, parse_manifest
from orlop.spec.jsonio import parse
from orlop.spec.reference import Reference

from .image import Image, Layer
from .selection import best_for, is_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from orlop.content import Store
    from orlop.spec.platform import Platform

ID_HEX_LENGTH = 64
KNOWN_MAX = 4096
_HEX = frozenset("0123456789abcdef")


class Catalog:
    """The images that the index named when this was made; blobs are read as they are asked for.

    Errors of all: NotFound, Invalid for a broken document, Unavailable for a broken disk.
    """

    def __init__(self, store: Store, platform: Platform, known: dict[Digest, Image] | None = None) -> None:
        """known: images by their manifests' digests, as they were read before: content under a digest never changes.

        Whether it is still here is asked each time.
        """
        self._store = store
        self._platform = platform
        self._known = known if known is not None else {}
        self._targets: dict[Digest, Descriptor] = {}
        self._names: dict[Digest, list[Reference]] = {}
        for name, descriptor in store.names.entries():
            if REFERS_TO in descriptor.annotations:
                continue
            self._targets.setdefault(descriptor.digest, descriptor)
            self._names.setdefault(descriptor.digest, []).extend((name,) if name is not None else ())

    def resolve(self, name: str) -> Image:
        """Return the image that a user means: a reference, an ID or the beginning of one, or a digest."""
        digits = name.removeprefix("sha256:")
        if _HEX.issuperset(digits) and len(digits) == ID_HEX_LENGTH:
            return self._with_digest(Digest("sha256:" + digits), name)
        if name.startswith("sha256:"):
            return self._with_prefix(digits, name)
        reference = Reference.parse(name)
        target = self._find(reference)
        if target is not None:
            return self.load(target)
        if _HEX.issuperset(name):
            return self._with_prefix(name, name)
        raise _missing(reference.tagged().familiar)

    def named(self, reference: Reference) -> Image:
        """Return the image with exactly this name."""
        target = self._find(reference)
        if target is None:
            raise _missing(reference.familiar)
        return self.load(target)

    def readable(self) -> Iterator[Image]:
        """Yield every image whose documents are here and whole."""
        for target in self._targets.values():
            try:
                yield self.load(target)
            except (NotFound, Invalid):
                continue

    def load(self, target: Descriptor) -> Image:
        """Return the image that a manifest is, or that an index lists for this platform."""
        known = self._known.get(target.digest)
        if known is not None and all(self._store.stat(one) is not None for one in (known.id, target.digest)):
            return known.replace(names=self._names_of(target))
        image = self._load(target)
        if image.target == image.manifest:  # what an index means depends on what of it is here
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[target.digest] = image
        return image

    def _names_of(self, target: Descriptor) -> tuple[str, ...]:
        return tuple(sorted(name.familiar for name in self._names.get(target.digest, ())))

    def _load(self, target: Descriptor) -> Image:
        descriptor, manifest = self._manifest(target)
        subject = f"configuration {manifest.config.digest}"
        config = ImageConfig.from_json(parse(self._store.get(manifest.config.digest), subject), subject)
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise Invalid(
                "read", subject, f"it names {len(config.rootfs.diff_ids)} layers, its manifest {len(manifest.layers)}"
            )
        chain = chain_ids(config.rootfs.diff_ids)
        parts = zip(manifest.layers, config.rootfs.diff_ids, chain, strict=True)
        return Image(
            id=manifest.config.digest,
            names=self._names_of(target),
            target=target.replace(annotations={}),
            manifest=descriptor,
            config=config,
            layers=tuple(Layer(descriptor=layer, diff_id=diff, chain_id=link) for layer, diff, link in parts),
            size=descriptor.size + manifest.config.size + sum(layer.size for layer in manifest.layers),
        )

    def _find(self, reference: Reference) -> Descriptor | None:
        """Return what a reference means here. Its digest decides; the tag beside it then says nothing."""
        if reference.digest is None:
            wanted = reference.tagged()
            digest = next((digest for digest, names in self._names.items() if wanted in names), None)
        else:
            names = self._names.get(reference.digest, ())
            digest = reference.digest if any(name.name == reference.name for name in names) else None
        return self._targets[digest] if digest is not None else None

    def _with_digest(self, digest: Digest, name: str) -> Image:
        if digest in self._targets:
            return self.load(self._targets[digest])
        for target in self._targets.values():
            if self._config_digest(target) == digest:
                return self.load(target)
        raise _missing(name)

    def _with_prefix(self, digits: str, name: str) -> Image:
        if not digits or not _HEX.issuperset(digits):
            raise _missing(name)
        found = {config: target for target in self._targets.values() if (config := self._config_digest(target))}
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
            raise _missing(name)
        return self.load(found[fitting[0]])

    def _config_digest(self, target: Descriptor) -> Digest | None:
        try:
            return self._manifest(target)[1].config.digest
        except (NotFound, Invalid):
            return None

    def _manifest(self, target: Descriptor) -> tuple[Descriptor, Manifest]:
        """Return the manifest for this machine that target is or, as an index, lists."""
        document = self._document(target)
        if isinstance(document, Manifest):
            return target.replace(annotations={}), document
        here = [one for one in document.manifests if one.media_type in MANIFESTS and self._store.stat(one.digest)]
        # Pulled for another platform by name, it is all there is: it can be listed, saved and pushed.
        descriptor = best_for(self._platform, here) or next((one for one in here if is_image(one)), None)
        if descriptor is not None:
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
        return parse_manifest(self._store.get(descriptor.digest), descriptor.media_type, subject)


def _missing(name: str) -> NotFound:
    return NotFound(
        "find",
        f"image {name}",
        f"No such image: {name}",
        hint=f"get it with: orlop pull {name}; `orlop images` lists what is here, `host` is always",
        code="E0801",
    )
