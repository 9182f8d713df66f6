"""Who asks for what is being done: known to the doors, told by `why`. One for each thread that serves a request."""

from __future__ import annotations

import threading

_LENGTH_MAX = 32
_thread = threading.local()


def note(pid: int, uid: int) -> None:
    """Say for whom this thread works from now on: the process at the other end of a unix socket; pid 0 for nobody."""
    _thread.known = (pid, uid) if pid else None


def describe() -> str:
    """Return "uid 0, process 123 (docker)", "" when nobody is known."""
    known: tuple[int, int] | None = getattr(_thread, "known", None)
    if known is None:
        return ""
    pid, uid = known
    try:
        with open(f"/proc/{pid}/comm", "rb", buffering=0) as file:
            name = file.read(_LENGTH_MAX).decode(errors="replace").strip()
    except OSError:
        return f"uid {uid}"  # it has not waited for the answer
    return f"uid {uid}, process {pid} ({name})" if name.isprintable() else f"uid {uid}, process {pid}"
