"""Which tests may skip: tests/skips.txt, one `reason | condition` a line.

A reason begins with "needs:". The condition says on which machines that need is unmet; there the skip is allowed,
elsewhere it fails the run: a suite that skips what it could have tested tests nothing. An entry whose condition holds
in a run of all tests, while no test skipped for it, is reported as stale.
"needs: PROGRAM" of a program in devtools.peers.TOOLS needs no entry: it is allowed while the program can't be found.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

from devtools import peers

LIST = Path(__file__).parents[1] / "skips.txt"

_CGROUPS = Path("/sys/fs/cgroup")


def _v2_controllers() -> str:
    for place in (_CGROUPS / "cgroup.controllers", _CGROUPS / "unified/cgroup.controllers"):
        if place.exists():
            return place.read_text()
    return ""


CONDITIONS: dict[str, Callable[[], bool]] = {
    "not root": lambda: os.geteuid() != 0,
    "no cgroup v2 controllers": lambda: "memory" not in _v2_controllers().split(),
    "no cgroup v1": lambda: not (_CGROUPS / "memory/memory.limit_in_bytes").exists(),
    "no FUSE": lambda: not os.access("/dev/fuse", os.R_OK | os.W_OK),
    "no btrfs": lambda: "btrfs" not in Path("/proc/filesystems").read_text() or not Path("/dev/loop-control").exists(),
    "no EROFS from files": lambda: (
        tuple(map(int, platform.release().split(".")[:2])) < (6, 12)
        or "erofs" not in Path("/proc/filesystems").read_text()
    ),
    "no kvm": lambda: not os.access("/dev/kvm", os.R_OK | os.W_OK),
    "no kernel headers": lambda: not Path("/usr/include/asm-generic/unistd.h").exists(),
    "no containers-common": lambda: (
        not any((place / "usr/share/containers/seccomp.json").exists() for place in (Path("/"), peers.DIRECTORY))
    ),
    "systemd is process 1": lambda: Path("/run/systemd/system").is_dir(),
    "no systemd": lambda: not Path("/usr/lib/systemd/systemd").exists(),
    "kernel before 6.7": lambda: tuple(map(int, platform.release().split(".")[:2])) < (6, 7),
    "kernel before 6.9": lambda: tuple(map(int, platform.release().split(".")[:2])) < (6, 9),
    "not x86-64": lambda: platform.machine() != "x86_64",
    "not arm64": lambda: platform.machine() != "aarch64",
}


class Skips:
    """The allowed skips and those that happened."""

    def __init__(self, text: str) -> None:
        """text: of the list. Raises ValueError for a line that is not `needs: ... | condition`."""
        self._conditions: dict[str, str] = {}
        self._seen: set[str] = set()
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            reason, bar, condition = (part.strip() for part in line.partition("|"))
            if not bar or not reason.startswith("needs:") or condition not in CONDITIONS:
                raise ValueError(f"skips.txt:{number}: not `needs: WHAT | CONDITION` with a known condition: {line!r}")
            self._conditions[reason] = condition

    def judge(self, reason: str) -> str:
        """Return why a skip with this reason is not allowed here, "" when it is."""
        self._seen.add(reason)
        if not reason.startswith("needs: "):
            return 'its reason does not begin with "needs: "'
        program = reason.removeprefix("needs: ")
        if program in peers.TOOLS:
            return "" if peers.find(program) is None else f"{program} is here"
        condition = self._conditions.get(reason)
        if condition is None:
            return "its reason is not in tests/skips.txt"
        return "" if CONDITIONS[condition]() else f'its condition "{condition}" does not hold on this machine'

    def stale(self) -> list[str]:
        """Return the entries whose condition holds here although no test skipped for them."""
        unused = {reason: condition for reason, condition in self._conditions.items() if reason not in self._seen}
        return sorted(reason for reason, condition in unused.items() if CONDITIONS[condition]())
