"""What a container or a network is asked to have beyond a name: forms of addresses, several subnets and ways out, a
source of one's own, and files below /etc that its container writes to, too."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

from orlop.linux.netlink.rtnetlink import Rtnetlink
from support.boxes import Box, ask, serving
from support.engine import Environment
from support.netns import B, Netns

Run = Callable[..., Box]
C = "192.0.2.9"  # one more address of A's


def _ways(box: Box) -> dict[int, list[str]]:
    """Return by family the gateways of a container's default routes."""

    def look() -> dict[int, list[str]]:
        with Rtnetlink() as route:
            return {
                family: [one.gateway for one in route.routes(family) if one.is_way_out and one.gateway]
                for family in (socket.AF_INET, socket.AF_INET6)
            }

    return box.inside(look)


def test_addresses_are_what_the_kernel_calls_them(run: Run, orlop: Environment) -> None:
    """Red: with a MAC of hyphens handed on as it is, `run` ends with a defect of ours; an address as it was written is
    told so by `inspect` and /etc/hosts."""
    orlop("network", "create", "--ipv6", "--subnet", "FD00:0099:0::/64", "--gateway", "FD00:99::00FF", "spelled")
    config = json.loads(orlop("network", "inspect", "-f", "{{json .IPAM.Config}}", "spelled").stdout)
    assert {"Subnet": "fd00:99::/64", "Gateway": "fd00:99::ff"} in config
    for written in ("02-42-0A-58-00-07", "0242.0a58.0007", "02:42:0A:58:00:07"):
        box = run("--network", "spelled", "--mac-address", written, "--ip6", "FD00:99:0::0007")
        assert box.address("spelled", "MacAddress") == "02:42:0a:58:00:07"
        assert box.address("spelled", "GlobalIPv6Address") == "fd00:99::7"
        assert "fd00:99::7\t" in box.read("/etc/hosts")
        orlop("rm", "-f", box.id)
    for wrong in ("02:42:0a:58:00", "02:42-0a:58-00:07", "0242.0a58", "02:42:0a:58:00:0g"):
        refused = orlop("run", "--rm", "--network", "spelled", "--mac-address", wrong, "host", "true", check=False)
        assert refused.code == 125 and f"invalid MAC address: {wrong}" in refused.stderr, refused


def test_a_cable_has_several_subnets(run: Run, orlop: Environment, neighbour: Netns) -> None:
    """Red: with the bridge's limit for every driver, the network is refused."""
    subnets = ("--subnet", "10.75.0.0/30", "--subnet", "10.75.1.0/24", "--gateway", "10.75.1.254")
    orlop("network", "create", "-d", "macvlan", *subnets, "-o", "parent=up0", "lan")
    asked = run("--network", "lan", "--ip", "10.75.1.9")
    assert (asked.address("lan"), asked.address("lan", "Gateway")) == ("10.75.1.9", "10.75.1.254")
    # Who asks for none gets one of the first, and of the next when that has none left.
    assert [run("--network", "lan").address("lan") for _ in range(2)] == ["10.75.0.2", "10.75.1.1"]
    refused = orlop("run", "--rm", "--network", "lan", "--ip", "10.76.0.9", "host", "true", check=False)
    assert "no configured subnet contains IP address 10.76.0.9" in refused.stderr
    refused = orlop("network", "create", "--subnet", "10.77.0.0/24", "--subnet", "10.77.1.0/24", "two", check=False)
    assert "bridge driver doesn't support multiple subnets" in refused.stderr


def test_each_family_has_its_way_out(run: Run, orlop: Environment) -> None:
    """Red: with the ways of the first network alone, there is none for IPv6."""
    orlop("network", "create", "--subnet", "10.75.0.0/24", "a-four")
    orlop("network", "create", "--ipv4=false", "--ipv6", "--subnet", "fd00:75::/64", "b-six")
    orlop("network", "create", "--ipv6", "--subnet", "10.76.0.0/24", "--subnet", "fd00:76::/64", "c-both")
    box = run("--network", "a-four")
    four, six = socket.AF_INET, socket.AF_INET6
    assert _ways(box) == {four: ["10.75.0.1"], six: []}
    orlop("network", "connect", "b-six", box.id)
    assert _ways(box) == {four: ["10.75.0.1"], six: ["fd00:75::1"]}
    orlop("network", "connect", "--gw-priority", "1", "c-both", box.id)
    assert _ways(box) == {four: ["10.76.0.1"], six: ["fd00:76::1"]}
    orlop("network", "disconnect", "c-both", box.id)
    assert _ways(box) == {four: ["10.75.0.1"], six: ["fd00:75::1"]}
    orlop("restart", "-t", "0", box.id)
    box.open()
    assert _ways(box) == {four: ["10.75.0.1"], six: ["fd00:75::1"]}
    orlop("network", "disconnect", "a-four", box.id)
    assert _ways(box) == {four: [], six: ["fd00:75::1"]}


def test_what_a_container_wrote_below_etc_stays(run: Run, orlop: Environment) -> None:
    """Red: with the files written whole at each change, the container's lines are gone, and who shares its network
    knows nothing of a new one."""
    for number in (71, 72):
        orlop("network", "create", "--subnet", f"10.{number}.0.0/24", f"n{number}")
    box = run("--network", "n71", "--ip", "10.71.0.9", "--hostname", "deck")
    guest = run("--network", f"container:{box.id}")
    orlop("exec", box.id, "sh", "-c", "echo '192.0.2.7 mine' >>/etc/hosts; echo '# mine' >>/etc/resolv.conf")
    told = box.read("/etc/resolv.conf")
    orlop("network", "connect", "--ip", "10.72.0.9", "n72", box.id)
    hosts = box.read("/etc/hosts").splitlines()
    assert hosts[-2:] == ["192.0.2.7 mine", "10.72.0.9\tdeck"] and "10.71.0.9\tdeck" in hosts
    assert guest.read("/etc/hosts").splitlines()[-1] == "10.72.0.9\tdeck"
    orlop("network", "disconnect", "n71", box.id)
    hosts = box.read("/etc/hosts").splitlines()
    assert {"192.0.2.7 mine", "10.72.0.9\tdeck"} < set(hosts) and "10.71.0.9\tdeck" not in hosts
    assert "10.71.0.9" not in guest.read("/etc/hosts")
    assert box.read("/etc/resolv.conf") == told


def test_who_shares_a_network_is_told_of_its_resolver(run: Run, orlop: Environment) -> None:
    """Red: with its own copy alone, it asks the servers of the default bridge."""
    orlop("network", "create", "named")
    box = run("--dns", "192.0.2.53")
    guest = run("--network", f"container:{box.id}")
    assert guest.read("/etc/resolv.conf").startswith("nameserver 192.0.2.53\n")
    orlop("network", "connect", "named", box.id)
    assert guest.read("/etc/resolv.conf") == box.read("/etc/resolv.conf")
    assert guest.read("/etc/resolv.conf").startswith("nameserver 127.0.0.11\n")


def test_the_machine_has_one_name_and_no_other_takes_it_away(run: Run) -> None:
    """Red: with what begins with the name taken for it, host.docker.internal is not there."""
    hosts = run("--add-host", "host.docker.internal.example:192.0.2.7").read("/etc/hosts")
    assert "\thost.docker.internal\n" in hosts
    hosts = run("--add-host", "host.docker.internal:192.0.2.7").read("/etc/hosts")
    assert hosts.count("host.docker.internal") == 1


def test_what_leaves_has_the_source_that_was_chosen(
    run: Run, orlop: Environment, host: Netns, neighbour: Netns
) -> None:
    """Red: with the masquerade alone, B sees the link's own address."""
    host.route.add_address(host.index("up0"), C, 32)
    option = "com.docker.network.host_ipv4"
    orlop("network", "create", "-o", f"{option}={C}", "sourced")
    with serving(neighbour, 9000):
        assert ask(run("--network", "sourced"), B, 9000) == C
    for wrong, cause in ((f"{option}=x", "invalid IP address: x"), (f"{option}=fd00::1", "invalid IPv4 address")):
        refused = orlop("network", "create", "-o", wrong, "wrong", check=False)
        assert refused.code == 1 and cause in refused.stderr, refused


def test_a_bridge_without_an_address_leads_to_somebody_elses_gateway(run: Run, orlop: Environment, host: Netns) -> None:
    """Red: with the gateway on the bridge all the same, the machine answers in its place."""
    inhibited = "com.docker.network.bridge.inhibit_ipv4"
    orlop("network", "create", "-o", f"{inhibited}=true", "--subnet", "10.73.0.0/24", "theirs")
    box = run("--network", "theirs")
    assert _ways(box)[socket.AF_INET] == ["10.73.0.1"]
    assert not [one for one in host.route.addresses() if one.address.startswith("10.73.")]
    assert "host.docker.internal" not in box.read("/etc/hosts")


def test_files_of_ours_are_copied_of_a_container_that_ended(run: Run, orlop: Environment) -> None:
    """Red: with the container's own directory left out, `cp` gives the empty file that is mounted over."""
    box = run("--add-host", "far:192.0.2.7", "--hostname", "deck.example")
    assert "\tdeck.example deck\n" in box.read("/etc/hosts")
    running = orlop("cp", f"{box.id}:/etc/hosts", "-").raw_stdout
    assert b"192.0.2.7\tfar\n" in running
    orlop("stop", "-t", "0", box.id)
    assert orlop("cp", f"{box.id}:/etc/hosts", "-").raw_stdout == running


def test_an_interface_has_the_address_for_all_of_its_subnet(run: Run) -> None:
    """Red: without it, who asks the kernel for it (SIOCGIFBRDADDR) is told 0.0.0.0."""
    import fcntl
    import struct

    def look() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            told = fcntl.ioctl(sock, 0x8919, struct.pack("256s", b"eth0"))
        return socket.inet_ntoa(told[20:24])

    assert run().inside(look) == "10.88.255.255"


def test_an_mtu_is_one_that_a_link_can_have(orlop: Environment) -> None:
    """Red: with 68 for IPv6 too, the network is made, and no container starts in it."""
    option = "com.docker.network.driver.mtu"
    orlop("network", "create", "-o", f"{option}=0", "plain")
    orlop("run", "--rm", "--network", "plain", "host", "true")
    for words in (
        ("-o", f"{option}=67"),
        ("-o", f"{option}=1279", "--ipv6"),
        ("-o", f"{option}=\u0661\u0662\u0660\u0660"),
    ):
        refused = orlop("network", "create", *words, "wrong", check=False)
        assert refused.code == 1 and "invalid MTU" in refused.stderr, refused
    refused = orlop(
        "run", "--rm", "--network", "plain", "--mac-address", "00:00:00:00:00:00", "host", "true", check=False
    )
    assert "00:00:00:00:00:00 is no address of an interface" in refused.stderr
