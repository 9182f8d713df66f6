"""Images in an OCI layout that is not ours: `oci:PATH[:NAME]`.

Source: OCI image-spec, image-layout.md.
"""

from __future__ import annotations

from orlop.spec.errors import Conflict, Invalid, NotFound
from orlop.spec.image import (
    INDEXES,
    LAYOUT_VERSION,
    MANIFESTS,
    OCI_INDEX,
    REF_NAME,
    Descriptor,
    Index,
    Layout,
)
from orlop.spec.jsonio import dump, parse

from .tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from orlop.spec.digest import Digest


class LayoutDirectory(Tree):
    """An OCI layout. Where it is made, it becomes a layout with its first image."""

    def place(self, digest: Digest, *, is_top: bool = False, is_manifest: bool = False) -> str:
        """Return where a blob lies, whatever it is."""
        return f"blobs/{digest.algorithm}/{digest.hex}"

    def resolve(self, name: str) -> Descriptor:
        """Return what the layout has under a name, or the only image in it. Raises NotFound, Conflict, Invalid."""
        subject = f"oci-layout of {self.path}"
        Layout.from_json(parse(self.document("oci-layout"), subject), subject)
        entries = [one for one in self._index() if one.media_type in MANIFESTS or one.media_type in INDEXES]
        if name:
            found = [one for one in entries if one.annotations.get(REF_NAME) == name or one.digest == name]
            if not found:
                names = ", ".join(one.annotations.get(REF_NAME, str(one.digest)) for one in entries[:12])
                cause = f"{self.path} has no image {name}"
                raise NotFound("find", f"image {name}", cause, hint=f"it has: {names}")
        else:
            found = entries
        if len({one.digest for one in found}) != 1:
            cause = f"it holds {len(found)} images"
            raise Conflict("find", f"the image of {self.path}", cause, hint=f"name one: oci:{self.path}:NAME")
        return found[0].replace(annotations={}, platform=None)

    def name(self, target: Descriptor, name: str, others: Iterable[Descriptor] = ()) -> None:
        """Give a manifest or index a name in the layout, "" is none; what had the name before goes from the index.

        others: what belongs to it and is no part of it (referrers): it gets a place without a name.
        """
        try:
            entries = list(self._index())
        except NotFound:
            entries = []
            self.write("oci-layout", dump(Layout(image_layout_version=LAYOUT_VERSION).to_json()))
        named = target.replace(annotations={**target.annotations, **({REF_NAME: name} if name else {})})
        kept = [one for one in entries if not (name and one.annotations.get(REF_NAME) == name)]
        kept = [one for one in kept if one.digest != target.digest or one.annotations.get(REF_NAME)]
        known = {one.digest for one in kept}
        added = [one for one in others if one.digest not in known]
        index = Index(schema_version=2, media_type=OCI_INDEX, manifests=(*kept, named, *added))
        self.write("index.json", dump(index.to_json()))

    def _index(self) -> tuple[Descriptor, ...]:
        subject = f"index.json of {self.path}"
        index = Index.from_json(parse(self.document("index.json"), subject), subject)
        if index.schema_version != 2:
            raise Invalid("read", subject, "it is not of schemaVersion 2")
        return index.manifests
