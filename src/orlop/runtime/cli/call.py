"""What every verb gets: the global flags, the store, the log."""

from __future__ import annotations

import os

from ...spec.errors import Invalid
from .log import Log
from .store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.runtime import Spec
    from ..planning.process import FilterCompiler
    from .flags import Flags

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Call:
    """One invocation. flags: the verb's; arguments: what stood behind them; criu: a program, "" for that on PATH.

    systemd: cgroups are made by it.
    """

    __slots__ = ("arguments", "criu", "flags", "log", "store", "systemd")

    def __init__(self, store: Store, log: Log, flags: Flags, arguments: list[str], criu: str = "") -> None:
        self.store = store
        self.criu = criu
        self.log = log
        self.flags = flags
        self.arguments = arguments
        self.systemd = False

    def container(self) -> str:
        """Return the only argument, a container's id."""
        if len(self.arguments) != 1:
            raise Invalid("run", "the command", f"it requires exactly 1 argument, {len(self.arguments)} given")
        return self.arguments[0]

    def bundle(self) -> str:
        """Return the bundle's directory, absolute."""
        return os.path.abspath(self.flags.text("bundle") or ".")

    def compile_filter(self, spec: Spec) -> FilterCompiler | None:
        """Return what compiles a container's seccomp profile, and keeps the program; None where there is none."""
        if spec.linux.seccomp is None:
            return None
        from ..seccomp_cache import ProgramCache

        return ProgramCache(f"{self.store.root}/.seccomp").compile


def write_pid_file(path: str, pid: int) -> None:
    """Write a pid where the caller wants it; it appears whole. What has the name meanwhile is not written through."""
    if not path:
        return
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}")
    try:
        fd = os.open(temporary, _NEW, 0o666)
    except FileExistsError:  # of one who was killed, or a link that somebody planted
        os.unlink(temporary)
        fd = os.open(temporary, _NEW, 0o666)
    try:
        os.write(fd, str(pid).encode())
    finally:
        os.close(fd)
    os.rename(temporary, path)
