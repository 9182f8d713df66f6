"""buildah's words that Orlop has elsewhere, under another name or in another group."""

from __future__ import annotations

from .. import commands
from ..command import Command
from ..flags import UsageError
from ..main import run_command
from ..podman.verbs import COMMANDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..command import Invocation


def _manifest(invocation: Invocation) -> int:
    """Carry out a word of the group `manifest`, docker's or one that only podman and buildah have."""
    verb, *words = invocation.arguments
    command = COMMANDS.get(("manifest", verb))
    if command is None:
        row = commands.find("manifest", verb)
        if row is None:
            known = sorted({*commands.GROUPS["manifest"][1], *(name[1] for name in COMMANDS if name[0] == "manifest")})
            raise UsageError(f"unknown command: orlop buildah manifest {verb}", f"one of {', '.join(known)}")
        command = commands.load(row)
    return run_command(command, f"orlop buildah manifest {verb}", words, debug=False)


MANIFEST = Command(
    _manifest,
    "Make lists of images: manifest create|add|annotate|inspect|exists|remove|rm|push",
    "COMMAND [ARG...]",
    arguments=(1, None),
    interspersed=False,
)
UNSHARE = COMMANDS[("unshare",)]
