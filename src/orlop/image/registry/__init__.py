"""Registries: who they are, how to get in, and what is asked of them. Nothing here touches the store but uploads."""

from .client import TRIES_ELSEWHERE, Canceled, Patience, Remote, Repository
from .hosts import Endpoint, Hosts
from .transport import Broken, Transport

__all__ = [
    "TRIES_ELSEWHERE",
    "Broken",
    "Canceled",
    "Endpoint",
    "Hosts",
    "Patience",
    "Remote",
    "Repository",
    "Transport",
]
