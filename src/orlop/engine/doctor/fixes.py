"""What findings propose, done. Each command is named before it runs; one that fails keeps no other from being tried."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .checks import Finding


def proposed(findings: Iterable[Finding]) -> list[tuple[str, ...]]:
    """Return the commands of all findings, each once."""
    return list(dict.fromkeys(command for finding in findings for command in finding.fix))


def apply(commands: Iterable[tuple[str, ...]], tell: Callable[[str], object]) -> int:
    """Run commands as root; return how many failed. tell: gets one line for each before it runs, and for a failure."""
    failed = 0
    for command in commands:
        tell(" ".join(command))
        try:
            pid = os.posix_spawnp(command[0], command, os.environ)
            _, status = os.waitpid(pid, 0)
            code = os.waitstatus_to_exitcode(status)
        except OSError as wrong:
            tell(f"  failed: {wrong.strerror}")
            failed += 1
            continue
        if code:
            tell(f"  failed: it ended with {code}")
            failed += 1
    return failed
