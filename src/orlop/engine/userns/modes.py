"""What --userns asks for. Pure.

"" host           the engine's own user namespace
auto[:size=N]     ids of its own, of those that /etc/subuid gives to `orlop` or `containers`
remap[=USER]      USER's first 65536 ids, shared with whoever else asks for them (docker's --userns-remap)
container:NAME    that container's user namespace, while it runs
keep-id nomap     an ordinary user's (podman): their files would have to be copied, so they are refused for now
"""

from __future__ import annotations

from ...spec.errors import Invalid, Unsupported

SIZE_DEFAULT = 65536
SIZE_MAX = 2**31
REMAP_USER = "dockremap"
POOL_USERS = ("orlop", "containers")
HOST, AUTO, REMAP, CONTAINER = "host", "auto", "remap", "container"


class Mode:
    """kind: HOST, AUTO, REMAP or CONTAINER. size: of AUTO. user: of REMAP. container: its name or id."""

    __slots__ = ("container", "kind", "size", "user")

    def __init__(self, kind: str, size: int = SIZE_DEFAULT, user: str = "", container: str = "") -> None:
        self.kind = kind
        self.size = size
        self.user = user
        self.container = container


def parse(text: str, subject: str) -> Mode:
    """Return what a mode means. Raises Invalid with docker's text for one that there is not, Unsupported."""
    kind, _, options = text.partition("=" if text.startswith(REMAP) else ":")
    if text in ("", HOST):
        return Mode(HOST)
    if kind == AUTO:
        return Mode(AUTO, _size(options, text, subject))
    if kind == CONTAINER and options:
        return Mode(CONTAINER, container=options)
    if kind == REMAP:
        return Mode(REMAP, user=options if options not in ("", "default") else REMAP_USER)
    if kind in ("keep-id", "nomap"):
        cause = f"--userns {kind} needs a copy of every layer with other owners: an ordinary user can't map mounts"
        hint = "leave --userns away: root in the container is you, on disk and for the machine"
        raise Unsupported("create", subject, cause, hint=hint)
    hint = "known are host, auto, auto:size=N, remap=USER and container:NAME"
    raise Invalid("create", subject, f"invalid USER mode: {text[:100]}", hint=hint)


def _size(options: str, text: str, subject: str) -> int:
    if not options:
        return SIZE_DEFAULT
    name, _, value = options.partition("=")
    if name != "size" or not (value.isascii() and value.isdecimal() and 0 < len(value) <= 10):
        raise Invalid("create", subject, f"invalid USER mode: {text[:100]}", hint="write auto:size=65536")
    if not 0 < int(value) <= SIZE_MAX:
        raise Invalid("create", subject, f"invalid USER mode: {text[:100]}", hint=f"a size is 1 to {SIZE_MAX}")
    return int(value)
