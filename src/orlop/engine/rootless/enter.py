"""The way of an ordinary user's engine into the user's own namespaces."""

from __future__ import annotations

import os

from ...linux import capability, process
from ...linux.netlink import namespace
from ...spec.errors import Unavailable
from . import keeper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.paths import Paths

_NEEDED = capability.mask(["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SETUID", "CAP_CHOWN"])


def is_needed() -> bool:
    """Tell whether this process lacks what an engine needs of root, and so needs namespaces of its own."""
    effective, _, _ = capability.get_sets()
    return effective & _NEEDED != _NEEDED


def enter(run: str) -> str:
    """Move this process into the user's namespaces, made if nobody holds them; return a warning, "" for none.

    run: $ORLOP_RUN, which exists. For a process with one thread: the machine's network namespace keeps one thread
    (`namespace.outside`). Raises Unavailable, with what to do about it.
    """
    warning = ""
    found = keeper.find(run)
    if found is None:
        ids = keeper.allowed_ids(user_name(os.geteuid()), os.geteuid(), os.getegid())
        warning = ids.warning
        found = keeper.make(run, ids)
    _, pidfd = found
    try:
        process.setns(pidfd, process.CLONE_NEWUSER | process.CLONE_NEWNS)
        namespace.leave(pidfd)
    except OSError as failure:
        raise Unavailable("join", "your namespaces", failure.strerror or str(failure)) from None
    finally:
        os.close(pidfd)
    return warning


def user_name(uid: int) -> str:
    """Return a user's name, or its number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def leave(paths: Paths) -> None:
    """Let the namespaces go if no container of these directories runs in them. The engine is closed by now."""
    from ..containers import state
    from ..containers.names import is_id

    containers = f"{paths.root}/containers"
    boot_id = process.boot_id()
    for name in os.listdir(containers) if os.path.isdir(containers) else ():
        if is_id(name) and state.observe(f"{containers}/{name}", boot_id).lives:
            return
    keeper.end(paths.run)
