"""The resolver's loop, and where it asks: what needs neither root nor a network."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from orlop.network.dns import forward, server
from orlop.network.dns.egress import Allowed


def test_timers_that_were_cancelled_are_not_kept() -> None:
    """Red: an allowed name that is asked for without end kept a timer for each question, for as long as it lives."""
    loop = server.Loop()
    kept = loop.after(1000, lambda: None)
    for _ in range(20_000):
        loop.cancel(loop.after(1000, lambda: None))
    assert len(loop._timers) <= 2 * server.CANCELLED_MAX
    done: list[int] = []
    loop.after(0, lambda: done.append(1))
    loop.turn()
    assert done == [1] and kept in loop._due


def test_a_file_that_comes_back_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red: the same file in its place again had no servers any more."""
    told = tmp_path / "resolv.conf"
    told.write_text("nameserver 192.0.2.1\n")
    monkeypatch.setattr(server, "HOST_FILE", str(told))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "s"))
        made = server.Server(listener)

        def now() -> tuple[str, ...]:
            made._host_checked = float("-inf")
            return made._host_servers()

        assert now() == ("192.0.2.1",)
        os.rename(told, tmp_path / "away")
        assert now() == ()
        os.rename(tmp_path / "away", told)
        assert now() == ("192.0.2.1",)


def test_a_zone_is_a_link() -> None:
    """Red: a link's name was 0, which the kernel refuses: nameserver fe80::1%eth0 was never asked."""
    assert forward._scope("lo") == socket.if_nametoindex("lo")
    assert (forward._scope(""), forward._scope("7")) == (0, 7)
    with pytest.raises(OSError, match=r"."):
        forward._scope("none-such")


def test_a_port_is_one_of_a_protocol_that_has_ports() -> None:
    """Red: of ICMP, GRE and all others, whatever stood where TCP has its port was taken for one."""

    def opens(text: str, protocol: int, port: int) -> bool:
        return any(a <= protocol <= b and c <= port <= d for (a, b), (c, d) in Allowed(text).ways())

    assert [number for number in range(256) if opens("192.0.2.1:80", number, 80)] == [6, 17, 132]
    assert [number for number in range(256) if opens("a.test:80", number, 80)] == [17, 132]  # TCP goes by the passage
    assert [number for number in range(256) if opens("a.test:443", number, 443)] == [132]
    assert [number for number in range(256) if opens("a.test:443/udp", number, 443)] == [17]
    assert [number for number in range(256) if opens("a.test/icmp", number, 9)] == [1, 58]
    assert not any(opens("a.test/dns", number, 443) for number in range(256))
    assert all(opens("192.0.2.0/24", number, 0) for number in range(256))
    assert not opens("192.0.2.1:80", 6, 81) and not opens("a.test", 17, 443) and opens("a.test", 17, 444)
