"""The verb `login`: whether a registry takes a user's password, and what to keep instead of it."""

from __future__ import annotations

from ...image.registry import Patience, Repository
from ...image.registry.login import prove
from ...spec.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.registry import Credentials
    from ..engine import Engine


def login(engine: Engine, registry: str, credentials: Credentials) -> dict[str, object]:
    """Return {"identity_token"}: what the registry gives instead of the password, or "". Raises Denied, Unavailable."""
    place: Repository = engine.registries.to_pull(Reference.parse(f"{registry}/any/name"), credentials)[-1]
    return {"identity_token": prove(place, credentials, Patience())}
