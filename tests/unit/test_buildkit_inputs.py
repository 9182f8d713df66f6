"""What a build takes of another through BuildKit's API: our images, and no graph of a client's own making."""

from __future__ import annotations

import pytest

from orlop.frontends.buildkit import inputs
from orlop.spec import protobuf
from orlop.spec.errors import Unsupported
from orlop.spec.protobuf import Message

IDENTITY = f"sha256:{'ab' * 32}"
OPTIONS = {"context:lower": "input:lower", "context:far": "https://example.org/x.tar", "target": "input:lower"}


def request(graph: Message) -> dict[int, list[int | bytes]]:
    return protobuf.decode(protobuf.encode(((13, ((1, "lower"), (2, graph))),)))


def source(name: str) -> Message:
    return ((1, protobuf.encode(((3, ((1, name),)),))),)


def test_our_image_comes_back() -> None:
    found = inputs.resolved(OPTIONS, request(inputs.definition(IDENTITY)))
    assert found == OPTIONS | {"context:lower": f"docker-image://{IDENTITY}"}


@pytest.mark.parametrize(
    "graph",
    [
        (),
        source("local://context"),
        source("docker-image://docker.io/library/debian:12"),
        source(f"docker-image://{IDENTITY}\n"),
        (*source(f"docker-image://{IDENTITY}"), *source("git://example.org")),
        ((1, protobuf.encode(((2, ((1, "an exec"),)),))),),
    ],
)
def test_other_graphs_are_refused(graph: Message) -> None:
    with pytest.raises(Unsupported, match=r"a graph of the client's own"):
        inputs.resolved(OPTIONS, request(graph))


def test_an_input_that_did_not_come_is_refused() -> None:
    with pytest.raises(Unsupported):
        inputs.resolved(OPTIONS, {})


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff", b"\x0a\x02\x0a\xff"])
def test_noise_is_an_error(data: bytes) -> None:
    with pytest.raises((ValueError, Unsupported)):
        inputs.resolved(OPTIONS, {13: [data]})
