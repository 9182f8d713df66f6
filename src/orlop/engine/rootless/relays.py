"""Published ports of an ordinary user's containers: a relay for each container that has any (`network.relay`)."""

from __future__ import annotations

import errno
from contextlib import ExitStack

from ...linux import process
from ...linux.netlink import namespace
from ...network import relay
from ...spec.errors import Conflict, Denied, Unavailable
from .keeper import end_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from ...network.firewall import Forward
    from ...spec.network import Attachment

PRIVILEGED_PORTS = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


def start(link: str, forwards: list[Forward], subject: str) -> tuple[int, int]:
    """Let ports in: return (pid, start time) of the relay, (0, 0) where nothing is published.

    link: the container's, on this side. Raises Conflict for a port that is taken, Denied for one that is root's.
    """
    if not forwards:
        return 0, 0
    with ExitStack() as opened:
        ports: list[tuple[socket.socket, str, int]] = []
        for forward in forwards:
            for number in range(forward.count):
                for sock in _listen(forward, forward.host_first + number, subject):
                    opened.callback(sock.close)
                    ports.append((sock, forward.address, forward.first + number))
        try:
            pid = relay.start(link, ports)
            return pid, process.start_time(pid)
        except OSError as failure:
            raise Unavailable("publish the ports of", subject, failure.strerror or str(failure)) from None


def end(attachment: Attachment) -> None:
    """End a container's relay: its ports are free when this returns."""
    end_process(attachment.relay, attachment.relay_start_time)


def _listen(forward: Forward, port: int, subject: str) -> list[socket.socket]:
    """Return what listens at one port: nothing for the IPv6 half of "every address" where there is no IPv6."""
    own = forward.host_ip or ("::" if ":" in forward.address else "0.0.0.0")
    shown = f"{f'[{own}]' if ':' in own else own}:{port}/{forward.protocol}"
    try:
        return [namespace.outside(lambda: relay.listen(own, port, forward.protocol))]
    except OSError as failure:
        if failure.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) and not forward.host_ip and ":" in own:
            return []
        cause = f"failed to bind host port {shown}: {failure.strerror}"
        if failure.errno == errno.EADDRINUSE:
            hint = "end that program, or publish to another port"
            raise Conflict("start", subject, cause, hint=hint) from None
        if failure.errno == errno.EACCES:
            hint = f"publish to a port from 1024 on, or as root: sysctl net.ipv4.ip_unprivileged_port_start={port}"
            raise Denied("start", subject, cause, hint=hint) from None
        raise Unavailable("start", subject, cause) from None
