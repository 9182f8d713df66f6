"""Questions about a Dockerfile instead of a build: `--check`, `--call=outline`, `--call=targets` of buildx.

Source: moby/buildkit, frontend/subrequests.
"""

from __future__ import annotations

import json

from ...build.check import check
from ...spec.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...engine.engine import Engine
    from ...spec.build import BuildRequest


def answer(engine: Engine, request: BuildRequest, name: str) -> dict[str, bytes]:
    """Return the metadata that answers a subrequest. Raises Unsupported for one that is not served."""
    if name == "frontend.subrequests.describe":
        known = [{"Name": "frontend.lint", "Version": "1.0.0", "Type": "rpc", "Description": "Lint a Dockerfile"}]
        return {"result.json": json.dumps(known).encode(), "version": b"1.0.0"}
    if name != "frontend.lint":
        raise Unsupported("answer", name[:60], "this question is not served", hint="ask with: orlop build --call")
    found = check(engine, request, -1)
    return {"result.json": json.dumps(found).encode(), "version": b"1.0.0"}
