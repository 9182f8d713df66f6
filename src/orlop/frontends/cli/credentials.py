"""What a command gives the engine of who the user is."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.registry import Credentials
    from ..native.client import Engine


def for_places(engine: Engine, domain: str, path: str = "") -> Credentials:
    """Return what the user has for a repository, and for each mirror of its registry that the engine would ask."""
    from ...engine import credentials

    hosts = engine.call("registries.places", {"registry": domain})
    others = map(str, hosts if isinstance(hosts, list) else [])
    return credentials.for_places(domain, others, path)
