"""What docker's `POST /containers/create` asks for, as one of our requests: ports and networks."""

from __future__ import annotations

from typing import Any

import pytest

from orlop.frontends.docker import creation
from orlop.frontends.docker.door import parse_body
from orlop.spec.container import ContainerRequest
from orlop.spec.errors import Invalid
from orlop.spec.network import PortRequest


def requested(body: dict[str, Any]) -> ContainerRequest:
    return creation.container({"Image": "i", **body}, "", "")


def bindings(*ports: tuple[str, str, str]) -> dict[str, Any]:
    found: dict[str, list[dict[str, str]]] = {}
    for name, address, host in ports:
        found.setdefault(name, []).append({"HostIp": address, "HostPort": host})
    return {"HostConfig": {"PortBindings": found}}


def port(host: tuple[int, int], inside: tuple[int, int], protocol: str = "tcp", host_ip: str = "") -> PortRequest:
    return PortRequest(
        host_ip=host_ip, host_first=host[0], host_last=host[1], first=inside[0], last=inside[1], protocol=protocol
    )


def test_a_range_that_a_client_wrote_port_by_port_is_one_request() -> None:
    # docker's clients expand -p 20000-30000:... themselves; ten thousand requests took 47 s to be allocated.
    many = [(f"{number}/udp", "", str(number)) for number in range(20000, 30001)]
    assert requested(bindings(*many)).ports == (port((20000, 30000), (20000, 30000), "udp"),)
    moved = [(f"{number}/tcp", "", str(number + 8)) for number in (9, 10, 99, 100, 101)]
    assert requested(bindings(*moved)).ports == (port((17, 18), (9, 10)), port((107, 109), (99, 101)))


@pytest.mark.parametrize(
    ("names", "exposed"),
    [
        ([f"{number}/udp" for number in range(20000, 30001)], ("20000-30000/udp",)),
        (["79/tcp", "80/tcp", "80/udp", "81/udp", "81/tcp"], ("79-80/tcp", "80-81/udp", "81/tcp")),
        (["80", "81", "82/tcp"], ("80-81", "82/tcp")),
        (["81/tcp", "80/tcp", "10/tcp", "9/tcp"], ("81/tcp", "80/tcp", "10/tcp", "9/tcp")),
        (["8-10/tcp", "11/tcp", "x", "-1", "0/tcp"], ("8-10/tcp", "11/tcp", "x", "-1", "0/tcp")),
        (["99998/tcp", "99999/tcp", "100000/tcp", "\u0661/tcp"], ("99998-99999/tcp", "100000/tcp", "\u0661/tcp")),
        ([], ()),
    ],
)
def test_exposed_ports_that_follow_each_other_are_one(names: list[str], exposed: tuple[str, ...]) -> None:
    assert requested({"Config": {}, "ExposedPorts": {name: {} for name in names}}).exposed_ports == exposed


@pytest.mark.parametrize(
    "ports",
    [
        [("80/tcp", "", "8080"), ("81/udp", "", "8081")],
        [("80/tcp", "", "8080"), ("81/tcp", "127.0.0.1", "8081")],
        [("80/tcp", "", "8081"), ("81/tcp", "", "8080")],
        [("80/tcp", "", "8080"), ("81/tcp", "", "8082")],
        [("80/tcp", "", ""), ("81/tcp", "", "")],
        [("80/tcp", "", ""), ("81/tcp", "", "1")],
        [("80/tcp", "", "8080-8090"), ("81/tcp", "", "8091")],
        [("80/tcp", "", "8079"), ("81/tcp", "", "8080-8090")],
        [("80/tcp", "", "8080"), ("80/tcp", "", "8081")],
    ],
    ids=str,
)
def test_what_only_looks_like_a_range_stays_apart(ports: list[tuple[str, str, str]]) -> None:
    assert len(requested(bindings(*ports)).ports) == len(ports)


def test_addresses_of_the_link_are_asked_for() -> None:
    config = {"EndpointsConfig": {"n": {"IPAMConfig": {"LinkLocalIPs": ["169.254.7.7"]}}}}
    found = requested({"HostConfig": {"NetworkMode": "n"}, "NetworkingConfig": config})
    assert [endpoint.link_local for endpoint in found.endpoints] == [("169.254.7.7",)]


@pytest.mark.parametrize("mode", ["host", "container:web"])
def test_a_network_of_somebody_else_has_its_own_mac_address(mode: str) -> None:
    config = {"EndpointsConfig": {mode: {"MacAddress": "02:00:00:00:00:01"}}}
    with pytest.raises(Invalid, match="mac-address and the network mode"):
        requested({"HostConfig": {"NetworkMode": mode}, "NetworkingConfig": config})


@pytest.mark.parametrize("body", [{"StopTimeout": 2**64}, {"HostConfig": {"Memory": -(2**63) - 1}}])
def test_a_number_that_no_record_holds_is_refused(body: dict[str, Any]) -> None:
    """Red: the container is made, and then neither starts nor goes: its record is not read again."""
    with pytest.raises(Invalid, match="64 bits"):
        requested(body)


@pytest.mark.parametrize("options", ["noexec", ["noexec"], [[1]], [[]], [["size", "1m", "x"]], [[{}]]], ids=str)
def test_options_of_a_tmpfs_are_lists_of_words(options: object) -> None:
    mount = {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Options": options}}
    with pytest.raises(Invalid, match="Options"):
        requested({"HostConfig": {"Mounts": [mount]}})


def test_a_body_has_no_nul() -> None:
    """Red: as with the number; "\\\\u0000" behind another backslash is six letters."""
    for document in (b'{"Labels":{"a":"\\u0000"}}', b'{"Labels":{"\\u0000":"a"}}', b'{"Cmd":["a",["\\u0000"]]}'):
        with pytest.raises(Invalid, match="NUL"):
            parse_body(document)
    assert parse_body(b'{"Cmd":["\\\\u0000"]}') == {"Cmd": ["\\u0000"]}
