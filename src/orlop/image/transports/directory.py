"""An image in a plain directory, skopeo's `dir:PATH`.

    version                 one line
    manifest.json           the manifest or index
    <hex>.manifest.json     the manifests of an index
    <hex>                   blobs, their algorithm left out where it is sha256
Source: containers-transports(5), "dir:"; read and written by skopeo itself in the tests.
"""

from __future__ import annotations

from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid
from orlop.spec.image import INDEXES, MANIFESTS, OCI_INDEX, OCI_MANIFEST, Descriptor
from orlop.spec.jsonio import parse_object

from .tree import Tree

VERSION = b"Directory Transport Version: 1.1\n"
_VERSION_PREFIX = b"Directory Transport Version: 1."


class ImageDirectory(Tree):
    """One image, or the images of one index."""

    def place(self, digest: Digest, *, is_top: bool = False, is_manifest: bool = False) -> str:
        """Return the name of a blob's file."""
        if is_top:
            return "manifest.json"
        name = digest.hex if digest.algorithm == "sha256" else f"{digest.algorithm}-{digest.hex}"
        return f"{name}.manifest.json" if is_manifest else name

    def resolve(self, name: str) -> Descriptor:
        """Return what the directory holds. Raises NotFound, Invalid."""
        if not self.document("version").startswith(_VERSION_PREFIX):
            hint = "it has the form of `skopeo copy ... dir:`"
            raise Invalid("read", f"{self.path}/version", "it is of a version that we don't know", hint=hint)
        data = self.document("manifest.json")
        document = parse_object(data, f"{self.path}/manifest.json")
        media_type = document.get("mediaType") or (OCI_INDEX if "manifests" in document else OCI_MANIFEST)
        if media_type not in MANIFESTS and media_type not in INDEXES:
            raise Invalid("read", f"{self.path}/manifest.json", f"{str(media_type)[:100]!r} is no image")
        return Descriptor(media_type=str(media_type), digest=Digest.of(data), size=len(data))

    def seal(self) -> None:
        """Write what says which form the directory has."""
        self.write("version", VERSION)
