"""The files of a container that the engine writes for it below /etc: hosts, hostname, resolv.conf.

They lie in the container's own directory and are bind-mounted into it; nothing is ever written through a path of the
image, which may be a symbolic link to a file of the host (SEC-16).
"""

from __future__ import annotations

import os

from ...linux import path
from ...network import resolver
from ...network.dns import client
from ...spec.errors import Invalid
from ..compile.mounts import FILES
from ..networks import attach, links, parents
from ..networks import names as resolver_names
from ..userns import kept
from .record import ContainerRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...spec.network import Attachment
    from ..engine import Engine

HOST_NAME = "host.docker.internal"

_HOST_FILE_BYTES_MAX = 256 * 1024
_HOSTS = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def write(engine: Engine, record: ContainerRecord, attachment: Attachment | None) -> None:
    """Write every file of a container, as the machine and its networks are now. Raises OSError, NotFound."""
    directory = engine.records.path(record.id)
    shared = record.request.network
    if shared.startswith(attach.CONTAINER):
        # Who shares a network shares its names.
        other = engine.records.path(engine.records.lender(record, shared.removeprefix(attach.CONTAINER)).id)
        content = {name: _read(f"{other}/{name}") for name in FILES.values()}
    else:
        content = {
            "hostname": f"{record.config.hostname}\n".encode(),
            "hosts": _hosts(engine, record, attachment),
            "resolv.conf": _resolv_conf(engine, record, attachment),
        }
    shift = kept.on_disk(record, engine.host.runtime)
    for name, data in content.items():
        _replace(f"{directory}/{name}", data, shift.seen(0, 0) if shift else None)


def update(engine: Engine, record: ContainerRecord, attachment: Attachment) -> None:
    """Write what follows from the networks of a running container anew, in place: it is bind-mounted there."""
    directory = engine.records.path(record.id)
    _replace(f"{directory}/hosts", _hosts(engine, record, attachment))
    _replace(f"{directory}/resolv.conf", _resolv_conf(engine, record, attachment))


def _hosts(engine: Engine, record: ContainerRecord, attachment: Attachment | None) -> bytes:
    request = record.request
    if request.network == attach.HOST:
        lines = [_of_the_host("/etc/hosts").decode(errors="replace").removesuffix("\n")]
    else:
        lines = [_HOSTS.removesuffix("\n")]
    gateway = _gateway(engine, attachment)
    for entry in request.extra_hosts:
        name, _, address = entry.partition("=" if "=" in entry else ":")
        address = address.removeprefix("[").removesuffix("]")
        found = (gateway or _machine(engine, request.network)) if address == "host-gateway" else address
        if found:
            lines.append(f"{found}\t{name}")
    if gateway and not any(entry.startswith(HOST_NAME) for entry in request.extra_hosts):
        lines.append(f"{gateway}\t{HOST_NAME}")
    lines += links.host_lines(engine, record)
    name = record.config.hostname
    full = f"{name}.{request.domainname} {name}" if request.domainname else name
    for endpoint in attachment.endpoints if attachment else ():
        lines += [f"{address}\t{full}" for address in (endpoint.ipv4, endpoint.ipv6) if address]
    return _written(lines[0], lines[1:], "/etc/hosts", record)


def _written(first: str, lines: Sequence[str], name: str, record: ContainerRecord) -> bytes:
    """Return a file of lines. first: text of ours. Raises Invalid for one that would be two, whatever let it come as
    far as here: a container's request, a build's, a link's alias (SEC-25: CVE-2022-4318, CVE-2026-15809)."""
    for line in lines:
        if not line.replace("\t", " ").isprintable():
            cause = f"a line of {name} would be {line[:100]!r}"
            raise Invalid("start", record.subject, cause, hint="use names of letters, digits, dots and hyphens")
    return ("\n".join((first, *lines)) + "\n").encode()


def _gateway(engine: Engine, attachment: Attachment | None) -> str:
    for endpoint in attachment.endpoints if attachment else ():
        if attachment is not None and endpoint.network_id == attachment.gateway:
            is_ours = parents.is_machine(engine.networks, endpoint)
            return (endpoint.gateway or endpoint.gateway6) if is_ours else ""
    return ""


def _machine(engine: Engine, network: str) -> str:
    """Return what host-gateway is where no gateway is the machine: as docker has it, the default bridge's."""
    return "127.0.0.1" if network == attach.HOST else engine.networks.machine_address()


def _resolv_conf(engine: Engine, record: ContainerRecord, attachment: Attachment | None) -> bytes:
    of_host = resolver.parse(_of_the_host("/etc/resolv.conf"))
    request = record.request
    if request.network == attach.HOST and not (request.dns or request.dns_search or request.dns_options):
        return _of_the_host("/etc/resolv.conf")
    told = of_host.overridden(resolver.for_every_name(request.dns), request.dns_search, request.dns_options)
    if attachment is None or request.network == attach.HOST:
        return told.render()
    _written("", (*told.search, *told.options), "/etc/resolv.conf", record)
    if resolver_names.is_wanted(engine, record, attachment):
        options = told.options if any(one.startswith("ndots:") for one in told.options) else (*told.options, "ndots:0")
        return resolver.ResolvConf((client.ADDRESS,), told.search, options).render()
    return told.without_loopback().render()


def _read(name: str) -> bytes:
    with open(name, "rb", buffering=0) as file:
        return file.read(_HOST_FILE_BYTES_MAX)


def _of_the_host(name: str) -> bytes:
    # A host without the file, or with a strange one, has containers with an empty one.
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return path.read_in_root(root, name, _HOST_FILE_BYTES_MAX) or b""
    except OSError:
        return b""
    finally:
        os.close(root)


def _replace(name: str, data: bytes, owner: tuple[int, int] | None = None) -> None:
    # Made anew before every start, so it need not be durable.
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with open(fd, "wb", buffering=0) as file:
        if owner is not None:
            os.fchown(fd, *owner)
        os.fchmod(fd, 0o644)  # the engine's umask is not the container's
        file.write(data)
