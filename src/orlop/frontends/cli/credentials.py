"""Who the user is at a registry."""

from __future__ import annotations

from ...spec.registry import ANONYMOUS, Credentials


def for_registry(domain: str) -> Credentials:
    return ANONYMOUS
