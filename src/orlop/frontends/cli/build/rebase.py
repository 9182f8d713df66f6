"""`orlop rebase`: an image's own layers on another base image."""

from __future__ import annotations

from ..command import Command, Invocation, write_line
from ..flags import STRING, Flag, UsageError


def _rebase(invocation: Invocation) -> int:
    options = invocation.options
    if not options["from"] or not options["to"]:
        raise UsageError("both --from and --to are needed", "write: orlop rebase IMAGE --from OLD --to NEW")
    args: dict[str, object] = {
        "image": invocation.arguments[0],
        "old": options["from"],
        "new": options["to"],
        "name": options["tag"],
    }
    with invocation.connect() as engine:
        result = engine.call("build.rebase", args)
    write_line(str(result["id"]) if isinstance(result, dict) else "")
    return 0


REBASE = Command(
    _rebase,
    "Put an image's own layers on another base image, without building",
    "IMAGE --from OLD --to NEW",
    flags=(
        Flag("from", "", STRING, "The image that it stands on", default=""),
        Flag("tag", "t", STRING, "Name of the result (default: IMAGE's own, which moves)", default=""),
        Flag("to", "", STRING, "The image that it is to stand on", default=""),
    ),
    arguments=(1, 1),
    aliases=("image rebase", "rebase"),
)
