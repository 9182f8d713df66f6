"""`--check`, `--call=outline` and `--call=targets`: what a Dockerfile says of itself, without building anything."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orlop.engine.engine import Engine
    from orlop.spec.build import BuildRequest


def check(engine: Engine, request: BuildRequest, archive: int) -> dict[str, object]:
    """Return {"warnings": [...], "failure": text} of a Dockerfile. Raises as a build does before its first step."""
    from .build import prepared, told_warning

    with prepared(engine, request, archive) as compiled:
        return {"warnings": [told_warning(warning) for warning in compiled.warnings], "failure": compiled.failure}
