"""`orlop image tree`, `orlop image diff`, and what `orlop images --tree` prints."""

from __future__ import annotations

from .. import listing
from ..command import Command, Invocation, for_output, write, write_line
from ..units import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

ID_LENGTH = 12
BRANCH, LAST = "\u251c\u2500", "\u2514\u2500"


def print_platforms(items: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Print names, each with the images of its platforms below it. items: (name, what `images.list` has of it).

    EXTRA: U, a container uses it; P, its layers are here in part only.
    """
    rows = []
    for name, item in items:
        used = ("U" if item.get("in_use") else "") + ("P" if item.get("partial") else "")
        rows.append((name or "<untagged>", _short(item.get("digest")), *_sizes(item, item.get("unpacked")), used))
        children = [child for child in item.get("children") or [] if isinstance(child, dict)]
        for number, child in enumerate(children, 1):
            mark = LAST if number == len(children) else BRANCH
            name_of = f"{mark} {child.get('platform')}"
            is_own = child.get("here") and child.get("size") == item.get("size")
            unpacked = item.get("unpacked") if is_own else 0
            rows.append((name_of, _short(child.get("id")), *_sizes(child, unpacked), ""))
    listing.print_table(("IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"), rows)


def _sizes(item: dict[str, Any], unpacked: object) -> tuple[str, str]:
    """Return what it occupies in all, and what its blobs do."""
    content = int(item.get("size") or 0)
    return size(content + (unpacked if isinstance(unpacked, int) else 0), 3), size(content, 3)


def _short(identifier: object) -> str:
    return str(identifier or "").removeprefix("sha256:")[:ID_LENGTH]


def _tree(invocation: Invocation) -> int:
    with invocation.connect() as engine:
        found = engine.call("images.tree", {"image": invocation.arguments[0]})
    for line in lines(found if isinstance(found, dict) else {}):
        write_line(for_output(line))
    return 0


def lines(image: dict[str, Any], named: Callable[[str], str] = str) -> Iterator[str]:
    """Yield what is shown of an image as `images.tree` has it. named: how a name is written."""
    yield f"Image ID: {_short(image.get('id'))}"
    yield f"Tags:     [{' '.join(map(named, image.get('names') or []))}]"
    yield f"Size:     {size(int(image.get('size') or 0), 3)}"
    yield "Image Layers"
    layers = [layer for layer in image.get("layers") or [] if isinstance(layer, dict)]
    for number, layer in enumerate(layers, 1):
        mark = LAST if number == len(layers) else BRANCH
        top = f" Top Layer of: [{' '.join(map(named, layer['names']))}]" if layer.get("names") else ""
        yield f"{mark}\u2500 ID: {_short(layer.get('id'))} Size: {size(int(layer.get('size') or 0), 3):>6}{top}"


def _diff(invocation: Invocation) -> int:
    old, new = invocation.arguments
    with invocation.connect() as engine:
        found = engine.call("images.diff", {"old": old, "new": new})
    changes = [change for change in found if isinstance(change, dict)] if isinstance(found, list) else []
    write("".join(f"{change.get('kind')} {for_output(str(change.get('path')))}\n" for change in changes))
    return 0


TREE = Command(
    _tree,
    "Print the layers of an image, and which images end with each",
    "IMAGE",
    arguments=(1, 1),
    aliases=("image tree",),
)
DIFF = Command(
    _diff,
    "Show how the files of two images differ",
    "OLD NEW",
    arguments=(2, 2),
    aliases=("image diff",),
)
