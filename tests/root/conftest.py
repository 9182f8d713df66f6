"""What tests of networks have in common: the machine A that the private engine is on, its containers, a neighbour B."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from orlop.linux.netlink.rtnetlink import Hop
from support.boxes import Box
from support.engine import Environment
from support.netns import A, B, Netns, network, wire


@pytest.fixture
def host(orlop: Environment) -> Netns:
    """A."""
    assert orlop.net is not None
    return orlop.net


@pytest.fixture
def neighbour(host: Netns) -> Iterator[Netns]:
    """B, on a cable to A; it knows a way to A's containers."""
    with network() as other:
        wire(host, "up0", A, other, "up0", B, 24)
        other.route.add_route(("10.0.0.0", 8), Hop(A))
        yield other


@pytest.fixture
def run(orlop: Environment) -> Iterator[Callable[..., Box]]:
    """Start containers."""
    made: list[Box] = []

    def start(*args: str) -> Box:
        made.append(Box(orlop, *args))
        return made[-1]

    yield start
    for box in made:
        box.close()
