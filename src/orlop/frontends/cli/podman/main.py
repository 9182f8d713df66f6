"""The entry of a program called `podman` (a link to `orlop` on PATH), for programs that drive podman: podman-compose.

Nearly all of podman's words are orlop's own; here are those that docker's users mean otherwise.
"""

from __future__ import annotations

import sys

from .... import __version__
from .. import commands, main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = "5.5.0"  # what scripts find in the answer's last word, and decide by
JSON = "podman-json"  # a format of `ps`
_LISTS = frozenset(("ps", "container ls", "container list", "container ps"))
_WITHOUT_TITLES = frozenset(
    ("images", "image ls", "image list", "volume ls", "volume list", "network ls", "network list")
)
_OTHER_MEANING = frozenset((("unshare",), ("volume", "import"), ("manifest", "create"), ("manifest", "push")))
# That the engine is another process goes without saying; how much is told and where it keeps its things is its own.
_SWITCHES = frozenset(("--remote", "-r", "--remote=true", "--syslog", "--trace"))
_VALUES = frozenset(("--log-level", "--cgroup-manager", "--events-backend", "--network-cmd-path", "--conmon"))
_REMOVALS = frozenset(("rm", "container rm"))
_LOGS = frozenset(("logs", "container logs"))


def entry() -> None:
    """Run the command line of this process and end the process with its status."""
    if [word for word in sys.argv[1:] if word] in (["--version"], ["-v"]):  # podman-compose adds an empty word
        sys.stdout.write(f"Orlop {__version__} in the words of podman version {VERSION}\n")
        return
    words = without_global_flags(sys.argv[1:])
    if words[:1] == ["pod"]:
        from . import pods

        sys.exit(pods.run(words[1:]))
    if _is_podmans(words):
        from . import verbs

        status = verbs.run(words)
        if status is not None:
            sys.exit(status)
    sys.argv[1:] = translated(words)
    main.entry()


def _is_podmans(words: Sequence[str]) -> bool:
    """Tell whether the command is none of orlop's, or one by whose words podman means something else."""
    if not words or words[0].startswith("-"):
        return False
    if tuple(words[:1]) in _OTHER_MEANING or tuple(words[:2]) in _OTHER_MEANING:
        return True
    if words[0] in commands.GROUPS:
        return len(words) > 1 and not words[1].startswith("-") and commands.find(words[0], words[1]) is None
    return commands.find("", words[0]) is None


def without_global_flags(words: Sequence[str]) -> list[str]:
    """Return a command line without podman's flags ahead of the command that ask for nothing here.

    What they say else, as --root, is left for the command line to refuse by name.
    """
    at = 0
    while at < len(words) and words[at].startswith("-"):
        name, given, _ = words[at].partition("=")
        if name in _SWITCHES:
            at += 1
        elif name in _VALUES:
            at += 1 if given else 2
        else:
            break
    return list(words[at:])


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
    elif command in _REMOVALS:
        for flag in (["-t", "0"], ["--time", "0"], ["--time=0"], ["-t0"]):  # as `rm -f` does, it waits for nobody
            found = next((at for at in range(len(out)) if out[at : at + len(flag)] == flag), None)
            if found is not None:
                del out[found : found + len(flag)]
    elif command in _LOGS:
        out = ["--names" if word == "-n" else word for word in out]
    return out


def _command(words: Sequence[str]) -> str:
    named = [word for word in words[:2] if not word.startswith("-")]
    known = " ".join(named)
    return known if known in _LISTS | _WITHOUT_TITLES | _LOGS | _REMOVALS else "".join(named[:1])
