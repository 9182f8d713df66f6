"""Published ports that no rule of the firewall can lead: a relay (`network.relay`) for each container that has any.

They are all ports of an ordinary user's containers, which lie behind a namespace that no packet of the machine reaches.
Of root's they are ports of [::1], whose packets the kernel lets out of no machine, and ports of an address whose family
the container's network lacks. A port at every address has one, too, where the network has no IPv4: who asks for it at
127.0.0.1, at [::1] or at an IPv4 address of the machine is carried; the rest is led by rules.

What `--host-access` gives an ordinary user's container goes the other way, by the same relay: rules of the user's lead
to where it listens, and it connects to the machine's loopback.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack

from ...linux import process
from ...linux.netlink import namespace
from ...network import relay
from ...network.firewall import Forward
from ...spec.errors import Conflict, Denied, Unavailable, Unsupported
from ...spec.network import INWARD, NAT, ROUTED
from ..rootless.keeper import end_process
from . import ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from ...spec.network import Attachment, Endpoint

_ANY = ("0.0.0.0", "::")


def carried(held: Attachment, endpoint: Endpoint) -> list[Forward]:
    """Return what a relay has to carry of a container's ports, an entry for each address that it listens at.

    Of mode INWARD is what the container reaches of the machine's loopback.

    endpoint: the container's place in the network that its ports belong to.
    """
    wanted = [port for port in held.ports if namespace.has_left() or ports.wants_relay(port, endpoint)]
    # A socket for each port: of large ranges at every address, the addresses are those of the network's families.
    is_large = sum(port.count for port in wanted) > ports.RESERVED_MAX
    families = [host_ip for host_ip in _ANY if not is_large or (endpoint.ipv6 if ":" in host_ip else endpoint.ipv4)]
    inward = held.host_access if namespace.has_left() else ()
    return [
        Forward(port.replace(host_ip=host_ip), _target(host_ip, endpoint))
        for port in wanted
        for host_ip in ([port.host_ip] if port.host_ip else families)
    ] + [Forward(port.replace(host_ip=ports.loopback(endpoint)), ports.LOOPBACK) for port in inward]


def start(held: Attachment, endpoint: Endpoint, subject: str) -> tuple[int, int]:
    """Let ports in: return (pid, start time) of the relay, (0, 0) where it would have nothing to carry.

    Raises Conflict for a port that is taken, Denied for one that is root's, Unsupported for what no relay can do.
    """
    forwards = carried(held, endpoint)
    if not forwards:
        return 0, 0
    for forward in forwards:
        _check(forward, subject)
    with ExitStack() as opened:
        found: list[relay.Opened] = []
        for forward in forwards:
            for number in range(forward.count):
                for sock in _listen(forward, forward.host_first + number, subject):
                    opened.callback(sock.close)
                    found.append((sock, forward, forward.first + number))
        try:
            pid = relay.start(endpoint.link, found, keeps_clients=namespace.has_left())
            return pid, process.start_time(pid)
        except OSError as failure:
            raise Unavailable("publish the ports of", subject, failure.strerror or str(failure)) from None


def end(attachment: Attachment) -> None:
    """End a container's relay: its ports are free when this returns."""
    end_process(attachment.relay, attachment.relay_start_time)


def end_rules(others: Iterable[Attachment]) -> None:
    """Take the rules that a user's relays keep their clients' addresses by away with the last of them.

    others: what the other containers hold, and go on holding until this returns. Raises OSError.
    """
    if namespace.has_left() and not any(one.relay for one in others):
        from ...network import transparent

        transparent.forget()


def _target(host_ip: str, endpoint: Endpoint) -> str:
    """Return the container's address that an address of the machine leads to: of its family if there is one."""
    return (endpoint.ipv6 or endpoint.ipv4) if ":" in host_ip else (endpoint.ipv4 or endpoint.ipv6)


def _check(forward: Forward, subject: str) -> None:
    where = f"{_shown(forward.host_ip)}:{forward.host_first}/{forward.protocol}"
    if forward.protocol == "sctp":
        cause = f"{where} would need a relay, which carries TCP and UDP"
        raise Unsupported("start", subject, cause, hint="root's engine publishes SCTP, at addresses of its network")
    if forward.mode in (NAT, ROUTED):
        cause = f"{where} can't be published with mode={forward.mode}: a relay listens there"
        raise Unsupported("start", subject, cause, hint="leave the mode out")


def _listen(forward: Forward, port: int, subject: str) -> list[socket.socket]:
    """Return what listens at one port: nothing for the IPv6 half of "every address" where there is no IPv6."""
    own = forward.host_ip
    shown = f"{_shown(own)}:{port}/{forward.protocol}"
    try:
        if forward.mode == INWARD:
            return [relay.listen(own, port, forward.protocol)]
        return [namespace.outside(lambda: relay.listen(own, port, forward.protocol))]
    except OSError as failure:
        if own == "::" and failure.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return []
        cause = f"failed to bind host port {shown}: {(failure.strerror or str(failure)).lower()}"
        if failure.errno == errno.EADDRINUSE:
            hint = "end that program, or publish to another port"
            raise Conflict("start", subject, cause, hint=hint, code="E0702") from None
        if failure.errno == errno.EACCES:
            hint = f"publish to a port from 1024 on, or as root: sysctl net.ipv4.ip_unprivileged_port_start={port}"
            raise Denied("start", subject, cause, hint=hint, code="E0702") from None
        raise Unavailable("start", subject, cause, code="E0702") from None


def _shown(address: str) -> str:
    return f"[{address}]" if ":" in address else address
