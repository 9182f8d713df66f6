"""Who holds which address and port: endpoints.json in the directory of each container that runs. Writer: the engine.

The index in memory is what the files say; it is read when the engine opens. A file of another boot holds nothing.
"""

from __future__ import annotations

import os

from ...linux.path import read_file
from ...network import subnet
from ...spec import jsonio
from ...spec.errors import OrlopError
from ...spec.network import Attachment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...spec.network import Endpoint

FILE = "endpoints.json"
FILE_BYTES_MAX = 1 << 20


class Attachments:
    """By container id. Changed under the networks' lock; readers see each attachment whole."""

    def __init__(self, containers: str, boot_id: str) -> None:
        """containers: $ORLOP_ROOT/containers."""
        self._containers = containers
        self._boot_id = boot_id
        self.all: dict[str, Attachment] = {}
        self.stale: dict[str, Attachment] = {}  # of another boot: what is on disk elsewhere may be theirs still

    def load(self, container_id: str) -> Attachment | None:
        """Read what a container holds, from its file; None when it holds nothing."""
        path = self._path(container_id)
        try:
            data = read_file(path, FILE_BYTES_MAX)
            found = Attachment.from_json(jsonio.parse(data, path, bytes_max=FILE_BYTES_MAX), path)
        except (OSError, OrlopError):
            return None
        if found.boot_id != self._boot_id:
            self.stale[container_id] = found
            self.drop(container_id)
            return None
        self.all[container_id] = found
        return found

    def get(self, container_id: str) -> Attachment | None:
        """Return what a container holds now."""
        return self.all.get(container_id)

    def hold(self, container_id: str, attachment: Attachment) -> None:
        """Have a container hold this. Raises OSError."""
        # Valid for one boot, so it need not survive a power cut.
        path = self._path(container_id)
        fd = os.open(f"{path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb", buffering=0) as file:
            file.write(jsonio.dump(attachment.to_json()))
        os.rename(f"{path}.tmp", path)
        self.all[container_id] = attachment

    def drop(self, container_id: str) -> None:
        """Have a container hold nothing."""
        self.all.pop(container_id, None)
        try:
            os.unlink(self._path(container_id))
        except FileNotFoundError:
            pass

    def on(self, network_id: str) -> Iterator[tuple[str, Endpoint]]:
        """Yield (container id, endpoint) of a network."""
        for container_id, attachment in list(self.all.items()):
            for endpoint in attachment.endpoints:
                if endpoint.network_id == network_id:
                    yield container_id, endpoint

    def addresses(self, network_id: str) -> set[int]:
        """Return every address that is taken in a network, of both families."""
        return {
            subnet.number(address)[0]
            for _, endpoint in self.on(network_id)
            for address in (endpoint.ipv4, endpoint.ipv6)
            if address
        }

    def _path(self, container_id: str) -> str:
        return f"{self._containers}/{container_id}/{FILE}"
