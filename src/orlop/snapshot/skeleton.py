"""Layers whose content is elsewhere yet: each as a file that the kernel mounts, complete but for the files' bytes.

    table of contents -> tree of empty files (`extract`, with all its care) -> EROFS with room where content belongs

The image is a sparse file that holds inodes and directories; `pieces` says which of its bytes belong to which file of
the layer. Whoever serves it puts them there as they are read.
"""

from __future__ import annotations

import os
import stat

from orlop.spec.errors import Unsupported

from . import overlay, removal
from .erofs import BLOCK, Image
from .extract import Extraction
from .layered import open_layers
from .unpack import is_opaque, remove_tree, unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Protocol

    from orlop.spec.tar import Member

    from .erofs import Node
    from .layered import Entry

    Piece = tuple[int, int, tuple[bytes, ...]]

    class Listing(Protocol):
        """What is in a layer: `spec.tar.estargz.Toc` is one. subject names it in errors."""

        @property
        def subject(self) -> str: ...
        def members(self) -> Iterator[Member]: ...


class Skeleton:
    """One layer. file: a descriptor of the image, the owner's to close; size: its bytes.

    pieces: (first byte, byte behind the last one, paths in the layer) of each file's content, sorted. entries: members.
    """

    __slots__ = ("entries", "file", "pieces", "size")

    def __init__(self, file: int, pieces: list[Piece], entries: int) -> None:
        self.file = file
        self.pieces = pieces
        self.entries = entries
        self.size = os.fstat(file).st_size


def lay_out(root: str, listings: Sequence[Listing], below: Sequence[str]) -> list[Skeleton]:
    """Return the images of layers that lie above each other, the base first. root: of the snapshots.

    below: trees of the layers that lie below all of them and are unpacked, the topmost first. Raises Invalid, Denied,
    Unavailable, and Unsupported for a layer that overlayfs could not show.
    """
    place = f"{root}/trash/{os.urandom(8).hex()}"
    made: list[Skeleton] = []
    trees = list(below)
    try:
        os.mkdir(place, 0o700)
        for number, listing in enumerate(listings):
            tree = f"{place}/{number}"
            entries = _extract(listing, tree, place, trees)
            if is_opaque(tree):
                raise Unsupported("mount", listing.subject, "it hides all layers below it")
            trees.insert(0, tree)
            made.append(_image(root, tree, entries))
    except BaseException as wrong:
        for one in made:
            os.close(one.file)
        if isinstance(wrong, OSError):
            raise unavailable("lay out", "the layers", wrong) from None
        raise
    finally:
        if os.path.isdir(place):
            remove_tree(root, place)
    return made


class _Listed:
    """A listing as what is extracted: members without data."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing

    def __iter__(self) -> Iterator[Member]:
        return self._listing.members()

    def data(self) -> Iterator[bytes]:
        return iter(())


def _extract(listing: Listing, tree: str, place: str, below: Sequence[str]) -> int:
    os.mkdir(tree, 0o700)
    fd = os.open(tree, removal.DIRECTORY_FLAGS)
    trash = os.open(place, removal.DIRECTORY_FLAGS)
    try:
        os.fchmod(fd, 0o755)
        extraction = Extraction(fd, trash, listing.subject)
        extraction.run(_Listed(listing))
        extraction.settle(below)
        return extraction.entries
    finally:
        os.close(fd)
        os.close(trash)


def _image(root: str, tree: str, entries: int) -> Skeleton:
    file = os.open(root, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        image = _Hollow(file)
        image.add(open_layers((tree,), plain=True))
        image.finish()
        return Skeleton(file, sorted(_pieces(image.root)), entries)
    except BaseException:
        os.close(file)
        raise


class _Hollow(Image):
    """An image with room for the files' content. Marks of overlayfs are in it, for it becomes a layer itself."""

    def _content(self, node: Node, entry: Entry) -> None:
        self._reserve(node, entry.info.st_size)

    def _attributes(self, path: str) -> dict[bytes, bytes]:
        found = super()._attributes(path)
        if is_opaque(path):
            found[os.fsencode(overlay.OPAQUE_XATTR)] = b"y"
        return found


def _pieces(root: Node) -> Iterator[Piece]:
    """Yield where the content of each file goes; one with several links has several paths."""
    paths: dict[int, tuple[Node, list[bytes]]] = {}
    levels = [(root, b"")]
    while levels:
        directory, above = levels.pop()
        for name, node in directory.entries.items():
            if stat.S_ISDIR(node.info.st_mode):
                levels.append((node, above + name + b"/"))
            elif stat.S_ISREG(node.info.st_mode) and node.size:
                paths.setdefault(id(node), (node, []))[1].append(above + name)
    for node, found in paths.values():
        yield node.block * BLOCK, node.block * BLOCK + node.size, tuple(found)
