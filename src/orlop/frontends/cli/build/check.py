"""`orlop build --check` and `--call`: what a Dockerfile says of itself, without building anything."""

from __future__ import annotations

from ..command import Invocation, for_output, write
from ..flags import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....build.request import BuildRequest

FORMATS = ("text", "json")


def run_check(invocation: Invocation, request: BuildRequest, archive: int) -> int:
    """Print the answer; return 1 for warnings and for a Dockerfile that can't be built, as buildx does."""
    from json import dumps

    call, _, wanted = str(invocation.options["call"]).partition(",")
    call = "check" if invocation.options["check"] or call == "lint" else call
    form = invocation.options["format"] or wanted.removeprefix("format=") or FORMATS[0]
    if form not in FORMATS:
        raise UsageError(f"invalid format {form}", f"one of {', '.join(FORMATS)}")
    with invocation.connect() as engine:
        args: dict[str, object] = {"request": request.to_json(), "call": call}
        answer = engine.call("build.check", args, [archive] if archive >= 0 else [])
    assert isinstance(answer, dict)
    write(f"{dumps(answer['json'], indent=2)}\n" if form == "json" else for_output(str(answer["text"])))
    return int(str(answer["status"]))
