"""Work in the mount namespace of a container that runs.

A thread of its own enters it. The thread shares neither root nor working directory with the engine (unshare(2),
CLONE_FS) and ends when it is done. There it makes raw system calls only: no import, no codec, no lookup of a name by a
library (SEC-05), and every path is resolved by openat2(2) in the container's root (SEC-06, SEC-08).
"""

from __future__ import annotations

import threading

from ...linux import process
from ...spec.errors import Conflict, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

VISIT_S_MAX = 30.0


def inside(subject: str, init: int, work: Callable[[], None], *, verb: str) -> None:
    """Do work in the mount namespace of a process (a pidfd). verb, subject: what errors say was to be done to what.

    Raises what work raises, Conflict when the process has ended, Unavailable for what the kernel refuses or when a
    dead mount keeps the thread (which then stays behind).
    """
    outcome: list[BaseException | None] = []

    def enter() -> None:
        try:
            process.unshare(process.CLONE_FS)
            process.setns(init, process.CLONE_NEWNS)
            work()
            outcome.append(None)
        except BaseException as failure:
            outcome.append(failure)

    thread = threading.Thread(target=enter, name="mounts", daemon=True)
    thread.start()
    thread.join(VISIT_S_MAX)
    if not outcome:
        raise Unavailable(verb, subject, "a mount does not come to an end", hint="is its server dead?")
    failure = outcome[0]
    if isinstance(failure, ProcessLookupError):
        raise Conflict(verb, subject, "it has just ended", hint="try again")
    if isinstance(failure, OSError):
        cause = f"{failure.filename or 'the mount'}: {failure.strerror}"
        raise Unavailable(verb, subject, cause, hint="nothing was changed")
    if failure is not None:
        raise failure
