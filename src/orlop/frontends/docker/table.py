"""The whole table of routes: every noun's, in the order in which they are looked through."""

from __future__ import annotations

from ..buildkit import routes as buildkit
from . import (
    archives,
    build,
    containers,
    execs,
    images,
    metrics,
    networks,
    registries,
    swarm,
    system,
    volumes,
)
from .door import Table

NOUNS = (containers, build, buildkit, archives, execs, registries, images, volumes, networks, swarm, metrics, system)
TABLE = Table([route for noun in NOUNS for route in noun.ROUTES])
