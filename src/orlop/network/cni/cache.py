"""What was added to networks of plugins, in files of libcni's form: whoever speaks CNI sees what is left to delete.

    <directory>/results/<network>-<container>-<interface>    {"kind": "cniCacheV1", ...}

Other runtimes write there, too. Untrusted: a file that can't be understood is nobody's attachment.
"""

from __future__ import annotations

import os
from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64

from ...spec import jsonio
from ...spec.errors import OrlopError
from .client import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .conflist import Conflist

DIRECTORY = "/var/lib/cni"  # of root's runtimes
FILE_BYTES_MAX = 1 << 22
_KIND = "cniCacheV1"


class Cached:
    """An attachment that a file tells of. conflist: as it was for ADD, {} when it can't be understood."""

    __slots__ = ("conflist", "network", "place", "result")

    def __init__(self, found: Mapping[str, object]) -> None:
        """Raises ValueError for what is none."""
        words = [found.get(key) for key in ("kind", "networkName", "containerId", "ifName")]
        kind, network, container, interface = (one if isinstance(one, str) else "" for one in words)
        if kind != _KIND or not network or not container or not interface:
            raise ValueError("it is no attachment")
        self.network = network
        capabilities, args, result = (found.get(key) for key in ("capabilityArgs", "cniArgs", "result"))
        netns = found.get("netns")
        self.place = Place(
            container,
            interface,
            netns if isinstance(netns, str) else "",
            capabilities if isinstance(capabilities, dict) else {},
            _joined(args if isinstance(args, list) else []),
        )
        self.result = result if isinstance(result, dict) else {}
        try:
            self.conflist = jsonio.parse_object(a2b_base64(str(found.get("config", ""))), "the configuration")
        except (NotBase64, OrlopError):
            self.conflist = {}

    @property
    def lives(self) -> bool:
        """Tell whether its namespace is still there."""
        return os.path.exists(self.place.netns)


def add(directory: str, network: Conflist, place: Place, result: Mapping[str, object]) -> None:
    """Keep an attachment. Raises OSError."""
    path = _path(directory, network.name, place)
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    pairs = [[key, value] for key, _, value in (pair.partition("=") for pair in place.args.split(";")) if key]
    document = {
        "kind": _KIND,
        "containerId": place.container,
        "config": b2a_base64(jsonio.dump(network.document), newline=False).decode(),
        "ifName": place.interface,
        "networkName": network.name,
        **({"netns": place.netns} if place.netns else {}),
        **({"cniArgs": pairs} if pairs else {}),
        **({"capabilityArgs": place.capabilities} if place.capabilities else {}),
        "result": dict(result),
    }
    fd = os.open(f"{path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb", buffering=0) as file:
        file.write(jsonio.dump(document))
    os.rename(f"{path}.tmp", path)


def drop(directory: str, network: str, place: Place) -> None:
    """Forget an attachment; there may be none. Raises OSError."""
    try:
        os.unlink(_path(directory, network, place))
    except FileNotFoundError:
        pass


def of_network(directory: str, network: str) -> Iterator[Cached]:
    """Yield the attachments of a network, whoever made them."""
    try:
        names = sorted(os.listdir(f"{directory}/results"))
    except OSError:
        return
    for name in names:
        if name.startswith(f"{network}-"):
            try:
                with open(f"{directory}/results/{name}", "rb", buffering=0, opener=_without_waiting) as file:
                    data = file.read(FILE_BYTES_MAX + 1)
                found = Cached(jsonio.parse_object(data, name, bytes_max=FILE_BYTES_MAX))
            except (OSError, OrlopError, ValueError):
                continue
            if found.network == network:
                yield found


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)


def _path(directory: str, network: str, place: Place) -> str:
    return f"{directory}/results/{network}-{place.container}-{place.interface}"


def _joined(pairs: list[object]) -> str:
    return ";".join(f"{one[0]}={one[1]}" for one in pairs if isinstance(one, list) and len(one) == 2)
