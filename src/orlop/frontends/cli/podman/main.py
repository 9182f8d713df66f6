"""The entry of a program called `podman` (a link to `orlop` on PATH), for programs that drive podman: podman-compose.

Nearly all of podman's words are orlop's own; here are those that docker's users mean otherwise.
"""

from __future__ import annotations

import sys

from .... import __version__
from .. import main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = "5.5.0"  # what scripts find in the answer's last word, and decide by
JSON = "podman-json"  # a format of `ps`
_LISTS = frozenset(("ps", "container ls", "container list", "container ps"))
_WITHOUT_TITLES = frozenset(
    ("images", "image ls", "image list", "volume ls", "volume list", "network ls", "network list")
)
_LOGS = frozenset(("logs", "container logs"))


def entry() -> None:
    """Run the command line of this process and end the process with its status."""
    if [word for word in sys.argv[1:] if word] in (["--version"], ["-v"]):  # podman-compose adds an empty word
        sys.stdout.write(f"Orlop {__version__} in the words of podman version {VERSION}\n")
        return
    if sys.argv[1:2] == ["pod"]:
        from . import pods

        sys.exit(pods.run(sys.argv[2:]))
    sys.argv[1:] = translated(sys.argv[1:])
    main.entry()


def translated(words: Sequence[str]) -> list[str]:
    """Return a command line in podman's words as one in ours.

    `ps --format json` is one array; `-n` of a list leaves its titles away, and of logs it puts names in front.
    """
    out = list(words)
    command = _command(out)
    if command in _LISTS:
        for at, word in enumerate(out):
            if word == "--format=json":
                out[at] = f"--format={JSON}"
            elif word == "json" and out[at - 1] == "--format":
                out[at] = JSON
    elif command in _WITHOUT_TITLES:
        out = ["--noheading" if word == "-n" else word for word in out]
    elif command in _LOGS:
        out = ["--names" if word == "-n" else word for word in out]
    return out


def _command(words: Sequence[str]) -> str:
    named = [word for word in words[:2] if not word.startswith("-")]
    known = " ".join(named)
    return known if known in _LISTS | _WITHOUT_TITLES | _LOGS else "".join(named[:1])
