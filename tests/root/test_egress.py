"""What a container may reach with `--egress deny`: addresses and names that are allowed, and nothing else (P07)."""

# ruff: noqa: F811  (pytest gives fixtures by their names)

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from orlop.network.dns import attempts, message
from support.boxes import Box, serving, silent
from support.boxes import ask as connect
from support.engine import Environment
from support.netns import Netns
from support.tasks import wait_until

from .test_names import A, B, C, Upstream, _kill, _resolver, ask, host, run, upstream  # noqa: F401

Run = Callable[..., Box]
Start = Callable[..., Upstream]


@pytest.fixture
def outside(upstream: Start, host: Netns) -> Iterator[Upstream]:
    """A server of names at B, which gives every name the address C."""
    yield upstream(B, says=C)


def test_only_allowed_names_are_reached_and_asked_for(run: Run, outside: Upstream) -> None:
    box = run("--egress", "deny", "--egress-allow", "api.test:80", "--egress-allow", "*.wide.test", "--dns", B)
    with serving(outside.place, 80) as web, serving(outside.place, 81):
        assert silent(box, C, 80)  # nobody has asked for the name yet
        assert ask(box, "api.test") == (0, [C])
        assert connect(box, C, 80) == A
        assert silent(box, C, 81)
        assert silent(box, B, 80)  # another address, the same machine
        assert ask(box, "tunnel.attacker.test") == (message.NXDOMAIN, [])
        assert ask(box, "wide.test") == (message.NXDOMAIN, [])
        assert ask(box, "a.b.wide.test") == (0, [C])
        assert connect(box, C, 81) == A
    assert outside.asked == ["api.test", "a.b.wide.test"]
    assert web.peers == [A]


def test_subnets_are_allowed_by_port(run: Run, outside: Upstream, host: Netns) -> None:
    box = run("--egress", "deny", "--egress-allow", "192.0.2.2/31:80/tcp", "--dns", B)
    free = run()
    with serving(outside.place, 80), serving(outside.place, 81), serving(host, 9000):
        assert connect(box, B, 80) == A
        assert silent(box, B, 81)
        assert silent(box, "10.88.0.1", 9000)  # this machine is outside too
        assert connect(free, B, 81) == A
        assert connect(free, "10.88.0.1", 9000) == free.address()


def test_what_is_closed_stays_closed_when_the_resolver_dies(
    run: Run,
    orlop: Environment,
    outside: Upstream,
) -> None:
    box = run("--egress", "deny", "--egress-allow", "api.test", "--dns", B)
    (pid,) = _resolver(orlop)
    _kill(pid)
    with serving(outside.place, 80):
        assert silent(box, B, 80)
        orlop("ps")
        assert silent(box, B, 80)


def test_nothing_is_left_of_a_restriction(orlop: Environment, host: Netns) -> None:
    orlop("run", "--rm", "--egress", "deny", "--egress-allow", "10.0.0.0/8", "host", "true")
    orlop("engine", "stop")
    deadline = time.monotonic() + 20
    while list(host.nft.tables()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list(host.nft.tables())


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (["--egress", "maybe"], "invalid egress: 'maybe'"),
        (["--egress-allow", "x"], "--egress-allow needs --egress deny"),
        (["--egress", "deny", "--egress-allow", "a b"], "is no name, address or subnet"),
        (["--egress", "deny", "--egress-allow", "x:70000"], "invalid port in 'x:70000'"),
        (["--egress", "deny", "--network", "host"], "a network that is not the container's own"),
    ],
)
def test_what_can_not_be_meant_is_refused(orlop: Environment, flags: list[str], cause: str) -> None:
    refused = orlop("run", "--rm", *flags, "host", "true", check=False)
    assert refused.code == 125
    assert cause in refused.stderr


def test_what_is_denied_is_an_event(run: Run, orlop: Environment, outside: Upstream) -> None:
    box = run("--egress", "deny", "--egress-allow", "api.test:80", "--dns", B, "--name", "caged")
    assert ask(box, "tunnel.attacker.test") == (message.NXDOMAIN, [])
    assert ask(box, "api.test") == (0, [C])
    for _ in range(3):
        assert silent(box, C, 81)
        assert silent(box, B, 443)

    def denied() -> list[str]:
        told = orlop("events", "--since", "10m", "--until", "0s", "--filter", "event=egress_denied", "--format", "json")
        return [json.loads(line)["Actor"]["Attributes"]["to"] for line in told.stdout.splitlines()]

    expected = ["api.test:81/tcp", f"{B}:443/tcp", "tunnel.attacker.test"]
    wait_until(lambda: len(denied()) >= len(expected))
    assert sorted(denied()) == sorted(expected)  # each once
    assert orlop("network", "egress", "caged").stdout == "".join(f"denied: {one}\n" for one in sorted(expected))


def test_what_is_learned_is_enough(run: Run, orlop: Environment, outside: Upstream, host: Netns) -> None:
    box = run("--egress", "learn", "--dns", B, "--name", "pupil")
    with serving(outside.place, 80) as web, serving(outside.place, 81), serving(outside.place, 82):
        assert ask(box, "api.test") == (0, [C])
        assert connect(box, C, 80) == A
        assert connect(box, B, 81) == A
        expected = [f"{B}:81/tcp", "api.test:80/tcp"]
        wait_until(lambda: len(orlop("network", "egress", "pupil").stdout.splitlines()) == 2)
        found = orlop("network", "egress", "pupil").stdout.splitlines()
        assert found == [f"--egress-allow {one}" for one in expected]
        orlop("stop", "-t", "0", "pupil")
        assert orlop("network", "egress", "pupil").stdout.splitlines() == found  # after its end
        caged = run("--egress", "deny", *(word for line in found for word in line.split()), "--dns", B)
        assert ask(caged, "api.test") == (0, [C])
        assert (connect(caged, C, 80), connect(caged, B, 81)) == (A, A)
        assert silent(caged, B, 82)
    assert len(web.peers) == 2


def test_hostile_packets_are_no_attempts() -> None:
    for packet in (b"", b"\x45", b"\x45" + bytes(10), b"\x60" + bytes(20), b"\x00" * 64, bytes(range(256))):
        with pytest.raises((ValueError, IndexError)):
            attempts.parse(packet)
    assert attempts.parse(b"\x4f" + bytes(19))[3] == 0  # a header longer than the packet
    for data in (b"", b"{}\n", b"[1]\n{", b'{"verdict": 3}\n', b"\xff\n" * 9000):
        assert attempts.read(data) == []
