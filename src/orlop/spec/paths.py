"""Where one engine keeps its data and its sockets. Nothing is made or checked here.

    ORLOP_ROOT  data     root: /var/lib/orlop   users: $XDG_DATA_HOME/orlop, or ~/.local/share/orlop
    ORLOP_RUN   sockets  root: /run/orlop       users: $XDG_RUNTIME_DIR/orlop, or /run/user/UID/orlop where that is the
                                                user's, or /tmp/orlop-UID

Two engines with different values of both live side by side and know nothing of each other.
"""

from __future__ import annotations

import os

from .errors import Invalid, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

ENGINE_SOCKET = "engine.sock"
DOCKER_SOCKET = "docker.sock"
ENGINE_LOCK = "engine.lock"
ENGINE_LOG = "engine.log"


class Paths:
    """root and run are absolute directories; ENGINE_LOG lies in root, the other two in run."""

    __slots__ = ("root", "run")

    def __init__(self, root: str, run: str) -> None:
        self.root = root
        self.run = run

    @property
    def engine_socket(self) -> str:
        return f"{self.run}/{ENGINE_SOCKET}"

    @property
    def docker_socket(self) -> str:
        return f"{self.run}/{DOCKER_SOCKET}"

    @property
    def engine_lock(self) -> str:
        return f"{self.run}/{ENGINE_LOCK}"

    @property
    def engine_log(self) -> str:
        return f"{self.root}/{ENGINE_LOG}"


def from_environment(environ: Mapping[str, str], uid: int) -> Paths:
    """Return this user's directories. Raises Invalid for a relative path, Unavailable when there is no default."""
    root = data_directory(environ, uid)
    run = _given(environ, "ORLOP_RUN") or (run_of_user(environ, uid) if uid else "/run/orlop")
    return Paths(root, run)


def data_directory(environ: Mapping[str, str], uid: int) -> str:
    """Return where this user's data goes. Raises as `from_environment` does."""
    return _given(environ, "ORLOP_ROOT") or (_root_of_user(environ) if uid else "/var/lib/orlop")


def _given(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if value and not value.startswith("/"):
        raise Invalid(
            "use", f"{name}={value}", "it is not an absolute path", hint=f"set {name} to a path that begins with /"
        )
    return value.rstrip("/")


def _root_of_user(environ: Mapping[str, str]) -> str:
    # A relative XDG_DATA_HOME is to be ignored, says the XDG base directory specification.
    if (base := environ.get("XDG_DATA_HOME", "")).startswith("/"):
        return f"{base.rstrip('/')}/orlop"
    if (home := environ.get("HOME", "")).startswith("/"):
        return f"{home.rstrip('/')}/.local/share/orlop"
    raise Unavailable(
        "find",
        "the data directory",
        "neither XDG_DATA_HOME nor HOME is set",
        hint="set ORLOP_ROOT to a directory of yours",
        code="E1206",
    )


def run_of_user(environ: Mapping[str, str], uid: int) -> str:
    """Return where the sockets of an ordinary user go who names no place."""
    if (base := environ.get("XDG_RUNTIME_DIR", "")).startswith("/"):
        return f"{base.rstrip('/')}/orlop"
    # su(1) and cron(8) set no variable; the session of that user may be there all the same.
    base = f"/run/user/{uid}"
    try:
        if os.stat(base).st_uid == uid:
            return f"{base}/orlop"
    except OSError:
        pass
    # Short, for paths of sockets are. Whoever else is there first is an error (native.rundir) that says so.
    return f"/tmp/orlop-{uid}"
