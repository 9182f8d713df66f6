"""Questions about a Dockerfile instead of a build: `--check`, `--call=outline`, `--call=targets` of buildx.

Source: moby/buildkit, frontend/subrequests.
"""

from __future__ import annotations

import json

from ...build.check import check
from ...spec.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...build.request import BuildRequest
    from ...engine.engine import Engine

VERSION = b"1.0.0"
SERVED = {  # name: (call, what it is)
    "frontend.lint": ("check", "Lint a Dockerfile"),
    "frontend.outline": ("outline", "List all parameters current build target supports"),
    "frontend.targets": ("targets", "List all targets current build supports"),
}


def answer(engine: Engine, request: BuildRequest, archive: int, name: str) -> dict[str, bytes]:
    """Return the metadata that answers a subrequest. Raises Unsupported for one that is not served."""
    if name == "frontend.subrequests.describe":
        known = [
            {"Name": name, "Version": VERSION.decode(), "Type": "rpc", "Description": description}
            for name, (_, description) in SERVED.items()
        ]
        return {"result.json": json.dumps(known).encode(), "version": VERSION}
    if name not in SERVED:
        raise Unsupported("answer", name[:60], "this question is not served", hint="ask with: orlop build --call")
    found = check(engine, request, -1, SERVED[name][0])
    return {
        "result.json": json.dumps(found["json"]).encode(),
        "result.txt": str(found["text"]).encode(),
        "result.statuscode": str(found["status"]).encode(),
        "version": VERSION,
    }
