"""The files of a container that the engine writes for it below /etc: hosts, hostname, resolv.conf.

They lie in the container's own directory and are bind-mounted into it; nothing is ever written through a path of the
image, which may be a symbolic link to a file of the host (SEC-16).
"""

from __future__ import annotations

import os

from ...linux import path
from ...network import resolver
from ...network.dns import client
from ...spec.errors import Invalid, OrlopError
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
_SECOND_NS = 10**9
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


def update(
    engine: Engine, record: ContainerRecord, attachment: Attachment, before: tuple[ContainerRecord, Attachment | None]
) -> None:
    """Write what follows from the networks of a running container anew, in place: it is bind-mounted there, and in the
    containers that share its network. before: what was so until now.

    What the container itself has written stays: each line of /etc/hosts that is not ours, and a resolv.conf that is not
    as we wrote it, whole.
    """
    old, new = (_lines(_hosts(engine, *state)) for state in (before, (record, attachment)))
    servers = _resolv_conf(engine, record, attachment)
    for directory in map(engine.records.path, (record.id, *_borrowers(engine, record))):
        try:
            hosts = _read(f"{directory}/hosts")
            if len(hosts) <= _HOST_FILE_BYTES_MAX:
                kept = [line for line in _lines(hosts) if line not in old or line in new]
                kept += [line for line in new if line not in kept and line not in old]
                _replace(f"{directory}/hosts", b"".join(line + b"\n" for line in kept))
            if _is_ours(f"{directory}/resolv.conf"):
                _replace(f"{directory}/resolv.conf", servers)
        except FileNotFoundError:
            continue  # a borrower that is being removed


def _lines(data: bytes) -> list[bytes]:
    return data.removesuffix(b"\n").split(b"\n")


def _borrowers(engine: Engine, record: ContainerRecord) -> list[str]:
    """Return the ids of the containers that run in the network of a container."""
    found = []
    for other in engine.records.all():
        shared = other.request.network
        if shared.startswith(attach.CONTAINER) and engine.observe(other.id).is_up:
            try:
                lender = engine.records.lender(other, shared.removeprefix(attach.CONTAINER)).id
            except OrlopError:
                continue
            if lender == record.id:
                found.append(other.id)
    return found


def _hosts(engine: Engine, record: ContainerRecord, attachment: Attachment | None) -> bytes:
    request = record.request
    if request.network == attach.HOST:
        lines = [_of_the_host("/etc/hosts").decode(errors="replace").removesuffix("\n")]
    else:
        lines = [_HOSTS.removesuffix("\n")]
    gateway = _gateway(engine, attachment)
    said = set()
    for entry in request.extra_hosts:
        name, _, address = entry.partition("=" if "=" in entry else ":")
        said.add(name.lower())
        address = address.removeprefix("[").removesuffix("]")
        found = (gateway or _machine(engine, request.network)) if address == "host-gateway" else address
        if found:
            lines.append(f"{found}\t{name}")
    if gateway and HOST_NAME not in said:
        lines.append(f"{gateway}\t{HOST_NAME}")
    lines += links.host_lines(engine, record)
    name = record.config.hostname
    whole = f"{name}.{request.domainname}" if request.domainname else name
    full = f"{whole} {short}" if (short := whole.partition(".")[0]) != whole and short else whole
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
    """Return a file of ours, which a container may have written to: at most one byte more than it should have."""
    with open(name, "rb", buffering=0) as file:
        return file.read(_HOST_FILE_BYTES_MAX + 1)


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
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with open(fd, "wb", buffering=0) as file:
        if owner is not None:
            os.fchown(fd, *owner)
        os.fchmod(fd, 0o644)  # the engine's umask is not the container's
        file.write(data)
        file.truncate()  # at its end: who reads it meanwhile does not find it empty
        now_s = os.fstat(fd).st_mtime_ns // _SECOND_NS
        os.utime(fd, ns=(now_s * _SECOND_NS, now_s * _SECOND_NS))


def _is_ours(name: str) -> bool:
    """Tell whether a file is as we wrote it: its time is a whole second, which a writer's hardly is."""
    return os.stat(name, follow_symlinks=False).st_mtime_ns % _SECOND_NS == 0
