"""`--link` on the default bridge: other containers' names in /etc/hosts, and where they are and what they were given in
variables, as docker has kept it for old programs (moby, daemon/links/links.go).
"""

from __future__ import annotations

from ...spec.errors import Conflict, Invalid, OrlopError
from . import ports
from .store import DEFAULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..containers.record import ContainerRecord
    from ..engine import Engine

_NOT_TOLD = ("HOME", "PATH")  # of what a linked container was given: said to every container by itself


def split(link: str) -> tuple[str, str]:
    """Return (container, alias) of "container" or "container:alias". Raises ValueError."""
    name, colon, alias = link.partition(":")
    if not name or (colon and not alias) or ":" in alias or not alias.isprintable() or " " in alias:
        raise ValueError(f"bad format for links: {link[:100]}")
    return name, alias or name


def check(engine: Engine, links: tuple[str, ...], subject: str, *, there: bool = True) -> None:
    """Raise Invalid for a link that is none, and, if it must be there, for one that leads to nobody.

    See `check_default` for those of the default bridge.
    """
    for link in links:
        try:
            name, _ = split(link)
            if there:
                engine.records.find(name)
        except (ValueError, OrlopError) as wrong:
            cause = str(wrong) if isinstance(wrong, ValueError) else f"could not get container for {name}"
            raise Invalid("create", subject, cause, hint="write it as --link CONTAINER:ALIAS") from None


def check_default(engine: Engine, links: tuple[str, ...], subject: str) -> None:
    """Raise Invalid for a link to a container that is not on the default bridge. They have passed `check`."""
    from .attach import wishes

    for link in links:
        other = engine.records.find(split(link)[0])
        if all(wish.network != DEFAULT for wish in wishes(other)):
            cause = f"Cannot link to /{other.name}, as it does not belong to the default network"
            raise Invalid("create", subject, cause, hint="put both into a network of your own: it has names")


def others(engine: Engine, links: Iterable[str]) -> Iterator[tuple[str, ContainerRecord]]:
    """Yield (alias, container) of each link whose container is still there."""
    for link in links:
        name, alias = split(link)
        try:
            yield alias, engine.records.find(name)
        except OrlopError:
            continue  # it was removed


def targets(engine: Engine, links: Iterable[str]) -> dict[str, str]:
    """Return by alias whom links of a network lead to: a container's id, or the name of one that is not there yet."""
    known = {alias.lower(): other.id for alias, other in others(engine, links)}
    return {alias.lower(): name.lower() for name, alias in map(split, links)} | known


def host_lines(engine: Engine, record: ContainerRecord) -> list[str]:
    """Return the lines of /etc/hosts for a container's links; one to a container that does not run is left out."""
    lines = []
    for alias, other in others(engine, record.request.links):
        held = engine.networks.attachments.get(other.id)
        for endpoint in held.endpoints if held else ():
            names = dict.fromkeys((alias, other.config.hostname, other.name))
            lines += [f"{address}\t{' '.join(names)}" for address in (endpoint.ipv4, endpoint.ipv6) if address]
    return lines


def environment(engine: Engine, record: ContainerRecord, *, starting: bool = False) -> tuple[str, ...]:
    """Return the variables for a container's links. One that leads nowhere has none.

    starting: raise Conflict, in docker's words, for a link to a container that does not run.
    """
    from .attach import wishes

    found: list[str] = []
    if not record.request.links or all(wish.network != DEFAULT for wish in wishes(record)):
        return ()
    for alias, other in others(engine, record.request.links):
        address = _address(engine, other)
        if address:
            found += _variables(f"/{record.name}/{alias}", alias, address, other)
        elif starting:
            where = f"/{other.name} AS /{record.name}/{alias}"
            cause = f"Cannot link to a non running container: {where}"
            hint = f"start it first: orlop start {other.name}"
            if engine.observe(other.id).is_up:
                cause = f"container {other.id} not attached to default bridge network"
                hint = f"connect it: orlop network connect {DEFAULT} {other.name}"
            raise Conflict("start", record.subject, cause, hint=hint)
    return tuple(found)


def _address(engine: Engine, other: ContainerRecord) -> str:
    """Return where a container is on the default bridge, "" for one that does not run there."""
    held = engine.networks.attachments.get(other.id)
    if held is None or not engine.observe(other.id).is_up:
        return ""
    for endpoint in held.endpoints:
        network = engine.networks.store.get(endpoint.network_id)
        if network is not None and network.name == DEFAULT:
            return endpoint.ipv4 or endpoint.ipv6
    return ""


def _variables(name: str, alias: str, address: str, other: ContainerRecord) -> Iterator[str]:
    """Yield what is said of one link: its ports, ranges of them, its name, and the other container's environment."""
    alias = alias.upper().replace("-", "_")
    parts = (text.partition("/") for text in ports.exposed(other))
    exposed = [(protocol, int(number)) for number, _, protocol in parts]
    exposed.sort(key=lambda port: (port[0] != "tcp", port))

    def place(port: tuple[str, int]) -> str:
        return f"{port[0]}://{address}:{port[1]}"

    def prefix(port: tuple[str, int]) -> str:
        return f"{alias}_PORT_{port[1]}_{port[0].upper()}"

    if exposed:
        yield f"{alias}_PORT={place(exposed[0])}"
    for port in exposed:
        yield f"{prefix(port)}={place(port)}"
        yield f"{prefix(port)}_ADDR={address}"
        yield f"{prefix(port)}_PORT={port[1]}"
        yield f"{prefix(port)}_PROTO={port[0]}"
    for first, last in _ranges(exposed):
        yield f"{prefix(first)}_START={place(first)}"
        yield f"{prefix(first)}_PORT_START={first[1]}"
        yield f"{prefix(first)}_END={place(last)}"
        yield f"{prefix(first)}_PORT_END={last[1]}"
    yield f"{alias}_NAME={name}"
    for entry in other.config.env:
        if "=" in entry and entry.partition("=")[0] not in _NOT_TOLD:
            yield f"{alias}_ENV_{entry}"


def _ranges(exposed: Iterable[tuple[str, int]]) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """Yield (first, last) of several ports of a protocol one after the other."""
    found: list[list[tuple[str, int]]] = []
    for port in exposed:
        if found and found[-1][-1] == (port[0], port[1] - 1):
            found[-1].append(port)
        else:
            found.append([port])
    yield from ((each[0], each[-1]) for each in found if len(each) > 1)
