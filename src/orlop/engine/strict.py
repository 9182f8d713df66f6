"""The security profile "strict": what containers get that don't ask for less (`orlop config security=strict`).

It says what a request leaves open: of root's engine a user namespace with ids of its own, no capability but
NET_BIND_SERVICE and those added by name, a root file system that can't be written, with a tmpfs where programs write.
What a request says by name stays; `--security-opt profile=default` takes one container out of it, `profile=strict` puts
one in. The record keeps what came of it, so a later change of the setting changes no container that is there.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager

from ..linux.path import read_file
from ..spec import jsonio
from ..spec.container import TmpfsRequest
from ..spec.errors import CommandFailed, Invalid, OrlopError, Unavailable, Unsupported
from .compile.namespaces import CONTAINER
from .compile.security import DEFAULT, PROFILE, PROFILES, STRICT, WRITABLE
from .containers.record import write_durably
from .userns import modes
from .userns.ranges import MAP_IDS, NESTING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..spec.container import ContainerRequest
    from .engine import Engine

FILE = "settings.json"
_ANEW = "remove it, then choose a profile anew: orlop config security=strict, or security=default"
SECURITY = "security"
BYTES_MAX = 4096
_OPTION = f"{PROFILE}="
_KEPT_CAPABILITY = "NET_BIND_SERVICE"  # what the "restricted" level of Kubernetes' Pod Security Standards leaves
_WRITABLE_PLACES = ("/tmp", "/run", "/var/tmp")  # as podman's --read-only-tmpfs
_NOT_FOUND = 127
_REFUSALS = tuple(map(os.strerror, (errno.EACCES, errno.EPERM, errno.EROFS)))
_OPT_OUT = "--security-opt profile=default makes one without"


def setting(engine: Engine) -> str:
    """Return the profile of this engine's new containers. Raises Invalid for a file that says something else."""
    path = f"{engine.paths.root}/{FILE}"
    try:
        text = read_file(path, BYTES_MAX)
    except FileNotFoundError:
        return DEFAULT
    except OSError as wrong:
        raise Unavailable("read", path, wrong.strerror or str(wrong), hint=_ANEW) from None
    try:
        found = jsonio.parse_object(text, path).get(SECURITY, DEFAULT)
    except Invalid as wrong:
        wrong.hint = _ANEW
        raise
    if found not in PROFILES:
        cause = f"there is no security profile {str(found)[:40]!r}"
        raise Invalid("read", path, cause, hint=f"write one: orlop config {SECURITY}={STRICT}")
    return str(found)


def choose(engine: Engine, profile: str) -> None:
    """Set the profile of this engine's new containers, durably. Raises Invalid for one that there is not."""
    if profile not in PROFILES:
        cause = f"there is no security profile {profile[:40]!r}"
        raise Invalid("set", SECURITY, cause, hint=f"known are {' and '.join(PROFILES)}", code="E0207")
    write_durably(f"{engine.paths.root}/{FILE}", f"{jsonio.dump({SECURITY: profile}).decode().strip()}\n".encode())


def ids_by_default(engine: Engine) -> str:
    """Return the mode of the user namespace of containers that name none, "" for the engine's own."""
    if engine.id_ranges.default or setting(engine) != STRICT or not engine.host.runtime.initial_user_namespace:
        return engine.id_ranges.default
    return modes.AUTO


def is_asked(request: ContainerRequest) -> bool:
    """Return whether a request, or that of a record, is under the profile."""
    return profile_of(request) == STRICT


def profile_of(request: ContainerRequest) -> str:
    """Return the profile that a request names, "" for none."""
    named = [option for option in request.security_opt if option.startswith(_OPTION)]
    return named[-1].removeprefix(_OPTION) if named else ""


def applied(engine: Engine, request: ContainerRequest) -> ContainerRequest:
    """Return the request with what the profile says to what it leaves open. One that was so before stays as it is."""
    named = profile_of(request)
    if request.privileged or (named or setting(engine)) != STRICT:
        return request
    if not named:
        request = request.replace(security_opt=(*request.security_opt, f"{_OPTION}{STRICT}"))
    if not request.userns and not engine.id_ranges.default and engine.host.runtime.initial_user_namespace:
        # What joins a container's namespaces has power over them in its user namespace alone.
        lender = next((mode for mode in (request.pid, request.ipc) if mode.startswith(CONTAINER)), "")
        request = request.replace(userns=lender or modes.AUTO)
    if NESTING in request.security_opt:
        return request  # an engine lives in there
    add, drop, own = map(_bare, (request.cap_add, request.cap_drop, engine.host.capabilities))
    if "ALL" not in add | drop:
        kept = (_KEPT_CAPABILITY,) if _KEPT_CAPABILITY in own - add - drop else ()
        request = request.replace(cap_add=(*request.cap_add, *kept), cap_drop=(*request.cap_drop, "ALL"))
    return request if WRITABLE in request.security_opt or request.read_only else _read_only(request)


def _bare(names: Iterable[str]) -> set[str]:
    return {name.strip().upper().removeprefix("CAP_") for name in names}


def _read_only(request: ContainerRequest) -> ContainerRequest:
    mounted = (request.binds, request.tmpfs, request.mounts)
    taken = {os.path.normpath(entry.target) for entries in mounted for entry in entries}
    places = tuple(TmpfsRequest(target=place) for place in _WRITABLE_PLACES if place not in taken)
    return request.replace(read_only=True, tmpfs=(*request.tmpfs, *places))


def again(engine: Engine, request: ContainerRequest) -> ContainerRequest:
    """Return what makes a container of a record's request once more as it is, whatever the setting has become."""
    if request.privileged or profile_of(request) or setting(engine) == DEFAULT:
        return request
    return request.replace(security_opt=(*request.security_opt, f"{_OPTION}{DEFAULT}"))


def words(request: ContainerRequest) -> str:
    """Return in one clause what the profile did to a request that it was applied to."""
    said = [
        *(("a user namespace of its own",) if request.userns not in ("", "host") else ()),
        *(("few capabilities",) if "ALL" in request.cap_drop else ()),
        *(("a root file system that can't be written",) if request.read_only else ()),
    ]
    return f"it has the security profile {STRICT}: {', '.join(said)}" if said else ""


@contextmanager
def told(request: ContainerRequest) -> Iterator[None]:
    """Let an error that the profile may be the reason of say so: of a request that it was applied to, or a record's."""
    try:
        yield
    except OrlopError as wrong:
        if is_asked(request) and _may_cause(wrong) and (clause := words(request)):
            wrong.hint = "; ".join(filter(None, (wrong.hint, f"{clause}; {_OPT_OUT}")))
        raise


def _may_cause(wrong: OrlopError) -> bool:
    if isinstance(wrong, CommandFailed):
        return wrong.exit_code != _NOT_FOUND
    ids = wrong.verb == MAP_IDS
    return isinstance(wrong, Unsupported) or ids or any(refusal in wrong.cause for refusal in _REFUSALS)
