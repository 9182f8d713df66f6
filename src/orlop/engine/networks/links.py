"""`--link` on the default bridge: names of other containers in /etc/hosts, as docker has kept it for old programs."""

from __future__ import annotations

from ...spec.errors import Invalid, OrlopError
from .store import DEFAULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..containers.record import ContainerRecord
    from ..engine import Engine


def split(link: str) -> tuple[str, str]:
    """Return (container, alias) of "container" or "container:alias". Raises ValueError."""
    name, colon, alias = link.partition(":")
    if not name or (colon and not alias) or ":" in alias or not alias.isprintable() or " " in alias:
        raise ValueError(f"bad format for links: {link[:100]}")
    return name, alias or name


def check(engine: Engine, links: tuple[str, ...], subject: str) -> None:
    """Raise Invalid for a link that leads to nobody. See `check_default` for those of the default bridge."""
    for link in links:
        try:
            name, _ = split(link)
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


def host_lines(engine: Engine, record: ContainerRecord) -> list[str]:
    """Return the lines of /etc/hosts for a container's links; one to a container that does not run is left out."""
    lines = []
    for link in record.request.links:
        name, alias = split(link)
        try:
            other = engine.records.find(name)
        except OrlopError:
            continue
        held = engine.networks.attachments.get(other.id)
        for endpoint in held.endpoints if held else ():
            names = dict.fromkeys((alias, other.config.hostname, other.name))
            lines += [f"{address}\t{' '.join(names)}" for address in (endpoint.ipv4, endpoint.ipv6) if address]
    return lines
