"""`net explain`: what it says of a port is what a neighbour finds, and the rule it names is what decides."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from support.boxes import SILENCE_S, Box, ask, serving, silent
from support.engine import Environment
from support.netns import A, B, Netns

from .test_networks import nft

Run = Callable[..., Box]


def explained(box: Box, *port: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(box.orlop("net", "explain", "-f", "json", box.id, *port).stdout)["Ports"]
    return found


def said(box: Box, who: str, *port: str) -> tuple[str, str]:
    """Return what is said of the first port's reach: (yes or no, why)."""
    return next((one["Can"], one["Why"]) for one in explained(box, *port)[0]["From"] if one["Who"] == who)


# What answers this machine's own questions, as every firewall has it: without, each row would wait for those, too.
KNOWN = "add rule inet t input ct state established accept"
# The machine's own rules, the port that a neighbour tries, whether it reaches the container, and what is said of it.
TOPOLOGIES = [
    ("", 8080, True, "it answers"),
    ("", 8081, True, "it answers"),  # mode=nat
    ("", 8083, False, "it is published at 127.0.0.1 alone"),
    ("", 8084, True, "it answers"),  # at the machine's address alone
    ("add rule inet t input tcp dport 8080 drop", 8080, False, "rule 3 of chain input of table inet t drops it"),
    ("add rule inet t input tcp dport 8080 drop", 8081, True, "it answers"),
    ("add rule inet t input tcp dport 8081 drop", 8081, True, "it answers"),  # nat passes the machine's rules by
    ("add rule inet t input tcp dport 8084 drop", 8084, False, "of chain input of table inet t drops it"),
    ("add chain inet t input { policy drop; }", 8080, False, "the policy of chain input of table inet t drops it"),
    (f"add chain inet t input {{ policy drop; }}; {KNOWN}", 8081, True, "it answers"),
    (f"add chain inet t input {{ policy drop; }}; {KNOWN}; add rule inet t input tcp dport 8080 accept",
     8080, True, "it answers"),
    ("add chain inet t input { policy drop; }; add rule inet t input ip saddr 192.0.2.0/24 accept", 8080, None, ""),
    (f"{KNOWN}; add rule inet t input jump deep; add rule inet t deep drop", 8080, False,
     "chain deep of table inet t drops it"),
    ("add rule inet t input jump deep; add rule inet t deep return", 8080, True, "it answers"),
    (f"{KNOWN}; add rule inet t input reject", 8080, False, "of chain input of table inet t"),
    ("add chain inet t onward { type filter hook forward priority 5; policy drop; }", 8080, False,
     "the policy of chain onward of table inet t drops it"),
    ("add chain inet t onward { type filter hook forward priority 5; policy drop; }", 8081, False,
     "the policy of chain onward of table inet t drops it"),
    ("add chain inet t onward { type filter hook forward priority 5; policy drop; };"
     " add rule inet t onward ct status dnat accept; add rule inet t onward ct state established accept",
     8080, True, "it answers"),
    ("add chain inet t raw { type filter hook prerouting priority -300; }; add rule inet t raw tcp dport 8080 drop",
     8080, False, "of chain raw of table inet t drops it"),
    ("add chain inet t raw { type filter hook prerouting priority -300; }; add rule inet t raw tcp dport 8080 notrack",
     8081, True, "it answers"),
    ("add rule inet t input ct state new meta l4proto tcp counter drop", 8080, False, "of chain input of table inet t"),
    ("add rule inet t input ip protocol udp drop", 8080, True, "it answers"),
    ("add chain inet t late { type filter hook input priority 9000; policy drop; };"
     " add rule inet t late ct state established accept", 8080, False,
     "the policy of chain late of table inet t drops it"),
    ("add table ip u; add chain ip u after { type filter hook postrouting priority 0; };"
     " add rule ip u after ip saddr { 192.0.2.2, 198.18.0.2 } tcp dport 80 drop",
     8080, False, "of chain after of table ip u drops it"),
    ("add rule inet t input meta nfproto ipv6 drop", 8080, True, "it answers"),
]  # fmt: skip


def test_what_is_said_is_what_a_neighbour_finds(run: Run, host: Netns, neighbour: Netns) -> None:
    # Each its own port inside, so that only the one that is tried is asked for.
    ports = ("8080:80", "8081:81,mode=nat", "127.0.0.1:8083:83", f"{A}:8084:84")
    box = run(*(word for port in ports for word in ("-p", port)))
    links = {link.name for link in host.route.links()}
    assert len(TOPOLOGIES) >= 25
    with ExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor(1))
        servers = [stack.enter_context(serving(box, number)) for number in (80, 81, 84)]
        for rules, port, reached, why in TOPOLOGIES:
            nft(host, "add table inet t; add chain inet t deep")
            nft(host, "add chain inet t input { type filter hook input priority 0; }")
            nft(host, rules) if rules else None
            # Silence is waited for while the rest goes on.
            tried = executor.submit(ask, neighbour, A, port, connect_s=SILENCE_S if reached is False else 20.0)
            if reached is not False:
                assert tried.result() == B, (rules, port)
            if reached is None:  # who tries it is somebody else than the neighbour, whom the rules let in
                nft(host, "delete table inet t")
                continue
            if "hook forward" in rules and port == 8080 and not reached:
                warned = box.orlop("run", "--rm", "-p", "9090:80", "host", "true").stderr
                assert "only if inet t onward lets forwarded packets through, of which it drops some" in warned
            (shown,) = explained(box, str(port - 8000))
            assert shown["Published"].endswith(f":{port}")
            can, told = next((one["Can"], one["Why"]) for one in shown["From"] if one["Who"] == "other machines")
            assert (can, why in told) == ("yes" if reached else "no", True), (rules, port, told)
            assert tried.result() == ("" if reached is False else B), (rules, port)
            nft(host, "delete table inet t")
            nft(host, "delete table ip u") if "ip u" in rules else None
    assert all("198.18.0.2" in server.peers for server in servers)
    assert {link.name for link in host.route.links()} == links
    assert not [name for _, name in host.nft.tables() if name.startswith("orlop-op")]


def test_the_way_that_no_rule_closes(run: Run, host: Netns, neighbour: Netns) -> None:
    box = run("-p", "8080:80", "-p", "127.0.0.1:8081:81", "-p", "5353:53/udp")
    assert said(box, "other machines") == (
        "yes",
        f"it is let through, and nobody listens in the container (tried from 198.18.0.2 to {A}:8080)",
    )
    assert said(box, "other machines", "81") == ("no", "it is published at 127.0.0.1 alone")
    assert said(box, "other machines", "53/udp")[0] == "yes"
    can, why = said(box, "other machines", "82")
    assert (can, "it is not published" in why) == ("no", True)
    with serving(box, 80):
        assert said(box, "this machine") == ("yes", "at 127.0.0.1:8080")


def test_it_reads_well(run: Run, orlop: Environment, neighbour: Netns) -> None:
    orlop("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "quiet")
    box = run("--name", "web", "--network", "quiet", "-p", "8080:80")
    with serving(box, 80):
        told = orlop("network", "explain", "web").stdout
    assert told == (
        f"web is in quiet: {box.address('quiet')}\n"
        "it reaches the outside: yes, no rule of this machine is in the way\n"
        f"80/tcp of {box.address('quiet')}, published at 0.0.0.0:8080\n"
        "  this machine        yes: at 127.0.0.1:8080\n"
        f"  other machines      yes: it answers (tried from 198.18.0.2 to {A}:8080)\n"
        "  same network quiet  no: the network has com.docker.network.bridge.enable_icc=false\n"
        "  other networks      yes: only at what this machine publishes\n"
    )
    for words, cause in (
        (("web", "80/icmp"), "'80/icmp' is no port"),
        (("web", "0"), "'0' is no port"),
        (("nobody",), "No such container: nobody"),
    ):
        refused = orlop("network", "explain", *words, check=False)
        assert refused.code != 0
        assert cause in refused.stderr
    orlop("stop", "-t", "0", "web")
    assert "it has no network of its own now" in orlop("net", "explain", "web", check=False).stderr


def test_a_network_of_ipv6_alone(run: Run, orlop: Environment, host: Netns, neighbour: Netns) -> None:
    for side, address in ((host, "2001:db8::1"), (neighbour, "2001:db8::2")):
        side.route.add_address(side.index("up0"), address, 64, 0x02)
    orlop("network", "create", "--ipv4=false", "--ipv6", "six")
    box = run("--network", "six", "-p", "8080:80")
    with serving(box, 80, family=socket.AF_INET6) as server:
        assert said(box, "this machine") == ("yes", "at 127.0.0.1:8080; at [2001:db8::1]:8080")
        told = "it answers (tried from 2001:2::2 to [2001:db8::1]:8080)"
        assert said(box, "other machines") == ("yes", f"{told}; it answers (tried from 198.18.0.2 to {A}:8080)")
        nft(host, "add table inet t; add chain inet t input { type filter hook input priority 0; }")
        nft(host, "add rule inet t input ip6 saddr ::/0 tcp dport 8080 drop")
        assert silent(neighbour, "2001:db8::1", 8080)
        assert "of chain input of table inet t drops it" in said(box, "other machines")[1]
        nft(host, "delete table inet t")
    assert "2001:2::2" in server.peers


def test_the_outside_is_told_of_too(run: Run, orlop: Environment, host: Netns, neighbour: Netns) -> None:
    def outside(box: Box) -> tuple[str, str]:
        found = json.loads(orlop("net", "explain", "-f", "json", box.id).stdout)["Outside"]
        return found["Can"], found["Why"]

    orlop("network", "create", "--internal", "inner")
    inner, box = run("--network", "inner"), run()
    assert outside(inner) == ("no", "none of its networks leads there")
    nft(host, "add table inet t; add chain inet t fw { type filter hook forward priority 0; policy drop; }")
    with serving(neighbour, 9000):
        assert silent(box, B, 9000)
        assert outside(box) == ("no", "the policy of chain fw of table inet t drops it")
        told = orlop("run", "-d", "host", "sleep", "1000").stderr
        assert "It reaches the outside only if inet t fw lets forwarded packets through" in told
        nft(host, 'add rule inet t fw iifname "orlop0*" accept; add rule inet t fw ct state established accept')
        assert ask(box, B, 9000) == A
        assert outside(box) == (
            "perhaps",
            "only what the rules of chain fw of table inet t accept: its policy drops the rest",
        )
    assert "It reaches the outside" not in orlop("run", "-d", "--network", "inner", "host", "sleep", "1000").stderr
