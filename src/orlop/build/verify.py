"""`--verify`: every step is made once more, at another time on a machine of another name, and the layers compared."""

from __future__ import annotations

import hashlib

from orlop.spec.errors import Invalid
from orlop.spec.tar import Limits, Reader

from . import graph
from .solver.solve import Solver, chain_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from orlop.spec.digest import Digest

HOSTNAME = "another-host"
LIMITS = Limits(entries=2**40, total_bytes=2**60)


def check(made: Solver, targets: Sequence[graph.Target]) -> None:
    """Raise Invalid that names the first file that differs between two makings of the targets, and its step."""
    again = Solver(made.engine, made.settings.perturbed(HOSTNAME), made.journal, made.lease, made.directory)
    again.contexts, again.images, again.imports = made.contexts, made.images, made.imports
    again.cancelled_with(made)
    try:
        again.solve([target.vertex for target in targets])
        for target in targets:
            for vertex in chain_of(target.vertex):
                _compare(made, again, vertex)
    finally:
        made.follower = None
        again.close()


def _compare(made: Solver, again: Solver, vertex: graph.Vertex) -> None:
    first, second = made.solved[vertex].layer, again.solved[vertex].layer
    if (first.diff_id if first else None) == (second.diff_id if second else None):
        return
    before = _members(made, first.descriptor.digest) if first else {}
    after = _members(made, second.descriptor.digest) if second else {}
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) == after.get(path):
            continue
        name = "/" + path.decode(errors="backslashreplace").strip("/")
        how = "differs" if path in before and path in after else "is there only one time"
        cause = f"it is not reproducible: {name} {how} when the step is made twice: {vertex.origin.text}"
        hint = "look for times, host names and random numbers in what the step writes"
        raise Invalid("verify", "the image", cause, hint=hint)


def _members(solver: Solver, digest: Digest) -> dict[bytes, tuple[object, ...]]:
    """Return what each member of a layer is."""
    found: dict[bytes, tuple[object, ...]] = {}
    with solver.engine.store.open(digest) as blob:
        reader = Reader(blob.read, "a layer", LIMITS)
        for member in reader:
            content = hashlib.sha256()
            for piece in reader.data():
                content.update(piece)
            attributes = tuple(sorted(member.xattrs.items()))
            owner = (member.uid, member.gid)
            device = (member.devmajor, member.devminor)
            found[member.name] = (
                *(member.kind, member.mode, owner, member.mtime_ns, member.linkname, device, attributes),
                content.digest(),
            )
    return found
