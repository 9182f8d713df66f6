"""rtnetlink and nftables against the kernel, judged by iproute2 and nft."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.linux.netlink import namespace, nftables, rtnetlink
from orlop.linux.netlink.nftables import IPV4, Batch, Element, Hook
from orlop.linux.netlink.rtnetlink import Hop, Rtnetlink
from support.netns import Netns, network

Peer = Callable[[str], Path]


@pytest.fixture
def net(peer: Peer) -> Iterator[Netns]:
    peer("ip"), peer("bridge"), peer("nft")
    with network() as made:
        yield made


def test_a_bridge_and_a_pair_into_another_namespace(net: Netns) -> None:
    net.route.add_link("orlop0", rtnetlink.bridge(), rtnetlink.address("02:42:00:00:00:01"))
    net.route.set_link(net.index("orlop0"), rtnetlink.mtu(1400))
    net.route.add_address(net.index("orlop0"), "10.88.0.1", 16)
    with network() as inner:
        net.route.add_link(
            "ve0", rtnetlink.veth("eth0", rtnetlink.in_namespace(inner.fd), rtnetlink.address("02:42:00:00:00:02"))
        )
        net.route.set_link(net.index("ve0"), rtnetlink.master(net.index("orlop0")), up=True)
        net.route.set_bridge_port(net.index("ve0"), isolated=True, hairpin=True)
        inner.route.set_link(inner.index("eth0"), rtnetlink.mtu(1300), up=True)
        inner.route.add_address(inner.index("eth0"), "10.88.0.2", 16)
        inner.route.add_route(("", 0), Hop("10.88.0.1"))
        (bridge,) = net.json("ip", "-d", "addr", "show", "orlop0")
        assert bridge["linkinfo"]["info_kind"] == "bridge"
        assert (bridge["mtu"], bridge["address"]) == (1400, "02:42:00:00:00:01")
        assert [(one["local"], one["prefixlen"]) for one in bridge["addr_info"]] == [("10.88.0.1", 16)]
        (port,) = [one for one in net.json("bridge", "-d", "link") if one["ifname"] == "ve0"]
        assert (port["master"], port["isolated"], port["hairpin"]) == ("orlop0", True, True)
        (end,) = inner.json("ip", "addr", "show", "eth0")
        assert (end["mtu"], end["address"], end["addr_info"][0]["local"]) == (1300, "02:42:00:00:00:02", "10.88.0.2")
        assert {"dst": "default", "gateway": "10.88.0.1", "dev": "eth0"}.items() <= inner.json("ip", "route")[0].items()
        told = {link.name: (link.kind, link.master) for link in net.route.links()}
        assert told["ve0"] == ("veth", net.index("orlop0"))
        net.route.delete_link(net.index("ve0"))
        assert inner.route.link("eth0") is None


def test_every_other_kind_of_link(net: Netns) -> None:
    net.route.add_link("under", rtnetlink.veth("peer"))
    net.route.add_link("mv", rtnetlink.macvlan("private"), rtnetlink.over(net.index("under")))
    net.route.add_link("vx", rtnetlink.vxlan(42, local="192.0.2.1", port=4790, learning=False))
    told = {one["ifname"]: one["linkinfo"] for one in net.json("ip", "-d", "link") if "linkinfo" in one}
    assert told["mv"]["info_data"]["mode"] == "private"
    data = told["vx"]["info_data"]
    assert (data["id"], data["local"], data["port"], data["learning"]) == (42, "192.0.2.1", 4790, False)


def test_a_vlan_where_the_kernel_has_them(net: Netns) -> None:
    net.route.add_link("under", rtnetlink.veth("peer"))
    try:
        net.route.add_link("under.7", rtnetlink.vlan(7), rtnetlink.over(net.index("under")))
    except OSError as refused:
        assert refused.errno == errno.EOPNOTSUPP
        assert "Unknown device type" in str(refused)
    else:
        (told,) = net.json("ip", "-d", "link", "show", "under.7")
        assert told["linkinfo"]["info_data"]["id"] == 7


def test_a_link_is_renamed_moved_and_described(net: Netns) -> None:
    with network() as inner:
        net.route.add_link("a", rtnetlink.veth("b"))
        net.route.set_link(net.index("a"), rtnetlink.alias("the user's"))
        net.route.set_link(net.index("a"), rtnetlink.named("c"), rtnetlink.address("02:00:00:00:00:07"))
        net.route.set_link(net.index("b"), rtnetlink.in_namespace(inner.fd), rtnetlink.named("d"))
        assert inner.index("d")
        (told,) = net.json("ip", "link", "show", "c")
        assert (told["ifalias"], told["address"]) == ("the user's", "02:00:00:00:00:07")


def test_routes_neighbours_and_rules(net: Netns) -> None:
    net.route.add_link("a", rtnetlink.veth("b"))
    a = net.index("a")
    net.route.set_link(a, up=True)
    net.route.add_address(a, "192.0.2.1", 24)
    net.route.add_address(a, "fd00::1", 64, rtnetlink.IFA_F_NODAD)
    net.route.add_route(("198.51.100.0", 24), Hop("192.0.2.9", metric=50))
    net.route.add_route(("fd01::", 64), Hop("fd00::9"))
    net.route.add_route(("203.0.113.0", 24), Hop(oif=a, table=100))
    net.route.add_neighbour(a, "192.0.2.9", "02:00:00:00:00:09")
    net.route.add_rule(2, 100, iif="a", mark=5, priority=77)
    told = {one["dst"]: one for one in net.json("ip", "route", "show", "table", "all")}
    assert told["198.51.100.0/24"]["metric"] == 50
    assert told["203.0.113.0/24"]["table"] == "100"
    assert any(one["dst"] == "fd01::/64" for one in net.json("ip", "-6", "route"))
    assert any(one.get("lladdr") == "02:00:00:00:00:09" for one in net.json("ip", "neigh"))
    (rule,) = [one for one in net.json("ip", "rule") if one["priority"] == 77]
    assert (rule["iif"], rule["fwmark"], rule["table"]) == ("a", "0x5", "100")
    found = {route.destination: route for route in net.route.routes(2)}
    assert (found["198.51.100.0", 24].gateway, found["198.51.100.0", 24].metric) == ("192.0.2.9", 50)
    assert any(rule.iif == "a" and rule.mark == 5 and rule.table == 100 for rule in net.route.rules(2))
    assert any(one.destination == "192.0.2.9" for one in net.route.neighbours(2))
    net.route.delete_route(("198.51.100.0", 24), Hop())
    assert ("198.51.100.0", 24) not in {route.destination for route in net.route.routes(2)}


def test_a_refusal_names_the_call_the_object_and_the_reason(net: Netns) -> None:
    with pytest.raises(OSError, match=r"RTM_NEWROUTE.*invalid gateway.*198\.51\.100\.0/24") as refused:
        net.route.add_route(("198.51.100.0", 24), Hop("192.0.2.9"))
    assert refused.value.errno == errno.ENETUNREACH
    net.route.add_link("orlop0", rtnetlink.bridge())
    with pytest.raises(FileExistsError, match=r"RTM_NEWLINK.*orlop0"):
        net.route.add_link("orlop0", rtnetlink.bridge())
    with pytest.raises(OSError, match=r"RTM_DELLINK"):
        net.route.delete_link(4711)
    assert net.route.link("nobody") is None


def test_a_dump_of_many_links_is_whole(net: Netns) -> None:
    for number in range(300):
        net.route.add_link(f"br{number}", rtnetlink.bridge())
    names = {link.name for link in net.route.links()}
    assert names >= {f"br{number}" for number in range(300)}


def test_a_batch_is_what_nft_shows(net: Netns) -> None:
    batch = Batch()
    batch.add_table(IPV4, "t")
    batch.add_set(IPV4, "t", "bridges", ["ifname"])
    batch.add_set(
        IPV4,
        "t",
        "ports",
        ["ipv4_addr", "inet_proto", "inet_service"],
        data=["ipv4_addr", "inet_service"],
        flags=nftables.SET_INTERVAL,
    )
    batch.add_chain(IPV4, "t", "forward", Hook("filter", nftables.FORWARD, 0))
    batch.add_chain(IPV4, "t", "dstnat", Hook("nat", nftables.PREROUTING, -100))
    batch.add_rule(
        IPV4, "t", "forward", [nftables.conntrack(nftables.CT_STATE, 8), *nftables.any_of(8, 6), nftables.verdict(1)]
    )
    batch.add_rule(
        IPV4,
        "t",
        "forward",
        [nftables.meta(nftables.IIFNAME, 8), nftables.lookup("bridges", 8, invert=True), nftables.verdict(0)],
    )
    batch.add_rule(
        IPV4,
        "t",
        "dstnat",
        [
            *nftables.local_destination(8),
            nftables.payload(nftables.NETWORK_HEADER, 16, 4, 8),
            nftables.meta(nftables.L4PROTO, 9),
            nftables.payload(nftables.TRANSPORT_HEADER, 2, 2, 10),
            nftables.lookup("ports", 8, into=8),
            nftables.nat(nftables.DNAT, IPV4, 8, 9),
        ],
    )
    batch.add_elements(IPV4, "t", "bridges", [Element(nftables.interface("orlop0"))])
    batch.add_elements(
        IPV4,
        "t",
        "ports",
        [
            Element(
                nftables.fields(bytes(4), b"\6", (80).to_bytes(2, "big")),
                end=nftables.fields(b"\xff" * 4, b"\6", (90).to_bytes(2, "big")),
                data=nftables.fields(bytes((10, 88, 0, 2)), (8080).to_bytes(2, "big")),
            )
        ],
    )
    net.nft.commit(batch)
    told = net.run(_nft(), "list", "ruleset")
    assert 'elements = { "orlop0" }' in told
    assert "ct state established,related accept" in told
    assert "iifname != @bridges drop" in told
    assert "fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @ports" in told
    assert "0.0.0.0/0 . tcp . 80-90 : 10.88.0.2 . 8080" in told
    chains = {chain.name: (chain.hook, chain.kind, chain.priority) for chain in net.nft.chains()}
    assert chains == {"forward": (nftables.FORWARD, "filter", 0), "dstnat": (nftables.PREROUTING, "nat", -100)}
    assert net.nft.has_table(IPV4, "t")
    assert not net.nft.has_table(IPV4, "u")


def _nft() -> Path:
    from devtools import peers

    found = peers.find("nft")
    assert found is not None
    return found


def test_a_batch_counts_as_a_whole_or_not_at_all(net: Netns) -> None:
    batch = Batch()
    batch.add_table(IPV4, "t")
    batch.delete_table(IPV4, "nobody")
    batch.add_table(IPV4, "u")
    with pytest.raises(FileNotFoundError, match=r"nftables delete table.*nobody"):
        net.nft.commit(batch)
    assert not list(net.nft.tables())


def test_many_elements_come_back(net: Netns) -> None:
    batch = Batch()
    batch.add_table(IPV4, "t")
    batch.add_set(IPV4, "t", "s", ["ipv4_addr"])
    keys = {number.to_bytes(4, "big") for number in range(1, 5001)}
    batch.add_elements(IPV4, "t", "s", [Element(key) for key in keys])
    net.nft.commit(batch)
    # A dump of a hash table that still grows may miss elements (rhashtable_walk_start in lib/rhashtable.c).
    deadline = time.monotonic() + 20
    while (found := set(net.nft.elements(IPV4, "t", "s"))) != keys and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == keys
    batch = Batch()
    batch.delete_elements(IPV4, "t", "s", [Element(key) for key in list(keys)[:4999]])
    net.nft.commit(batch)
    assert len(list(net.nft.elements(IPV4, "t", "s"))) == 1


def test_work_in_another_namespace_leaves_ours_alone() -> None:
    before = namespace.current()
    with network() as inner:
        inner.route.add_link("only", rtnetlink.bridge())

        def look() -> set[str]:
            with Rtnetlink() as there:
                return {link.name for link in there.links()}

        assert inner.inside(look) == {"lo", "only"}
        with Rtnetlink() as here:
            assert "only" not in {link.name for link in here.links()}
        with pytest.raises(ZeroDivisionError):
            inner.inside(lambda: 1 // 0)
    after = namespace.current()
    assert os.fstat(before).st_ino == os.fstat(after).st_ino
    os.close(before)
    os.close(after)
