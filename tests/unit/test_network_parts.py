"""Subnets, pools, ports, resolv.conf and docker's grammar of -p and --network: all that needs no kernel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.engine.networks import ports
from orlop.frontends.cli import networking
from orlop.frontends.cli.flags import BadValue
from orlop.network import hostports, pools, resolver, subnet
from orlop.spec.container import ContainerRequest
from orlop.spec.errors import Conflict, Invalid, OrlopError, Unavailable
from orlop.spec.network import PortRequest, Published

# -- subnets --------------------------------------------------------------------------------------------------------


def test_a_subnet_is_a_range() -> None:
    found = subnet.parse("10.1.2.3/24")
    assert (str(found), found.size, subnet.text(found.last, 32)) == ("10.1.2.0/24", 256, "10.1.2.255")
    assert found.contains("10.1.2.255")
    assert not found.contains("fd00::1")
    assert found.overlaps(subnet.parse("10.0.0.0/8"))
    assert not found.overlaps(subnet.parse("10.1.3.0/24"))
    assert str(subnet.parse("fd00::7/64")) == "fd00::/64"


@pytest.mark.parametrize(
    "text", ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0/24", "fd00::/129", "x/8", "1.2.3.4/008a"]
)
def test_what_is_no_subnet_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid"):
        subnet.parse(text)


def test_a_free_subnet_keeps_away_from_routes() -> None:
    taken = [subnet.parse(text) for text in ("10.89.0.0/24", "10.89.2.0/23", "0.0.0.0/1", "128.0.0.0/1", "0.0.0.0/0")]
    assert str(pools.free_subnet(taken)) == "10.89.1.0/24"
    assert str(pools.free_subnet(taken, pools.DEFAULT_BRIDGE)) == "10.88.0.0/16"
    assert str(pools.free_subnet([subnet.parse("10.0.0.0/8")], pools.DEFAULT_BRIDGE)) == "172.16.0.0/24"
    assert str(pools.free_subnet([subnet.parse("10.0.0.0/8"), subnet.parse("172.16.0.0/12")])) == "192.168.0.0/24"


def test_without_a_free_subnet_the_error_names_what_is_in_the_way() -> None:
    taken = [subnet.parse(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
    with pytest.raises(Unavailable, match=r"in the way are 10\.0\.0\.0/8, 172\.16\.0\.0/12, 192\.168\.0\.0/16"):
        pools.free_subnet(taken)


def test_pools_are_those_of_a_file() -> None:
    places = pools.read([{"base": "172.30.0.0/16", "size": 26}, {"base": "10.7.7.0/24", "size": 24}], "pools.json")
    assert str(pools.free_subnet([subnet.parse("172.30.0.0/26")], "", places)) == "172.30.0.64/26"
    assert str(pools.free_subnet([subnet.parse("172.30.0.0/16")], "", places)) == "10.7.7.0/24"
    with pytest.raises(Unavailable, match="fully subnetted"):
        pools.free_subnet([subnet.parse("172.16.0.0/12"), subnet.parse("10.0.0.0/8")], "", places)


@pytest.mark.parametrize(
    "document",
    [
        None, {}, [], "x", [1], [{}], [{"base": "10.0.0.0/8"}], [{"base": 5, "size": 24}],
        [{"base": "x/8", "size": 24}], [{"base": "10.0.0.0/8", "size": True}], [{"base": "10.0.0.0/8", "size": 24.0}],
        [{"base": "10.0.0.0/8", "size": 7}], [{"base": "10.0.0.0/16", "size": 15}],
        [{"base": "10.0.0.0/8", "size": 30}],
        [{"base": "fd00::/48", "size": 64}], [{"base": "127.0.0.0/8", "size": 24}], [{"base": "0.0.0.0/0", "size": 24}],
        [{"base": "10.0.0.0/8", "size": 24, "more": 1}], [{"base": "10.0.0.0/8", "size": 24}] * 65,
    ],
    ids=str,
)  # fmt: skip
def test_what_are_no_pools_is_refused(document: object) -> None:
    with pytest.raises(Invalid) as caught:
        pools.read(document, "pools.json")
    assert "172.30.0.0/16" in caught.value.hint


def test_five_hundred_networks_find_room() -> None:
    taken: list[subnet.Subnet] = []
    for _ in range(500):
        found = pools.free_subnet(taken)
        assert not any(found.overlaps(other) for other in taken)
        taken.append(found)


def test_addresses_go_round_and_end() -> None:
    small = subnet.parse("10.0.0.0/29")
    taken = {subnet.number("10.0.0.1")[0]}
    given = []
    after = 0
    while (found := pools.free_address(small, None, taken, after)) is not None:
        given.append(found)
        after = subnet.number(found)[0]
        taken.add(after)
    assert given == [f"10.0.0.{number}" for number in range(2, 7)]
    taken.discard(subnet.number("10.0.0.3")[0])
    assert pools.free_address(small, None, taken, after) == "10.0.0.3"
    part = subnet.parse("10.0.0.4/30")
    assert pools.free_address(small, part, set()) == "10.0.0.4"


@pytest.mark.parametrize(
    "text",
    ["127.0.0.0/8", "224.0.0.0/8", "10.0.0.0/31", "::/0", "ff00::/64", "::1/120", "fe80::/64", "::ffff:10.0.0.0/120"],
)
def test_subnets_that_no_network_can_have(text: str) -> None:
    with pytest.raises(Invalid):
        pools.check(subnet.parse(text), [], "network x")


def test_a_subnet_has_one_network() -> None:
    with pytest.raises(Conflict, match="Pool overlaps with other one on this address space"):
        pools.check(subnet.parse("10.0.1.0/24"), [(subnet.parse("10.0.0.0/16"), "web")], "network x")


# -- ports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", ("", 0, 0, 80, 80, "tcp")),
        ("8080:80", ("", 8080, 8080, 80, 80, "tcp")),
        ("8080:80/UDP", ("", 8080, 8080, 80, 80, "udp")),
        ("127.0.0.1:8080:80/sctp", ("127.0.0.1", 8080, 8080, 80, 80, "sctp")),
        ("127.0.0.1::80", ("127.0.0.1", 0, 0, 80, 80, "tcp")),
        ("[::1]:8080:80", ("::1", 8080, 8080, 80, 80, "tcp")),
        ("[::]::80", ("::", 0, 0, 80, 80, "tcp")),
        ("8000-8010:80-90", ("", 8000, 8010, 80, 90, "tcp")),
        ("8000-8010:80", ("", 8000, 8010, 80, 80, "tcp")),
        ("80-90", ("", 0, 0, 80, 90, "tcp")),
        ("::1:8080:80", ("::1", 8080, 8080, 80, 80, "tcp")),
        ("published=8080,target=80", ("", 8080, 8080, 80, 80, "tcp")),
        ("target=80-90,protocol=udp,mode=ingress", ("", 0, 0, 80, 90, "udp")),
    ],
)
def test_dockers_grammar_of_ports(text: str, expected: tuple[object, ...]) -> None:
    found = networking.parse_port(text)
    assert (found.host_ip, found.host_first, found.host_last, found.first, found.last, found.protocol) == expected


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "no port specified"),
        ("8080:", "no port specified"),
        ("x", "invalid containerPort: x"),
        ("x:80", "invalid hostPort: x"),
        ("80:65536", "invalid containerPort: 65536"),
        ("0", "invalid containerPort: 0"),
        ("80/icmp", "invalid proto: icmp"),
        ("90-80:80", "invalid hostPort: 90-80"),
        ("80-90:8080-8082", "invalid ranges specified for container and host Ports"),
        ("300.1.1.1:80:80", "invalid IP address: 300.1.1.1"),
        ("[::1:80:80", "invalid port specification"),
        ("\uff11:80", "invalid hostPort"),
        ("published=8080", "no port specified"),
        ("target=80,x", "invalid publish opts format"),
        ("target=80,mode=nosuch", "invalid field of a port"),
    ],
)
def test_what_is_no_port_is_refused_in_dockers_words(text: str, cause: str) -> None:
    with pytest.raises(BadValue, match=cause.replace("(", r"\(")):
        networking.parse_port(text)


@given(st.text(max_size=30))
def test_any_text_is_a_port_or_refused(text: str) -> None:
    for parse in (networking.parse_port, networking.parse_network):
        try:
            parse(text)
        except BadValue:
            pass


def test_the_long_form_of_network() -> None:
    found = networking.parse_network(
        "name=web,alias=a,alias=b,ip=10.0.0.7,mac-address=02:00:00:00:00:01,gw-priority=-3,driver-opt=k=v"
    )
    assert found.name == "web"
    assert found.fields == {
        "aliases": ("a", "b"),
        "options": {"k": "v"},
        "ipv4": "10.0.0.7",
        "mac_address": "02:00:00:00:00:01",
        "gw_priority": -3,
    }
    for text, cause in (
        ("alias=x", "name/id is not specified"),
        ("name=x,y=z", "invalid field key y"),
        ("name=x,gw-priority=y", "gw-priority"),
    ):
        with pytest.raises(BadValue, match=cause):
            networking.parse_network(text)


def allocate(*requests: PortRequest, held: tuple[Published, ...] = ()) -> tuple[Published, ...]:
    return ports.allocate(requests, held, "", "container x")


def test_free_ports_are_chosen_and_taken_ones_refused() -> None:
    low, high = hostports.local_range()
    (chosen,) = allocate(PortRequest(first=80, last=82))
    assert low <= chosen.host_first <= high
    assert chosen.count == 3
    (other,) = allocate(PortRequest(first=80, last=80), held=(chosen,))
    assert not chosen.host_first <= other.host_first < chosen.host_first + chosen.count
    held = (Published(host_first=8000, first=80, count=10),)
    with pytest.raises(Conflict, match=r"Bind for 0\.0\.0\.0:8005 failed: port is already allocated"):
        allocate(PortRequest(host_first=8005, host_last=8005, first=1, last=1), held=held)
    assert allocate(PortRequest(host_first=8005, host_last=8005, first=1, last=1, protocol="udp"), held=held)
    (found,) = allocate(PortRequest(host_first=8008, host_last=8012, first=80, last=80), held=held)
    assert found.host_first == 8010


def test_addresses_of_one_port_may_have_different_owners() -> None:
    held = (Published(host_ip="192.0.2.1", host_first=8000, first=80),)
    one = PortRequest(host_ip="192.0.2.2", host_first=8000, host_last=8000, first=80, last=80)
    assert allocate(one, held=held)
    with pytest.raises(Conflict):
        allocate(one.replace(host_ip=""), held=held)


def test_all_exposed_ports_are_published_once() -> None:
    request = ContainerRequest(
        publish_all=True, ports=(PortRequest(host_first=8080, host_last=8080, first=80, last=80),)
    )
    found = ports.wanted(request, ("80/tcp", "80/udp", "90-91"))
    assert [(port.first, port.protocol, port.host_first) for port in found] == [
        (80, "tcp", 8080),
        (80, "udp", 0),
        (90, "tcp", 0),
        (91, "tcp", 0),
    ]


def test_too_many_ports_are_refused() -> None:
    everything = PortRequest(host_first=1, host_last=65535, first=1, last=65535)
    with pytest.raises(Invalid, match="more than"):
        allocate(everything, everything.replace(protocol="udp"))


@given(st.text(max_size=20))
def test_any_text_is_an_exposed_port_or_refused(text: str) -> None:
    try:
        ports.parse_exposed(text)
    except (ValueError, OrlopError):
        pass


# -- resolv.conf ----------------------------------------------------------------------------------------------------


def test_a_resolv_conf_comes_apart_and_together() -> None:
    text = b"# made by hand\nnameserver 127.0.0.53\nnameserver 192.0.2.53 ; old\nnameserver nonsense\nsearch a b\n"
    found = resolver.parse(text + b"options ndots:2 edns0\nsearch example.org\nwhat is this\n\xff\xfe\n")
    assert (found.servers, found.search) == (("127.0.0.53", "192.0.2.53"), ("example.org",))
    assert found.without_loopback().render() == b"nameserver 192.0.2.53\nsearch example.org\noptions ndots:2 edns0\n"
    assert found.overridden(("::1",), (".",), ()).without_loopback().servers == resolver.FALLBACK


@given(st.binary(max_size=300))
def test_any_resolv_conf_is_read(data: bytes) -> None:
    again = resolver.parse(resolver.parse(data).render())
    assert again.servers == resolver.parse(data).servers
