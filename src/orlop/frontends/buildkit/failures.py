"""Why a build failed, in BuildKit's words, with the place that its clients show.

Source: moby/buildkit, errdefs/errdefs.proto (Source) and util/grpcerrors: details are JSON.
"""

from __future__ import annotations

import base64

from ...build.dockerfile.source import DockerfileError
from ...spec import jsonio, protobuf
from ...spec.errors import NotFound, Unsupported
from ...spec.reference import Reference
from . import grpc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ...spec.errors import OrlopError

SOURCE_URL = "github.com/moby/buildkit/errdefs.Source+json"
SHOWN_BYTES_MAX = 16 * 1024  # of a Dockerfile, in a header; of a longer one the place is not shown


def failed(failure: OrlopError, place: Mapping[str, Any], unresolved: str) -> grpc.Failed:
    """Return the status of a call that asked for a build.

    place: file, lines and text, or nothing. unresolved: the image of which nothing could be learned, "" for none.
    """
    if isinstance(failure, DockerfileError):
        text = failure.buildkit_text
    elif unresolved:
        shown = Reference.parse(unresolved).familiar.removesuffix(":latest")
        text = f"{shown}: failed to resolve source metadata for {unresolved}: {failure.cause}"
    else:
        is_known = isinstance(failure, NotFound) or failure.cause.startswith("process ")
        text = failure.cause if is_known else str(failure)
    if failure.hint:
        text = f"{text}\nNext: {failure.hint}"
    code = grpc.UNIMPLEMENTED if isinstance(failure, Unsupported) else grpc.UNKNOWN
    return grpc.Failed(code, text, _status(code, text, place))


def _status(code: int, text: str, place: Mapping[str, Any]) -> bytes:
    """Return google.rpc.Status with the place as BuildKit's clients read it, b"" where there is none to show."""
    data = str(place.get("text", "")).encode(errors="surrogateescape")
    if not place or len(data) > SHOWN_BYTES_MAX:
        return b""
    first, last = place["lines"]
    source = {
        "info": {"filename": place["file"], "data": base64.b64encode(data).decode()},
        "ranges": [{"start": {"line": first}, "end": {"line": last}}],
    }
    return protobuf.encode(((1, code), (2, text), (3, ((1, SOURCE_URL), (2, jsonio.dump(source))))))
