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
    parse_manifest,
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
        if not name and len(entries) > 1:  # what refers to the image stands beside it
            entries = [one for one in entries if self._subject(one) is None]
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

    def referrers(self, digest: Digest) -> list[Descriptor]:
        """Return the entries of the index whose subject a manifest is. Raises Invalid for a broken document."""
        found = []
        for one in self._index():
            if (one.media_type in MANIFESTS or one.media_type in INDEXES) and self._subject(one) == digest:
                found.append(one)
        return found

    def _subject(self, one: Descriptor) -> Digest | None:
        data = self.document(self.place(one.digest))
        document = parse_manifest(data, one.media_type, f"manifest {one.digest}")
        return document.subject.digest if document.subject is not None else None

    def add(self, others: Iterable[Descriptor]) -> None:
        """Give manifests a place in the index without a name."""
        entries = self._index()
        known = {one.digest for one in entries}
        self._write_index((*entries, *(one for one in others if one.digest not in known)))

    def name(self, target: Descriptor, name: str) -> None:
        """Give a manifest or index a name in the layout, "" is none; what had the name before goes from the index."""
        try:
            entries = list(self._index())
        except NotFound:
            entries = []
            self.write("oci-layout", dump(Layout(image_layout_version=LAYOUT_VERSION).to_json()))
        named = target.replace(annotations={**target.annotations, **({REF_NAME: name} if name else {})})
        kept = [one for one in entries if not (name and one.annotations.get(REF_NAME) == name)]
        kept = [one for one in kept if one.digest != target.digest or one.annotations.get(REF_NAME)]
        self._write_index((*kept, named))

    def _write_index(self, entries: tuple[Descriptor, ...]) -> None:
        index = Index(schema_version=2, media_type=OCI_INDEX, manifests=entries)
        self.write("index.json", dump(index.to_json()))

    def _index(self) -> tuple[Descriptor, ...]:
        subject = f"index.json of {self.path}"
        index = Index.from_json(parse(self.document("index.json"), subject), subject)
        if index.schema_version != 2:
            raise Invalid("read", subject, "it is not of schemaVersion 2")
        return index.manifests
