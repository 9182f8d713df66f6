"""What one build of a client takes of another (a bake target's `target:NAME`): its image, wrapped as BuildKit's graph.

The client carries it from one answer to the next request and marshals it anew on the way, so it is a graph that its
library can read: one source, our image by its ID, and the end that points to it.
Source: moby/buildkit, solver/pb/ops.proto (Definition, Op), frontend/gateway/pb/gateway.proto (Ref, FrontendInputs).
"""

from __future__ import annotations

import hashlib
import re

from ...build.registries import IMAGE_PREFIX
from ...spec import protobuf
from ...spec.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...spec.protobuf import Message

    Fields = dict[int, list[int | bytes]]

INPUT_PREFIX = "input:"
_INPUTS = 13  # of gateway's SolveRequest
_OURS = re.compile(re.escape(IMAGE_PREFIX) + r"sha256:[0-9a-f]{64}")


def definition(identity: str) -> Message:
    """Return the Definition that stands for one of our images."""
    source = protobuf.encode(((3, ((1, IMAGE_PREFIX + identity),)),))
    end = protobuf.encode(((1, ((1, _digest(source)),)),))
    known = tuple((2, ((1, _digest(one)), (2, b""))) for one in (source, end))  # OpMetadata of each
    return ((1, source), (1, end), *known)


def _digest(operation: bytes) -> str:
    return f"sha256:{hashlib.sha256(operation).hexdigest()}"


def resolved(options: Mapping[str, str], request: Fields) -> dict[str, str]:
    """Return the frontend's options with our images in place of the request's inputs. Raises Unsupported."""
    images = {}
    for given in request.get(_INPUTS, ()):
        entry = protobuf.decode(_bytes(given))
        images[protobuf.text(entry, 1)] = _image(protobuf.decode(protobuf.inner(entry, 2)))
    found = {}
    for name, value in options.items():
        if name.startswith("context:") and value.startswith(INPUT_PREFIX):
            value = images.get(value.removeprefix(INPUT_PREFIX), "")
            if not _OURS.fullmatch(value):
                raise Unsupported("build", name[:100], "a graph of the client's own is not served")
        found[name] = value
    return found


def _image(graph: Fields) -> str:
    """Return what the one source of a graph is called, "" where it has another number of them."""
    sources = []
    for value in graph.get(1, ()):
        operation = protobuf.decode(_bytes(value))
        if 3 in operation:
            sources.append(protobuf.text(protobuf.decode(protobuf.inner(operation, 3)), 1))
    return sources[0] if len(sources) == 1 else ""


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a field is not a message")
    return value
