"""`orlop build --check`: what the rules say about a Dockerfile."""

from __future__ import annotations

from ..command import Invocation, write_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....spec.build import BuildRequest


def run_check(invocation: Invocation, request: BuildRequest, archive: int) -> int:
    """Print the warnings; return 1 when they are errors, as buildx does for any of them."""
    with invocation.connect() as engine:
        result = engine.call("build.check", {"request": request.to_json()}, [archive] if archive >= 0 else [])
    found = result.get("warnings", []) if isinstance(result, dict) else []
    if invocation.options["format"] == "json":
        from ....spec import jsonio

        write_line(jsonio.dump(found).decode())
    elif not found:
        write_line("Check complete, no warnings found.")
    else:
        write_line(f"Check complete, {len(found)} warning{'s have' if len(found) > 1 else ' has'} been found!")
        for warning in found:
            write_line(f"\nWARNING: {warning['rule']} - {warning.get('url', '')}\n{warning['description']}")
            write_line(f"{request.dockerfile or 'Dockerfile'}:{warning['lines'][0]}: {warning['detail']}")
    return 1 if found else 0
