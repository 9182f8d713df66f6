"""The files of a container that the engine writes for it below /etc: hosts, hostname, resolv.conf.

They lie in the container's own directory and are bind-mounted into it; nothing is ever written through a path of the
image, which may be a symbolic link to a file of the host (SEC-16).
"""

from __future__ import annotations

import os

from ...linux import path
from ..compile.mounts import FILES
from .record import ContainerRecord

_HOST_FILE_BYTES_MAX = 256 * 1024
_HOSTS = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def write(directory: str, record: ContainerRecord) -> None:
    """Write every file of a container, as the machine is now. Raises OSError."""
    for target, name in FILES.items():
        _replace(f"{directory}/{name}", _content(target, record))


def _content(target: str, record: ContainerRecord) -> bytes:
    shares_network = record.request.network == "host"
    if target == "/etc/hostname":
        return f"{record.config.hostname}\n".encode()
    if target == "/etc/hosts" and not shares_network:
        return _HOSTS.encode()
    return _of_the_host(target)


def _of_the_host(name: str) -> bytes:
    # A host without the file, or with a strange one, has containers with an empty one.
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return path.read_in_root(root, name, _HOST_FILE_BYTES_MAX) or b""
    except OSError:
        return b""
    finally:
        os.close(root)


def _replace(name: str, data: bytes) -> None:
    # Made anew before every start, so it need not be durable.
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with open(fd, "wb", buffering=0) as file:
        os.fchmod(fd, 0o644)  # the engine's umask is not the container's
        file.write(data)
