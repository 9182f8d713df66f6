"""The rules of `--landlock`, as text and as a record. Pure.

    ro:PATH   read, list and execute          rw:PATH   that, and write, make and remove
    r:PATH    read and list                   w:PATH    read, write, make and remove, but not execute
    bind:PORT, connect:PORT     TCP; "none" for no port at all
    scope:abstract, scope:signal    no abstract socket, no signal that leaves the container's own processes

Several stand in one text with commas between. A path stands for itself and all below it; what no rule names is denied,
of the kinds (files, bind, connect) that a rule was given for. With rules for files the devices that every program
expects stay usable (`DEVICES`). A spec carries the text in the annotation `io.orlop.landlock`; an exec obeys it too.
"""

from __future__ import annotations

from ..linux import landlock
from ..spec.errors import Invalid, Unsupported
from ..spec.record import Record

ANNOTATION = "io.orlop.landlock"
RULES_MAX = 256
PORT_MAX = 65535
# As config-linux.md has them in every container; programs take them for given.
DEVICES = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "pts"))
_READ = landlock.ACCESS_FS_READ_FILE | landlock.ACCESS_FS_READ_DIR
FILES = {
    "r": _READ,
    "ro": _READ | landlock.ACCESS_FS_EXECUTE,
    "w": landlock.ACCESS_FS_ALL & ~landlock.ACCESS_FS_EXECUTE,
    "rw": landlock.ACCESS_FS_ALL,
}
_PORTS = {"bind": landlock.ACCESS_NET_BIND_TCP, "connect": landlock.ACCESS_NET_CONNECT_TCP}
_SCOPES = {"abstract": landlock.SCOPE_ABSTRACT_UNIX_SOCKET, "signal": landlock.SCOPE_SIGNAL}
_HINT = "write ro:/,rw:/tmp, for instance; also r:, w:, bind:PORT, connect:PORT, scope:abstract and scope:signal"


class Rules(Record):
    """paths: (path, accesses). ports: (port, accesses). access_net, scoped: what is restricted at all."""

    paths: tuple[tuple[str, int], ...] = ()
    ports: tuple[tuple[int, int], ...] = ()
    access_net: int = 0
    scoped: int = 0

    @property
    def access_fs(self) -> int:
        return landlock.ACCESS_FS_ALL if self.paths else 0

    @property
    def needs(self) -> int:
        """The version of Landlock that it takes to hold all of this."""
        if self.scoped:
            return landlock.VERSION_SCOPE
        return landlock.VERSION_TCP if self.access_net else landlock.VERSION_TRUNCATE


def parse(text: str) -> Rules:
    """Return the rules of a text. Raises Invalid."""
    words = text.split(",")
    if len(words) > RULES_MAX:
        raise Invalid("restrict", "the container's process", f"there are more than {RULES_MAX} rules of Landlock")
    paths: list[tuple[str, int]] = []
    ports: list[tuple[int, int]] = []
    access_net = scoped = 0
    for word in words:
        kind, _, value = word.partition(":")
        if kind in FILES and value.startswith("/") and "\0" not in value:
            paths.append((value, FILES[kind]))
        elif kind in _PORTS and value == "none":
            access_net |= _PORTS[kind]
        elif kind in _PORTS and _is_port(value):
            access_net |= _PORTS[kind]
            ports.append((int(value), _PORTS[kind]))
        elif kind == "scope" and value in _SCOPES:
            scoped |= _SCOPES[value]
        else:
            cause = f"{word[:100]!r} is no rule of Landlock"
            raise Invalid("restrict", "the container's process", cause, hint=_HINT)
    return Rules(paths=tuple(paths), ports=tuple(ports), access_net=access_net, scoped=scoped)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= PORT_MAX


def check(rules: Rules, version: int) -> None:
    """Raise Unsupported where the kernel's Landlock can't hold all of the rules: part of a wall is none (I3)."""
    if version >= rules.needs:
        return
    has = f"has version {version} of Landlock, and these rules need {rules.needs}" if version else "has no Landlock"
    raise Unsupported(
        "restrict", "the container's process", f"this kernel {has}", hint="orlop doctor tells; or leave --landlock away"
    )
