"""A graph as a document: what would be built, without the places of the Dockerfile that said it.

Two texts that say the same have the same document, so its digest says whether they do: a Dockerfile and a `build.py`,
a Dockerfile before and after it was tidied up. What the base images hold is not in it.
"""

from __future__ import annotations

import base64

from orlop.spec import jsonio
from orlop.spec.digest import Digest
from orlop.spec.record import Record

from .. import graph

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Document = dict[str, object]

_LEFT_OUT = frozenset(("origin",))


def document(targets: Sequence[graph.Target]) -> Document:
    """Return {digest, vertices, targets}: vertices in the order in which each comes after its inputs."""
    numbers: dict[graph.Vertex, int] = {}
    vertices: list[object] = []

    def described(value: object) -> object:
        if isinstance(value, graph.Vertex):
            return numbers[value]
        if isinstance(value, graph.Identical):
            fields = {name: described(getattr(value, name)) for name in vars(value) if name not in _LEFT_OUT}
            return {"kind": type(value).__name__, **fields}
        if isinstance(value, Record):
            return value.to_json()
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        return [described(one) for one in value] if isinstance(value, tuple) else value

    for target in targets:
        pending: list[tuple[graph.Vertex, bool]] = [(target.vertex, False)]
        while pending:
            vertex, is_ready = pending.pop()
            if vertex in numbers:
                continue
            if is_ready:
                fields = {name: described(getattr(vertex, name)) for name in vars(vertex) if name not in _LEFT_OUT}
                numbers[vertex] = len(vertices)
                vertices.append({"kind": type(vertex).__name__, **fields})
            else:
                pending.append((vertex, True))
                pending += [(one, False) for one in reversed(vertex.inputs)]
    told = [described(target) for target in targets]
    made: Document = {"vertices": vertices, "targets": told}
    return {"digest": str(Digest.of(jsonio.dump(made))), **made}
