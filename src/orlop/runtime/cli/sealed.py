"""The entry of `orlop-runtime`: calls that enter a container first execute a sealed copy of the interpreter.

What runs here until its execve can be reached from inside as /proc/PID/exe, and so can what an image's
`#!/proc/self/exe` starts. The interpreter's own file must not be found there (CVE-2019-5736). Mostly
`orlop.runtime.sealer` has done that before; here it is made sure of. Nothing is imported before that need not be.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_ENTERING = frozenset(("create", "run", "exec", "restore"))


def entry() -> None:
    """Run the command line and exit."""
    if needs_seal(sys.argv[1:]):
        from ...linux import executable

        if not executable.is_sealed():
            from .. import sealer

            sealer.PROGRAM.keep()
        try:
            executable.execute_sealed("orlop-runtime")
        except OSError as failure:
            sys.exit(f"cannot execute the interpreter from sealed memory: {failure.strerror} (see vm.memfd_noexec)")
    from .main import entry as main_entry

    main_entry()


def needs_seal(argv: Sequence[str]) -> bool:
    """Return whether a call may put a process into a container: one too many costs time, one too few is an escape."""
    return not _ENTERING.isdisjoint(argv)
